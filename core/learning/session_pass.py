"""The kernel of the session passes: the item that came next comes to score best, there and back.

Objective. What ranks b after a is E(b) = V^a.V^b + V^a.U^b + U^a.V^b of unit rows (`core.quality`),
V being hidden vectors. So that is what is learned: the cross entropy of targets y and the softmax p
of `sharpness` E, with gradients through the norms. A transition is learned three times: from its
last item and from one of those before, y being the next one; and from the next one, y being the
items of the session, by decay.

Neighbours. Of its target an item gives FRESH to this, an older one less of it by decay, and the
rest to its neighbours in the graph, by the weights of their arcs: what is known stays known, and
the items that walks bring as near as a neighbour, though they are two steps away, come to stand
behind it.

Candidates. The softmax is over the target, up to NEIGHBOURS successive neighbours and k negatives,
drawn uniformly,
and the score of each has the log of how many it stands for added (Bengio and Senecal, "Adaptive
importance sampling to accelerate training of a neural probabilistic language model", IEEE Trans.
Neural Networks 19, 2008). The scale of E is bounded, hence `sharpness`.

Owners. Rows that are not owned do not move. Where a share f of all is owned, only what has an owned
row among the item and its targets is looked at: a part P = 1 - (1 - f)^(1 + targets) of it, as who
owns what has to do with nothing. So the other candidates, which are met as seldom, move by 1 / P as
much.
"""

from typing import NamedTuple

import numpy as np

from core.graph.slabs import UNIT
from core.ids.hashing import GOLDEN, mix, stream
from core.kernels.lanes import (
    INLINED,
    PASS,
    SOURCES,
    add,
    address,
    fill16,
    fma,
    load16,
    mul,
    pointer,
    pointers,
    prefetch,
    store8,
    store16,
    sub,
)
from core.kernels.tiles import fold_pairs, totals8
from core.learning.adagrad import Pace
from core.learning.dense import F32, add_scaled, clear, inner
from core.learning.mixing import backpropagate, hidden_vector, is_mine, mark, move

SESSIONS = 3
"""First purpose number of this module's random streams, one for each pass."""
NEIGHBOURS = 8
"""Neighbours of an item that are candidates at most; others have their turn another time."""
FRESH = F32(0.7)
"""The share of what came next in the target, beside neighbours."""
BLOCK = 4
"""Successive transitions that have the same negatives. All passes of these come before the next
ones, so that their rows are still in the cache."""
LEAST = F32(0.01)
"""Candidates whose p is so near y do not move."""


class Rules(NamedTuple):
    """What `learn` goes by."""

    seed: int
    round_number: int
    passes: int
    decay: np.float32
    """The weight of an item of a session, by that of the one after it."""
    k: int
    """Negatives of a transition."""
    sharpness: np.float32
    share: np.float32
    """Of all rows: so many are owned. With 1 everything is looked at."""
    pace: Pace


@INLINED
def _below(state, n):  # type: ignore[no-untyped-def]
    """A random number below n, or 0."""
    return np.int64(((mix(state) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@INLINED
def _ask_for(rows, slot):  # type: ignore[no-untyped-def]
    row = np.int64(slot) * 16 * len(rows.wide)
    for line in range(len(rows.wide)):
        prefetch(address(rows.v, row + 16 * line))
        prefetch(address(rows.u, row + 16 * line))


@INLINED
def _put(s, m, slot, y, offset):  # type: ignore[no-untyped-def]
    s.slot[m], s.y[m], s.offset[m] = slot, y, offset
    return m + 1


@INLINED
def _place(s, m, slot):  # type: ignore[no-untyped-def]
    """Where `slot` is among the first m candidates, or m."""
    q = 0
    while q < m and s.slot[q] != slot:
        q += 1
    return q


@INLINED
def _with_others(item, m, amount, fresh, state, k, graph, pool, rows, s):  # type: ignore[no-untyped-def]
    """Put neighbours of `item` and the negatives after the m candidates that came next, whose y
    has the sum `amount`, and will have `fresh`. Returns how many candidates there are."""
    goals, degree = m, int(graph.degree[item])
    taken, base = min(degree, NEIGHBOURS), int(graph.start[item]) * UNIT
    at = _below(state, degree) if taken < degree else 0
    weight = F32(0)
    for j in range(taken):
        i = base + (at + j if at + j < degree else at + j - degree)
        _ask_for(rows, graph.nbr[i])
        weight += graph.wgt[i]
    if not weight > F32(0):
        fresh = F32(1)
    for q in range(goals):
        s.y[q] *= fresh / amount
    each = np.log(F32(degree) / F32(taken)) if taken < degree else F32(0)
    for j in range(taken):
        i = base + (at + j if at + j < degree else at + j - degree)
        y = (F32(1) - fresh) * graph.wgt[i] / weight if weight > F32(0) else F32(0)
        q = _place(s, goals, graph.nbr[i])
        if q < goals:
            s.y[q] += y
        else:
            m = _put(s, m, graph.nbr[i], y, each)
    each = np.log(max(F32(pool.n) / F32(max(k, 1)), F32(1)))
    for j in range(k):
        slot = s.drawn[j]
        if slot != item and _place(s, goals, slot) == goals:
            m = _put(s, m, slot, F32(0), each)
    return m


@INLINED
def _over_root(square):  # type: ignore[no-untyped-def]
    return F32(1) / np.sqrt(square) if square > F32(1e-24) else F32(0)


@INLINED
def _score(n, sharpness, rows, s):  # type: ignore[no-untyped-def]
    """The hidden vectors of n candidates, 1 / the norms of their rows into s.over, the parts
    (V^a + U^a).V^b and V^a.U^b of their scores into s.dots, and e^score into s.p, whose sum is
    returned."""
    wide, parts = rows.wide, 1 + rows.slots
    d = 16 * len(wide)
    for i in range(n):
        h, r = i * d, np.int64(s.slot[i]) * d
        hidden_vector(rows, s.slot[i], s.share, i * parts, s.h, h)
        vv = uu = qv = vu = fill16(F32(0))
        for c in range(0, d, 16):
            v, u = load16(s.h, h + c), load16(rows.u, r + c)
            vv, uu = fma(v, v, vv), fma(u, u, uu)
            qv, vu = fma(load16(s.sum, c), v, qv), fma(load16(s.unit, c), u, vu)
        o = i % 2 * 32
        store8(s.halves, o, fold_pairs(vv))
        store8(s.halves, o + 8, fold_pairs(uu))
        store8(s.halves, o + 16, fold_pairs(qv))
        store8(s.halves, o + 24, fold_pairs(vu))
        if i % 2 == 1 or i == n - 1:
            store8(s.dots, (i - i % 2) * 4, totals8(s.halves, 0))
    highest = F32(-1e30)
    for i in range(n):
        over_v, over_u = _over_root(s.dots[4 * i]), _over_root(s.dots[4 * i + 1])
        by_v, by_u = s.dots[4 * i + 2] * over_v, s.dots[4 * i + 3] * over_u
        s.dots[4 * i], s.dots[4 * i + 1] = over_v, over_u
        s.dots[4 * i + 2], s.dots[4 * i + 3] = by_v, by_u
        s.p[i] = sharpness * (by_v + by_u) + s.offset[i]
        highest = max(highest, s.p[i])
    amount = F32(0)
    for i in range(n):
        s.p[i] = np.exp(s.p[i] - highest)
        amount += s.p[i]
    return amount


@INLINED
def _is_skipped(item, targets, rows, rules, s):  # type: ignore[no-untyped-def]
    """Whether others look at this item and its targets, which are the first candidates."""
    mine = rules.share >= F32(1) or is_mine(rows, item)
    for i in range(targets):
        mine = mine or is_mine(rows, s.slot[i])
    return not mine


@INLINED
def _fit(item, targets, n, rows, rules, s):  # type: ignore[no-untyped-def]
    """Move an item and its n candidates, of which the first are targets, along the gradient, as far
    as they are owned."""
    wide, parts, pace = rows.wide, 1 + rows.slots, rules.pace
    whole, lift = rules.share >= F32(1), F32(1)
    mine = whole or is_mine(rows, item)
    if not whole:
        lift /= F32(1) - (F32(1) - rules.share) ** (1 + targets)
    d = 16 * len(wide)
    own = np.int64(item) * d
    hidden_vector(rows, item, s.own_share, 0, s.own, 0)
    over_v = _over_root(inner(s.own, 0, s.own, 0, wide))
    over_u = _over_root(inner(rows.u, own, rows.u, own, wide))
    if over_v == F32(0):
        return
    clear(s.unit, 0, wide)
    clear(s.sum, 0, wide)
    clear(s.grad_v, 0, wide)
    clear(s.grad_u, 0, wide)
    add_scaled(s.unit, 0, over_v, s.own, 0, wide)
    add_scaled(s.sum, 0, over_v, s.own, 0, wide)
    add_scaled(s.sum, 0, over_u, rows.u, own, wide)
    amount = _score(n, rules.sharpness, rows, s)
    square_v, square_u = inner(s.sum, 0, s.sum, 0, wide), inner(s.unit, 0, s.unit, 0, wide)
    mean = pace.gain / F32(d)
    for i in range(n):
        g = s.y[i] - s.p[i] / amount
        if abs(g) < LEAST:
            continue
        own_u = own_v = True
        if not whole:
            own_u, own_v = rows.owned[s.slot[i]] != 0, is_mine(rows, s.slot[i])
            if not (mine or own_v):
                continue
        g *= rules.sharpness
        scale = lift if i >= targets else F32(1)
        slot, h, r = s.slot[i], i * d, np.int64(s.slot[i]) * d
        by_v, by_u = s.dots[4 * i + 2], s.dots[4 * i + 3]
        g_v, g_u = g * s.dots[4 * i], g * s.dots[4 * i + 1]
        # d V^.x / d V = (x - (V^.x) V^) / |V|
        to_v, to_u = fill16(g_v), fill16(g_u)
        back_v = fill16(g_v * by_v * s.dots[4 * i])
        back_u = fill16(g_u * by_u * s.dots[4 * i + 1])
        for c in range(0, d, 16):
            v, u = load16(s.h, h + c), load16(rows.u, r + c)
            along = mul(to_v, v)
            store16(s.grad_u, c, add(load16(s.grad_u, c), along))
            store16(s.grad_v, c, add(load16(s.grad_v, c), fma(to_u, u, along)))
            store16(s.moved_v, h + c, sub(mul(to_v, load16(s.sum, c)), mul(back_v, v)))
            store16(s.moved_u, c, sub(mul(to_u, load16(s.unit, c)), mul(back_u, u)))
        if own_u:
            square = g_u * g_u * max(square_u - by_u * by_u, F32(0)) * mean
            move(rows.u, rows.acc_u, np.int64(slot), pace, scale, square, s.moved_u, 0, wide)
            mark(rows.dirty, slot)
        if own_v:
            square = g_v * g_v * max(square_v - by_v * by_v, F32(0)) * mean
            backpropagate(
                rows, slot, s.moved_v, scale, square, pace, s.share, i * parts, s.h, h
            )  # fmt: skip
    if not mine:
        return
    along = inner(s.grad_v, 0, s.unit, 0, wide)
    add_scaled(s.grad_v, 0, -along, s.unit, 0, wide)
    square = inner(s.grad_v, 0, s.grad_v, 0, wide) * mean
    backpropagate(rows, item, s.grad_v, over_v, square, pace, s.own_share, 0, s.own, 0)
    if not whole and rows.owned[item] == 0:
        return
    if over_u > F32(0):
        along = inner(s.grad_u, 0, rows.u, own, wide) * over_u * over_u
        add_scaled(s.grad_u, 0, -along, rows.u, own, wide)
        square = inner(s.grad_u, 0, s.grad_u, 0, wide) * mean
        move(rows.u, rows.acc_u, np.int64(item), pace, over_u, square, s.grad_u, 0, wide)
    mark(rows.dirty, item)


@PASS
def learn(history, target, graph, pool, rows, rules, scratch, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Learn from sessions int32 [n, length], newest item first, and targets int32 [n]."""
    amount, length = history.shape
    history, target, graph = pointer(history), pointer(target), pointers(graph)
    pool, rows, s = pointers(pool), pointers(rows), pointers(scratch)
    after_draws = GOLDEN * np.uint64(rules.k)
    for first in range(0, amount, BLOCK):
        for turn in range(rules.passes):
            state = stream(rules.seed, rules.round_number, SESSIONS + turn, first)
            for j in range(rules.k):
                s.drawn[j] = pool.items[_below(state, pool.n)]
                state += GOLDEN
                _ask_for(rows, s.drawn[j])
            for t in range(first, min(first + BLOCK, amount)):
                goal, last = target[t], history[t * length]
                if goal < 0 or last < 0:
                    continue
                state = stream(rules.seed, rules.round_number, SESSIONS + turn, t) + after_draws
                have = 1
                while have < length and history[t * length + have] >= 0:
                    have += 1
                for which in range(min(have, 2)):
                    # The last item, and one of the older ones.
                    state += GOLDEN
                    back = which * (1 + _below(state, have - 1))
                    slot = history[t * length + back]
                    if slot != goal:
                        _put(s, 0, goal, F32(1), F32(0))
                        if not _is_skipped(slot, 1, rows, rules, s):
                            n = _with_others(
                                slot, 1, F32(1), FRESH * rules.decay**back, state + GOLDEN, rules.k,
                                graph, pool, rows, s,
                            )  # fmt: skip
                            _fit(slot, 1, n, rows, rules, s)
                        state += GOLDEN
                n, sum_of, weight = 0, F32(0), F32(1)
                for j in range(have):
                    slot = history[t * length + j]
                    if slot != goal:
                        q = _place(s, n, slot)
                        if q == n:
                            n = _put(s, n, slot, F32(0), F32(0))
                        s.y[q] += weight
                        sum_of += weight
                    weight *= rules.decay
                targets = n
                if n > 0 and not _is_skipped(goal, n, rows, rules, s):
                    state += GOLDEN
                    n = _with_others(goal, n, sum_of, FRESH, state, rules.k, graph, pool, rows, s)
                    _fit(goal, targets, n, rows, rules, s)
