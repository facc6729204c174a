"""Session-kNN, the baseline that is hard to beat in one session.

Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for session-based
recommendation", RecSys 2017: of the 1,000 most recent sessions that share an item with the one at
hand, the 100 most alike by the cosine of their item sets; an item scores the sum of the likenesses
of those that have it.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Ranks

RECENT, NEAREST = 1000, 100
NAME = "session-kNN"


class _Table(NamedTuple):
    """Sessions, numbered as they ended: entry e says that session `session[e]` has `item[e]`."""

    begin: NDArray[np.int64]
    """[sessions + 1]: the entries of session s are begin[s] to begin[s + 1]."""
    session: NDArray[np.int32]
    item: NDArray[np.int32]
    before: NDArray[np.int32]
    """By entry, that of the same item in the session before, -1 for none."""
    head: NDArray[np.int32]
    """By item, its last entry."""


class SessionKnn:
    """Ranks by the sessions that `past` says are over. An item of none of them is not found."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._taken = self._entries = 0
        none = np.zeros(0, np.int32)
        self._table = _Table(np.zeros(1, np.int64), none, none, none, none)

    def __call__(self, asked: Asked) -> Ranks:
        self._take_in()
        score = np.zeros(len(self._table.head), np.float32)
        out = np.full(len(asked), asked.last, np.int32)
        column = asked.column
        for i, items in enumerate(asked.positions.sessions):
            if asked.target[i] >= 0:
                out[i] = _rank(
                    np.unique(items), asked.positions.target[i], asked.left_out[i], column,
                    asked.last, self._table, score,
                )  # fmt: skip
        return {NAME: out}

    def _take_in(self) -> None:
        """The sessions that ended since the last call."""
        new = [np.unique(items) for items in self._past.closed[self._taken :]]
        sizes = np.array([len(items) for items in new], np.int64)
        first, count = self._taken, int(sizes.sum())
        self._taken += len(new)
        old, end = self._table, self._entries + count
        more = len(self._past.vocabulary) - len(old.head)
        table = self._table = _Table(
            begin=np.concatenate([old.begin, old.begin[-1] + np.cumsum(sizes)]),
            session=_room(old.session, end),
            item=_room(old.item, end),
            before=_room(old.before, end),
            head=np.concatenate([old.head, np.full(more, -1, np.int32)]),
        )
        if count:
            at = slice(self._entries, end)
            table.item[at] = np.concatenate(new)
            table.session[at] = np.repeat(np.arange(first, self._taken), sizes)
            _link(self._entries, end, table)
        self._entries = end


def _room(column: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """The column with room for n entries."""
    if n <= len(column):
        return column
    return np.concatenate([column, np.zeros(n + n // 2 - len(column), np.int32)])


@nb.njit(cache=True, nogil=True)
def _link(begin, end, table):  # type: ignore[no-untyped-def]
    for e in range(begin, end):
        table.before[e] = table.head[table.item[e]]
        table.head[table.item[e]] = e


@nb.njit(cache=True, nogil=True)
def _rank(items, target, left_out, column, last, table, score):  # type: ignore[no-untyped-def]
    """How many living items come before the target, `last` if it has no score.

    `items` are those of the session at hand, each once, and `left_out` what is not ranked of them;
    `score` float32 [items] is zero before and after.
    """
    begin, session, item, before = table.begin, table.session, table.item, table.before
    # The lists of sessions of the items, merged from the newest on: how many of them name a session
    # is how many items it shares.
    at = np.empty(len(items), np.int32)
    for j in range(len(items)):
        at[j] = table.head[items[j]]
    found = np.empty(RECENT, np.int32)
    like = np.empty(RECENT, np.float64)
    n = 0
    while n < RECENT:
        newest = np.int32(-1)
        for j in range(len(at)):
            if at[j] >= 0:
                newest = max(newest, session[at[j]])
        if newest < 0:
            break
        shared = 0
        for j in range(len(at)):
            if at[j] >= 0 and session[at[j]] == newest:
                shared += 1
                at[j] = before[at[j]]
        found[n] = newest
        like[n] = shared / np.sqrt(len(items) * (begin[newest + 1] - begin[newest]))
        n += 1
    order = np.argsort(-like[:n], kind="mergesort")[:NEAREST]
    for j in order:
        for e in range(begin[found[j]], begin[found[j] + 1]):
            score[item[e]] += np.float32(like[j])
    goal, rank = score[target], 0
    # What was counted, and what is not to be, is marked: nothing that scores is below 0.
    for b in left_out:
        score[b] = np.float32(-1.0)
    for j in order:
        for e in range(begin[found[j]], begin[found[j] + 1]):
            b = item[e]
            if score[b] > goal or (score[b] == goal and column[b] < column[target]):
                rank += column[b] >= 0
            if b != target:
                score[b] = np.float32(-1.0)
    for b in left_out:
        score[b] = np.float32(0.0)
    for j in order:
        for e in range(begin[found[j]], begin[found[j] + 1]):
            score[item[e]] = np.float32(0.0)
    return rank if goal > 0.0 else last
