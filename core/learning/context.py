"""Context vectors of items that nobody has met yet: those of others with the same attributes.

The hidden vector of an item without a click comes from the rows of V of its attributes
(`core.learning.mixing`); its row of U is zero, and in E = V^a.V^b + V^a.U^b + U^a.V^b it would lack
what every other item has. So a row of U of an attribute, which skip-gram does not learn, is the
mean of the unit rows of U of its items, each time when one was learned, the latest HOLD counting
most; and an item whose own row is zero has the mean over its attributes.
"""

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows

HOLD = 64
"""Of how many items' rows an attribute's has about two thirds of its weight."""


def follow(rows: Rows, learned: NDArray[np.integer]) -> None:
    """Bring the owned attributes of these items, each there once, up to their contexts.

    With m items of an attribute among them, of mean u, its row c moves to c + (u - c) m /
    (m + HOLD) where it is known, and to u where it is zero.
    """
    if rows.attrs.shape[1] == 0:
        return
    attrs = rows.attrs[learned]
    at = (attrs >= 0) & rows.u[learned].any(axis=1)[:, None]
    at[at] = rows.owned[attrs[at]]
    if not at.any():
        return
    item, _ = np.nonzero(at)
    order = np.argsort(attrs[at], kind="stable")
    slots, begin, amount = np.unique(attrs[at][order], return_index=True, return_counts=True)
    unit = unit_rows(rows.u[learned])[item[order]]
    mean = np.add.reduceat(unit, begin, axis=0) / amount[:, None].astype(np.float32)
    old = rows.u[slots]
    pace = (amount / (amount + HOLD)).astype(np.float32)
    pace[~old.any(axis=1)] = 1.0
    rows.u[slots] = old + pace[:, None] * (mean - old)
    rows.dirty[slots] = True


def contexts(rows: Rows, slots: NDArray[np.int32]) -> NDArray[np.float32]:
    """The context vectors of items, float32 [len(slots), d]: rows of U, or where that is zero the
    mean of those of its attributes."""
    out = rows.u[slots]
    if rows.attrs.shape[1]:
        bare = np.flatnonzero(~out.any(axis=1))
        attrs = rows.attrs[slots[bare]]
        there = attrs >= 0
        total = (rows.u[np.maximum(attrs, 0)] * there[:, :, None]).sum(axis=1)
        out[bare] = total / np.maximum(there.sum(axis=1), 1)[:, None].astype(np.float32)
    return out
