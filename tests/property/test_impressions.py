"""Impressions: items that were shown, among the clicks and none of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine import Engine
from core.graph.fold import KEPT, SHOWN
from core.graph.graph import NEVER
from tests.property.strategies import (
    HALF_LIFE,
    START_MS,
    Click,
    click_lists,
    small_settings,
    to_clicks,
)
from tests.property.test_fold import state_of

rows_of = click_lists(late=3000, with_ids=True, shown=0.4)


def shown_of(engine: Engine) -> dict[str, float]:
    names, g = engine.vocabulary.keys, engine.graph
    there = [slot for slot in range(len(names)) if g.last_seen[slot] != NEVER]
    return {str(names[slot]): float(g.shown[slot]) for slot in there}


@given(rows_of, st.data())
@settings(max_examples=200, deadline=None)
def test_folding_them_in_two_parts_is_bitwise_folding_at_once(
    rows: list[Click], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    whole, parts = Engine(small_settings()), Engine(small_settings())
    whole.fold(to_clicks(rows))
    parts.fold(to_clicks(rows[:cut]))
    parts.fold(to_clicks(rows[cut:]))
    assert state_of(parts) == state_of(whole)
    assert shown_of(parts) == shown_of(whole)


@given(rows_of)
@settings(max_examples=200, deadline=None)
def test_they_change_no_session_no_arc_and_no_clock_and_add_up_for_what_was_clicked_before(
    rows: list[Click],
) -> None:
    # 20 half-lives in all: the landmark, which is that of the first record, has room for them.
    near = [(u, i, START_MS + (t - START_MS) % (20 * HALF_LIFE), w, e) for u, i, t, w, e in rows]
    all_of_them, clicks = Engine(small_settings()), Engine(small_settings())
    for engine in (all_of_them, clicks):
        engine.clock.landmark = START_MS
    fate = all_of_them.fold(to_clicks(near)).fate
    clicks.fold(to_clicks([row for row in near if row[3] > 0]))
    assert state_of(all_of_them) == state_of(clicks)
    assert ((fate == SHOWN) == [row[3] < 0 for row in near]).all()
    wanted: dict[str, float] = {}
    for (_, item, time, weight, _), what in zip(near, fate.tolist(), strict=True):
        if what == KEPT:
            wanted.setdefault(item, 0.0)
        elif what == SHOWN and item in wanted:
            wanted[item] -= weight * 2.0 ** ((time - START_MS) / HALF_LIFE)
    assert shown_of(all_of_them) == pytest.approx(wanted, rel=1e-4)


def test_one_is_counted_once_and_no_item_lives_by_it() -> None:
    engine = Engine(small_settings())
    rows = [
        ("u", "a", START_MS, -1.0, 0),
        ("u", "a", START_MS, 1.0, 0),
        ("v", "a", START_MS, -1.0, 0),
    ]
    engine.fold(to_clicks([*rows, ("v", "b", START_MS, -1.0, 0)]))
    scale = np.float32(2.0 ** (START_MS % HALF_LIFE / HALF_LIFE))
    assert shown_of(engine) == {"a": scale}
    assert engine.vocabulary.keys == ["a"]
