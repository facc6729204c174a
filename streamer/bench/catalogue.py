"""A catalogue with vectors, and rounds that change part of them, as an engine hands them over."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.model import Model
from core.placing.clusters import unit_rows
from core.placing.leaving import Leaving, Left
from core.placing.placement import Placement, Placer
from core.rounds import Changes
from core.settings import LshSettings, Settings

NESTED = ((1500, 0.21), (120, 0.19), (12, 0.13), (1, 0.15))
"""Items of a group, and the share of a vector's squared length that its group decides; .32 are
common to all V^. So the mean cosine of an item with its 1st, 10th, 100th and 1000th neighbour, and
with any other item, is .88, .82, .69, .55 and .32: with the 43,000 items that diginetica's sessions
gave, it is .90, .84, .72, .53 and .32."""
ALIKE = np.float32(0.9)
"""Cosine of V^ and U^ of an item without what is common to all V^, which is opposite in U^: there,
.91 and -.99."""
STEP = 0.05
"""Length of a change of a unit row in a round: about 1 of 8 buckets moves, as in a replay of
online-retail once its items are settled."""
BITS = 14
"""Of a bucket key (`lsh.bits`), for 100,000 items."""
DAY_MS = 86_400_000


@dataclass
class Catalogue:
    """A model of n items that is changed from outside, and placed as a commit places it."""

    model: Model
    placer: Placer
    placement: Placement
    keys: list[bytes]
    last_seen: NDArray[np.int64]
    version: int = 0

    @classmethod
    def make(cls, n: int, seed: int = 1) -> "Catalogue":
        settings, rng = Settings(lsh=LshSettings(bits=BITS)), np.random.default_rng(seed)
        model, slots = Model(settings), np.arange(n, dtype=np.int32)
        model.reserve(n)
        hashes = rng.integers(0, 1 << 63, n).astype(np.uint64)
        model.first_rows(slots, np.zeros(n, np.int32), hashes)
        model.rows.v[:n], model.rows.u[:n] = nested(n, settings.model.dim, rng)
        model.columns.is_item[:n] = True
        model.columns.updates[:n] = 100
        placer = Placer(settings)
        placement = placer.refresh(Placement.empty(), model, slots, 0)
        keys = [b"%09d" % number for number in rng.permutation(10 * n)[:n]]
        return cls(model, placer, placement, keys, np.full(n, DAY_MS))

    def __len__(self) -> int:
        return len(self.keys)

    def learn(self, slots: NDArray[np.int32], rng: np.random.Generator) -> None:
        """Move V and U of these items a little, in any direction."""
        for rows in (self.model.rows.v, self.model.rows.u):
            step = rng.standard_normal((len(slots), rows.shape[1])).astype(np.float32)
            rows[slots] = unit_rows(rows[slots] + np.float32(STEP) * unit_rows(step))

    def close(self, slots: NDArray[np.int32]) -> Changes:
        """What a commit that changed these items hands over."""
        self.version += 1
        self.model.columns.version[slots] = self.version
        left = Leaving(self.placer.settings, self.placer).leave(
            self.model, self.placement, slots, DAY_MS
        )
        return self._changes(left)

    def _changes(self, placed: Left) -> Changes:
        slots = placed.slots
        return Changes(
            keys=[self.keys[slot] for slot in slots.tolist()],
            partitions=np.zeros(len(slots), np.int32),
            rows=self.model.pack(slots, self.last_seen),
            published=placed.published,
            vectors=placed.vectors,
            contexts=placed.contexts,
            lengths=placed.lengths,
            drift=placed.drift,
            gone=[],
            versions={0: self.version},
            placed_by=self.placement,
            placement=self.placement if self.version == 1 else None,
            oldest_epoch=0,
            time=DAY_MS,
            cluster_moves=placed.cluster_moves,
            bucket_moves=placed.bucket_moves,
        )


def nested(
    n: int, dim: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """V^ and U^ of items in groups of groups, unit rows float32 [n, dim] each."""

    def directions(count: int) -> NDArray[np.float32]:
        return unit_rows(rng.standard_normal((count, dim)).astype(np.float32))

    place, common = rng.permutation(n), directions(1)
    common *= np.sqrt(1.0 - sum(share for _, share in NESTED))
    v, u = np.repeat(common, n, axis=0), np.repeat(-common, n, axis=0)
    for size, share in NESTED:
        shared, own = directions(n // size + 1), directions(n // size + 1)
        mixed = unit_rows(ALIKE * shared + np.sqrt(1.0 - ALIKE**2) * own)
        v += np.sqrt(share) * shared[place // size]
        u += np.sqrt(share) * mixed[place // size]
    return unit_rows(v), unit_rows(u)
