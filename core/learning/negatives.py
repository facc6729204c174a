"""What negatives are drawn from. A kind of them is one branch of `draw_block` and one share.

uniform     every known item alike
popularity  in proportion to count^alpha, decayed counts (word2vec has alpha = .75)
similar     another item of the same cluster, or of the same LSH bucket, as a context that it is
            drawn for: hard negatives, as retrieval models take (Huang et al., "Embedding-based
            retrieval in Facebook search", KDD 2020). Where there is none, uniform
scored      the best scored of several draws, uniform or by popularity (Zhang et al., "Optimizing
            top-N collaborative filtering via dynamic negative item sampling", SIGIR 2013)

A mix has shares of these; each negative is of one kind, by lot. Known neighbours of a context can
be left out: what is an item's neighbour in the graph is no negative of it.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import UNIT
from core.ids.hashing import GOLDEN, mix
from core.kernels.lanes import INLINED
from core.kernels.scan import find
from core.learning.dense import F32, inner
from core.settings import NegativeSettings

NO_SLOTS = np.zeros(1, np.int32)
NO_GROUP = -1
TRIES = 256
"""Items that are drawn for one of a group. Of 64 clusters, all as large, 2% of them find none, of
1,000 77%, and of one that has 20 of 100,000 items 95%: they take no longer for that."""


class Pool(NamedTuple):
    """What n items are drawn from, all of them slots."""

    items: NDArray[np.int32]
    accept: NDArray[np.float32]
    alias: NDArray[np.int32]
    """Walker's alias table: entry i is items[i] with probability accept[i], or else alias[i]."""
    n: int
    group: NDArray[np.int32] = NO_SLOTS
    """Of each slot, NO_GROUP for none."""
    listed: int = 0
    """1 where groups are lists: those of group g are member[begin[g] : begin[g + 1]]. Or else they
    are looked for among the items."""
    begin: NDArray[np.int32] = NO_SLOTS
    member: NDArray[np.int32] = NO_SLOTS
    scored: np.float32 = F32(1.0)
    """The share of this kind, and further sums of shares: with similar, and with popularity."""
    similar: np.float32 = F32(1.0)
    popular: np.float32 = F32(1.0)
    by_clicks: int = 0
    """1 where those of which the best scored is taken are drawn by the alias table."""
    start: NDArray[np.int32] = NO_SLOTS
    """Of the graph (`core.graph.slabs`), where neighbours are left out."""
    degree: NDArray[np.int32] = NO_SLOTS
    nbr: NDArray[np.int32] = NO_SLOTS
    spares: int = 0
    """1 where a context's neighbours are none of its negatives."""


Grouped = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""`group`, `begin` and `member` of a `Pool`."""


class Pools:
    """Makes the pool of each round. One of uniform draws, or of clusters, costs nothing; one by
    popularity reads all items; LSH buckets are grouped anew where a key changed, which commits do.
    """

    def __init__(self, settings: NegativeSettings) -> None:
        self.settings = settings
        self.shares = settings.shares
        self._ones = np.ones(0, np.float32)
        self._labels = np.zeros(0, np.uint64)
        """What the groups were made of: the labels of items that have one, and these items."""
        self._labelled = np.zeros(0, np.int32)
        self._groups: Grouped = NO_SLOTS, NO_SLOTS, NO_SLOTS

    def uniform(self, items: NDArray[np.int32]) -> Pool:
        if len(items) > len(self._ones):
            self._ones = np.ones(2 * len(items), np.float32)
        return Pool(items, self._ones[: len(items)], items, len(items))

    def of(
        self, items: NDArray[np.int32], graph: Graph, cluster: NDArray[np.int32],
        bucket: NDArray[np.uint64], published: NDArray[np.int64], epoch: NDArray[np.int32],
        hashed_since: int,
    ) -> Pool:  # fmt: skip
        """A pool of `items`. Of all slots: cluster int32, -1 for none; bucket uint64, of those that
        were `published`, int64 versions, 0 for never. Of buckets only those count whose `epoch` is
        at least `hashed_since`: keys of other hashes are equal by chance."""
        settings, shares = self.settings, self.shares
        out = self.uniform(items)
        by_clicks = settings.scored_from == "popularity" and shares["scored"] > 0.0
        if shares["popularity"] > 0.0 or by_clicks:
            out = pool(items, graph.clicked[items], settings.alpha)
        if shares["similar"] > 0.0:
            if settings.similar_by == "cluster":
                out = out._replace(group=cluster)
            else:
                is_hashed = (published[items] > 0) & (epoch[items] >= hashed_since)
                found = self._grouped(items[is_hashed], bucket)
                out = out._replace(group=found[0], listed=1, begin=found[1], member=found[2])
        if settings.spare_neighbours:
            slabs = graph.slabs()
            out = out._replace(start=slabs.start, degree=slabs.degree, nbr=slabs.nbr, spares=1)
        scored = shares["scored"]
        similar = scored + shares["similar"]
        popular = similar + shares["popularity"]
        return out._replace(
            scored=F32(scored), similar=F32(similar), popular=F32(popular),
            by_clicks=int(by_clicks),
        )  # fmt: skip

    def _grouped(self, labelled: NDArray[np.int32], label: NDArray[np.uint64]) -> Grouped:
        """As `grouped`; to compare labels is much quicker than to sort them."""
        labels = label[labelled]
        is_same = np.array_equal(labels, self._labels) and np.array_equal(labelled, self._labelled)
        if not is_same or len(self._groups[0]) < len(label):
            self._groups = grouped(labelled, label)
            self._labels, self._labelled = labels, labelled
        return self._groups


def pool(items: NDArray[np.int32], counts: NDArray[np.float32], alpha: float) -> Pool:
    """A table that gives each of `items` (slots) with a probability proportional to counts^alpha.

    counts float32 [len(items)] on any common scale. alpha = 0 is uniform, the choice that served
    next-item quality best.
    Source of the method: A. J. Walker, "An efficient method for generating discrete random
    variables with general distributions", ACM TOMS 3 (1977), in Vose's linear form.
    """
    n = len(items)
    accept = np.ones(n, np.float32)
    alias = items.copy()
    if alpha != 0.0 and n > 0:
        p = np.maximum(counts.astype(np.float64), 0.0)
        top = p.max()
        p = np.maximum(p / top, 1e-6) ** alpha if top > 0 else np.ones(n)
        _fill(p * (n / p.sum()), items, accept, alias)
    return Pool(items, accept, alias, n)


def grouped(labelled: NDArray[np.int32], label: NDArray[np.uint64]) -> Grouped:
    """The groups of the slots `labelled`, int32 [n], that have the same label, [slots]."""
    names, of = np.unique(label[labelled], return_inverse=True)
    group = np.full(len(label), NO_GROUP, np.int32)
    group[labelled] = of
    begin = np.zeros(len(names) + 1, np.int32)
    begin[1:] = np.cumsum(np.bincount(of, minlength=len(names)))
    member = labelled[np.argsort(of, kind="stable")]
    return group, begin, member if len(member) else NO_SLOTS


@nb.njit(cache=True, nogil=True)
def _fill(p, items, accept, alias):  # type: ignore[no-untyped-def]
    """Pair entries below 1 with entries above 1; p sums to its length and is used up."""
    n = len(p)
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    few, many = 0, 0
    for i in range(n):
        if p[i] < 1.0:
            small[few] = i
            few += 1
        else:
            large[many] = i
            many += 1
    while few > 0 and many > 0:
        few -= 1
        s, g = small[few], large[many - 1]
        accept[s] = p[s]
        alias[s] = items[g]
        p[g] -= 1.0 - p[s]
        if p[g] < 1.0:
            many -= 1
            small[few] = g
            few += 1


@INLINED
def _below(z, n):  # type: ignore[no-untyped-def]
    """A number below n by the high bits of z."""
    return np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@INLINED
def _fraction(z):  # type: ignore[no-untyped-def]
    """A number from 0 to 1 by the low 24 bits of z."""
    return F32(np.int64(z & np.uint64(0xFFFFFF))) * F32(1.0 / 16777216.0)


@INLINED
def draw(state, pool):  # type: ignore[no-untyped-def]
    """A negative of the alias table by one state: its high bits choose, its low 24 accept."""
    z = mix(state)
    i = _below(z, pool.n)
    if _fraction(z) < pool.accept[i]:
        return pool.items[i]
    return pool.alias[i]


@INLINED
def _uniform(state, pool):  # type: ignore[no-untyped-def]
    return pool.items[_below(mix(state), pool.n)]


@INLINED
def _scored(state, pool):  # type: ignore[no-untyped-def]
    return draw(state, pool) if pool.by_clicks else _uniform(state, pool)


@INLINED
def _similar(state, slot, pool):  # type: ignore[no-untyped-def]
    """Another item of the group of `slot`; one of all, where it has none, or TRIES find none."""
    g = pool.group[slot]
    if g >= 0 and pool.listed:
        others = np.int64(pool.begin[g + 1] - pool.begin[g]) - 1
        if others > 0:
            at = pool.begin[g] + _below(mix(state), others)
            return pool.member[at + (pool.member[at] >= slot)]  # members ascend
    elif g >= 0:
        z = mix(state)
        for n in range(TRIES):
            near = _uniform(z + np.uint64(n), pool)
            if pool.group[near] == g and near != slot:
                return near
    return _uniform(state, pool)


@INLINED
def draw_block(state, pool, walks, low, high, draws, out, at, block):  # type: ignore[no-untyped-def]
    """Draw the negatives of the contexts walks[low:high] into out[at : at + block * draws], of
    which `hardest` takes one of each `draws`. Returns the state that follows."""
    if pool.scored >= F32(1.0):
        for j in range(block * draws):
            out[at + j] = _scored(state, pool)
            state += GOLDEN
        return state
    for j in range(block):
        kind = _fraction(mix(state))
        state += GOLDEN
        if kind < pool.scored:
            for r in range(draws):
                out[at + j * draws + r] = _scored(state, pool)
                state += GOLDEN
            continue
        if kind < pool.similar and high > low:
            near = walks[low + _below(mix(state), high - low)]
            state += GOLDEN
            slot = _similar(state, near, pool)
        elif kind < pool.popular:
            slot = draw(state, pool)
        else:
            slot = _uniform(state, pool)
        state += GOLDEN
        for r in range(draws):
            out[at + j * draws + r] = slot
    return state


@INLINED
def may_be(slot, context, pool):  # type: ignore[no-untyped-def]
    """1 if the item may be a negative of the context, 0 if it is a neighbour that is spared."""
    n = np.int64(pool.degree[context])
    found = find(pool.nbr, np.int64(pool.start[context]) * UNIT, n, slot)
    return F32(1.0) if found < 0 else F32(0.0)


@INLINED
def hardest(rows, drawn, m, draws, h):  # type: ignore[no-untyped-def]
    """The best scored against h of drawn[m : m + draws]."""
    d = 16 * len(rows.wide)
    slot = drawn[m]
    if draws > 1:
        best = inner(h, 0, rows.u, np.int64(slot) * d, rows.wide)
        for r in range(m + 1, m + draws):
            score = inner(h, 0, rows.u, np.int64(drawn[r]) * d, rows.wide)
            if score > best:
                slot, best = drawn[r], score
    return slot
