"""Rows of neighbours in slabs of 4, 8, 16, ... entries of one pool, and adding to them.

All arrays of these functions but those of `take` and `give` are pointers (`core.learning.lanes`).

The pool is `nbr` int32 and `wgt` float32. `heads` int32 has the end of the used pool, and then the
first free slab of each size class (-1 for none; a free slab's first entry is the next one).
"""

import numba as nb
import numpy as np

from core.learning.lanes import address, filli16, loadi16, lowest, prefetch, same

UNIT = 4
"""Entries of the smallest slab; positions in the pool count slabs of this size."""
LINE = 16
"""Entries of the pool in a cache line."""
INLINED = nb.njit(forceinline=True)
"""Part of a kernel, in place of each call: passing a dozen arrays costs more than adding an arc."""


@nb.njit(forceinline=True, cache=True, nogil=True)
def take(size_class, heads, nbr):  # type: ignore[no-untyped-def]
    """A slab of UNIT << size_class entries, a free one or behind the used pool, which has room."""
    at = heads[1 + size_class]
    if at >= 0:
        heads[1 + size_class] = nbr[at * UNIT]
    else:
        at = heads[0]
        heads[0] += 1 << size_class
    return at


@INLINED
def give(at, size_class, heads, nbr):  # type: ignore[no-untyped-def]
    nbr[at * UNIT] = heads[1 + size_class]
    heads[1 + size_class] = at


@INLINED
def find(b, base, n, nbr):  # type: ignore[no-untyped-def]
    """Which of n entries from `base` on is b, or -1. It reads whole lines, up to LINE - 1 past the
    end of the row."""
    wanted = filli16(np.int32(b))
    for i in range(0, n, LINE):
        lane = lowest(same(loadi16(nbr, base + i), wanted))
        if lane < LINE:
            return i + lane if i + lane < n else -1
    return -1


@INLINED
def weakest(base, n, bits):  # type: ignore[no-untyped-def]
    """Which of n weights is the least, the first of equals: positive floats are in the order of
    their bits."""
    least = bits[base]
    for i in range(n):
        least = min(least, bits[base + i])
    place = np.int32(n)
    for i in range(n):
        place = min(place, np.int32(i) if bits[base + i] == least else np.int32(n))
    return place


@INLINED
def add(a, b, w, max_degree, start, size_class, degree, nbr, wgt, bits, heads):  # type: ignore[no-untyped-def]
    """Add w to arc a -> b. The pool must have room for another slab. `bits` is wgt as int32."""
    n = degree[a]
    base = start[a] * UNIT
    place = find(b, base, n, nbr)
    if place >= 0:
        wgt[base + place] += w
        return
    if n == max_degree:
        place = weakest(base, n, bits)
        nbr[base + place] = b
        wgt[base + place] = w
        return
    if n == 0 or n == (UNIT << size_class[a]):
        grown = 0 if n == 0 else size_class[a] + 1
        at = take(grown, heads, nbr)
        for i in range(n):
            nbr[at * UNIT + i] = nbr[base + i]
            wgt[at * UNIT + i] = wgt[base + i]
        if n > 0:
            give(start[a], size_class[a], heads, nbr)
        start[a] = at
        size_class[a] = grown
        base = at * UNIT
    nbr[base + n] = b
    wgt[base + n] = w
    degree[a] = n + 1


@INLINED
def fetch_row(a, start, degree, nbr, wgt):  # type: ignore[no-untyped-def]
    base = start[a] * UNIT
    for i in range(base, base + degree[a], LINE):
        prefetch(address(nbr, i))
        prefetch(address(wgt, i))
