"""An engine that stops at any commit and is restored goes on as if it had not, for any input."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.engine import Engine
from core.quality import Quality
from core.rounds import Changes, Inputs
from core.rows import from_values, to_values
from core.settings import Settings
from tests.property.strategies import Click, click_lists, small_settings, to_clicks
from tests.property.test_fold import state_of

PARTITIONS = 3


@dataclass
class Round:
    clicks: list[Click]
    described: Sequence[tuple[str, Sequence[str] | None]]
    closes_commit: bool


@dataclass
class Node:
    """An engine with what stands around it: a catalogue, and a store that keeps the latest rows."""

    engine: Engine
    catalogue: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    quality: Quality | None = None
    """Of the last round."""

    def tokens(self, item: str) -> list[str]:
        return self.catalogue.get(item, [])

    def load(self) -> None:
        values = from_values(list(self.rows.values()), self.engine.model.dtype)
        self.engine.load_rows(list(self.rows), values, self.tokens)

    def step(self, work: Round) -> Changes | None:
        for item, tokens in work.described:
            self.catalogue[item] = list(tokens or [])
        clicks = to_clicks(work.clicks)
        out = self.engine.step(Inputs(clicks, work.described, work.closes_commit))
        self.quality = out.quality
        if out.changes is not None:
            self.rows |= zip(out.changes.keys, to_values(out.changes.rows), strict=True)
            for gone in out.changes.gone:
                self.rows.pop(gone.key, None)
        return out.changes


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
    if changes.placement is not None:
        fields["placement"] = {name: value(x) for name, x in vars(changes.placement).items()}
    return fields


def run(node: Node, rounds: list[Round]) -> list[Any]:
    return [(plain(node.step(work)), node.quality) for work in rounds]


@st.composite
def histories(draw: st.DrawFn) -> list[Round]:
    rows = draw(click_lists(late=1000, size=300, with_ids=draw(st.booleans())))
    size = draw(st.integers(1, 30))
    item = st.integers(0, 10).map("i{}".format)
    tokens = st.lists(st.sampled_from(["c=a", "c=b", "c=c"]), max_size=3)
    rounds = []
    for begin in range(0, len(rows), size):
        described = draw(st.lists(st.tuples(item, tokens), max_size=2))
        rounds.append(Round(rows[begin : begin + size], described, draw(st.integers(0, 3)) > 0))
    return rounds


models = st.fixed_dictionaries(
    {
        "attribute_slots": st.sampled_from([0, 2]),
        "alpha": st.sampled_from([0.0, 0.5]),
        "max_events": st.sampled_from([4, 500]),
    }
)


@given(histories(), models, st.data())
@settings(max_examples=150, deadline=None)
def test_a_restored_engine_goes_on_bit_for_bit(
    rounds: list[Round], model: dict[str, Any], data: st.DataObject
) -> None:
    chosen = small_settings(**model)
    live = new_node(chosen)
    checkpoint, later, commits = deepcopy(live.engine), list[Click](), 0
    stop_at, save_at = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 12))
    for at, work in enumerate(rounds):
        changes = live.step(work)
        later += work.clicks
        if changes is None:
            continue
        commits += 1
        if commits == save_at:
            checkpoint, later = deepcopy(live.engine), []
        if commits == stop_at:
            rest = rounds[at + 1 :]
            break
    else:
        return
    known = live.engine
    engine = Engine(chosen, PARTITIONS, clock=checkpoint.clock)
    engine.catalogue.vocabulary = checkpoint.vocabulary
    engine.catalogue.graph, engine.catalogue.sessions = checkpoint.graph, checkpoint.sessions
    engine.fold(to_clicks(later))
    restored = Node(engine, dict(live.catalogue), dict(live.rows))
    restored.load()
    engine.round_number, engine.placement = known.round_number, known.placement
    engine.versions = dict(known.versions)
    assert state_of(engine) == state_of(known)
    assert run(restored, rest) == run(live, rest)


@given(histories(), models, st.data())
@settings(max_examples=60, deadline=None)
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
    engine.catalogue.relabel(np.flatnonzero(alive))


@given(histories(), models)
@settings(max_examples=60, deadline=None)
def test_a_store_that_follows_the_changes_holds_what_the_engine_holds(
    rounds: list[Round], model: dict[str, Any]
) -> None:
    node = new_node(small_settings(**model))
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
