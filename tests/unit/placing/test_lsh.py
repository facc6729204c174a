import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.placing.clusters import unit_rows
from core.placing.lsh import Lsh
from core.settings import LshSettings

Family = Literal["sign", "p-stable"]
FAMILIES: list[Family] = ["sign", "p-stable"]
LENGTH = 24

families = pytest.mark.parametrize("family", FAMILIES)


def hashes(family: Family, *, bits: int = 6, tables: int = 4, margin: float = 0.02) -> Lsh:
    return Lsh.create(LshSettings(family, tables, bits, 0.5, margin), LENGTH, seed=3)


def vectors(n: int, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return unit_rows(rng.standard_normal((n, LENGTH)).astype(np.float32))


@families
def test_near_vectors_share_more_buckets_than_far_ones(family: Family) -> None:
    lsh, x = hashes(family, bits=3), vectors(300)
    shared = []
    for noise in (0.02, 0.1, 0.5, 5.0):
        y = unit_rows(x + noise * vectors(300, seed=2))
        shared.append(float((lsh.keys(x) == lsh.keys(y)).mean()))
    assert shared == sorted(shared, reverse=True)
    assert shared[0] > 0.8 > 0.3 > shared[-1]


@families
def test_keys_follow_from_the_seed(family: Family) -> None:
    x = vectors(50)
    one, again = hashes(family).keys(x), hashes(family).keys(x)
    other = Lsh.create(hashes(family).settings, LENGTH, seed=4).keys(x)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@families
@pytest.mark.parametrize("side", [-1, 1])
def test_a_vector_that_trembles_on_a_boundary_keeps_its_bucket(family: Family, side: int) -> None:
    lsh, margin = hashes(family, bits=1, tables=1, margin=0.02), 0.02
    plane = lsh.planes[:, 0]
    width = lsh.settings.width
    x = vectors(1)[0]
    at = float(x @ plane + lsh.offsets[0])
    boundary = 0.0 if family == "sign" else np.round(at / width) * width

    def towards(distance: float) -> NDArray[np.float32]:
        """x moved so that its projection is `distance` past the boundary, seen from `side`."""
        moved = x + plane * ((boundary - at - side * distance) / (plane @ plane))
        return np.asarray(moved[None, :], np.float32)

    known = np.array([True])
    start = key = lsh.keys(towards(-0.5 * margin))
    for distance in [0.9, -0.9, 0.5, -0.1] * 3:
        key = lsh.keys(towards(distance * margin), key, known)
        assert key == start
    assert lsh.keys(towards(0.5 * margin)) != start
    past = lsh.keys(towards(1.5 * margin), key, known)
    assert past != start
    assert lsh.keys(towards(-0.9 * margin), past, known) == past
    assert lsh.keys(towards(0.5 * margin), start, np.array([False])) != start


@families
def test_probes_begin_with_the_own_key_and_differ(family: Family) -> None:
    lsh = hashes(family)
    for query in vectors(20):
        probes = lsh.probes(query, 12)
        assert np.array_equal(probes[:, 0], lsh.keys(query[None, :])[0])
        assert all(len(set(row)) == 13 for row in probes.tolist())


@families
def test_probes_find_near_vectors_that_the_own_key_misses(family: Family) -> None:
    lsh, x = hashes(family, tables=1), vectors(300)
    y = unit_rows(x + np.float32(0.3) * vectors(300, seed=2))
    keys = lsh.keys(y)[:, 0]
    found = np.array([lsh.probes(q, 8)[0] == key for q, key in zip(x, keys, strict=True)])
    hits = found.sum(axis=0)
    assert found.any(axis=1).sum() > 1.5 * hits[0]
    assert hits[0] > hits[1] > hits[8]


@pytest.mark.parametrize("bits", [1, 2])
def test_probes_repeat_only_when_all_keys_are_told(bits: int) -> None:
    probes = hashes("sign", bits=bits).probes(vectors(1)[0], 6)
    assert all(set(row) == set(range(1 << bits)) for row in probes.tolist())


@given(st.sampled_from(FAMILIES), st.integers(1, 64), st.data())
@settings(max_examples=100, deadline=None)
def test_within_a_margin_that_spans_all_any_key_is_kept(
    family: Family, bits: int, data: st.DataObject
) -> None:
    if family == "p-stable":
        bits = min(bits, 16)
    lsh = hashes(family, bits=bits, tables=1, margin=1e9)
    taken = bits if family == "sign" else bits * min(24, 64 // bits)
    old = np.array([[data.draw(st.integers(0, (1 << taken) - 1))]], np.uint64)
    assert np.array_equal(lsh.keys(vectors(1), old, np.array([True])), old)


@families
@pytest.mark.parametrize("bits", [1, 2, 3, 16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6, 1e30])
def test_a_vector_of_any_length_has_a_key_that_it_keeps(
    family: Family, bits: int, scale: float
) -> None:
    lsh, x = hashes(family, bits=bits), np.float32(scale) * vectors(30)
    keys = lsh.keys(x)
    assert np.array_equal(lsh.keys(x, keys, np.ones(30, np.bool_)), keys)


# -- theory --------------------------------------------------------------------------------------


def collisions(family: Family, width: float, angle: float) -> float:
    """The share of single hashes that two unit vectors at this angle have in common."""
    rng, tables, shared = np.random.default_rng(4), 240, []
    for seed in range(40):
        lsh = Lsh.create(LshSettings(family, tables, 1, width, 0.0), LENGTH, seed)
        x = unit_rows(rng.standard_normal((1, LENGTH)).astype(np.float32))
        y = rng.standard_normal((1, LENGTH)).astype(np.float32)
        y = unit_rows(y - (x @ y.T) * x)
        near = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
        shared.append((lsh.keys(x) == lsh.keys(near)).mean())
    return float(np.mean(shared))


@pytest.mark.parametrize("width", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("angle", [0.2, 0.7, 1.4, 2.5])
def test_p_stable_hashes_collide_as_often_as_theory_says(width: float, angle: float) -> None:
    """Datar et al.: with r = width / distance,
    1 - 2 Phi(-r) - 2 / (sqrt(2 pi) r) (1 - exp(-r^2 / 2))."""
    r = width / (2 * math.sin(angle / 2))
    below = 0.5 * math.erfc(r / math.sqrt(2))
    edge = 2 / (math.sqrt(2 * math.pi) * r) * (1 - math.exp(-(r**2) / 2))
    assert collisions("p-stable", width, angle) == pytest.approx(1 - 2 * below - edge, abs=0.02)


@pytest.mark.parametrize("angle", [0.2, 0.7, 1.4, 2.5])
def test_sign_hashes_collide_as_often_as_theory_says(angle: float) -> None:
    """Charikar: 1 - angle / pi."""
    assert collisions("sign", 0.5, angle) == pytest.approx(1 - angle / math.pi, abs=0.02)
