"""Where a search reads postings and vectors: from RocksDB for a few queries, or from memory.

Each gives the same items for the same buckets, ordered by their keys. What RocksDB knows by its
key, memory knows by a number: a handle is one or the other.
"""

from collections import Counter
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import KERNEL
from core.placing.clusters import NONE, unit_rows
from core.rows import from_values
from streamer.state.records import is_item
from streamer.state.store import Store, cluster_prefix

TELLING = 16
"""With so many clusters, these decide which of the items met are compared; with fewer, all are."""

MET = 0.2
"""What each bucket that an item was met in adds to its rank, beside the score of its cluster."""

TINY = np.finfo(np.float32).tiny
"""Divides a row of zeros in place of its length, so that it scores 0."""

Scored = tuple[Sequence[Any], NDArray[np.float32]]
"""Handles in the order of their keys, and their scores, float32 [n]."""


class Query(NamedTuple):
    """What the items that were met are compared with, and which of them are."""

    vector: NDArray[np.float32]
    """[2 d]: [V^; U^] . vector is an item's score."""
    near: NDArray[np.float32]
    """[clusters]: scores of the centroids."""
    most: int
    """If there are TELLING clusters, only so many of those met are compared, and who ranks as high
    as the last of them."""
    always: Set[Any]
    """Items that are compared even if they were not met."""
    never: Set[Any]
    min_updates: int
    """Items with fewer updates are left out. Only rows have that number, so any but 0 has all
    compared."""

    def selects(self, met: int) -> bool:
        """Whether not all of so many are compared."""
        return len(self.near) >= TELLING and self.min_updates == 0 and self.most < met


def published(rows: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """V^ and U^ of packed rows (`core.rows`) as they were published, float32 [n, d] each."""
    vectors, contexts = (unit_rows(rows[name].astype(np.float32)) for name in ("pub_v", "pub_u"))
    return vectors, contexts


def foremost(rank: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """The indices of the `most` greatest, and of all that equal the last of them."""
    least = np.partition(rank, len(rank) - most)[len(rank) - most]
    return np.flatnonzero(rank >= least)


class Shelf(Protocol):
    def handle(self, key: bytes) -> Any:
        """The handle of an item that has a vector; None for another."""

    def vectors(self, handles: Collection[Any]) -> NDArray[np.float32]:
        """[V^; U^] of items that have a vector, float32 [n, 2 d]."""

    def details(self, handle: Any) -> tuple[bytes, int, int]:
        """Key, cluster and updates."""

    def begin(self) -> Any:
        """A collection of items, of which `len` says how many, for `gather` to add to."""

    def gather(self, met: Any, probes: NDArray[np.uint64]) -> None:
        """Add the items of these buckets, uint64 [tables, n], which were not asked for before."""

    def scores(self, met: Any, query: Query) -> Scored:
        """The scores of the foremost of those met that have a vector.

        An item ranks by the score of its cluster, the best one's if it has none, and by the number
        of buckets that it was met in.
        """

    def all_scores(self, query: Query) -> Scored:
        """The scores of all items that have a vector."""


class Stored:
    """Postings by prefix scans of RocksDB, and rows by their keys."""

    def __init__(self, store: Store, least: int = 1) -> None:
        """`least` is that of the folder's space (`Space.least`)."""
        self.store, self.least = store, least

    def handle(self, key: bytes) -> bytes | None:
        return key if is_item(key) and self.store.published([key])[0] >= self.least else None

    def vectors(self, handles: Collection[bytes]) -> NDArray[np.float32]:
        return np.concatenate(published(self._rows(handles)[1]), axis=1)

    def details(self, handle: bytes) -> tuple[bytes, int, int]:
        _, rows = self._rows([handle])
        if len(rows) == 0:  # it left meanwhile
            return handle, NONE, 0
        return handle, int(rows["cluster"][0]), int(rows["updates"][0])

    def begin(self) -> "_Postings":
        return _Postings()

    def gather(self, met: "_Postings", probes: NDArray[np.uint64]) -> None:
        buckets = ((t, bucket) for t, row in enumerate(probes.tolist()) for bucket in row)
        items, clusters = self.store.buckets(buckets)
        met.times.update(items)
        met.clusters.update(zip(items, clusters, strict=True))

    def scores(self, met: "_Postings", query: Query) -> Scored:
        apart = query.always | query.never
        keys = [key for key in met.times if key not in apart]
        if query.selects(len(keys)):
            near = {cluster_prefix(n): score for n, score in enumerate(query.near.tolist())}
            clusters = map(met.clusters.__getitem__, keys)
            rank = np.array(list(map(near.get, clusters, repeat(max(near.values())))))
            rank += MET * np.array(list(map(met.times.__getitem__, keys)))
            keys = [keys[at] for at in foremost(rank, query.most).tolist()]
        return self._scores(sorted([*keys, *(query.always - query.never)]), query)

    def all_scores(self, query: Query) -> Scored:
        keys = (key for key, _ in self.store.scan("rows") if is_item(key))
        return self._scores([key for key in keys if key not in query.never], query)

    def _scores(self, keys: Sequence[bytes], query: Query) -> Scored:
        keys, rows = self._rows(keys)
        enough = (rows["published"] >= self.least) & (rows["updates"] >= query.min_updates)
        if not enough.all():
            keys, rows = [keys[at] for at in np.flatnonzero(enough).tolist()], rows[enough]
        score = np.zeros(len(rows), np.float32)
        for name, half in zip(("pub_v", "pub_u"), np.split(query.vector, 2), strict=True):
            if half.any():
                x = rows[name].astype(np.float32)
                score += (x @ half) / np.maximum(np.sqrt(np.einsum("ij,ij->i", x, x)), TINY)
        return keys, score

    def _rows(self, keys: Collection[bytes]) -> tuple[list[bytes], NDArray[np.void]]:
        """Those that are there: a row may have left since its bucket was read."""
        pairs = zip(keys, self.store.rows(keys), strict=True)
        there = {key: value for key, value in pairs if value is not None}
        return list(there), from_values(list(there.values()), self.store.dtype)


@dataclass
class _Postings:
    """Items of buckets: in how many each was met, and its cluster, packed."""

    times: Counter[bytes] = field(default_factory=Counter)
    clusters: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)


class Resident:
    """All items with a vector, as they stood when it was made.

    It takes 8 d bytes an item for the vectors, 12 a table for the postings, and the key.
    """

    def __init__(self, store: Store, least: int = 1) -> None:
        """As `Stored`."""
        keys, rows = store.all_rows()
        items = np.fromiter(map(is_item, keys), np.bool_, len(keys))
        at = np.flatnonzero(items & (rows["published"] >= least))
        rows = rows[at]
        self._keys = [keys[i] for i in at.tolist()]
        self._handles = {key: i for i, key in enumerate(self._keys)}
        self._pairs = np.concatenate(published(rows), axis=1)
        self._cluster = rows["cluster"].copy()
        self._updates = rows["updates"].copy()
        order = np.argsort(rows["buckets"].T, axis=1, kind="stable")
        self._members = order.astype(np.int32)
        """int32 [tables, n]: items by the bucket they are in, table by table."""
        self._buckets = np.take_along_axis(rows["buckets"].T, order, axis=1)
        """uint64 [tables, n]: those buckets, ascending."""

    def __len__(self) -> int:
        return len(self._keys)

    def handle(self, key: bytes) -> int | None:
        return self._handles.get(key)

    def vectors(self, handles: Collection[int]) -> NDArray[np.float32]:
        return self._pairs[list(handles)]

    def details(self, handle: int) -> tuple[bytes, int, int]:
        return self._keys[handle], int(self._cluster[handle]), int(self._updates[handle])

    def begin(self) -> "_Met":
        return _Met(np.zeros(len(self), np.int16), np.empty(len(self), np.int32))

    def gather(self, met: "_Met", probes: NDArray[np.uint64]) -> None:
        met.size = _gather(self._buckets, self._members, probes, met.times, met.handles, met.size)

    def scores(self, met: "_Met", query: Query) -> Scored:
        at, apart = met.handles[: met.size], [*query.always, *query.never]
        times = met.times[at]
        if apart:
            elsewhere = ~np.isin(at, apart)
            at, times = at[elsewhere], times[elsewhere]
        if query.selects(len(at)):
            # At NONE stands the best.
            near = np.append(query.near, query.near.max()).astype(np.float64)
            at = at[foremost(near[self._cluster[at]] + MET * times, query.most)]
        further = np.array([*(query.always - query.never)], np.int32)
        return self._scores(np.sort(np.concatenate([at, further])), query)

    def all_scores(self, query: Query) -> Scored:
        every = np.arange(len(self), dtype=np.int32)
        return self._scores(np.delete(every, [*query.never]), query)

    def _scores(self, at: NDArray[np.int32], query: Query) -> Scored:
        if query.min_updates:
            at = at[self._updates[at] >= query.min_updates]
        out = np.empty(len(at), np.float32)
        _scores(self._pairs, at, query.vector, out)
        return at.tolist(), out


@dataclass
class _Met:
    """Items of buckets: the first `size` of `handles`, int32 [n], and times met, int16 [n]."""

    times: NDArray[np.int16]
    handles: NDArray[np.int32]
    size: int = 0

    def __len__(self) -> int:
        return self.size


@nb.njit(cache=True, nogil=True)
def _gather(buckets, members, probes, times, handles, size):  # type: ignore[no-untyped-def]
    """Add to `handles` what the buckets `probes` [tables, n] hold, each once; its length then."""
    for t in range(probes.shape[0]):
        for bucket in probes[t]:
            i = np.searchsorted(buckets[t], bucket)
            while i < buckets.shape[1] and buckets[t, i] == bucket:
                handle = members[t, i]
                if times[handle] == 0:
                    handles[size] = handle
                    size += 1
                times[handle] += 1
                i += 1
    return size


@KERNEL
def _scores(pairs, at, query, out):  # type: ignore[no-untyped-def]
    """out[i] = pairs[at[i]] . query."""
    for i in range(len(at)):
        row = pairs[at[i]]
        total = np.float32(0.0)
        for x in range(len(query)):
            total += row[x] * query[x]
        out[i] = total
