"""Folding clicks into the sessions and the graph, one at a time and in order."""

import math
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.counting import admits, event_of, fetch, is_crowded, place_of, was_counted
from core.graph.graph import LIVE, NEVER
from core.graph.slabs import INLINED, LINE, UNIT, UNWRITTEN, add, fetch_row
from core.kernels.lanes import SOURCES, address, pointers, prefetch

REBASE = 64
"""Half-lives after which the landmark moves: 2^64 leaves float32 room for 2^63 more weight."""

DONE, FULL, MOVE, CROWDED = 0, 1, 2, 3
"""Why `fold` stopped: all done; the pool must grow; time to move the landmark; the table of ids
that are counted needs room."""

SCALED = 128
"""Clicks whose weights are scaled together."""

AHEAD = 8
"""The kernel asks memory for the rows of the click that comes so many later, and for the session
of the one twice as far ahead."""

KEPT, DUPLICATE, TOO_LONG, HELD, SHOWN = range(5)
"""What became of a click: it counts; its event id came before, in its session or among the clicks
that its id was held back with; its session has too many clicks; its
id is not admitted (`core.graph.admission`); it is none, but an impression."""

BEGINS = -2
"""The target of a click that counts and begins a session."""


class Batch(NamedTuple):
    """n clicks to fold, in order. All arrays are contiguous."""

    users: NDArray[np.int32]
    """The row of each click's session."""
    event_ids: NDArray[np.uint64]
    """Hashes, 0 for none; an empty array if repeats are to be counted."""
    times: NDArray[np.int64]
    """Decay times, ms."""
    weights: NDArray[np.float32]
    partitions: NDArray[np.int32]
    """Where each click came from; an empty array if all came from 0."""
    clocks: NDArray[np.int64]
    """The greatest time of each partition so far, which folding moves on."""
    rows: int
    """How many rows of sessions are in use."""
    known: int
    """The number of slots so far. Items without one come as `known`, `known` + 1, ..."""


class Folded(NamedTuple):
    """What became of a batch of n clicks: shapes (n,), but history (n, length) and born (m,)."""

    fate: NDArray[np.int8]
    """KEPT, DUPLICATE, TOO_LONG, HELD or SHOWN; the rest is of use for kept clicks only."""
    slots: NDArray[np.int32]
    """The item, at first as the vocabulary numbers it. Folding writes its slot, or -1 for a click
    that is not kept."""
    amounts: NDArray[np.float32]
    """Scaled weights, 0 if not kept."""
    history: NDArray[np.int32]
    """The last items of the session that the click continues, newest first, -1 past the end."""
    target: NDArray[np.int32]
    """The item, if the click continues a session with another one; BEGINS if it begins a session;
    else -1."""
    added: NDArray[np.float32]
    """What the click added to the arcs between the two: its amount, or 0 if the session had gone
    from one to the other before."""
    born: NDArray[np.int32]
    """The slot of each of the m items that had none: -1, until its first kept click gives it the
    next free one."""

    @classmethod
    def of(cls, slots: NDArray[np.int32], length: int, new: int) -> "Folded":
        """For clicks on items, `new` of which have no slot."""
        n = len(slots)
        return cls(
            np.zeros(n, np.int8),
            slots,
            np.zeros(n, np.float32),
            np.full((n, length), -1, np.int32),
            np.full(n, -1, np.int32),
            np.zeros(n, np.float32),
            np.full(new, -1, np.int32),
        )


class Rules(NamedTuple):
    """What `fold` goes by; times in ms."""

    half_life: int
    gap: int
    """A session ends after so long without a click."""
    max_events: int
    """Clicks of a session that count."""
    max_degree: int
    commit: int
    """LIVE, or the commit whose clicks are folded again: rows that have them already stay."""


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
def _is_repeat(event_id, sessions, user, width):  # type: ignore[no-untyped-def]
    if event_id != 0:
        for j in range(user * width, user * width + width):
            if sessions.event_ids[j] == event_id:
                return True
    return False


@INLINED
def _remember(event_id, sessions, user, width):  # type: ignore[no-untyped-def]
    if event_id != 0:
        own = user * width
        for j in range(own + width - 1, own, -1):
            sessions.event_ids[j] = sessions.event_ids[j - 1]
        sessions.event_ids[own] = event_id


@INLINED
def _fetch(user, item, known, sessions, kept, width, graph):  # type: ignore[no-untyped-def]
    """Ask memory for a user's session, and for where an item's row is."""
    prefetch(address(sessions.time, user))
    prefetch(address(sessions.size, user))
    prefetch(address(sessions.clicks, user))
    prefetch(address(sessions.items, user * kept))
    if width > 0:
        prefetch(address(sessions.event_ids, user * width))
    if item < known:
        prefetch(address(graph.start, item))
        prefetch(address(graph.degree, item))
        prefetch(address(graph.last_seen, item))


@INLINED
def _has_pair(user, item, sessions, kept):  # type: ignore[no-untyped-def]
    """Whether the session went between its newest item and this one, either way, as far as its last
    items tell."""
    own = user * kept
    last = sessions.items[own]
    for j in range(own, own + sessions.size[user] - 1):
        one, other = sessions.items[j], sessions.items[j + 1]
        if (one == last and other == item) or (one == item and other == last):
            return True
    return False


@INLINED
def _go_on(user, item, sessions, length, kept, out, k):  # type: ignore[no-untyped-def]
    """Write click k as a transition to another item, which becomes the newest of the session."""
    own, size = user * kept, sessions.size[user]
    for j in range(length):
        out.history[k * length + j] = sessions.items[own + j] if j < size else -1
    out.target[k] = item
    for j in range(min(size, kept - 1), 0, -1):
        sessions.items[own + j] = sessions.items[own + j - 1]
    sessions.items[own] = item
    sessions.size[user] = min(size + 1, kept)


@INLINED
def _is_new(graph, a, commit):  # type: ignore[no-untyped-def]
    """Whether the row of a does not have what is folded now."""
    return commit == LIVE or graph.cut[a] < commit


@INLINED
def _sweep(sessions, rows, partition, before):  # type: ignore[no-untyped-def]
    """End the sessions of a partition whose last click is older than `before`."""
    for u in range(rows):
        if sessions.partition[u] == partition and sessions.time[u] < before:
            sessions.size[u] = 0


@INLINED
def _leave_out(fate, out, k):  # type: ignore[no-untyped-def]
    out.fate[k] = fate
    out.slots[k] = -1
    out.amounts[k] = 0


@INLINED
def _show(item, amount, commit, graph):  # type: ignore[no-untyped-def]
    """Count an impression of an item that was clicked before; `amount` is less than 0.

    It is of no session, so that nothing remembers its event id: sent twice it counts twice. No
    clock goes by it, and no item is born, or lives longer, by it. One of an item that nobody has
    clicked yet counts for nothing: so that does not depend on what else is known of the item, as
    its attributes.
    """
    if item >= 0 and graph.clicks[item] > 0 and _is_new(graph, item, commit):
        graph.shown[item] -= amount
        graph.changed[item] |= UNWRITTEN


@nb.njit(cache=True, nogil=True)
def fold(begin, clicks, sessions, graph, counting, out, times, rules, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Fold clicks `begin:` of a `Batch` in order, one at a time, into the sessions and the graph.

    `counting` is of `core.graph.counting`. `out` is a `Folded`, whose `amounts` and `history` are
    written for kept clicks and transitions only; `times` the greatest time so far and the landmark.
    Returns (clicks folded so far, those before `begin` included, reason to stop, greatest time).
    """
    n, length, (now, landmark) = len(out.slots), out.history.shape[1], times
    kept = sessions.items.shape[1]
    width = sessions.event_ids.shape[1]
    looks = width > 0 and len(clicks.event_ids) > 0
    room = len(graph.nbr) - 2 * max(rules.max_degree, LINE)
    known = clicks.known
    free = known
    for j in range(len(out.born)):
        if out.born[j] >= 0:
            free += 1
    by_partition = len(clicks.partitions) > 0
    commit = rules.commit
    counts, size = len(counting.items) > 0, len(counting.ids)
    clicks, sessions, graph, counting, out = (
        pointers(clicks), pointers(sessions), pointers(graph), pointers(counting), pointers(out),
    )  # fmt: skip
    end = landmark + REBASE * rules.half_life
    ready = begin
    for k in range(begin, n):
        if k == ready:
            # They are scaled some at a time, as a stop may move the landmark and waste the rest.
            ready = min(k + SCALED, n)
            for j in range(k, ready):
                out.amounts[j] = scaled(
                    clicks.weights[j], clicks.times[j], landmark, rules.half_life
                )
        if k + 2 * AHEAD < n:
            u, item = clicks.users[k + 2 * AHEAD], out.slots[k + 2 * AHEAD]
            _fetch(u, item, known, sessions, kept, width if looks else 0, graph)
        if k + AHEAD < n:
            u, item = clicks.users[k + AHEAD], out.slots[k + AHEAD]
            away = abs(clicks.times[k + AHEAD] - sessions.time[u])
            if item < known and sessions.size[u] > 0 and away <= rules.gap:
                fetch_row(graph, sessions.items[u * kept])
                fetch_row(graph, item)
            if counts:
                fetch(counting, size, k + AHEAD)
        u, t = clicks.users[k], clicks.times[k]
        out.target[k] = -1
        if clicks.weights[k] < 0:
            if t >= end:
                return k, MOVE, now
            item = out.slots[k]
            _show(item if item < known else out.born[item - known], out.amounts[k], commit, graph)
            _leave_out(SHOWN, out, k)
            continue
        is_open = sessions.size[u] > 0
        if looks and is_open and _is_repeat(clicks.event_ids[k], sessions, u, width):
            _leave_out(DUPLICATE, out, k)
            continue
        place, event = 0, np.uint32(0)
        if counts:
            place = place_of(counting, size, k)
            if looks:
                event = event_of(counting, k, clicks.event_ids[k])
            if was_counted(counting, place, event, max(now, t)):
                _leave_out(DUPLICATE, out, k)
                continue
        if t >= end:
            return k, MOVE, now
        partition = clicks.partitions[k] if by_partition else np.int32(0)
        clock = clicks.clocks[partition]
        if t > clock:
            if clock != NEVER and t // rules.gap > clock // rules.gap:
                _sweep(sessions, clicks.rows, partition, t - rules.gap)
                is_open = sessions.size[u] > 0
            clicks.clocks[partition] = t
        continues = is_open and abs(t - sessions.time[u]) <= rules.gap
        if counts and is_crowded(counting):
            return k, CROWDED, now
        if continues and sessions.clicks[u] >= rules.max_events:
            _leave_out(TOO_LONG, out, k)
        elif counts and not admits(counting, place, k, event, t, max(now, t)):
            _leave_out(HELD, out, k)  # and nothing of it is remembered here
            now = max(now, t)
            continue
        else:
            item = out.slots[k]
            if item >= known:
                if out.born[item - known] < 0:
                    out.born[item - known] = free
                    free += 1
                item = out.born[item - known]
            if continues:
                last = sessions.items[u * kept]
                if last != item:
                    if graph.heads[0] * UNIT > room:
                        return k, FULL, now
                    if not _has_pair(u, item, sessions, kept):
                        for a, b in ((last, item), (item, last)):
                            if _is_new(graph, a, commit):
                                add(graph, a, b, out.amounts[k], rules.max_degree)
                                graph.changed[a] |= UNWRITTEN
                        out.added[k] = out.amounts[k]
                    _go_on(u, item, sessions, length, kept, out, k)
                sessions.clicks[u] += 1
            else:
                if not is_open:
                    for j in range(width):
                        sessions.event_ids[u * width + j] = 0
                sessions.items[u * kept] = item
                sessions.size[u] = 1
                sessions.clicks[u] = 1
                out.target[k] = BEGINS
            out.fate[k] = KEPT
            out.slots[k] = item
            if _is_new(graph, item, commit):
                # Before its first click an item may be known by its attributes.
                seen = graph.last_seen[item] if graph.clicks[item] > 0 else NEVER
                graph.last_seen[item] = max(seen, t)
                graph.clicks[item] += 1
                graph.clicked[item] += out.amounts[k]
                graph.changed[item] |= UNWRITTEN
        if looks:
            _remember(clicks.event_ids[k], sessions, u, width)
        sessions.time[u] = t
        sessions.partition[u] = partition
        now = max(now, t)
    return n, DONE, now
