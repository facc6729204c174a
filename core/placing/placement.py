"""Where rows are placed: cluster and buckets of each, and the centroids that they follow from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import hidden
from core.model import Model
from core.placing import clusters
from core.placing.clusters import unit_rows
from core.placing.lsh import Lsh
from core.settings import Settings

SETTLED = 10
"""Updates after which an item counts for centroids and centre."""
SAMPLE = 50_000
"""Settled items that centroids are fitted to at most."""
PURPOSE = 7
"""Purpose number of this module's random stream."""


@dataclass(frozen=True)
class Placement:
    """The centroids and the centre that clusters and buckets follow from; each epoch has its own.

    centre float32 [d] is subtracted before hashing and stays for the life of the vector space;
    centroids float32 [c, d] are unit rows; both are empty in epoch 0, while items are too few.
    """

    epoch: int
    fitted_at: int
    """Event time of the fit, ms."""
    centre: NDArray[np.float32]
    centroids: NDArray[np.float32]

    @classmethod
    def empty(cls) -> "Placement":
        return cls(0, 0, np.zeros(0, np.float32), np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class Placed:
    """Where items belong, and the unit rows by which that was judged; n of them."""

    vectors: NDArray[np.float32]
    contexts: NDArray[np.float32]
    cluster: NDArray[np.int32]
    buckets: NDArray[np.uint64]


def features(vectors: NDArray[np.float32], contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is hashed, float32 [n, d]: V^ + U^ / 2, one index for both kinds of query.

    On a shop of 34,000 items, [V^; U^] and V^ alone each needed a half more candidates to reach the
    same recall of V^a.V^b ("similar") and V^a.V^b + V^a.U^b + U^a.V^b ("next"); on one of 4,700
    items the three were equal.
    """
    return vectors + np.float32(0.5) * contexts


class Placer:
    """Clusters and buckets of one vector space."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lsh = Lsh.create(settings.lsh, settings.model.dim, settings.model.seed)

    def due(self, placement: Placement, settled: int, now: int) -> bool:
        """Whether a major update is: by event time, or because `clusters.count` is another now and
        there are enough settled items for it."""
        if placement.epoch == 0:
            return False
        count, every = self.settings.clusters.count, int(self.settings.major.every)
        if len(placement.centroids) != count and settled >= count:
            return True
        return every > 0 and now - placement.fitted_at >= every

    def is_first_due(self, placement: Placement, settled: int) -> bool:
        """Whether there are enough settled items for the first clusters of all."""
        s = self.settings.clusters
        return placement.epoch == 0 and settled >= max(s.min_items, s.count)

    def refresh(
        self, placement: Placement, model: Model, items: NDArray[np.int32], now: int
    ) -> Placement:
        """A placement of the next epoch. The centroids start from where they were."""
        s = self.settings
        settled = items[model.columns.updates[items] >= SETTLED]
        if len(settled) > SAMPLE:
            rng = np.random.default_rng([s.model.seed, placement.epoch, PURPOSE])
            settled = np.sort(rng.choice(settled, SAMPLE, replace=False))
        vectors = unit_rows(hidden(model.rows, settled))
        if placement.epoch == 0:
            centre = features(vectors, unit_rows(model.rows.u[settled])).mean(axis=0)
            start = clusters.seed_centroids(vectors, s.clusters.count, s.model.seed)
        else:
            centre, start = placement.centre, placement.centroids
            if len(settled) >= s.clusters.count:
                start = clusters.resized(vectors, start, s.clusters.count, s.model.seed)
        return Placement(placement.epoch + 1, now, centre, clusters.refine(vectors, start))

    def place(self, placement: Placement, model: Model, rows: NDArray[np.int32]) -> Placed:
        """Where these items belong, each by where it was last published."""
        s, c, r = self.settings, model.columns, model.rows
        vectors, contexts = unit_rows(hidden(r, rows)), unit_rows(r.u[rows])
        known = c.published[rows] > 0
        # After centroids moved, each item goes to the nearest, without the margin.
        old = np.where(c.epoch[rows] == placement.epoch, c.cluster[rows], clusters.NONE)
        cluster = clusters.assign(vectors, placement.centroids, old, s.clusters.margin)
        x = features(vectors, contexts)
        if placement.epoch > 0:
            x = x - placement.centre
        rehash = known & (c.epoch[rows] > 0) | known & (placement.epoch == 0)
        return Placed(vectors, contexts, cluster, self.lsh.keys(x, c.buckets[rows], rehash))
