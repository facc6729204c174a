import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.graph.fold import BEGINS, DUPLICATE, KEPT, TOO_LONG, Folded, scaled
from core.graph.graph import Graph
from core.graph.slabs import LINE, UNIT
from core.settings import Duration, GraphSettings, SessionSettings, Settings

HALF_LIFE, GAP = 1000, 500
START = 1_700_000_000_000

Click = tuple[str, str, int]


def folded(rows: list[Click], weight: float = 1.0) -> Engine:
    engine = Engine(
        Settings(
            session=SessionSettings(gap=Duration(GAP), length=3),
            graph=GraphSettings(half_life=Duration(HALF_LIFE), max_degree=4),
        )
    )
    engine.fold(
        Clicks(
            [user for user, _, _ in rows],
            [item for _, item, _ in rows],
            np.array([START + time for _, _, time in rows]),
            np.full(len(rows), weight, np.float32),
        )
    )
    return engine


def arcs(engine: Engine) -> dict[str, dict[str, float]]:
    names = engine.vocabulary.keys
    rows = {str(name): engine.graph.row(slot) for slot, name in enumerate(names)}
    return {
        a: {str(names[b]): float(w) for b, w in zip(nbr, wgt, strict=True)}
        for a, (nbr, wgt) in rows.items()
    }


def test_consecutive_clicks_of_a_session_are_an_arc_each_way() -> None:
    engine = folded([("u", "a", 0), ("v", "x", 0), ("u", "b", 0), ("u", "c", 0)])
    assert arcs(engine) == {"a": {"b": 1}, "x": {}, "b": {"a": 1, "c": 1}, "c": {"b": 1}}


def test_a_repeat_of_the_same_item_is_no_arc_but_keeps_the_session_open() -> None:
    engine = folded([("u", "a", 0), ("u", "a", 400), ("u", "b", 800)])
    assert arcs(engine)["a"].keys() == {"b"}


@pytest.mark.parametrize(("pause", "same_session"), [(GAP, True), (GAP + 1, False)])
def test_a_session_ends_after_the_gap(pause: int, same_session: bool) -> None:
    engine = folded([("u", "a", 0), ("u", "b", pause)])
    assert bool(arcs(engine)["a"]) is same_session


def test_history_is_what_the_session_clicked_before_newest_first() -> None:
    engine = Engine(Settings(session=SessionSettings(length=3)))
    items = ["a", "b", "b", "c", "d", "e"]
    rows = engine.fold(Clicks(["u"] * 6, items, np.full(6, START), np.ones(6, np.float32)))
    assert rows.target.tolist() == [BEGINS, 1, -1, 2, 3, 4]
    assert rows.history[[1, 3, 4, 5]].tolist() == [[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 2, 1]]


def fates(
    rows: list[tuple[str, str, int, int]], *, max_events: int = 500, event_ids: int = 2
) -> tuple[Engine, Folded]:
    """Rows are user, item, time and event id."""
    engine = Engine(
        Settings(
            session=SessionSettings(Duration(GAP), 3, max_events, event_ids),
            graph=GraphSettings(half_life=Duration(100 * GAP), max_degree=4),
        )
    )
    return engine, engine.fold(
        Clicks(
            [user for user, _, _, _ in rows],
            [item for _, item, _, _ in rows],
            np.array([START + time for _, _, time, _ in rows]),
            np.ones(len(rows), np.float32),
            np.array([event_id for _, _, _, event_id in rows], np.uint64),
        )
    )


def test_an_event_id_that_came_before_is_a_duplicate_whatever_its_item_or_time() -> None:
    engine, got = fates([("u", "a", 0, 7), ("u", "a", 0, 7), ("u", "b", 9 * GAP, 7)])
    assert got.fate.tolist() == [KEPT, DUPLICATE, DUPLICATE]
    assert engine.clock.time == engine.sessions.time[0] == START
    assert got.amounts[1:].tolist() == [0, 0]
    assert "b" not in engine.vocabulary


def test_event_ids_are_those_of_one_user_and_clicks_without_one_are_no_duplicates() -> None:
    _, got = fates([("u", "a", 0, 7), ("v", "a", 0, 7), ("u", "b", 0, 0), ("u", "b", 0, 0)])
    assert got.fate.tolist() == [KEPT] * 4


def test_the_last_event_ids_are_remembered_for_a_gap() -> None:
    _, got = fates([("u", "a", 0, 1), ("u", "b", GAP, 2), ("u", "c", GAP, 1)])
    assert got.fate.tolist() == [KEPT, KEPT, DUPLICATE]
    _, got = fates([("u", "a", 0, 1), ("v", "b", 3 * GAP, 2), ("u", "c", 3 * GAP, 1)])
    assert got.fate.tolist() == [KEPT] * 3
    _, got = fates([("u", "a", 0, 1), ("u", "b", 1, 2), ("u", "c", 2, 3), ("u", "d", 3, 1)])
    assert got.fate.tolist() == [KEPT] * 4
    _, got = fates([("u", "a", 0, 1), ("u", "a", 0, 1)], event_ids=0)
    assert got.fate.tolist() == [KEPT] * 2


def test_a_row_that_is_used_again_has_no_event_ids() -> None:
    horizon = 8 * 100 * GAP
    _, got = fates([("u", "a", 0, 1), ("v", "b", horizon, 2), ("u", "c", horizon, 1)])
    assert got.fate.tolist() == [KEPT] * 3


def test_a_session_with_too_many_clicks_teaches_no_more_until_it_ends() -> None:
    rows = [("u", f"i{n}", n * GAP, 0) for n in range(6)] + [("u", "i0", 7 * GAP, 0)]
    engine, got = fates(rows, max_events=3)
    assert got.fate.tolist() == [KEPT] * 3 + [TOO_LONG] * 3 + [KEPT]
    assert got.target.tolist() == [BEGINS, 1, 2, -1, -1, -1, BEGINS]
    row_of = {name: list(row) for name, row in arcs(engine).items()}
    assert row_of == {"i0": ["i1"], "i1": ["i0", "i2"], "i2": ["i1"]}
    assert engine.sessions.clicks[0] == 1


def test_repeats_of_an_item_count_as_clicks_of_a_session() -> None:
    _, got = fates([("u", "a", 0, 0)] * 3, max_events=2)
    assert got.fate.tolist() == [KEPT, KEPT, TOO_LONG]


def test_a_bot_stays_in_its_session_and_its_event_ids_move_on() -> None:
    rows = [("u", "a", 0, 1), ("u", "b", GAP, 2), ("u", "c", 2 * GAP, 3), ("u", "c", 2 * GAP, 3)]
    engine, got = fates(rows, max_events=1)
    assert got.fate.tolist() == [KEPT, TOO_LONG, TOO_LONG, DUPLICATE]
    assert engine.sessions.event_ids[0].tolist() == [3, 2]
    assert engine.clock.time == engine.sessions.time[0] == START + 2 * GAP


def test_a_bot_that_invents_items_takes_no_memory() -> None:
    rows = [("bot", f"made-up-{n}", n, 0) for n in range(20_000)]
    engine, got = fates([*rows, ("u", "real", 20_000, 0)], max_events=3)
    assert engine.vocabulary.keys == ["made-up-0", "made-up-1", "made-up-2", "real"]
    assert got.slots[-1] == 3
    before = engine.table_bytes()
    for part in range(5):
        again = Clicks(
            ["bot"] * 4000, [f"more-{part}-{n}" for n in range(4000)],
            np.full(4000, START + 20_000), np.ones(4000, np.float32),
        )  # fmt: skip
        engine.fold(again)
    assert engine.table_bytes() == before


def test_an_arc_loses_half_of_its_share_in_a_half_life() -> None:
    engine = folded([("u", "a", 0), ("u", "b", 0), ("v", "a", HALF_LIFE), ("v", "c", HALF_LIFE)])
    weights = arcs(engine)["a"]
    assert weights["c"] == 2 * weights["b"]


def test_a_full_row_drops_its_weakest_neighbour_and_of_equals_the_first() -> None:
    clicks = []
    for i, other in enumerate(["b", "c", "d", "e"]):
        clicks += [(f"u{i}", "a", 0), (f"u{i}", other, 0)]
    assert list(arcs(folded(clicks))["a"]) == ["b", "c", "d", "e"]
    clicks += [("w", "a", 0), ("w", "b", 0)]
    clicks += [("z", "a", 0), ("z", "f", 0)]
    row = arcs(folded(clicks))
    assert row["a"] == {"b": 2, "f": 1, "d": 1, "e": 1}
    assert row["c"] == {"a": 1}  # each row is bounded by itself


@pytest.mark.parametrize("seed", range(3))
def test_decayed_counts_equal_their_closed_form(seed: int) -> None:
    """The sum over an item's clicks of weight * 2^((t - landmark) / half_life)."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 40 * HALF_LIFE, 300))
    rows = [(f"u{n}", "abcde"[rng.integers(5)], int(t)) for n, t in enumerate(times.tolist())]
    engine = folded(rows, weight=0.75)
    now = START + int(times[-1])
    for item in "abcde":
        slot = engine.vocabulary.get(item)
        assert slot is not None
        scale = 2.0 ** ((engine.clock.landmark - now) / HALF_LIFE)
        wanted = sum(0.75 * 2.0 ** ((START + t - now) / HALF_LIFE) for _, i, t in rows if i == item)
        assert engine.graph.clicked[slot] * scale == pytest.approx(wanted, rel=1e-5)


def test_scaled_weights_double_in_a_half_life_and_survive_any_time() -> None:
    one = scaled(np.float32(1.0), START, START, HALF_LIFE)
    assert one == 1.0
    assert scaled(np.float32(1.0), START + 63 * HALF_LIFE, START, HALF_LIFE) == 2.0**63
    assert scaled(np.float32(3.0), START - 500, START, HALF_LIFE) == np.float32(3 * 2**-0.5)
    assert scaled(np.float32(1.0), 0, START, HALF_LIFE) == 0.0


def test_a_dropped_node_leaves_no_arc_behind() -> None:
    engine = folded([("u", "a", 0), ("u", "b", 0), ("u", "c", 0), ("u", "a", 0)])
    engine.graph.drop(np.array([1]))
    assert arcs(engine) == {"a": {"c": 1}, "b": {}, "c": {"a": 1}}
    assert engine.graph.arcs == 2


def test_a_node_that_gave_a_place_away_leaves_no_arc_with_those_that_still_hold_it() -> None:
    """The hub keeps four neighbours, and eight hold arcs to it."""
    engine = folded([(f"u{n}", item, 0) for n in range(8) for item in ("hub", f"i{n}")])
    hub = engine.vocabulary.get("hub")
    assert hub is not None
    assert engine.graph.degree[hub] == 4
    assert engine.graph.evicted[hub]
    engine.graph.drop(np.array([hub]))
    assert engine.graph.arcs == 0
    assert not engine.graph.evicted[hub]


def test_too_many_neighbours_of_a_row_leave_the_lightest_out() -> None:
    graph = Graph(4)
    graph.reserve(8)
    graph.put_row(0, np.arange(1, 7, dtype=np.int32), np.array([3, 1, 4, 1, 5, 9], np.float32))
    nbr, wgt = graph.row(0)
    assert (nbr.tolist(), wgt.tolist()) == ([1, 3, 5, 6], [3, 4, 5, 9])
    assert graph.evicted[0]


def test_a_pool_grows_when_a_checkpoint_or_clicks_need_more() -> None:
    graph = Graph(128)
    graph.reserve(300)
    nbr, wgt = np.arange(128, dtype=np.int32), np.ones(128, np.float32)
    for slot in range(300):
        graph.put_row(slot, nbr, wgt)
    assert graph.arcs == 300 * 128
    assert np.array_equal(graph.row(299)[0], nbr)
    pairs = [("u", f"i{i % 97 * (i % 2 + 1)}", 0) for i in range(20_000)]
    degrees = [len(row) for row in arcs(folded(pairs)).values()]
    assert max(degrees) <= 4 < len(degrees)


@pytest.mark.parametrize("degree", [1, 4, 5, 16])
def test_the_pool_holds_the_whole_lines_that_scans_of_a_row_read(degree: int) -> None:
    graph = Graph(16)
    graph.reserve(2000)
    nbr, wgt = np.arange(degree, dtype=np.int32), np.ones(degree, np.float32)
    for slot in range(2000):
        graph.put_row(slot, nbr, wgt)
        read = graph.start[slot] * UNIT + -(-degree // LINE) * LINE
        assert read <= len(graph.nbr)
