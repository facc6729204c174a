"""Skip-gram with negative sampling, incremental, with shared negatives and row-wise Adagrad.

Objective (Mikolov et al., "Distributed representations of words and phrases and their
compositionality", NIPS 2013): for a centre o and an item c of its window,
log s(h_c . u_o) + k E_n log s(-h_c . u_n). Here h is the item's hidden vector: its row of V, or,
with attributes (EGES: Wang et al., "Billion-scale commodity embedding", KDD 2018), the mean of its
own row and its attribute rows with weights softmax(a).

A block of consecutive centres shares its negatives, as many as `block`. Each context meets every
negative of the block once, with weight positives * k / block, which is the plain objective's
weight in expectation. Adagrad keeps one accumulator a row, of the mean squared gradient (Duchi,
Hazan and Singer, JMLR 12, 2011, in its row-wise form).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.hashing import GOLDEN, below, stream, unit

LEARN, SESSIONS = 2, 3
"""Purpose numbers of this module's random streams."""

CLIP = np.float32(12.0)
"""Scores are clipped to this before exp: past it the gradient is below float32's noise."""


KERNEL = nb.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
INLINED = nb.njit(inline="always")
"""Part of a kernel. It must not be a function of its own: of a function's copies in several kernels
the one that was loaded first serves all, and under fastmath copies differ in the last bit, so that
a process that compiles would not repeat one that finds its kernels in the cache."""


@dataclass
class Rows:
    """The learned rows, by slot, n of them.

    v, u float32 [n, d] are item and context vectors; acc_v, acc_u float32 [n] their accumulators;
    mix float32 [n, 1 + S] the attribute weights a (before softmax), attrs int32 [n, S] the slots of
    an item's attributes, -1 where it has fewer; dirty bool [n] marks rows changed since the last
    commit.
    """

    v: NDArray[np.float32]
    u: NDArray[np.float32]
    acc_v: NDArray[np.float32]
    acc_u: NDArray[np.float32]
    mix: NDArray[np.float32]
    attrs: NDArray[np.int32]
    dirty: NDArray[np.bool_]


@INLINED
def _dot(h, table, row):  # type: ignore[no-untyped-def]
    """h . table[row], both of length d."""
    s = np.float32(0.0)
    for i in range(h.shape[0]):
        s += h[i] * table[row, i]
    return s


@INLINED
def _square(h):  # type: ignore[no-untyped-def]
    """The mean square of h."""
    s = np.float32(0.0)
    for i in range(h.shape[0]):
        s += h[i] * h[i]
    return s / np.float32(h.shape[0])


@INLINED
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) as (1 + tanh(x / 2)) / 2, tanh by the rational minimax fit that Eigen uses.

    Off by at most 3e-7; it has no call and no branch, so that a loop over it is vectorised.
    """
    x = np.float32(0.5) * min(max(x, -CLIP), CLIP)
    y = x * x
    p = y * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = y * p + np.float32(-8.60467152213735e-11)
    p = y * p + np.float32(5.12229709037114e-08)
    p = y * p + np.float32(1.48572235717979e-05)
    p = y * p + np.float32(6.37261928875436e-04)
    p = y * p + np.float32(4.89352455891786e-03)
    q = y * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = y * q + np.float32(2.26843463243900e-03)
    q = y * q + np.float32(4.89352518554385e-03)
    return np.float32(0.5) + np.float32(0.5) * x * p / q


@INLINED
def _shares(slot, mix, attrs, shares):  # type: ignore[no-untyped-def]
    """softmax(a) over the item's own row and the attributes that it has, into shares [1 + S].

    Without attributes the own row's share is 1 to the bit.
    """
    alone = True
    for s in range(1, shares.shape[0]):
        shares[s] = 0.0
        alone = alone and attrs[slot, s - 1] < 0
    if alone:
        shares[0] = 1.0
        return
    total = np.float32(0.0)
    for s in range(shares.shape[0]):
        if s == 0 or attrs[slot, s - 1] >= 0:
            shares[s] = np.exp(min(max(mix[slot, s], -CLIP), CLIP))
            total += shares[s]
    for s in range(shares.shape[0]):
        shares[s] /= total


@INLINED
def _gather(slot, v, mix, attrs, shares, h):  # type: ignore[no-untyped-def]
    """The hidden vector of an item into h [d]."""
    _shares(slot, mix, attrs, shares)
    for i in range(h.shape[0]):
        h[i] = shares[0] * v[slot, i]
    for s in range(1, shares.shape[0]):
        if shares[s] > 0.0:
            row = attrs[slot, s - 1]
            for i in range(h.shape[0]):
                h[i] += shares[s] * v[row, i]


@INLINED
def _move(table, acc, row, rate, scale, g):  # type: ignore[no-untyped-def]
    """One Adagrad step of table[row] along scale * g."""
    acc[row] += scale * scale * _square(g)
    step = rate * scale / np.sqrt(acc[row])
    for i in range(g.shape[0]):
        table[row, i] += step * g[i]


@INLINED
def _scatter(slot, g, scale, rate, v, acc_v, mix, attrs, shares, h, dirty):  # type: ignore[no-untyped-def]
    """Move what the hidden vector of `slot` was made of along scale * g (g is d objective / d h).

    `shares` and `h` are those of `_gather`: d h / d row_s = share_s, d h / d a_s = share_s
    (row_s - h).
    """
    mixed = shares[0] < 1.0
    towards_h = np.float32(0.0)
    if mixed:
        for i in range(h.shape[0]):
            towards_h += h[i] * g[i]
    for s in range(shares.shape[0]):
        if shares[s] > 0.0:
            row = slot if s == 0 else attrs[slot, s - 1]
            if mixed:
                pull = shares[s] * scale * (_dot(g, v, row) - towards_h)
                mix[slot, s] += rate * min(max(pull, np.float32(-1.0)), np.float32(1.0))
            _move(v, acc_v, row, rate, scale * shares[s], g)
            dirty[row] = True


@INLINED
def _draw(state, pool, accept, alias):  # type: ignore[no-untyped-def]
    """One negative from the alias table; takes two states from `state` on."""
    i = below(state, len(pool))
    if unit(state + GOLDEN) < accept[i]:
        return pool[i]
    return alias[i]


@INLINED
def _hardest(state, pool, accept, alias, draws, h, u):  # type: ignore[no-untyped-def]
    """The best scored of `draws` negatives against h. Returns (slot, state)."""
    best = _draw(state, pool, accept, alias)
    state += GOLDEN + GOLDEN
    if draws > 1:
        best_score = _dot(h, u, best)
        for _ in range(draws - 1):
            other = _draw(state, pool, accept, alias)
            state += GOLDEN + GOLDEN
            score = _dot(h, u, other)
            if score > best_score:
                best, best_score = other, score
    return best, state


@INLINED
def _pair(h, mean_square, outs, acc, row, rate, label, weight, grad):  # type: ignore[no-untyped-def]
    """One pair of h and outs[row]: adds to grad [d], the gradient at h, and moves the row."""
    g = weight * (label - _sigmoid(_dot(h, outs, row)))
    acc[row] += g * g * mean_square
    step = rate * g / np.sqrt(acc[row])
    for i in range(h.shape[0]):
        o = outs[row, i]
        grad[i] += g * o
        outs[row, i] = o + step * h[i]


@INLINED
def _context(h, outs, acc, weight, centres, used, rate, score, step, grad):  # type: ignore[no-untyped-def]
    """All pairs of one context with the rows of a block, by the same rules as `_pair`.

    outs [used, d] are positives up to `centres` and negatives after it; weight [used] is 0 for rows
    that the context does not meet. Writes grad [d], and moves outs and acc [used].
    """
    d = h.shape[0]
    mean_square = _square(h)
    # Four rows at a time: one load of h serves four sums, which also hide each other's latency.
    whole = used - used % 4
    for j in range(0, whole, 4):
        s0 = s1 = s2 = s3 = np.float32(0.0)
        for i in range(d):
            x = h[i]
            s0 += x * outs[j, i]
            s1 += x * outs[j + 1, i]
            s2 += x * outs[j + 2, i]
            s3 += x * outs[j + 3, i]
        score[j], score[j + 1], score[j + 2], score[j + 3] = s0, s1, s2, s3
    for j in range(whole, used):
        score[j] = _dot(h, outs, j)
    for j in range(used):
        label = np.float32(1.0) if j < centres else np.float32(0.0)
        g = weight[j] * (label - _sigmoid(score[j]))
        score[j] = g
        acc[j] += g * g * mean_square
        step[j] = rate * g / np.sqrt(acc[j])
    for i in range(d):
        grad[i] = 0.0
    for j in range(0, used - 1, 2):
        g0, g1 = score[j], score[j + 1]
        t0, t1 = step[j], step[j + 1]
        for i in range(d):
            o0, o1, x = outs[j, i], outs[j + 1, i], h[i]
            grad[i] += g0 * o0 + g1 * o1
            outs[j, i] = o0 + t0 * x
            outs[j + 1, i] = o1 + t1 * x
    if used % 2:
        j = used - 1
        for i in range(d):
            o = outs[j, i]
            grad[i] += score[j] * o
            outs[j, i] = o + step[j] * h[i]


@KERNEL
def _learn_walks(  # type: ignore[no-untyped-def]
    walks, first, seed, round_number, window, k, block, draws, rate, pool, accept, alias,
    v, u, acc_v, acc_u, mix, attrs, dirty,
):  # fmt: skip
    d = v.shape[1]
    h = np.empty(d, np.float32)
    mean = np.empty(d, np.float32)
    grad = np.empty(d, np.float32)
    shares = np.empty(mix.shape[1], np.float32)
    outs = np.empty((2 * block, d), np.float32)
    old = np.empty((2 * block, d), np.float32)
    acc = np.empty(2 * block, np.float32)
    slots = np.empty(2 * block, np.int32)
    weight = np.empty(2 * block, np.float32)
    score = np.empty(2 * block, np.float32)
    step = np.empty(2 * block, np.float32)
    for w in range(walks.shape[0]):
        tokens = walks[w]
        length = 0
        while length < len(tokens) and tokens[length] >= 0:
            length += 1
        if length < 2:
            continue
        state = stream(seed, round_number, LEARN, first + w)
        for begin in range(0, length, block):
            centres = min(block, length - begin)
            low, high = max(0, begin - window), min(length, begin + centres + window)
            mean[:] = 0.0
            for c in range(low, high):
                _gather(tokens[c], v, mix, attrs, shares, h)
                for i in range(d):
                    mean[i] += h[i]
            for j in range(centres):
                slots[j] = tokens[begin + j]
            for j in range(centres, centres + block):
                slots[j], state = _hardest(state, pool, accept, alias, draws, mean, u)
            used = centres + block
            for j in range(used):
                for i in range(d):
                    outs[j, i] = u[slots[j], i]
                    old[j, i] = outs[j, i]
                acc[j] = acc_u[slots[j]]
            for c in range(low, high):
                context = tokens[c]
                near = max(0, c - window - begin)
                far = min(centres, c + window + 1 - begin)
                positives = 0
                for j in range(used):
                    weight[j] = 0.0
                for j in range(near, far):
                    if slots[j] != context:
                        weight[j] = 1.0
                        positives += 1
                if positives == 0:
                    continue
                for j in range(centres, used):
                    wanted = slots[j] == context
                    for p in range(near, far):
                        wanted |= slots[p] == slots[j]
                    if not wanted:
                        weight[j] = np.float32(positives * k / block)
                _gather(context, v, mix, attrs, shares, h)
                _context(h, outs, acc, weight, centres, used, rate, score, step, grad)
                _scatter(
                    context, grad, np.float32(1.0), rate, v, acc_v, mix, attrs, shares, h, dirty
                )
            # An item may stand in a block more than once: what its copies learned is added up.
            for j in range(used):
                acc[j] -= acc_u[slots[j]]
                for i in range(d):
                    outs[j, i] -= old[j, i]
            for j in range(used):
                if acc[j] > 0.0:
                    slot = slots[j]
                    acc_u[slot] += acc[j]
                    dirty[slot] = True
                    for i in range(d):
                        u[slot, i] += outs[j, i]


@KERNEL
def _learn_sessions(  # type: ignore[no-untyped-def]
    history, target, seed, round_number, passes, decay, k, draws, rate, pool, accept, alias,
    v, u, acc_v, acc_u, mix, attrs, dirty,
):  # fmt: skip
    d = v.shape[1]
    length = history.shape[1]
    h = np.empty(d, np.float32)
    one = np.empty(d, np.float32)
    grad = np.empty(d, np.float32)
    mean_u = np.empty(d, np.float32)
    shares = np.empty(mix.shape[1], np.float32)
    part = np.empty(length, np.float32)
    for turn in range(passes):
        for t in range(len(target)):
            goal = target[t]
            if goal < 0:
                continue
            state = stream(seed, round_number, SESSIONS + turn, t)
            n = 0
            total = np.float32(0.0)
            while n < length and history[t, n] >= 0:
                part[n] = decay**n if history[t, n] != goal else 0.0
                total += part[n]
                n += 1
            if not total > 0.0:
                continue
            # Forward: the mean of the session predicts the next item.
            h[:] = 0.0
            mean_u[:] = 0.0
            for j in range(n):
                part[j] /= total
                _gather(history[t, j], v, mix, attrs, shares, one)
                for i in range(d):
                    h[i] += part[j] * one[i]
                    mean_u[i] += part[j] * u[history[t, j], i]
            grad[:] = 0.0
            square = _square(h)
            _pair(h, square, u, acc_u, goal, rate, np.float32(1.0), np.float32(1.0), grad)
            dirty[goal] = True
            for _ in range(k):
                slot, state = _hardest(state, pool, accept, alias, draws, h, u)
                if slot != goal:
                    _pair(h, square, u, acc_u, slot, rate, np.float32(0.0), np.float32(1.0), grad)
                    dirty[slot] = True
            for j in range(n):
                if part[j] > 0.0:
                    slot = history[t, j]
                    _gather(slot, v, mix, attrs, shares, one)
                    _scatter(slot, grad, part[j], rate, v, acc_v, mix, attrs, shares, one, dirty)
            # Backward: the next item predicts the mean of the session.
            _gather(goal, v, mix, attrs, shares, h)
            square = _square(h)
            g = np.float32(0.0)
            for i in range(d):
                g += h[i] * mean_u[i]
            g = np.float32(1.0) - _sigmoid(g)
            for i in range(d):
                grad[i] = g * mean_u[i]
            for j in range(n):
                if part[j] > 0.0:
                    slot = history[t, j]
                    _move(u, acc_u, slot, rate, g * part[j], h)
                    dirty[slot] = True
            for _ in range(k):
                slot, state = _hardest(state, pool, accept, alias, draws, h, u)
                inside = slot == goal
                for j in range(n):
                    inside = inside or slot == history[t, j]
                if not inside:
                    _pair(h, square, u, acc_u, slot, rate, np.float32(0.0), np.float32(1.0), grad)
                    dirty[slot] = True
            _scatter(goal, grad, np.float32(1.0), rate, v, acc_v, mix, attrs, shares, h, dirty)


@KERNEL
def _hidden(slots, v, mix, attrs, out):  # type: ignore[no-untyped-def]
    shares = np.empty(mix.shape[1], np.float32)
    for i in range(len(slots)):
        _gather(slots[i], v, mix, attrs, shares, out[i])


def hidden(rows: Rows, slots: NDArray[np.int32]) -> NDArray[np.float32]:
    """The hidden vectors of items, float32 [len(slots), d]: rows of V without attributes."""
    out = np.empty((len(slots), rows.v.shape[1]), np.float32)
    _hidden(slots, rows.v, rows.mix, rows.attrs, out)
    return out


def _arrays(rows: Rows) -> tuple[NDArray[np.generic], ...]:
    return rows.v, rows.u, rows.acc_v, rows.acc_u, rows.mix, rows.attrs, rows.dirty


Pool = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]


def learn_walks(
    rows: Rows, walks: NDArray[np.int32], pool: Pool, *, seed: int, round_number: int, window: int,
    negatives: int, block: int, hardest_of: int, rate: float, threads: int = 1,
) -> None:  # fmt: skip
    """Learn from walks, int32 [n, length] of slots, -1 past the end. Changes `rows` in place.

    `pool` is a table of `core.negatives`. With more than one thread, blocks of walks run side by
    side without locks (Hogwild: Niu et al., NIPS 2011), and results depend on timing.
    """
    settings = (seed, round_number, window, negatives, block, hardest_of, np.float32(rate), *pool)
    _share_out(
        threads, len(walks), lambda b, e: _learn_walks(walks[b:e], b, *settings, *_arrays(rows))
    )


def learn_sessions(
    rows: Rows, history: NDArray[np.int32], target: NDArray[np.int32], pool: Pool, *, seed: int,
    round_number: int, passes: int, decay: float, negatives: int, hardest_of: int, rate: float,
) -> None:  # fmt: skip
    """Train the decayed mean of each session's last items towards its next item, and back.

    history int32 [n, length] of slots, newest first, -1 past the end; target int32 [n], -1 for
    none.
    """
    _learn_sessions(
        history, target, seed, round_number, passes, np.float32(decay), negatives, hardest_of,
        np.float32(rate), *pool, *_arrays(rows),
    )  # fmt: skip


def _share_out(threads: int, n: int, work) -> None:  # type: ignore[no-untyped-def]
    if threads <= 1:
        work(0, n)
        return
    edges = np.linspace(0, n, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as executor:
        for done in [executor.submit(work, b, e) for b, e in pairwise(edges)]:
            done.result()
