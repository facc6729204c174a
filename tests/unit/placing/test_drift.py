"""How far rows moved, against the definition in plain numpy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learning.skipgram import hidden
from core.model import Model
from core.placing.clusters import unit_rows
from core.placing.drift import drift
from core.settings import ModelSettings, Settings

N = 50


def model_of(dim: int, attribute_slots: int, seed: int = 1) -> Model:
    """N rows that moved by little or by much; the last tenth are attributes of the others."""
    rng = np.random.default_rng(seed)
    model = Model(Settings(model=ModelSettings(dim=dim, attribute_slots=attribute_slots)))
    model.reserve(N)
    r, c = model.rows, model.columns
    n = len(c.alive)
    r.v[:], r.u[:] = (rng.standard_normal((n, dim)).astype(np.float32) for _ in range(2))
    r.mix[:] = rng.standard_normal(r.mix.shape)
    r.attrs[:] = -1
    if attribute_slots:
        r.attrs[: 9 * N // 10, 0] = rng.integers(9 * N // 10, N, 9 * N // 10)
        r.attrs[: N // 2, -1] = rng.integers(9 * N // 10, N, N // 2)
    spread = rng.choice([0, 1e-3, 0.1, 2], (n, 1))
    moved = (x + spread * rng.standard_normal(x.shape) for x in (vectors(model), r.u))
    c.pub_v[:], c.pub_u[:] = (unit_rows(x.astype(np.float32)) for x in moved)
    return model


def vectors(model: Model) -> NDArray[np.float32]:
    return hidden(model.rows, np.arange(len(model.columns.alive), dtype=np.int32))


def expected(model: Model) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    far, lengths = [], []
    for now, was in ((vectors(model), model.columns.pub_v), (model.rows.u, model.columns.pub_u)):
        x, p = now.astype(np.float64), was.astype(np.float64)
        length = np.linalg.norm(x, axis=1)
        unit = x / np.where(length > 0, length, 1)[:, None]
        far.append(((unit - p) ** 2).sum(axis=1) / 2)
        lengths.append(length)
    return np.maximum(*far), np.stack(lengths, axis=1)


def assert_as_expected(model: Model, slots: NDArray[np.int32]) -> None:
    (got, lengths), (far, long) = drift(model, slots), expected(model)
    np.testing.assert_allclose(got, far[slots], rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(lengths, long[slots], rtol=1e-5)


@pytest.mark.parametrize("dim", [16, 32, 64, 128])
@pytest.mark.parametrize("attribute_slots", [0, 1, 3])
def test_drift_is_that_of_plain_numpy(dim: int, attribute_slots: int) -> None:
    model = model_of(dim, attribute_slots)
    assert_as_expected(model, np.arange(N, dtype=np.int32))
    assert_as_expected(model, np.array([N - 1, 0, 7, 7], np.int32))
    assert drift(model, np.zeros(0, np.int32))[0].shape == (0,)


def test_a_row_of_zeros_is_far_from_any_vector_and_not_from_zeros() -> None:
    model = model_of(16, 0)
    r, c = model.rows, model.columns
    r.v[:3] = r.u[:3] = 0
    c.pub_v[0] = c.pub_u[0] = 0  # both were zero: nothing moved
    c.pub_v[1] = 0  # U had a direction, and lost it
    c.pub_v[3] = 0  # V has got one
    c.pub_u[3] = unit_rows(r.u[3:4])[0]
    got, lengths = drift(model, np.arange(4, dtype=np.int32))
    assert got[0] == 0
    assert got[[1, 3]] == pytest.approx(0.5, abs=1e-3)
    assert lengths[:3].tolist() == [[0, 0]] * 3
    assert_as_expected(model, np.arange(4, dtype=np.int32))


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e18])
def test_the_length_of_a_row_does_not_matter(scale: float) -> None:
    model = model_of(32, 0)
    model.rows.v *= np.float32(scale)
    model.rows.u *= np.float32(scale)
    assert_as_expected(model, np.arange(N, dtype=np.int32))


def test_every_half_precision_number_is_read_as_what_it_is() -> None:
    """Also those below the normal ones, of which the entries of a unit row may be."""
    model = model_of(16, 0)
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    within = bits[np.abs(bits.astype(np.float32)) <= 1]  # no unit row has more, or NaN
    tiny = within[np.abs(within.astype(np.float32)) < 2.0**-14]
    assert len(tiny) > 2000
    rng = np.random.default_rng(2)
    for drawn in (within, tiny):
        model.columns.pub_v[:] = rng.choice(drawn, model.columns.pub_v.shape)
        model.columns.pub_u[:] = rng.choice(drawn, model.columns.pub_u.shape)
        assert_as_expected(model, np.arange(N, dtype=np.int32))
    # One entry at a time: what it adds to the inner product is exact.
    model.rows.v[0] = model.rows.u[0] = 0
    model.rows.v[0, 5] = model.rows.u[0, 5] = 1
    model.columns.pub_v[0] = model.columns.pub_u[0] = 0
    for value in within[::97]:
        model.columns.pub_v[0, 5] = model.columns.pub_u[0, 5] = value
        x = float(value)
        (got,), _ = drift(model, np.zeros(1, np.int32))
        assert got == pytest.approx(0.5 * (1 + x * x) - x, abs=1e-6)


def test_what_was_just_published_has_not_moved() -> None:
    model = model_of(64, 2)
    model.columns.pub_v[:] = unit_rows(vectors(model))
    model.columns.pub_u[:] = unit_rows(model.rows.u)
    got, _ = drift(model, np.arange(N, dtype=np.int32))
    assert np.abs(got).max() < 1e-5
