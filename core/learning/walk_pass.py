"""The kernel of skip-gram over walks: small dense products on rows that come to the first cache.

Groups. The positions of a walk are taken as contexts, up to 8 at a time, one a lane. A group meets
the centres of all its windows and the negatives of its block: these are its rows. A context has for
each row a weight a, how often the row's item stands in its window, and a weight b as its negative;
the gradient of the pair is a (1 - s) - b s = a - (a + b) s, s being the sigmoid of the score.

Rows move in place, and an item is one row of a group, wherever it stands in the walk and if it is
drawn as a negative too. So scores are fresh after every group, no copies are to be added up, and
nothing depends on slot numbers. What the next walk will read is asked for during the one before it.

Adagrad. The accumulator of a row grows by the sum over the lanes of g^2 mean(h^2), which is known
before rows move; that of a hidden row by the mean square of its gradient.
"""

import numpy as np

from core.ids.hashing import GOLDEN, mix, stream
from core.learning.dense import F32, add_scaled, apply, clear, inner, scores, sigmoid16
from core.learning.lanes import (
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
    filli16,
    fma,
    fold_pairs,
    load8,
    load16,
    loadi8,
    loadi16,
    lowest,
    mul,
    pick,
    pointer,
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
from core.learning.mixing import hide, touch, unhide
from core.learning.scratch import GROUP

WALKS = 2
"""Purpose number of this module's random streams."""


@INLINED
def find(items, n, slot):  # type: ignore[no-untyped-def]
    """The first place of slot in items[:n], n if it is not there.

    Sixteen at a time; items[n:] up to the next sixteen hold no slot. Nothing in items may have been
    written just before: a wide load waits for narrow stores in flight.
    """
    wanted = filli16(slot)
    for p in range(0, n, 16):
        first = lowest(same(loadi16(items, p), wanted))
        if first < 16:
            return p + first
    return np.int64(n)


@INLINED
def draw(state, n, pool, accept, alias):  # type: ignore[no-untyped-def]
    """A negative from an alias table of n by one state: its high bits choose, its low 24 accept."""
    z = mix(state)
    i = np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
    if F32(np.int64(z & np.uint64(0xFFFFFF))) * F32(1.0 / 16777216.0) < accept[i]:
        return pool[i]
    return alias[i]


@INLINED
def hardest(drawn, m, draws, h, u, wide):  # type: ignore[no-untyped-def]
    """The best scored against h of drawn[m : m + draws]."""
    d = 16 * len(wide)
    slot = drawn[m]
    if draws > 1:
        best = inner(h, 0, u, np.int64(slot) * d, wide)
        for r in range(m + 1, m + draws):
            score = inner(h, 0, u, np.int64(drawn[r]) * d, wide)
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
def _prepare(  # type: ignore[no-untyped-def]
    walks, at, n, state, drawn, m, count, items, pool, accept, alias, v, u, wide, ask
):
    """Draw a walk's negatives into drawn[m : m + count], and list in `ask` the addresses of the
    rows that the walk will read. Returns how many cache lines these have."""
    d = 16 * len(wide)
    for p in range(n):
        row = np.int64(walks[at + p]) * d
        ask[2 * p] = address(v, row)
        ask[2 * p + 1] = address(u, row)
    for j in range(count):
        slot = draw(state, items, pool, accept, alias)
        state += GOLDEN
        drawn[m + j] = slot
        ask[2 * n + j] = address(u, np.int64(slot) * d)
    return (2 * n + count) * len(wide)


@INLINED
def _weigh(  # type: ignore[no-untyped-def]
    tokens, c0, n, low, high, window, local, block, place, negative, heavy, band, here, group,
    stamp, row_of, ids, wanted, both_weights, count,
):  # fmt: skip
    """The rows of a group and their weights. Returns how many rows."""
    zeros = fill8(F32(0))
    present = same(loadi8(here, 8 * n), filli8(np.int32(1)))
    contexts = pick(present, loadi8(tokens, c0), filli8(np.int32(-1)))
    positives = zeros
    rows = 0
    for p in range(low, high):
        near = load8(band, 8 * (p - c0 + window))
        near = pick(both(present, differ(contexts, filli8(tokens[p]))), near, zeros)
        positives = add(positives, near)
        q = local[p]
        if stamp[q] == group:
            j = row_of[q]
            near = add(near, load8(wanted, 8 * j))
        else:
            stamp[q], row_of[q], ids[rows] = group, rows, q
            j = rows
            rows += 1
        store8(wanted, 8 * j, near)
        store8(both_weights, 8 * j, near)
    store8(count, 0, positives)
    weight = mul(positives, fill8(heavy))
    for m in range(block):
        q = place[m]
        far = pick(differ(contexts, filli8(negative[m])), weight, zeros)
        if stamp[q] == group:
            j = row_of[q]
            # A positive of a context is not its negative.
            far = pick(positive(load8(wanted, 8 * j)), zeros, far)
            store8(both_weights, 8 * j, add(load8(both_weights, 8 * j), far))
        else:
            stamp[q], row_of[q], ids[rows] = group, rows, q
            store8(wanted, 8 * rows, zeros)
            store8(both_weights, 8 * rows, far)
            rows += 1
    return rows


@INLINED
def _turn(h, d, turned, square):  # type: ignore[no-untyped-def]
    """The hidden vectors as `scores` wants them, and their mean squares, twice over."""
    for i in range(0, d, 16):
        turn_pairs(h, i, d, turned, 8 * i)
    e0 = e1 = fill16(F32(0))
    for i in range(0, d, 4):
        x = load16(turned, 8 * i)
        e0 = fma(x, x, e0)
        x = load16(turned, 8 * i + 16)
        e1 = fma(x, x, e1)
    means = mul(fold_pairs(add(e0, e1)), fill8(F32(1) / F32(d)))
    store8(square, 0, means)
    store8(square, 8, means)


@INLINED
def _gradients(  # type: ignore[no-untyped-def]
    n, full, wanted, both_weights, square, rate, acc, ids, score, energy, sums, accs, step
):
    """Gradients of all pairs in place of their scores, and the steps of the rows into `step`."""
    for j in range(n):
        accs[j] = acc[ids[j]]
    squares = load16(square, 0)
    for o in range(0, 8 * full, 16):
        g = sigmoid16(load16(score, o))
        g = sub(load16(wanted, o), mul(load16(both_weights, o), g))
        store16(score, o, g)
        store16(energy, o, mul(mul(g, g), squares))
    for j in range(0, n, 8):
        grown = add(load8(accs, j), totals8(energy, 8 * j))
        store8(accs, j, grown)
        store8(sums, j, div(fill8(rate), root(grown)))
    for j in range(n):
        acc[ids[j]] = accs[j]
        store8(step, 8 * j, mul(load8(score, 8 * j), spread8(sums, j)))


@INLINED
def _mean_squares(grad, d, energy, out):  # type: ignore[no-untyped-def]
    """The mean square of each of a group's gradients."""
    for c in range(GROUP):
        squares = fill16(F32(0))
        for i in range(c * d, c * d + d, 16):
            x = load16(grad, i)
            squares = fma(x, x, squares)
        store8(energy, 8 * c, fold_pairs(squares))
    store8(out, 0, mul(totals8(energy, 0), fill8(F32(1) / F32(d))))


@PASS
def learn(  # type: ignore[no-untyped-def]
    walks, first, seed, round_number, window, k, block, draws, rate, pool, accept, alias,
    v, u, acc_v, acc_u, mix, attrs, dirty, wide, scratch, sources=SOURCES,
):  # fmt: skip
    """Learn from walks int32 [n, length], numbered from `first` on."""
    amount, longest = walks.shape
    items, d, slots = len(pool), 16 * len(wide), attrs.shape[1]
    parts = 1 + slots
    walks, pool, accept, alias = pointer(walks), pointer(pool), pointer(accept), pointer(alias)
    v, u, acc_v, acc_u = pointer(v), pointer(u), pointer(acc_v), pointer(acc_u)
    mix, attrs, dirty = pointer(mix), pointer(attrs), pointer(dirty)
    home = pointer(scratch.home)
    acc = pointer(scratch.acc)
    was = pointer(scratch.was)
    stamp = pointer(scratch.stamp)
    row_of = pointer(scratch.row_of)
    tokens = pointer(scratch.tokens)
    local = pointer(scratch.local)
    negative = pointer(scratch.negative)
    place = pointer(scratch.place)
    drawn = pointer(scratch.drawn)
    ask = pointer(scratch.ask)
    ids = pointer(scratch.ids)
    at = pointer(scratch.at)
    accs = pointer(scratch.accs)
    sums = pointer(scratch.sums)
    wanted = pointer(scratch.wanted)
    both_weights = pointer(scratch.both_weights)
    score = pointer(scratch.score)
    energy = pointer(scratch.energy)
    step = pointer(scratch.step)
    h = pointer(scratch.h)
    turned = pointer(scratch.turned)
    grad = pointer(scratch.grad)
    share = pointer(scratch.share)
    square = pointer(scratch.square)
    count = pointer(scratch.positives)
    mean = pointer(scratch.mean)
    one = pointer(scratch.one)
    here = pointer(scratch.here)
    band = pointer(scratch.band)
    negatives = max(1, longest // block) * block * draws
    group = 0
    ahead = _length(walks, 0, longest) if amount else 0
    for w in range(-1, amount):
        length, ahead = ahead, 0
        asked = listed = 0
        if w + 1 < amount:
            ahead = _length(walks, (w + 1) * longest, longest)
            listed = _prepare(
                walks, (w + 1) * longest, ahead, stream(seed, round_number, WALKS, first + w + 1),
                drawn, ((w + 1) & 1) * negatives, max(1, ahead // block) * block * draws, items,
                pool, accept, alias, v, u, wide, ask,
            )  # fmt: skip
        if w < 0 or length < 2:
            continue
        for p in range(length):
            tokens[p] = walks[w * longest + p]
        for p in range(length, length + 16):
            tokens[p] = -1
        for p in range(length):
            local[p] = find(tokens, length, tokens[p])
            if local[p] == p:
                acc[p] = was[p] = acc_u[tokens[p]]
                home[p] = np.int64(tokens[p]) * d
        blocks, groups = max(1, length // block), (length + GROUP - 1) // GROUP
        done = 0
        for b in range(blocks):
            # Groups of equal size, shared out among the blocks.
            upto = groups * (b + 1) // blocks
            if draws > 1:
                clear(mean, 0, wide)
                for c in range(length * done // groups, length * upto // groups):
                    hide(tokens[c], v, mix, attrs, slots, wide, share, 0, one, 0)
                    add_scaled(mean, 0, F32(1), one, 0, wide)
            for j in range(block):
                m = (w & 1) * negatives + (b * block + j) * draws
                negative[j] = hardest(drawn, m, draws, mean, u, wide)
            for j in range(block):
                slot = negative[j]
                q = find(tokens, length, slot)
                if q == length:
                    q = longest + find(negative, block, slot)
                    if q == longest + j:
                        acc[q] = was[q] = acc_u[slot]
                        home[q] = np.int64(slot) * d
                place[j] = q
            for now in range(done, upto):
                c0, c1 = length * now // groups, length * (now + 1) // groups
                n = c1 - c0
                group += 1
                for c in range(n):
                    hide(tokens[c0 + c], v, mix, attrs, slots, wide, share, c * parts, h, c * d)
                for c in range(n, GROUP):
                    clear(h, c * d, wide)
                rows = _weigh(
                    tokens, c0, n, max(0, c0 - window), min(length, c1 + window), window, local,
                    block, place, negative, F32(k) / F32(block), band, here, group, stamp, row_of,
                    ids, wanted, both_weights, count,
                )  # fmt: skip
                full = (rows + 3) // 4 * 4
                for j in range(rows):
                    at[j] = home[ids[j]]
                for j in range(rows, full):
                    at[j] = at[0]
                    store8(wanted, 8 * j, fill8(F32(0)))
                    store8(both_weights, 8 * j, fill8(F32(0)))
                _turn(h, d, turned, square)
                scores(u, at, full, turned, d, score)
                _gradients(
                    rows, full, wanted, both_weights, square, rate, acc, ids, score, energy, sums,
                    accs, step,
                )  # fmt: skip
                asked = min(listed, apply(u, at, rows, h, wide, score, step, grad, ask, asked))
                _mean_squares(grad, d, energy, square)
                for c in range(n):
                    if count[c] > F32(0):
                        unhide(
                            tokens[c0 + c], grad, F32(1), square[c], rate, v, acc_v, mix, attrs,
                            slots, dirty, wide, share, c * parts, h, c * d,
                        )  # fmt: skip
            # A row has moved even where its accumulator is too large to grow by so little.
            for j in range(block):
                q = longest + j
                if upto > done and place[j] == q:
                    acc_u[negative[j]] += acc[q] - was[q]
                    touch(dirty, negative[j])
            done = upto
        for p in range(length):
            if local[p] == p:
                acc_u[tokens[p]] += acc[p] - was[p]
                touch(dirty, tokens[p])
