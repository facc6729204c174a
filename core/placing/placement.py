"""Where rows are placed: cluster and buckets of each, and the centroids that they follow from."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import hidden
from core.model import Model
from core.placing import clusters, matching, quiet, rules
from core.placing.clusters import unit_rows
from core.placing.lsh import LEAST_BITS, Lsh, bits_for
from core.placing.rules import Names, Rules
from core.settings import Settings

SETTLED = 10
"""Updates after which an item counts for centroids and centre."""
SAMPLE = 50_000
"""Settled items that centroids are fitted to at most."""
NOBODY = -1
"""In place of an epoch that is to be followed by another: nobody asked."""
PURPOSE, ANEW = 7, 1007
"""Purpose numbers of this module's random streams: the sample, and clusters found anew."""


@dataclass(frozen=True)
class Placement:
    """The centroids and the centre that clusters and buckets follow from; each epoch has its own,
    to which items may add centroids of clusters that they found.

    centre float32 [d] is subtracted before hashing and stays for the life of the vector space;
    centroids float32 [c, d] are unit rows; both are empty in epoch 0, while items are too few.
    Where items go by rules, a centroid is the mean of those that are settled, or zeros.
    """

    epoch: int
    fitted_at: int
    """Event time of the fit, ms."""
    centre: NDArray[np.float32]
    centroids: NDArray[np.float32]
    founded: int = 0
    """So many of the centroids were founded by items that were far from all others."""
    rules: Rules | None = None
    """By which items are in clusters, if not by the centroids."""
    bits: int = 0
    """Of each LSH key, where they follow the catalogue; else 0."""
    bits_since: int = 0
    """The first epoch whose keys have so many, and are of this vector space."""

    @property
    def hashed_since(self) -> int:
        """The first epoch whose keys are of the hashes of this one: of as many bits, and around the
        same centre. Others say nothing of these."""
        return max(self.bits_since, min(self.epoch, 1))

    def bits_by(self, setting: int) -> int:
        """The bits of each LSH key, where `lsh.bits` is this."""
        return setting or self.bits or LEAST_BITS

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

    def __init__(self, settings: Settings, names: Names = lambda slots: []) -> None:
        """`names` gives the keys of slots, which rules go by."""
        self.settings, self.names = settings, names
        self._hashing: dict[int, Lsh] = {}
        self.quiet = quiet.parsed(settings.major.window)

    def hashing(self, placement: Placement) -> Lsh:
        """The hash functions that buckets follow from by this placement."""
        s = self.settings
        bits = placement.bits_by(s.lsh.bits)
        if bits not in self._hashing:
            self._hashing[bits] = Lsh.create(replace(s.lsh, bits=bits), s.model.dim, s.model.seed)
        return self._hashing[bits]

    def due(
        self, placement: Placement, settled: int, before: int, now: int, asked: int, leads: bool
    ) -> bool:  # fmt: skip
        """Whether a major update is, by a round that moves event time from `before` to `now`, ms:
        as the epoch `asked` is to be the last no longer; or in quiet hours, or with the step over
        them, as it is time, or because `clusters.count` or `clusters.kind` is another now and there
        are enough settled items for it. The last is for the one who `leads`, by whose settings
        centroids are made: by those of others they might never be as they are to be."""
        if placement.epoch == 0:
            return False
        if placement.epoch == asked:
            return True
        if not (self.quiet.holds(now) or self.quiet.lies_between(before, now)):
            return False
        every = int(self.settings.major.every)
        if leads and self._is_other_than_set(placement, settled):
            return True
        return every > 0 and now - placement.fitted_at >= every

    def _is_other_than_set(self, placement: Placement, settled: int) -> bool:
        """Whether this many settled items make clusters of another count or kind now."""
        by_rules, count = placement.rules is not None, self._count(placement)
        if by_rules != self._by_rules:
            return self._by_rules or settled >= count
        return not by_rules and len(placement.centroids) != count and settled >= count

    def is_first_due(self, placement: Placement, settled: int) -> bool:
        """Whether there are enough settled items for the first clusters of all."""
        s = self.settings.clusters
        least = s.min_items if self._by_rules else max(s.min_items, s.count)
        return placement.epoch == 0 and settled >= least

    @property
    def _by_rules(self) -> bool:
        return self.settings.clusters.kind == "rules"

    def _count(self, placement: Placement) -> int:
        """How many centroids k-means is to have: also those of clusters that items founded."""
        s = self.settings.clusters
        return min(s.count + placement.founded, s.most) if s.spawn > 0.0 else s.count

    def refresh(
        self, placement: Placement, model: Model, items: NDArray[np.int32], now: int
    ) -> Placement:
        """A placement of the next epoch, as `clusters.update` and `clusters.kind` say."""
        s = self.settings
        settled = items[model.columns.updates[items] >= SETTLED]
        if len(settled) > SAMPLE:
            rng = np.random.default_rng([s.model.seed, placement.epoch, PURPOSE])
            settled = np.sort(rng.choice(settled, SAMPLE, replace=False))
        vectors = unit_rows(hidden(model.rows, settled))
        centre = placement.centre
        if placement.epoch == 0:
            centre = features(vectors, unit_rows(model.rows.u[settled])).mean(axis=0)
        new = replace(placement, epoch=placement.epoch + 1, fitted_at=now, centre=centre)
        if s.lsh.bits == 0:
            bits = bits_for(len(items), placement.bits)
            since = placement.bits_since if bits == placement.bits else new.epoch
            new = replace(new, bits=bits, bits_since=since)
        attrs, goes_by = model.rows.attrs, placement.rules
        if self._by_rules:
            goes_by = rules.fit(attrs[items], self.names, s.clusters, goes_by)
        elif len(settled) >= self._count(placement):
            goes_by = None  # else the rules that there were stay, until there are items for others
        if goes_by is not None:
            label = goes_by.clusters(attrs[settled], self.names)
            means = clusters.centroids_of(vectors, label, len(goes_by.names))
            return replace(new, centroids=means, founded=0, rules=goes_by)
        old = model.columns.cluster[settled]
        return self._with_founded(
            replace(
                new,
                centroids=self._fitted(placement, vectors, old),
                founded=placement.founded if s.clusters.spawn > 0.0 else 0,
                rules=None,
            ),
            vectors,
        )

    def anew(
        self, placement: Placement, model: Model, items: NDArray[np.int32], now: int
    ) -> Placement:
        """The first placement of another vector space, to which all vectors belong from here on.
        The epoch follows on the one before; centre, centroids and what items founded do not. Rules
        stay what they are: they go by attributes."""
        first = replace(Placement.empty(), rules=placement.rules)
        epoch = placement.epoch + 1
        return replace(self.refresh(first, model, items, now), epoch=epoch, bits_since=epoch)

    def _fitted(
        self, placement: Placement, vectors: NDArray[np.float32], old: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Centroids of settled items, by their unit rows and the clusters that they are in."""
        s, seed = self.settings.clusters, self.settings.model.seed
        count, start = self._count(placement), placement.centroids
        if placement.epoch == 0 or placement.rules is not None:
            first = clusters.seed_centroids(vectors, min(count, len(vectors)), seed)
            return clusters.refine(vectors, first)
        if len(vectors) < count:
            return clusters.refine(vectors, start)
        if s.update == "continue":
            return clusters.refine(vectors, clusters.resized(vectors, start, count, seed))
        stream = [seed, placement.epoch, ANEW]
        anew = clusters.refine(vectors, clusters.seed_centroids(vectors, count, stream))
        nowhere = np.full(len(vectors), clusters.NONE, np.int32)
        out = np.empty_like(anew)
        out[matching.labels_of(old, clusters.assign(vectors, anew, nowhere, 0.0), count)] = anew
        return out

    def spawned(self, placement: Placement, model: Model, rows: NDArray[np.int32]) -> Placement:
        """The placement, with a cluster for each of these items that is settled, and far from all
        centroids. The epoch is the same: nothing else is elsewhere by it."""
        if placement.epoch == 0 or placement.rules is not None or self.settings.clusters.spawn <= 0:
            return placement
        settled = rows[model.columns.is_item[rows] & (model.columns.updates[rows] >= SETTLED)]
        return self._with_founded(placement, unit_rows(hidden(model.rows, settled)))

    def _with_founded(self, placement: Placement, vectors: NDArray[np.float32]) -> Placement:
        s, there = self.settings.clusters, placement.centroids
        if s.spawn <= 0.0:
            return placement
        more = clusters.founded(vectors, there, s.spawn, s.most)
        if len(more) == 0:
            return placement
        founded = placement.founded + len(more)
        return replace(placement, centroids=np.concatenate([there, more]), founded=founded)

    def place(self, placement: Placement, model: Model, rows: NDArray[np.int32]) -> Placed:
        """Where these items belong, each by where it was last published."""
        s, c, r = self.settings, model.columns, model.rows
        vectors, contexts = unit_rows(hidden(r, rows)), unit_rows(r.u[rows])
        known = c.published[rows] > 0
        if placement.rules is not None:
            cluster = placement.rules.clusters(r.attrs[rows], self.names)
        else:
            # After centroids moved, each item goes to the nearest, without the margin.
            old = np.where(c.epoch[rows] == placement.epoch, c.cluster[rows], clusters.NONE)
            cluster = clusters.assign(vectors, placement.centroids, old, s.clusters.margin)
        x = features(vectors, contexts)
        if placement.epoch > 0:
            x = x - placement.centre
        rehash = known & (c.epoch[rows] >= placement.hashed_since)
        keys = self.hashing(placement).keys(x, c.buckets[rows], rehash)
        return Placed(vectors, contexts, cluster, keys)
