"""Kernels move rows along numerical gradients of the objectives that papers state."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learning.adagrad import Pace
from core.learning.session_pass import FRESH, NEIGHBOURS
from core.learning.skipgram import Rows, learn_walks
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


def star_objective(
    theta: Theta, attrs: NDArray[np.int32], star: list[int], k: int, weights: Sequence[float]
) -> float:
    """The same of the pairs of the first item with each other one, by the weights of their
    distances from 1 on."""
    total = 0.0
    for other, weight in zip(star[1:], weights, strict=False):
        for context, o in (star[0], other), (other, star[0]):
            h = hidden_of(theta, attrs, context)
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


@pytest.mark.parametrize("owned", OWNED)
@pytest.mark.parametrize(
    ("window", "shrink", "weights"), [(4, False, [1, 1, 1]), (3, True, [1, 2 / 3, 1 / 3])]
)
def test_stars_move_rows_along_the_gradient_of_their_pairs(
    window: int, shrink: bool, weights: list[float], owned: Iterable[int]
) -> None:
    before, after = with_attributes(owned), with_attributes(owned)
    star = [0, 1, 2, 3]
    learn_walks(
        after, ints([[*star, -1]]), uniform([NEGATIVE]), are_stars=True,
        **WALKS | {"window": window, "shrink": shrink, "negatives": 3, "hardest_of": 1}
        | {"pace": PACE},
    )  # fmt: skip
    check_gradient(
        before, after, lambda theta, attrs: star_objective(theta, attrs, star, 3, weights)
    )
