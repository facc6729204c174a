"""Rows of items that nobody has met, from those of others with the same attributes."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.learning import lending
from core.learning.lending import FEW, LEAST, lend, turn
from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows
from tests.unit.learning.made import ints, random_rows

LEARNED, BARE, ATTRIBUTES = 12, 4, 4
ITEMS = LEARNED + BARE


@st.composite
def described(draw: st.DrawFn) -> Rows:
    """Rows of items that were learned, of bare ones, and of attributes, some of which only bare
    ones have."""
    rows = random_rows(ITEMS + ATTRIBUTES, slots=2)
    attribute = st.integers(-1, ATTRIBUTES - 1)
    for item in range(ITEMS):
        chosen = sorted({one for one in (draw(attribute), draw(attribute)) if one >= 0})
        rows.attrs[item, : len(chosen)] = [ITEMS + one for one in chosen]
    rows.u[LEARNED:] = 0.0
    return rows


def like(rows: Rows, item: int, most: int) -> list[int]:
    """The learned items that one is like: the oracle."""
    having = {
        attribute: [other for other in range(LEARNED) if attribute in rows.attrs[other]]
        for attribute in rows.attrs[item]
        if attribute >= 0
    }
    enough = [items for items in having.values() if len(items) >= FEW]
    if enough:
        return min(enough, key=len)[-most:]
    return max(having.values(), key=len, default=[])[-most:]


def mean_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = unit_rows(rows).mean(axis=0) * np.linalg.norm(rows, axis=1).mean()
    return mean


def both() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.arange(LEARNED, dtype=np.int32), np.arange(LEARNED, ITEMS, dtype=np.int32)


@given(described(), st.sampled_from([1, 2, 256]))
@settings(max_examples=100, deadline=None)
def test_a_bare_item_has_the_mean_rows_of_those_of_its_most_specific_attribute(
    rows: Rows, most: int
) -> None:
    before = rows.v.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lending, "MOST", most)
        lend(rows, *both())
    for item in range(LEARNED, ITEMS):
        if near := like(rows, item, most):
            np.testing.assert_allclose(rows.v[item], mean_of(rows.v[near]), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(rows.u[item], mean_of(rows.u[near]), rtol=1e-5, atol=1e-6)
        else:
            assert not rows.u[item].any()
            assert (rows.v[item] == before[item]).all()
        assert rows.dirty[item] == bool(near)
    others = np.r_[:LEARNED, ITEMS : ITEMS + ATTRIBUTES]
    assert (rows.v[others] == before[others]).all()
    assert not rows.dirty[others].any()


@pytest.mark.parametrize("far", [False, True])
def test_a_row_stays_as_it_is_until_the_mean_points_elsewhere(far: bool) -> None:
    rows = random_rows(ITEMS + 1, slots=1)
    rows.attrs[:ITEMS] = ITEMS
    learned, bare = both()
    lend(rows, learned, bare)
    rows.dirty[:] = False
    before, length = rows.v[bare].copy(), float(np.linalg.norm(rows.v[bare][0]))
    aside = np.zeros(rows.v.shape[1], np.float32)
    aside[0], aside[1] = before[0, 1], -before[0, 0]
    share = np.sqrt(2 * LEAST) * (3.0 if far else 0.3)
    rows.v[:LEARNED] = before[0] + share * length * unit_rows(aside[None])[0]
    lend(rows, learned, bare)
    assert rows.dirty[bare].all() == rows.dirty[bare].any() == far
    assert (rows.v[bare] != before).any() == far


def test_of_many_bare_items_each_has_its_turn_and_what_waits_has_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lending, "AT_ONCE", 3)
    bare = ints(range(5, 15))
    nothing = np.zeros(10, np.bool_)

    def had(rounds: Iterable[int], waits: NDArray[np.bool_]) -> list[set[int]]:
        return [set(turn(bare, waits, number).tolist()) for number in rounds]

    assert set.union(*had(range(7, 11), nothing)) == set(bare.tolist())
    assert all(len(each) == 3 for each in had(range(20), nothing))
    waits = nothing.copy()
    waits[[1, 4, 7, 9]] = True
    assert all(each >= {6, 9, 12} and len(each) <= 6 for each in had(range(20), waits))
    assert len(turn(bare[:0], nothing[:0], 3)) == 0
    assert turn(bare[:2], nothing[:2], 3).tolist() == [5, 6]
