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

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import INLINED, LINE, add, fetch_row, give, take
from core.graph.slabs import UNIT as UNIT
from core.learning.lanes import SOURCES, address, pointer, prefetch

REBASE = 64
"""Half-lives after which the landmark moves: 2^64 leaves float32 room for 2^63 more weight."""
NEVER = np.iinfo(np.int64).min

DONE, FULL, TICK, MOVE = 0, 1, 2, 3
"""Why `fold` stopped: all done; the pool must grow; time for a sweep; time to move the landmark."""

SCALED = 128
"""Clicks whose weights are scaled together."""

AHEAD = 8
"""The rows of the click so many places on are asked for in advance; its session, twice as many."""

KEPT, DUPLICATE, TOO_LONG = 0, 1, 2
"""What became of a click: it counts; its event id came before; its session has too many clicks."""


@INLINED
def scaled(weight, time, landmark, half_life):  # type: ignore[no-untyped-def]
    """The forward-decayed weight: float32 of weight * 2^((time - landmark) / half_life).

    Split into whole half-lives and a rest, so that moving the landmark by whole ones is exact.
    """
    span = time - landmark
    q = span // half_life
    r = span - q * half_life
    q = min(max(q, -2000), 2000)
    return np.float32(math.ldexp(np.float64(weight) * 2.0 ** (r / half_life), q))


@INLINED
def _is_repeat(event_id, ids, at, width):  # type: ignore[no-untyped-def]
    if event_id != 0:
        for j in range(width):
            if ids[at + j] == event_id:
                return True
    return False


@INLINED
def _remember(event_id, ids, at, width):  # type: ignore[no-untyped-def]
    if event_id != 0:
        for j in range(width - 1, 0, -1):
            ids[at + j] = ids[at + j - 1]
        ids[at] = event_id


@nb.njit(cache=True, nogil=True)
def fold(  # type: ignore[no-untyped-def]
    begin, users, items, event_ids, times, weights, clock, tick, landmark, half_life, gap,
    max_events, max_degree, s_time, s_items, s_size, s_clicks, s_ids, s_changed, start, size_class,
    degree, last_seen, changed, nbr, wgt, heads, known, born, fate, amounts, history, target,
    sources=SOURCES,
):  # fmt: skip
    """Fold clicks `begin:` in order, one at a time, into the sessions and the graph.

    All arrays are contiguous. users, items int32 [n] are rows and slots; event_ids uint64 [n]
    hashes, 0 for none, or None if nobody looks; times int64 [n] ms; weights float32 [n]. The m
    items without a slot come as `known` (the number of slots), `known` + 1, ...; the first kept
    click of one gives it the next slot, written to its entry of `born`, int32 [m], -1 until then.

    Writes for each click its fate int8 [n]; items: its slot, or -1 if it was not kept; amounts
    float32 [n]: the scaled weight, if it was kept; and if it continues a session with another item,
    history int32 [n, length] (newest first, -1 past the end) and target int32 [n], else -1.
    Returns (clicks folded so far, those before `begin` included, reason to stop, clock).
    """
    length, width, n = s_items.shape[1], s_ids.shape[1], len(items)
    room = len(nbr) - 2 * max(max_degree, LINE)
    free = known
    for j in range(len(born)):
        if born[j] >= 0:
            free += 1
    bits = pointer(wgt.view(np.int32))
    users, items, times, weights = (
        pointer(users), pointer(items), pointer(times), pointer(weights),
    )  # fmt: skip
    s_time, s_items, s_size = pointer(s_time), pointer(s_items), pointer(s_size)
    s_clicks, s_ids = pointer(s_clicks), pointer(s_ids)
    start, size_class, degree = pointer(start), pointer(size_class), pointer(degree)
    last_seen, nbr, wgt = pointer(last_seen), pointer(nbr), pointer(wgt)
    heads, born, fate, amounts = pointer(heads), pointer(born), pointer(fate), pointer(amounts)
    history, target = pointer(history), pointer(target)
    due = NEVER
    if clock != NEVER:
        due = (clock // tick + 1) * tick
    end = landmark + REBASE * half_life
    ready = begin
    for k in range(begin, n):
        if k == ready:
            # Some at a time: a stop, after which the landmark may be another, wastes few.
            ready = min(k + SCALED, n)
            for j in range(k, ready):
                amounts[j] = scaled(weights[j], times[j], landmark, half_life)
        if k + 2 * AHEAD < n:
            u, item = users[k + 2 * AHEAD], items[k + 2 * AHEAD]
            prefetch(address(s_time, u))
            prefetch(address(s_size, u))
            prefetch(address(s_clicks, u))
            prefetch(address(s_items, u * length))
            if event_ids is not None:
                prefetch(address(s_ids, u * width))
            if item < known:
                prefetch(address(start, item))
                prefetch(address(degree, item))
                prefetch(address(last_seen, item))
        if k + AHEAD < n:
            u, item = users[k + AHEAD], items[k + AHEAD]
            if item < known and s_size[u] > 0 and abs(times[k + AHEAD] - s_time[u]) <= gap:
                fetch_row(s_items[u * length], start, degree, nbr, wgt)
                fetch_row(item, start, degree, nbr, wgt)
        u = users[k]
        own = u * length
        target[k] = -1
        # A test for None alone is settled when this is compiled, and costs nothing.
        if event_ids is not None:  # noqa: SIM102
            if s_size[u] > 0 and _is_repeat(event_ids[k], s_ids, u * width, width):
                fate[k] = DUPLICATE
                items[k] = -1
                amounts[k] = 0
                continue
        t = times[k]
        if clock == NEVER:
            due = (t // tick + 1) * tick
        if t >= due:
            return k, TICK, clock
        if t >= end:
            return k, MOVE, clock
        continues = s_size[u] > 0 and abs(t - s_time[u]) <= gap
        if continues and s_clicks[u] >= max_events:
            fate[k] = TOO_LONG
            items[k] = -1
            amounts[k] = 0
        else:
            item = items[k]
            if item >= known:
                if born[item - known] < 0:
                    born[item - known] = free
                    free += 1
                item = born[item - known]
            if continues:
                last = s_items[own]
                if last != item:
                    if heads[0] * UNIT > room:
                        return k, FULL, clock
                    for a, b in ((last, item), (item, last)):
                        add(
                            a,
                            b,
                            amounts[k],
                            max_degree,
                            start,
                            size_class,
                            degree,
                            nbr,
                            wgt,
                            bits,
                            heads,
                        )
                    changed[last] = True
                    size = s_size[u]
                    for j in range(length):
                        history[k * length + j] = s_items[own + j] if j < size else -1
                    target[k] = item
                    for j in range(min(size, length - 1), 0, -1):
                        s_items[own + j] = s_items[own + j - 1]
                    s_items[own] = item
                    s_size[u] = min(size + 1, length)
                s_clicks[u] += 1
            else:
                if s_size[u] == 0:
                    for j in range(width):
                        s_ids[u * width + j] = 0
                s_items[own] = item
                s_size[u] = 1
                s_clicks[u] = 1
            fate[k] = KEPT
            items[k] = item
            last_seen[item] = max(last_seen[item], t)
            changed[item] = True
        if event_ids is not None:
            _remember(event_ids[k], s_ids, u * width, width)
        s_time[u] = t
        s_changed[u] = True
        clock = max(clock, t)
    return n, DONE, clock


@nb.njit(cache=True, nogil=True)
def _drop(  # type: ignore[no-untyped-def]
    dead, start, size_class, degree, last_seen, changed, nbr, wgt, heads, sources=SOURCES
):  # fmt: skip
    """Remove every arc from and to a dead node; the arcs that stay keep their order."""
    for a in range(len(degree)):
        n = degree[a]
        if n == 0:
            continue
        base = start[a] * UNIT
        kept = 0
        if not dead[a]:
            for i in range(base, base + n):
                if not dead[nbr[i]]:
                    nbr[base + kept] = nbr[i]
                    wgt[base + kept] = wgt[i]
                    kept += 1
        if kept == n:
            continue
        changed[a] = True
        degree[a] = kept
        fits = 0
        while (UNIT << fits) < kept:
            fits += 1
        if kept == 0:
            give(start[a], size_class[a], heads, nbr)
        elif fits < size_class[a]:
            # Halves that are no longer needed go back: the class of a slab follows from its row's
            # degree, so that a row from a checkpoint grows as the one it was taken from.
            while size_class[a] > fits:
                size_class[a] -= 1
                give(start[a] + (1 << size_class[a]), size_class[a], heads, nbr)
    for a in range(len(degree)):
        if dead[a]:
            changed[a] = True
            last_seen[a] = NEVER


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
        while int(self.heads[0] + (1 << size_class)) * UNIT > len(self.nbr):
            self.grow_pool()
        at = take(size_class, self.heads, self.nbr)
        self.start[slot], self.size_class[slot], self.degree[slot] = at, size_class, n
        self.nbr[at * UNIT : at * UNIT + n] = nbr
        self.wgt[at * UNIT : at * UNIT + n] = wgt

    def drop(self, dead: NDArray[np.bool_]) -> None:
        """Remove the nodes marked in `dead` (bool [slots]) with all arcs from and to them."""
        _drop(
            dead, self.start, self.size_class, self.degree, self.last_seen, self.changed,
            self.nbr, self.wgt, self.heads,
        )  # fmt: skip

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
