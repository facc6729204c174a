"""The kernel of skip-gram over walks: small dense products on rows that come to the first cache.

Groups. The positions of a walk are taken as contexts, up to 8 at a time, one a lane. A group meets
the centres of all its windows and the negatives of its block: these are its rows. A context has for
each row a weight a, the sum over the places of the row's item in its window, and a weight b as its
negative; the gradient of the pair is a (1 - s) - b s = a - (a + b) s, s being the sigmoid of the
score.

Rows move in place, and an item is one row of a group, wherever it stands in the walk and if it is
drawn as a negative too. So scores are fresh after every group, no copies are to be added up, and
nothing depends on slot numbers. During each walk, memory is asked for what the next one will read.

Owners. Rows that are not owned are read and never moved. Of a block, the contexts of which
something is owned come first, and of a group the rows that are: those meet all lanes, and the
others the lanes that learn, which take products half as wide where these are four or fewer. Where
all is owned, a group is a stretch of the walk.

Adagrad. The accumulator of a row grows by the sum over the lanes of g^2 mean(h^2), which is known
before rows move; that of a hidden row by the mean square of its gradient. While a walk is learned,
its local accumulators have the floor in them (`core.learning.adagrad.Pace`).
"""

from typing import NamedTuple

import numpy as np

from core.ids.hashing import stream
from core.kernels.lanes import (
    INLINED,
    PASS,
    SOURCES,
    add,
    address,
    div,
    fill8,
    fill16,
    fma,
    load8,
    load16,
    mul,
    pointer,
    pointers,
    root,
    spread8,
    store8,
    store16,
    sub,
)
from core.kernels.scan import find
from core.kernels.tiles import fold_pairs, totals8, turn_pairs, turn_quads
from core.learning.adagrad import Pace
from core.learning.dense import (
    F32,
    add_scaled,
    apply,
    clear,
    gather4,
    scores,
    scores4,
    sigmoid16,
)
from core.learning.mixing import backpropagate, hidden_vector
from core.learning.negatives import draw_block, hardest, may_be
from core.learning.scratch import GROUP
from core.learning.windows import order, own_first, take, weigh

PURPOSES = 2, 1002
"""Purpose numbers of this module's random streams: of walks and of stars."""


class Rules(NamedTuple):
    """What `learn` goes by."""

    seed: int
    round_number: int
    window: int
    fade: np.float32
    """What a context loses of its weight with each step from the nearest on."""
    k: int
    """Negatives of a pair."""
    block: int
    """Contexts that share their negatives, and how many negatives these are."""
    draws: int
    """The hardest of so many is a negative."""
    pace: Pace
    stars: int
    """1 where the first position of a walk meets the others, and these do not meet each other."""


@INLINED
def _length(walks, at, longest):  # type: ignore[no-untyped-def]
    n = 0
    while n < longest and walks[at + n] >= 0:
        n += 1
    return n


@INLINED
def _prepare(walks, at, n, state, m, block, draws, pool, rows, s):  # type: ignore[no-untyped-def]
    """Draw a walk's negatives into s.drawn[m:], and list in s.ask the addresses of the rows that
    the walk will read. Returns how many cache lines these have."""
    d = 16 * len(rows.wide)
    for p in range(n):
        row = np.int64(walks[at + p]) * d
        s.ask[2 * p] = address(rows.v, row)
        s.ask[2 * p + 1] = address(rows.u, row)
    blocks = max(1, n // block)
    for b in range(blocks):
        low, high = at + n * b // blocks, at + n * (b + 1) // blocks
        state = draw_block(
            state, pool, walks, low, high, draws, s.drawn, m + b * block * draws, block
        )
    count = blocks * block * draws
    for j in range(count):
        s.ask[2 * n + j] = address(rows.u, np.int64(s.drawn[m + j]) * d)
    return (2 * n + count) * len(rows.wide)


@INLINED
def _turn(d, gain, s):  # type: ignore[no-untyped-def]
    """The hidden vectors as `scores` wants them, and their mean squares times `gain`, twice."""
    for i in range(0, d, 16):
        turn_pairs(s.h, i, d, s.turned, 8 * i)
    e0 = e1 = fill16(F32(0))
    for i in range(0, d, 4):
        x = load16(s.turned, 8 * i)
        e0 = fma(x, x, e0)
        x = load16(s.turned, 8 * i + 16)
        e1 = fma(x, x, e1)
    means = mul(fold_pairs(add(e0, e1)), fill8(gain / F32(d)))
    store8(s.square, 0, means)
    store8(s.square, 8, means)


@INLINED
def _gradients(n, full, step, s):  # type: ignore[no-untyped-def]
    """Gradients of all pairs in place of their scores, and the steps of the rows into s.step."""
    for j in range(n):
        s.accs[j] = s.acc[s.ids[j]]
    squares = load16(s.square, 0)
    for o in range(0, 8 * full, 16):
        g = sigmoid16(load16(s.score, o))
        g = sub(load16(s.wanted, o), mul(load16(s.both_weights, o), g))
        store16(s.score, o, g)
        store16(s.energy, o, mul(mul(g, g), squares))
    for j in range(0, n, 8):
        grown = add(load8(s.accs, j), totals8(s.energy, 8 * j))
        store8(s.accs, j, grown)
        store8(s.sums, j, div(fill8(step), root(grown)))
    for j in range(n):
        s.acc[s.ids[j]] = s.accs[j]
        store8(s.step, 8 * j, mul(load8(s.score, 8 * j), spread8(s.sums, j)))


@INLINED
def _gather(own, met, rows, s):  # type: ignore[no-untyped-def]
    """Add what rows own .. met, which do not move, have for the gradients of the first 4 lanes."""
    d, n = 16 * len(rows.wide), met - own
    for i in range(0, d, 16):
        turn_quads(s.h, i, d, s.turned, 4 * i)
    for j in range(met, own + (n + 3) // 4 * 4):
        s.at[j] = s.at[own]
    scores4(rows.u, s.at, own, (n + 3) // 4 * 4, s.turned, d, s.score)
    for o in range(0, 4 * n, 16):
        store16(s.score, o, sigmoid16(load16(s.score, o)))
    for j in range(n):
        for c in range(4):
            o = 8 * (own + j) + c
            s.step[4 * j + c] = s.wanted[o] - s.both_weights[o] * s.score[4 * j + c]
    gather4(rows.u, s.at, own, n, rows.wide, s.step, s.grad)


@INLINED
def _mean_squares(d, gain, s):  # type: ignore[no-untyped-def]
    """The mean square of each of a group's gradients, times `gain`."""
    for c in range(GROUP):
        squares = fill16(F32(0))
        for i in range(c * d, c * d + d, 16):
            x = load16(s.grad, i)
            squares = fma(x, x, squares)
        store8(s.energy, 8 * c, fold_pairs(squares))
    store8(s.square, 0, mul(totals8(s.energy, 0), fill8(gain / F32(d))))


@INLINED
def _settle(slot, q, rows, s):  # type: ignore[no-untyped-def]
    """Give a row what its accumulator has grown by, if it is owned, and mark it."""
    own = s.own[q]
    rows.acc_u[slot] += (s.acc[q] - s.was[q]) * F32(own)
    if rows.dirty[slot] < own:
        rows.dirty[slot] = own


@PASS
def learn(walks, first, pool, rows, rules, scratch, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Learn from walks int32 [n, length], numbered from `first` on."""
    amount, longest = walks.shape
    walks, pool, rows, s = pointer(walks), pointers(pool), pointers(rows), pointers(scratch)
    window, block, draws, wide = rules.window, rules.block, rules.draws, rows.wide
    pace = rules.pace
    d, parts = 16 * len(wide), 1 + rows.slots
    negatives = max(1, longest // block) * block * draws
    group, purpose = 0, PURPOSES[1] if rules.stars else PURPOSES[0]
    ahead = _length(walks, 0, longest) if amount else 0
    for w in range(-1, amount):
        length, ahead = ahead, 0
        asked = listed = 0
        if w + 1 < amount:
            ahead = _length(walks, (w + 1) * longest, longest)
            state = stream(rules.seed, rules.round_number, purpose, first + w + 1)
            listed = _prepare(
                walks, (w + 1) * longest, ahead, state, ((w + 1) & 1) * negatives, block, draws,
                pool, rows, s,
            )  # fmt: skip
        if w < 0 or length < 2:
            continue
        for p in range(length):
            s.tokens[p] = walks[w * longest + p]
        for p in range(length):
            s.local[p] = find(s.tokens, 0, length, s.tokens[p])
            if s.local[p] == p:
                s.acc[p] = s.was[p] = rows.acc_u[s.tokens[p]] + pace.floor
                s.home[p], s.own[p] = np.int64(s.tokens[p]) * d, rows.owned[s.tokens[p]]
        blocks, done = max(1, length // block), 0
        for b in range(blocks):
            upto = length * (b + 1) // blocks
            if draws > 1:
                clear(s.mean, 0, wide)
                for c in range(done, upto):
                    hidden_vector(rows, s.tokens[c], s.share, 0, s.one, 0)
                    add_scaled(s.mean, 0, F32(1), s.one, 0, wide)
            for j in range(block):
                m = (w & 1) * negatives + (b * block + j) * draws
                s.negative[j] = hardest(rows, s.drawn, m, draws, s.mean)
            for j in range(block):
                slot = s.negative[j]
                q = find(s.tokens, 0, length, slot)
                if q < 0:
                    q = longest + find(s.negative, 0, block, slot)
                    if q == longest + j:
                        s.acc[q] = s.was[q] = rows.acc_u[slot] + pace.floor
                        s.home[q], s.own[q] = np.int64(slot) * d, rows.owned[slot]
                s.negative_row[j] = q
            mine, amount_of = order(done, upto, rows, s), upto - done
            groups = (amount_of + GROUP - 1) // GROUP
            for now in range(groups):
                # Groups of equal size.
                c0, c1 = amount_of * now // groups, amount_of * (now + 1) // groups
                n, learn_here = c1 - c0, min(max(mine - c0, 0), c1 - c0)
                group += 1
                nearest, farthest = take(c0, n, s)
                low, above = max(0, nearest - window), min(length, farthest + window + 1)
                heavy = F32(rules.k) / F32(block)
                for m in range(block if pool.spares else 0):
                    for c in range(n):
                        s.allowed[8 * m + c] = may_be(s.negative[m], s.context[c], pool)
                met = weigh(
                    low,
                    above,
                    window,
                    rules.stars,
                    rules.fade,
                    block,
                    heavy,
                    pool.spares,
                    group,
                    s,
                )
                own = own_first(met, s)
                wide_for = met if learn_here > 4 else own
                if own == 0 and learn_here == 0:
                    continue
                for c in range(n):
                    hidden_vector(rows, s.context[c], s.share, c * parts, s.h, c * d)
                for c in range(n, GROUP):
                    clear(s.h, c * d, wide)
                for j in range(met):
                    s.at[j] = s.home[s.ids[j]]
                full = (wide_for + 3) // 4 * 4
                for j in range(met, full):
                    s.at[j] = s.at[0]
                    store8(s.wanted, 8 * j, fill8(F32(0)))
                    store8(s.both_weights, 8 * j, fill8(F32(0)))
                _turn(d, pace.gain, s)
                scores(rows.u, s.at, full, s.turned, d, s.score)
                _gradients(wide_for, full, pace.step, s)
                asked = apply(
                    rows.u, s.at, own, wide_for, s.h, wide, s.score, s.step, s.grad, s.ask, asked
                )
                asked = min(listed, asked)
                if learn_here > 0:
                    if wide_for < met:
                        _gather(own, met, rows, s)
                    _mean_squares(d, pace.gain, s)
                    for c in range(learn_here):
                        if s.positives[c] > F32(0):
                            backpropagate(
                                rows, s.context[c], s.grad, F32(1), s.square[c], pace,
                                s.share, c * parts, s.h, c * d,
                            )  # fmt: skip
            # A row has moved even where its accumulator is too large to grow by so little.
            for j in range(block):
                q = longest + j
                if upto > done and s.negative_row[j] == q:
                    _settle(s.negative[j], q, rows, s)
            done = upto
        for p in range(length):
            if s.local[p] == p:
                _settle(s.tokens[p], p, rows, s)
