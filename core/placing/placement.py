"""Where rows are placed: cluster and buckets of each row, and when a vector is worth publishing."""

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
    """The outcome of `Placer.place`; arrays are those of `core.rounds.Changes`."""

    published: NDArray[np.int64]
    vectors: NDArray[np.float32]
    contexts: NDArray[np.float32]
    drift: NDArray[np.float32]
    cluster_moves: int
    """Items published before whose cluster is another."""
    bucket_moves: int
    """Buckets that items published before left for others, one for each table."""


def features(vectors: NDArray[np.float32], contexts: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is hashed, float32 [n, d]: V^ + U^ / 2, one index for both kinds of query.

    On a shop of 34,000 items, [V^; U^] and V^ alone each needed a half more candidates to reach the
    same recall of V^a.V^b ("similar") and V^a.V^b + V^a.U^b + U^a.V^b ("next"); on one of 4,700
    items the three were equal.
    """
    return vectors + np.float32(0.5) * contexts


def _drift(now: NDArray[np.float32], published: NDArray[np.float16]) -> NDArray[np.float32]:
    """Cosine distance of unit rows, as half their squared distance; 0 for two rows of zeros."""
    gap = now - published
    return np.float32(0.5) * np.einsum("ij,ij->i", gap, gap)


class Placer:
    """Clusters, buckets and the decision to publish, for one vector space."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lsh = Lsh.create(settings.lsh, settings.model.dim, settings.model.seed)

    def due(self, placement: Placement, model: Model, items: NDArray[np.int32], now: int) -> bool:
        """Whether a major update is: by event time, or because `clusters.count` is another now and
        there are enough items for it."""
        if placement.epoch == 0:
            return False
        count, every = self.settings.clusters.count, int(self.settings.major.every)
        if len(placement.centroids) != count and len(self._settled(model, items)) >= count:
            return True
        return every > 0 and now - placement.fitted_at >= every

    def _settled(self, model: Model, items: NDArray[np.int32]) -> NDArray[np.int32]:
        return items[model.columns.updates[items] >= SETTLED]

    def refresh(
        self, placement: Placement, model: Model, items: NDArray[np.int32], now: int, major: bool
    ) -> Placement | None:
        """A placement of the next epoch: the first one once enough items are settled, and then one
        in each major update, whose centroids start from where they were. None otherwise."""
        s = self.settings
        if placement.epoch > 0 and not major:
            return None
        settled = self._settled(model, items)
        if placement.epoch == 0 and len(settled) < max(s.clusters.min_items, s.clusters.count):
            return None
        vectors = unit_rows(hidden(model.rows, settled))
        if placement.epoch == 0:
            centre = features(vectors, unit_rows(model.rows.u[settled])).mean(axis=0)
            start = clusters.seed_centroids(vectors, s.clusters.count, s.model.seed)
        else:
            centre, start = placement.centre, placement.centroids
            if len(settled) >= s.clusters.count:
                start = clusters.resized(vectors, start, s.clusters.count, s.model.seed)
        return Placement(placement.epoch + 1, now, centre, clusters.refine(vectors, start))

    def place(self, placement: Placement, model: Model, slots: NDArray[np.int32]) -> Placed:
        """Place the changed rows `slots` and mark those to publish as published, in `model`."""
        s, c, r = self.settings, model.columns, model.rows
        ready = c.is_item[slots] & ((c.updates[slots] > 0) | (r.attrs[slots] >= 0).any(axis=1))
        at = np.flatnonzero(ready)
        rows = slots[at]
        vectors, contexts = unit_rows(hidden(r, rows)), unit_rows(r.u[rows])
        known = c.published[rows] > 0
        # After centroids moved, each item goes to the nearest, without the margin.
        old = np.where(c.epoch[rows] == placement.epoch, c.cluster[rows], clusters.NONE)
        cluster = clusters.assign(vectors, placement.centroids, old, s.clusters.margin)
        x = features(vectors, contexts)
        if placement.epoch > 0:
            x = x - placement.centre
        rehash = known & (c.epoch[rows] > 0) | known & (placement.epoch == 0)
        buckets = self.lsh.keys(x, c.buckets[rows], rehash)
        drift = np.maximum(_drift(vectors, c.pub_v[rows]), _drift(contexts, c.pub_u[rows]))
        moved_cluster = known & (cluster != c.cluster[rows])
        moved_buckets = known[:, None] & (buckets != c.buckets[rows])
        moved = moved_cluster | moved_buckets.any(axis=1)
        leaves = ~known | c.stale[rows] | moved | (drift >= s.publish.min_drift)
        out, published = rows[leaves], at[leaves]
        c.cluster[out], c.buckets[out] = cluster[leaves], buckets[leaves]
        c.epoch[rows] = placement.epoch
        c.published[out] = c.version[out]
        c.pub_v[out], c.pub_u[out] = vectors[leaves], contexts[leaves]
        c.stale[slots] = False
        return Placed(
            published,
            vectors[leaves],
            contexts[leaves],
            drift[leaves & known],
            int(moved_cluster.sum()),
            int(moved_buckets.sum()),
        )
