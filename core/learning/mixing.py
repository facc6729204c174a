"""Hidden vectors of items: their own row of V, mixed with the rows of their attributes.

EGES (Wang et al., "Billion-scale commodity embedding", KDD 2018): h = sum over s of softmax(a)_s
row_s, s = 0 the item's own row and the others those of its attributes. At its start a_0 is OWN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import INLINED
from core.learning.dense import CLIP, F32, add_scaled, copy, inner


class Tables(NamedTuple):
    """The learned rows as kernels take them (see `core.learning.skipgram.Rows`)."""

    v: NDArray[np.float32]
    u: NDArray[np.float32]
    acc_v: NDArray[np.float32]
    acc_u: NDArray[np.float32]
    mix: NDArray[np.float32]
    attrs: NDArray[np.int32]
    dirty: NDArray[np.uint8]
    owned: NDArray[np.uint8]
    slots: int
    """Attributes that an item has at most."""
    wide: tuple[int, ...]
    """One element for each 16 dims (`core.learning.dense`)."""


OWN = 2.0
"""The weight a of an item's own row at its start, those of attributes being 0. From 0 on, rows of
items that have attributes in common stay too close to be told apart: on a shop of 1,000 items with
two attributes each that costs .016 in MRR@20 of `next`, which 2 does not."""


@INLINED
def hidden_vector(rows, slot, share, o, h, at):  # type: ignore[no-untyped-def]
    """The hidden vector of an item into h[at:], its shares into share[o : o + 1 + rows.slots].

    Without attributes the own row's share is 1 to the bit.
    """
    slots, mix, attrs, wide = rows.slots, rows.mix, rows.attrs, rows.wide
    d, a, m = 16 * len(wide), np.int64(slot) * slots, np.int64(slot) * (slots + 1)
    alone = True
    for s in range(slots):
        alone = alone and attrs[a + s] < 0
        share[o + 1 + s] = F32(0)
    copy(rows.v, np.int64(slot) * d, h, at, wide)
    share[o] = F32(1)
    if alone:
        return
    total = F32(0)
    for s in range(slots + 1):
        if s == 0 or attrs[a + s - 1] >= 0:
            share[o + s] = np.exp(min(max(mix[m + s], -CLIP), CLIP))
            total += share[o + s]
    for s in range(slots + 1):
        share[o + s] /= total
    add_scaled(h, at, share[o] - F32(1), h, at, wide)
    for s in range(slots):
        if attrs[a + s] >= 0:
            add_scaled(h, at, share[o + 1 + s], rows.v, np.int64(attrs[a + s]) * d, wide)


@INLINED
def mark(dirty, row):  # type: ignore[no-untyped-def]
    """Set dirty[row], unless it is set: a write would slow down threads that read the cache
    line."""
    if not dirty[row]:
        dirty[row] = 1


@INLINED
def move(table, acc, row, pace, scale, square, grad, at, wide):  # type: ignore[no-untyped-def]
    """One Adagrad step of table[row] along scale grad[at:], whose mean square times pace.gain is
    `square`."""
    acc[row] += scale * scale * square
    step = pace.step * scale / np.sqrt(acc[row] + pace.floor)
    add_scaled(table, row * 16 * len(wide), step, grad, at, wide)


@INLINED
def is_mine(rows, slot):  # type: ignore[no-untyped-def]
    """Whether any row of which the hidden vector of `slot` is made is owned."""
    mine = rows.owned[slot] != 0
    for s in range(np.int64(slot) * rows.slots, (np.int64(slot) + 1) * rows.slots):
        mine = mine or (rows.attrs[s] >= 0 and rows.owned[rows.attrs[s]] != 0)
    return mine


@INLINED
def backpropagate(rows, slot, grad, scale, square, pace, share, o, h, at):  # type: ignore[no-untyped-def]
    """Move what the hidden vector of `slot` was made of along scale grad[at:] (d objective / d h),
    as far as it is owned.

    `square` is as in `move`; share[o:] and h[at:] are those of `hidden_vector`:
    d h / d row_s = share_s, d h / d a_s = share_s (row_s - h).
    """
    row, slots, wide = np.int64(slot), rows.slots, rows.wide
    own = rows.owned[row] != 0
    if share[o] == F32(1):
        if own:
            move(rows.v, rows.acc_v, row, pace, scale, square, grad, at, wide)
            mark(rows.dirty, row)
        return
    d, a, m = 16 * len(wide), row * slots, row * (slots + 1)
    towards_h = inner(grad, at, h, at, wide)
    for s in range(slots + 1):
        part = share[o + s] * scale
        if part > F32(0):
            if s > 0:
                row = np.int64(rows.attrs[a + s - 1])
            if own:
                pull = part * (inner(grad, at, rows.v, row * d, wide) - towards_h)
                rows.mix[m + s] += pace.rate * min(max(pull, F32(-1)), F32(1))
            if rows.owned[row]:
                move(rows.v, rows.acc_v, row, pace, part, square, grad, at, wide)
                mark(rows.dirty, row)
