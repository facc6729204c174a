"""An engine that stops at any commit and is restored goes on as if it had not, for any input."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.engine import Engine
from core.learning import lending
from core.quality import Quality
from core.retracing import remember
from core.rounds import ROOM, Changes, Evidence, Inputs
from core.rows import from_values, to_values
from core.settings import NEGATIVES, Settings
from streamer.state import evidence, records
from streamer.state.store import POINTER, Store
from streamer.worker import checkpoint
from streamer.worker.sweeping import Sweeping, as_entries
from tests.property.strategies import (
    HORIZON,
    Click,
    admissions,
    click_lists,
    small_settings,
    to_clicks,
)
from tests.property.test_fold import state_of

PARTITIONS = 3


@pytest.fixture(autouse=True, scope="module")
def few_have_their_turn() -> Iterator[None]:
    """So that whose turn it is to be lent rows follows from the round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lending, "AT_ONCE", 2)
        yield


@dataclass
class Round:
    clicks: list[Click]
    described: Sequence[tuple[str, Sequence[str] | None]]
    closes_commit: bool
    forgotten: Sequence[str] = ()
    room: int = ROOM


@dataclass
class Node:
    """An engine with what stands around it: a catalogue, and a store that keeps the latest rows."""

    engine: Engine
    catalogue: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    quality: Quality | None = None
    """Of the last round."""
    evidence: list[Evidence] = field(default_factory=list)
    """Since the last commit."""

    def tokens(self, item: str) -> list[str]:
        return self.catalogue.get(item, [])

    def load(self) -> None:
        values = from_values(list(self.rows.values()), self.engine.model.dtype)
        self.engine.load_rows([(list(self.rows), values)], self.tokens)

    def step(self, work: Round) -> Changes | None:
        for item, tokens in work.described:
            self.catalogue[item] = list(tokens or [])
        clicks = to_clicks(work.clicks)
        users = np.array([int(user[1:]) for user in clicks.users], np.int32)
        clicks = replace(clicks, partitions=users % 2)
        out = self.engine.step(
            Inputs(clicks, work.described, work.forgotten, work.closes_commit, work.room)
        )
        self.quality = out.quality
        self.evidence.append(out.evidence)
        if out.changes is not None:
            self.rows |= zip(out.changes.keys, to_values(out.changes.rows), strict=True)
            for gone in out.changes.gone:
                self.rows.pop(gone.key, None)
        return out.changes


def all_of(engine: Engine) -> Any:
    """Graph, sessions and clock, and of each item its count and its birth."""
    slots, g, c = engine.items, engine.graph, engine.model.columns
    numbers = (column[slots].tolist() for column in (g.clicked, g.shown, c.born_round, c.born_rank))
    return state_of(engine), list(zip(engine.vocabulary.names(slots), *numbers, strict=True))


def new_node(chosen: Settings) -> Node:
    node = Node(Engine(chosen, PARTITIONS))
    node.load()
    return node


def plain(changes: Changes | None) -> Any:
    """Changes as values that compare bit for bit."""

    def value(x: Any) -> Any:
        return (x.dtype.str, x.shape, x.tobytes()) if isinstance(x, np.ndarray) else x

    if changes is None:
        return None
    fields = {name: value(x) for name, x in vars(changes).items()}
    # A restart does not know whether a row of the graph was ever written, and deletes it anyway.
    fields["gone"] = sorted((g.key, g.version, g.was_published) for g in changes.gone)
    for name in ("placed_by", "placement"):
        if (found := getattr(changes, name)) is not None:
            fields[name] = {part: value(x) for part, x in vars(found).items()}
    return fields


def run(node: Node, rounds: list[Round]) -> list[Any]:
    return [(plain(node.step(work)), node.quality) for work in rounds]


@st.composite
def histories(draw: st.DrawFn) -> list[Round]:
    late = draw(st.sampled_from([1000, 1000, 2 * HORIZON]))
    shown = draw(st.sampled_from([0.0, 0.0, 0.3]))
    rows = draw(click_lists(late=late, size=300, with_ids=draw(st.booleans()), shown=shown))
    size = draw(st.integers(1, 30))
    item = st.integers(0, 10).map("i{}".format)
    tokens = st.lists(st.sampled_from(["c=a", "c=b", "c=c"]), max_size=3) | st.none()
    room = draw(st.sampled_from([ROOM, 12, 36]))
    rounds = []
    for begin in range(0, len(rows), size):
        described = draw(st.lists(st.tuples(item, tokens), max_size=2))
        forgotten = draw(st.sampled_from([[]] * 7 + [["u1", "u9"]]))
        closes = draw(st.integers(0, 3)) > 0
        rounds.append(Round(rows[begin : begin + size], described, closes, forgotten, room))
    return rounds


CLUSTERS: list[dict[str, Any]] = [
    {"update": "anew"},
    {"spawn": 0.99, "margin": 0.0, "most": 4},
    {"spawn": 0.99, "margin": 0.0, "most": 4, "update": "anew"},
    {"kind": "rules", "depth": 2, "min_size": 1, "most": 4},
]
models = st.fixed_dictionaries(
    {
        "attribute_slots": st.sampled_from([0, 2]),
        "against": st.sampled_from(NEGATIVES),
        "corpus": st.sampled_from(["walks", "sessions", "both"]),
        "forgetting": st.sampled_from([0.0, 1.0, 8.0]),
        "max_events": st.sampled_from([4, 500]),
        "admission": admissions,
        "clusters": st.sampled_from([{}, {}, *CLUSTERS]),
        "bits": st.sampled_from([3, 3, 0]),
        "tiers": st.sampled_from([(), ((1, 16), (3, 64))]),
    }
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples, as making one takes longer than filling it."""
    with Store(tmp_path_factory.mktemp("store") / "state") as made:
        yield made


def emptied(store: Store) -> Store:
    for name in ("graph", "sessions", "meta"):
        store.write_entries({name: [(key, None) for key in store.everything(name)]})
    return store


@dataclass
class Log:
    """What a worker writes of one engine: evidence, and the sweeps of a topic and of a folder."""

    store: Store
    evidence: list[bytes] = field(default_factory=list)
    last: int = 0

    def commit(
        self, number: int, node: Node, sweeps: dict[bytes, Sweeping], begins: list[bytes], rows: int
    ) -> None:
        """`begins` are the sweeps that may begin, and `rows` is how many each may write."""
        packed = list(evidence.pack(number, self.last, node.evidence))
        node.evidence.clear()
        at = len(self.evidence)
        self.evidence += packed
        self.last = number if packed else self.last
        for pointer, sweeping in sweeps.items():
            if pointer in begins:
                sweeping.begin(number, at)
            self.store.write_entries(as_entries(sweeping.take(number, rows, 1 << 40), pointer))

    def drop(self, gone: list[bytes]) -> None:
        self.store.write_entries({"graph": [(key, None) for key in gone]})

    def rounds(self) -> Iterator[Evidence]:
        for record in self.evidence:
            yield from evidence.unpack(record).rounds

    def restored(self, chosen: Settings) -> Engine:
        """The engine of the last commit, without its rows."""
        engine = Engine(chosen, PARTITIONS)
        found = checkpoint.load(self.store, engine)
        for record in self.evidence[found.offset if found else 0 :]:
            commit, _, rounds = evidence.unpack(record)
            for one in rounds if found is None or commit > found.commit else ():
                engine.fold_again(one, commit)
        return engine


def sweeps_of(engine: Engine, store: Store) -> dict[bytes, Sweeping]:
    return {key: checkpoint.of(store, engine, key) for key in (records.SWEPT, POINTER)}


@given(histories(), models, st.data())
@settings(max_examples=40, deadline=None)
def test_an_engine_that_is_restored_now_and_then_goes_on_bit_for_bit(
    store: Store, rounds: list[Round], model: dict[str, Any], data: st.DataObject
) -> None:
    """From rows of the graph of many commits, and the evidence since the sweep of them began."""
    chosen = small_settings(min_drift=0.0, **model)
    calm, node, log = new_node(chosen), new_node(chosen), Log(emptied(store))
    sweeps, commits = sweeps_of(node.engine, store), 0
    for work in rounds:
        changes, wanted = node.step(work), calm.step(work)
        assert (plain(changes), node.quality) == (plain(wanted), calm.quality)
        if changes is None:
            continue
        commits += 1
        log.drop([gone.key for gone in changes.gone])
        begins = [one for one in sweeps if data.draw(st.booleans())]
        log.commit(commits, node, sweeps, begins, data.draw(st.integers(1, 12)))
        if data.draw(st.integers(0, 5)) == 0:
            node = restored(node, log, chosen)
            sweeps = sweeps_of(node.engine, store)
            assert all_of(node.engine) == all_of(calm.engine)


def restored(node: Node, log: Log, chosen: Settings) -> Node:
    """What a new process makes of all that was written."""
    known, engine = node.engine, log.restored(chosen)
    out = Node(engine, dict(node.catalogue), dict(node.rows))
    engine.placement, engine.starts.major = known.placement, known.starts.major
    engine.round_number, engine.versions = known.round_number, dict(known.versions)
    engine.clock.time, engine.fusion = known.clock.time, deepcopy(known.fusion)
    out.load()
    remember(engine, log.rounds())
    return out


@given(histories(), models, st.data())
@settings(max_examples=40, deadline=None)
def test_renumbering_slots_changes_nothing(
    rounds: list[Round], model: dict[str, Any], data: st.DataObject
) -> None:
    chosen = small_settings(**model)
    one, two = new_node(chosen), new_node(chosen)
    for work in rounds:
        assert plain(one.step(work)) == plain(two.step(work))
        if work.closes_commit and data.draw(st.booleans()):
            compact(two.engine)


def compact(engine: Engine) -> None:
    alive: NDArray[np.bool_] = engine.model.columns.alive[: len(engine.vocabulary)]
    engine._relabel(np.flatnonzero(alive))


@given(histories(), models)
@settings(max_examples=40, deadline=None)
def test_a_store_that_follows_the_changes_holds_what_the_engine_holds(
    rounds: list[Round], model: dict[str, Any]
) -> None:
    node = new_node(small_settings(min_drift=0.0, **model))
    versions: dict[int, int] = {}
    published: set[bytes] = set()
    for work in rounds:
        changes = node.step(work)
        if changes is None:
            continue
        assert all(new == versions.get(p, 0) + 1 for p, new in changes.versions.items())
        versions |= changes.versions
        assert changes.rows["version"].tolist() == [versions[p] for p in changes.partitions]
        published |= {changes.keys[at] for at in changes.published}
        for gone in changes.gone:
            assert gone.version == versions[gone.partition]
            assert gone.was_published == (gone.key in published)
            published.discard(gone.key)
        keys = {name.encode("utf-8", "surrogateescape") for name in node.engine.vocabulary._slots}
        assert node.rows.keys() == keys
        assert published <= node.rows.keys()
        for unit in (changes.vectors, changes.contexts):
            norms = np.linalg.norm(unit, axis=1)
            assert np.all((np.abs(norms - 1) < 1e-5) | (norms == 0))


@given(histories(), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_equal_inputs_give_equal_outputs(rounds: list[Round], seed: int) -> None:
    chosen = small_settings(seed=seed)
    assert run(new_node(chosen), rounds) == run(new_node(chosen), rounds)
