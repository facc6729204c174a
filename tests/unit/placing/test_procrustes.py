import numpy as np
import pytest
from numpy.typing import NDArray

from core.placing.clusters import unit_rows
from core.placing.procrustes import agreement, rotation

DIM = 16


def rows(n: int, seed: int) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return unit_rows(made)


def turned(seed: int) -> NDArray[np.float64]:
    """Some orthogonal matrix."""
    made = np.random.default_rng([3, seed]).standard_normal((DIM, DIM))
    return np.asarray(np.linalg.qr(made)[0])


def test_a_rotation_is_found_again_and_changes_no_inner_product() -> None:
    theirs, turn = rows(100, 1), turned(1)
    own = theirs @ turn.T
    found = rotation(own, theirs)
    assert found == pytest.approx(turn, abs=1e-5)
    assert found @ found.T == pytest.approx(np.eye(DIM), abs=1e-12)
    assert agreement(own, theirs) == pytest.approx(1.0, abs=1e-5)


def test_no_other_rotation_brings_them_closer() -> None:
    own, theirs = rows(60, 1), unit_rows(rows(60, 1) @ turned(2) + 0.8 * rows(60, 2))

    def apart(turn: NDArray[np.float64]) -> float:
        return float(((own @ turn - theirs) ** 2).sum())

    found = rotation(own, theirs)
    rng = np.random.default_rng(5)
    for size in (0.001, 0.01, 0.1, 1.0):
        for _ in range(20):
            q, r = np.linalg.qr(found + size * rng.standard_normal((DIM, DIM)))
            assert apart(q * np.sign(np.diag(r))) >= apart(found)


def test_vectors_that_have_nothing_to_do_with_each_other_do_not_agree() -> None:
    """Though a rotation brings those together that it was fitted to."""
    own, theirs = rows(60, 1), rows(60, 2)
    fitted = ((own @ rotation(own, theirs)) * theirs).sum(axis=1).mean()
    assert fitted > 0.3
    assert abs(agreement(own, theirs)) < 0.15


def test_fewer_rows_than_dims_do_not_tell() -> None:
    assert np.isnan(agreement(rows(2 * DIM - 1, 1), rows(2 * DIM - 1, 2)))


def test_of_blocks_none_is_mixed_with_another_and_each_is_the_best() -> None:
    """A row that has the first dims only keeps these, and no inner product is another one."""
    ends, own, theirs = (4, 12), rows(60, 1), rows(60, 2)
    found = rotation(own, theirs, ends)
    assert found @ found.T == pytest.approx(np.eye(DIM), abs=1e-12)
    for begin, end in (0, 4), (4, 12), (12, 16):
        part = slice(begin, end)
        assert not np.delete(found[part], part, axis=1).any()
        assert found[part, part] == pytest.approx(rotation(own[:, part], theirs[:, part]))
    narrow = own.copy()
    narrow[:, 4:] = 0
    assert not (narrow @ found)[:, 4:].any()
    assert agreement(own, own, ends) == pytest.approx(1.0, abs=1e-5)
    assert agreement(own @ found, own, ends) == pytest.approx(1.0, abs=1e-5)
    across = own @ turned(1)
    assert agreement(across, own, ends) < 0.8 < agreement(across, own)
