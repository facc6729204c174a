from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import Slabs
from core.learning import skipgram
from core.learning.adagrad import Pace
from core.learning.negatives import Pool, pool
from core.learning.session_pass import FRESH, NEIGHBOURS
from core.learning.skipgram import Rows, hidden, learn_walks
from core.placing.clusters import unit_rows
from core.settings import ModelSettings

DIM = 16

WALKS: dict[str, Any] = {
    "seed": 1, "round_number": 1, "window": 2, "shrink": False, "negatives": 5, "block": 4,
    "hardest_of": 2, "pace": Pace.of(0.1, 1e-3),
}  # fmt: skip
SESSIONS: dict[str, Any] = {
    "seed": 1, "round_number": 1, "passes": 2, "decay": 0.5, "negatives": 5, "sharpness": 5.0,
    "pace": Pace.of(0.1, 1e-3),
}  # fmt: skip


def random_rows(n: int, slots: int = 0, scale: float = 0.5, accumulator: float = 0.0) -> Rows:
    rng = np.random.default_rng(1)

    def table_of(width: int) -> NDArray[np.float32]:
        return rng.uniform(-scale, scale, (n, width)).astype(np.float32)

    return Rows(
        v=table_of(DIM),
        u=table_of(DIM),
        acc_v=np.full(n, accumulator, np.float32),
        acc_u=np.full(n, accumulator, np.float32),
        mix=table_of(1 + slots),
        attrs=np.full((n, slots), -1, np.int32),
        dirty=np.zeros(n, np.bool_),
        owned=np.ones(n, np.bool_),
    )


def learn_sessions(
    rows: Rows, history: NDArray[np.int32], target: NDArray[np.int32], graph: Slabs, pool: Pool,
    share: float = 1.0, **chosen: Any,
) -> None:  # fmt: skip
    settings = ModelSettings(
        seed=chosen["seed"], session_passes=chosen["passes"], session_decay=chosen["decay"],
        session_negatives=chosen["negatives"], sharpness=chosen["sharpness"],
    )  # fmt: skip
    skipgram.learn_sessions(
        rows, history, target, graph, pool, settings, round_number=chosen["round_number"],
        pace=chosen["pace"], share=share,
    )  # fmt: skip


def uniform(items: list[int]) -> Pool:
    return pool(np.array(items, np.int32), np.ones(len(items), np.float32), 0.0)


def arcs(n: int = 62, weights: dict[int, dict[int, float]] | None = None) -> Slabs:
    """A graph of n items and these rows."""
    graph = Graph(64)
    graph.reserve(n)
    for a, row in (weights or {}).items():
        graph.put_row(a, ints(list(row)), np.array(list(row.values()), np.float32))
    return graph.slabs()


def ints(rows: Any) -> NDArray[np.int32]:
    return np.array(rows, np.int32)


# -- the gradient --------------------------------------------------------------------------------

ITEMS, ATTRIBUTES = 5, [5, 6]
NEGATIVE = 4
RATE, ACCUMULATOR = 1e-2, 1e4
PACE = Pace.of(RATE, 1e-3)
"""Steps so small that Adagrad's scale is constant: RATE / sqrt(ACCUMULATOR) * gradient."""

Theta = dict[str, NDArray[np.float64]]


OWNED = [range(7), [0, 4, 6], [1, 2, 5], [3], [4], [5]]
"""Slots that may move; the others stay as they are."""


def with_attributes(owned: Iterable[int] = range(7)) -> Rows:
    rows = random_rows(7, slots=2, accumulator=ACCUMULATOR)
    rows.owned[:] = np.isin(np.arange(7), list(owned))
    rows.attrs[0] = ATTRIBUTES
    rows.attrs[1, 1] = 6
    rows.attrs[2, 0] = 5
    return rows


def log_sigmoid(x: Any) -> float:
    return float(-np.log1p(np.exp(-x)))


def hidden_of(theta: Theta, attrs: NDArray[np.int32], item: int) -> NDArray[np.float64]:
    """sum_s softmax(a)_s row_s, the formula of EGES."""
    present = [item] + [int(a) for a in attrs[item] if a >= 0]
    a = theta["mix"][item][[0] + [s + 1 for s in range(2) if attrs[item, s] >= 0]]
    shares = np.exp(a) / np.exp(a).sum()
    return np.asarray(shares @ theta["v"][present])


def walk_objective(
    theta: Theta, attrs: NDArray[np.int32], walk: list[int], k: int, weights: Sequence[float]
) -> float:
    """log s(h_c . u_o) over the pairs of a window, and k negatives for each of them, by the weights
    of its distances from 1 on."""
    total = 0.0
    for at, context in enumerate(walk):
        h = hidden_of(theta, attrs, context)
        for distance, weight in enumerate(weights, 1):
            for o in [walk[i] for i in (at - distance, at + distance) if 0 <= i < len(walk)]:
                negative = k * log_sigmoid(-h @ theta["u"][NEGATIVE])
                total += weight * (log_sigmoid(h @ theta["u"][o]) + negative)
    return total


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x / np.linalg.norm(x))


def softmax_objective(
    theta: Theta, attrs: NDArray[np.int32], item: int, target: dict[int, float],
    stands_for: dict[int, float], sharpness: float,
) -> float:  # fmt: skip
    """sum over b of target_b log p_b; each item that is no target counts `stands_for` times."""

    def score(b: int) -> float:
        v, w = (unit(hidden_of(theta, attrs, x)) for x in (item, b))
        return float(v @ w + v @ unit(theta["u"][b]) + unit(theta["u"][item]) @ w)

    times = stands_for | dict.fromkeys(target, 1.0)
    amount = sum(n * np.exp(sharpness * score(b)) for b, n in times.items())
    return sum(y * (sharpness * score(b) - float(np.log(amount))) for b, y in target.items())


def session_objective(theta: Theta, attrs: NDArray[np.int32], negatives: float) -> float:
    """After items 1 and 0 item 3 came; the neighbours of 0 are 2 and 3."""
    fresh, rest = float(FRESH), {NEGATIVE: negatives}
    return (
        softmax_objective(
            theta, attrs, 0, {3: fresh + (1 - fresh) * 0.75, 2: (1 - fresh) * 0.25}, rest, 1.0
        )
        + softmax_objective(theta, attrs, 1, {3: 1.0}, rest, 1.0)
        + softmax_objective(theta, attrs, 3, {0: 2 / 3, 1: 1 / 3}, rest, 1.0)
    )


def check_gradient(before: Rows, after: Rows, objective: Any) -> None:
    scale = {"v": RATE / np.sqrt(ACCUMULATOR), "u": RATE / np.sqrt(ACCUMULATOR), "mix": RATE}
    theta = {name: getattr(before, name).astype(np.float64) for name in scale}
    for name, step in scale.items():
        learned = (getattr(after, name).astype(np.float64) - theta[name]) / step
        numerical = np.zeros_like(learned)
        for at in np.ndindex(*learned.shape):
            kept = theta[name][at]
            theta[name][at] = kept + 1e-5
            above = objective(theta, before.attrs)
            theta[name][at] = kept - 1e-5
            numerical[at] = (above - objective(theta, before.attrs)) / 2e-5
            theta[name][at] = kept
        assert np.abs(numerical).max() > 0.05
        close = 0.01 * np.abs(numerical).max()
        numerical[~before.owned] = 0.0
        assert learned == pytest.approx(numerical, abs=close)
        assert (learned[~before.owned] == 0.0).all()
    moved = [(after.v != before.v).any(axis=1), (after.u != before.u).any(axis=1)]
    grown = [after.acc_v != before.acc_v, after.acc_u != before.acc_u]
    assert not np.any([*moved, *grown, after.dirty], axis=0)[~before.owned].any()


@pytest.mark.parametrize("owned", OWNED)
@pytest.mark.parametrize(
    ("window", "shrink", "weights"),
    [
        (1, False, [1]),
        (1, True, [1]),
        (3, False, [1, 1, 1]),
        (3, True, [1, 2 / 3, 1 / 3]),
        (10, True, [1, 0.9, 0.8]),
    ],
)
def test_walks_move_rows_along_the_gradient_of_the_objective(
    window: int, shrink: bool, weights: list[float], owned: Iterable[int]
) -> None:
    before, after = with_attributes(owned), with_attributes(owned)
    walk = [0, 1, 2, 3]
    learn_walks(
        after, ints([[*walk, -1]]), uniform([NEGATIVE]),
        **WALKS | {"window": window, "shrink": shrink, "negatives": 3, "hardest_of": 1}
        | {"pace": PACE},
    )  # fmt: skip
    check_gradient(
        before, after, lambda theta, attrs: walk_objective(theta, attrs, walk, 3, weights)
    )


@pytest.mark.parametrize("owned", [[7], [0, 5], [3, 4, 5, 6, 7], [2, 4, 6, 8], [1, 3, 5, 7, 9]])
def test_who_owns_a_row_decides_nothing_of_what_moves_it(owned: list[int]) -> None:
    """Windows reach as far whichever contexts share a group: steps are small, so order is none."""
    walks, pool = ints([[0, 1, 2, 3, 4, 5, 6, 7], [7, 2, 9, 1, 0, 6, 4, -1]]), uniform([8, 9])
    rules = WALKS | {"window": 2, "block": 8, "hardest_of": 1, "pace": PACE}
    whole, part = (random_rows(10, accumulator=ACCUMULATOR) for _ in range(2))
    before = random_rows(10)
    part.owned[:] = np.isin(np.arange(10), owned)
    for rows in whole, part:
        learn_walks(rows, walks, pool, **rules)
    for name in ("v", "u"):
        moved = getattr(whole, name)[owned] - getattr(before, name)[owned]
        assert np.abs(moved).max() > 3e-5
        assert getattr(part, name)[owned] == pytest.approx(getattr(whole, name)[owned], abs=2e-6)


@pytest.mark.parametrize("owned", [range(7), [3], [0, 3, 6], [3, 4], [2, 3, 5]])
def test_sessions_move_rows_along_the_gradient_of_the_objective(owned: Sequence[int]) -> None:
    """Item 3 is what came next: who owns it looks at all."""
    share = 1.0 if len(owned) == 7 else 0.99999
    before, after = with_attributes(owned), with_attributes(owned)
    learn_sessions(
        after, ints([[0, 1, -1]]), ints([3]), arcs(7, {0: {2: 1.0, 3: 3.0}}),
        uniform([NEGATIVE] * 12),
        **SESSIONS | {"passes": 1, "negatives": 3, "pace": PACE, "sharpness": 1.0}, share=share,
    )  # fmt: skip
    check_gradient(before, after, lambda theta, attrs: session_objective(theta, attrs, 12))


def test_some_of_many_neighbours_are_candidates_and_each_stands_for_as_many() -> None:
    before, after = (random_rows(62, accumulator=ACCUMULATOR) for _ in range(2))
    for rows in (before, after):
        rows.v[2:], rows.u[2:] = rows.v[5], rows.u[5]  # one score, whichever are chosen
    many = dict.fromkeys(range(2, 2 + 3 * NEIGHBOURS), 1.0)
    learn_sessions(
        after, ints([[0]]), ints([1]), arcs(62, {0: many}), uniform([61]),
        **SESSIONS | {"passes": 1, "negatives": 1, "pace": PACE},
    )  # fmt: skip
    moved = np.flatnonzero((after.u != before.u).any(axis=1))
    assert ((moved > 1) & (moved < 61)).sum() == NEIGHBOURS
    theta = {n: getattr(before, n).astype(np.float64) for n in ("v", "u", "mix")}
    fresh, one = float(FRESH), {61: 1.0}
    target = {1: fresh} | {b: (1 - fresh) / NEIGHBOURS for b in moved.tolist() if 1 < b < 61}

    def objective() -> float:
        of = theta["v"], theta["u"]
        v, u = (np.array([unit(row) for row in table]) for table in of)
        score = v @ v[0] + u @ v[0] + v @ u[0]
        times = {b: 1.0 if b == 1 else 3.0 for b in target} | one
        amount = sum(n * np.exp(5 * score[b]) for b, n in times.items())
        there = sum(y * (5 * score[b] - np.log(amount)) for b, y in target.items())
        back = 5 * score[1] - np.log(
            np.exp(5 * score[1]) + np.exp(5 * (v @ v[1] + u @ v[1] + v @ u[1])[61])
        )
        return float(there + back)

    step = RATE / np.sqrt(ACCUMULATOR)
    for i in range(DIM):
        kept = theta["u"][0, i]
        theta["u"][0, i] = kept + 1e-5
        above = objective()
        theta["u"][0, i] = kept - 1e-5
        numerical = (above - objective()) / 2e-5
        theta["u"][0, i] = kept
        assert (after.u[0, i] - before.u[0, i]) / step == pytest.approx(numerical, abs=0.03)


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


@pytest.mark.parametrize("owned", [[4], [2]])
def test_what_others_look_at_too_moves_by_as_much_more_as_it_is_met_less(owned: list[int]) -> None:
    """Half of all is owned. After item 0 item 3 came, 2 is a neighbour of 0 and 4 the negative."""
    learned = []
    for share, mine in (1.0, range(7)), (0.5, [0, 3]), (0.5, [0, 3, *owned]), (0.5, owned):
        rows = with_attributes(mine)
        before = rows.u.copy()
        learn_sessions(
            rows, ints([[0, -1]]), ints([3]), arcs(7, {0: {2: 1.0, 3: 3.0}}), uniform([4] * 12),
            **SESSIONS | {"passes": 1, "negatives": 3, "pace": PACE, "sharpness": 1.0},
            share=share,
        )  # fmt: skip
        learned.append(rows.u - before)
    whole, ends, both, alone = learned
    assert whole[3] == pytest.approx(ends[3], abs=1e-7)
    assert (ends[owned] == 0).all()
    # What has its own item or target there is looked at by three in four.
    assert both[owned] == pytest.approx(whole[owned] / 0.75, abs=3e-7)
    assert np.abs(whole[owned]).max() > 3e-6
    assert (alone == 0).all()
