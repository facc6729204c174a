"""Vectors of users against what the definitions say, worked out one user at a time."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.placing.clusters import unit_rows
from core.users import SPREAD, Profiles, interests, means

DIM = 16


Histories = tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float64],
    NDArray[np.int64],
]  # fmt: skip
"""The arguments of `means`."""


def made(sizes: list[int], seed: int, wide: float = 1.0) -> Histories:
    """Vectors and contexts of 60 items in four directions, and histories of these sizes."""
    rng = np.random.default_rng(seed)
    centres = np.eye(4, DIM)[rng.integers(4, size=60)]
    v, u = (
        unit_rows((centres + wide * rng.standard_normal((60, DIM)) / 4).astype(np.float32))
        for _ in range(2)
    )
    begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    at = np.concatenate([np.zeros(0, np.int64), *(rng.permutation(60)[:n] for n in sizes)])
    return v, u, at, rng.uniform(0.1, 3.0, len(at)), begin


def clusters_of(v: NDArray[np.float32]) -> list[list[int]]:
    """Ward's method by its definition: the pair whose sum of squares rises least is joined."""

    def spread(members: list[int]) -> float:
        x = v[members].astype(np.float64)
        return float(((x - x.mean(axis=0)) ** 2).sum())

    found = [[n] for n in range(len(v))]
    while len(found) > 1:
        rise = {
            (i, j): spread(found[i] + found[j]) - spread(found[i]) - spread(found[j])
            for i, j in combinations(range(len(found)), 2)
        }
        i, j = min(rise, key=rise.__getitem__)
        if rise[i, j] > SPREAD:
            break
        found[i] += found.pop(j)
    return found


histories = st.lists(st.integers(0, 20), min_size=1, max_size=4)


@given(histories, st.integers(0, 10_000))
def test_a_mean_is_that_of_the_items_by_their_weights(sizes: list[int], seed: int) -> None:
    v, u, at, weights, begin = made(sizes, seed)
    got = means(v, u, at, weights, begin)
    assert np.diff(got.begin).tolist() == [int(n > 0) for n in sizes]
    assert (got.medoid == -1).all()
    assert (got.share == 1.0).all()
    for rows, vectors in ((v, got.vectors), (u, got.contexts)):
        for n, user in enumerate(np.flatnonzero(sizes)):
            own = slice(begin[user], begin[user + 1])
            total = (rows[at[own]] * weights[own, None]).sum(axis=0)
            np.testing.assert_allclose(vectors[n], total / np.linalg.norm(total), atol=1e-5)


@given(histories, st.integers(0, 10_000), st.floats(0.2, 3.0), st.integers(1, 6))
def test_interests_are_the_medoids_of_wards_clusters_that_weigh_most(
    sizes: list[int], seed: int, wide: float, most: int
) -> None:
    v, u, at, weights, begin = made(sizes, seed, wide)
    got = interests(v, u, at, weights, begin, most)
    np.testing.assert_array_equal(got.vectors, v[at[got.medoid]])
    np.testing.assert_array_equal(got.contexts, u[at[got.medoid]])
    for user in range(len(sizes)):
        own = np.arange(begin[user], begin[user + 1])
        wanted = []
        for members in clusters_of(v[at[own]]):
            x, entries = v[at[own[members]]].astype(np.float64), own[members]
            far = ((x[:, None] - x[None]) ** 2).sum(axis=2).sum(axis=1)
            # Of two items both are as near to each other.
            nearest = set(entries[far <= far.min() + 1e-6].tolist())
            wanted.append((weights[entries].sum() / weights[own].sum(), nearest))
        wanted.sort(key=lambda one: -one[0])
        mine = slice(got.begin[user], got.begin[user + 1])
        assert got.share[mine].tolist() == pytest.approx([share for share, _ in wanted[:most]])
        for medoid, (_, nearest) in zip(got.medoid[mine].tolist(), wanted, strict=False):
            assert medoid in nearest


@given(histories, st.integers(0, 10_000))
def test_a_users_vectors_do_not_depend_on_who_else_is_asked_for(
    sizes: list[int], seed: int
) -> None:
    v, u, at, weights, begin = made(sizes, seed)

    def told(got: Profiles, user: int, first: int) -> list[object]:
        mine = slice(got.begin[user], got.begin[user + 1])
        medoid = np.where(got.medoid[mine] < 0, -1, got.medoid[mine] - first)
        return [medoid.tolist(), got.share[mine].tobytes(), got.vectors[mine].tobytes()]

    for user in range(len(sizes)):
        own = slice(begin[user], begin[user + 1])
        alone = v, u, at[own], weights[own], begin[user : user + 2] - begin[user]
        first = int(begin[user])
        assert told(means(*alone), 0, 0) == told(means(v, u, at, weights, begin), user, first)
        every = interests(v, u, at, weights, begin, 3)
        assert told(interests(*alone, 3), 0, 0) == told(every, user, first)


def test_two_tastes_are_two_interests_where_the_mean_is_near_neither() -> None:
    rng = np.random.default_rng(1)
    centres = np.repeat(np.eye(2, DIM), [12, 6], axis=0)
    v = unit_rows((centres + 0.1 * rng.standard_normal((18, DIM))).astype(np.float32))
    history = v, v, np.arange(18), np.ones(18), np.array([0, 18])
    found = interests(*history, 3)
    assert found.share.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert (found.medoid < 12).tolist() == [True, False]
    assert (found.vectors[:, :2].max(axis=1) > 0.95).all()
    assert means(*history).vectors[0, :2].max() < 0.92
