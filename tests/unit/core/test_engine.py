from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.placing.clusters import unit_rows
from core.rounds import Changes, Inputs
from core.settings import Duration, SessionSettings, Settings
from tests.unit.core.groups import (
    GAP,
    GROUP,
    START,
    clicks,
    group,
    published,
    settings,
    step,
    trained,
    vectors,
    visits,
)

# -- learning ------------------------------------------------------------------------------------


def test_items_of_a_group_come_to_be_near_each_other() -> None:
    unit = vectors(trained(settings()), group(0) + group(1) + group(2))
    cosine = unit @ unit.T - 2 * np.eye(len(unit))
    nearest = np.argsort(-cosine, axis=1)[:, :5]
    assert (nearest // GROUP == np.arange(len(unit))[:, None] // GROUP).mean() > 0.95


def test_a_new_item_starts_from_its_neighbours() -> None:
    engine = trained(settings(rate=1e-6, session_rate=1e-6))
    engine.model.rows.v[:] = np.random.default_rng(1).standard_normal(engine.model.rows.v.shape)
    engine.model.rows.u[:] = np.random.default_rng(2).standard_normal(engine.model.rows.u.shape)
    step(engine, [("w", "i3", 5000), ("w", "new", 5000), ("w", "i4", 5000)])
    slots = np.array([engine.vocabulary.get(item) for item in ("i3", "i4", "new")], np.int32)
    for table in (engine.model.rows.v, engine.model.rows.u):
        one, other, new = table[slots]
        assert new == pytest.approx((one + other) / 2, abs=0.05)


def test_an_item_with_known_attributes_is_placed_before_its_first_click() -> None:
    engine = Engine(settings(attribute_slots=2))
    told = [(item, [f"group={number}"]) for number in range(3) for item in group(number)]
    step(engine, [], told)
    for i in range(12):
        step(engine, visits(i, at=100 * i))
    changes = step(engine, [], [("fresh", ["group=1", "never=seen"])])
    assert b"fresh" in published(changes)
    near = [
        float((vectors(engine, ["fresh"]) @ vectors(engine, group(n)).T).mean()) for n in range(3)
    ]
    assert near[1] > 0.5 > max(near[0], near[2])


def test_what_nobody_has_clicked_is_no_negative_and_has_rows_of_others_like_it() -> None:
    engine = Engine(settings(attribute_slots=2))
    told = [(item, [f"group={number}"]) for number in range(3) for item in group(number)]
    step(engine, [], [*told, ("fresh", ["group=1"]), ("left", ["group=2"])])
    for i in range(12):
        step(engine, visits(i, at=100 * i))
    fresh = engine.vocabulary.get("fresh")
    assert fresh is not None
    assert engine.model.columns.updates[fresh] == 0
    slots = {n: np.array([engine.vocabulary.get(i) for i in group(n)], np.int32) for n in range(3)}
    assert set(engine.catalogue.clicked.tolist()) == set(np.concatenate([*slots.values()]).tolist())
    for table in (engine.model.rows.v, engine.model.rows.u):
        unit = unit_rows(table[[fresh]])
        near = [float((unit @ unit_rows(table[slots[n]]).T).mean()) for n in range(3)]
        assert near[1] > 0.5 > max(near[0], near[2])
    # It is one as soon as somebody has, and no longer when it has left.
    step(engine, [("u", "fresh", 5000), ("u", group(1)[0], 5000)], [("left", None)])
    assert fresh in engine.catalogue.clicked
    step(engine, [], [("fresh", None)])
    assert set(engine.catalogue.clicked.tolist()) == set(np.concatenate([*slots.values()]).tolist())


def test_what_was_described_before_anything_was_learned_leaves_again_when_others_were() -> None:
    engine = Engine(settings(attribute_slots=1, min_drift=0.05))
    told = [(item, [f"group={number}"]) for number in range(3) for item in group(number)]

    def contexts(changes: Changes) -> list[NDArray[np.float32]]:
        at = [i for i, n in enumerate(changes.published) if changes.keys[n] == b"fresh"]
        return [changes.contexts[i] for i in at]

    (none,) = contexts(step(engine, [], [*told, ("fresh", ["group=1"])]))
    assert not none.any()
    later = [one for i in range(12) for one in contexts(step(engine, visits(i, at=100 * i)))]
    items = np.array([engine.vocabulary.get(item) for item in group(1)], np.int32)
    assert float((unit_rows(engine.model.rows.u[items]) @ later[-1]).mean()) > 0.5
    # And it is not written again and again: what moves little stays.
    still = [step(engine, visits(i, at=100 * i)) for i in range(12, 16)]
    assert sum(b"fresh" in published(changes) for changes in still) <= 2


def test_only_the_owner_of_an_item_that_nobody_has_clicked_lends_it_rows() -> None:
    engine = Engine(settings(attribute_slots=1), 8)
    told = [(item, [f"group={number}"]) for number in range(3) for item in group(number)]
    step(engine, [], told)
    for i in range(12):
        step(engine, visits(i, at=100 * i))
    engine.publish_all()
    changes = step(engine, [])
    rows = dict(zip(changes.keys, changes.rows, strict=True))
    mine = {int(engine.model.columns.partition[engine.items[0]])}
    engine.own(mine, lambda keys: (keys, np.array([rows[key] for key in keys])))
    names = [f"fresh{n}" for n in range(20)]
    step(engine, [], [(name, ["group=1"]) for name in names])
    slots = np.array([engine.vocabulary.get(name) for name in names])
    owned = engine.model.rows.owned[slots]
    assert 0 < owned.sum() < len(names)
    assert (engine.model.rows.u[slots].any(axis=1) == owned).all()


def test_seeds_differ_and_equal_seeds_do_not() -> None:
    one, again, other = (trained(settings(seed=seed), 3) for seed in (1, 1, 2))
    assert np.array_equal(one.model.rows.v, again.model.rows.v)
    assert not np.array_equal(one.model.rows.v, other.model.rows.v)


def test_near_contexts_count_more_where_windows_shrink() -> None:
    flat, shrunk = (trained(settings(shrink_windows=shrink), 1) for shrink in (False, True))
    assert not np.array_equal(flat.model.rows.v, shrunk.model.rows.v)


# -- what leaves ---------------------------------------------------------------------------------


def test_a_round_that_closes_no_commit_leaves_its_changes_to_the_next() -> None:
    one, two = Engine(settings()), Engine(settings())
    first, second = clicks(visits(1, at=0)), clicks(visits(2, at=10, groups=2))
    assert one.step(Inputs(first, closes_commit=False)).changes is None
    changes = one.step(Inputs(second)).changes
    two.step(Inputs(first))
    two.step(Inputs(second))
    assert changes is not None
    assert len(changes.keys) == 3 * GROUP
    assert np.array_equal(one.model.rows.v, two.model.rows.v)
    assert changes.versions == {0: 1}


def test_without_a_drift_a_row_leaves_with_every_click_even_one_that_teaches_nothing() -> None:
    engine = Engine(settings(min_drift=0.0))
    step(engine, [("u", "a", 0)])
    changes = step(engine, [("v", "a", 2 * GAP)])
    assert changes.keys == [b"a"]
    assert changes.rows["last_seen"].tolist() == [START + 2 * GAP]
    assert engine.graph.clicked[0] > 2
    assert step(Engine(settings()), [("u", "a", 0)]).keys == []


def test_a_row_leaves_with_its_vector_and_other_rows_stay() -> None:
    engine = Engine(settings(min_drift=0.05))
    left = 0
    for i in range(30):
        changes = step(engine, visits(i, at=100 * i, sessions=3))
        assert changes.published.tolist() == list(range(len(changes.keys)))
        left += len(changes.keys)
        assert not engine.model.rows.dirty.any()
    assert 30 <= left < 15 * 3 * GROUP


def test_what_moved_furthest_leaves_first_and_the_rest_as_there_is_room() -> None:
    one, bounded = Engine(settings()), Engine(settings())
    for i in range(3):
        rows = clicks(visits(i, at=100 * i))
        one.step(Inputs(rows))
        bounded.step(Inputs(rows, closes_commit=i < 2))
    drifts = bounded.leaving
    drifts.judge(bounded.model, bounded.placement)
    moved = bounded.model.columns.moved
    furthest = sorted(drifts.waiting.tolist(), key=lambda slot: (-moved[slot], slot))[:5]
    wanted = {bounded.vocabulary.keys[slot] for slot in furthest}
    changes = bounded.step(Inputs(Clicks.empty(), room=11)).changes
    assert changes is not None
    assert {key.decode() for key in changes.keys} == wanted
    assert changes.waiting == len(drifts.waiting) > 0
    assert bounded.has_work(2 * START)
    left = [key for _ in range(4) for key in step(bounded, []).keys]
    assert len(left) == changes.waiting
    assert not bounded.has_work(2 * START)
    assert bounded.step(Inputs(clicks(visits(9, at=400)), budget=3)).changes is not None


def test_an_item_is_published_at_most_once_an_interval_unless_it_moved_far() -> None:
    chosen = settings(min_drift=0.002)
    chosen = replace(chosen, publish=replace(chosen.publish, min_interval=Duration(1000)))
    engine, last = Engine(chosen), dict[bytes, int]()
    early = 0
    for i in range(40):
        changes = step(engine, visits(i, at=100 * i, sessions=3))
        for key in published(changes):
            if key in last and 100 * i - last[key] < 1000:
                early += 1
                assert changes.drift.max() >= 5 * 0.002
            last[key] = 100 * i
    assert early > 0
    assert engine.has_work(2 * START)
    assert not engine.has_work(engine.leaving.due_at - 1)


def test_rows_that_must_be_written_again_leave_by_birth_as_there_is_room() -> None:
    engine = trained(settings())
    step(engine, [])
    before = engine.versions.copy()
    engine.publish_all()
    seen: list[bytes] = []
    for _ in range(6):
        changes = engine.step(Inputs(Clicks.empty(), room=11)).changes
        assert changes is not None
        assert len(changes.keys) == 5
        seen += changes.keys
        assert changes.stale == 3 * GROUP - len(seen)
    born = [str(engine.vocabulary.keys[slot]).encode() for slot in engine.items]
    assert seen == born
    assert min(engine.versions.values()) > max(before.values())


def test_versions_of_an_item_only_grow() -> None:
    engine, last = Engine(settings(), partitions=3), dict[bytes, int]()
    for i in range(8):
        changes = step(engine, visits(i, at=100 * i, sessions=5))
        for key, version in zip(changes.keys, changes.rows["version"].tolist(), strict=True):
            assert version > last.get(key, 0)
            last[key] = version
        assert changes.rows["version"].max() <= max(changes.versions.values())


def test_a_vector_leaves_only_when_it_drifted() -> None:
    engine, seen = Engine(settings(min_drift=0.05)), dict[bytes, NDArray[np.float32]]()
    kept = 0
    for i in range(30):
        changes = step(engine, visits(i, at=100 * i, sessions=3))
        both = np.concatenate([changes.vectors, changes.contexts], axis=1)
        leaving = {changes.keys[at]: both[n] for n, at in enumerate(changes.published)}
        for key in seen.keys() | leaving.keys():
            slots = np.array([engine.vocabulary.get(key.decode())], np.int32)
            contexts = unit_rows(engine.model.rows.u[slots])
            now = np.concatenate([vectors(engine, [key.decode()]), contexts], axis=1)[0]
            if key in leaving:
                assert np.array_equal(leaving[key], now)
            else:
                cosine = (now * seen[key]).reshape(2, -1).sum(axis=1)
                assert (1 - cosine).max() < 0.05 + 1e-3  # published vectors are kept in float16
                kept += 1
        seen |= leaving
    assert kept > 20
    assert len(published(step(Engine(settings(min_drift=0.0)), visits(1, at=0)))) == 3 * GROUP


def test_an_item_that_taught_nothing_new_is_not_published_again() -> None:
    engine = Engine(settings(attribute_slots=1))
    assert published(step(engine, [("u", "a", 0)], [("a", ["c=x"])])) == {b"a"}
    changes = step(engine, [("v", "a", 2 * GAP)])
    assert changes.keys == []


def test_drift_is_how_far_vectors_moved_that_are_published_again() -> None:
    engine = Engine(settings())
    first = step(engine, visits(1, at=0))
    assert len(first.published) == 3 * GROUP
    assert len(first.drift) == 0
    names = group(0) + group(1) + group(2)
    before = {name: (vectors(engine, [name])[0], context_of(engine, name)) for name in names}
    changes = step(engine, [("w", "i0", 10), ("w", "fresh", 10), *visits(2, at=10)])
    again = [name for at in changes.published if (name := changes.keys[at].decode()) in before]
    assert 0 < len(again) < len(changes.published)
    expected = [
        max(
            1 - before[name][0] @ vectors(engine, [name])[0],
            1 - before[name][1] @ context_of(engine, name),
        )
        for name in again
    ]
    assert changes.drift.dtype == np.float32
    assert changes.drift == pytest.approx(expected, abs=1e-3)
    assert changes.drift.max() > 0.01


def context_of(engine: Engine, item: str) -> NDArray[np.float32]:
    return unit_rows(engine.model.rows.u[[engine.vocabulary.get(item) or 0]])[0]


# -- clicks that do not count --------------------------------------------------------------------


def test_clicks_that_do_not_count_are_counted_apart_and_teach_nothing() -> None:
    chosen = replace(settings(min_drift=0.0), session=SessionSettings(Duration(GAP), 3, 2, 4))
    rows = [("u", "a", 0), ("u", "a", 0), ("u", "b", 0), ("u", "c", 0), ("v", "d", 0)]
    ids = np.array([1, 1, 2, 3, 0], np.uint64)
    noisy, quiet = Engine(chosen), Engine(chosen)
    out = noisy.step(Inputs(replace(clicks(rows), event_ids=ids)))
    assert (out.events, out.duplicates, out.too_long) == (3, 1, 1)
    assert out.changes is not None
    assert out.changes.keys == [b"a", b"b", b"d"]
    step(quiet, [rows[0], rows[2], rows[4]])
    for name in ("v", "u"):
        assert np.array_equal(getattr(noisy.model.rows, name), getattr(quiet.model.rows, name))
    assert np.array_equal(noisy.graph.clicked, quiet.graph.clicked)


def test_parts_of_clicks_are_the_clicks_in_order() -> None:
    ids = np.arange(5, dtype=np.uint64)
    whole = replace(clicks([(f"u{n}", f"i{n}", n) for n in range(5)]), event_ids=ids)
    parts = whole.parts(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [user for part in parts for user in part.users] == whole.users
    assert [item for part in parts for item in part.items] == whole.items
    for name in ("times", "weights", "event_ids"):
        both = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(both, getattr(whole, name))
    assert [len(part) for part in clicks([]).parts(2)] == [0]


# -- sizes ---------------------------------------------------------------------------------------


def test_table_bytes_grow_with_what_the_tables_hold() -> None:
    small, large = Engine(settings()), Engine(settings())
    step(small, visits(1, at=0))
    step(large, [(f"u{n}", f"i{n}-{k}", 0) for n in range(3000) for k in range(3)])
    few, many = small.table_bytes(), large.table_bytes()
    assert few.keys() == many.keys() == {"vectors", "graph", "sessions", "admission", "ids"}
    assert few.pop("admission") == 0  # which is off
    assert all(0 < few[table] < many[table] for table in few)


def test_columns_that_are_not_contiguous_are_folded_alike() -> None:
    wide = np.empty(40, [("time", np.int64), ("weight", np.float32)])
    wide["time"], wide["weight"] = START + np.arange(40) * 1000, 1 + np.arange(40) % 3
    items = [f"i{n % 7}" for n in range(40)]
    engines = [Engine(Settings()) for _ in range(2)]
    engines[0].fold(Clicks(["u"] * 40, items, wide["time"], wide["weight"]))
    engines[1].fold(Clicks(["u"] * 40, items, wide["time"].copy(), wide["weight"].copy()))
    one, other = (engine.graph for engine in engines)
    assert one.arcs == other.arcs > 0
    assert np.array_equal(one.wgt, other.wgt)
