"""The newest visits of items, by session and by item: who went on from here, and where to.

A ring of the newest clicks that count, each linked with the one before and after it in its session
and with the visit of the same item before it. What it says of an item costs what is read of it, and
memory is bounded: what is older than the ring is long is forgotten.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.fold import BEGINS, KEPT, Folded
from core.kernels.lanes import SOURCES

HEATS = (0.002, 0.02, 1.0)
"""Parts of the ring whose visits are counted by item: the newest ones, more, and all."""

ITEM, SAME, BEFORE, AFTER, SINCE = range(5)
"""Columns of a visit: the slot, or -1 if the item left; how many visits back the item's last one of
another session is, and the one before it in its session, 0 for none; how many visits on the next
one of its session is, 0 if there is none yet; how many visits back the session began."""
WIDTH = 8
"""Of the columns, so that a visit lies in one cache line."""


class Columns(NamedTuple):
    """The visits as kernels take them. Visit number e is in row e % room."""

    row: NDArray[np.int32]
    """[room, WIDTH]"""
    time: NDArray[np.int64]
    """[room], ms."""
    head: NDArray[np.int64]
    """By slot, one more than the number of the item's newest visit, 0 for none."""
    heat: NDArray[np.int32]
    """[len(HEATS), slots]: how many of the newest visits of each part of the ring were of it."""


class Visits:
    """A ring with room for so many, at most 2^31 - 1."""

    def __init__(self, room: int) -> None:
        self.room = max(room, 1)
        self.n = 0
        """How many there were so far: the number of the next one."""
        self.row = np.zeros((self.room, WIDTH), np.int32)
        self.time = np.zeros(self.room, np.int64)
        self.head = np.zeros(0, np.int64)
        self.heat = np.zeros((len(HEATS), 0), np.int32)
        self.likeness = np.zeros(self.room, np.float32)
        """Zeros, for `core.ranking.candidates`."""

    def reserve(self, slots: int) -> None:
        """Make room for the newest visit of each slot."""
        more = slots - len(self.head)
        if more > 0:
            self.head = np.concatenate([self.head, np.zeros(more, np.int64)])
            cold = np.zeros((len(HEATS), more), np.int32)
            self.heat = np.concatenate([self.heat, cold], axis=1)

    def columns(self) -> Columns:
        """What kernels take. It holds until a slot is added."""
        return Columns(self.row, self.time, self.head, self.heat)

    def add(
        self, folded: Folded, users: NDArray[np.int32], times: NDArray[np.int64],
        newest: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Take the clicks of a batch that count, n of each.

        users int32 [n] are the rows of their sessions, and newest int64 [rows] is, by row, one more
        than the number of the session's newest visit, 0 for none; it is brought up to date.
        """
        self.n = _add(self.n, folded, users, times, newest, self.columns())

    def relabel(self, order: NDArray[np.int64], new: NDArray[np.int32]) -> None:
        """Old slot `order[i]` becomes i, or nothing does where that is -1; `new[old slot]` is the
        new slot, or -1."""
        self.reserve(max(len(new), int(order.max(initial=0)) + 1))
        used = self.row[: min(self.n, self.room), ITEM]
        used[:] = np.where(used >= 0, new[used], -1)
        known = order >= 0
        self.head = np.where(known, self.head[order], 0)
        self.heat = np.where(known, self.heat[:, order], 0).astype(np.int32)

    @property
    def nbytes(self) -> int:
        return sum(int(column.nbytes) for column in (*self.columns(), self.likeness))


@nb.njit(cache=True, nogil=True)
def _add(n, folded, users, times, newest, visits, sources=SOURCES):  # type: ignore[no-untyped-def]
    row, room = visits.row, len(visits.row)
    spans = np.empty(len(HEATS), np.int64)
    for h in range(len(HEATS)):
        spans[h] = max(int(HEATS[h] * room), 1)
    for k in range(len(users)):
        if folded.fate[k] != KEPT:
            continue
        u, s = users[k], folded.slots[k]
        last = newest[u] - 1
        goes_on = folded.target[k] != BEGINS and last >= 0 and n - last < room
        if goes_on and row[last % room, ITEM] == s:
            continue
        at = n % room
        for h in range(len(HEATS)):
            if n >= spans[h]:
                cooled = row[(n - spans[h]) % room, ITEM]
                if cooled >= 0:
                    visits.heat[h, cooled] -= 1
            visits.heat[h, s] += 1
        row[at] = 0
        row[at, ITEM], visits.time[at] = s, times[k]
        if goes_on:
            row[at, BEFORE] = row[last % room, AFTER] = n - last
            row[at, SINCE] = n - last + row[last % room, SINCE]
        other = visits.head[s] - 1
        if other >= 0 and n - other < room:
            back = n - other
            if other - row[other % room, SINCE] == n - row[at, SINCE]:
                # What one session does again and again counts once.
                further = row[other % room, SAME]
                back = back + further if further > 0 else 0
            row[at, SAME] = back if back < room else 0
        visits.head[s] = newest[u] = n + 1
        n += 1
    return n
