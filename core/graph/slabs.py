"""Rows of neighbours in slabs of 4, 8, 16, ... entries of one pool, and adding to them.

`graph` is `Slabs` as pointers (`core.kernels.lanes`); `take` and `give` work on arrays too.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import address, prefetch
from core.kernels.scan import LANES, find

UNIT = 4
"""Entries of the smallest slab; positions in the pool count slabs of this size."""
LINE = LANES
"""Entries of the pool in a cache line. So many past its used end may be read."""
INLINED = nb.njit(forceinline=True)
"""Part of a kernel, in place of each call: passing its arrays costs more than adding an arc."""


LOCAL, TOPIC = 1, 2
"""Bits of `changed`: the row is not yet written as it is to the state folder, or to the topic."""
UNWRITTEN = LOCAL | TOPIC


class Slabs(NamedTuple):
    """The arrays of a graph, the first ten by slot (see `core.graph.graph.Graph`)."""

    start: NDArray[np.int32]
    size_class: NDArray[np.int8]
    degree: NDArray[np.int32]
    last_seen: NDArray[np.int64]
    clicks: NDArray[np.int32]
    clicked: NDArray[np.float32]
    shown: NDArray[np.float32]
    changed: NDArray[np.uint8]
    evicted: NDArray[np.uint8]
    cut: NDArray[np.int64]
    """Empty, unless evidence is folded again: the commit as of which each row is folded."""
    nbr: NDArray[np.int32]
    """The pool: neighbours, and the weights of the arcs to them."""
    wgt: NDArray[np.float32]
    bits: NDArray[np.int32]
    """wgt as int32."""
    heads: NDArray[np.int32]
    """The end of the used pool, and then the first free slab of each size class, -1 for none. A
    free slab's first entry is the next one."""


@nb.njit(forceinline=True, cache=True, nogil=True)
def take(graph, size_class):  # type: ignore[no-untyped-def]
    """A slab of UNIT << size_class entries, a free one or behind the used pool, which has room."""
    at = graph.heads[1 + size_class]
    if at >= 0:
        graph.heads[1 + size_class] = graph.nbr[at * UNIT]
    else:
        at = graph.heads[0]
        graph.heads[0] += 1 << size_class
    return at


@INLINED
def give(graph, at, size_class):  # type: ignore[no-untyped-def]
    graph.nbr[at * UNIT] = graph.heads[1 + size_class]
    graph.heads[1 + size_class] = at


@INLINED
def shrink(graph, a, kept):  # type: ignore[no-untyped-def]
    """Let the row of a, of which `kept` arcs are left, go down to the slab that fits them.

    The class of a slab follows from its row's degree, so that a row that was written and read back
    grows as the one it was taken from.
    """
    graph.degree[a] = kept
    fits = 0
    while (UNIT << fits) < kept:
        fits += 1
    if kept == 0:
        give(graph, graph.start[a], graph.size_class[a])
    while kept > 0 and graph.size_class[a] > fits:
        graph.size_class[a] -= 1
        give(graph, graph.start[a] + (1 << graph.size_class[a]), graph.size_class[a])


@INLINED
def weakest(base, n, bits):  # type: ignore[no-untyped-def]
    """Which of n weights is the least, the first of equals: positive floats are in the order of
    their bits."""
    least = bits[base]
    for i in range(n):
        least = min(least, bits[base + i])
    first = np.int32(n)
    for i in range(n):
        first = min(first, np.int32(i) if bits[base + i] == least else np.int32(n))
    return first


@INLINED
def add(graph, a, b, w, max_degree):  # type: ignore[no-untyped-def]
    """Add w to arc a -> b. The pool must have room for another slab."""
    n = graph.degree[a]
    base = graph.start[a] * UNIT
    entry = find(graph.nbr, base, n, np.int32(b))
    if entry >= 0:
        graph.wgt[entry] += w
        return
    if n == max_degree:
        entry = weakest(base, n, graph.bits)
        graph.evicted[a] = 1
        graph.nbr[base + entry] = b
        graph.wgt[base + entry] = w
        return
    if n == 0 or n == (UNIT << graph.size_class[a]):
        grown = 0 if n == 0 else graph.size_class[a] + 1
        at = take(graph, grown)
        for i in range(n):
            graph.nbr[at * UNIT + i] = graph.nbr[base + i]
            graph.wgt[at * UNIT + i] = graph.wgt[base + i]
        if n > 0:
            give(graph, graph.start[a], graph.size_class[a])
        graph.start[a] = at
        graph.size_class[a] = grown
        base = at * UNIT
    graph.nbr[base + n] = b
    graph.wgt[base + n] = w
    graph.degree[a] = n + 1


@INLINED
def fetch_row(graph, a):  # type: ignore[no-untyped-def]
    base = graph.start[a] * UNIT
    for i in range(base, base + graph.degree[a], LINE):
        prefetch(address(graph.nbr, i))
        prefetch(address(graph.wgt, i))
