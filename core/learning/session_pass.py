"""The kernel of the session passes: a session's decayed mean predicts its next item, and back."""

import numpy as np

from core.ids.hashing import GOLDEN, stream
from core.learning.dense import F32, add_scaled, clear, inner, sigmoid16
from core.learning.lanes import INLINED, PASS, SOURCES, fill16, pointer, total
from core.learning.mixing import hide, move, touch, unhide
from core.learning.walk_pass import draw, hardest

SESSIONS = 3
"""First purpose number of this module's random streams, one for each pass."""


@INLINED
def _sigmoid(score):  # type: ignore[no-untyped-def]
    return total(sigmoid16(fill16(score))) / F32(16)


@INLINED
def _pair(h, square, u, acc_u, slot, rate, label, grad, wide, dirty):  # type: ignore[no-untyped-def]
    """One pair of h, whose mean square is `square`, and u[slot]: adds to grad, the gradient at h,
    and moves the row."""
    row = np.int64(slot) * 16 * len(wide)
    g = label - _sigmoid(inner(h, 0, u, row, wide))
    acc_u[slot] += g * g * square
    add_scaled(grad, 0, g, u, row, wide)
    add_scaled(u, row, rate * g / np.sqrt(acc_u[slot]), h, 0, wide)
    touch(dirty, slot)


@PASS
def learn(  # type: ignore[no-untyped-def]
    history, target, seed, round_number, passes, decay, k, draws, rate, pool, accept, alias,
    v, u, acc_v, acc_u, mix, attrs, dirty, wide, scratch, sources=SOURCES,
):  # fmt: skip
    """Learn from sessions int32 [n, length], newest item first, and targets int32 [n]."""
    d, (amount, length) = 16 * len(wide), history.shape
    items, slots = len(pool), attrs.shape[1]
    history, target = pointer(history), pointer(target)
    pool, accept, alias = pointer(pool), pointer(accept), pointer(alias)
    v, u, acc_v, acc_u = pointer(v), pointer(u), pointer(acc_v), pointer(acc_u)
    mix, attrs, dirty = pointer(mix), pointer(attrs), pointer(dirty)
    h, one, grad, mean_u = (
        pointer(scratch.h), pointer(scratch.one), pointer(scratch.grad), pointer(scratch.mean_u),
    )  # fmt: skip
    share, part, drawn = pointer(scratch.share), pointer(scratch.part), pointer(scratch.drawn)
    for turn in range(passes):
        for t in range(amount):
            goal = target[t]
            if goal < 0:
                continue
            state = stream(seed, round_number, SESSIONS + turn, t)
            n = 0
            weight = F32(0)
            while n < length and history[t * length + n] >= 0:
                part[n] = decay**n if history[t * length + n] != goal else F32(0)
                weight += part[n]
                n += 1
            if not weight > F32(0):
                continue
            # Forward: the mean of the session predicts the next item.
            clear(h, 0, wide)
            clear(mean_u, 0, wide)
            for j in range(n):
                part[j] /= weight
                hide(history[t * length + j], v, mix, attrs, slots, wide, share, 0, one, 0)
                add_scaled(h, 0, part[j], one, 0, wide)
                add_scaled(mean_u, 0, part[j], u, np.int64(history[t * length + j]) * d, wide)
            clear(grad, 0, wide)
            square = inner(h, 0, h, 0, wide) / F32(d)
            _pair(h, square, u, acc_u, goal, rate, F32(1), grad, wide, dirty)
            for _ in range(k):
                for r in range(draws):
                    drawn[r] = draw(state, items, pool, accept, alias)
                    state += GOLDEN
                slot = hardest(drawn, 0, draws, h, u, wide)
                if slot != goal:
                    _pair(h, square, u, acc_u, slot, rate, F32(0), grad, wide, dirty)
            square = inner(grad, 0, grad, 0, wide) / F32(d)
            for j in range(n):
                if part[j] > F32(0):
                    slot = history[t * length + j]
                    hide(slot, v, mix, attrs, slots, wide, share, 0, one, 0)
                    unhide(
                        slot, grad, part[j], square, rate, v, acc_v, mix, attrs, slots, dirty, wide,
                        share, 0, one, 0,
                    )  # fmt: skip
            # Backward: the next item predicts the mean of the session.
            hide(goal, v, mix, attrs, slots, wide, share, 0, h, 0)
            square = inner(h, 0, h, 0, wide) / F32(d)
            g = F32(1) - _sigmoid(inner(h, 0, mean_u, 0, wide))
            clear(grad, 0, wide)
            add_scaled(grad, 0, g, mean_u, 0, wide)
            for j in range(n):
                if part[j] > F32(0):
                    row = np.int64(history[t * length + j])
                    move(u, acc_u, row, rate, g * part[j], square, h, 0, wide)
                    touch(dirty, row)
            for _ in range(k):
                for r in range(draws):
                    drawn[r] = draw(state, items, pool, accept, alias)
                    state += GOLDEN
                slot = hardest(drawn, 0, draws, h, u, wide)
                inside = slot == goal
                for j in range(n):
                    inside = inside or slot == history[t * length + j]
                if not inside:
                    _pair(h, square, u, acc_u, slot, rate, F32(0), grad, wide, dirty)
            square = inner(grad, 0, grad, 0, wide) / F32(d)
            unhide(
                goal, grad, F32(1), square, rate, v, acc_v, mix, attrs, slots, dirty, wide, share,
                0, h, 0,
            )  # fmt: skip
