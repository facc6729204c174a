"""What negatives are drawn from: the known items, by a power of their decayed counts."""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.ids.hashing import mix
from core.kernels.lanes import INLINED
from core.learning.dense import F32, inner


class Pool(NamedTuple):
    """Walker's alias table of n items: entry i is items[i] with probability accept[i], or else
    alias[i]. Both are slots."""

    items: NDArray[np.int32]
    accept: NDArray[np.float32]
    alias: NDArray[np.int32]
    n: int


class Pools:
    """Makes the pool of each round. A uniform one costs nothing; any other reads all items."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._ones = np.ones(0, np.float32)

    def of(self, items: NDArray[np.int32], counts: NDArray[np.float32]) -> Pool:
        """A pool of `items` (slots); counts float32 [slots] are of all slots."""
        if self.alpha != 0.0:
            return pool(items, counts[items], self.alpha)
        if len(items) > len(self._ones):
            self._ones = np.ones(2 * len(items), np.float32)
        return Pool(items, self._ones[: len(items)], items, len(items))


def pool(items: NDArray[np.int32], counts: NDArray[np.float32], alpha: float) -> Pool:
    """A table that gives each of `items` (slots) with a probability proportional to counts^alpha.

    counts float32 [len(items)] on any common scale. alpha = 0 is uniform, the choice that served
    next-item quality best.
    Source of the method: A. J. Walker, "An efficient method for generating discrete random
    variables with general distributions", ACM TOMS 3 (1977), in Vose's linear form.
    """
    n = len(items)
    accept = np.ones(n, np.float32)
    alias = items.copy()
    if alpha != 0.0 and n > 0:
        p = np.maximum(counts.astype(np.float64), 0.0)
        top = p.max()
        p = np.maximum(p / top, 1e-6) ** alpha if top > 0 else np.ones(n)
        _fill(p * (n / p.sum()), items, accept, alias)
    return Pool(items, accept, alias, n)


@nb.njit(cache=True, nogil=True)
def _fill(p, items, accept, alias):  # type: ignore[no-untyped-def]
    """Pair entries below 1 with entries above 1; p sums to its length and is used up."""
    n = len(p)
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    few, many = 0, 0
    for i in range(n):
        if p[i] < 1.0:
            small[few] = i
            few += 1
        else:
            large[many] = i
            many += 1
    while few > 0 and many > 0:
        few -= 1
        s, g = small[few], large[many - 1]
        accept[s] = p[s]
        alias[s] = items[g]
        p[g] -= 1.0 - p[s]
        if p[g] < 1.0:
            many -= 1
            small[few] = g
            few += 1


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
