"""Random walks on the live graph, of first order and of second.

First order is DeepWalk (Perozzi, Al-Rfou and Skiena, KDD 2014). Second order is node2vec (Grover
and Leskovec, KDD 2016), drawn by rejection (KnightKing: Yang et al., SOSP 2019): a neighbour is
proposed as in a first-order walk, and accepted by its bias. The way back, whose bias may stand
above all others, has an area of its own, so that it does not lower the acceptance of the rest.

A walk waits for memory at every step, so one thread leads many at once, and asks for what a walk
needs next before it turns to the others.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import UNIT
from core.ids.hashing import GOLDEN, mix, stream
from core.kernels.lanes import SOURCES, address, pointers, prefetch
from core.kernels.scan import LANES, find, lane_sums, lanes_up_to

WALKS = 1
"""Purpose number of this module's random streams."""
TOGETHER = 32
"""Walks that one thread leads at once, a power of two."""
ROW, SUMS, LANE, ENTRY = 8, 20, 22, 24
"""How many turns after its arrival at a node a walk does each part of its step: it reads where its
row is, sums the lanes, draws a lane, and draws an entry of it. By then memory has answered; the
last wait keeps a branch that was guessed wrong from holding up a long chain of work."""
TRIES = 16
"""Proposals of a second-order step before the biases of the whole row are worked out instead."""

_INLINED = nb.njit(error_model="numpy", forceinline=True)
_TO_UNIT = np.float32(2.0**-24)


@_INLINED
def _high(bits):  # type: ignore[no-untyped-def]
    """24 of 64 random bits as a float32 in [0, 1)."""
    return np.float32(bits >> np.uint64(40)) * _TO_UNIT


@_INLINED
def _low(bits):  # type: ignore[no-untyped-def]
    """24 others of the 64 bits, likewise."""
    return np.float32(bits & np.uint64(0xFFFFFF)) * _TO_UNIT


@_INLINED
def _lane(sums, w, n, left):  # type: ignore[no-untyped-def]
    """The lane of sums[w] that `left`, in [0, all of it), falls into, and how far into it."""
    # Rounded sums need not increase, so the lane is bounded by those that the row has.
    lane = max(min(lanes_up_to(sums, w * LANES, left), n - 1, LANES - 1), 0)
    return lane, left - (sums[w, lane - 1] if lane > 0 else np.float32(0.0))


@_INLINED
def _entry(wgt, at, end, left):  # type: ignore[no-untyped-def]
    """The entry that `left` falls into, of the lane that begins at `at` of a row up to `end`."""
    while at + LANES < end and left >= wgt[at]:
        left -= wgt[at]
        at += LANES
    return at


@nb.njit(error_model="numpy", cache=True, nogil=True)
def _exact(u, past, past_base, past_n, base, n, graph, back, away, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The entry of a row drawn by weight times bias, all of them worked out; u in [0, 1)."""
    nbr, wgt = graph.nbr, graph.wgt
    left = np.float32(0.0)
    for draws in range(2):
        for j in range(base, base + n):
            bias = np.float32(1.0)
            if nbr[j] == past:
                bias = back
            elif find(nbr, past_base, past_n, nbr[j]) < 0:
                bias = away
            if draws == 0:
                left += wgt[j] * bias
            elif left < wgt[j] * bias:
                return j
            else:
                left -= wgt[j] * bias
        if draws == 0:
            left *= u
    return base + n - 1


@nb.njit(error_model="numpy", cache=True, nogil=True)
def _walk(first, starts, seed, round_number, biases, graph, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """`biases` is None or (1 / p, 1 / q) float32: each is compiled by itself."""
    length = out.shape[1]
    graph = pointers(graph)
    nbr, wgt = graph.nbr, graph.wgt
    node = np.full(TOGETHER, -1, np.int64)
    base = np.zeros(TOGETHER, np.int64)
    n = np.zeros(TOGETHER, np.int64)
    at = np.zeros(TOGETHER, np.int64)
    state = np.zeros(TOGETHER, np.uint64)
    sums = np.zeros((TOGETHER, LANES), np.float32)
    rest = np.zeros(TOGETHER, np.float32)
    past = np.full(TOGETHER, -1, np.int64)
    past_base = np.zeros(TOGETHER, np.int64)
    past_n = np.zeros(TOGETHER, np.int64)
    if biases is not None:
        back, away = biases
        most = max(np.float32(1.0), away)
        least = min(np.float32(1.0), away)
        extra = max(back - most, np.float32(0.0))
    for group in range(0, len(starts), TOGETHER):
        for step in range(length):
            for turn in range(TOGETHER):
                w, i = turn, group + turn
                here = np.int64(-1)
                if i < len(starts):
                    if biases is not None:
                        past[w], past_base[w], past_n[w] = node[w], base[w], n[w]
                    if step == 0:
                        state[w] = stream(seed, round_number, WALKS, first + i)
                        here = np.int64(starts[i])
                        past[w] = -1
                    elif at[w] >= 0:
                        here = np.int64(nbr[at[w]])
                    out[i, step] = here
                node[w] = here if step < length - 1 else -1
                if node[w] >= 0:
                    prefetch(address(graph.start, here))
                    prefetch(address(graph.degree, here))

                w = (turn - ROW) & (TOGETHER - 1)
                n[w] = 0
                if node[w] >= 0:
                    base[w] = np.int64(graph.start[node[w]]) * UNIT
                    n[w] = graph.degree[node[w]]
                    for j in range(base[w], base[w] + n[w], LANES):
                        prefetch(address(wgt, j))
                        if biases is not None:
                            prefetch(address(nbr, j))
                    prefetch(address(wgt, base[w] + n[w] - 1))
                    if biases is not None:
                        prefetch(address(nbr, base[w] + n[w] - 1))

                w = (turn - SUMS) & (TOGETHER - 1)
                lane_sums(wgt, base[w], n[w], sums, w * LANES)

                w = (turn - LANE) & (TOGETHER - 1)
                if biases is None:
                    state[w] += GOLDEN
                    left = _high(mix(state[w])) * sums[w, LANES - 1]
                    lane, rest[w] = _lane(sums, w, n[w], left)
                    at[w] = base[w] + lane
                elif past[w] >= 0 and extra > 0.0:
                    # Where the way back is, and the weight above `most` that it has.
                    at[w] = find(nbr, base[w], n[w], np.int32(past[w]))
                    rest[w] = extra * wgt[at[w]] if at[w] >= 0 else np.float32(0.0)
                else:
                    rest[w] = 0.0

                w = (turn - ENTRY) & (TOGETHER - 1)
                total = sums[w, LANES - 1]
                if not total > 0.0:
                    at[w] = -1
                elif biases is None:
                    at[w] = _entry(wgt, at[w], base[w] + n[w], rest[w])
                    prefetch(address(nbr, at[w]))
                else:
                    tries = 0
                    while True:
                        state[w] += GOLDEN
                        bits = mix(state[w])
                        if tries == TRIES:
                            at[w] = _exact(
                                _high(bits), past[w], past_base[w], past_n[w], base[w], n[w],
                                graph, back, away,
                            )  # fmt: skip
                            break
                        left = _high(bits) * (total * most + rest[w])
                        if left >= total * most and rest[w] > 0.0:
                            break
                        lane, left = _lane(sums, w, n[w], left / most)
                        j = _entry(wgt, base[w] + lane, base[w] + n[w], left)
                        drawn = _low(bits) * most
                        if past[w] < 0:
                            keeps = True
                        elif nbr[j] == past[w]:
                            keeps = drawn < back
                        elif drawn < least:
                            keeps = True
                        else:
                            known = find(nbr, past_base[w], past_n[w], nbr[j]) >= 0
                            keeps = drawn < (np.float32(1.0) if known else away)
                        if keeps:
                            at[w] = j
                            break
                        tries += 1


def walk(
    graph: Graph, starts: NDArray[np.int32], length: int, seed: int, round_number: int,
    p: float = 1.0, q: float = 1.0, threads: int = 1,
) -> NDArray[np.int32]:  # fmt: skip
    """One walk from each start, int32 [len(starts), length]; -1 after a node without arcs.

    The next node x is drawn with probability proportional to weight times bias. The bias is 1 / p
    for the node before, 1 for x to which that node has an arc too, and 1 / q for others; with
    p = q = 1 all are 1. Walk i depends on (seed, round_number, i) and the graph only, and so on
    neither `threads` nor the other walks.
    """
    out = np.empty((len(starts), length), np.int32)
    biases = None if p == q == 1.0 else (np.float32(1.0 / p), np.float32(1.0 / q))
    slabs = graph.slabs()

    def part(begin: int, end: int) -> None:
        _walk(begin, starts[begin:end], seed, round_number, biases, slabs, out[begin:end])

    if threads == 1:
        part(0, len(starts))
    else:
        # More parts than threads: one that shares its core with others does fewer of them.
        edges = np.linspace(0, len(starts), 8 * threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as executor:
            for done in [executor.submit(part, b, e) for b, e in pairwise(edges)]:
                done.result()
    return out
