"""The candidates of questions, and what the experts that count say of each.

All is read from the last items of a session outwards: their newest visits, what lies around those
in their sessions, and rows of the graph. So the work follows from these; of the catalogue there is
no more than a number a slot to clear.
Kernels work on pointers (see `core.kernels.lanes`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import UNIT
from core.kernels.lanes import INLINED, PASS, SOURCES, address, pointer, pointers, prefetch
from core.ranking.experts import (
    ASKED,
    COUNTED,
    LATER,
    NEARER,
    NOTHING,
    STEPS,
    VISITS,
    Candidates,
    Questions,
)
from core.ranking.visits import AFTER, BEFORE, ITEM, SAME, SINCE, WIDTH, Visits

MOST = 1024
"""Candidates of the experts that count at most; those around visits are taken first."""
NEAREST = 150
"""Items with the best scores that are candidates, by the last item and by the session."""
HOT = 50
"""Items with the most visits that are, of each part of the ring."""
LATELY = 20_000
"""Hot are items of so many newest visits."""
ARCS = 12
"""Heaviest arcs of the last item that are followed by one more step."""
STEP = 16
"""Among every so many-th of the scores it is seen which ones are great."""

_NEXT, _BESIDE, _AFTER, _ARCS, _TWO, _S_BESIDE, _S_AFTER, _S_PLAIN, _S_ARCS, _AGAIN = range(10)
_COLUMNS = len(COUNTED)
F32 = np.float32


class Arcs(NamedTuple):
    """The rows of a graph (`core.graph.slabs.Slabs`)."""

    start: NDArray[np.int32]
    degree: NDArray[np.int32]
    nbr: NDArray[np.int32]
    wgt: NDArray[np.float32]


class Rules(NamedTuple):
    """What `_gather_all` goes by."""

    half_life: float
    """Of a visit's weight, ms."""
    n: int
    """Visits so far."""
    nearest: int
    """Items with the best scores that are candidates, by each kind of score."""
    each: np.float32
    """How many items one of them stands for."""


class Found(NamedTuple):
    """Candidates of one question; `n[0]` of them count."""

    n: NDArray[np.int64]
    slot: NDArray[np.int32]
    counted: NDArray[np.float32]
    """[room, COUNTED]"""
    place: NDArray[np.int32]
    """By slot: one more than its place, 0 for none, -1 for what is not to be one."""
    alive: NDArray[np.uint8]
    """By slot, whether it may be one."""


class Seen(NamedTuple):
    """The visits that are looked at, of the last item first; each [ASKED * VISITS]."""

    number: NDArray[np.int64]
    root: NDArray[np.int64]
    """The row of the ring at which its session began."""
    part: NDArray[np.float32]
    """What its item counts for."""
    likeness: NDArray[np.float32]
    """By row of the ring, zeros in between: how much the session that began there shares with the
    one at hand."""


@INLINED
def _place(found, slot, most):  # type: ignore[no-untyped-def]
    """The place of a candidate, which it gets if it has none and fewer than `most` have; -1 for
    none."""
    at = np.int64(found.place[slot])
    if at == 0 and found.n[0] < most:
        at = found.n[0] + 1
        found.n[0] = at
        found.place[slot] = at
        found.slot[at - 1] = slot
        for column in range(_COLUMNS):
            found.counted[(at - 1) * _COLUMNS + column] = F32(0.0)
    return at - 1 if at > 0 else np.int64(-1)


@INLINED
def _add(found, slot, column, amount):  # type: ignore[no-untyped-def]
    at = _place(found, slot, MOST)
    if at >= 0:
        found.counted[at * _COLUMNS + column] += amount


@INLINED
def _wrapped(row, room):  # type: ignore[no-untyped-def]
    """A row of the ring that is at most once round it off."""
    if row < 0:
        return row + room
    return row - room if row >= room else row


@INLINED
def _look(session, begin, length, n, room, visits, seen):  # type: ignore[no-untyped-def]
    """List the newest visits of the items of a session. Returns how many are of the last item, and
    how many there are."""
    first = amount = 0
    part = F32(1.0)
    for j in range(length):
        e = visits.head[session[begin + j]] - 1
        most = amount + np.int64(F32(VISITS) * part)
        while e >= 0 and n - e <= room and amount < most:
            row = (e % room) * WIDTH
            root = (e - visits.row[row + SINCE]) % room
            for step in (-np.int64(visits.row[row + BEFORE]), np.int64(visits.row[row + AFTER])):
                prefetch(address(visits.row, _wrapped(e % room + step, room) * WIDTH))
            seen.number[amount], seen.root[amount], seen.part[amount] = e, root, part
            seen.likeness[root] += part
            amount += 1
            back = np.int64(visits.row[row + SAME])
            e = e - back if back > 0 else np.int64(-1)
        if j == 0:
            first = amount
        part *= LATER
    return first, amount


@PASS
def _around(first, amount, now, half_life, n, room, visits, seen, found):  # type: ignore[no-untyped-def]
    """Add what lies around the visits that are looked at, of which the `first` are of the last
    item: for themselves, and for how alike their sessions are to the one at hand."""
    for i in range(amount):
        e0 = seen.number[i]
        x0 = e0 % room
        age = max((now - visits.time[x0]) / half_life, 0.0)
        w = F32(np.exp2(-age))
        alike = seen.likeness[seen.root[i]]
        plain = w * seen.part[i]
        alike = plain * alike * alike
        for forward in (True, False):
            e, x, near = e0, x0, F32(1.0)
            for d in range(1, STEPS + 1):
                step = np.int64(visits.row[x * WIDTH + (AFTER if forward else BEFORE)])
                if not forward:
                    step = -step
                e += step
                if step == 0 or n - e > room:
                    break
                x = _wrapped(x + step, room)
                b = visits.row[x * WIDTH + ITEM]
                if b >= 0 and found.alive[b] != 0:
                    at = _place(found, b, MOST) * _COLUMNS
                    if at >= 0:
                        found.counted[at + _S_BESIDE] += alike * near
                        if forward:
                            found.counted[at + _S_AFTER] += alike * near
                            found.counted[at + _S_PLAIN] += plain * near
                        if i < first:
                            found.counted[at + _BESIDE] += w / F32(d)
                            if forward:
                                found.counted[at + _AFTER] += w / F32(d)
                                if d == 1:
                                    found.counted[at + _NEXT] += w
                near *= NEARER
    for i in range(amount):
        seen.likeness[seen.root[i]] = F32(0.0)


@PASS
def _arcs(a, column, weight, arcs, found):  # type: ignore[no-untyped-def]
    """Add a's neighbours, by their shares of its arcs."""
    begin = np.int64(arcs.start[a]) * UNIT
    end = begin + arcs.degree[a]
    total = F32(0.0)
    for arc in range(begin, end):
        total += arcs.wgt[arc]
    if total > NOTHING:
        scale = weight / total
        for arc in range(begin, end):
            if found.alive[arcs.nbr[arc]] != 0:
                _add(found, arcs.nbr[arc], column, scale * arcs.wgt[arc])


@PASS
def _two_arcs(a, arcs, found, heap):  # type: ignore[no-untyped-def]
    """Add the neighbours of the neighbours with the heaviest arcs."""
    begin = np.int64(arcs.start[a]) * UNIT
    total = F32(0.0)
    for arc in range(begin, begin + arcs.degree[a]):
        total += arcs.wgt[arc]
    if total > NOTHING:
        for k in range(_best(arcs.wgt, begin, np.int64(arcs.degree[a]), ARCS, heap)):
            arc = begin + heap[k]
            _arcs(arcs.nbr[arc], _TWO, arcs.wgt[arc] / total, arcs, found)


@INLINED
def _worse(values, at, i, j):  # type: ignore[no-untyped-def]
    return values[at + i] < values[at + j] or (values[at + i] == values[at + j] and i > j)


@INLINED
def _sink(values, at, heap, n, k):  # type: ignore[no-untyped-def]
    """Put heap[k] where it belongs below: the worst of a heap of n is at its top."""
    moved = heap[k]
    while 2 * k + 1 < n:
        child = 2 * k + 1
        if child + 1 < n and _worse(values, at, heap[child + 1], heap[child]):
            child += 1
        if not _worse(values, at, heap[child], moved):
            break
        heap[k] = heap[child]
        k = child
    heap[k] = moved


@INLINED
def _keep(values, at, n, step, floor, k, heap):  # type: ignore[no-untyped-def]
    """As `_best`, of every `step`-th of the values that are not below the floor."""
    found = 0
    for i in range(0, n, step):
        if values[at + i] >= floor:
            if found < k:
                heap[found] = i
                found += 1
                if found == k:
                    for j in range(k // 2 - 1, -1, -1):
                        _sink(values, at, heap, k, j)
            elif values[at + i] > values[at + heap[0]]:
                heap[0] = i
                _sink(values, at, heap, k, 0)
    return found


@PASS
def _best(values, at, n, k, heap):  # type: ignore[no-untyped-def]
    """The indices of the k greatest of values[at : at + n], of equals the first, into `heap`, in no
    order. Returns how many they are."""
    floor, rough = F32(-np.inf), k * 3 // (2 * STEP) + 4
    # What is below the greatest of a part is not looked at, unless that leaves too few.
    if rough < k and _keep(values, at, n, STEP, floor, rough, heap) == rough:
        floor = values[at + heap[0]]
    found = _keep(values, at, n, 1, floor, k, heap)
    if found < min(k, n):
        found = _keep(values, at, n, 1, F32(-np.inf), k, heap)
    return found


@PASS
def _gather_all(  # type: ignore[no-untyped-def]
    questions, rules, visits, arcs, seen, scratch, alive, items, scores, hot, out, sources=SOURCES,
):  # fmt: skip
    room, n = len(visits.row), rules.n
    kinds, amount, several = scores.shape
    counts, place, heap = scratch
    seen = pointers(seen)
    session = pointer(questions.session)
    visits, arcs = pointers(visits), pointers(arcs)
    values, best = pointer(scores), pointer(heap)
    at = 0
    for q in range(amount):
        found = pointers(Found(counts, out.slot[at:], out.counted[at:], place, alive))
        begin = q * ASKED
        length = 0
        while length < ASKED and session[begin + length] >= 0:
            length += 1
        for i in range(questions.begin[q], questions.begin[q + 1]):
            place[questions.never[i]] = -1
        counts[0] = 0
        first, looked = _look(session, begin, length, n, room, visits, seen)
        _around(first, looked, questions.time[q], rules.half_life, n, room, visits, seen, found)
        _arcs(session[begin], _ARCS, F32(1.0), arcs, found)
        part_of = F32(1.0)
        for j in range(length):
            if j > 0:
                _add(found, session[begin + j], _AGAIN, part_of)
            _arcs(session[begin + j], _S_ARCS, part_of, arcs, found)
            part_of *= LATER
        _two_arcs(session[begin], arcs, found, best)
        counted = counts[0]
        everywhere = len(out.slot)
        for kind in range(kinds):
            begin_of = (kind * amount + q) * several
            for k in range(_best(values, begin_of, several, rules.nearest, best)):
                _place(found, items[heap[k]], everywhere)
        for slot in hot:
            _place(found, slot, everywhere)
        for i in range(counts[0]):
            out.stands_for[at + i] = F32(1.0) if i < counted else rules.each
            place[found.slot[i]] = 0
        for i in range(questions.begin[q], questions.begin[q + 1]):
            place[questions.never[i]] = 0
        at += counts[0]
        out.begin[q + 1] = at


def gather_all(
    questions: Questions, half_life: int, visits: Visits, arcs: Arcs, alive: NDArray[np.bool_],
    items: NDArray[np.int32], scores: NDArray[np.float32], each: float, nearest: int = NEAREST,
) -> Candidates:  # fmt: skip
    """The candidates of all questions, and what the experts that count say of them.

    alive bool [slots] says which slots may be answers. The best of `items`, int32 [n], by the
    scores float32 [kinds, q, n] are candidates too, `nearest` by each kind; `each` is how many
    items one of them stands for.
    """
    q, hot = len(questions.time), hottest(visits, alive)
    most = q * (MOST + len(hot) + len(scores) * min(nearest, len(items)))
    out = Candidates(
        np.zeros(q + 1, np.int64), np.empty(most, np.int32), np.empty((most, _COLUMNS), np.float32),
        np.empty(most, np.float32),
    )  # fmt: skip
    # Kernels keep nothing alive that they have only a pointer to: what they write to is made here.
    number, root = np.empty((2, ASKED * VISITS), np.int64)
    seen = Seen(number, root, np.empty(ASKED * VISITS, np.float32), visits.likeness)
    scratch = (
        np.zeros(1, np.int64), np.zeros(len(alive), np.int32),
        np.empty(max(nearest, ARCS), np.int64),
    )  # fmt: skip
    _gather_all(
        questions, Rules(float(half_life), visits.n, nearest, F32(each)), visits.columns(), arcs,
        seen, scratch, alive.view(np.uint8), items, np.ascontiguousarray(scores), hot, out,
    )  # fmt: skip
    n = int(out.begin[-1])
    return Candidates(out.begin, out.slot[:n], out.counted[:n], out.stands_for[:n])


@PASS
def _lately(row, n, alive, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The living items of the newest visits, each once, into `out`. Returns how many they are."""
    there, found = np.zeros(len(alive), np.bool_), 0
    for e in range(max(n - min(len(row), LATELY), 0), n):
        slot = row[e % len(row), ITEM]
        if slot >= 0 and alive[slot] and not there[slot]:
            there[slot] = True
            out[found] = slot
            found += 1
    return found


def hottest(visits: Visits, alive: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The slots with the most visits, in each part of the ring, among those visited LATELY."""
    slots = np.empty(LATELY, np.int32)
    slots = slots[: _lately(visits.row, visits.n, alive, slots)]
    if len(slots) <= HOT:
        return slots
    most = [np.argpartition(-heat[slots], HOT - 1)[:HOT] for heat in visits.heat]
    return slots[np.unique(np.concatenate(most))]
