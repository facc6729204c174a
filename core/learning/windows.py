"""Which rows a group of contexts meets, and with which weights (`core.learning.walk_pass`)."""

from core.kernels.lanes import (
    INLINED,
    add,
    both,
    differ,
    fill8,
    filli8,
    high,
    load8,
    loadi8,
    mul,
    pick,
    positive,
    store8,
    sub,
)
from core.learning.dense import F32
from core.learning.mixing import is_mine
from core.learning.scratch import GROUP

FAR = 1 << 20
"""Further than any walk is long."""


@INLINED
def order(begin, end, rows, s):  # type: ignore[no-untyped-def]
    """Put positions begin .. end into s.order, those of which something is owned first. Returns how
    many these are. (No branch depends on who owns what, here and below: it cannot be foretold.)"""
    mine = others = 0
    for p in range(begin, end):
        s.order[mine] = p
        mine += int(is_mine(rows, s.tokens[p]))
    if mine < end - begin:
        for p in range(begin, end):
            s.order[mine + others] = p
            others += 1 - int(is_mine(rows, s.tokens[p]))
    return mine


@INLINED
def take(first, n, s):  # type: ignore[no-untyped-def]
    """Make n positions of s.order the lanes of a group, and return the first and the last of them.
    Lanes without one are far from all."""
    nearest = farthest = s.order[first]
    for c in range(GROUP):
        at = s.order[first + c] if c < n else -FAR
        s.place[c] = F32(at)
        s.context[c] = s.tokens[at] if c < n else -1
        if c < n:
            nearest, farthest = min(nearest, at), max(farthest, at)
    return nearest, farthest


@INLINED
def weigh(low, above, window, stars, fade, block, heavy, spares, group, s):  # type: ignore[no-untyped-def]
    """The rows of a group, whose windows are positions low .. above, and their weights. Returns how
    many rows."""
    zeros, ones = fill8(F32(0)), fill8(F32(1))
    contexts, places = loadi8(s.context, 0), load8(s.place, 0)
    positives = zeros
    rows = 0
    for p in range(low, above):
        gap = sub(places, fill8(F32(p)))
        gap = high(gap, sub(zeros, gap))
        near = sub(ones, mul(fill8(fade), high(sub(gap, ones), zeros)))
        is_near = both(
            differ(contexts, filli8(s.tokens[p])), positive(sub(fill8(F32(window + 1)), gap))
        )
        if stars and p > 0:  # place 0 alone is near
            is_near = both(is_near, positive(sub(fill8(F32(0.5)), places)))
        near = pick(is_near, near, zeros)
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
        if spares:
            far = mul(far, load8(s.allowed, 8 * m))
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
def own_first(met, s):  # type: ignore[no-untyped-def]
    """Put the owned rows of a group before the others. Returns how many these are."""
    own = others = 0
    for j in range(met):
        s.by_owner[own] = j
        own += int(s.own[s.ids[j]])
    if own == met:
        return own
    for j in range(met):
        s.by_owner[own + others] = j
        others += 1 - int(s.own[s.ids[j]])
    # What is to be moved waits where scores and steps will be.
    for j in range(met):
        s.at[j] = s.ids[j]
        store8(s.score, 8 * j, load8(s.wanted, 8 * j))
        store8(s.step, 8 * j, load8(s.both_weights, 8 * j))
    for j in range(met):
        k = s.by_owner[j]
        s.ids[j] = s.at[k]
        store8(s.wanted, 8 * j, load8(s.score, 8 * k))
        store8(s.both_weights, 8 * j, load8(s.step, 8 * k))
    return own
