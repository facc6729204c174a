"""Locality-sensitive hashing: tables of keys, equal keys for near vectors.

Families: sign of random projections for angles (Charikar, "Similarity estimation techniques from
rounding algorithms", STOC 2002) and floor((x.v + b) / w) for distances (Datar, Immorlica, Indyk and
Mirrokni, "Locality-sensitive hashing scheme based on p-stable distributions", SCG 2004). Planes of
the sign family are orthogonal (Ji, Li, Yan, Zhang and Tian, "Super-bit locality-sensitive hashing",
NIPS 2012): with 12 bits that takes a quarter fewer candidates for the same recall. All hashes
of a table must agree (AND), any table will do (OR), and a query also probes the keys across its
nearest boundaries (Lv et al., "Multi-probe LSH", VLDB 2007).

A key is uint64 and holds the codes of its hashes side by side, so that the old code of every hash
can be read back from the old key: a code changes only when the projection is past the boundary by
`margin`, and a vector that trembles on a boundary keeps its bucket.
"""

from dataclasses import dataclass
from heapq import heappop, heappush

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.settings import LshSettings

NEAREST = 10
"""Boundaries of a table that a query may cross."""
LEAST_BITS, MOST_BITS = 12, 32
"""Bounds of the bits that follow the catalogue."""
ITEMS_A_BUCKET = 12
"""So many items at most there are then to each key that a table may have: one bit more for each
doubling of the catalogue past 49,152 items, so 14 for 100,000.

By `walkstream tune`, on made catalogues of 12,000 to 100,000 items in groups of 30, what a query
costs at a recall of .95 is within 10% of the least from 3 to 12 items to a key, a quarter to two
fifths above it at 24, and half at 49."""


def bits_for(items: int, before: int = 0) -> int:
    """How many bits a catalogue of so many items asks for. Where there were bits `before`, they
    become more at once, and fewer only where two less are enough, so that they do not come and go
    with a few items: each change puts all items into other buckets."""
    bits = LEAST_BITS
    while bits < MOST_BITS and items > ITEMS_A_BUCKET << bits:
        bits += 1
    return before if bits == before - 1 else bits


@dataclass(frozen=True)
class Lsh:
    """The hash functions of a vector space: a function of the settings, the length and the seed."""

    settings: LshSettings
    planes: NDArray[np.float32]
    """[length, tables * bits] standard normal; for sign, as many as there are dimensions are made
    orthogonal at a time, at length sqrt(length)."""
    offsets: NDArray[np.float32]
    """[tables * bits] in [0, width) for p-stable, zeros for sign."""

    @classmethod
    def create(cls, settings: LshSettings, length: int, seed: int) -> "Lsh":
        rng = np.random.default_rng([seed, length])
        hashes = settings.tables * settings.bits
        planes = rng.standard_normal((length, hashes))
        offsets = np.zeros(hashes, np.float32)
        if settings.family == "p-stable":
            offsets = (rng.random(hashes) * settings.width).astype(np.float32)
        else:
            for begin in range(0, hashes, length):
                part = slice(begin, begin + length)
                planes[:, part] = np.sqrt(length) * np.linalg.qr(planes[:, part])[0]
        return cls(settings, planes.astype(np.float32), offsets)

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
        cells, s = self._project(x), self.settings
        out = np.zeros(cells.shape[:2], np.uint64)
        if old is None or known is None:
            old, known = out, np.zeros(len(x), np.bool_)
        signs = s.family == "sign"
        margin = np.float32(s.margin if signs else s.margin / s.width)
        _keys(cells, self._code_bits, signs, margin, old, known, out)
        return out

    def probes(self, query: NDArray[np.float32], extra: int) -> NDArray[np.uint64]:
        """Keys to look up for one vector, uint64 [tables, 1 + extra], the likeliest first.

        The further ones cross boundaries, in the order of the sum of squared distances to them: any
        of the `NEAREST` boundaries of a table, so that it has at most 2^NEAREST keys to give.
        """
        bits = self.settings.bits
        width = min(1 + extra, 1 << min(bits, NEAREST))
        out = np.empty((self.settings.tables, width), np.uint64)
        _probes(
            self._project(query[None, :])[0], self._code_bits, self.settings.family == "sign", out
        )
        return out


@nb.njit(cache=True, nogil=True)
def _code(cell, code_bits, signs):  # type: ignore[no-untyped-def]
    """The code of a hash as it stands in a key: 0 or 1, or the cell's number, clipped, from 0."""
    if signs:
        return 1 if cell >= 0.0 else 0
    half = 1 << (code_bits - 1)
    return int(min(max(np.floor(cell), -half), half - 1)) + half


@nb.njit(cache=True, nogil=True)
def _keys(cells, code_bits, signs, margin, old, known, out):  # type: ignore[no-untyped-def]
    """out[i, t] = the codes of cells[i, t], side by side; of old[i, t] those that stay."""
    n, tables, bits = cells.shape
    half = 1 << (code_bits - 1)
    mask = np.uint64((1 << code_bits) - 1)
    for i in range(n):
        for t in range(tables):
            key = np.uint64(0)
            for b in range(bits):
                cell = cells[i, t, b]
                shift = np.uint64(b * code_bits)
                code = np.uint64(_code(cell, code_bits, signs))
                if known[i]:
                    before = (old[i, t] >> shift) & mask
                    if signs:
                        stays = abs(cell) <= margin
                    else:
                        low = np.float32(np.int64(before) - half)
                        stays = cell >= low - margin and cell <= low + np.float32(1.0) + margin
                    if stays:
                        code = before
                key |= code << shift
            out[i, t] = key


@nb.njit(cache=True, nogil=True)
def _probes(cells, code_bits, signs, out):  # type: ignore[no-untyped-def]
    """out[t] = the keys of table t in the order of their cost, the own key first.

    The sets of boundaries to cross come from a heap, as in Lv et al.: behind each set come the one
    with its last boundary moved on to the next, and the one with the next added.
    """
    tables, bits = cells.shape
    near = min(bits, NEAREST)
    top = (1 << code_bits) - 1
    distance = np.empty(bits, np.float64)
    for t in range(tables):
        own = np.uint64(0)
        for b in range(bits):
            cell = cells[t, b]
            part = cell - np.floor(cell)
            distance[b] = abs(cell) if signs else min(part, 1 - part)
            own |= np.uint64(_code(cell, code_bits, signs)) << np.uint64(b * code_bits)
        nearest = np.argsort(distance, kind="mergesort")[:near]
        cost = distance[nearest] ** 2
        out[t, 0] = own
        heap = [(cost[0], 0, 1)]
        for j in range(1, out.shape[1]):
            so_far, last, crossed = heappop(heap)
            if last + 1 < near:
                more = so_far + cost[last + 1]
                added = 1 << (last + 1)
                heappush(heap, (more - cost[last], last + 1, crossed - (1 << last) + added))
                heappush(heap, (more, last + 1, crossed + added))
            key = own
            for m in range(near):
                if crossed >> m & 1:
                    b = nearest[m]
                    code = _code(cells[t, b], code_bits, signs)
                    if signs:
                        moved = 1 - code
                    else:
                        step = -1 if cells[t, b] - np.floor(cells[t, b]) < 0.5 else 1
                        moved = min(max(code + step, 0), top)
                    key ^= np.uint64(code ^ moved) << np.uint64(b * code_bits)
            out[t, j] = key
