from typing import Any

import numba as nb
import numpy as np
import pytest

from core.kernels import lanes
from core.kernels.lanes import (
    fill16,
    load8,
    load16,
    loadi16,
    lowest,
    pointer,
    same,
    store8,
    store16,
)
from core.kernels.scan import find
from core.kernels.tiles import fold_pairs, totals8, turn_pairs
from core.learning.dense import apply, scores, sigmoid16


def normal(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@nb.njit
def _sigmoids(x, out):  # type: ignore[no-untyped-def]
    n, x, out = len(x), pointer(x), pointer(out)
    for i in range(0, n, 16):
        store16(out, i, sigmoid16(load16(x, i)))


def test_the_sigmoid_is_exact_to_a_millionth() -> None:
    x = np.linspace(-12, 12, 20_000).astype(np.float32)
    x[:2] = -1e30, 1e30
    got = np.empty_like(x)
    _sigmoids(x, got)
    wanted = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -12, 12)))
    assert np.abs(got - wanted).max() < 1e-6


@nb.njit
def _sums(x, out):  # type: ignore[no-untyped-def]
    x, out = pointer(x), pointer(out)
    store8(out, 0, totals8(x, 3))
    out[8] = lanes.total(load16(x, 1))
    store8(out, 9, fold_pairs(load16(x, 5)))


def test_sums_of_lanes_are_sums() -> None:
    x, out = normal(80), np.empty(17, np.float32)
    _sums(x, out)
    assert out[:8] == pytest.approx(x[3:67].reshape(8, 8).sum(axis=1), abs=1e-5)
    assert out[8] == pytest.approx(x[1:17].sum(), abs=1e-5)
    assert out[9:] == pytest.approx(x[5:21].reshape(8, 2).sum(axis=1), abs=1e-5)


@nb.njit
def _lowest(x, value):  # type: ignore[no-untyped-def]
    return lowest(same(loadi16(pointer(x), 0), lanes.filli16(value)))


@pytest.mark.parametrize("place", [0, 7, 15, 16])
def test_the_lowest_lane_of_a_mask_is_found(place: int) -> None:
    x = np.zeros(17, np.int32)
    x[place:] = 5
    assert _lowest(x, np.int32(5)) == place


@nb.njit
def _find(items, at, n, slot):  # type: ignore[no-untyped-def]
    return find(pointer(items), at, n, slot)


@pytest.mark.parametrize("at", [0, 3])
def test_a_number_is_found_at_its_first_place_and_only_before_the_end(at: int) -> None:
    items = np.full(64, 20, np.int32)
    items[at : at + 40] = np.arange(40) // 2
    found = [_find(items, at, 40, np.int32(slot)) for slot in range(21)]
    assert found == [*range(at, at + 40, 2), -1]


@nb.njit
def _products(rows, at, own, hidden, wide, g, step, score, grad, turned, ask):  # type: ignore[no-untyped-def]
    d = 16 * len(wide)
    n, rows, at, hidden, turned = (
        len(at),
        pointer(rows),
        pointer(at),
        pointer(hidden),
        pointer(turned),
    )
    for i in range(0, d, 16):
        turn_pairs(hidden, i, d, turned, 8 * i)
    scores(rows, at, n, turned, d, pointer(score))
    g, step, grad = pointer(g), pointer(step), pointer(grad)
    return apply(rows, at, own, n, hidden, wide, g, step, grad, pointer(ask), 0)


@pytest.mark.parametrize(
    ("own", "n", "d"), [(4, 4, 16), (8, 8, 16), (5, 12, 64), (20, 20, 128), (0, 8, 64)]
)
def test_the_products_of_a_group_are_matrix_products(own: int, n: int, d: int) -> None:
    rows, hidden = normal(n + 3, d), normal(8, d)
    at = np.random.default_rng(2).permutation(n + 3)[:n]
    g, step = normal(2, n, 8)
    score, grad, moved = np.zeros((n, 8), np.float32), np.zeros((8, d), np.float32), rows.copy()
    flat = [x.reshape(-1) for x in (hidden, g, step, score, grad)]
    wide, turned, ask = (0,) * (d // 16), np.zeros(8 * d, np.float32), np.full(n, rows.ctypes.data)
    lines = _products(moved.reshape(-1), at * d, own, flat[0], wide, *flat[1:], turned, ask)
    assert lines == own * len(wide)
    assert score == pytest.approx(rows[at] @ hidden.T, abs=1e-4)
    assert grad == pytest.approx(g.T @ rows[at], abs=1e-4)
    after = rows.copy()
    after[at[:own]] += (step @ hidden)[:own]
    assert moved == pytest.approx(after, abs=1e-4)


@nb.njit
def _is_kept(x, out):  # type: ignore[no-untyped-def]
    x, out = pointer(x), pointer(out)
    store16(out, 0, lanes.high(lanes.low(load16(x, 0), fill16(np.float32(0.5))), load16(x, 0)))
    store8(out, 16, lanes.pick(lanes.positive(load8(x, 0)), load8(x, 0), load8(x, 8)))


def test_lanes_are_chosen_one_by_one() -> None:
    x, out = normal(16), np.empty(24, np.float32)
    _is_kept(x, out)
    assert out[:16].tolist() == x.tolist()
    assert out[16:].tolist() == np.where(x[:8] > 0, x[:8], x[8:]).tolist()
