"""Rows in a byte an entry."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.placing.clusters import unit_rows
from core.placing.placement import Placement
from core.placing.quantised import centres, quantised, restored


@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-6, 1.0, 40.0]))
@settings(max_examples=60, deadline=None)
def test_no_entry_is_off_by_more_than_half_a_scale(seed: int, size: float) -> None:
    x = (size * np.random.default_rng(seed).normal(size=(5, 16))).astype(np.float32)
    x[0] = 0.0
    q, scale = quantised(x)
    assert (scale <= np.abs(x).max(axis=1).astype(np.float64) / 127 + 2e-9).all()
    assert (np.abs(restored(q, scale) - x) <= scale[:, None] * 0.5001 + 1e-7).all()
    assert not restored(q, scale)[0].any()


def test_without_clusters_there_are_no_centres() -> None:
    none = Placement.empty().centroids
    assert not centres(np.full(3, -1, np.int32), none, 16).any()
    assert centres(np.zeros(0, np.int32), none, 16).shape == (0, 16)


def test_residuals_lose_less_than_vectors() -> None:
    rng = np.random.default_rng(1)
    centroids = unit_rows(rng.normal(size=(4, 64)).astype(np.float32))
    cluster = np.repeat(np.arange(-1, 4), 20).astype(np.int32)
    centre = centres(cluster, centroids, 64)
    assert not centre[cluster < 0].any()
    noise = rng.normal(size=(100, 64)).astype(np.float32) * np.float32(0.02)
    x = unit_rows(centre + noise)[cluster >= 0]
    whole = restored(*quantised(x))
    parts = centre[cluster >= 0] + restored(*quantised(x - centre[cluster >= 0]))
    assert np.abs(parts - x).mean() < 0.5 * np.abs(whole - x).mean()
