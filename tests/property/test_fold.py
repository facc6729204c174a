"""Folding clicks into sessions and graph, for any clicks."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.fold import KEPT
from core.graph.graph import NEVER, Graph
from core.graph.sessions import REMEMBERED
from core.graph.slabs import UNIT
from core.settings import AdmissionSettings
from tests.folders import counts_of
from tests.property.strategies import (
    GAP,
    HALF_LIFE,
    START_MS,
    Click,
    admissions,
    click_lists,
    small_settings,
    to_clicks,
)

degrees = st.sampled_from([4, 8])
horizons = st.sampled_from([1000, 8000, 500_000])
limits = st.fixed_dictionaries(
    {"max_events": st.sampled_from([1, 3, 500]), "event_ids": st.sampled_from([0, 1, 2])}
)


def graph_of(engine: Engine) -> dict[str, tuple[int, list[str], bytes]]:
    """By item: when it was last seen, its neighbours in the order of the row, their weights."""
    graph, names = engine.graph, engine.vocabulary.keys
    out = {}
    for slot, name in enumerate(names):
        nbr, wgt = graph.row(slot)
        seen = int(graph.last_seen[slot])
        if seen != NEVER or len(nbr):
            out[str(name)] = seen, [str(names[b]) for b in nbr], wgt.tobytes()
    return out


def sessions_of(engine: Engine) -> dict[str, tuple[int, int, list[int], list[str]]]:
    """By user: the time of the last click, how many there were, the last event ids and items."""
    sessions, names = engine.sessions, engine.vocabulary.keys
    return {
        user: (
            int(sessions.time[row]),
            int(sessions.clicks[row]),
            sessions.event_ids[row].tolist(),
            [str(names[item]) for item in sessions.items[row, : sessions.size[row]]],
        )
        for user, row in sessions.users.items()
    }


def state_of(engine: Engine) -> Any:
    clock = engine.clock
    return (
        graph_of(engine), sessions_of(engine), counts_of(engine), clock.time, clock.landmark,
    )  # fmt: skip


def check_pool(graph: Graph) -> None:
    """Rows and free lists cover the used pool, and no part of it twice."""
    used = np.zeros(graph.heads[0], np.int32)
    for slot in np.flatnonzero(graph.degree):
        size = 1 << int(graph.size_class[slot])
        assert UNIT * size // 2 < max(graph.degree[slot], UNIT // 2 + 1) <= UNIT * size
        used[graph.start[slot] : graph.start[slot] + size] += 1
    for size_class, head in enumerate(graph.heads[1:].tolist()):
        while head >= 0:
            used[head : head + (1 << size_class)] += 1
            head = int(graph.nbr[head * UNIT])
    assert (used == 1).all()


@given(click_lists(late=3000, with_ids=True), st.data(), degrees, horizons, limits, admissions)
@settings(max_examples=300, deadline=None)
def test_folding_in_two_parts_is_bitwise_folding_at_once(
    rows: list[Click], data: st.DataObject, degree: int, horizon: int, limit: dict[str, Any],
    admission: AdmissionSettings,
) -> None:  # fmt: skip
    cut = data.draw(st.integers(0, len(rows)))
    chosen = small_settings(max_degree=degree, horizon=horizon, admission=admission, **limit)
    whole, parts = Engine(chosen), Engine(chosen)
    folded = whole.fold(to_clicks(rows))
    one, two = parts.fold(to_clicks(rows[:cut])), parts.fold(to_clicks(rows[cut:]))
    assert graph_of(parts) == graph_of(whole)
    assert counts_of(parts) == counts_of(whole)
    assert (parts.clock.time, parts.clock.landmark) == (whole.clock.time, whole.clock.landmark)
    for name in ("fate", "slots", "history", "target"):
        both = np.concatenate([getattr(one, name), getattr(two, name)])
        assert np.array_equal(both, getattr(folded, name))


@given(click_lists(late=3000, size=40), st.integers(-6, 6))
@settings(max_examples=100, deadline=None)
def test_a_landmark_moved_by_half_lives_is_bitwise_one_that_was_always_there(
    rows: list[Click], half_lives: int
) -> None:
    # 20 half-lives in all, so that float32 neither overflows nor goes below its normal numbers.
    near = [(u, i, START_MS + (t - START_MS) % (20 * HALF_LIFE), w, e) for u, i, t, w, e in rows]
    chosen = small_settings(horizon=100_000)
    here, there = Engine(chosen), Engine(chosen)
    here.clock.landmark = START_MS
    there.clock.landmark = START_MS + half_lives * HALF_LIFE
    here.fold(to_clicks(near))
    there.fold(to_clicks(near))
    before = {name: np.frombuffer(w, np.float32) for name, (_, _, w) in graph_of(here).items()}
    here.graph.shift(half_lives)
    assert graph_of(here) == graph_of(there)
    for name, (_, _, data) in graph_of(here).items():
        after = np.frombuffer(data, np.float32)
        assert (after / after.sum()).tobytes() == (before[name] / before[name].sum()).tobytes()


class Model:
    """What the graph should be, with plain lists: rows of [neighbour, weight], and no pool."""

    def __init__(self, max_degree: int) -> None:
        self.max_degree = max_degree
        self.rows: dict[str, list[list[Any]]] = {}

    def add(self, a: str, b: str, weight: np.float32) -> None:
        row = self.rows.setdefault(a, [])
        for arc in row:
            if arc[0] == b:
                arc[1] = np.float32(arc[1] + weight)
                return
        if len(row) < self.max_degree:
            row.append([b, weight])
        else:
            weakest = min(range(len(row)), key=lambda i: row[i][1])  # the first of equals
            row[weakest] = [b, weight]


def transitions(rows: list[Click]) -> Iterator[tuple[str, str, float]]:
    """From which item to which, in one session a user: each pair once in 16 items."""
    seen: dict[str, list[str]] = {}
    for user, item, _, weight, _ in rows:
        last = seen.setdefault(user, [])
        if last and last[-1] != item:
            if {last[-1], item} not in [set(pair) for pair in pairwise(last)]:
                yield last[-1], item, weight
        elif last:
            continue
        last.append(item)
        del last[:-REMEMBERED]


@given(click_lists(users=2, items=12, size=120), degrees)
@settings(max_examples=150, deadline=None)
def test_a_full_row_gives_the_place_of_its_weakest_neighbour_away(
    rows: list[Click], degree: int
) -> None:
    # One session a user and one moment, so that weights are plain and ties happen.
    now = [(user, item, START_MS, weight, 0) for user, item, _, weight, _ in rows]
    engine, expected = Engine(small_settings(max_degree=degree)), Model(degree)
    engine.fold(to_clicks(now))
    for a, b, weight in transitions(now):
        scaled = np.float32(weight * 2.0 ** (START_MS % HALF_LIFE / HALF_LIFE))
        expected.add(a, b, scaled)
        expected.add(b, a, scaled)
    arcs = graph_of(engine)
    for name, row in expected.rows.items():
        _, neighbours, weights = arcs[name]
        assert neighbours == [b for b, _ in row]
        assert np.frombuffer(weights, np.float32).tolist() == [w for _, w in row]


@pytest.mark.parametrize("degree", [16, 64])
def test_long_rows_are_those_of_a_plain_model(degree: int) -> None:
    rng = np.random.default_rng(degree)
    now: list[Click] = [
        ("u", f"i{item}", START_MS, float(weight), 0)
        for item, weight in zip(rng.zipf(1.3, 6000) % 100, rng.integers(1, 9, 6000), strict=True)
    ]
    engine = Engine(small_settings(max_degree=degree, max_events=10_000))
    # Rows that were longer leave numbers of neighbours behind, which are none.
    engine.fold(to_clicks(now))
    engine.graph.drop(np.arange(len(engine.vocabulary)))
    engine.sessions.forget(["u"])
    expected = Model(degree)
    engine.fold(to_clicks(now))
    for a, b, weight in transitions(now):
        scaled = np.float32(weight * 2.0 ** (START_MS % HALF_LIFE / HALF_LIFE))
        expected.add(a, b, scaled)
        expected.add(b, a, scaled)
    assert max(map(len, expected.rows.values())) == degree
    arcs = graph_of(engine)
    for name, row in expected.rows.items():
        _, neighbours, weights = arcs[name]
        assert neighbours == [b for b, _ in row]
        assert np.frombuffer(weights, np.float32).tolist() == [w for _, w in row]


def kept(rows: list[Click], fate: NDArray[np.int8]) -> list[Click]:
    return [row for row, what in zip(rows, fate.tolist(), strict=True) if what == KEPT]


@given(click_lists(late=3000, with_ids=True), degrees, horizons)
@settings(max_examples=200, deadline=None)
def test_duplicates_change_nothing_at_all(rows: list[Click], degree: int, horizon: int) -> None:
    chosen = small_settings(max_degree=degree, horizon=horizon)
    given_all, given_kept = Engine(chosen), Engine(chosen)
    fate = given_all.fold(to_clicks(rows)).fate
    given_kept.fold(to_clicks(kept(rows, fate)))
    assert state_of(given_all) == state_of(given_kept)


@given(st.lists(click_lists(items=40, with_ids=True), min_size=1, max_size=3), limits)
@settings(max_examples=200, deadline=None)
def test_items_get_slots_in_the_order_of_their_first_clicks_that_count(
    batches: list[list[Click]], limit: dict[str, Any]
) -> None:
    engine, expected = Engine(small_settings(**limit)), dict[str, None]()
    for rows in batches:
        folded = engine.fold(to_clicks(rows))
        expected |= dict.fromkeys(item for _, item, _, _, _ in kept(rows, folded.fate))
        assert engine.vocabulary.keys == list(expected)
        assert engine.vocabulary.known == len(expected)
        names = [engine.vocabulary.keys[slot] for slot in folded.slots if slot >= 0]
        assert names == [item for _, item, _, _, _ in kept(rows, folded.fate)]


@given(st.lists(click_lists(items=14, size=40), min_size=1, max_size=4), degrees, st.data())
@settings(max_examples=100, deadline=None)
def test_slabs_never_overlap_and_none_is_lost(
    batches: list[list[Click]], degree: int, data: st.DataObject
) -> None:
    engine = Engine(small_settings(max_degree=degree, horizon=100_000))
    for rows in batches:
        engine.fold(to_clicks(rows))
        check_pool(engine.graph)
        dead = np.zeros(len(engine.graph.degree), np.bool_)
        leaving = data.draw(st.lists(st.integers(0, 13), max_size=6))
        dead[[slot for slot in leaving if slot < len(engine.vocabulary)]] = True
        engine.sessions.end_with(dead)
        engine.graph.drop(np.flatnonzero(dead))
        check_pool(engine.graph)
        assert (engine.graph.degree <= degree).all()
        for slot in range(len(engine.vocabulary)):
            nbr, _ = engine.graph.row(slot)
            assert not dead[nbr].any()
            assert len(set(nbr.tolist())) == len(nbr)
            assert slot not in nbr


@given(click_lists(late=2 * GAP, size=60))
@example(
    # The jump ends on a sweep to the millisecond.
    [("u0", "i0", START_MS + t, 1.0, 0) for t in (0, 200 * HALF_LIFE)]
    + [("u0", "i1", START_MS + 200 * HALF_LIFE, 1.0, 0)]
)
@settings(max_examples=100, deadline=None)
def test_the_clock_is_the_greatest_time_and_weights_stay_finite(rows: list[Click]) -> None:
    engine = Engine(small_settings())
    engine.fold(to_clicks(rows))
    for _, _, data in graph_of(engine).values():
        assert np.isfinite(np.frombuffer(data, np.float32)).all()
    if rows:
        assert engine.clock.time == max(time for _, _, time, _, _ in rows)
        assert (engine.clock.time - engine.clock.landmark) // HALF_LIFE < 64
