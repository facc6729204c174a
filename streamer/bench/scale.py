"""What rounds and commits cost with the size of the catalogue, without a broker in between.

Clicks are sessions inside groups of items, popular ones more often (Zipf), a thousand a second by
their own time. They go through engine and commit as in a worker: each commit is encoded record by
record, and applied to a state folder. A model is warm before it is measured.
"""

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.rounds import Inputs
from streamer.bench.catalogue import nested
from streamer.bench.results import Options, Result
from streamer.settings import load
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.records import Layout, Space
from streamer.state.store import Store
from streamer.worker import checkpoint
from streamer.worker.batch import Batch, Pending, progress, records_of
from streamer.worker.outgoing import Outgoing
from streamer.worker.sweeping import as_entries

SIZES, QUICK = (10_000, 100_000, 1_000_000), (10_000, 100_000)
PARTITIONS = 8
GROUP = 50
SESSION = 5
RATE = 1000
"""Clicks a second, and in a commit."""
WARM = 40
"""Commits before one is measured."""
LENGTHS, ACCUMULATORS = (3.3, 5.7), (1200.0, 450.0)
"""Of V and U: medians of the items after a replay of the Diginetica sessions (982,961 clicks)."""
MEASURED = {0: 20, 100: 40, 2000: 10}
"""How many rounds of so many clicks are measured."""
OVERHEAD = 12
"""Bytes of a record in a batch beside key, value and headers, about."""


@dataclass
class Shop:
    """An endless stream of clicks on n items."""

    n: int
    rng: np.random.Generator
    time: int = 1_700_000_000_000
    sessions: int = 0
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = [f"item-{number:07d}" for number in range(self.n)]
        self.order = self.rng.permutation(self.n // GROUP)

    def clicks(self, k: int) -> Clicks:
        """The next k clicks: sessions inside a group, popular groups and items first."""
        visits = -(-k // SESSION)
        groups = self.order[self._zipf(self.n // GROUP, visits)]
        inside = self._zipf(GROUP, visits * SESSION).reshape(visits, SESSION)
        items = (groups[:, None] * GROUP + inside).ravel()[:k]
        users = np.repeat(np.arange(self.sessions, self.sessions + visits), SESSION)[:k]
        self.sessions += visits
        # Visitors of a second come one between the other.
        turn = np.argsort(np.tile(np.arange(SESSION), visits)[:k], kind="stable")
        times = self.time + np.arange(k) * 1000 // RATE
        self.time += k * 1000 // RATE
        return Clicks(
            [f"user-{user:08d}" for user in users[turn].tolist()],
            [self.ids[item] for item in items[turn].tolist()],
            times.astype(np.int64), np.ones(k, np.float32), None,
            np.zeros(k, np.int32), np.arange(k, dtype=np.int64),
        )  # fmt: skip

    def _zipf(self, n: int, size: int) -> NDArray[np.int64]:
        rank = np.exp(self.rng.random(size) * np.log(n + 1)).astype(np.int64) - 1
        return np.minimum(rank, n - 1)


class World:
    """A worker without a broker."""

    def __init__(self, n: int, folder: Path, changed: list[str]) -> None:
        self.config: Config = load.load(None, [f"state.dir={folder}", *changed], {})
        self.spent: Counter[str] = Counter()
        settings = self.config.engine_settings
        self.engine = Engine(settings, PARTITIONS, self._timed)
        roles = ("item_vectors", "dead_letters", "model_state")
        self.space = msgspec.structs.replace(
            Space.of(settings, PARTITIONS),
            topics={role: Layout("", PARTITIONS) for role in roles},
        )
        self.store = Store(folder)
        self.store.set_meta({records.SPACE: msgspec.msgpack.encode(self.space)})
        self.shop = Shop(n, np.random.default_rng(1))
        self.outgoing = Outgoing(self.config, self.store, self.engine, lambda: 0, 0, {})
        self.commits, self.pending = 0, Pending()
        self.bytes: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.clicks = 0

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        try:
            yield
        finally:
            self.spent[stage] += time.process_time() - begin  # type: ignore[assignment]

    def fill(self) -> None:
        """Give every item a place in the graph and vectors as if it had learned for long."""
        engine, n, rng = self.engine, self.shop.n, self.shop.rng
        for begin in range(0, n, 20_000):
            part = np.arange(begin, min(begin + 20_000, n))
            users = [f"first-{item // SESSION}" for item in part.tolist()]
            times = np.full(len(part), self.shop.time, np.int64)
            weights = np.ones(len(part), np.float32)
            ids = [self.shop.ids[item] for item in part.tolist()]
            folded = engine.fold(Clicks(users, ids, times, weights))
            engine.catalogue.begin_round(0)
            engine.catalogue.give_birth(folded.slots)
        rows, columns = engine.model.rows, engine.model.columns
        rows.v[:n], rows.u[:n] = nested(n, rows.v.shape[1], rng)
        rows.v[:n] *= np.float32(LENGTHS[0])
        rows.u[:n] *= np.float32(LENGTHS[1])
        rows.acc_v[:n], rows.acc_u[:n] = ACCUMULATORS
        columns.updates[:n], columns.version[:n], columns.published[:n] = 100, 1, 1
        slots = engine.items
        columns.pub_v[slots] = unit_rows(hidden(rows, slots))
        columns.pub_u[slots] = unit_rows(rows.u[slots])
        columns.norms[slots] = LENGTHS
        rows.dirty[:n] = False
        engine.catalogue.list_items()
        engine.versions = dict.fromkeys(range(PARTITIONS), 1)
        for _ in range(WARM):
            self.round(RATE, closes=True)
        while engine.leaving.any_stale:
            self.round(0, closes=True)

    def round(self, clicks: int, closes: bool) -> None:
        some = self.shop.clicks(clicks)
        self.clicks += clicks
        out = self.engine.step(Inputs(some, closes_commit=closes))
        self.pending.events += out.events
        self.pending.evidence.append(out.evidence)
        if out.changes is None:
            return
        pending, self.pending = self.pending, Pending()
        self.commits += 1
        with self._timed("commit"):
            batch = self.outgoing.batch(self.commits, out.changes, pending, {("clicks", 0): 0}, {})
            for send in records_of(self.config, self.space, batch):
                size = len(send.key or b"") + len(send.value or b"") + OVERHEAD
                self.bytes[send.topic] += size + sum(
                    len(k) + len(v or b"") for k, v in send.headers
                )
                self.rows[send.topic] += 1
        with self._timed("apply"):
            before = _written()
            self._apply(batch)
            self.bytes["RocksDB"] += _written() - before

    def _apply(self, batch: Batch) -> None:
        families = defaultdict[str, list[tuple[bytes, bytes | None]]](list)
        for written, pointer in ((batch.swept, records.SWEPT), (batch.checkpoint, b"swept")):
            for family, entries in as_entries(written, pointer).items():
                families[family] += entries
        meta: dict[bytes, bytes | None] = {**progress(batch)}
        self.store.write_changes(batch.changes, meta, families)

    def forget(self) -> None:
        self.spent.clear()
        self.bytes.clear()
        self.rows.clear()
        self.clicks = 0


def _written() -> int:
    """Bytes that this process has written to files so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    return 0


def measure(options: Options) -> Iterator[Result]:
    """Rounds of 0, 100 and 2,000 clicks, bytes a click, and what a restart takes."""
    before: dict[int, float] = {}
    for n in QUICK if options.quick else SIZES:
        with tempfile.TemporaryDirectory() as name:
            yield from _of_size(n, Path(name), before)


def _of_size(n: int, folder: Path, before: dict[int, float]) -> Iterator[Result]:
    world = World(n, folder / "state", [])
    world.fill()
    for clicks, rounds in MEASURED.items():
        per_commit = max(1, RATE // clicks) if clicks else 1
        world.forget()
        for number in range(rounds):
            world.round(clicks, closes=(number + 1) % per_commit == 0)
        spent = {stage: 1000 * s / rounds for stage, s in world.spent.items()}
        total = sum(spent.values())
        smaller = before.get(clicks)
        yield Result(
            bench="scale",
            setting=f"round of {clicks:,} clicks, {n:,} items",
            ours=total,
            unit="ms of CPU",
            peer="none" if smaller is None else f"{n // 10:,} items",
            peer_value=smaller,
            ratio=None if smaller is None else total / smaller,
            quality=", ".join(f"{stage} {ms:.1f}" for stage, ms in spent.items() if ms >= 0.05),
            ceiling="reading the rows that negatives touch: some 800 bytes each, at random",
            target={100: "at most 45, and 1.5 times", 2000: "at most 800"}.get(clicks)
            if n == SIZES[-1]
            else None,
        )
        before[clicks] = total
    for changed in ([], ["publish.min_interval=30s"]):
        if changed:
            world = _again(world, folder, changed)
        yield from _bytes(world, n, changed)
    yield from _restart(world, n)


def _again(world: World, folder: Path, changed: list[str]) -> World:
    """The same model with other settings."""
    world.config = load.load(None, [f"state.dir={folder / 'state'}", *changed], {})
    world.engine.settings = world.engine.leaving.settings = world.config.engine_settings
    return world


def _bytes(world: World, n: int, changed: list[str]) -> Iterator[Result]:
    for _ in range(60 if changed else 0):  # what an interval holds back comes after it
        world.round(RATE, closes=True)
    world.forget()
    for _ in range(60):
        world.round(RATE, closes=True)
    names = world.config.topics
    of_topics = (names.item_vectors, names.model_state, names.transitions, "RocksDB")
    vectors = world.bytes[names.item_vectors] / world.clicks
    for topic in of_topics:
        per_click = world.bytes[topic] / world.clicks
        target = {
            names.model_state: "no more than item-vectors, under "
            + ("2,000" if changed else "12,000"),
            names.transitions: "at most 40",
        }.get(topic)
        yield Result(
            bench="scale",
            setting=f"{topic}, {n:,} items, {RATE:,} clicks/s" + "".join(f", {c}" for c in changed),
            ours=per_click,
            unit="bytes a click",
            peer="none" if topic == names.item_vectors else names.item_vectors,
            peer_value=None if topic == names.item_vectors else vectors,
            ratio=None if topic == names.item_vectors else per_click / vectors,
            quality=f"{world.rows[topic] / world.clicks:.2f} records a click"
            if topic in world.rows
            else None,
            ceiling="what moved past publish.min_drift"
            if topic != names.transitions
            else "the ids of a user and an item, and a time",
            target=target,
        )


def _restart(world: World, n: int) -> Iterator[Result]:
    """From the folder, with a sweep that has just ended: rows, graph and sessions."""
    checkpoint.save(world.store, world.engine, world.commits, 0)
    world.store.close()
    begin = time.perf_counter()
    with Store(Path(world.config.state.dir)) as store:
        engine = Engine(world.config.engine_settings, PARTITIONS)
        checkpoint.load(store, engine)
        engine.load_rows(store.rows_in_parts())
        seconds = time.perf_counter() - begin
    yield Result(
        bench="scale",
        setting=f"restart from the state folder, {len(engine.items):,} items, "
        f"{engine.graph.arcs:,} arcs",
        ours=seconds,
        unit="s",
        peer="none",
        ceiling="reading and interning the ids of rows and neighbours",
    )
