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
    changed: NDArray[np.uint8]


class Sessions:
    """Open sessions, one row a user.

    `time` int64 [n] is the decay time of the last click in ms; `items` int32 [n, kept] the last
    items, newest first, where kept is `session.length`, or REMEMBERED if that is more; `size` int32
    [n] how many of them count; `clicks` int32 [n] how many clicks the session has, up to
    `session.max_events`; `event_ids` uint64 [n, width] the hashes of the user's last event ids,
    newest first, 0 past the end; `changed` bool [n] marks rows not yet in a
    checkpoint. A row with size 0 is free: nothing else in it counts.
    """

    def __init__(self, length: int, width: int) -> None:
        self.users = Numbers()
        self.names = self.users.names
        self.time = np.zeros(0, np.int64)
        self.items = np.zeros((0, max(length, REMEMBERED)), np.int32)
        self.size = np.zeros(0, np.int32)
        self.clicks = np.zeros(0, np.int32)
        self.event_ids = np.zeros((0, width), np.uint64)
        self.changed = np.zeros(0, np.bool_)
        self.ended: list[str] = []
        """Users whose sessions were forgotten since the last checkpoint."""
        self._to_collect = False
        """Whether a session may have ended since rows were freed."""

    def intern(self, users: Sequence[str]) -> NDArray[np.int32]:
        """The row of each user, int32 [len(users)]."""
        rows = self.users.of(users)
        if len(self.names) > len(self.time):
            self._grow(max(1024, 2 * len(self.names)))
        return rows

    def columns(self) -> Columns:
        """What kernels take. It holds until a user is added."""
        return Columns(
            self.time, self.items, self.size, self.clicks, self.event_ids,
            self.changed.view(np.uint8),
        )  # fmt: skip

    def _grow(self, n: int) -> None:
        for name in Columns._fields:
            old = getattr(self, name)
            grown = np.zeros((n - len(old), *old.shape[1:]), old.dtype)
            setattr(self, name, np.concatenate([old, grown]))

    def end(self, before: int, dead: NDArray[np.bool_]) -> None:
        """End sessions whose last click is older than `before` (ms), or that name a dead slot."""
        n = len(self.names)
        over = self.time[:n] < before
        if dead.any():
            live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
            over |= (live & dead[self.items[:n]]).any(axis=1)
        self.size[:n][over] = 0
        self._to_collect = True

    def forget(self, users: Iterable[str]) -> None:
        """End the sessions of these users at once. The next checkpoint deletes them."""
        self.size[[self.users[user] for user in users if user in self.users]] = 0
        self._to_collect = True
        self.collect()

    def collect(self) -> None:
        """Free the rows of users whose sessions ended."""
        if not self._to_collect:
            return
        self._to_collect = False
        rows = np.flatnonzero((self.size[: len(self.names)] == 0) & self.users.held)
        self.ended += self.users.forget(rows.tolist(), reuse=True)
        self.changed[rows] = False

    def load(
        self, users: Sequence[str], time: NDArray[np.int64], clicks: NDArray[np.int32],
        items: list[list[int]], event_ids: list[NDArray[np.uint64]],
    ) -> None:  # fmt: skip
        """Take sessions from a checkpoint; `items` are slots, and both lists newest first."""
        rows = self.intern(users)
        self.time[rows], self.clicks[rows], self.event_ids[rows] = time, clicks, 0
        for row, slots, ids in zip(rows, items, event_ids, strict=True):
            self.items[row, : len(slots)] = slots
            self.size[row] = len(slots)
            self.event_ids[row, : len(ids)] = ids

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(int(getattr(self, name).nbytes) for name in Columns._fields)

    def relabel(self, new: NDArray[np.int32]) -> None:
        """Follow the vocabulary's new order; `new[old slot]` is the new slot or -1."""
        n = len(self.names)
        live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
        moved = np.where(live, new[self.items[:n]], 0)
        self.size[:n][(moved < 0).any(axis=1)] = 0
        self.items[:n] = np.maximum(moved, 0)
        self.changed[:n] = self.size[:n] > 0
        self._to_collect = True
        self.collect()
