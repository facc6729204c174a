"""Contexts of items that nobody has met, from those of others with the same attributes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.learning.context import HOLD, contexts, follow
from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows
from tests.unit.learning.made import DIM, random_rows

ITEMS, ATTRIBUTES = 12, 4


@st.composite
def described(draw: st.DrawFn) -> Rows:
    """Rows of items, some never learned, and of attributes, some of which nobody had yet."""
    rows = random_rows(ITEMS + ATTRIBUTES, slots=2)
    attribute = st.integers(-1, ATTRIBUTES - 1)
    for item in range(ITEMS):
        chosen = [draw(attribute), draw(attribute)]
        chosen = sorted({one for one in chosen if one >= 0})
        rows.attrs[item, : len(chosen)] = [ITEMS + one for one in chosen]
    rows.u[draw(st.lists(st.integers(0, ITEMS + ATTRIBUTES - 1)))] = 0.0
    rows.owned[draw(st.lists(st.integers(0, ITEMS + ATTRIBUTES - 1)))] = False
    return rows


def plain(rows: Rows, learned: list[int]) -> NDArray[np.float32]:
    """The rows of U after `follow`, one attribute after the other."""
    out = rows.u.copy()
    for attribute in range(ITEMS, ITEMS + ATTRIBUTES):
        items = [i for i in learned if attribute in rows.attrs[i] and rows.u[i].any()]
        if items and rows.owned[attribute]:
            mean = unit_rows(rows.u[items]).mean(axis=0)
            pace = len(items) / (len(items) + HOLD) if rows.u[attribute].any() else 1.0
            out[attribute] += pace * (mean - out[attribute])
    return out


@given(described(), st.lists(st.integers(0, ITEMS - 1), unique=True))
@settings(max_examples=100, deadline=None)
def test_an_attribute_follows_the_contexts_of_its_items(rows: Rows, learned: list[int]) -> None:
    wanted, before = plain(rows, learned), rows.u.copy()
    follow(rows, np.array(learned, np.int64))
    np.testing.assert_allclose(rows.u, wanted, rtol=1e-5, atol=1e-6)
    assert (rows.dirty == (rows.u != before).any(axis=1)).all()


@given(described())
@settings(max_examples=100, deadline=None)
def test_an_item_without_a_context_has_that_of_its_attributes(rows: Rows) -> None:
    found = contexts(rows, np.arange(ITEMS, dtype=np.int32))
    for item in range(ITEMS):
        own, attributes = rows.u[item], rows.attrs[item][rows.attrs[item] >= 0]
        lent = rows.u[attributes].mean(axis=0) if len(attributes) else np.zeros(DIM, np.float32)
        np.testing.assert_allclose(found[item], own if own.any() else lent, rtol=1e-6, atol=1e-7)
