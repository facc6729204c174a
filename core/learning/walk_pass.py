"""The kernel of skip-gram over walks: small dense products on rows that come to the first cache.

Groups. The positions of a walk are taken as contexts, up to 8 at a time, one a lane. A group meets
the centres of all its windows and the negatives of its block: these are its rows. A context has for
each row a weight a, the sum over the places of the row's item in its window, and a weight b as its
negative; the gradient of the pair is a (1 - s) - b s = a - (a + b) s, s being the sigmoid of the
score.

Rows move in place, and an item is one row of a group, wherever it stands in the walk and if it is
drawn as a negative too. So scores are fresh after every group, no copies are to be added up, and
nothing depends on slot numbers. During each walk, memory is asked for what the next one will read.

Adagrad. The accumulator of a row grows by the sum over the lanes of g^2 mean(h^2), which is known
before rows move; that of a hidden row by the mean square of its gradient. While a walk is learned,
its local accumulators have the floor in them (`core.learning.adagrad.Pace`).
"""

from typing import NamedTuple

import numpy as np

from core.ids.hashing import GOLDEN, mix, stream
from core.kernels.lanes import (
    INLINED,
    PASS,
    SOURCES,
    add,
    address,
    both,
    differ,
    div,
    fill8,
    fill16,
    filli8,
    fma,
    fold_pairs,
    load8,
    load16,
    loadi8,
    mul,
    pick,
    pointer,
    pointers,
    positive,
    root,
    same,
    spread8,
    store8,
    store16,
    sub,
    totals8,
    turn_pairs,
)
from core.kernels.scan import find
from core.learning.adagrad import Pace
from core.learning.dense import F32, add_scaled, apply, clear, inner, scores, sigmoid16
from core.learning.mixing import backpropagate, hidden_vector, mark
from core.learning.scratch import GROUP

WALKS = 2
"""Purpose number of this module's random streams."""


class Rules(NamedTuple):
    """What `learn` goes by."""

    seed: int
    round_number: int
    window: int
    k: int
    """Negatives of a pair."""
    block: int
    """Contexts that share their negatives, and how many negatives these are."""
    draws: int
    """The hardest of so many is a negative."""
    pace: Pace


@INLINED
def draw(state, pool):  # type: ignore[no-untyped-def]
    """A negative of the pool by one state: its high bits choose, its low 24 accept."""
    z = mix(state)
    i = np.int64(((z >> np.uint64(32)) * np.uint64(pool.n)) >> np.uint64(32))
    if F32(np.int64(z & np.uint64(0xFFFFFF))) * F32(1.0 / 16777216.0) < pool.accept[i]:
        return pool.items[i]
    return pool.alias[i]


@INLINED
def hardest(rows, drawn, m, draws, h):  # type: ignore[no-untyped-def]
    """The best scored against h of drawn[m : m + draws]."""
    d = 16 * len(rows.wide)
    slot = drawn[m]
    if draws > 1:
        best = inner(h, 0, rows.u, np.int64(slot) * d, rows.wide)
        for r in range(m + 1, m + draws):
            score = inner(h, 0, rows.u, np.int64(drawn[r]) * d, rows.wide)
            if score > best:
                slot, best = drawn[r], score
    return slot


@INLINED
def _length(walks, at, longest):  # type: ignore[no-untyped-def]
    n = 0
    while n < longest and walks[at + n] >= 0:
        n += 1
    return n


@INLINED
def _prepare(walks, at, n, state, m, count, pool, rows, s):  # type: ignore[no-untyped-def]
    """Draw a walk's negatives into s.drawn[m : m + count], and list in s.ask the addresses of the
    rows that the walk will read. Returns how many cache lines these have."""
    d = 16 * len(rows.wide)
    for p in range(n):
        row = np.int64(walks[at + p]) * d
        s.ask[2 * p] = address(rows.v, row)
        s.ask[2 * p + 1] = address(rows.u, row)
    for j in range(count):
        slot = draw(state, pool)
        state += GOLDEN
        s.drawn[m + j] = slot
        s.ask[2 * n + j] = address(rows.u, np.int64(slot) * d)
    return (2 * n + count) * len(rows.wide)


@INLINED
def _weigh(c0, n, low, high, window, block, heavy, group, s):  # type: ignore[no-untyped-def]
    """The rows of a group and their weights. Returns how many rows."""
    zeros = fill8(F32(0))
    present = same(loadi8(s.here, 8 * n), filli8(np.int32(1)))
    contexts = pick(present, loadi8(s.tokens, c0), filli8(np.int32(-1)))
    positives = zeros
    rows = 0
    for p in range(low, high):
        near = load8(s.band, 8 * (p - c0 + window))
        near = pick(both(present, differ(contexts, filli8(s.tokens[p]))), near, zeros)
        positives = add(positives, near)
        q = s.local[p]
        if s.stamp[q] == group:
            j = s.row_of[q]
            near = add(near, load8(s.wanted, 8 * j))
        else:
            s.stamp[q], s.row_of[q], s.ids[rows] = group, rows, q
            j = rows
            rows += 1
        store8(s.wanted, 8 * j, near)
        store8(s.both_weights, 8 * j, near)
    store8(s.positives, 0, positives)
    weight = mul(positives, fill8(heavy))
    for m in range(block):
        q = s.negative_row[m]
        far = pick(differ(contexts, filli8(s.negative[m])), weight, zeros)
        if s.stamp[q] == group:
            j = s.row_of[q]
            # A positive of a context is not its negative.
            far = pick(positive(load8(s.wanted, 8 * j)), zeros, far)
            store8(s.both_weights, 8 * j, add(load8(s.both_weights, 8 * j), far))
        else:
            s.stamp[q], s.row_of[q], s.ids[rows] = group, rows, q
            store8(s.wanted, 8 * rows, zeros)
            store8(s.both_weights, 8 * rows, far)
            rows += 1
    return rows


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
def _mean_squares(d, gain, s):  # type: ignore[no-untyped-def]
    """The mean square of each of a group's gradients, times `gain`."""
    for c in range(GROUP):
        squares = fill16(F32(0))
        for i in range(c * d, c * d + d, 16):
            x = load16(s.grad, i)
            squares = fma(x, x, squares)
        store8(s.energy, 8 * c, fold_pairs(squares))
    store8(s.square, 0, mul(totals8(s.energy, 0), fill8(gain / F32(d))))


@PASS
def learn(walks, first, pool, rows, rules, scratch, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Learn from walks int32 [n, length], numbered from `first` on."""
    amount, longest = walks.shape
    walks, pool, rows, s = pointer(walks), pointers(pool), pointers(rows), pointers(scratch)
    window, block, draws, wide = rules.window, rules.block, rules.draws, rows.wide
    pace = rules.pace
    d, parts = 16 * len(wide), 1 + rows.slots
    negatives = max(1, longest // block) * block * draws
    group = 0
    ahead = _length(walks, 0, longest) if amount else 0
    for w in range(-1, amount):
        length, ahead = ahead, 0
        asked = listed = 0
        if w + 1 < amount:
            ahead = _length(walks, (w + 1) * longest, longest)
            state = stream(rules.seed, rules.round_number, WALKS, first + w + 1)
            count = max(1, ahead // block) * block * draws
            listed = _prepare(
                walks, (w + 1) * longest, ahead, state, ((w + 1) & 1) * negatives, count, pool,
                rows, s,
            )  # fmt: skip
        if w < 0 or length < 2:
            continue
        for p in range(length):
            s.tokens[p] = walks[w * longest + p]
        for p in range(length, length + 16):
            s.tokens[p] = -1
        for p in range(length):
            s.local[p] = find(s.tokens, 0, length, s.tokens[p])
            if s.local[p] == p:
                s.acc[p] = s.was[p] = rows.acc_u[s.tokens[p]] + pace.floor
                s.home[p] = np.int64(s.tokens[p]) * d
        blocks, groups = max(1, length // block), (length + GROUP - 1) // GROUP
        done = 0
        for b in range(blocks):
            # Groups of equal size, shared out among the blocks.
            upto = groups * (b + 1) // blocks
            if draws > 1:
                clear(s.mean, 0, wide)
                for c in range(length * done // groups, length * upto // groups):
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
                        s.home[q] = np.int64(slot) * d
                s.negative_row[j] = q
            for now in range(done, upto):
                c0, c1 = length * now // groups, length * (now + 1) // groups
                n = c1 - c0
                group += 1
                for c in range(n):
                    hidden_vector(rows, s.tokens[c0 + c], s.share, c * parts, s.h, c * d)
                for c in range(n, GROUP):
                    clear(s.h, c * d, wide)
                met = _weigh(
                    c0, n, max(0, c0 - window), min(length, c1 + window), window, block,
                    F32(rules.k) / F32(block), group, s,
                )  # fmt: skip
                full = (met + 3) // 4 * 4
                for j in range(met):
                    s.at[j] = s.home[s.ids[j]]
                for j in range(met, full):
                    s.at[j] = s.at[0]
                    store8(s.wanted, 8 * j, fill8(F32(0)))
                    store8(s.both_weights, 8 * j, fill8(F32(0)))
                _turn(d, pace.gain, s)
                scores(rows.u, s.at, full, s.turned, d, s.score)
                _gradients(met, full, pace.step, s)
                asked = apply(rows.u, s.at, met, s.h, wide, s.score, s.step, s.grad, s.ask, asked)
                asked = min(listed, asked)
                _mean_squares(d, pace.gain, s)
                for c in range(n):
                    if s.positives[c] > F32(0):
                        backpropagate(
                            rows, s.tokens[c0 + c], s.grad, F32(1), s.square[c], pace,
                            s.share, c * parts, s.h, c * d,
                        )  # fmt: skip
            # A row has moved even where its accumulator is too large to grow by so little.
            for j in range(block):
                q = longest + j
                if upto > done and s.negative_row[j] == q:
                    rows.acc_u[s.negative[j]] += s.acc[q] - s.was[q]
                    mark(rows.dirty, s.negative[j])
            done = upto
        for p in range(length):
            if s.local[p] == p:
                rows.acc_u[s.tokens[p]] += s.acc[p] - s.was[p]
                mark(rows.dirty, s.tokens[p])
