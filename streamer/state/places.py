"""Where the rows of a state folder stand in its two indices, and how these follow the rows.

Index keys:
  clusters  cluster (int32, big-endian), item -> nothing
  postings  table (1 byte), bucket (uint64, big-endian), item -> cluster (int32, big-endian)
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POSTING = np.dtype([("table", "u1"), ("bucket", ">u8")])
_NEVER = np.iinfo(np.int64).min


def bucket_prefix(table: int, key: int) -> bytes:
    return struct.pack(">BQ", table, key)


def cluster_prefix(cluster: int) -> bytes:
    return struct.pack(">i", cluster)


def members(
    postings: Any, buckets: Iterable[tuple[int, int]]
) -> tuple[list[bytes], list[bytes]]:  # fmt: skip
    """As `Store.buckets`, of this column family."""
    found: list[bytes] = []
    clusters: list[bytes] = []
    cursor = postings.iter()
    key, value, seek, step = cursor.key, cursor.value, cursor.seek, cursor.next
    posting: bytes | None = b""
    for prefix in sorted(bucket_prefix(table, bucket) for table, bucket in buckets):
        # Past the end, or where RocksDB cannot read on, the key is None.
        if posting is not None and posting < prefix:
            seek(prefix)
            posting = key()
        while posting is not None and posting.startswith(prefix):
            found.append(posting)
            clusters.append(value())
            step()
            posting = key()
    cursor.status()
    width = len(bucket_prefix(0, 0))
    return [posting[width:] for posting in found], clusters


@dataclass(frozen=True)
class Moves:
    """By family, the index keys that rows leave, and the keys and values that they enter."""

    left: dict[str, list[bytes]]
    entered: dict[str, tuple[list[bytes], Iterable[bytes]]]


class Places:
    """Version, cluster and buckets of every stored row, as the one process that writes knows them.

    A row and its index keys are replaced without reading the row that was there. It takes some
    200 bytes a row, of which the buckets of 8 tables are 64.
    """

    def __init__(self, tables: int) -> None:
        self._at: dict[bytes, int] = {}
        self._free: list[int] = []
        # The last entry is never taken: at -1 stands a row that is not there.
        self._version = np.full(1, _NEVER)
        self._published = np.zeros(1, np.bool_)
        self._cluster = np.zeros(1, np.int32)
        self._buckets = np.zeros((1, tables), np.uint64)

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where the rows under these keys stand here, int64 [n]; -1 for one that is not there."""
        return np.fromiter(map(self._at.get, keys, repeat(-1)), np.int64, len(keys))

    def versions(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Versions of rows that were found, below any other where there is none."""
        return self._version[at]

    def moves(
        self, keys: Sequence[bytes], at: NDArray[np.int64], rows: NDArray[np.void] | None
    ) -> Moves:
        """What the indices change when rows are stored under the keys, or deleted if None.

        `at` is where `find` found the keys. Entries that the old and the new row both have stay
        untouched.
        """
        was, old_cluster, old_buckets = self._published[at], self._cluster[at], self._buckets[at]
        if rows is None:
            now, cluster, buckets = np.zeros_like(was), old_cluster, old_buckets
        else:
            now, cluster, buckets = rows["published"] > 0, rows["cluster"], rows["buckets"]
        appears = was != now
        rebucketed = (old_buckets != buckets) | appears[:, None]
        recluster = (old_cluster != cluster) | appears
        names = np.array(keys, object)
        left, _ = _postings(names, rebucketed & was[:, None], old_buckets)
        # A posting holds the cluster as well.
        entering = (rebucketed | recluster[:, None]) & now[:, None]
        entered, rows_entered = _postings(names, entering, buckets)
        return Moves(
            {"clusters": _clusters(names, recluster & was, old_cluster), "postings": left},
            {
                "clusters": (_clusters(names, recluster & now, cluster), repeat(b"")),
                "postings": (entered, _packed(cluster[rows_entered].astype(">i4"))),
            },
        )

    def store(self, keys: Sequence[bytes], at: NDArray[np.int64], rows: NDArray[np.void]) -> None:
        """These rows are stored now; `at` is where `find` found the keys."""
        new = np.flatnonzero(at < 0)
        if len(new):
            self._reserve(len(new))
            at = at.copy()
            at[new] = [self._free.pop() for _ in new]
            self._at.update(
                (keys[n], here) for n, here in zip(new.tolist(), at[new].tolist(), strict=True)
            )
        self._version[at] = rows["version"]
        self._published[at] = rows["published"] > 0
        self._cluster[at] = rows["cluster"]
        self._buckets[at] = rows["buckets"]

    def delete(self, keys: Sequence[bytes]) -> None:
        """The rows under these keys, which were there, are deleted now."""
        self._free += [self._at.pop(key) for key in dict.fromkeys(keys)]

    def _reserve(self, n: int) -> None:
        if n > len(self._free):
            have = len(self._version)
            more = max(n, have // 2, 1024)
            for name in ("_version", "_published", "_cluster", "_buckets"):
                old = getattr(self, name)
                setattr(
                    self, name, np.concatenate([old, np.zeros((more, *old.shape[1:]), old.dtype)])
                )
            self._version[have - 1 :] = _NEVER
            self._free += range(have + more - 2, have - 2, -1)


def _postings(
    names: NDArray[np.object_], moved: NDArray[np.bool_], buckets: NDArray[np.uint64]
) -> tuple[list[bytes], NDArray[np.int64]]:
    """Posting keys of the buckets [n, tables] marked in `moved`, and the row of each."""
    at, table = np.nonzero(moved)
    bucket = buckets[at, table]
    # Neighbours in the index, one after the other: RocksDB finds its way in memory sooner.
    order = np.lexsort((bucket, table.astype(np.uint8)))
    prefixes = np.empty(len(at), _POSTING)
    prefixes["table"], prefixes["bucket"] = table[order], bucket[order]
    return _joined(prefixes, names[at[order]]), at[order]


def _clusters(
    names: NDArray[np.object_], moved: NDArray[np.bool_], cluster: NDArray[np.int32]
) -> list[bytes]:
    """Cluster keys of the rows that are marked in `moved` and have a cluster."""
    at = np.flatnonzero(moved & (cluster >= 0))
    return _joined(cluster[at].astype(">i4"), names[at])


def _joined(prefixes: NDArray[np.generic], names: NDArray[np.object_]) -> list[bytes]:
    return list(map(add, _packed(prefixes), names.tolist()))


def _packed(values: NDArray[np.generic]) -> list[bytes]:
    """Each value as its bytes."""
    packed: list[bytes] = values.view(f"V{values.dtype.itemsize}").tolist()
    return packed
