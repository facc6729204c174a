"""Which ids are admitted: the others are counted, in little memory, and are nothing else.

Random ids, of bots, of tests, of a shop's broken links, come once and never again, and each would
have a row, a vector and records in every topic. With `admission.min_events` an id has none of these
before it was clicked so often, and by `admission.min_users` users: as the dynamic filters of
Monolith's collisionless embedding table (Liu et al., "Monolith: real time recommendation system
with collisionless embedding table", ORSUM 2022), but exactly, and not by chance.

What an id needs is decided click by click, in the order of the log, by what the log says and by
nothing else: whether the catalogue describes it, which workers hear of at different moments, plays
no part. So all who have folded the same are at the same table (`core.graph.counting`).

A click that is held back changes no session: the ones before and after it are neighbours in theirs.
So no session remembers its event id, and the entry of its id does, also once that is admitted:
producers send whole batches again, and then it comes behind others.
"""

from collections.abc import Iterable, Mapping, Sequence
from secrets import randbits
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.graph import counting
from core.graph.counting import ADMITTED, COLUMNS, Counting, Entries
from core.ids.hashing import hash_texts
from core.ids.texts import Texts
from core.settings import AdmissionSettings

FULLEST = 4, 5
"""A table is at most this full: longer runs of entries are slow to search."""
GROWTH = 5, 4
"""A table that is full grows by so much: most of what it grows by is not used yet."""
STAY = 3, 4
"""Of the ids that are counted, where they are as many as there may be, this part stays."""
EVENTS = 8
"""Event ids that an entry remembers at most."""
SMALLEST = 1024
"""Entries of the smallest table."""


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
        users = s.min_users if s.min_users > 1 else 0
        # Where users are what it lacks, the last of them admits an id.
        width = users - (s.min_events <= users)
        events = min(EVENTS, max(s.min_events - 1, users))
        none = np.zeros(0, np.uint64)
        self._table = Counting(
            np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.int32),
            np.zeros((size, events), np.uint32), np.zeros((size, width), np.uint32),
            np.zeros(2, np.int64), self._seed, s.min_events, s.min_users, int(s.forget), s.most,
            events, width, _share(size, FULLEST), none, none,
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

    def make_room(self, taken: Counting) -> Counting:
        """Where it is crowded: as many ids as may be counted are one quarter too many, and else the
        table grows. Returns what `fold` goes on with, of the same clicks."""
        t, limit = self._table, counting.limit(self.settings.most, self.admitted)
        if self.counted < limit:
            self._grow(_share(len(t.ids), GROWTH))
            return self._table._replace(items=taken.items, by=taken.by)
        counted = np.flatnonzero((t.ids != 0) & (t.clicks != ADMITTED))
        # By times, and among equal ones by ids, so that it does not matter where they stand.
        order = counted[np.lexsort((t.ids[counted], t.time[counted]))]
        gone = t.ids[order[: len(order) - _share(limit, STAY)]]
        counting.leave(t, gone, np.full(len(gone), np.iinfo(np.int64).max))
        return taken

    def leave(self, gone: Mapping[str, int]) -> None:
        """Items left, as `core.rounds.Evidence` says: they are counted anew if they come back."""
        if self.is_on and gone:
            since = np.array(list(gone.values()), np.int64)
            counting.leave(self._table, _hashes(list(gone)), since)

    def admit(self, names: Sequence[str], times: NDArray[np.int64]) -> None:
        """Let those of these ids be admitted, last clicked at these times, that are not yet."""
        if not self.is_on:
            return
        keys = _hashes(names)
        there = self._has(keys)
        if not there.all():
            self._reserve(int((~there).sum()))
            counting.admit(self._table, keys[~there], times[~there].astype(np.int64))

    def has(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Of each id, whether it is admitted."""
        return self._has(_hashes(names)) if self.is_on else np.ones(len(names), np.bool_)

    def _has(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        out = np.zeros(len(keys), np.bool_)
        counting.are_admitted(self._table, keys, out)
        return out

    def entries(self) -> Entries:
        """All entries, as copies, by their hashes: where they stand is different in each run."""
        ids = self._table.ids
        held = np.flatnonzero(ids)
        return self._columns.at(held[np.argsort(ids[held])])

    @property
    def _columns(self) -> Entries:
        return Entries(*(getattr(self._table, name) for name in COLUMNS))

    def load(self, parts: Iterable[Entries]) -> None:
        """Take entries into a table that does not have them."""
        for part in parts if self.is_on else ():
            self._reserve(len(part.ids))
            counting.put(self._table, part.at(np.ones(len(part.ids), np.bool_)))  # as copies

    def _reserve(self, more: int) -> None:
        size = max(SMALLEST, len(self._table.ids))
        while self._table.used[0] + more > _share(size, FULLEST):
            size = _share(size, GROWTH)
        if size > len(self._table.ids):
            self._grow(size)

    def _grow(self, size: int) -> None:
        before = self._columns
        self._empty(size)
        counting.put(self._table, before)


def _share(n: int, part: tuple[int, int]) -> int:
    return n * part[0] // part[1]


def _hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    return _keys(hash_texts(Texts.of(names)))


def _keys(hashes: NDArray[np.uint64]) -> NDArray[Any]:
    """Hashes as keys of the table, in which 0 is none."""
    return np.maximum(hashes, np.uint64(1))
