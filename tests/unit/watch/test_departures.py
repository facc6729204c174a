"""What the log says of a commit in which much of the catalogue leaves."""

import pytest

from core.engine import Engine
from streamer.worker.report import departures
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
    changes = step(engine, [], [(f"i{n}", None) for n in range(retired)])
    assert len(changes.gone) == 2 * retired
    told = departures(changes, retired, engine, START)
    wanted = "3 of 20 items left; 3 were retired by the items topic" if retired == 3 else None
    assert told == wanted


def test_over_a_tenth_that_expired_is_told_with_what_moved_the_clock() -> None:
    engine = grown()
    changes = step(engine, [("v", "i0", 2 * HORIZON), ("v", "new", 2 * HORIZON)])
    told = departures(changes, 0, engine, START) or ""
    assert told.startswith("19 of 21 items left: 19 that nobody clicked for graph.horizon (64s)")
    assert "because event time moved from 2023-11-14T22:13:20" in told
    assert "to 2023-11-14T22:15:28" in told
    assert "clicks.max_ahead" in told
