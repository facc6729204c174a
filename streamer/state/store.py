"""The state folder: RocksDB with rows, indices, checkpoints and offsets.

It is a cache of Kafka that makes restart fast, and it never gets ahead of Kafka: what a commit
changed is applied after the transaction, in one batch. Every batch is atomic, so that a killed
process leaves the folder as it was before or after, never between.

Column families:
  rows      item or attribute key -> packed row (`core.rows`)
  clusters  cluster (int32, big-endian), item -> nothing
  postings  table (1 byte), bucket (uint64, big-endian), item -> cluster (int32, big-endian)
  attributes  item -> JSON of its attributes
  graph     item -> its row of the graph, and as of which commit (`core.graph.written`)
  sessions  sessions that were open when a sweep began, by the kind of the sweep
  users     vectors and histories of users (`streamer.state.users`)
  meta      reserved keys of `records`, offsets, ids, and where its own last sweep began
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from rocksdict import AccessType, Cache, Rdict, WriteBatch

from core.placing.placement import NOBODY
from core.rounds import Changes
from core.rows import from_values, heads, row_dtype, to_values
from streamer.errors import WalkstreamError
from streamer.state import packing, records, rocks
from streamer.state.places import Moves, Places, members
from streamer.state.places import bucket_prefix as bucket_prefix
from streamer.state.places import cluster_prefix as cluster_prefix
from streamer.state.records import Marks, Progress, Promoted, Space
from streamer.state.rocks import CACHE, bytes_used, each, family_options, prepare_folder
from streamer.state.rocks import FAMILIES as FAMILIES
from streamer.state.rocks import Ahead as Ahead

log = logging.getLogger(__name__)

Attributes = dict[str, str | list[str]]

Entry = tuple[bytes, bytes | None]
"""Key and value; None for a key that is deleted."""

IDENTITY = b"identity"
APPLIED_AT = b"applied-at"
ORIGIN = b"origin"
REPAIR = b"repair"
"""There while `worker --repair` has not published everything yet."""
REPLAY, ADOPTED = b"replay", b"adopted"
"""Values of ORIGIN: the folder was made by `replay`; a worker began to publish it."""
TAIL = b"tail/"
HOLDS_ALL = b"holds-all"
"""There where the folder has what Kafka may not have yet (`records.Marks.needs_folder`)."""
EVIDENCE = b"evidence"
"""The evidence of the newest commit, which only the folder has if that is torn."""
POSTINGS, WITH_CLUSTERS = b"postings", b"cluster"
"""The value of POSTINGS where each posting has its cluster, which those of older versions lack."""

POINTER = b"swept"
"""Where the last sweep began that wrote to the folder and is over."""

_WRITE = msgspec.msgpack.encode

SORTED_BY = 32
"""Bytes of their keys by which the rows of a write are sorted."""
SCANNED = 4096
"""Rows that are held at a time while the places of all are read."""


class Store:
    """An open state folder. One process writes; others open it with `secondary`."""

    def __init__(self, path: Path, secondary: Path | None = None) -> None:
        self.path = path
        if secondary is None:
            prepare_folder(path)
        cache = Cache(CACHE)
        # A folder of an older version lacks some, until a worker opens it.
        names = FAMILIES if secondary is None else rocks.families_of(path)
        families = {name: family_options(name, cache, secondary is None) for name in names}
        access = AccessType.secondary(str(secondary)) if secondary else AccessType.read_write()
        self._db = Rdict(str(path), families["meta"], families, access_type=access)
        if secondary:
            self._db.try_catch_up_with_primary()
        # Typed by rocksdict for its pickling mode; in raw mode keys and values are bytes.
        self._cf: dict[str, Any] = {n: self._db.get_column_family(n) for n in names}
        self._handle = {name: self._db.get_column_family_handle(name) for name in names}
        self._dtype: np.dtype[np.void] | None = None
        self._places: Places | None = None

    def close(self) -> None:
        # A handle keeps the database, and its lock, as long as it lives.
        self._handle.clear()
        for family in self._cf.values():
            family.close()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close. What RocksDB says of that does not hide the error that ends it all."""
        try:
            self.close()
        except Exception as closing:
            if error is None:
                raise
            log.warning("%s: RocksDB could not close well: %s", self.path, closing)

    # -- meta ------------------------------------------------------------------------------------

    def meta(self, key: bytes) -> bytes | None:
        return self._cf["meta"].get(key)

    def set_meta(self, entries: Mapping[bytes, bytes]) -> None:
        self.write_entries({"meta": entries.items()})

    def entry(self, family: str, key: bytes) -> bytes | None:
        return self._cf[family].get(key) if family in self._cf else None

    def scan(
        self, family: str, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key starts so, from key `after` on. Raises where RocksDB cannot read on."""
        there = self._cf.get(family)
        return iter(()) if there is None else rocks.scan(there, prefix, after)

    def last_key(self, family: str) -> bytes | None:
        cursor = self._cf[family].iter()
        cursor.seek_to_last()
        cursor.status()
        return cursor.key() if cursor.valid() else None

    @property
    def space(self) -> Space | None:
        value = self.meta(records.SPACE)
        return msgspec.msgpack.decode(value, type=Space) if value else None

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The row layout of the folder's space. WalkstreamError if it has none yet."""
        if self._dtype is None:
            space = self.space
            if space is None:
                raise WalkstreamError(f"{self.path}: no vector space yet: nothing was learned")
            space.check_format(self.path)
            self._dtype = row_dtype(space.dim, space.attribute_slots, space.lsh_tables)
        return self._dtype

    def progress(self) -> dict[tuple[str, int], Progress]:
        return {
            records.progress_partition(key): msgspec.msgpack.decode(value, type=Progress)
            for key, value in records.well_formed(self.scan("meta", records.PROGRESS))
        }

    def items_taken(self) -> dict[tuple[str, int], int]:
        """Offset of each partition of `items` up to which commits have taken attributes in."""
        return {
            records.progress_partition(key): msgspec.msgpack.decode(value, type=int)
            for key, value in records.well_formed(self.scan("meta", records.ITEMS))
        }

    def forgotten(self) -> frozenset[bytes]:
        """Keys of the users whose clicks do not count (`streamer.admin.forget`)."""
        listed = records.well_formed(self.scan("meta", records.FORGOTTEN))
        return frozenset(key for key, _ in listed)

    def asked(self) -> int:
        """The epoch that somebody asked to be followed by another (`streamer.admin.major`)."""
        value = self.meta(records.MAJOR)
        return NOBODY if value is None else msgspec.msgpack.decode(value, type=int)

    def bytes_used(self) -> dict[str, int]:
        """What RocksDB holds: in files, and in memory for writes and for reads."""
        return bytes_used(self._cf)

    def versions(self) -> dict[int, int]:
        return {
            int(key.removeprefix(records.VERSION)): msgspec.msgpack.decode(value, type=int)
            for key, value in records.well_formed(self.scan("meta", records.VERSION))
        }

    def tail_offsets(self) -> dict[tuple[str, int], int]:
        """Next offset of each partition that the tail consumer reads."""
        out = {}
        for key, value in self.scan("meta", TAIL):
            topic, _, partition = key.removeprefix(TAIL).decode().rpartition("/")
            out[topic, int(partition)] = msgspec.msgpack.decode(value, type=int)
        return out

    @property
    def holds_more(self) -> bool:
        """Whether it may have what Kafka has not: of a replay or a repair that is not all out."""
        return self.meta(REPAIR) is not None or self.marks.needs_folder or self.is_replay

    @property
    def is_replay(self) -> bool:
        """Whether this is a folder of `replay` that no worker has published yet."""
        return self.meta(ORIGIN) is not None and not records.has_learned(self.progress())

    @property
    def marks(self) -> Marks:
        """What the engine had under way."""
        value = self.meta(records.MARKS)
        return Marks(0, 0) if value is None else msgspec.msgpack.decode(value, type=Marks)

    @property
    def promoted(self) -> Promoted | None:
        """That a challenger took over, if one did and it counts."""
        return records.promoted(self.meta(records.PROMOTED))

    def age(self) -> float:
        """Seconds since the folder last took something from Kafka, by this machine's clock."""
        value = self.meta(APPLIED_AT)
        return time.time() - msgspec.msgpack.decode(value, type=float) if value else 0.0

    # -- rows and indices ------------------------------------------------------------------------

    def row(self, key: bytes) -> bytes | None:
        return self._cf["rows"].get(key)

    def rows(self, keys: Iterable[bytes]) -> list[bytes | None]:
        # One by one, which takes less time than what rocksdict does with a list.
        return list(map(self._cf["rows"].get, keys))

    def published(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The versions with which these rows were published last; 0 for one that never was, or is
        not there."""
        found = self.rows(keys)
        there = [n for n, value in enumerate(found) if value is not None]
        out = np.zeros(len(found), np.int64)
        out[there] = heads([value for value in found if value is not None], self.dtype)["published"]
        return out

    def rows_in_parts(self) -> Iterator[tuple[list[bytes], NDArray[np.void]]]:
        """All keys and rows, some at a time."""
        stored = self.scan("rows")
        while part := list(islice(stored, SCANNED)):
            keys, values = zip(*part, strict=True)
            yield list(keys), from_values(list(values), self.dtype)

    def all_rows(self) -> tuple[list[bytes], NDArray[np.void]]:
        keys: list[bytes] = []
        parts = [np.zeros(0, self.dtype)]
        for some, rows in self.rows_in_parts():
            keys += some
            parts.append(rows)
        return keys, np.concatenate(parts)

    def buckets(self, buckets: Iterable[tuple[int, int]]) -> tuple[list[bytes], list[bytes]]:
        """The items of these LSH buckets, given as (table, key), and the cluster of each, packed.

        An item that is in several of them is returned as often.
        """
        return members(self._cf["postings"], buckets)

    def attributes(self, item: bytes) -> Attributes:
        value = self._cf["attributes"].get(item)
        return msgspec.json.decode(value) if value else {}

    def everything(self, family: str) -> dict[bytes, bytes]:
        """A whole column family: for tests and tools that compare folders."""
        return dict(self.scan(family))

    def write(
        self,
        *,
        keys: Sequence[bytes] = (),
        rows: NDArray[np.void] | None = None,
        values: Sequence[bytes] | None = None,
        gone: Sequence[tuple[bytes, int]] = (),
        families: Mapping[str, Iterable[Entry]] | None = None,
    ) -> None:
        """Apply rows, deletions (key, version) and entries of other families in one atomic batch.

        `values` are the rows as bytes, where they are known; then `rows` need have their heads only
        (`core.rows.heads`). None deletes an entry. ValueError if two rows have the same key.

        A row or deletion applies only if its version is newer than the stored row's, so the same
        record may be applied any number of times. When a row's cluster or buckets changed, the old
        index keys go and the new ones come in the same batch.
        """
        batch = WriteBatch(raw_mode=True)
        if rows is not None:
            values = to_values(rows) if values is None else values
            keys, rows, at = self._put_rows(batch, keys, rows, values)
        leaving = self._delete_rows(batch, gone) if gone else []
        for family, entries in (families or {}).items():
            self._put(batch, family, entries)
        self._db.write(batch)
        if rows is not None:
            self._places_of(rows.dtype).store(keys, at, rows)
        if leaving:
            self._places_of(self.dtype).delete(leaving)

    def write_entries(self, families: Mapping[str, Iterable[Entry]]) -> None:
        """Write entries of column families in one atomic batch; None deletes."""
        batch = WriteBatch(raw_mode=True)
        for family, entries in families.items():
            self._put(batch, family, entries)
        self._db.write(batch)

    def _put(self, batch: WriteBatch, family: str, entries: Iterable[Entry]) -> None:
        handle = self._handle[family]
        for key, value in entries:
            if value is None:
                batch.delete(key, handle)
            else:
                batch.put(key, value, handle)

    def _put_rows(
        self, batch: WriteBatch, keys: Sequence[bytes], rows: NDArray[np.void],
        values: Sequence[bytes],
    ) -> tuple[Sequence[bytes], NDArray[np.void], NDArray[np.int64]]:  # fmt: skip
        """Returns the rows that apply, and where the places have had them so far."""
        places = self._places_of(rows.dtype)
        at = places.find(keys)
        new = [keys[n] for n in np.flatnonzero(at < 0).tolist()]
        known = np.sort(at[at >= 0])
        if len({*new}) < len(new) or (known[1:] == known[:-1]).any():
            raise ValueError("two rows of one write have the same key: only the newer may be given")
        newer = places.versions(at) < rows["version"]
        if not newer.all():
            kept = np.flatnonzero(newer).tolist()
            keys, values = [keys[n] for n in kept], [values[n] for n in kept]
            rows, at = rows[newer], at[newer]
        self._move(batch, places.moves(keys, at, rows))
        # With one key after the other RocksDB finds its way in memory sooner. For that, what the
        # keys begin with will do.
        order = np.array(keys, f"S{SORTED_BY}").argsort(kind="stable").tolist()
        in_order = (map(column.__getitem__, order) for column in (keys, values))
        each(batch.put, *in_order, repeat(self._handle["rows"]))
        return keys, rows, at

    def _delete_rows(self, batch: WriteBatch, gone: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """Returns the keys of the rows that leave."""
        places = self._places_of(self.dtype)
        at = places.find([key for key, _ in gone])
        version = np.array([version for _, version in gone], np.int64)
        leaves = np.flatnonzero((at >= 0) & (places.versions(at) < version))
        keys = [gone[n][0] for n in leaves.tolist()]
        each(batch.delete, keys, repeat(self._handle["rows"]))
        self._move(batch, places.moves(keys, at[leaves], None))
        return keys

    def _places_of(self, dtype: np.dtype[np.void]) -> Places:
        """Where the stored rows stand in the indices: read at the first write, then kept."""
        if self._places is None:
            places = Places(dtype["buckets"].shape[0])
            has_clusters = self.meta(POSTINGS) == WITH_CLUSTERS
            stored = self.scan("rows")
            while part := list(islice(stored, SCANNED)):
                keys, values = zip(*part, strict=True)
                at, rows = places.find(keys), heads(list(values), self.dtype)
                if not has_clusters:
                    batch = WriteBatch(raw_mode=True)
                    self._move(batch, places.moves(keys, at, rows))
                    self._db.write(batch)
                places.store(keys, at, rows)
            if not has_clusters:
                self.set_meta({POSTINGS: WITH_CLUSTERS})
            self._places = places
        return self._places

    def _move(self, batch: WriteBatch, moves: Moves) -> None:
        for family, left in moves.left.items():
            each(batch.delete, left, repeat(self._handle[family]))
        for family, (entered, values) in moves.entered.items():
            each(batch.put, entered, values, repeat(self._handle[family]))

    def write_changes(
        self, changes: Changes, meta: Mapping[bytes, bytes | None],
        families: Mapping[str, Sequence[Entry]] | None = None,
    ) -> None:  # fmt: skip
        """Apply what a commit changed, with its reserved records in `meta` and what it has for
        other families."""
        more = dict(families or {})
        entries: dict[bytes, bytes | None] = dict([*meta.items(), applied_now()])
        if changes.placement is not None:
            entries[records.PLACEMENT] = packing.pack_placement(changes.placement)
        for partition, version in changes.versions.items():
            entries[records.version_key(partition)] = _WRITE(version)
        left: list[Entry] = [(g.key, None) for g in changes.gone]
        more["graph"] = [*left, *more.get("graph", ())]
        more["meta"] = [*entries.items(), *more.get("meta", ())]
        gone = [(g.key, g.version) for g in changes.gone]
        rows, values = changes.rows, changes.values
        self.write(keys=changes.keys, rows=rows, values=values, gone=gone, families=more)


def applied_now() -> Entry:
    """The entry that says that the folder is level with Kafka now."""
    return APPLIED_AT, _WRITE(time.time())
