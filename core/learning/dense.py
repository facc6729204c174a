"""What kernels do with rows of float32 whose length is a multiple of 16, in registers.

A row is named by a pointer and the offset of its first element. `wide` is a tuple with one element
for each 16 dims: its length is part of its type, so that every loop over the dims has a trip count
that the compiler knows.
"""

import numpy as np

from core.kernels.lanes import (
    INLINED,
    add,
    div,
    fill16,
    fma,
    high,
    load16,
    low,
    mul,
    prefetch,
    spread16,
    store8,
    store16,
    total,
)
from core.kernels.tiles import fold_pairs, fold_quads, spread_pair, spread_quad

F32 = np.float32

CLIP = F32(12.0)
"""Scores are clipped to this before exp: past it the gradient is below float32's noise."""


@INLINED
def sigmoid16(score):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) as (1 + tanh(x / 2)) / 2, tanh by the rational minimax fit that Eigen uses.

    Off by at most 3e-7.
    """
    x = mul(low(high(score, fill16(-CLIP)), fill16(CLIP)), fill16(F32(0.5)))
    y = mul(x, x)
    p = fma(y, fill16(F32(-2.76076847742355e-16)), fill16(F32(2.00018790482477e-13)))
    p = fma(y, p, fill16(F32(-8.60467152213735e-11)))
    p = fma(y, p, fill16(F32(5.12229709037114e-08)))
    p = fma(y, p, fill16(F32(1.48572235717979e-05)))
    p = fma(y, p, fill16(F32(6.37261928875436e-04)))
    p = fma(y, p, fill16(F32(4.89352455891786e-03)))
    q = fma(y, fill16(F32(1.19825839466702e-06)), fill16(F32(1.18534705686654e-04)))
    q = fma(y, q, fill16(F32(2.26843463243900e-03)))
    q = fma(y, q, fill16(F32(4.89352518554385e-03)))
    return fma(mul(x, fill16(F32(0.5))), div(p, q), fill16(F32(0.5)))


@INLINED
def clear(out, b, wide):  # type: ignore[no-untyped-def]
    """out[b + i] = 0."""
    for i in range(len(wide)):
        store16(out, b + 16 * i, fill16(F32(0)))


@INLINED
def copy(x, a, out, b, wide):  # type: ignore[no-untyped-def]
    """out[b + i] = x[a + i]."""
    for i in range(len(wide)):
        store16(out, b + 16 * i, load16(x, a + 16 * i))


@INLINED
def inner(x, a, y, b, wide):  # type: ignore[no-untyped-def]
    """The inner product of two rows."""
    s = fill16(F32(0))
    for i in range(len(wide)):
        s = fma(load16(x, a + 16 * i), load16(y, b + 16 * i), s)
    return total(s)


@INLINED
def add_scaled(out, b, scale, x, a, wide):  # type: ignore[no-untyped-def]
    """out[b + i] += scale x[a + i]."""
    s = fill16(scale)
    for i in range(len(wide)):
        store16(out, b + 16 * i, fma(s, load16(x, a + 16 * i), load16(out, b + 16 * i)))


@INLINED
def scores(rows, at, n, turned, d, score):  # type: ignore[no-untyped-def]
    """score[8 j + c] = rows[at[j] :] . hidden vector c, for n rows, a multiple of 4, and 8 vectors.

    turned[8 i + 2 c + b] is dim i + b of hidden vector c, i even: two dims a turn, so that one load
    fills a register and no sum runs across one; even and odd dims are summed apart.
    """
    j = 0
    while n - j >= 8:
        r0, r1, r2, r3 = at[j], at[j + 1], at[j + 2], at[j + 3]
        r4, r5, r6, r7 = at[j + 4], at[j + 5], at[j + 6], at[j + 7]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = fill16(F32(0))
        for i in range(0, d, 2):
            x = load16(turned, 8 * i)
            s0 = fma(spread_pair(rows, r0 + i), x, s0)
            s1 = fma(spread_pair(rows, r1 + i), x, s1)
            s2 = fma(spread_pair(rows, r2 + i), x, s2)
            s3 = fma(spread_pair(rows, r3 + i), x, s3)
            s4 = fma(spread_pair(rows, r4 + i), x, s4)
            s5 = fma(spread_pair(rows, r5 + i), x, s5)
            s6 = fma(spread_pair(rows, r6 + i), x, s6)
            s7 = fma(spread_pair(rows, r7 + i), x, s7)
        o = 8 * j
        store8(score, o, fold_pairs(s0))
        store8(score, o + 8, fold_pairs(s1))
        store8(score, o + 16, fold_pairs(s2))
        store8(score, o + 24, fold_pairs(s3))
        store8(score, o + 32, fold_pairs(s4))
        store8(score, o + 40, fold_pairs(s5))
        store8(score, o + 48, fold_pairs(s6))
        store8(score, o + 56, fold_pairs(s7))
        j += 8
    if j < n:
        r0, r1, r2, r3 = at[j], at[j + 1], at[j + 2], at[j + 3]
        s0 = s1 = s2 = s3 = fill16(F32(0))
        for i in range(0, d, 2):
            x = load16(turned, 8 * i)
            s0 = fma(spread_pair(rows, r0 + i), x, s0)
            s1 = fma(spread_pair(rows, r1 + i), x, s1)
            s2 = fma(spread_pair(rows, r2 + i), x, s2)
            s3 = fma(spread_pair(rows, r3 + i), x, s3)
        o = 8 * j
        store8(score, o, fold_pairs(s0))
        store8(score, o + 8, fold_pairs(s1))
        store8(score, o + 16, fold_pairs(s2))
        store8(score, o + 24, fold_pairs(s3))


@INLINED
def scores4(rows, at, o, n, turned, d, score):  # type: ignore[no-untyped-def]
    """score[4 j + c] = rows[at[o + j] :] . hidden vector c, for n rows, a multiple of 4, and 4
    vectors.

    turned[16 i + 4 c + b] is dim 4 i + b of hidden vector c.
    """
    j = 0
    while n - j >= 8:
        r0, r1, r2, r3 = at[o + j], at[o + j + 1], at[o + j + 2], at[o + j + 3]
        r4, r5, r6, r7 = at[o + j + 4], at[o + j + 5], at[o + j + 6], at[o + j + 7]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = fill16(F32(0))
        for i in range(0, d, 4):
            x = load16(turned, 4 * i)
            s0, s1 = fma(spread_quad(rows, r0 + i), x, s0), fma(spread_quad(rows, r1 + i), x, s1)
            s2, s3 = fma(spread_quad(rows, r2 + i), x, s2), fma(spread_quad(rows, r3 + i), x, s3)
            s4, s5 = fma(spread_quad(rows, r4 + i), x, s4), fma(spread_quad(rows, r5 + i), x, s5)
            s6, s7 = fma(spread_quad(rows, r6 + i), x, s6), fma(spread_quad(rows, r7 + i), x, s7)
        store8(score, 4 * j, fold_quads(s0, s1))
        store8(score, 4 * j + 8, fold_quads(s2, s3))
        store8(score, 4 * j + 16, fold_quads(s4, s5))
        store8(score, 4 * j + 24, fold_quads(s6, s7))
        j += 8
    if j < n:
        r0, r1, r2, r3 = at[o + j], at[o + j + 1], at[o + j + 2], at[o + j + 3]
        s0 = s1 = s2 = s3 = fill16(F32(0))
        for i in range(0, d, 4):
            x = load16(turned, 4 * i)
            s0, s1 = fma(spread_quad(rows, r0 + i), x, s0), fma(spread_quad(rows, r1 + i), x, s1)
            s2, s3 = fma(spread_quad(rows, r2 + i), x, s2), fma(spread_quad(rows, r3 + i), x, s3)
        store8(score, 4 * j, fold_quads(s0, s1))
        store8(score, 4 * j + 8, fold_quads(s2, s3))


@INLINED
def gather4(rows, at, o, n, wide, g, grad):  # type: ignore[no-untyped-def]
    """grad[c d :] += sum over j of g[4 j + c] rows[at[o + j] :], for n rows and 4 vectors."""
    d = 16 * len(wide)
    for i in range(0, d, 16):
        a0, a1 = load16(grad, i), load16(grad, d + i)
        a2, a3 = load16(grad, 2 * d + i), load16(grad, 3 * d + i)
        for j in range(n):
            x = load16(rows, at[o + j] + i)
            a0 = fma(spread16(g, 4 * j), x, a0)
            a1 = fma(spread16(g, 4 * j + 1), x, a1)
            a2 = fma(spread16(g, 4 * j + 2), x, a2)
            a3 = fma(spread16(g, 4 * j + 3), x, a3)
        store16(grad, i, a0)
        store16(grad, d + i, a1)
        store16(grad, 2 * d + i, a2)
        store16(grad, 3 * d + i, a3)


@INLINED
def apply(rows, at, own, n, hidden, wide, g, step, grad, ask, k):  # type: ignore[no-untyped-def]
    """Both ways that 8 hidden vectors and n rows, of which the first `own` move, move each other,
    in one pass over the rows.

    grad[c d :] = sum over j of g[8 j + c] rows[at[j] :], hidden[c d :] being vector c, and
    rows[at[j] :] += sum over c of step[8 j + c] hidden[c d :] for j < own. Each turn of these asks
    for the next cache line of the rows whose addresses are in `ask`, beginning with line k of all;
    returns the k that it came to.
    """
    d, lines = 16 * len(wide), np.uint64(len(wide))
    for i in range(0, d, 16):
        h0, h1 = load16(hidden, i), load16(hidden, d + i)
        h2, h3 = load16(hidden, 2 * d + i), load16(hidden, 3 * d + i)
        h4, h5 = load16(hidden, 4 * d + i), load16(hidden, 5 * d + i)
        h6, h7 = load16(hidden, 6 * d + i), load16(hidden, 7 * d + i)
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = fill16(F32(0))
        for j in range(n):
            r, o = at[j] + i, 8 * j
            x = load16(rows, r)
            a0 = fma(spread16(g, o), x, a0)
            a1 = fma(spread16(g, o + 1), x, a1)
            a2 = fma(spread16(g, o + 2), x, a2)
            a3 = fma(spread16(g, o + 3), x, a3)
            a4 = fma(spread16(g, o + 4), x, a4)
            a5 = fma(spread16(g, o + 5), x, a5)
            a6 = fma(spread16(g, o + 6), x, a6)
            a7 = fma(spread16(g, o + 7), x, a7)
            if j < own:
                line = np.uint64(k + j)
                prefetch(ask[line // lines] + np.int64(line % lines * np.uint64(64)))
                y = mul(spread16(step, o), h0)
                x = fma(spread16(step, o + 1), h1, x)
                y = fma(spread16(step, o + 2), h2, y)
                x = fma(spread16(step, o + 3), h3, x)
                y = fma(spread16(step, o + 4), h4, y)
                x = fma(spread16(step, o + 5), h5, x)
                y = fma(spread16(step, o + 6), h6, y)
                x = fma(spread16(step, o + 7), h7, x)
                store16(rows, r, add(x, y))
        k += own
        store16(grad, i, a0)
        store16(grad, d + i, a1)
        store16(grad, 2 * d + i, a2)
        store16(grad, 3 * d + i, a3)
        store16(grad, 4 * d + i, a4)
        store16(grad, 5 * d + i, a5)
        store16(grad, 6 * d + i, a6)
        store16(grad, 7 * d + i, a7)
    return k
