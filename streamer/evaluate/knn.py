"""Session neighbours: three baselines that score an item by the past sessions that have it.

All three take the most recent sessions that share an item with the one at hand, keep the ones most
like it, and let each give its items a part of its likeness.

Session-kNN (Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for
session-based recommendation", RecSys 2017): likeness is the cosine of the two sets of items, and
each item of a neighbour gets all of it.

VSKNN (Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", User Modeling
and User-Adapted Interaction 28, 2018): the item at place p of l counts (p / l)^2 for likeness; a
neighbour gives less, the further back the last item lies that it shares; rare items get more.

STAN (Garg, Gupta, Malhotra, Vig and Shroff, "Sequence and time aware neighborhood for session-based
recommendations", SIGIR 2019): three exponentials, by the place of a shared item in the session at
hand, by the age of the neighbour, and by the distance of an item from the last shared one in the
neighbour.

Constants are those that session-rec, the framework of the second paper's authors, found good for
Diginetica, a shop's clicks (window_digi_baselines.yml and window_digi_stan.yml, `stan-mrr`); STAN
looks at 5,000 sessions in place of 10,000, to be quicker; that takes .6% of its hits where so many
share an item (online-retail).
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Ranks

NAMES = KNN, VSKNN, STAN = "session-kNN", "VSKNN", "STAN"
RECENT = 1000, 5000, 5000
"""Sessions that share an item, the newest, by ranker."""
NEAREST = 100, 500, 500
"""Those of them that count, the most alike; of equals the newest."""
RARE = 5.0
"""VSKNN: an item gets 1 + RARE ln(sessions / sessions that have it) times its part."""
BACK = 1.225
"""STAN: a shared item counts exp(-steps / BACK), steps back from the last one at hand."""
AGE = 20 / 7
"""STAN: a neighbour counts exp(-age / (AGE half-lives)): the 20 days of the source, where the
half-life of the graph is its default of 7 days."""
APART = 4.9
"""STAN: an item gets exp(-places / APART) of it, places apart from the last shared one."""

STRIDES = 64
"""Stretches of time in which neighbours are looked for, the newest first."""
LEAST = 1e-150
"""Likeness below this is none, so that what a neighbour gives is above 0."""
FIRST_ROOM = 4
"""Sessions that an item's list has room for at first. Each time that it is full it doubles."""


class _Table(NamedTuple):
    """Sessions, numbered as they ended. Entry e says that a session has `item[e]`."""

    begin: NDArray[np.int64]
    """[sessions + 1]: the entries of session s are begin[s] to begin[s + 1]."""
    time: NDArray[np.int64]
    """[sessions]: of the last click, ms."""
    item: NDArray[np.int32]
    """By entry: each item of a session once."""
    place: NDArray[np.int32]
    """By entry: where the item came last in its session, from 0."""
    listed: NDArray[np.int32]
    """Lists of the sessions of each item, ascending."""
    start: NDArray[np.int64]
    """[items]: where an item's list begins."""
    held: NDArray[np.int32]
    """[items]: sessions in it."""
    room: NDArray[np.int32]
    """[items]: and how many more before it has to move."""


class SessionNeighbours:
    """Ranks by the sessions that `past` says are over. An item of no neighbour is not found."""

    def __init__(self, past: Past, half_life: int) -> None:
        """`half_life` in ms is the one of the graph."""
        self._past, self._age = past, AGE * half_life
        self._taken = 0
        times, none = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._table = _Table(np.zeros(1, np.int64), times, none, none, none, times, none, none)
        self._used = np.zeros(1, np.int64)
        """How much of the lists' pool is in use."""

    def __call__(self, asked: Asked) -> Ranks:
        self._take_in()
        at = asked.positions
        out = np.full((len(NAMES), len(asked)), asked.last, np.int32)
        # Relative to the newest, which leaves all ranks as they are.
        age = self._table.time.max(initial=0) - self._table.time
        _ranks(
            *_flat(at.sessions), at.target, *_flat(asked.left_out), asked.column, self._table,
            np.exp(-age / self._age), out,
        )  # fmt: skip
        return dict(zip(NAMES, out, strict=True))

    def _take_in(self) -> None:
        """The sessions that ended since the last call."""
        new = self._past.closed[self._taken :]
        items, ends = _flat([session.items for session in new])
        old, first = self._table, self._taken
        self._taken += len(new)
        most = int(old.begin[-1]) + len(items)
        more = len(self._past.vocabulary) - len(old.start)
        self._table = _Table(
            begin=np.concatenate([old.begin, np.zeros(len(new), np.int64)]),
            time=np.concatenate([old.time, np.array([s.time for s in new], np.int64)]),
            item=_room(old.item, most),
            place=_room(old.place, most),
            # Rooms double, and are not used again: of n sessions there are less than 4 n.
            listed=_room(old.listed, FIRST_ROOM * most),
            start=np.concatenate([old.start, np.zeros(more, np.int64)]),
            held=np.concatenate([old.held, np.zeros(more, np.int32)]),
            room=np.concatenate([old.room, np.zeros(more, np.int32)]),
        )
        _link(first, items, ends, self._table, self._used)


def _flat(rows: list[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows one after the other, and where each begins; [rows + 1]."""
    none = np.zeros(0, np.int32)
    return np.concatenate([none, *rows]), np.cumsum([0, *map(len, rows)])


def _room(column: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """The column with room for n entries."""
    if n <= len(column):
        return column
    return np.concatenate([column, np.zeros(n + n // 2 - len(column), np.int32)])


@nb.njit(cache=True, nogil=True)
def _link(first, items, ends, table, used):  # type: ignore[no-untyped-def]
    """Write sessions from number `first` on, whose items lie between `ends`, into the table."""
    for s in range(first, first + len(ends) - 1):
        e = table.begin[s]
        begin = ends[s - first]
        for p in range(ends[s - first + 1] - 1, begin - 1, -1):
            b = items[p]
            n = table.held[b]
            if n > 0 and table.listed[table.start[b] + n - 1] == s:
                continue
            table.item[e], table.place[e] = b, p - begin
            e += 1
            if table.room[b] == 0:
                grown = max(2 * n, FIRST_ROOM)
                for k in range(n):
                    table.listed[used[0] + k] = table.listed[table.start[b] + k]
                table.start[b], table.room[b] = used[0], grown - n
                used[0] += grown
            table.listed[table.start[b] + n] = s
            table.held[b] = n + 1
            table.room[b] -= 1
        table.begin[s + 1] = e


FOUND = np.dtype(
    [("back", np.int32), ("shared", np.int32), ("squares", np.float64), ("powers", np.float64)]
)
"""What a session shares with the one at hand: how far back the last shared item lies, from 1, or 0
if there is none; how many items; the sums of their (p / l)^2 and of their exp(-steps / BACK)."""


@nb.njit(cache=True, nogil=True)
def _look(items, stamp, seen, table, found, touched, cuts):  # type: ignore[no-untyped-def]
    """Find the sessions that share any of `items`, in `touched`. Returns how many, and how many
    items there are, each once.

    `seen` int32 [items] gets the stamp where the session has an item. cuts[r] is the first of the
    RECENT[r] newest sessions, or 0 if there are fewer.
    """
    length, sessions = len(items), len(table.time)
    at, end = np.empty(length, np.int64), np.empty(length, np.int64)
    back, squares, powers = np.empty(length, np.int32), np.empty(length), np.empty(length)
    distinct = 0
    for step in range(1, length + 1):
        b = items[length - step]
        if seen[b] != stamp:
            seen[b] = stamp
            end[distinct] = table.start[b]
            at[distinct] = table.start[b] + table.held[b]
            back[distinct] = step
            squares[distinct] = ((length - step + 1) / length) ** 2
            powers[distinct] = np.exp((1 - step) / BACK)
            distinct += 1
    for r in range(len(cuts)):
        cuts[r] = 0
    # A stretch of time after the other, each by the lists of all items: so the newest sessions are
    # found first, and within each the items come from the last one at hand on.
    n, stretch = 0, sessions // STRIDES + 1
    begin = sessions
    while begin > 0 and n < RECENT[-1]:
        begin = max(0, begin - stretch)
        before = n
        for j in range(distinct):
            k = at[j]
            while k > end[j] and table.listed[k - 1] >= begin:
                k -= 1
                s = table.listed[k]
                one = found[s]
                if one["back"] == 0:
                    one["back"], one["shared"], one["squares"], one["powers"] = back[j], 0, 0.0, 0.0
                    touched[n] = s
                    n += 1
                one["shared"] += 1
                one["squares"] += squares[j]
                one["powers"] += powers[j]
            at[j] = k
        for r in range(len(cuts)):
            if before < RECENT[r] <= n:
                surplus = n - RECENT[r]
                cuts[r] = np.partition(touched[before:n], surplus)[surplus]
    return n, distinct


@nb.njit(cache=True, nogil=True)
def _compare(r, touched, distinct, cut, table, age, found, like):  # type: ignore[no-untyped-def]
    """How like ranker r finds each touched session into `like`, 0 for those before `cut`."""
    for j in range(len(touched)):
        s = touched[j]
        size = table.begin[s + 1] - table.begin[s]
        if s < cut:
            like[j] = 0.0
        elif r == 0:
            like[j] = found[s]["shared"] / np.sqrt(distinct * size)
        elif r == 1:
            like[j] = found[s]["squares"]
        else:
            like[j] = found[s]["powers"] / np.sqrt(size) * age[s]


@nb.njit(cache=True, nogil=True)
def _nearest(most, touched, like, near):  # type: ignore[no-untyped-def]
    """The places in `touched` of the `most` sessions that are most like, of equals the newest, into
    `near`. Returns how many. Those that are not like at all are not among them."""
    least, first = 0.0, 0
    if len(touched) > most:
        n = len(touched) - most
        least = np.partition(like, n)[n]
        level = touched[like == least]
        surplus = len(level) + (like > least).sum() - most
        first = np.partition(level, surplus)[surplus]
    n = 0
    for j in range(len(touched)):
        if like[j] > max(least, LEAST) or (like[j] == least > LEAST and touched[j] >= first):
            near[n] = j
            n += 1
    return n


@nb.njit(forceinline=True)
def _give(s, part, table, score, scored, m):  # type: ignore[no-untyped-def]
    """Give each item of session s its part. Returns how many have a score; m had one before."""
    for e in range(table.begin[s], table.begin[s + 1]):
        b = table.item[e]
        scored[m] = b
        m += score[b] == 0.0
        score[b] += part
    return m


@nb.njit(forceinline=True)
def _give_apart(s, part, stamp, seen, apart, table, score, scored, m):  # type: ignore[no-untyped-def]
    """The same, less by the distance from the last of its items that were `seen`."""
    last = 0
    for e in range(table.begin[s], table.begin[s + 1]):
        if seen[table.item[e]] == stamp:
            last = max(last, table.place[e])
    for e in range(table.begin[s], table.begin[s + 1]):
        b = table.item[e]
        scored[m] = b
        m += score[b] == 0.0
        score[b] += part * apart[min(abs(table.place[e] - last), len(apart) - 1)]
    return m


@nb.njit(cache=True, nogil=True)
def _ranks(items, ends, target, left_out, left_ends, column, table, age, out):  # type: ignore[no-untyped-def]
    """How many living items come before each target, by the three rankers: out[3, q], which stays
    as it is where one has no score.

    The sessions at hand are `items` between `ends`, what is not ranked `left_out` between
    `left_ends`; `age` float64 [sessions] is what STAN multiplies likeness by.
    """
    sessions, known, rankers = len(table.time), len(column), len(RECENT)
    touched, like = np.empty(sessions, np.int32), np.empty(sessions, np.float64)
    found, near = np.zeros(sessions, FOUND), np.empty(max(NEAREST), np.int32)
    cuts, apart = np.zeros(rankers, np.int32), np.exp(-np.arange(1024) / APART)
    rare = 1.0 + RARE * np.log(sessions / np.maximum(table.held, 1))
    seen, gone = np.zeros(known, np.int32), np.zeros(known, np.int32)
    score, scored = np.zeros(known), np.empty(known + 1, np.int32)
    for i in range(len(target)):
        goal, stamp = target[i], np.int32(i + 1)
        if column[goal] < 0:
            continue
        for k in range(left_ends[i], left_ends[i + 1]):
            gone[left_out[k]] = stamp
        at_hand = items[ends[i] : ends[i + 1]]
        n, distinct = _look(at_hand, stamp, seen, table, found, touched, cuts)
        for r in range(rankers):
            _compare(r, touched[:n], distinct, cuts[r], table, age, found, like)
            m = 0
            for k in range(_nearest(NEAREST[r], touched[:n], like[:n], near)):
                s, part = touched[near[k]], like[near[k]]
                if r == 0:
                    m = _give(s, part, table, score, scored, m)
                elif r == 1:
                    m = _give(s, part / found[s]["back"], table, score, scored, m)
                else:
                    m = _give_apart(s, part, stamp, seen, apart, table, score, scored, m)
            if r == 1:
                for j in range(m):
                    score[scored[j]] *= rare[scored[j]]
            if score[goal] > 0.0:
                before = 0
                for j in range(m):
                    b = scored[j]
                    if gone[b] != stamp and column[b] >= 0:
                        tied = score[b] == score[goal] and column[b] < column[goal]
                        before += score[b] > score[goal] or tied
                out[r, i] = before
            for j in range(m):
                score[scored[j]] = 0.0
        for j in range(n):
            found[touched[j]]["back"] = 0
