import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.graph import Graph, scaled
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
    assert rows.target.tolist() == [-1, 1, -1, 2, 3, 4]
    assert rows.history[[1, 3, 4, 5]].tolist() == [[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 2, 1]]


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


def test_scaled_weights_double_in_a_half_life_and_survive_any_time() -> None:
    one = scaled(np.float32(1.0), START, START, HALF_LIFE)
    assert one == 1.0
    assert scaled(np.float32(1.0), START + 63 * HALF_LIFE, START, HALF_LIFE) == 2.0**63
    assert scaled(np.float32(3.0), START - 500, START, HALF_LIFE) == np.float32(3 * 2**-0.5)
    assert scaled(np.float32(1.0), 0, START, HALF_LIFE) == 0.0


def test_a_dropped_node_leaves_no_arc_behind() -> None:
    engine = folded([("u", "a", 0), ("u", "b", 0), ("u", "c", 0), ("u", "a", 0)])
    dead = np.zeros(len(engine.graph.degree), np.bool_)
    dead[1] = True
    engine.graph.drop(dead)
    assert arcs(engine) == {"a": {"c": 1}, "b": {}, "c": {"a": 1}}
    assert engine.graph.arcs == 2


def test_a_pool_grows_when_a_checkpoint_or_clicks_need_more() -> None:
    graph = Graph(128)
    graph.reserve(300)
    nbr, wgt = np.arange(128, dtype=np.int32), np.ones(128, np.float32)
    for slot in range(300):
        graph.put_row(slot, nbr, wgt, START)
    assert graph.arcs == 300 * 128
    assert np.array_equal(graph.row(299)[0], nbr)
    pairs = [("u", f"i{i % 97 * (i % 2 + 1)}", 0) for i in range(20_000)]
    degrees = [len(row) for row in arcs(folded(pairs)).values()]
    assert max(degrees) <= 4 < len(degrees)
