"""What may come next in a session, and what each expert says of it.

An expert gives each candidate a share: of the visits that went on from here, of arcs, of those of
sessions like this one, of a softmax over vectors, of all clicks lately. Candidates are whatever an
expert that counts knows of, and what the vectors and the heat put first: `core.ranking.candidates`.

Sources: session neighbours as in Ludewig and Jannach, "Evaluation of session-based recommendation
algorithms" (User Modeling and User-Adapted Interaction 28, 2018), and Garg et al., "Sequence and
time aware neighborhood for session-based recommendations" (SIGIR 2019).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import PASS, SOURCES, pointer
from core.ranking.visits import Visits

ASKED = 8
"""Last items of a session that it is asked by, each once."""
VISITS = 40
"""Newest visits of the last of them that are looked at; of each older one fewer, by LATER."""
STEPS = 5
"""Visits before and after each that count."""
NEARER = np.float32(0.7)
"""What a further step counts for, beside the one before, among the neighbours of a session."""
LATER = np.float32(0.8)
"""The same of items of the session at hand."""
HALF = np.float32(0.5)
"""What a further item of the session counts for in its vector."""
SHARP = np.float32(4.0)
"""The vectors' scores are multiplied by this, and by twice as much, in a softmax."""
NOTHING = np.float32(1e-30)
"""What adds up to less has decayed to nothing: shares of it would be no numbers."""

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

_V, _H, _E = len(COUNTED), len(COUNTED) + len(VECTORS), len(EXPERTS)
OF_ITEM = np.array([name in (*COUNTED[:5], *VECTORS[:2], *HEAT) for name in EXPERTS], np.bool_)
"""Experts that know of the last item alone."""


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


@PASS
def _fill(counted, heat, smooth, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    n = len(out.slot)
    share, root, weight = pointer(out.share), pointer(out.root), pointer(out.stands_for)
    counted, totals = pointer(counted), np.empty(_E, np.float32)
    for q in range(len(out.begin) - 1):
        begin, size = out.begin[q], out.begin[q + 1] - out.begin[q]
        totals[:] = np.float32(0.0)
        for i in range(begin, begin + size):
            for column in range(_V):
                x = counted[i * _V + column]
                share[column * n + i] = x
                totals[column] += x * weight[i]
            for by in range(2):
                column, x = _V + 2 * by, smooth[by, i]
                share[column * n + i] = x
                share[(column + 1) * n + i] = x * x
                totals[column] += x * weight[i]
                totals[column + 1] += x * x * weight[i]
            for k in range(len(heat)):
                x = np.float32(heat[k, out.slot[i]])
                share[(_H + k) * n + i] = x
                totals[_H + k] += x * weight[i]
        for column in range(_E):
            total, at = totals[column], column * n + begin
            scale = np.float32(1.0) / total if total > NOTHING else np.float32(0.0)
            for i in range(at, at + size):
                share[i] *= scale
            if column < _V or column >= _H:
                to = (column if column < _V else column - _H + _V) * n + begin
                for i in range(size):
                    root[to + i] = np.sqrt(share[at + i])


def fill(found: Candidates, scores: NDArray[np.float32], visits: Visits) -> Table:
    """What all experts say of these candidates.

    scores float32 [2, n] are E of each candidate, for the last item and for the session.
    """
    n = len(found.slot)
    out = Table(
        found.begin, found.slot, found.stands_for, np.empty((_E, n), np.float32),
        np.empty((_V + len(HEAT), n), np.float32), scores,
    )  # fmt: skip
    # Scores are at most 3: nothing overflows.
    _fill(found.counted, visits.heat, np.exp(SHARP * (scores - np.float32(3.0))), out)
    return out
