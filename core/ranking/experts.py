"""What may come next in a session, and what each expert says of it.

An expert gives each candidate a share: of the visits that went on from here, of arcs, of those of
sessions like this one, of a softmax over vectors, of all clicks lately. Candidates are whatever an
expert that counts knows of, and what the vectors and the heat put first. All is read from the last
items of the session outwards, so that the work follows from these, and not from the catalogue.

Sources: session neighbours as in Ludewig and Jannach, "Evaluation of session-based recommendation
algorithms" (User Modeling and User-Adapted Interaction 28, 2018), and Garg et al., "Sequence and
time aware neighborhood for session-based recommendations" (SIGIR 2019).
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import INLINED, UNIT
from core.kernels.lanes import SOURCES
from core.ranking.visits import AFTER, BEFORE, ITEM, SAME, SINCE, Visits

ASKED = 8
"""Last items of a session that it is asked by, each once."""
VISITS = 40
"""Newest visits of each of them that are looked at."""
STEPS = 5
"""Visits before and after each that count."""
NEARER = np.float32(0.7)
"""What a further step counts for, beside the one before, among the neighbours of a session."""
LATER = np.float32(0.8)
"""The same of items of the session at hand."""
NEAREST = 150
"""Items with the best scores that are candidates, by the last item and by the session."""
HOT = 50
"""Items with the most visits that are, of each part of the ring."""
ARCS = 12
"""Heaviest arcs of the last item that are followed by one more step."""
HALF = np.float32(0.5)
"""What a further item of the session counts for in its vector."""
SHARP = np.array([4.0, 8.0], np.float32)
"""The vectors' scores are multiplied by these in a softmax."""
MOST = 4096
"""Candidates at most."""

COUNTED = (
    "next", "beside", "after", "arcs", "two arcs",
    "session beside", "session after", "session after, plain", "session arcs", "again",
)  # fmt: skip
"""Experts that count, in the order of their columns: what came right after the last item; within
five steps of it, either way, or after it; its neighbours in the graph, and theirs; the same of
sessions that share items with this one, the more for each that they share; and what the session had
before."""
VECTORS = ("vector, smooth", "vector", "session vector, smooth", "session vector")
HEAT = ("heat, short", "heat, medium", "heat, long")
EXPERTS = (*COUNTED, *VECTORS, *HEAT)
"""All experts: the columns of a table of shares."""
SCORES = ("item", "session")
"""What the vectors' scores E are of."""

_NEXT, _BESIDE, _AFTER, _ARCS, _TWO, _S_BESIDE, _S_AFTER, _S_PLAIN, _S_ARCS, _AGAIN = range(10)
_V, _H, _E = len(COUNTED), len(COUNTED) + len(VECTORS), len(EXPERTS)
OF_ITEM = np.array([name in (*COUNTED[:5], *VECTORS[:2], *HEAT) for name in EXPERTS], np.bool_)
"""Experts that know of the last item alone."""


class Found(NamedTuple):
    """Candidates of one question, in memory that is used again; `n[0]` of them count."""

    n: NDArray[np.int64]
    slot: NDArray[np.int32]
    """[MOST]"""
    counted: NDArray[np.float32]
    """[MOST, COUNTED]"""
    place: NDArray[np.int32]
    """By slot: one more than its place, 0 for none, -1 for what is not to be one."""
    likeness: NDArray[np.float32]
    """By row of the ring: how much the session that began there shares with the one at hand."""
    begun: NDArray[np.int64]
    """The visits at which those began that share anything."""


class Questions(NamedTuple):
    """q questions: what comes after the last items of a session?"""

    session: NDArray[np.int32]
    """[q, ASKED]: the last items, the newest first, each once; -1 past the end."""
    time: NDArray[np.int64]
    """[q]: when it is asked, ms."""
    never: NDArray[np.int32]
    """Slots that are no answers, one question after the other: the newest item among them."""
    begin: NDArray[np.int64]
    """[q + 1]: where those of each begin."""


class Candidates(NamedTuple):
    """What is known of the candidates of q questions."""

    begin: NDArray[np.int64]
    """[q + 1]: where those of each question begin."""
    slot: NDArray[np.int32]
    """[n]"""
    counted: NDArray[np.float32]
    """[n, COUNTED]: how much of each, not yet as shares."""
    stands_for: NDArray[np.float32]
    """[n]: how many items each stands for, where only a sample was looked through."""


class Arcs(NamedTuple):
    """The rows of a graph (`core.graph.slabs.Slabs`)."""

    start: NDArray[np.int32]
    degree: NDArray[np.int32]
    nbr: NDArray[np.int32]
    wgt: NDArray[np.float32]


@INLINED
def _place(found, slot):  # type: ignore[no-untyped-def]
    """The row of a candidate, which it gets if it has none and there is room; -1 for none."""
    at = found.place[slot]
    if at == 0 and found.n[0] < MOST:
        at = found.n[0] = found.n[0] + 1
        found.place[slot] = at
        found.slot[at - 1] = slot
        found.counted[at - 1] = 0.0
    return at - 1 if at > 0 else -1


@INLINED
def _add(found, slot, column, amount):  # type: ignore[no-untyped-def]
    at = _place(found, slot)
    if at >= 0:
        found.counted[at, column] += amount


@nb.njit(nogil=True, cache=True)
def gather(session, never, now, half_life, n, visits, arcs, alive, found):  # type: ignore[no-untyped-def]
    """Find what the experts that count know of, and how much."""
    for slot in never:
        found.place[slot] = -1
    room = len(visits.row)
    for j in range(len(session)):
        if j > 0:
            _add(found, session[j], _AGAIN, LATER ** np.float32(j))
        _arcs(session[j], _S_ARCS, LATER ** np.float32(j), arcs, alive, found)
    last = session[0]
    _arcs(last, _ARCS, np.float32(1.0), arcs, alive, found)
    _two_arcs(last, arcs, alive, found)
    begun = 0
    for j in range(len(session)):
        e, seen = visits.head[session[j]] - 1, 0
        while e >= 0 and n - e <= room and seen < VISITS:
            root = e - visits.row[e % room, SINCE]
            if found.likeness[root % room] == 0.0:
                found.begun[begun] = root
                begun += 1
            found.likeness[root % room] += LATER ** np.float32(j)
            back = visits.row[e % room, SAME]
            e, seen = e - back if back else -1, seen + 1
    for j in range(len(session)):
        e, seen = visits.head[session[j]] - 1, 0
        weight = LATER ** np.float32(j)
        while e >= 0 and n - e <= room and seen < VISITS:
            age = (now - visits.time[e % room]) / half_life
            w = np.float32(2.0 ** -max(age, 0.0))
            alike = found.likeness[(e - visits.row[e % room, SINCE]) % room]
            if j == 0:
                _around(e, n, w, visits, alive, found)
            _along(e, n, w * weight, w * weight * alike * alike, visits, alive, found)
            back = visits.row[e % room, SAME]
            e, seen = e - back if back else -1, seen + 1
    for j in range(begun):
        found.likeness[found.begun[j] % room] = 0.0


@INLINED
def _step(x, n, forward, visits):  # type: ignore[no-untyped-def]
    """The visit after x in its session, or before it; -1 if there is none."""
    room = len(visits.row)
    step = visits.row[x % room, AFTER if forward else BEFORE]
    x = x + step if forward else x - step
    return x if step != 0 and n - x <= room else -1


@nb.njit(nogil=True, cache=True)
def _around(e, n, w, visits, alive, found):  # type: ignore[no-untyped-def]
    """Add what lies around a visit of the last item."""
    for forward in (True, False):
        x = e
        for d in range(1, STEPS + 1):
            x = _step(x, n, forward, visits)
            if x < 0:
                break
            b = visits.row[x % len(visits.row), ITEM]
            if b >= 0 and alive[b]:
                at = _place(found, b)
                if at >= 0:
                    found.counted[at, _BESIDE] += w / np.float32(d)
                    if forward:
                        found.counted[at, _AFTER] += w / np.float32(d)
                        if d == 1:
                            found.counted[at, _NEXT] += w


@nb.njit(nogil=True, cache=True)
def _along(e, n, plain, alike, visits, alive, found):  # type: ignore[no-untyped-def]
    """Add what lies around a visit, for its session's likeness."""
    for forward in (True, False):
        x, near = e, np.float32(1.0)
        for _ in range(STEPS):
            x = _step(x, n, forward, visits)
            if x < 0:
                break
            b = visits.row[x % len(visits.row), ITEM]
            if b >= 0 and alive[b]:
                at = _place(found, b)
                if at >= 0:
                    found.counted[at, _S_BESIDE] += alike * near
                    if forward:
                        found.counted[at, _S_AFTER] += alike * near
                        found.counted[at, _S_PLAIN] += plain * near
            near *= NEARER


@nb.njit(nogil=True, cache=True)
def _total(a, arcs):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    begin = arcs.start[a] * UNIT
    for arc in range(begin, begin + arcs.degree[a]):
        total += arcs.wgt[arc]
    return total


@nb.njit(nogil=True, cache=True)
def _arcs(a, column, weight, arcs, alive, found):  # type: ignore[no-untyped-def]
    """Add a's neighbours, by their shares of its arcs."""
    total = _total(a, arcs)
    begin = arcs.start[a] * UNIT
    if total > 0.0:
        for arc in range(begin, begin + arcs.degree[a]):
            if alive[arcs.nbr[arc]]:
                _add(found, arcs.nbr[arc], column, weight * arcs.wgt[arc] / total)


@nb.njit(nogil=True, cache=True)
def _two_arcs(a, arcs, alive, found):  # type: ignore[no-untyped-def]
    """Add the neighbours of the neighbours with the heaviest arcs."""
    begin, degree = arcs.start[a] * UNIT, arcs.degree[a]
    row = arcs.wgt[begin : begin + degree]
    total = _total(a, arcs)
    if total > 0.0:
        least = np.sort(row)[max(degree - ARCS, 0)]
        left = ARCS
        for arc in range(begin, begin + degree):
            if arcs.wgt[arc] >= least and left > 0:
                _arcs(arcs.nbr[arc], _TWO, arcs.wgt[arc] / total, arcs, alive, found)
                left -= 1


@nb.njit(nogil=True, cache=True)
def _gather_all(  # type: ignore[no-untyped-def]
    questions, half_life, n, visits, arcs, alive, near, hot, found, out, each,
    sources=SOURCES,
):  # fmt: skip
    at = 0
    for q in range(len(questions.time)):
        never = questions.never[questions.begin[q] : questions.begin[q + 1]]
        here = Found(
            found.n, out.slot[at : at + MOST], out.counted[at : at + MOST], found.place,
            found.likeness, found.begun,
        )  # fmt: skip
        here.n[0] = 0
        length = 0
        while length < ASKED and questions.session[q, length] >= 0:
            length += 1
        session = questions.session[q, :length]
        gather(session, never, questions.time[q], half_life, n, visits, arcs, alive, here)
        counted = here.n[0]
        for k in range(len(near)):
            for slot in near[k, q]:
                _place(here, slot)
        for slot in hot:
            _place(here, slot)
        for i in range(here.n[0]):
            out.stands_for[at + i] = np.float32(1.0) if i < counted else each
            here.place[here.slot[i]] = 0
        for slot in never:
            here.place[slot] = 0
        at += here.n[0]
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
    q = len(questions.time)
    out = Candidates(
        np.zeros(q + 1, np.int64), np.empty(q * MOST, np.int32),
        np.empty((q * MOST, _V), np.float32), np.empty(q * MOST, np.float32),
    )  # fmt: skip
    found = Found(
        np.zeros(1, np.int64), out.slot, out.counted, np.zeros(len(alive), np.int32),
        visits.likeness, np.zeros(ASKED * VISITS, np.int64),
    )  # fmt: skip
    near = np.broadcast_to(items, scores.shape)
    if len(items) > nearest:
        near = items[np.argpartition(-scores, nearest, axis=2)[:, :, :nearest]]
    _gather_all(
        questions, float(half_life), visits.n, visits.columns(), arcs, alive, near,
        hottest(visits, alive), found, out, np.float32(each),
    )  # fmt: skip
    n = int(out.begin[-1])
    return Candidates(out.begin, out.slot[:n], out.counted[:n], out.stands_for[:n])


def hottest(visits: Visits, alive: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The slots with the most visits, in each part of the ring."""
    found = [np.zeros(0, np.int64)]
    for heat in visits.heat:
        used = min(len(heat), len(alive))
        known = np.flatnonzero((heat[:used] > 0) & alive[:used])
        most = min(HOT, len(known))
        if most:
            found.append(known[np.argpartition(-heat[known], most - 1)[:most]])
    return np.unique(np.concatenate(found)).astype(np.int32)


class Table(NamedTuple):
    """What the experts say of the n candidates of q questions, a row each."""

    begin: NDArray[np.int64]
    """[q + 1]: where the candidates of each question begin."""
    slot: NDArray[np.int32]
    """[n]"""
    stands_for: NDArray[np.float32]
    """[n]"""
    share: NDArray[np.float32]
    """[experts, n]: shares, which sum to 1 over a question's candidates, as many times as each
    stands for; or zeros, of an expert with nothing to say."""
    root: NDArray[np.float32]
    """[COUNTED and HEAT, n]: square roots of their shares."""
    score: NDArray[np.float32]
    """[2, n]: the vectors' scores E, for the last item and for the session."""


@nb.njit(nogil=True, cache=True)
def _fill(counted, heat, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    for q in range(len(out.begin) - 1):
        begin, end = out.begin[q], out.begin[q + 1]
        for i in range(begin, end):
            for column in range(_V):
                out.share[column, i] = counted[i, column]
            for k in range(len(heat)):
                out.share[_H + k, i] = heat[k, out.slot[i]]
        for by in range(2):
            for k in range(len(SHARP)):
                column = out.share[_V + by * len(SHARP) + k, begin:end]
                for i in range(end - begin):
                    # Scores are at most 3: nothing overflows.
                    score = out.score[by, begin + i] - np.float32(3.0)
                    column[i] = np.exp(SHARP[k] * score)
        weight = out.stands_for[begin:end]
        for column in range(_E):
            share, total = out.share[column, begin:end], 0.0
            for i in range(len(share)):
                total += share[i] * weight[i]
            scale = np.float32(1.0 / total) if total > 0.0 else np.float32(0.0)
            for i in range(len(share)):
                share[i] *= scale
            if column < _V or column >= _H:
                root = out.root[column if column < _V else column - _H + _V, begin:end]
                for i in range(len(share)):
                    root[i] = np.sqrt(share[i])


def fill(found: Candidates, scores: NDArray[np.float32], visits: Visits) -> Table:
    """What all experts say of these candidates.

    scores float32 [2, n] are E of each candidate, for the last item and for the session.
    """
    n = len(found.slot)
    out = Table(
        found.begin, found.slot, found.stands_for, np.empty((_E, n), np.float32),
        np.empty((_V + len(HEAT), n), np.float32), scores,
    )  # fmt: skip
    _fill(found.counted, visits.heat, out)
    return out
