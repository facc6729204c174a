"""First rows of items that nobody has clicked yet: the means of those of items like them.

What items of an attribute have in common stands in their own rows more than in the attribute's
(`core.learning.mixing`), and the row of U of an item without a click would be none at all. So both
own rows of such an item are the means of those of the items that were clicked and have the same
attribute: the most specific one that FEW have, as Grbovic and Cheng give new listings the mean of
others of their kind ("Real-time personalization using embeddings for search ranking at Airbnb", KDD
2018, section 3.4). They are rows like all others, written, read and owned.
"""

import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import PASS, SOURCES
from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows

FEW = 3
"""So many items of an attribute say what it is; where none has them, the commonest has to do."""
MOST = 64
"""Items that a mean is of at most: the youngest."""
AT_ONCE = 512
"""Items that a round lends rows to at most: those that wait, and as many others in turn."""
OFTEN = 50_000
"""Fewer items than these are looked at in each round, and n times as many once in 1 + n rounds,
unless some have just been described."""
LEAST = 0.005
"""Rows that point elsewhere by less (1 - cosine) stay, so that no row is written for nothing."""


def turn(
    bare: NDArray[np.int32], waits: NDArray[np.bool_], number: int
) -> NDArray[np.int32]:  # fmt: skip
    """Which of the slots `bare` int32 [n], ascending, have their turn, ascending: of those that
    wait to leave, bool [n], the first, and of all some by the number of the turn."""
    n = len(bare)
    begin = number * AT_ONCE % max(n, 1)
    by_round = bare[(begin + np.arange(min(AT_ONCE, n))) % max(n, 1)]
    return np.union1d(bare[waits][:AT_ONCE], by_round)


def lend(rows: Rows, learned: NDArray[np.int32], bare: NDArray[np.int32]) -> None:
    """Give the items `bare` the mean rows of V and U of those of the items `learned` that are like
    them: means of unit rows, as long as the rows are in the mean. Both int32 slots, ascending."""
    chosen = _most_specific(rows, learned, bare) if len(bare) else bare
    bare, chosen = bare[chosen >= 0], chosen[chosen >= 0]
    if len(bare) == 0:
        return
    attributes, which = np.unique(chosen, return_inverse=True)
    place = np.full(len(rows.v), -1, np.int32)
    place[attributes] = np.arange(len(attributes))
    found = np.empty((len(attributes), MOST), np.int32)
    amount = np.zeros(len(attributes), np.int32)
    _members(rows.attrs, learned, place, found, amount)
    member = found[np.arange(found.shape[1]) < amount[:, None]]
    begin, share = np.cumsum(amount) - amount, np.float32(1) / amount.astype(np.float32)
    means, moves = [], np.zeros(len(bare), np.bool_)
    for table in (rows.v, rows.u):
        lengths = np.sqrt((table[member] * table[member]).sum(axis=1))
        mean = np.add.reduceat(unit_rows(table[member]), begin)
        mean *= (np.add.reduceat(lengths, begin) * share * share)[:, None]
        means.append(mean[which])
        alike = (unit_rows(table[bare]) * unit_rows(mean)[which]).sum(axis=1)
        moves |= alike < 1 - LEAST
    to = bare[moves]
    rows.v[to], rows.u[to] = means[0][moves], means[1][moves]
    rows.dirty[to] = True


def _most_specific(
    rows: Rows, learned: NDArray[np.int32], bare: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Of the attributes of each bare item the one by which it is known, -1 for none."""
    n, attrs = len(rows.v), rows.attrs[bare]
    having = np.zeros(n, np.int32)
    _count(rows.attrs, learned, having)
    amount = np.where(attrs >= 0, having[attrs], 0)
    # Those that enough items have come first, the fewer the better; then the others.
    best = np.where(amount >= FEW, amount, 2 * n - amount).argmin(axis=1)[:, None]
    has = np.take_along_axis(amount, best, axis=1) > 0
    found: NDArray[np.int32] = np.where(has, np.take_along_axis(attrs, best, axis=1), -1)[:, 0]
    return found


@PASS
def _count(attrs, items, having, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Add to having [slots] how many of the items have each attribute."""
    for item in items:
        for s in range(attrs.shape[1]):
            if attrs[item, s] >= 0:
                having[attrs[item, s]] += 1


@PASS
def _members(attrs, items, place, found, amount, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The last of the items that have each attribute, the last first, into found [place, most], and
    how many they are into amount [place]. place [slots] is -1 for what is not asked for."""
    for i in range(len(items) - 1, -1, -1):
        for s in range(attrs.shape[1]):
            a = attrs[items[i], s]
            if a >= 0:
                p = place[a]
                if p >= 0 and amount[p] < found.shape[1]:
                    found[p, amount[p]] = items[i]
                    amount[p] += 1
