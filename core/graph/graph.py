"""The item graph: neighbours of each item with forward-decayed weights.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model
for streaming systems", ICDE 2009): a click of weight w at time t adds w * 2^((t - landmark) /
half_life), and nothing is ever multiplied down, because the shares inside a row do not change as
time goes on. The landmark moves by whole half-lives before a float32 overflows, so that moving it
multiplies by a power of two and loses nothing.

A row holds at most `max_degree` neighbours in a slab of 4, 8, 16, ... entries of one pool. Its
layout is a function of the events of that row alone: a new neighbour goes to the end, or takes the
place of the weakest (the first of equals) when the row is full. No slot number decides anything, so
a graph survives relabelling unchanged, and a row can be written, and folded on, by itself.
"""

import math
from bisect import bisect_left

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import LINE, UNIT, UNWRITTEN, Slabs, give, shrink, take
from core.kernels.lanes import SOURCES, pointers

NEVER = np.iinfo(np.int64).min
"""The time of what never was."""
LIVE = -1
"""In place of a commit's number: what is folded now is folded for the first time."""

AHEAD = np.dtype([("cut", np.int64), ("landmark", np.int64), ("slot", np.int32)])
"""A row that stands on a later scale than what is folded again."""

BY_SLOT = (
    "start", "size_class", "degree", "last_seen", "clicks", "clicked", "shown", "changed",
    "evicted",
)  # fmt: skip


@nb.njit(cache=True, nogil=True)
def _leave(gone, graph, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Remove nodes whose neighbours are all that hold arcs to them."""
    graph = pointers(graph)
    for x in gone:
        n, base = graph.degree[x], graph.start[x] * UNIT
        for i in range(base, base + n):
            y = graph.nbr[i]
            begin, degree = graph.start[y] * UNIT, graph.degree[y]
            kept = 0
            for j in range(begin, begin + degree):
                if graph.nbr[j] != x:
                    graph.nbr[begin + kept] = graph.nbr[j]
                    graph.wgt[begin + kept] = graph.wgt[j]
                    kept += 1
            if kept < degree:
                graph.changed[y] |= UNWRITTEN
                shrink(graph, y, kept)
        if n > 0:
            give(graph, graph.start[x], graph.size_class[x])
        graph.degree[x] = 0
        _clear(graph, x)


@nb.njit(forceinline=True)
def _clear(graph, x):  # type: ignore[no-untyped-def]
    graph.changed[x] = 0
    graph.last_seen[x] = NEVER
    graph.clicks[x] = 0
    graph.clicked[x] = 0
    graph.shown[x] = 0
    graph.evicted[x] = 0


@nb.njit(cache=True, nogil=True)
def _drop(dead, graph, commit, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Remove every arc from and to a dead node; the arcs that stay keep their order.

    Rows that are folded as of `commit` or later have none of this before them.
    """
    slots = len(graph.degree)
    graph = pointers(graph)
    for a in range(slots):
        if commit != LIVE and graph.cut[a] >= commit:
            continue
        n = graph.degree[a]
        base = graph.start[a] * UNIT
        kept = 0
        if not dead[a]:
            for i in range(base, base + n):
                if not dead[graph.nbr[i]]:
                    graph.nbr[base + kept] = graph.nbr[i]
                    graph.wgt[base + kept] = graph.wgt[i]
                    kept += 1
        if kept < n:
            graph.changed[a] |= UNWRITTEN
            shrink(graph, a, kept)
        if dead[a]:
            _clear(graph, a)
            # Its row may be written, and it may live on: by its model row, or as it is born again.
            graph.changed[a] = UNWRITTEN if commit != LIVE else 0


@nb.njit(cache=True, nogil=True)
def _scale(slots, powers, start, degree, wgt, clicked, shown):  # type: ignore[no-untyped-def]
    """Multiply the rows of these slots by powers of two."""
    for i in range(len(slots)):
        a, power = slots[i], min(max(powers[i], -2000), 2000)
        clicked[a] = np.float32(math.ldexp(np.float64(clicked[a]), power))
        shown[a] = np.float32(math.ldexp(np.float64(shown[a]), power))
        for j in range(start[a] * UNIT, start[a] * UNIT + degree[a]):
            wgt[j] = np.float32(math.ldexp(np.float64(wgt[j]), power))


@nb.njit(cache=True, nogil=True)
def _put(slots, sizes, nbr, wgt, graph, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Give arcs to slots that have none, sizes[i] of them to slots[i]. The pool has room."""
    n, graph = len(slots), pointers(graph)
    at = 0
    for i in range(n):
        a, size = slots[i], sizes[i]
        if size > 0:
            size_class = 0
            while (UNIT << size_class) < size:
                size_class += 1
            graph.start[a] = take(graph, size_class)
            graph.size_class[a], graph.degree[a] = size_class, size
            base = graph.start[a] * UNIT
            for k in range(size):
                graph.nbr[base + k] = nbr[at + k]
                graph.wgt[base + k] = wgt[at + k]
        at += size


@nb.njit(cache=True, nogil=True)
def _find_one_sided(graph, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Mark the nodes that others hold arcs to which they do not hold as well."""
    slots = len(graph.degree)
    graph = pointers(graph)
    for a in range(slots):
        base = graph.start[a] * UNIT
        for i in range(base, base + graph.degree[a]):
            b = graph.nbr[i]
            begin, there = graph.start[b] * UNIT, False
            for j in range(begin, begin + graph.degree[b]):
                there = there or graph.nbr[j] == a
            if not there:
                graph.evicted[b] = 1


@nb.njit(cache=True, nogil=True)
def _rename(new, start, degree, nbr):  # type: ignore[no-untyped-def]
    for a in range(len(degree)):
        base = start[a] * UNIT
        for i in range(base, base + degree[a]):
            nbr[i] = new[nbr[i]]


class Graph:
    """The arrays of the graph, by slot.

    start int32, size_class int8, degree int32, last_seen int64 (ms, NEVER for a slot that is no
    node), clicks int32 (how many of its clicks count), clicked float32 (decayed weight of the
    node's clicks, on the scale of the arcs), shown float32 (that of its impressions), changed uint8
    (bits of `core.graph.slabs`) and evicted uint8 (1 for a row that gave a neighbour's place away,
    so that others may hold arcs that it does not hold) have one entry a slot; `nbr` int32 and `wgt`
    float32 are the pool, 8 bytes an arc.
    `cut` int64 and `ahead` are empty but while evidence is folded again.
    """

    def __init__(self, max_degree: int) -> None:
        self.max_degree = max_degree
        classes = (max_degree // UNIT).bit_length()
        self.start = np.zeros(0, np.int32)
        self.size_class = np.zeros(0, np.int8)
        self.degree = np.zeros(0, np.int32)
        self.last_seen = np.zeros(0, np.int64)
        self.clicks = np.zeros(0, np.int32)
        self.clicked = np.zeros(0, np.float32)
        self.shown = np.zeros(0, np.float32)
        self.changed = np.zeros(0, np.uint8)
        self.evicted = np.zeros(0, np.uint8)
        self.cut = np.zeros(0, np.int64)
        self.ahead = np.zeros(0, AHEAD)
        """Rows of later commits, by these: each on the scale of its own commit, until evidence has
        come there. On the scale of an earlier one its weights may have no room."""
        self._folds_again = False
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
        names = (*BY_SLOT, "cut") if self._folds_again else BY_SLOT
        for name in names:
            old = getattr(self, name)
            empty = NEVER if name in ("last_seen", "cut") else 0
            setattr(self, name, np.concatenate([old, np.full(more, empty, old.dtype)]))

    def grow_pool(self) -> None:
        more = max(len(self.nbr) // 4 // UNIT, 4 * self.max_degree) * UNIT
        self.nbr = np.concatenate([self.nbr, np.zeros(more, np.int32)])
        self.wgt = np.concatenate([self.wgt, np.zeros(more, np.float32)])

    def slabs(self) -> Slabs:
        """What kernels take. It holds until the graph grows."""
        return Slabs(
            self.start, self.size_class, self.degree, self.last_seen, self.clicks, self.clicked,
            self.shown, self.changed, self.evicted, self.cut, self.nbr, self.wgt,
            self.wgt.view(np.int32), self.heads,
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

    def put_rows(
        self, slots: NDArray[np.int32], sizes: NDArray[np.int64], nbr: NDArray[np.int32],
        wgt: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Give arcs to slots that have none: sizes[i] of nbr and wgt to slots[i], in this order.

        Of too many the heaviest stay.
        """
        if (sizes > self.max_degree).any():
            ends = np.cumsum(sizes)
            for slot, end, size in zip(slots, ends, sizes, strict=True):
                self.put_row(int(slot), nbr[end - size : end], wgt[end - size : end])
            return
        units = np.maximum(1, -(-sizes // UNIT)).astype(np.float64)
        needed = int(np.exp2(np.ceil(np.log2(units))).sum())
        while int(self.heads[0] + needed) * UNIT + LINE > len(self.nbr):
            self.grow_pool()
        slots, sizes = np.ascontiguousarray(slots, np.int32), np.ascontiguousarray(sizes, np.int64)
        nbr, wgt = np.ascontiguousarray(nbr, np.int32), np.ascontiguousarray(wgt, np.float32)
        _put(slots, sizes, nbr, wgt, self.slabs())

    def put_row(self, slot: int, nbr: NDArray[np.int32], wgt: NDArray[np.float32]) -> None:
        """Give arcs to a slot that has none. Of too many the heaviest stay, in their order."""
        if len(nbr) > self.max_degree:
            heaviest = np.sort(np.argsort(-wgt, kind="stable")[: self.max_degree])
            nbr, wgt, self.evicted[slot] = nbr[heaviest], wgt[heaviest], 1
        n = len(nbr)
        if n == 0:
            return
        size_class = max(0, (n - 1).bit_length() - 2)
        while int(self.heads[0] + (1 << size_class)) * UNIT + LINE > len(self.nbr):
            self.grow_pool()
        at = take(self.slabs(), size_class)
        self.start[slot], self.size_class[slot], self.degree[slot] = at, size_class, n
        self.nbr[at * UNIT : at * UNIT + n] = nbr
        self.wgt[at * UNIT : at * UNIT + n] = wgt

    def drop(self, slots: NDArray[np.integer], commit: int = LIVE) -> None:
        """Remove nodes with all arcs from and to them.

        The holders of arcs to a node are its neighbours, unless it gave the place of one away: then
        all rows are looked through. With a `commit`, rows folded as of it or later stay as they
        are.
        """
        if commit == LIVE and not self.evicted[slots].any():
            _leave(np.ascontiguousarray(slots, np.int32), self.slabs())
            return
        dead = np.zeros(len(self.degree), np.bool_)
        dead[slots] = True
        _drop(dead, self.slabs(), commit)

    def find_one_sided(self) -> None:
        """Know which nodes others may hold arcs to that they do not hold, after rows were put
        together that may not fit: of other session settings, or with evidence missing between."""
        _find_one_sided(self.slabs())

    def shift(self, half_lives: int) -> None:
        """Move the landmark forward by whole half-lives: weights are divided by a power of two."""
        if len(self.ahead):
            behind = np.ones(len(self.degree), np.bool_)
            behind[self.ahead["slot"]] = False
            slots = np.flatnonzero(behind)
            self._scale(slots, np.full(len(slots), -half_lives))
            return
        for scaled in (self.wgt, self.clicked, self.shown):
            np.ldexp(scaled, -half_lives, out=scaled)

    def _scale(self, slots: NDArray[np.integer], powers: NDArray[np.int64]) -> None:
        slots = np.ascontiguousarray(slots, np.int32)
        columns = self.start, self.degree, self.wgt, self.clicked, self.shown
        _scale(slots, powers, *columns)

    def begin_again(self, cut: int) -> None:
        """From here on evidence is folded again: each row says as of which commit it is folded."""
        self.cut, self._folds_again = np.full(len(self.degree), cut, np.int64), True

    def catch_up(self, commit: int, landmark: int, half_life: int) -> None:
        """Evidence has come to this commit: rows as of earlier ones are on the landmark's scale."""
        n = bisect_left(self.ahead["cut"], commit)
        here, self.ahead = self.ahead[:n], self.ahead[n:]
        self._scale(here["slot"], (here["landmark"] - landmark) // half_life)

    def end_again(self, landmark: int, half_life: int) -> int:
        """All evidence is folded. Returns the landmark of all rows: a later one, if there are rows
        whose evidence is lost."""
        newest = int(self.ahead["landmark"].max(initial=landmark))
        if newest > landmark:
            self.shift((newest - landmark) // half_life)
        self._scale(self.ahead["slot"], (self.ahead["landmark"] - newest) // half_life)
        self.ahead, self.cut = np.zeros(0, AHEAD), np.zeros(0, np.int64)
        self._folds_again = False
        return newest

    def unwritten(self, bit: int) -> NDArray[np.int32]:
        """Slots whose row is not written as it is, ascending."""
        return np.flatnonzero(self.changed & bit).astype(np.int32)

    def written(self, slots: NDArray[np.integer], bit: int) -> None:
        self.changed[slots] &= ~np.uint8(bit)

    def relabel(self, order: NDArray[np.int64], new: NDArray[np.int32]) -> None:
        """Make slot `order[i]` slot i. Arcs to dropped slots (`new` is -1) must be gone."""
        for name in BY_SLOT:
            setattr(self, name, getattr(self, name)[order])
        _rename(new, self.start, self.degree, self.nbr)
