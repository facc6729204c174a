"""The table in which ids are counted, and the kernels on it (`core.graph.admission`).

It is open addressing with linear probing over 64-bit hashes of the ids; two ids that share one are
counted as one, which of a million ids happens to two with a probability of 3e-8. What is in it does
not depend on where it stands.
"""

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.ids.hashing import mix
from core.kernels.lanes import SOURCES, address, pointers, prefetch

ADMITTED = -1
"""In place of a count: the id is in the graph."""
BESIDE = 8
"""One in so many of those that are admitted may be counted, if that is more than `admission.most`:
to find those that leave is to look at all entries, which takes no longer for each that comes."""

INLINED = nb.njit(forceinline=True)


class Counting(NamedTuple):
    """The table as kernels take it, with what they go by, and the n clicks that are folded."""

    ids: NDArray[np.uint64]
    """By entry, the hash of its id; 0 for a free one."""
    time: NDArray[np.int64]
    """When the id was clicked last, ms. Of one that is admitted, the time its graph row has."""
    clicks: NDArray[np.int32]
    """How many were counted, or ADMITTED."""
    event: NDArray[np.uint32]
    """[entries, events]: of the event ids of the last ones that had any and were counted, each with
    its user, the newest first, 0 past the end: what is sent twice counts once."""
    users: NDArray[np.uint32]
    """[entries, width]: of the different users who clicked it, 0 past the end. One fewer than
    `min_users` where the click of that many is enough: it admits, and need not be remembered."""
    used: NDArray[np.int64]
    """[2]: entries in use, and how many of them are admitted."""
    seed: np.uint64
    """Where entries stand follows from it. One that nobody knows: ids come from outside, and could
    be made to stand in each other's way."""
    min_events: int
    min_users: int
    forget: int
    most: int
    events: int
    width: int
    room: int
    """Entries that may be in use."""
    items: NDArray[np.uint64]
    """[n]: hash of each click's id; empty where all are admitted."""
    by: NDArray[np.uint64]
    """[n]: of its user."""


class Entries(NamedTuple):
    """Some entries, n of them, as they are written. Shapes (n,), but event [n, events] and users
    [n, width]."""

    ids: NDArray[np.uint64]
    time: NDArray[np.int64]
    clicks: NDArray[np.int32]
    event: NDArray[np.uint32]
    users: NDArray[np.uint32]

    def at(self, chosen: Any) -> "Entries":
        """Those where `chosen`, bool [n], is true, or in a slice, or of these numbers."""
        return Entries(
            self.ids[chosen], self.time[chosen], self.clicks[chosen], self.event[chosen],
            self.users[chosen],
        )  # fmt: skip


COLUMNS = Entries._fields


@INLINED
def _home(seed, size, key):  # type: ignore[no-untyped-def]
    """Where the search for an id begins, in a table of `size` entries, fewer than 2^32."""
    half = np.uint64(32)
    return np.int64((mix(key ^ seed) >> half) * np.uint64(size) >> half)


@INLINED
def _next(size, k):  # type: ignore[no-untyped-def]
    return k + 1 if k + 1 < size else 0


@INLINED
def _from(size, one, k):  # type: ignore[no-untyped-def]
    """How many entries k is behind `one`, round the end."""
    return k - one if k >= one else k - one + size


@INLINED
def _place(counting, size, key):  # type: ignore[no-untyped-def]
    """The entry of an id, or the free one where it would be."""
    k = _home(counting.seed, size, key)
    while counting.ids[k] != 0 and counting.ids[k] != key:
        k = _next(size, k)
    return k


@INLINED
def fetch(counting, size, click):  # type: ignore[no-untyped-def]
    """Ask memory for the entry of a click's id."""
    k = _home(counting.seed, size, counting.items[click])
    prefetch(address(counting.ids, k))
    prefetch(address(counting.time, k))
    prefetch(address(counting.clicks, k))


def limit(most: int, admitted: int) -> int:
    """How many ids may be counted, beside so many that are admitted."""
    return max(most, admitted // BESIDE)


_limit_of = INLINED(limit)


@INLINED
def is_crowded(counting):  # type: ignore[no-untyped-def]
    """Whether the table must grow, or some must leave it, before another id comes."""
    used, admitted = counting.used[0], counting.used[1]
    return used >= counting.room or used - admitted >= _limit_of(counting.most, admitted)


@INLINED
def place_of(counting, size, click):  # type: ignore[no-untyped-def]
    """The entry of a click's id, or the free one where it would be."""
    return _place(counting, size, counting.items[click])


@INLINED
def event_of(counting, click, event_id):  # type: ignore[no-untyped-def]
    """What an entry remembers of an event id: like a session, it has those of each user apart."""
    if event_id == 0:
        return np.uint32(0)
    return np.uint32(mix(event_id ^ counting.by[click]) >> np.uint64(32)) | np.uint32(1)


@INLINED
def _is_forgotten(counting, k, now):  # type: ignore[no-untyped-def]
    return counting.clicks[k] != ADMITTED and now - counting.time[k] > counting.forget


@INLINED
def was_counted(counting, k, event, now):  # type: ignore[no-untyped-def]
    """Whether entry k remembers this event, as of the greatest time so far."""
    if event == 0 or counting.ids[k] == 0 or _is_forgotten(counting, k, now):
        return False
    for j in range(k * counting.events, (k + 1) * counting.events):
        if counting.event[j] == event:
            return True
    return False


@INLINED
def admits(counting, k, click, event, time, now):  # type: ignore[no-untyped-def]
    """Count a click, whose entry is k, of this event and time; whether its id is admitted, with it
    or before.

    `now` is the greatest time so far. What was admitted may be asked again: the answer stays.
    """
    width, events = counting.width, counting.events
    if counting.ids[k] == 0:
        counting.ids[k] = counting.items[click]
        counting.used[0] += 1
        is_new = True
    elif counting.clicks[k] == ADMITTED:
        counting.time[k] = max(counting.time[k], time)
        return True
    else:
        is_new = _is_forgotten(counting, k, now)
    if is_new:
        counting.time[k] = time
        counting.clicks[k] = 0
        for j in range(k * events, k * events + events):
            counting.event[j] = 0
        for j in range(k * width, k * width + width):
            counting.users[j] = 0
    counting.time[k] = max(counting.time[k], time)
    counting.clicks[k] += 1
    user = np.uint32(counting.by[click] >> np.uint64(32)) | np.uint32(1)
    j, end = k * width, k * width + width
    while j < end and counting.users[j] != 0 and counting.users[j] != user:
        j += 1
    if j < end:
        counting.users[j] = user
    is_one_more = j == end  # than there is room for
    are_enough = is_one_more or (width == counting.min_users and counting.users[end - 1] != 0)
    if counting.clicks[k] >= counting.min_events and are_enough:
        counting.clicks[k] = ADMITTED
        counting.time[k] = time
        counting.used[1] += 1
        return True  # and its session remembers the event
    if event != 0:
        for j in range(k * events + events - 1, k * events, -1):
            counting.event[j] = counting.event[j - 1]
        counting.event[k * events] = event
    return False


@nb.njit(cache=True, nogil=True)
def put(counting, entries, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Put entries that are not there into a table that has room. Those without an id are none, so
    that a table's columns may be given as they are."""
    size, n = len(counting.ids), len(entries.ids)
    others, other = entries.event.shape[1], entries.users.shape[1]
    counting, entries = pointers(counting), pointers(entries)
    events, width = counting.events, counting.width
    for i in range(n):
        if entries.ids[i] == 0:
            continue
        k = _place(counting, size, entries.ids[i])
        counting.ids[k] = entries.ids[i]
        counting.time[k] = entries.time[i]
        counting.clicks[k] = entries.clicks[i]
        for j in range(min(events, others)):
            counting.event[k * events + j] = entries.event[i * others + j]
        for j in range(min(width, other)):
            counting.users[k * width + j] = entries.users[i * other + j]
        counting.used[0] += 1
        counting.used[1] += entries.clicks[i] == ADMITTED


@nb.njit(cache=True, nogil=True)
def are_admitted(counting, keys, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    size, counting = len(counting.ids), pointers(counting)
    for i in range(len(keys)):
        k = _place(counting, size, keys[i])
        out[i] = counting.ids[k] != 0 and counting.clicks[k] == ADMITTED


@nb.njit(cache=True, nogil=True)
def admit(counting, keys, times, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Let ids be admitted, as of these times, that are not. The table has room for all."""
    size, counting = len(counting.ids), pointers(counting)
    for i in range(len(keys)):
        k = _place(counting, size, keys[i])
        if counting.ids[k] == 0:
            counting.ids[k] = keys[i]
            counting.used[0] += 1
        elif counting.clicks[k] == ADMITTED:
            continue  # it is named twice
        counting.clicks[k] = ADMITTED
        counting.time[k] = times[i]
        counting.used[1] += 1


@nb.njit(cache=True, nogil=True)
def leave(counting, keys, since, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Take ids out of the table that were not clicked since then. What lies behind one moves up,
    so that no gap is left."""
    size, counting = len(counting.ids), pointers(counting)
    events, width = counting.events, counting.width
    for i in range(len(keys)):
        gap = _place(counting, size, keys[i])
        if counting.ids[gap] == 0 or counting.time[gap] >= since[i]:
            continue
        counting.used[0] -= 1
        counting.used[1] -= counting.clicks[gap] == ADMITTED
        k = _next(size, gap)
        while counting.ids[k] != 0:
            home = _home(counting.seed, size, counting.ids[k])
            if _from(size, home, k) >= _from(size, gap, k):
                counting.ids[gap] = counting.ids[k]
                counting.time[gap] = counting.time[k]
                counting.clicks[gap] = counting.clicks[k]
                for j in range(events):
                    counting.event[gap * events + j] = counting.event[k * events + j]
                for j in range(width):
                    counting.users[gap * width + j] = counting.users[k * width + j]
                gap = k
            k = _next(size, k)
        counting.ids[gap] = 0
        for j in range(gap * events, gap * events + events):
            counting.event[j] = 0
        for j in range(gap * width, gap * width + width):
            counting.users[j] = 0
