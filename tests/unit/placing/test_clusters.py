import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.placing.clusters import (
    NONE,
    assign,
    centroids_of,
    founded,
    refine,
    resized,
    seed_centroids,
    unit_rows,
)


def blobs(count: int, each: int = 60, dim: int = 8, seed: int = 1) -> NDArray[np.float32]:
    """Unit rows around the first `count` axes, `each` rows an axis, in order."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.eye(dim)[:count], each, axis=0)
    return unit_rows((centres + 0.1 * rng.standard_normal(centres.shape)).astype(np.float32))


def angle(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_unit_rows_have_length_one_or_stay_zero() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0], [1e-30, 0], [1e30, 1e30]], np.float32))
    assert np.linalg.norm(rows, axis=1).round(6).tolist() == [1, 0, 1, 1]
    assert rows.dtype == np.float32


def test_separated_blobs_are_found() -> None:
    x = blobs(5)
    for seed in range(5):
        centroids = refine(x, seed_centroids(x, 5, seed))
        label = assign(x, centroids, np.full(len(x), NONE, np.int32), 0.05).reshape(5, -1)
        assert (label == label[:, :1]).all()
        assert set(label[:, 0].tolist()) == set(range(5))


def test_labels_stay_when_the_clusters_drift() -> None:
    x = blobs(4)
    before = refine(x, seed_centroids(x, 4, 1))
    drifted = unit_rows(x + np.float32(0.3) * np.roll(x, 4, axis=1))
    after = refine(drifted, before)
    nowhere = np.full(len(x), NONE, np.int32)
    assert not np.array_equal(before, after)
    assert np.array_equal(assign(drifted, after, nowhere, 0), assign(x, before, nowhere, 0))


def test_a_centroid_without_items_stays_where_it_was() -> None:
    x = blobs(1, dim=3)
    start = np.eye(3, dtype=np.float32)[:2]
    assert np.array_equal(refine(x, start)[1], start[1])


def test_a_known_item_moves_only_past_the_margin() -> None:
    centroids = np.array([angle(0), angle(90)], np.float32)
    x = np.array([angle(44), angle(46), angle(50)], np.float32)
    zeros = np.zeros(3, np.int32)
    assert assign(x, centroids, np.full(3, NONE, np.int32), 0.05).tolist() == [0, 1, 1]
    assert assign(x, centroids, zeros, 0.05).tolist() == [0, 0, 1]
    assert assign(x, centroids, zeros, 0.5).tolist() == [0, 0, 0]
    assert assign(x, centroids, zeros + 1, 0.05).tolist() == [1, 1, 1]


def test_nothing_is_placed_nowhere_and_no_centroids_place_nothing() -> None:
    nothing, centroids = np.empty((0, 3), np.float32), np.eye(3, dtype=np.float32)
    assert len(assign(nothing, centroids, np.empty(0, np.int32), 0.05)) == 0
    assert np.array_equal(refine(nothing, centroids), centroids)
    homeless = assign(centroids, nothing, np.array([2, 0, NONE], np.int32), 0.05)
    assert homeless.tolist() == [NONE] * 3


def test_labels_stay_where_clusters_become_more_or_fewer() -> None:
    rng = np.random.default_rng(1)
    centres = unit_rows(rng.standard_normal((6, 8)).astype(np.float32))
    which = np.repeat(np.arange(6), [50, 5, 40, 30, 2, 20])
    noise = 0.01 * rng.standard_normal((len(which), 8)).astype(np.float32)
    x = unit_rows(centres[which] + noise)
    more = refine(x, resized(x, centres[:4], 6, 1))
    assert (np.argmax(centres[:4] @ more.T, axis=1) == np.arange(4)).all()
    assert len(np.unique(np.argmax(x @ more.T, axis=1))) == 6
    # The two emptiest go; of what stays only the label past the end is another.
    fewer = resized(x, centres, 4, 1)
    assert np.array_equal(fewer, centres[[0, 5, 2, 3]])
    assert np.array_equal(resized(x, centres, 6, 1), centres)


@given(seed=st.integers(0, 500), least=st.floats(-0.5, 0.9), most=st.integers(0, 12))
def test_whoever_is_far_from_all_centroids_founds_one_in_turn(
    seed: int, least: float, most: int
) -> None:
    rng = np.random.default_rng(seed)
    x = unit_rows(rng.standard_normal((20, 3)).astype(np.float32))
    centroids = x[:2]
    want: list[NDArray[np.float32]] = []
    for row in x:
        near = max(float(row @ other) for other in [*centroids, *want])
        if near < least and len(centroids) + len(want) < most:
            want.append(row)
    assert np.array_equal(founded(x, centroids, least, most), np.array(want).reshape(-1, 3))


def test_centroids_of_labels_are_unit_means_and_zeros_where_nobody_is() -> None:
    x = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    found = centroids_of(x, np.array([3, 3, 0], np.int32), 4)
    assert found[[0, 1, 2]].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert found[3] == pytest.approx(np.sqrt(0.5))
    assert centroids_of(x[:0], np.zeros(0, np.int32), 2).tolist() == [[0, 0], [0, 0]]
