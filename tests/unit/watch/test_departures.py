"""What the log says when much of the catalogue leaves, in one commit or in many."""

from dataclasses import replace

import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.graph.written import load_nodes, nodes
from core.rounds import Inputs
from core.settings import Duration
from streamer.worker.age import shortened
from streamer.worker.report import Departures
from tests.unit.core.groups import HORIZON, START, settings, step

TOKENS = {f"i{n}": [f"c={n}"] for n in range(20)}


def grown() -> Engine:
    engine = Engine(settings(attribute_slots=1))
    step(engine, [("u", item, 0) for item in TOKENS], list(TOKENS.items()))
    return engine


@pytest.mark.parametrize("retired", [2, 3])
def test_over_a_tenth_that_was_retired_is_told(retired: int) -> None:
    """Their attributes, which leave as well, are no items."""
    engine = grown()
    departures = Departures(engine, START)
    changes = step(engine, [], [(f"i{n}", None) for n in range(retired)])
    assert len(changes.gone) == 2 * retired
    told = departures.add(changes, retired)
    wanted = "3 of 20 items left; 3 were retired by the items topic" if retired == 3 else None
    assert told == wanted


def test_over_a_tenth_that_expired_is_told_with_what_moved_the_clock() -> None:
    engine = grown()
    departures = Departures(engine, START)
    changes = step(engine, [("v", "i0", 2 * HORIZON), ("v", "new", 2 * HORIZON)])
    assert departures.add(changes, 0) is None
    told = departures.add(step(engine, []), 0) or ""
    assert told.startswith("19 of 21 items left: 19 that nobody clicked for graph.horizon (64s)")
    assert "because event time moved from 2023-11-14T22:13:20" in told
    assert "to 2023-11-14T22:15:28" in told
    assert "clicks.max_ahead" in told


def test_a_shorter_horizon_is_told_of_at_the_start_and_as_the_reason() -> None:
    engine = grown()
    step(engine, [("v", "i0", HORIZON // 2)])
    assert shortened(engine) is None
    graph = replace(engine.settings.graph, horizon=Duration(HORIZON // 4))
    again = Engine(replace(engine.settings, graph=graph))
    vars(again.clock).update(vars(engine.clock))
    load_nodes(
        again.catalogue, nodes(engine.catalogue, engine.items, 1, engine.scale), 1, engine.scale
    )
    again.load_rows([])
    told = shortened(again) or ""
    assert told.startswith("19 of 20 items were last clicked more than graph.horizon (16s)")
    departures = Departures(again, again.clock.time)
    why = departures.add(step(again, []), 0) or ""
    assert why.startswith("19 of 20 items left: 19 that nobody clicked for graph.horizon (16s)")
    assert "was longer before" in why


def test_items_that_leave_over_many_commits_are_told_of_once() -> None:
    engine = grown()
    departures, told = Departures(engine, START), []
    departures.add(step(engine, [("v", "i0", 2 * HORIZON), ("v", "new", 2 * HORIZON)]), 0)
    commits = 0
    while "i19" in engine.vocabulary:
        # Room for two: three records each, and a quarter of all.
        changes = engine.step(Inputs(Clicks.empty(), room=24)).changes
        assert changes is not None
        told.append(departures.add(changes, 0))
        commits += 1
    assert commits == 10
    (why,) = filter(None, told)
    assert why.startswith("4 of 21 items left: 4 that nobody clicked")
    assert "moved from 2023-11-14T22:13:20" in why
    # A commit in which none leaves ends it.
    assert departures.add(step(engine, []), 0) is None
    assert departures.add(step(engine, [], [("new", None)]), 1) is not None
