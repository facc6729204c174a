"""Weights of pairs of items."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import LINE, UNIT, Slabs, add
from core.kernels.lanes import SOURCES, pointers

MOST = 1 << 15
"""Others that an item keeps; past it the weakest leaves. It is there to bound the pool's growth: a
baseline is not to lose anything."""


class Table:
    """By item, the weight of each other item."""

    def __init__(self) -> None:
        self._graph = Graph(MOST)

    def add(self, a: NDArray[np.int32], b: NDArray[np.int32], amounts: NDArray[np.float32]) -> None:
        """Add amounts [n] to what items b [n] have in the rows of items a [n], in this order."""
        self._graph.reserve(1 + int(max(a.max(initial=-1), b.max(initial=-1))))
        done = 0
        while (done := _add(done, a, b, amounts, self._graph.slabs())) < len(a):
            self._graph.grow_pool()

    def row(self, a: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Views of the items in the row of item a, in the order in which they came, and their
        weights."""
        if a >= len(self._graph.degree):
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        return self._graph.row(a)

    def shift(self, half_lives: int) -> None:
        """Divide all weights by so many powers of two."""
        self._graph.shift(half_lives)

    def slabs(self) -> Slabs:
        """What kernels take. It holds until something is added."""
        return self._graph.slabs()


@nb.njit(cache=True, nogil=True)
def _add(begin, a, b, amounts, graph, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Add the amounts from number `begin` on. Returns how many are added, fewer than there are
    where the pool must grow."""
    room = len(graph.nbr) - MOST - LINE
    graph = pointers(graph)
    for k in range(begin, len(a)):
        if graph.heads[0] * UNIT > room:
            return k
        add(graph, a[k], b[k], amounts[k], MOST)
    return len(a)
