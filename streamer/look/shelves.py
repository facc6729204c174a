"""Where a search reads postings and vectors: from RocksDB for a few queries, or from memory.

Each gives the same items for the same buckets, ordered by their keys. What RocksDB knows by its
key, memory knows by a number: a handle is one or the other.
"""

from collections.abc import Collection, Sequence, Set
from typing import Any, Protocol

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.clusters import NONE, unit_rows
from core.rows import from_values
from core.skipgram import KERNEL
from streamer.store import Store, is_item


def published(rows: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """V^ and U^ of packed rows (`core.rows`) as they were published, float32 [n, d] each."""
    vectors, contexts = (unit_rows(rows[name].astype(np.float32)) for name in ("pub_v", "pub_u"))
    return vectors, contexts


class Shelf(Protocol):
    def handle(self, key: bytes) -> Any:
        """Of an item that has a vector; None for another."""

    def vectors(self, handles: Collection[Any]) -> NDArray[np.float32]:
        """[V^; U^] of items that have a vector, float32 [n, 2 d]."""

    def told(self, handle: Any) -> tuple[bytes, int, int]:
        """Key, cluster and updates."""

    def begin(self, handles: Set[Any]) -> Any:
        """A collection of items, of which `len` says how many, for `gather` to add to."""

    def gather(self, found: Any, probes: NDArray[np.uint64]) -> Any:
        """The collection with the items of these buckets, uint64 [tables, n]."""

    def everything(self) -> Any:
        """The collection of all items."""

    def scores(
        self, found: Any, without: Set[Any], min_updates: int, query: NDArray[np.float32]
    ) -> tuple[Sequence[Any], NDArray[np.float32]]:
        """[V^; U^] . query, float32 [n], of those that have a vector and so many updates.

        query is float32 [2 d]; the handles come in the order of their keys.
        """


class Stored:
    """Postings by prefix scans of RocksDB, and rows by their keys."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def handle(self, key: bytes) -> bytes | None:
        found = is_item(key) and len(rows := self._rows([key])[1]) and rows["published"][0] > 0
        return key if found else None

    def vectors(self, handles: Collection[bytes]) -> NDArray[np.float32]:
        return np.concatenate(published(self._rows(handles)[1]), axis=1)

    def told(self, handle: bytes) -> tuple[bytes, int, int]:
        _, rows = self._rows([handle])
        if len(rows) == 0:  # it left meanwhile
            return handle, NONE, 0
        return handle, int(rows["cluster"][0]), int(rows["updates"][0])

    def begin(self, handles: Set[bytes]) -> set[bytes]:
        return set(handles)

    def gather(self, found: set[bytes], probes: NDArray[np.uint64]) -> set[bytes]:
        places = ((t, bucket) for t, row in enumerate(probes.tolist()) for bucket in row)
        return found | self.store.buckets(places)

    def everything(self) -> set[bytes]:
        return {key for key, _ in self.store.scan("rows") if is_item(key)}

    def scores(
        self, found: set[bytes], without: Set[bytes], min_updates: int, query: NDArray[np.float32]
    ) -> tuple[Sequence[bytes], NDArray[np.float32]]:
        keys, rows = self._rows(sorted(found - without))
        enough = (rows["published"] > 0) & (rows["updates"] >= min_updates)
        if not enough.all():
            keys, rows = [keys[at] for at in np.flatnonzero(enough).tolist()], rows[enough]
        v, u = published(rows)
        d = v.shape[1]
        return keys, v @ query[:d] + u @ query[d:]

    def _rows(self, keys: Collection[bytes]) -> tuple[list[bytes], NDArray[np.void]]:
        """Those that are there: a row may have left since its bucket was read."""
        pairs = zip(keys, self.store.rows(keys), strict=True)
        there = {key: value for key, value in pairs if value is not None}
        return list(there), from_values(list(there.values()), self.store.dtype)


class Resident:
    """All items with a vector, as they stood when it was made.

    It takes 8 d bytes an item for the vectors, 12 a table for the postings, and the key.
    """

    def __init__(self, store: Store) -> None:
        keys, rows = store.all_rows()
        items = np.fromiter(map(is_item, keys), np.bool_, len(keys))
        at = np.flatnonzero(items & (rows["published"] > 0))
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

    def handle(self, key: bytes) -> int | None:
        return self._handles.get(key)

    def vectors(self, handles: Collection[int]) -> NDArray[np.float32]:
        return self._pairs[list(handles)]

    def told(self, handle: int) -> tuple[bytes, int, int]:
        return self._keys[handle], int(self._cluster[handle]), int(self._updates[handle])

    def begin(self, handles: Set[int]) -> NDArray[np.int32]:
        return np.array(sorted(handles), np.int32)

    def gather(self, found: NDArray[np.int32], probes: NDArray[np.uint64]) -> NDArray[np.int32]:
        return np.sort(_gather(self._buckets, self._members, probes, found))

    def everything(self) -> NDArray[np.int32]:
        return np.arange(len(self._keys), dtype=np.int32)

    def scores(
        self, found: NDArray[np.int32], without: Set[int], min_updates: int,
        query: NDArray[np.float32],
    ) -> tuple[Sequence[int], NDArray[np.float32]]:  # fmt: skip
        wanted = self._updates[found] >= min_updates
        for handle in without:
            wanted &= found != handle
        at = found[wanted]
        out = np.empty(len(at), np.float32)
        _scores(self._pairs, at, query, out)
        return at.tolist(), out


@nb.njit(cache=True, nogil=True)
def _gather(buckets, members, probes, found):  # type: ignore[no-untyped-def]
    """`found` and what else the buckets `probes` [tables, n] hold, each once."""
    seen = np.zeros(members.shape[1], np.bool_)
    out = np.empty(members.shape[1], np.int32)
    at = len(found)
    out[:at] = found
    for handle in found:
        seen[handle] = True
    for t in range(probes.shape[0]):
        for bucket in probes[t]:
            i = np.searchsorted(buckets[t], bucket)
            while i < buckets.shape[1] and buckets[t, i] == bucket:
                handle = members[t, i]
                if not seen[handle]:
                    seen[handle] = True
                    out[at] = handle
                    at += 1
                i += 1
    return out[:at].copy()


@KERNEL
def _scores(pairs, at, query, out):  # type: ignore[no-untyped-def]
    """out[i] = pairs[at[i]] . query."""
    for i in range(len(at)):
        row = pairs[at[i]]
        total = np.float32(0.0)
        for x in range(len(query)):
            total += row[x] * query[x]
        out[i] = total
