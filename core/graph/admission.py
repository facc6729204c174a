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
"""Of the ids that are counted, where they are `admission.most`, this part stays."""
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
    """Of the last one's event id, 0 for none: what is sent twice counts once."""
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
    width: int
    room: int
    """Entries that may be in use."""
    items: NDArray[np.uint64]
    """[n]: hash of each click's id; empty where all are admitted."""
    by: NDArray[np.uint64]
    """[n]: of its user."""


class Entries(NamedTuple):
    """Some entries, n of them, as they are written. Shapes (n,), but users [n, width]."""

    ids: NDArray[np.uint64]
    time: NDArray[np.int64]
    clicks: NDArray[np.int32]
    event: NDArray[np.uint32]
    users: NDArray[np.uint32]

    def at(self, chosen: Any) -> "Entries":
        """Those where `chosen`, bool [n], is true, or in a slice."""
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


@INLINED
def is_crowded(counting):  # type: ignore[no-untyped-def]
    """Whether the table must grow, or some must leave it, before another id comes."""
    used, admitted = counting.used[0], counting.used[1]
    return used >= counting.room or used - admitted >= counting.most


@INLINED
def admits(counting, size, click, event, time, now):  # type: ignore[no-untyped-def]
    """Count a click, of this event id and time; whether its id is admitted, with it or before.

    `now` is the greatest time so far. What was admitted may be asked again: the answer stays.
    """
    key = counting.items[click]
    k = _place(counting, size, key)
    width = counting.width
    if counting.ids[k] == 0:
        counting.ids[k] = key
        counting.used[0] += 1
        is_new = True
    elif counting.clicks[k] == ADMITTED:
        counting.time[k] = max(counting.time[k], time)
        return True
    else:
        is_new = now - counting.time[k] > counting.forget
    if is_new:
        counting.time[k] = time
        counting.clicks[k] = 0
        counting.event[k] = 0
        for j in range(k * width, k * width + width):
            counting.users[j] = 0
    elif event != 0 and counting.event[k] == event:
        return False
    counting.time[k] = max(counting.time[k], time)
    counting.clicks[k] += 1
    counting.event[k] = event
    user = np.uint32(counting.by[click] >> np.uint64(32)) | np.uint32(1)
    j, end = k * width, k * width + width
    while j < end and counting.users[j] != 0 and counting.users[j] != user:
        j += 1
    if j < end:
        counting.users[j] = user
    are_enough = width == 0 or counting.users[end - 1] != 0
    if counting.clicks[k] < counting.min_events or not are_enough:
        return False
    counting.clicks[k] = ADMITTED
    counting.time[k] = time
    counting.used[1] += 1
    return True


@nb.njit(cache=True, nogil=True)
def _put(counting, entries, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Put entries that are not there into a table that has room."""
    size, n, other = len(counting.ids), len(entries.ids), entries.users.shape[1]
    counting, entries = pointers(counting), pointers(entries)
    width = counting.width
    for i in range(n):
        k = _place(counting, size, entries.ids[i])
        counting.ids[k] = entries.ids[i]
        counting.time[k] = entries.time[i]
        counting.clicks[k] = entries.clicks[i]
        counting.event[k] = entries.event[i]
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
        counting.clicks[k] = ADMITTED
        counting.time[k] = times[i]
        counting.used[1] += 1


@nb.njit(cache=True, nogil=True)
def _leave(counting, keys, since, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Take ids out of the table that were not clicked since then. What lies behind one moves up,
    so that no gap is left."""
    size, counting = len(counting.ids), pointers(counting)
    width = counting.width
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
                counting.event[gap] = counting.event[k]
                for j in range(width):
                    counting.users[gap * width + j] = counting.users[k * width + j]
                gap = k
            k = (k + 1) & (size - 1)
        counting.ids[gap] = 0


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
        none = np.zeros(0, np.uint64)
        self._table = Counting(
            np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.int32),
            np.zeros(size, np.uint32), np.zeros((size, width), np.uint32), np.zeros(2, np.int64),
            self._seed, s.min_events, int(s.forget), s.most, width, _share(size, FULLEST),
            none, none,
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

    def make_room(self) -> None:
        """Where it is crowded: as many ids as are to be counted at most are one quarter too many,
        and else the table grows."""
        entries = self.entries()
        if self.counted < self.settings.most:
            self._fill(entries, 2 * len(self._table.ids))
            return
        counted = np.flatnonzero(entries.clicks != ADMITTED)
        # By times, and among equal ones by ids, so that it does not matter where they stand.
        order = np.lexsort((entries.ids[counted], entries.time[counted]))
        stay = np.ones(len(entries.ids), np.bool_)
        stay[counted[order[: len(order) - _share(self.settings.most, STAY)]]] = False
        self._fill(entries.at(stay), len(self._table.ids))

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
        there = np.zeros(len(keys), np.bool_)
        _are_admitted(self._table, keys, there)
        if not there.all():
            self._reserve(int((~there).sum()))
            _admit(self._table, keys[~there], times[~there].astype(np.int64))

    def entries(self) -> Entries:
        """All entries, as copies, in no order that means anything."""
        held = self._table.ids != 0
        t = self._table
        return Entries(t.ids, t.time, t.clicks, t.event, t.users).at(held)

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
