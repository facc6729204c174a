"""What each user clicked last. A session ends after a gap; sessions that ended are forgotten."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.ids.numbers import Numbers

REMEMBERED = 16
"""Last items of a session that are kept at least, a cache line: `fold` looks in them for pairs that
the user added before."""


class Columns(NamedTuple):
    """The columns of `Sessions` as kernels take them."""

    time: NDArray[np.int64]
    items: NDArray[np.int32]
    size: NDArray[np.int32]
    clicks: NDArray[np.int32]
    event_ids: NDArray[np.uint64]
    partition: NDArray[np.int32]
    newest: NDArray[np.int64]


class Sessions:
    """Open sessions, one row a user.

    `time` int64 [n] is the decay time of the last click in ms; `items` int32 [n, kept] the last
    items, newest first, where kept is `session.length`, or REMEMBERED if that is more; `size` int32
    [n] how many of them count; `clicks` int32 [n] how many clicks the session has, up to
    `session.max_events`; `event_ids` uint64 [n, width] the hashes of the user's last event ids,
    newest first, 0 past the end; `partition` int32 [n] where the last click came from; `newest`
    int64 [n] one more than the number of its newest visit (`core.ranking.visits`), 0 for none. A
    row with size 0 is free: nothing else in it counts.
    """

    def __init__(self, length: int, width: int) -> None:
        self.users = Numbers()
        self.names = self.users.names
        self.time = np.zeros(0, np.int64)
        self.items = np.zeros((0, max(length, REMEMBERED)), np.int32)
        self.size = np.zeros(0, np.int32)
        self.clicks = np.zeros(0, np.int32)
        self.event_ids = np.zeros((0, width), np.uint64)
        self.partition = np.zeros(0, np.int32)
        self.newest = np.zeros(0, np.int64)

    def intern(self, users: Sequence[str]) -> NDArray[np.int32]:
        """The row of each user, int32 [len(users)]."""
        rows = self.users.of(users)
        if len(self.names) > len(self.time):
            self._grow(max(1024, 2 * len(self.names)))
        return rows

    def columns(self) -> Columns:
        """What kernels take. It holds until a user is added."""
        return Columns(*(getattr(self, name) for name in Columns._fields))

    def _grow(self, n: int) -> None:
        for name in Columns._fields:
            old = getattr(self, name)
            grown = np.zeros((n - len(old), *old.shape[1:]), old.dtype)
            setattr(self, name, np.concatenate([old, grown]))

    def end_with(self, dead: NDArray[np.bool_]) -> None:
        """End the sessions that name a dead slot."""
        n = len(self.names)
        live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
        over = np.any(live & dead[self.items[:n]], axis=1)
        self._end(np.asarray(over))

    def forget(self, users: Iterable[str]) -> None:
        """End the sessions of these users."""
        self.size[[self.users[user] for user in users if user in self.users]] = 0
        self.collect()

    def _end(self, over: NDArray[np.bool_]) -> None:
        self.size[: len(over)][over] = 0
        self.collect()

    def collect(self) -> None:
        """Free the rows of users whose sessions ended, by the kernel that folds or here."""
        rows = np.flatnonzero((self.size[: len(self.names)] == 0) & self.users.held)
        if len(rows):
            self.users.forget(rows.tolist(), reuse=True)

    @property
    def open(self) -> NDArray[np.int64]:
        """The rows of the open sessions, ascending."""
        return np.flatnonzero(self.size[: len(self.names)])

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(int(getattr(self, name).nbytes) for name in Columns._fields)

    def relabel(self, new: NDArray[np.int32]) -> None:
        """Follow the vocabulary's new order; `new[old slot]` is the new slot or -1."""
        n = len(self.names)
        live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
        moved = np.where(live, new[self.items[:n]], 0)
        over = np.any(moved < 0, axis=1)
        self.items[:n] = np.maximum(moved, 0)
        self._end(np.asarray(over))
