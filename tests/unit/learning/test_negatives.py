import numpy as np
import pytest

from core.learning.negatives import pool


def probabilities(counts: list[float], alpha: float) -> np.ndarray:
    """What the alias table draws, worked out from its cells."""
    items = np.arange(100, 100 + len(counts), dtype=np.int32)
    drawn = pool(items, np.array(counts, np.float32), alpha)
    p = np.zeros(len(items))
    np.add.at(p, drawn.items - 100, drawn.accept)
    np.add.at(p, drawn.alias - 100, 1.0 - drawn.accept)
    return np.asarray(p / len(items))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
def test_items_are_drawn_by_a_power_of_their_counts(alpha: float) -> None:
    counts = [1.0, 3.0, 0.5, 10.0, 7.0, 7.0, 0.1]
    expected = np.array(counts) ** alpha
    assert probabilities(counts, alpha) == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_the_common_scale_of_counts_does_not_matter() -> None:
    counts = np.array([1.0, 3.0, 0.5, 10.0])
    near = probabilities((counts * 2.0**60).tolist(), 0.75)
    assert np.array_equal(near, probabilities((counts * 2.0**-60).tolist(), 0.75))


def test_items_without_any_count_are_still_drawn() -> None:
    assert probabilities([0.0, 0.0], 0.75) == pytest.approx([0.5, 0.5])
    assert 0 < probabilities([0.0, 1.0], 0.75)[0] < 1e-3


def test_no_items_give_an_empty_pool() -> None:
    empty = pool(np.empty(0, np.int32), np.empty(0, np.float32), 1)
    assert empty.n == len(empty.items) == len(empty.accept) == len(empty.alias) == 0
