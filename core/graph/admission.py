"""Which ids are admitted: the others are counted, in little memory, and are nothing else.

Random ids, of bots, of tests, of a shop's broken links, come once and never again, and each would
have a row, a vector and records in every topic. With `admission.min_events` an id has none of these
before it was clicked so often, and by `admission.min_users` users: as the dynamic filters of
Monolith's collisionless embedding table (Liu et al., "Monolith: real time recommendation system
with collisionless embedding table", ORSUM 2022), but exactly, and not by chance.

What an id needs is decided click by click, in the order of the log, by what the log says and by
nothing else: whether the catalogue describes it, which workers hear of at different moments, plays
no part. So all who have folded the same are at the same table. It is open addressing with linear
probing over 64-bit hashes of the ids; two ids that share one are counted as one, which of a million
ids happens to two with a probability of 3e-8. What is in it does not depend on where it stands.

A click that is held back changes no session: the ones before and after it are neighbours in theirs.
So no session remembers its event id, and the entry of its id does, also once that is admitted:
producers send whole batches again, and then it comes behind others.
"""

from collections.abc import Iterable, Mapping, Sequence
from secrets import randbits
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.ids.hashing import hash_texts, mix
from core.ids.texts import Texts
from core.kernels.lanes import SOURCES, address, pointers, prefetch
from core.settings import AdmissionSettings

ADMITTED = -1
"""In place of a count: the id is in the graph."""
FULLEST = 3, 4
"""A table is at most this full: longer runs of entries are slow to search."""
STAY = 3, 4
"""Of the ids that are counted, where they are as many as there may be, this part stays."""
BESIDE = 8
"""One in so many of those that are admitted may be counted, if that is more than `admission.most`:
to find those that leave is to look at all entries, which takes no longer for each that comes."""
EVENTS = 8
"""Event ids that an entry remembers at most."""
SMALLEST = 1024
"""Entries of the smallest table, a power of two."""

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
    """[entries, width]: of the different users who clicked it, 0 past the end."""
    used: NDArray[np.int64]
    """[2]: entries in use, and how many of them are admitted."""
    seed: np.uint64
    """Where entries stand follows from it. One that nobody knows: ids come from outside, and could
    be made to stand in each other's way."""
    min_events: int
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
    """Where the search for an id begins, in a table of `size` entries."""
    return np.int64(mix(key ^ seed) & np.uint64(size - 1))


@INLINED
def _place(counting, size, key):  # type: ignore[no-untyped-def]
    """The entry of an id, or the free one where it would be."""
    k = _home(counting.seed, size, key)
    while counting.ids[k] != 0 and counting.ids[k] != key:
        k = (k + 1) & (size - 1)
    return k


@INLINED
def fetch(counting, size, click):  # type: ignore[no-untyped-def]
    """Ask memory for the entry of a click's id."""
    k = _home(counting.seed, size, counting.items[click])
    prefetch(address(counting.ids, k))
    prefetch(address(counting.time, k))
    prefetch(address(counting.clicks, k))


def _limit(most: int, admitted: int) -> int:
    """How many ids may be counted, beside so many that are admitted."""
    return max(most, admitted // BESIDE)


_limit_inlined = INLINED(_limit)


@INLINED
def is_crowded(counting):  # type: ignore[no-untyped-def]
    """Whether the table must grow, or some must leave it, before another id comes."""
    used, admitted = counting.used[0], counting.used[1]
    return used >= counting.room or used - admitted >= _limit_inlined(counting.most, admitted)


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
    are_enough = width == 0 or counting.users[end - 1] != 0
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
def _put(counting, entries, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Put entries that are not there into a table that has room."""
    size, n = len(counting.ids), len(entries.ids)
    others, other = entries.event.shape[1], entries.users.shape[1]
    counting, entries = pointers(counting), pointers(entries)
    events, width = counting.events, counting.width
    for i in range(n):
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
def _are_admitted(counting, keys, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    size, counting = len(counting.ids), pointers(counting)
    for i in range(len(keys)):
        k = _place(counting, size, keys[i])
        out[i] = counting.ids[k] != 0 and counting.clicks[k] == ADMITTED


@nb.njit(cache=True, nogil=True)
def _admit(counting, keys, times, sources=SOURCES):  # type: ignore[no-untyped-def]
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
def _leave(counting, keys, since, sources=SOURCES):  # type: ignore[no-untyped-def]
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
        k = (gap + 1) & (size - 1)
        while counting.ids[k] != 0:
            home = _home(counting.seed, size, counting.ids[k])
            if (k - home) & (size - 1) >= (k - gap) & (size - 1):
                counting.ids[gap] = counting.ids[k]
                counting.time[gap] = counting.time[k]
                counting.clicks[gap] = counting.clicks[k]
                for j in range(events):
                    counting.event[gap * events + j] = counting.event[k * events + j]
                for j in range(width):
                    counting.users[gap * width + j] = counting.users[k * width + j]
                gap = k
            k = (k + 1) & (size - 1)
        counting.ids[gap] = 0
        for j in range(gap * events, gap * events + events):
            counting.event[j] = 0
        for j in range(gap * width, gap * width + width):
            counting.users[j] = 0


class Admission:
    """The table of one engine, which follows from the clicks that it has folded."""

    def __init__(self, settings: AdmissionSettings) -> None:
        """`settings` have the time of `forget` (`Settings.admission_ms`)."""
        self.settings = settings
        self.is_on = settings.is_on
        self._seed = np.uint64(randbits(64))
        self._empty(SMALLEST if self.is_on else 0)

    def _empty(self, size: int) -> None:
        s = self.settings
        width = s.min_users if s.min_users > 1 else 0
        # As many as are counted of an id whose clicks are all of different users.
        events = min(EVENTS, max(s.min_events - 1, width))
        none = np.zeros(0, np.uint64)
        self._table = Counting(
            np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.int32),
            np.zeros((size, events), np.uint32), np.zeros((size, width), np.uint32),
            np.zeros(2, np.int64), self._seed, s.min_events, int(s.forget), s.most, events, width,
            _share(size, FULLEST), none, none,
        )  # fmt: skip

    @property
    def counted(self) -> int:
        """Ids that are counted, and not admitted. Those that are counted anew when they come again
        are among them."""
        return int(self._table.used[0] - self._table.used[1])

    @property
    def admitted(self) -> int:
        """Ids that are admitted."""
        return int(self._table.used[1])

    @property
    def nbytes(self) -> int:
        return sum(getattr(self._table, name).nbytes for name in COLUMNS)

    def of(self, clicks: Clicks) -> Counting:
        """What `fold` takes, of these clicks."""
        if not self.is_on:
            return self._table
        items, by = hash_texts(Texts.of(clicks.items)), hash_texts(Texts.of(clicks.users))
        return self._table._replace(items=_keys(items), by=by)

    def make_room(self, counting: Counting) -> Counting:
        """Where it is crowded: as many ids as may be counted are one quarter too many, and else the
        table grows. Returns what `fold` goes on with, of the same clicks."""
        t, limit = self._table, _limit(self.settings.most, self.admitted)
        if self.counted < limit:
            self._fill(self.entries(), 2 * len(t.ids))
            return self._table._replace(items=counting.items, by=counting.by)
        counted = np.flatnonzero((t.ids != 0) & (t.clicks != ADMITTED))
        # By times, and among equal ones by ids, so that it does not matter where they stand.
        order = counted[np.lexsort((t.ids[counted], t.time[counted]))]
        gone = t.ids[order[: len(order) - _share(limit, STAY)]]
        _leave(t, gone, np.full(len(gone), np.iinfo(np.int64).max))
        return counting

    def leave(self, gone: Mapping[str, int]) -> None:
        """Items left, as `core.rounds.Evidence` says: they are counted anew if they come back."""
        if self.is_on and gone:
            since = np.array(list(gone.values()), np.int64)
            _leave(self._table, _hashes(list(gone)), since)

    def admit(self, names: Sequence[str], times: NDArray[np.int64]) -> None:
        """Let those of these ids be admitted, last clicked at these times, that are not yet."""
        if not self.is_on:
            return
        keys = _hashes(names)
        there = self._has(keys)
        if not there.all():
            self._reserve(int((~there).sum()))
            _admit(self._table, keys[~there], times[~there].astype(np.int64))

    def has(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Of each id, whether it is admitted."""
        return self._has(_hashes(names)) if self.is_on else np.ones(len(names), np.bool_)

    def _has(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        out = np.zeros(len(keys), np.bool_)
        _are_admitted(self._table, keys, out)
        return out

    def entries(self) -> Entries:
        """All entries, as copies, by their hashes: where they stand is different in each run."""
        t, held = self._table, np.flatnonzero(self._table.ids)
        order = held[np.argsort(t.ids[held])]
        return Entries(t.ids, t.time, t.clicks, t.event, t.users).at(order)

    def load(self, parts: Iterable[Entries]) -> None:
        """Take entries into a table that does not have them."""
        for part in parts if self.is_on else ():
            self._reserve(len(part.ids))
            _put(self._table, part.at(np.ones(len(part.ids), np.bool_)))  # as copies

    def _reserve(self, more: int) -> None:
        size = max(SMALLEST, len(self._table.ids))
        while self._table.used[0] + more > _share(size, FULLEST):
            size *= 2
        if size > len(self._table.ids):
            self._fill(self.entries(), size)

    def _fill(self, entries: Entries, size: int) -> None:
        self._empty(size)
        _put(self._table, entries)


def _share(n: int, part: tuple[int, int]) -> int:
    return n * part[0] // part[1]


def _hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    return _keys(hash_texts(Texts.of(names)))


def _keys(hashes: NDArray[np.uint64]) -> NDArray[Any]:
    """Hashes as keys of the table, in which 0 is none."""
    return np.maximum(hashes, np.uint64(1))
