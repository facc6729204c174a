from random import Random
from typing import Any

import numpy as np

from core.engine import Engine
from core.ids.vocabulary import attribute_key, decode, encode, is_attribute
from core.placing.clusters import unit_rows
from core.rounds import Changes, Inputs
from core.rows import from_values, to_values
from tests.unit.core.groups import (
    GAP,
    GROUP,
    HORIZON,
    clicks,
    gone,
    published,
    settings,
    step,
    visits,
)


def test_an_item_leaves_after_the_horizon_and_comes_back_as_a_new_one() -> None:
    engine = Engine(settings())
    first = step(engine, [("u", "a", 0), ("u", "b", 0)])
    assert published(first) == {b"a", b"b"}
    still = step(engine, [("v", "c", HORIZON // 2), ("v", "b", HORIZON // 2)])
    assert gone(still) == {}
    assert gone(step(engine, [("w", "c", HORIZON + 2 * GAP)])) == {}
    left = step(engine, [])
    assert gone(left) == {b"a": True}
    (tombstone,) = left.gone
    assert tombstone.version > first.rows["version"].max()
    back = step(engine, [("x", "a", HORIZON + 3 * GAP), ("x", "b", HORIZON + 3 * GAP)])
    row = back.rows[back.keys.index(b"a")]
    assert row["version"] > tombstone.version
    assert row["born_round"] == 5
    assert b"a" in published(back)


def test_an_item_whose_first_click_came_past_the_horizon_leaves_in_the_next_round() -> None:
    """As it would after a restart between the two."""
    engine = Engine(settings())
    step(engine, [("u", "a", 2 * HORIZON), ("u", "b", 2 * HORIZON)])
    assert gone(step(engine, [])) == {}
    assert gone(step(engine, [("v", "late", 0)])) == {}
    assert gone(step(engine, [])).keys() == {b"late"}


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
    step(engine, [("x", "c", 4 * HORIZON)])
    assert gone(step(engine, [])) == {b"a": True}


def test_an_item_that_comes_back_has_its_attributes_again() -> None:
    engine = Engine(settings(attribute_slots=2))
    told = {"a": ["c=x", "c=y"]}
    engine.load_rows([], lambda item: told.get(item, []))
    step(engine, [("u", "b", 0)], list(told.items()))
    slot = engine.vocabulary.get("a")
    attributes = attributes_of(engine, "a")
    assert len(attributes) == 2
    assert gone(step(engine, [("v", "b", 2 * HORIZON)])) == {}
    left = gone(step(engine, []))
    assert left == {b"a": True} | {encode(key): False for key in attributes}
    step(engine, [("w", "a", 2 * HORIZON)])
    assert engine.vocabulary.get("a") != slot
    assert attributes_of(engine, "a") == attributes


def test_an_item_told_of_before_the_first_click_lives_on_after_a_restart() -> None:
    engine = Engine(settings(attribute_slots=1))
    rows: dict[bytes, bytes] = {}
    for changes in (step(engine, [], [("a", ["c=x"])]), step(engine, [("u", "b", 0)])):
        rows |= zip(changes.keys, to_values(changes.rows), strict=True)
    restored = Engine(settings(attribute_slots=1))
    restored.fold(clicks([("u", "b", 0)]))
    packed = from_values(list(rows.values()), engine.model.dtype)
    restored.load_rows([(list(rows), packed)], lambda item: ["c=x"] if item == "a" else [])
    for one in (engine, restored):
        assert gone(step(one, [("v", "b", HORIZON // 2)])) == {}
        assert gone(step(one, [("w", "b", HORIZON + 2 * GAP)])) == {}
        left = gone(step(one, []))
        assert left == {b"a": True, encode(attribute_key("c=x")): False}


def test_slots_of_items_that_left_are_given_back() -> None:
    engine = Engine(settings())
    for i in range(4):
        rows = [(f"u{n}", f"i{i}-{n}", 2 * HORIZON * i) for n in range(1000)]
        step(engine, rows)
        step(engine, [])
    assert engine.vocabulary.known == 1000
    assert len(engine.vocabulary) <= 3 * 1024


def attributes_of(engine: Engine, item: str) -> set[str]:
    rows = engine.model.rows.attrs[engine.vocabulary.get(item) or 0]
    return {str(engine.vocabulary.keys[slot]) for slot in rows if slot >= 0}


def test_an_attribute_leaves_with_its_last_item_and_comes_back_with_one() -> None:
    engine = Engine(settings(attribute_slots=2))
    told = {"a": ["c=x", "c=y"], "b": ["c=x"], "d": ["c=z"]}
    engine.load_rows([], lambda item: told.get(item, []))
    step(engine, [("u", "b", 0), ("u", "e", 0)], list(told.items()))
    x, y, z = (attribute_key(f"c={name}") for name in "xyz")
    changes = step(engine, [], [("a", None)])
    assert gone(changes) == {b"a": True, encode(y): False}
    # An item that is described anew lets go of what it had.
    assert gone(step(engine, [], [("d", ["c=x"])])) == {encode(z): False}
    # By event time all leave, and the last attribute with them; they come back with theirs.
    assert gone(step(engine, [("v", "e", 2 * HORIZON)])) == {}
    assert gone(step(engine, [])).keys() == {b"b", b"d", encode(x)}
    assert not [name for name in engine.vocabulary.keys if name and is_attribute(name)]
    changes = step(engine, [("w", "b", 2 * HORIZON)])
    assert attributes_of(engine, "b") == {x}
    assert encode(x) in changes.keys
    assert engine.model.columns.users[engine.vocabulary.get(x)] == 1


def test_rows_of_attributes_follow_the_items_through_any_history() -> None:
    rng = Random(5)
    engine = Engine(settings(attribute_slots=3))
    told: dict[str, list[str]] = {}
    engine.load_rows([], lambda item: told.get(item, []))
    for number in range(60):
        news = {}
        for item in rng.sample(range(30), 4):
            tokens = [f"c={n}" for n in rng.sample(range(12), rng.randrange(4))]
            news[f"i{item}"] = None if rng.random() < 0.3 else tokens
        told |= {item: tokens or [] for item, tokens in news.items()}
        rows = [(f"u{number}", f"i{rng.randrange(30)}", number * HORIZON // 8) for _ in range(3)]
        step(engine, rows, list(news.items()))
        c, names = engine.model.columns, engine.vocabulary.keys
        alive = np.flatnonzero(c.alive[: len(names)])
        of_items = {a for item in engine.items for a in attributes_of(engine, str(names[item]))}
        assert {str(names[n]) for n in alive if not c.is_item[n]} == of_items
        for slot in alive[~c.is_item[alive]]:
            assert c.users[slot] == (engine.model.rows.attrs[engine.items] == slot).sum() > 0


def test_other_attributes_in_use_count_from_the_next_start_on() -> None:
    before = {"a": ["c=x"], "b": ["c=y"]}
    engine = Engine(settings(attribute_slots=2))
    changes = step(engine, [("u", "a", 0), ("u", "b", 0)], list(before.items()))
    again = Engine(settings(attribute_slots=2))
    again.load_rows([(changes.keys, changes.rows)], lambda item: ["d=w", *before[item][:1]][:1])
    changes = step(again, [("v", "a", 10), ("v", "b", 10)])
    new = attribute_key("d=w")
    assert attributes_of(again, "a") == attributes_of(again, "b") == {new}
    assert gone(changes) == {encode(attribute_key(f"c={name}")): False for name in "xy"}
    assert {b"a", b"b", encode(new)} <= set(changes.keys)


def test_only_items_that_lost_an_attribute_are_looked_at_after_a_restart() -> None:
    """An attribute that no item has leaves alone; after other settings only what differs moves."""
    told = {f"i{n}": [f"c={n % 5}", f"d={n % 7}"] for n in range(400)}
    engine = Engine(settings(attribute_slots=2))
    changes = step(engine, [("u", "i0", 0)], [*told.items(), ("odd", ["e=only"])])
    rows = dict(zip(changes.keys, to_values(changes.rows), strict=True))
    for item in (b"odd", b"i399"):
        del rows[item]

    def first_commit(now: dict[str, list[str]]) -> Changes:
        restored = Engine(settings(attribute_slots=2))
        packed = from_values(list(rows.values()), engine.model.dtype)
        restored.load_rows([(list(rows), packed)], now.__getitem__)
        return step(restored, [])

    left = {encode(attribute_key("e=only")): False}
    changes = first_commit(told)
    assert (changes.keys, gone(changes)) == ([], left)
    narrowed = {item: [t for t in each if t != "d=3"] for item, each in told.items()}
    changes = first_commit(narrowed)
    assert gone(changes) == left | {encode(attribute_key("d=3")): False}
    assert set(changes.keys) == {f"i{n}".encode() for n in range(3, 399, 7)}


def test_the_row_of_an_attribute_leaves_by_drift_and_has_no_vector_to_publish() -> None:
    told = [(f"i{n}", [f"c={n // GROUP}"]) for n in range(3 * GROUP)]
    engine, last = Engine(settings(attribute_slots=1, min_drift=0.05)), dict[bytes, Any]()
    wrote = 0
    for i in range(20):
        changes = step(engine, visits(i, at=100 * i, sessions=4), told if i == 0 else ())
        for at, key in enumerate(changes.keys):
            if is_attribute(decode(key)):
                assert at not in changes.published
                assert changes.rows["published"][at] == 0, "no index has it"
                last[key] = changes.rows[at]
                wrote += 1
        assert len(last) == 3
        for key, row in last.items():
            slot = engine.vocabulary.get(decode(key))
            now = unit_rows(engine.model.rows.v[np.array([slot], np.int32)])[0]
            assert 1 - now @ row["pub_v"].astype(np.float32) < 0.026, "half of an item's"
    assert 3 < wrote < 60
