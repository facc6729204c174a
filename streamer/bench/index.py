"""The folder's write path and its search, on a catalogue of 100,000 items made from a seed.

A round's rows are written as the worker does after each commit, beside sqlite3 taking the same rows
and index entries, and beside an HNSW graph that the changed vectors are added to anew: the index
rebuild that the buckets stand in for. Queries run beside HNSW at the recall that ours has.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray
from rocksdict import DBCompressionType, Rdict, WriteBatch
from rocksdict import Options as RocksOptions

from core.rounds import Changes
from streamer.bench.catalogue import Catalogue
from streamer.bench.results import Options, Result, in_turns
from streamer.query.index import Index, Mode
from streamer.query.shelves import Resident
from streamer.state import records
from streamer.state.folders import reading
from streamer.state.records import Space
from streamer.state.rocks import LOG_BYTES
from streamer.state.store import Store

ITEMS, QUICK_ITEMS = 100_000, 20_000
ROUND, QUICK_ROUND = 20_000, 4_000
QUERIES, QUICK_QUERIES = 200, 50
"""Of a measurement."""
K = 10
MODES: tuple[Mode, ...] = ("similar", "next")
SEARCHES = (("RocksDB alone", False, 250), ("in memory", True, 1500))
WRITE_TARGET = 200_000
LINKS, EFFORT = 16, 100
"""Of HNSW: neighbours a node, and candidates while a vector is added."""
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Candidates of an HNSW search that are tried in turn until the recall is as high as ours."""
PEER = f"faiss {faiss.__version__} HNSW"


def measure(options: Options) -> Iterator[Result]:
    """Rows a second of a round, and queries a second with their recall, by one thread."""
    faiss.omp_set_num_threads(1)
    catalogue = Catalogue.make(QUICK_ITEMS if options.quick else ITEMS)
    size = QUICK_ROUND if options.quick else ROUND
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "state")
        space = Space.of(catalogue.placer.settings, 1)
        store.set_meta({records.SPACE: msgspec.msgpack.encode(space)})
        first = catalogue.close(np.arange(len(catalogue), dtype=np.int32))
        store.write_changes(first, {})
        yield from writes(catalogue, store, first, size, folder)
        store.close()
        with reading(folder / "state") as reader:
            yield from queries(reader, QUICK_QUERIES if options.quick else QUERIES)


# -- writing -------------------------------------------------------------------------------------


def writes(
    catalogue: Catalogue, store: Store, first: Changes, size: int, folder: Path
) -> Iterator[Result]:
    rng, table = np.random.default_rng(2), Table(folder / "rows.sqlite", first)
    bare, graph = Bare(folder / "bare", first), hnsw(first.vectors)
    made: list[Changes] = []
    moves: list[float] = []

    def changed() -> Changes:
        slots = np.sort(rng.choice(len(catalogue), size, replace=False)).astype(np.int32)
        catalogue.learn(slots, rng)
        changes = catalogue.close(slots)
        moves.append(changes.bucket_moves / size)
        return changes

    def write() -> float:
        made.append(changed())
        return size / timed(partial(store.write_changes, made[-1], {}))

    def place_and_write() -> float:
        slots = np.sort(rng.choice(len(catalogue), size, replace=False)).astype(np.int32)
        catalogue.learn(slots, rng)
        return size / timed(lambda: store.write_changes(catalogue.close(slots), {}))

    def add() -> float:
        vectors = made[-1].vectors
        return len(vectors) / timed(partial(graph.add, vectors))

    def peer() -> float:
        return size / timed(partial(table.write, made[-1]))

    def ceiling() -> float:
        return size / bare.seconds(made[-1])

    ours, theirs, most, whole, added = in_turns(write, peer, ceiling, place_and_write, add)
    label = (
        f"{size:,} changed rows of {len(catalogue):,}, {np.mean(moves):.1f} of "
        f"{catalogue.placer.settings.lsh.tables} buckets moved a row"
    )
    yield Result(
        bench="index",
        setting=label,
        ours=ours,
        unit="rows/s",
        peer=f"sqlite {sqlite3.sqlite_version}, the same rows and entries, log not synced",
        peer_value=theirs,
        ratio=ours / theirs,
        ceiling=f"{most:,.0f} rows/s: as many entries put blindly, sorted beforehand",
        target=f"{WRITE_TARGET:,}",
    )
    yield Result(
        bench="index",
        setting=f"{label}; placed as well",
        ours=whole,
        unit="rows/s",
        peer=f"{PEER}, the changed vectors added, nothing stored",
        peer_value=added,
        ratio=whole / added,
        ceiling="the line before: clusters, buckets and drift of a row cost about as much again",
    )


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Table:
    """sqlite3 with the rows and the index entries that the folder has."""

    def __init__(self, path: Path, first: Changes) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "pragma journal_mode = wal; pragma synchronous = off;"
            "create table rows (key blob primary key, value blob) without rowid;"
            "create table postings (place integer, bucket integer, key blob,"
            " primary key (place, bucket, key)) without rowid"
        )
        self._buckets: dict[bytes, list[int]] = {}
        self.write(first)

    def write(self, changes: Changes) -> None:
        """One transaction, with the entries of moved buckets only; -1 is the cluster's table."""
        places = np.column_stack(
            [changes.rows["cluster"], changes.rows["buckets"].astype(np.int64)]
        )
        left, entered = [], []
        for key, now in zip(changes.keys, places.tolist(), strict=True):
            old = self._buckets.get(key, [])
            if old != now:
                differ = [n for n, bucket in enumerate(now) if not old or old[n] != bucket]
                entered += [(n - 1, now[n], key) for n in differ]
                left += [(n - 1, old[n], key) for n in differ if old]
                self._buckets[key] = now
        run = self._db.executemany
        self._db.execute("begin")
        values = zip(changes.keys, changes.values, strict=True)
        run("insert or replace into rows values (?, ?)", values)
        run("delete from postings where place = ? and bucket = ? and key = ?", left)
        run("insert into postings values (?, ?, ?)", entered)
        self._db.execute("commit")


class Bare:
    """RocksDB alone, with the options of the folder, and nothing to find out."""

    def __init__(self, path: Path, first: Changes) -> None:
        options = RocksOptions(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_total_wal_size(LOG_BYTES)
        options.set_compression_type(DBCompressionType.none())
        self._db = Rdict(str(path), options)
        self.seconds(first)

    def seconds(self, changes: Changes) -> float:
        """To put each row, and two short entries for each bucket that moved, in key order."""
        rows = sorted(zip(changes.keys, changes.values, strict=True))
        short = [b"%017d" % n + key for n, key in enumerate(changes.keys)]
        moved = short * (2 * changes.bucket_moves // len(short) + 1)
        batch = WriteBatch(raw_mode=True)
        begin = time.perf_counter()
        for key, value in rows:
            batch.put(key, value)
        for key in moved[: 2 * changes.bucket_moves]:
            batch.put(key, b"")
        self._db.write(batch)
        return time.perf_counter() - begin


# -- searching -----------------------------------------------------------------------------------


def queries(store: Store, count: int) -> Iterator[Result]:
    """Queries a second of each mode, beside HNSW over [V^; U^] by the query's own vector."""
    resident = Index(store, resident=True)
    shelf = resident.shelf
    assert isinstance(shelf, Resident)
    n = len(shelf)
    pairs, names = shelf.vectors(range(n)), [shelf.details(at)[0].decode() for at in range(n)]
    asked = np.random.default_rng(3).choice(n, count, replace=False)
    for mode in MODES:
        asking, held = inner(pairs, asked, mode)
        wanted = exact(asking, held, asked)
        graph = hnsw(held)
        for name, in_memory, target in SEARCHES:
            index = resident if in_memory else Index(store)
            found: dict[str, list[Any]] = {}

            def ours(index: Index = index, mode: Mode = mode, found: Any = found) -> float:
                seconds = timed(lambda: found.update(ours=search(index, names, asked, mode)))
                return count / seconds

            ours()
            recall = overlap([[n.item for n in a.neighbours] for a in found["ours"]], wanted, names)
            effort, peer_recall = reach(graph, asking, asked, wanted, recall)
            graph.hnsw.efSearch = effort

            def peer(graph: Any = graph, asking: NDArray[np.float32] = asking) -> float:
                return count / timed(lambda: [graph.search(q[None], K + 1) for q in asking])

            speed, theirs = in_turns(ours, peer)
            compared = np.mean([answer.candidates for answer in found["ours"]])
            yield Result(
                bench="index",
                setting=f"query {mode} of {n:,}, {name}, {compared:,.0f} compared",
                ours=speed,
                unit="queries/s",
                peer=f"{PEER} in memory, efSearch {effort}, ids only",
                peer_value=theirs,
                ratio=speed / theirs,
                quality=f"recall@{K} {recall:.3f}",
                peer_quality=f"recall@{K} {peer_recall:.3f}",
                ceiling=ceiling_of(store, shelf, names, compared, in_memory),
                target=f"{target:,} at .95",
            )


def search(index: Index, names: list[str], asked: NDArray[np.int64], mode: Mode) -> list[Any]:
    return [index.neighbours([names[at]], K, mode) for at in asked.tolist()]


def inner(
    pairs: NDArray[np.float32], asked: NDArray[np.int64], mode: Mode
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mode as an inner product: queries [q, e] and what they are compared with [n, e]."""
    d = pairs.shape[1] // 2
    v, u = pairs[:, :d], pairs[:, d:]
    if mode == "similar":
        return v[asked], np.ascontiguousarray(v)
    return np.concatenate([v[asked] + u[asked], v[asked]], axis=1), pairs


def exact(
    asking: NDArray[np.float32], held: NDArray[np.float32], asked: NDArray[np.int64]
) -> list[set[int]]:
    score = asking @ held.T
    score[np.arange(len(asked)), asked] = -np.inf
    return [set(row) for row in np.argpartition(-score, K, axis=1)[:, :K].tolist()]


def overlap(found: list[list[str]], wanted: list[set[int]], names: list[str]) -> float:
    """recall@K."""
    hits = [
        len({names[at] for at in goal}.intersection(answered))
        for answered, goal in zip(found, wanted, strict=True)
    ]
    return sum(hits) / (K * len(hits))


def hnsw(vectors: NDArray[np.float32]) -> Any:
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EFFORT
    index.add(vectors)
    return index


def reach(
    graph: Any, asking: NDArray[np.float32], asked: NDArray[np.int64], wanted: list[set[int]],
    recall: float,
) -> tuple[int, float]:  # fmt: skip
    """The least effort of a search that reaches this recall, or the greatest, and what it gives."""
    reached = 0.0
    for effort in EFFORTS:
        graph.hnsw.efSearch = effort
        _, found = graph.search(asking, K + 1)
        hits = [
            len(set([at for at in row if at != own][:K]) & goal)
            for row, own, goal in zip(found.tolist(), asked.tolist(), wanted, strict=True)
        ]
        reached = sum(hits) / (K * len(hits))
        if reached >= recall:
            break
    return effort, reached


def ceiling_of(
    store: Store, shelf: Resident, names: list[str], compared: float, in_memory: bool
) -> str:
    """Queries a second, if all there is to do were to read the vectors that are compared."""
    rng, n = np.random.default_rng(4), int(compared)
    some = rng.choice(len(names), n, replace=False)
    if in_memory:
        seconds = min(timed(lambda: shelf.vectors(np.sort(some).tolist())) for _ in range(9))
        return f"{1 / seconds:,.0f} queries/s: so often the vectors compared are copied"
    keys = sorted(names[at].encode() for at in some.tolist())
    seconds = min(timed(lambda: store.rows(keys)) for _ in range(9))
    return f"{1 / seconds:,.0f} queries/s: so often RocksDB gets the rows compared, by key"
