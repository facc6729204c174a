from typing import Any

import numpy as np
import pytest

from core.learning.adagrad import Pace
from core.learning.negatives import Pool
from core.learning.skipgram import Rows, hidden, learn_walks
from core.placing.clusters import unit_rows
from tests.unit.learning.made import (
    DIM,
    SESSIONS,
    WALKS,
    arcs,
    ints,
    learn_sessions,
    random_rows,
    uniform,
)

# -- what is touched -----------------------------------------------------------------------------


def same(one: Rows, other: Rows, names: str, slots: Any = slice(None)) -> bool:
    return all(
        getattr(one, n)[slots].tobytes() == getattr(other, n)[slots].tobytes()
        for n in names.split()
    )


def learn(rows: Rows, walks: Any, pool: Pool, **changed: Any) -> Rows:
    learn_walks(rows, ints(walks), pool, **WALKS | changed)
    return rows


def test_attribute_slots_that_are_all_empty_change_nothing() -> None:
    rng = np.random.default_rng(2)
    walks, pool = rng.integers(0, 20, (50, 10)), uniform(list(range(20)))
    history, target = ints(rng.integers(0, 20, (40, 3))), ints(rng.integers(0, 20, 40))
    plain, slotted = random_rows(20), random_rows(20)
    slotted.mix, slotted.attrs = random_rows(20, slots=2).mix, np.full((20, 2), -1, np.int32)
    for rows in (plain, slotted):
        learn(rows, walks, pool)
        learn_sessions(rows, history, target, arcs(), pool, **SESSIONS)
    assert same(plain, slotted, "v u acc_v acc_u dirty")


def test_only_rows_of_walks_and_negatives_change() -> None:
    before, after = random_rows(30), random_rows(30)
    walks = [[1, 2, 3, 1, -1], [4, -1, -1, -1, -1]]
    learn(after, walks, uniform([10, 11]), hardest_of=1)
    untouched = [slot for slot in range(30) if slot not in (1, 2, 3, 10, 11)]
    assert same(before, after, "v u acc_v acc_u", untouched)
    assert np.flatnonzero(after.dirty).tolist() == [1, 2, 3, 10, 11]
    assert same(before, after, "v acc_v", [10, 11])  # negatives move as contexts do not
    assert not same(before, after, "u", [10])


def test_every_row_that_moves_is_marked_even_where_its_accumulator_cannot_grow() -> None:
    # Negatives of a score near -23 have gradients that 1e4 + g^2 rounds away.
    before, after = (random_rows(60, accumulator=1e4) for _ in range(2))
    for rows in (before, after):
        rows.v[:8], rows.u[8:] = 1.2, -1.2
    walk = np.arange(8, dtype=np.int32)
    learn(after, np.tile(walk, (20, 1)), uniform(list(range(60))), hardest_of=1)
    moved = (after.u != before.u).any(axis=1) | (after.v != before.v).any(axis=1)
    assert moved[8:].any()
    assert not (moved & ~after.dirty).any()


def test_only_rows_of_sessions_and_negatives_change() -> None:
    before, after = random_rows(30), random_rows(30)
    learn_sessions(after, ints([[1, 2], [3, -1]]), ints([4, -1]), arcs(), uniform([10]), **SESSIONS)
    untouched = [slot for slot in range(30) if slot not in (1, 2, 4, 10)]
    assert same(before, after, "v u acc_v acc_u", untouched)
    assert np.flatnonzero(after.dirty).tolist() == [1, 2, 4, 10]


@pytest.mark.parametrize("block", [2, 4, 8, 16])
def test_a_positive_of_a_context_is_never_its_negative(block: int) -> None:
    # Every negative that can be drawn is the context itself or a positive of it.
    walk, pool = [[0, 1, 2, 0]], uniform([0, 1, 2])
    some = learn(random_rows(3), walk, pool, window=3, block=block, negatives=5)
    none = learn(random_rows(3), walk, pool, window=3, block=block, negatives=0)
    assert same(some, none, "v u acc_v acc_u")


def test_an_item_outside_the_window_can_be_a_negative() -> None:
    walk, pool = [[0, 1, 2, 3, 4, 5]], uniform([0, 5])
    some = learn(random_rows(6), walk, pool, window=1, negatives=5)
    none = learn(random_rows(6), walk, pool, window=1, negatives=0)
    assert not same(some, none, "u", [0, 5])


def test_a_session_never_has_its_next_item_as_a_negative() -> None:
    rows = {k: random_rows(3) for k in (0, 5)}
    for k, one in rows.items():
        chosen = SESSIONS | {"negatives": k}
        learn_sessions(one, ints([[0]]), ints([1]), arcs(), uniform([1]), **chosen)
    assert same(rows[0], rows[5], "v u acc_v acc_u")


# -- what is learned -----------------------------------------------------------------------------


def test_two_cliques_are_told_apart() -> None:
    rng, rows = np.random.default_rng(3), random_rows(40, scale=0.5 / DIM)
    rows.u[:] = 0
    pool = uniform(list(range(40)))
    for round_number in range(20):
        walks = rng.integers(0, 20, (40, 10)) + 20 * rng.integers(0, 2, (40, 1))
        learn(rows, walks, pool, round_number=round_number)
    for unit in (unit_rows(hidden(rows, np.arange(40, dtype=np.int32))), unit_rows(rows.u)):
        cosine = unit @ unit.T - 2 * np.eye(40)
        nearest = np.argsort(-cosine, axis=1)[:, :10]
        purity = (nearest // 20 == np.arange(40)[:, None] // 20).mean()
        assert purity > 0.95


def test_the_next_item_of_a_session_comes_to_score_above_the_others() -> None:
    rng, rows, pool = (
        np.random.default_rng(6),
        random_rows(20, scale=0.5 / DIM),
        uniform([*range(20)]),
    )
    history, target = ints([[2 * i] for i in range(10)]), ints([2 * i + 1 for i in range(10)])
    # Each item that comes next is at first nearer to the next pair than to its own.
    rows.v[1::2] = rows.v[(np.arange(0, 20, 2) + 2) % 20] + rng.normal(0, 1e-3, (10, DIM))
    for round_number in range(30):
        chosen = SESSIONS | {"round_number": round_number}
        learn_sessions(rows, history, target, arcs(), pool, **chosen)
    v, u = unit_rows(rows.v), unit_rows(rows.u)
    score = v @ v.T + v @ u.T + u @ v.T
    score[np.diag_indices(20)] = -np.inf
    assert score[::2].argmax(axis=1).tolist() == target.tolist()
    assert score[1::2].argmax(axis=1).tolist() == history[:, 0].tolist()


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6])
def test_vectors_stay_finite_at_any_rate(rate: float) -> None:
    rng, rows = np.random.default_rng(4), random_rows(20, slots=1)
    rows.attrs[:10, 0] = 19
    pool = uniform(list(range(19)))
    for round_number in range(5):
        history, target = ints(rng.integers(0, 19, (40, 3))), ints(rng.integers(0, 19, 40))
        pace = Pace.of(rate, 1e-3)
        learn(rows, rng.integers(0, 19, (50, 10)), pool, pace=pace, round_number=round_number)
        learn_sessions(rows, history, target, arcs(), pool, **SESSIONS | {"pace": pace})
    for name in ("v", "u", "acc_v", "acc_u", "mix"):
        assert np.isfinite(getattr(rows, name)).all()
    assert np.isfinite(hidden(rows, np.arange(20, dtype=np.int32))).all()


def test_learning_is_repeatable_and_differs_by_seed_and_round() -> None:
    walks, pool = np.random.default_rng(5).integers(0, 30, (60, 10)), uniform(list(range(30)))
    one, again = learn(random_rows(30), walks, pool), learn(random_rows(30), walks, pool)
    assert same(one, again, "v u acc_v acc_u")
    assert not same(one, learn(random_rows(30), walks, pool, seed=2), "u")
    assert not same(one, learn(random_rows(30), walks, pool, round_number=2), "u")


def test_threads_share_out_all_walks() -> None:
    walks = np.arange(60).reshape(10, 6)
    rows = learn(random_rows(62), walks, uniform([60, 61]), threads=3)
    assert rows.dirty.all()


# -- memory --------------------------------------------------------------------------------------


def test_views_of_larger_arrays_are_learned_from_as_their_copies_are() -> None:
    rng = np.random.default_rng(3)
    walks = rng.integers(0, 12, (20, 16)).astype(np.int32)[::2, ::2]
    targets = rng.integers(0, 12, 20).astype(np.int32)[::2]
    learned = []
    for keep in (lambda view: view, np.ascontiguousarray):
        rows = random_rows(12)
        learn_walks(rows, keep(walks), uniform([*range(12)]), **WALKS)
        learn_sessions(rows, keep(walks), keep(targets), arcs(), uniform([*range(12)]), **SESSIONS)
        learned.append((rows.u, hidden(rows, keep(targets))))
    for view, copy in zip(*learned, strict=True):
        np.testing.assert_array_equal(view, copy)
