"""The item graph: neighbours of each item with forward-decayed weights.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model
for streaming systems", ICDE 2009): a click of weight w at time t adds w * 2^((t - landmark) /
half_life), and nothing is ever multiplied down, because the shares inside a row do not change as
time goes on. The landmark moves by whole half-lives before a float32 overflows, so that moving it
multiplies by a power of two and loses nothing.

A row holds at most `max_degree` neighbours in a slab of 4, 8, 16, ... entries of one pool. Its
layout is a function of the events of that row alone: a new neighbour goes to the end, or takes the
place of the weakest (the first of equals) when the row is full. No slot number decides anything, so
a graph survives relabelling unchanged.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import LINE, UNIT, Slabs, give, take
from core.kernels.lanes import SOURCES, pointers

NEVER = np.iinfo(np.int64).min
"""The time of what never was."""


@nb.njit(cache=True, nogil=True)
def _drop(dead, graph, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Remove every arc from and to a dead node; the arcs that stay keep their order."""
    slots = len(graph.degree)
    graph = pointers(graph)
    for a in range(slots):
        n = graph.degree[a]
        if n == 0:
            continue
        base = graph.start[a] * UNIT
        kept = 0
        if not dead[a]:
            for i in range(base, base + n):
                if not dead[graph.nbr[i]]:
                    graph.nbr[base + kept] = graph.nbr[i]
                    graph.wgt[base + kept] = graph.wgt[i]
                    kept += 1
        if kept == n:
            continue
        graph.changed[a] = True
        graph.degree[a] = kept
        fits = 0
        while (UNIT << fits) < kept:
            fits += 1
        if kept == 0:
            give(graph, graph.start[a], graph.size_class[a])
        elif fits < graph.size_class[a]:
            # Halves that are no longer needed go back: the class of a slab follows from its row's
            # degree, so that a row from a checkpoint grows as the one it was taken from.
            while graph.size_class[a] > fits:
                graph.size_class[a] -= 1
                give(graph, graph.start[a] + (1 << graph.size_class[a]), graph.size_class[a])
    for a in range(slots):
        if dead[a]:
            graph.changed[a] = True
            graph.last_seen[a] = NEVER


@nb.njit(cache=True, nogil=True)
def _rename(new, start, degree, nbr):  # type: ignore[no-untyped-def]
    for a in range(len(degree)):
        base = start[a] * UNIT
        for i in range(base, base + degree[a]):
            nbr[i] = new[nbr[i]]


class Graph:
    """The arrays of the graph, by slot.

    start int32, size_class int8, degree int32 and last_seen int64 (ms, NEVER for a slot that is no
    node) have one entry a slot; `nbr` int32 and `wgt` float32 are the pool, 8 bytes an arc;
    `changed` marks rows not yet in a checkpoint.
    """

    def __init__(self, max_degree: int) -> None:
        self.max_degree = max_degree
        classes = (max_degree // UNIT).bit_length()
        self.start = np.zeros(0, np.int32)
        self.size_class = np.zeros(0, np.int8)
        self.degree = np.zeros(0, np.int32)
        self.last_seen = np.zeros(0, np.int64)
        self.changed = np.zeros(0, np.bool_)
        self.nbr = np.zeros(1 << 12, np.int32)
        self.wgt = np.zeros(1 << 12, np.float32)
        self.heads = np.full(1 + classes, -1, np.int32)
        self.heads[0] = 0

    def reserve(self, n: int) -> None:
        """Make room for slots below n."""
        have = len(self.degree)
        if n <= have:
            return
        more = max(1024, n + n // 2) - have
        self.start = np.concatenate([self.start, np.zeros(more, np.int32)])
        self.size_class = np.concatenate([self.size_class, np.zeros(more, np.int8)])
        self.degree = np.concatenate([self.degree, np.zeros(more, np.int32)])
        self.last_seen = np.concatenate([self.last_seen, np.full(more, NEVER, np.int64)])
        self.changed = np.concatenate([self.changed, np.zeros(more, np.bool_)])

    def grow_pool(self) -> None:
        more = max(len(self.nbr) // 4 // UNIT, 4 * self.max_degree) * UNIT
        self.nbr = np.concatenate([self.nbr, np.zeros(more, np.int32)])
        self.wgt = np.concatenate([self.wgt, np.zeros(more, np.float32)])

    def slabs(self) -> Slabs:
        """What kernels take. It holds until the graph grows."""
        return Slabs(
            self.start, self.size_class, self.degree, self.last_seen, self.changed.view(np.uint8),
            self.nbr, self.wgt, self.wgt.view(np.int32), self.heads,
        )  # fmt: skip

    @property
    def arcs(self) -> int:
        return int(self.degree.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, free slabs included."""
        return sum(a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray))

    def row(self, slot: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Views of the neighbours of a slot and their scaled weights."""
        begin = int(self.start[slot]) * UNIT
        end = begin + int(self.degree[slot])
        return self.nbr[begin:end], self.wgt[begin:end]

    def put_row(
        self, slot: int, nbr: NDArray[np.int32], wgt: NDArray[np.float32], seen: int
    ) -> None:
        """Take a row from a checkpoint into a slot that has none."""
        n = len(nbr)
        self.last_seen[slot] = seen
        if n == 0:
            return
        size_class = max(0, (n - 1).bit_length() - 2)
        while int(self.heads[0] + (1 << size_class)) * UNIT + LINE > len(self.nbr):
            self.grow_pool()
        at = take(self.slabs(), size_class)
        self.start[slot], self.size_class[slot], self.degree[slot] = at, size_class, n
        self.nbr[at * UNIT : at * UNIT + n] = nbr
        self.wgt[at * UNIT : at * UNIT + n] = wgt

    def drop(self, dead: NDArray[np.bool_]) -> None:
        """Remove the nodes marked in `dead` (bool [slots]) with all arcs from and to them."""
        _drop(dead, self.slabs())

    def shift(self, half_lives: int) -> None:
        """Move the landmark forward by whole half-lives: weights are divided by a power of two."""
        np.ldexp(self.wgt, -half_lives, out=self.wgt)
        self.changed[self.degree > 0] = True

    def relabel(self, order: NDArray[np.int64], new: NDArray[np.int32]) -> None:
        """Make slot `order[i]` slot i. Arcs to dropped slots (`new` is -1) must be gone."""
        n = len(order)
        for name in ("start", "size_class", "degree", "last_seen"):
            setattr(self, name, getattr(self, name)[order])
        self.changed = np.ones(n, np.bool_)
        _rename(new, self.start, self.degree, self.nbr)
