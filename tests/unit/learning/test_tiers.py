"""Rows whose dims follow from the clicks of their items: in the kernels, over rounds, and back."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from core.engine import Engine
from core.ids.hashing import hash_keys
from core.ids.vocabulary import encode
from core.learning.skipgram import hidden
from core.learning.tiers import ALL, START, beginning, cut, dims_for, towards
from core.model import Model
from core.rounds import Inputs
from core.rows import from_values
from core.settings import Settings, SizeSettings
from tests.unit.core.groups import clicks, group, settings, step, visits
from tests.unit.learning.made import random_rows

TIERS = (1, 16), (10, 32), (30, 64)


def tiered(tiers: Any = TIERS, **chosen: Any) -> Settings:
    return settings(dim=64, min_drift=0.0, tiers=tiers, **chosen)


def learned(chosen: Settings, rounds: int = 8, attributes: bool = False) -> Engine:
    """Of three groups of ten, of which the first is clicked most."""
    engine = Engine(chosen, partitions=2)
    for i in range(rounds):
        described = [(item, [f"c={item}", "all"]) for item in group(0)[:4]] if attributes else []
        step(engine, visits(i, 100 * i, sessions=20, groups=1 + i % 3), described)
    return engine


def widths(engine: Engine) -> dict[str, int]:
    slots = engine.items
    dims = np.where((own := engine.model.columns.dims[slots]) == ALL, 64, own)
    return dict(zip(engine.vocabulary.names(slots), dims.tolist(), strict=True))


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 4)), max_size=4),
    st.lists(st.integers(0, 300), max_size=20),
)
def test_the_last_tier_that_was_reached_says_how_many(
    steps: list[tuple[int, int]], counts: list[int]
) -> None:
    begins = np.cumsum([1, *(by for by, _ in steps)]).tolist()
    dims = np.cumsum([16, *(16 * by for _, by in steps)]).tolist()
    tiers, dim = tuple(zip(begins, dims, strict=True)), dims[-1]
    found = dims_for(np.array(counts, np.int32), tiers, dim).tolist()
    for count, own in zip(counts, found, strict=True):
        reached = [n for begin, n in tiers if begin <= count] or [16]
        assert own == (ALL if reached[-1] == dim else reached[-1])
    assert dims_for(np.array(counts, np.int32), (), dim).tolist() == [ALL] * len(counts)


@given(st.lists(st.tuples(st.sampled_from([ALL, 4, 9]), st.booleans()), min_size=1, max_size=12))
@effort(max_examples=50, deadline=None)
def test_rows_that_changed_are_projected_onto_the_dims_that_they_have(
    given: list[tuple[int, bool]],
) -> None:
    """The projection onto a subspace: the nearest row in it, and that itself stays there."""
    rows = random_rows(len(given))
    before = rows.v.copy(), rows.u.copy()
    rows.dirty[:] = [dirty for _, dirty in given]
    dims = np.array([dim for dim, _ in given], np.int16)
    for _ in range(2):
        cut(rows, dims)
        for table, was in zip((rows.v, rows.u), before, strict=True):
            for row, old, (dim, dirty) in zip(table, was, given, strict=True):
                end = dim if dirty and dim != ALL else len(row)
                assert (row[:end] == old[:end]).all()
                assert not row[end:].any()


def test_a_row_has_the_dims_that_its_clicks_say_and_zeros_beyond() -> None:
    engine, seen = Engine(tiered(), partitions=2), set[int]()
    for i in range(8):
        changes = step(engine, visits(i, 100 * i, sessions=20, groups=1 + i % 3))
        rows, counts = engine.model.rows, engine.graph.clicks[engine.items]
        wanted = [64 if n >= 30 else 32 if n >= 10 else 16 for n in counts.tolist()]
        assert list(widths(engine).values()) == wanted
        for slot, dim in zip(engine.items.tolist(), wanted, strict=True):
            for table in (rows.v, rows.u):
                assert not table[slot, dim:].any()
                assert table[slot, :dim].all() or not table[slot].any()
        sizes = dict(zip(engine.vocabulary.names(engine.items), wanted, strict=True))
        for at, vector in zip(changes.published.tolist(), changes.vectors, strict=True):
            own = sizes[changes.keys[at].decode()]
            assert vector[:own].any()
            assert not vector[own:].any()
            assert len(vector) == 64
        seen |= set(wanted)
    assert seen == {16, 32, 64}


def test_an_item_that_grows_keeps_what_it_has_and_begins_by_its_row_of_the_graph() -> None:
    """The same for whoever has the same ids, seed and graph."""
    found = []
    for _ in range(2):
        engine = learned(tiered(), rounds=2)
        slot = engine.vocabulary.get("i0")
        assert slot is not None
        rows, columns = engine.model.rows, engine.model.columns
        had = int(columns.dims[slot])
        before = rows.v[slot].copy(), rows.u[slot].copy()
        engine.graph.clicks[slot] = 30
        engine.learner._widen(np.array([slot], np.int32))
        assert columns.dims[slot] == ALL
        nbr, wgt = engine.graph.row(slot)
        names = ["i0", *engine.vocabulary.names(nbr)]
        first = engine.model.first_values(hash_keys([*map(encode, names)], 2)[1])[:, had:]
        own, near = first[0], (wgt[:, None] * first[1:]).sum(axis=0)
        both = own / np.linalg.norm(own) + near / np.linalg.norm(near)
        for table, was in zip((rows.v, rows.u), before, strict=True):
            assert (table[slot, :had] == was[:had]).all()
            length = START * np.sqrt((64 - had) / had) * np.linalg.norm(was)
            wanted = length * both / np.linalg.norm(both)
            np.testing.assert_allclose(table[slot, had:], wanted, rtol=1e-4, atol=1e-6)
        found.append(rows.v[slot].tobytes())
    assert found[0] == found[1]


def test_items_with_the_same_neighbours_agree_in_new_dims_at_once() -> None:
    """By half, as the other half is their own."""
    rng = np.random.default_rng(1)
    weights, same, other = np.ones(9, np.float32), [], []
    for _ in range(50):
        first = rng.uniform(-0.5, 0.5, (21, 32)).astype(np.float32)
        one, like = (towards(first[n], first[3:12], weights) for n in (0, 1))
        same.append(one @ like)
        other.append(one @ towards(first[2], first[12:], weights))
        assert np.linalg.norm(one) == pytest.approx(1.0)
    assert np.mean(same) == pytest.approx(0.5, abs=0.1)
    assert np.mean(other) == pytest.approx(0.0, abs=0.1)
    alone = towards(first[0], first[:0], weights[:0])
    np.testing.assert_allclose(alone, first[0] / np.linalg.norm(first[0]), rtol=1e-5)
    assert not beginning(np.zeros(16, np.float32), one).any()


def test_what_was_never_learned_grows_as_a_first_row_of_all_dims_would_be() -> None:
    engine = Engine(tiered(), partitions=2)
    engine.step(Inputs(clicks([("u", "a", 0)])))
    slot = engine.vocabulary.get("a")
    assert slot is not None
    engine.graph.clicks[slot] = 30
    engine.learner._widen(np.array([slot], np.int32))
    wanted = engine.model.first_values(hash_keys([encode("a")], 2)[1])[0]
    assert (engine.model.rows.v[slot] == wanted).all()
    assert not engine.model.rows.u[slot].any()


def test_no_row_gets_narrower_whatever_the_settings_are() -> None:
    chosen = tiered()
    engine = learned(chosen)
    engine.publish_all()
    changes = step(engine, [])
    before = widths(engine)
    for tiers in ((1, 16), (1000, 64)), ():
        again = Engine(replace(chosen, size=SizeSettings(tiers)), 2)
        again.load_rows([(changes.keys, from_values(changes.values, again.model.dtype))])
        assert widths(again) == before
        step(again, visits(9, 1000, groups=3))
        after = widths(again)
        assert all(after[item] >= before[item] for item in before)
        assert (set(after.values()) == {64}) == (tiers == ())


def test_rows_of_attributes_have_all_dims_and_so_do_items_that_have_some() -> None:
    engine = learned(tiered(attribute_slots=2), attributes=True, rounds=1)
    model, slots = engine.model, np.arange(len(engine.vocabulary), dtype=np.int32)
    attributes = slots[~model.columns.is_item[: len(slots)]]
    assert len(attributes) == 5
    assert (model.columns.dims[attributes] == ALL).all()
    assert model.rows.v[attributes, 32:].all()
    described = np.array([engine.vocabulary.get(item) for item in group(0)[:4]], np.int32)
    assert (model.columns.dims[described] != ALL).all()
    assert not model.rows.v[described, 32:].any()
    assert hidden(model.rows, described)[:, 32:].all()


@pytest.mark.parametrize("chosen", [{}, {"attribute_slots": 2}])
def test_with_one_tier_all_is_as_without_any_to_the_bit(chosen: dict[str, Any]) -> None:
    one, other = (
        learned(tiered(tiers, **chosen), attributes=bool(chosen)) for tiers in ((), ((1, 64),))
    )
    assert widths(one) == widths(other)
    for name in ("v", "u", "acc_v", "acc_u", "mix"):
        assert (getattr(one.model.rows, name) == getattr(other.model.rows, name)).all()


def test_narrow_rows_take_fewer_bytes_and_come_back_whole() -> None:
    engine = learned(tiered())
    engine.publish_all()
    changes = step(engine, [])
    sizes: dict[int, set[int]] = {}
    dims = widths(engine)
    for key, value in zip(changes.keys, changes.values, strict=True):
        sizes.setdefault(dims[key.decode()], set()).add(len(value))
    assert sorted(sizes) == [16, 32, 64]
    assert all(len(each) == 1 for each in sizes.values())
    ascending = [sizes[dim].pop() for dim in sorted(sizes)]
    assert [b - a for a, b in pairwise(ascending)] == [2 * 4 * 16, 2 * 4 * 32]
    assert from_values(changes.values, engine.model.dtype).tobytes() == changes.rows.tobytes()


def test_who_reads_the_row_of_another_has_its_dims_and_who_gains_it_lets_it_grow() -> None:
    owner, other = learned(tiered()), Engine(tiered(), 2)
    other.own([], lambda keys: ([], np.zeros(0, other.model.dtype)))
    for i in range(8):
        some = clicks(visits(i, 100 * i, sessions=20, groups=1 + i % 3))
        other.step(Inputs(some, is_told=True, closes_commit=False))
    assert set(widths(other).values()) == {16}, "it has moved none, and has read none yet"
    assert not other.model.rows.v[other.items, 16:].any()
    owner.publish_all()
    changes = step(owner, [])
    other.ownership.read(changes.keys, changes.rows)
    assert widths(other) == widths(owner)
    at = other.vocabulary.intern([key.decode() for key in changes.keys])
    assert (other.model.rows.v[at] == changes.rows["v"]).all()
    late = visits(9, 900, sessions=40)
    for one in (owner, other):
        one.step(Inputs(clicks(late), is_told=True, closes_commit=False))
    assert widths(other) != widths(owner)
    other.own([0, 1], lambda keys: (changes.keys, changes.rows))
    other.step(Inputs(clicks([]), is_told=True))
    assert widths(other) == widths(owner)


def test_a_model_beside_another_has_its_dims_and_values() -> None:
    engine = learned(tiered())
    beside = Model(tiered(), 2, engine.model)
    assert (beside.columns.dims == engine.model.columns.dims).all()
    assert beside.columns.dims is not engine.model.columns.dims
    assert beside.has_narrow
