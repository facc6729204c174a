"""Locality-sensitive hashing: tables of keys, equal keys for near vectors.

Families: sign of random projections for angles (Charikar, "Similarity estimation techniques from
rounding algorithms", STOC 2002) and floor((x.v + b) / w) for distances (Datar, Immorlica, Indyk and
Mirrokni, "Locality-sensitive hashing scheme based on p-stable distributions", SCG 2004). All hashes
of a table must agree (AND), any table will do (OR), and a query also probes the keys across its
nearest boundaries (Lv et al., "Multi-probe LSH", VLDB 2007).

A key is uint64 and holds the codes of its hashes side by side, so that the old code of every hash
can be read back from the old key: a code changes only when the projection is past the boundary by
`margin`, and a vector that trembles on a boundary keeps its bucket.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.settings import LshSettings

NEAREST = 10
"""Boundaries of a table that a query may cross."""


@dataclass(frozen=True)
class Lsh:
    """The hash functions of a vector space: a function of the settings, the length and the seed."""

    settings: LshSettings
    planes: NDArray[np.float32]
    """[length, tables * bits] standard normal."""
    offsets: NDArray[np.float32]
    """[tables * bits] in [0, width) for p-stable, zeros for sign."""

    @classmethod
    def create(cls, settings: LshSettings, length: int, seed: int) -> "Lsh":
        rng = np.random.default_rng([seed, length])
        hashes = settings.tables * settings.bits
        planes = rng.standard_normal((length, hashes)).astype(np.float32)
        offsets = np.zeros(hashes, np.float32)
        if settings.family == "p-stable":
            offsets = (rng.random(hashes) * settings.width).astype(np.float32)
        return cls(settings, planes, offsets)

    @property
    def _code_bits(self) -> int:
        """Bits that the code of one hash takes in a key; float32 counts cells up to 24 of them."""
        return 1 if self.settings.family == "sign" else min(24, 64 // self.settings.bits)

    def _project(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projections in cells, [n, tables, bits]: boundaries are at the whole numbers."""
        cells = x @ self.planes + self.offsets
        if self.settings.family == "p-stable":
            cells /= np.float32(self.settings.width)
        return cells.reshape(len(x), self.settings.tables, self.settings.bits)

    def _codes(self, cells: NDArray[np.float32]) -> NDArray[np.int64]:
        """Codes as they stand in a key: 0 or 1, or the cell's number, clipped, from 0 up."""
        if self.settings.family == "sign":
            return (cells >= 0).astype(np.int64)
        half = 1 << (self._code_bits - 1)
        return np.clip(np.floor(cells), -half, half - 1).astype(np.int64) + half

    def _pack(self, codes: NDArray[np.int64]) -> NDArray[np.uint64]:
        shifts = np.arange(self.settings.bits, dtype=np.uint64) * np.uint64(self._code_bits)
        return np.bitwise_or.reduce(codes.astype(np.uint64) << shifts, axis=-1)

    def _unpack(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        shifts = np.arange(self.settings.bits, dtype=np.uint64) * np.uint64(self._code_bits)
        mask = np.uint64((1 << self._code_bits) - 1)
        return ((keys[..., None] >> shifts) & mask).astype(np.int64)

    def keys(
        self,
        x: NDArray[np.float32],
        old: NDArray[np.uint64] | None = None,
        known: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.uint64]:
        """Bucket keys of vectors x [n, length], uint64 [n, tables].

        Where `known` (bool [n]), `old` (uint64 [n, tables]) holds the keys so far, and a code stays
        while the projection is within `margin` of its cell.
        """
        cells = self._project(x)
        codes = self._codes(cells)
        if old is not None and known is not None:
            before = self._unpack(old)
            if self.settings.family == "sign":
                near = np.abs(cells) <= self.settings.margin
            else:
                low = (before - (1 << (self._code_bits - 1))).astype(np.float32)
                margin = self.settings.margin / self.settings.width
                near = (cells >= low - margin) & (cells <= low + 1 + margin)
            codes = np.where(known[:, None, None] & near, before, codes)
        return self._pack(codes)

    def probes(self, query: NDArray[np.float32], extra: int) -> NDArray[np.uint64]:
        """Keys to look up for one vector, uint64 [tables, 1 + extra], the likeliest first.

        The further ones cross boundaries, in the order of the sum of squared distances to them: any
        of the `NEAREST` boundaries of a table, so that it has at most 2^NEAREST keys to give.
        """
        cells = self._project(query[None, :])[0]
        codes = self._codes(cells)
        if self.settings.family == "sign":
            distance, step = np.abs(cells), np.where(codes == 1, -1, 1)
        else:
            part = cells - np.floor(cells)
            distance = np.minimum(part, 1 - part)
            step = np.where(part < 0.5, -1, 1)
        near = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
        crossed = np.arange(1 << near.shape[1])[:, None] >> np.arange(near.shape[1]) & 1
        cost = np.take_along_axis(distance, near, axis=1) ** 2 @ crossed.T
        best = crossed[np.argsort(cost, axis=1, kind="stable")[:, : 1 + extra]]
        moved = np.repeat(codes[:, None, :], best.shape[1], axis=1)
        steps = np.take_along_axis(step, near, axis=1)[:, None, :]
        at = np.broadcast_to(near[:, None, :], best.shape)
        value = np.take_along_axis(moved, at, axis=2) + best * steps
        top = (1 << self._code_bits) - 1
        np.put_along_axis(moved, at, np.clip(value, 0, top), axis=2)
        return self._pack(moved)
