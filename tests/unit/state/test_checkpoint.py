from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.graph.slabs import LOCAL, TOPIC
from core.rounds import Inputs
from core.settings import Duration
from streamer.errors import WalkstreamError
from streamer.state import records
from streamer.state.store import POINTER, Store
from streamer.worker import checkpoint
from streamer.worker.sweeping import Sweeping, as_entries
from tests.unit.state.made import SETTINGS, batches


def remembered(engine: Engine) -> dict[str, Any]:
    """Graph, sessions and clock by id, so that slots do not matter."""
    names, g, ses = engine.vocabulary.keys, engine.graph, engine.sessions

    def named(slots: NDArray[np.int32]) -> list[str | None]:
        return [names[slot] for slot in slots]

    nodes = [slot for slot in range(len(names)) if g.last_seen[slot] >= 0]
    return {
        "graph": {
            names[slot]: (int(g.last_seen[slot]), named(nbr), wgt.tobytes())
            for slot in nodes
            for nbr, wgt in [g.row(slot)]
        },
        "sessions": {
            user: (int(ses.time[at]), named(ses.items[at, : ses.size[at]]))
            for user, at in ses.users.items()
        },
        "clock": (engine.clock.time, engine.clock.landmark),
    }


def learn(store: Store, engine: Engine, clicks: Clicks) -> None:
    """Items leave on the way, and their rows of the graph with them."""
    changes = engine.step(Inputs(clicks)).changes
    assert changes is not None
    store.write_changes(changes, {})


Step = Callable[[Store, Engine, Clicks], object]
STEPS: dict[str, Step] = {
    "learned": learn,
    "only folded": lambda _, engine, clicks: engine.fold(clicks),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_folder_gives_back_graph_and_sessions(store: Store, step: Step) -> None:
    engine = Engine(SETTINGS, 1)
    wrote = []
    for n, clicks in enumerate(batches(16), 1):
        step(store, engine, clicks)
        wrote.append(checkpoint.save(store, engine, n, 7 * n))
        loaded = Engine(SETTINGS, 1)
        at = checkpoint.load(store, loaded)
        assert at is not None
        assert (at.commit, at.offset, loaded.round_number) == (n, 7 * n, engine.round_number)
        assert remembered(loaded) == remembered(engine)
    assert min(wrote) > 0
    assert wrote[-1] < len(engine.vocabulary), "only what changed is written"


def test_what_is_saved_already_is_not_written_again(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.step(Inputs(clicks))
    assert checkpoint.save(store, engine, 1, 0) > 0
    assert checkpoint.save(store, engine, 1, 0) == 0


def test_graph_size_counts_nodes_and_arcs_of_the_checkpoint(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.fold(clicks)
    assert checkpoint.size(store) == (0, 0)
    checkpoint.save(store, engine, 1, 0)
    assert checkpoint.size(store) == (len(set(clicks.items)), engine.graph.arcs)


def test_a_folder_without_a_checkpoint_has_none(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    assert checkpoint.load(store, engine) is None
    assert checkpoint.newest(store) is None
    assert checkpoint.sessions(store) == 0
    assert remembered(engine) == remembered(Engine(SETTINGS, 1))


def test_the_newest_sweep_counts_be_it_of_the_folder_or_of_the_topic(store: Store) -> None:
    """Each says with which sessions it goes: the parts of the other are not mixed in."""
    engine = Engine(SETTINGS, 1)
    topic, folder = Sweeping(engine, TOPIC, None), Sweeping(engine, LOCAL, None)
    later = {2: (topic, records.SWEPT), 3: (folder, POINTER), 4: (topic, records.SWEPT)}
    for n, clicks in enumerate(batches(4), 1):
        engine.step(Inputs(clicks))
        for sweeping, pointer in (topic, records.SWEPT), (folder, POINTER):
            if n == 1 or later[n][0] is sweeping:
                sweeping.begin(n, n)
                written = sweeping.take(n, checkpoint.ALL, checkpoint.ALL)
                store.write_entries(as_entries(written, pointer))
        found = checkpoint.newest(store)
        assert found is not None
        assert found[1].commit == n
        if n > 1:
            assert found[0] == later[n][1]
        loaded = Engine(SETTINGS, 1)
        checkpoint.load(store, loaded)
        assert remembered(loaded) == remembered(engine)
    assert checkpoint.sessions(store) == len(engine.sessions.open)


@pytest.mark.parametrize("harm", ["missing", "foreign"])
def test_sessions_that_are_missing_or_of_another_sweep_are_told(store: Store, harm: str) -> None:
    engine = Engine(SETTINGS, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 1, 0)
    (key, old) = next(store.scan("sessions"))
    engine.step(Inputs(second))
    checkpoint.save(store, engine, 2, 1)
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    harmed = POINTER + records.sessions_key(at.turn, 0)
    assert harmed != key, "sweeps take turns, so that one that is cut short harms nothing"
    store.write_entries({"sessions": [(harmed, None if harm == "missing" else old)]})
    what = "missing" if harm == "missing" else "of commit 1"
    with pytest.raises(WalkstreamError, match=f"commit 2, part 0 of 1 is {what}.*Delete it"):
        checkpoint.load(store, Engine(SETTINGS, 1))


def test_a_sweep_that_is_cut_short_leaves_the_one_before_it(store: Store) -> None:
    """What it wrote is of later commits, and says so; evidence since the first is folded around."""
    engine = Engine(SETTINGS, 1)
    first, second, third = batches(3)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 1, 0)
    rounds = [engine.step(Inputs(second)).evidence]
    cut = Sweeping(engine, LOCAL, checkpoint.swept(store, POINTER))
    cut.begin(2, 1)
    store.write_entries(as_entries(cut.take(2, 20, checkpoint.ALL), POINTER))
    rounds.append(engine.step(Inputs(third)).evidence)
    loaded = Engine(SETTINGS, 1)
    at = checkpoint.load(store, loaded)
    assert at is not None
    assert at.commit == 1
    assert sorted({one.cut for _, one in checkpoint.nodes(store)}) == [1, 2]
    for commit, one in enumerate(rounds, 2):
        loaded.fold_again(one, commit)
    loaded.load_rows([])
    assert remembered(loaded) == remembered(engine)


def test_another_half_life_is_converted_once_through_a_common_time(store: Store) -> None:
    """Whatever comes later, no row is converted through another time than the rest."""
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.step(Inputs(clicks))
    checkpoint.save(store, engine, 1, 0)
    hour = replace(SETTINGS, graph=replace(SETTINGS.graph, half_life=Duration(3_600_000)))
    again = Engine(hour, 1)
    checkpoint.load(store, again)
    again.load_rows([])
    assert decayed(again) == pytest.approx(decayed(engine), rel=1e-5)
    later = int(clicks.times[-1]) + 30 * 3_600_000
    again.fold(Clicks(["u"], ["other"], np.array([later], np.int64), np.ones(1, np.float32)))
    assert checkpoint.save(store, again, 2, 1) > len(engine.vocabulary), "all are written anew"
    once_more = Engine(hour, 1)
    checkpoint.load(store, once_more)
    once_more.load_rows([])
    assert remembered(once_more) == remembered(again)
    assert decayed(once_more)["other"] == pytest.approx(1.0)


def decayed(engine: Engine) -> dict[str, float]:
    """By item, its count as of the newest click."""
    scale, names = engine.scale, engine.vocabulary.keys
    now = 2.0 ** ((scale.landmark - scale.now) / scale.half_life)
    return {str(names[slot]): engine.graph.clicked[slot] * now for slot in engine.items}


def test_an_item_that_left_and_was_described_again_in_one_commit_has_no_old_row(
    store: Store,
) -> None:
    """No tombstone leaves, so its new row, without a click, is written over the old one."""
    chosen = replace(SETTINGS, model=replace(SETTINGS.model, attribute_slots=1))
    engine = Engine(chosen, 1)
    (clicks,) = batches(1)
    item = clicks.items[0]
    key, told = item.encode(), [(item, ["c=x"])]
    engine.step(Inputs(clicks, told))
    checkpoint.save(store, engine, 1, 0)
    before = checkpoint.node(store, key)
    assert before is not None
    assert before.clicked > 0
    engine.step(Inputs(Clicks.empty(), [(item, None)], closes_commit=False))
    changes = engine.step(Inputs(Clicks.empty(), told)).changes
    assert changes is not None
    assert key not in [one.key for one in changes.gone]
    checkpoint.save(store, engine, 2, 1)
    after = checkpoint.node(store, key)
    assert after is not None
    assert (after.clicked, after.neighbours) == (0, [])
