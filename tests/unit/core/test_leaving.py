import numpy as np

from core.engine import Engine
from core.rounds import Inputs
from core.rows import to_values
from tests.unit.core.groups import GAP, HORIZON, clicks, gone, published, settings, step


def test_an_item_leaves_after_the_horizon_and_comes_back_as_a_new_one() -> None:
    engine = Engine(settings())
    first = step(engine, [("u", "a", 0), ("u", "b", 0)])
    assert published(first) == {b"a", b"b"}
    still = step(engine, [("v", "c", HORIZON // 2), ("v", "b", HORIZON // 2)])
    assert gone(still) == {}
    left = step(engine, [("w", "c", HORIZON + 2 * GAP)])
    assert gone(left) == {b"a": True}
    (tombstone,) = left.gone
    assert tombstone.version > first.rows["version"].max()
    back = step(engine, [("x", "a", HORIZON + 3 * GAP), ("x", "b", HORIZON + 3 * GAP)])
    row = back.rows[back.keys.index(b"a")]
    assert row["version"] > tombstone.version
    assert row["born_round"] == 4
    assert b"a" in published(back)


def test_an_item_that_leaves_takes_arcs_and_sessions_along() -> None:
    engine = Engine(settings())
    step(engine, [("u", "a", 0), ("u", "b", 0), ("u", "c", 0)])
    changes = step(engine, [("u", "d", 0)], [("c", None)])
    assert gone(changes) == {b"c": True}
    assert engine.graph.arcs == 2
    assert engine.graph.row(engine.vocabulary.get("d") or 0)[0].size == 0


def test_a_retired_item_leaves_even_before_the_first_click() -> None:
    engine = Engine(settings(attribute_slots=1))
    step(engine, [], [("a", ["c=x"]), ("b", ["c=x"])])
    assert gone(step(engine, [], [("a", None), ("unknown", None)])) == {b"a": True}
    changes = step(engine, [("u", "z", 0)])
    assert changes.gone == []
    assert "a" not in engine.vocabulary
    assert "b" in engine.vocabulary


def test_a_vector_of_an_item_that_left_and_came_back_in_one_commit_is_not_forgotten() -> None:
    engine = Engine(settings())
    step(engine, [("u", "a", 0), ("u", "b", 0)])
    engine.step(Inputs(clicks([("v", "c", 2 * HORIZON)]), closes_commit=False))
    changes = step(engine, [("w", "a", 2 * HORIZON)])
    assert gone(changes) == {b"b": True}
    assert published(changes) == set()
    assert gone(step(engine, [("x", "c", 4 * HORIZON)])) == {b"a": True}


def test_an_item_that_comes_back_has_its_attributes_again() -> None:
    engine = Engine(settings(attribute_slots=2))
    told = {"a": ["c=x", "c=y"]}
    engine.load_rows([], np.zeros(0, engine.model.dtype), lambda item: told.get(item, []))
    step(engine, [("u", "b", 0)], list(told.items()))
    slot = engine.vocabulary.get("a")
    attributes = engine.model.rows.attrs[slot].copy()
    assert (attributes >= 0).all()
    assert gone(step(engine, [("v", "b", 2 * HORIZON)])) == {b"a": True}
    step(engine, [("w", "a", 2 * HORIZON)])
    assert engine.vocabulary.get("a") != slot
    assert np.array_equal(engine.model.rows.attrs[engine.vocabulary.get("a")], attributes)


def test_an_item_told_of_before_the_first_click_lives_on_after_a_restart() -> None:
    engine = Engine(settings(attribute_slots=1))
    rows: dict[bytes, bytes] = {}
    for changes in (step(engine, [], [("a", ["c=x"])]), step(engine, [("u", "b", 0)])):
        rows |= zip(changes.keys, to_values(changes.rows), strict=True)
    restored = Engine(settings(attribute_slots=1))
    restored.fold(clicks([("u", "b", 0)]))
    packed = np.frombuffer(b"".join(rows.values()), engine.model.dtype)
    restored.load_rows(list(rows), packed, lambda item: ["c=x"] if item == "a" else [])
    for one in (engine, restored):
        assert gone(step(one, [("v", "b", HORIZON // 2)])) == {}
        assert gone(step(one, [("w", "b", HORIZON + 2 * GAP)])) == {b"a": True}


def test_slots_of_items_that_left_are_given_back() -> None:
    engine = Engine(settings())
    for i in range(4):
        rows = [(f"u{n}", f"i{i}-{n}", 2 * HORIZON * i) for n in range(1000)]
        step(engine, rows)
    assert engine.vocabulary.known == 1000
    assert len(engine.vocabulary) <= 3 * 1024
