"""Residuals that are pulled to zero, the more the fewer updates an item met."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.learning.residual import pull
from tests.unit.learning.made import DIM, ints, random_rows

CENTROIDS = np.eye(3, DIM, dtype=np.float32)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300), st.integers(-1, 4)), max_size=8),
    st.sampled_from([0.5, 20.0, 1e6]), st.sampled_from([0.01, 0.1, 1.0]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_each_update_takes_its_share_of_what_is_left(
    items: list[tuple[int, int, int]], strength: float, rate: float
) -> None:
    rows = random_rows(10)
    wanted = rows.v.copy()
    for item, (n_times, n_before, label) in enumerate(items):
        for _ in range(n_times if 0 <= label < 3 else 0):
            share = min(rate * strength / (n_before + n_times), 1.0)
            centre = CENTROIDS[label] * np.linalg.norm(rows.v[item])
            wanted[item] += share * (centre - wanted[item])
    n = len(items)
    times, before, cluster = (ints([one[k] for one in items]) for k in range(3))
    args = np.arange(n), times, (before + times).astype(np.int64), cluster, CENTROIDS
    pull(rows, *args, strength, rate)
    np.testing.assert_allclose(rows.v, wanted, rtol=1e-4, atol=1e-5)
    changed = [i for i, one in enumerate(items) if 0 <= one[2] < 3]
    assert np.flatnonzero(rows.dirty).tolist() == changed


def test_nothing_is_pulled_before_there_are_clusters() -> None:
    rows = random_rows(2)
    before = rows.v.copy()
    none = np.zeros((0, 0), np.float32)
    pull(rows, ints([0, 1]), ints([1, 1]), np.array([1, 1]), ints([-1, -1]), none, 10.0, 0.1)
    assert (rows.v == before).all()
    assert not rows.dirty.any()


@pytest.mark.parametrize("n", [5, 50, 1000])
@pytest.mark.parametrize("each", [1, 4])
def test_it_comes_to_rest_at_the_mean_of_what_it_met_and_of_the_prior(n: int, each: int) -> None:
    """Learned by `rate` towards x, and pulled, as often as one likes at n updates."""
    strength, rate = 10.0, 0.005
    x, c = np.zeros(DIM, np.float32), CENTROIDS[0]
    x[1] = 1.0
    rows = random_rows(1)
    for _ in range(4000):
        for _ in range(each):
            rows.v[0] += rate * (x - rows.v[0])
        length = float(np.linalg.norm(rows.v[0]))
        pull(rows, ints([0]), ints([each]), np.array([n]), ints([0]), CENTROIDS, strength, rate)
    rests = (n * x + strength * length * c) / (n + strength)
    # It stays at x where nothing pulls, which is near that for a large n.
    np.testing.assert_allclose(rows.v[0], rests, atol=0.02 * float(np.abs(x - rests).max()))
