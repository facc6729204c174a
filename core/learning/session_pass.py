"""The kernel of the session passes: a session's decayed mean predicts its next item, and back."""

from typing import NamedTuple

import numpy as np

from core.ids.hashing import GOLDEN, stream
from core.kernels.lanes import INLINED, PASS, SOURCES, fill16, pointer, pointers, total
from core.learning.adagrad import LATELY, MARGIN, MOST, Pace
from core.learning.dense import F32, add_scaled, clear, inner, sigmoid16
from core.learning.mixing import backpropagate, hidden_vector, mark, move
from core.learning.walk_pass import draw, hardest

SESSIONS = 3
"""First purpose number of this module's random streams, one for each pass."""


class Rules(NamedTuple):
    """What `learn` goes by."""

    seed: int
    round_number: int
    passes: int
    decay: np.float32
    """The weight of an item of a session, by that of the one after it."""
    k: int
    """Negatives of a transition."""
    draws: int
    """The hardest of so many is a negative."""
    pace: Pace
    surprise: np.float32


@INLINED
def _sigmoid(score):  # type: ignore[no-untyped-def]
    return total(sigmoid16(fill16(score))) / F32(16)


@INLINED
def _pair(rows, h, square, slot, pace, label, grad):  # type: ignore[no-untyped-def]
    """One pair of h, whose mean square times pace.gain is `square`, and u[slot]: adds to grad, the
    gradient at h, and moves the row. Returns its share of `label` that the score does not have."""
    row = np.int64(slot) * 16 * len(rows.wide)
    g = label - _sigmoid(inner(h, 0, rows.u, row, rows.wide))
    rows.acc_u[slot] += g * g * square
    add_scaled(grad, 0, g, rows.u, row, rows.wide)
    step = pace.step * g / np.sqrt(rows.acc_u[slot] + pace.floor)
    add_scaled(rows.u, row, step, h, 0, rows.wide)
    mark(rows.dirty, slot)
    return g


@INLINED
def _notice(rows, slot, error, rules):  # type: ignore[no-untyped-def]
    """Take the error of an item at a transition in; what is surprised forgets."""
    x = np.int64(slot) * 2
    lately, gain = rows.lately[slot], rules.pace.gain
    lately += LATELY * (error - lately)
    rows.lately[slot] = lately
    if rows.usual[x + 1] > F32(0):
        excess = lately - rows.usual[x] / rows.usual[x + 1] - MARGIN
        if excess > F32(0):
            kept = F32(1) - min(rules.surprise * excess, MOST)
            rows.acc_v[slot] *= kept
            rows.acc_u[slot] *= kept
    rows.usual[x] += gain * error
    rows.usual[x + 1] += gain


@PASS
def learn(history, target, pool, rows, rules, scratch, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Learn from sessions int32 [n, length], newest item first, and targets int32 [n]."""
    amount, length = history.shape
    history, target, pool, rows = pointer(history), pointer(target), pointers(pool), pointers(rows)
    h, one, grad, mean_u, share, part, drawn = pointers(scratch)
    k, draws, pace, wide = rules.k, rules.draws, rules.pace, rows.wide
    d = 16 * len(wide)
    mean = pace.gain / F32(d)
    for turn in range(rules.passes):
        for t in range(amount):
            goal = target[t]
            if goal < 0:
                continue
            state = stream(rules.seed, rules.round_number, SESSIONS + turn, t)
            n = 0
            weight = F32(0)
            while n < length and history[t * length + n] >= 0:
                part[n] = rules.decay**n if history[t * length + n] != goal else F32(0)
                weight += part[n]
                n += 1
            if not weight > F32(0):
                continue
            # Forward: the mean of the session predicts the next item.
            clear(h, 0, wide)
            clear(mean_u, 0, wide)
            for j in range(n):
                part[j] /= weight
                hidden_vector(rows, history[t * length + j], share, 0, one, 0)
                add_scaled(h, 0, part[j], one, 0, wide)
                add_scaled(mean_u, 0, part[j], rows.u, np.int64(history[t * length + j]) * d, wide)
            clear(grad, 0, wide)
            square = mean * inner(h, 0, h, 0, wide)
            forward = _pair(rows, h, square, goal, pace, F32(1), grad)
            for _ in range(k):
                for r in range(draws):
                    drawn[r] = draw(state, pool)
                    state += GOLDEN
                slot = hardest(rows, drawn, 0, draws, h)
                if slot != goal:
                    _pair(rows, h, square, slot, pace, F32(0), grad)
            square = mean * inner(grad, 0, grad, 0, wide)
            for j in range(n):
                if part[j] > F32(0):
                    slot = history[t * length + j]
                    hidden_vector(rows, slot, share, 0, one, 0)
                    backpropagate(rows, slot, grad, part[j], square, pace, share, 0, one, 0)
            # Backward: the next item predicts the mean of the session.
            hidden_vector(rows, goal, share, 0, h, 0)
            square = mean * inner(h, 0, h, 0, wide)
            g = F32(1) - _sigmoid(inner(h, 0, mean_u, 0, wide))
            clear(grad, 0, wide)
            add_scaled(grad, 0, g, mean_u, 0, wide)
            for j in range(n):
                if part[j] > F32(0):
                    row = np.int64(history[t * length + j])
                    move(rows.u, rows.acc_u, row, pace, g * part[j], square, h, 0, wide)
                    mark(rows.dirty, row)
            for _ in range(k):
                for r in range(draws):
                    drawn[r] = draw(state, pool)
                    state += GOLDEN
                slot = hardest(rows, drawn, 0, draws, h)
                inside = slot == goal
                for j in range(n):
                    inside = inside or slot == history[t * length + j]
                if not inside:
                    _pair(rows, h, square, slot, pace, F32(0), grad)
            square = mean * inner(grad, 0, grad, 0, wide)
            backpropagate(rows, goal, grad, F32(1), square, pace, share, 0, h, 0)
            if turn == 0:
                if part[0] > F32(0):
                    _notice(rows, history[t * length], forward, rules)
                _notice(rows, goal, g, rules)
