from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from streamer.decode.ahead import Window
from streamer.store import Store
from streamer.worker import checkpoint
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


Step = Callable[[Engine, Clicks], object]
STEPS: dict[str, Step] = {
    "learned": lambda engine, clicks: engine.step(Inputs(clicks)),
    "only folded": lambda engine, clicks: engine.fold(clicks),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_checkpoint_gives_back_graph_sessions_and_offsets(store: Store, step: Step) -> None:
    engine = Engine(SETTINGS, 1)
    wrote = []
    for n, clicks in enumerate(batches(16)):
        step(engine, clicks)
        wrote.append(checkpoint.save(store, engine, {("clicks", 0): n}))
        loaded = Engine(SETTINGS, 1)
        assert checkpoint.load(store, loaded) == {"clicks/0": n}
        assert remembered(loaded) == remembered(engine)
    assert checkpoint.save(store, engine, {("clicks", 0): 99}) == 0, "nothing changed since"
    assert checkpoint.load(store, Engine(SETTINGS, 1)) == {"clicks/0": 99}
    assert min(wrote) > 0


def test_graph_size_counts_nodes_and_arcs_of_the_checkpoint(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.fold(clicks)
    assert checkpoint.size(store) == (0, 0)
    checkpoint.save(store, engine, {})
    assert checkpoint.size(store) == (len(set(clicks.items)), engine.graph.arcs)


def test_a_folder_without_a_checkpoint_has_none(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    assert checkpoint.load(store, engine) is None
    assert checkpoint.pointer(store) is None
    assert remembered(engine) == remembered(Engine(SETTINGS, 1))


def test_a_checkpoint_can_be_told_offsets_of_another_topic(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.fold(clicks)
    checkpoint.save(store, engine, {}, {0: Window.at(7)})
    assert checkpoint.windows(store) == {0: Window.at(7)}
    checkpoint.set_offsets(store, {("clicks", 0): 5})
    assert not checkpoint.windows(store), "those were of the old one"
    loaded = Engine(SETTINGS, 1)
    assert checkpoint.load(store, loaded) == {"clicks/0": 5}
    assert remembered(loaded) == remembered(engine)
