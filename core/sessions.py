"""What each user clicked last. A session ends after a gap; sessions that ended are forgotten."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Sessions:
    """Open sessions, one row a user.

    `time` int64 [n] is the decay time of the last click in ms; `items` int32 [n, length] the last
    items, newest first; `size` int32 [n] how many of them count; `changed` bool [n] marks rows not
    yet in a checkpoint. A row with size 0 is free.
    """

    def __init__(self, length: int) -> None:
        self.users: dict[str, int] = {}
        self.names: list[str | None] = []
        self.time = np.zeros(0, np.int64)
        self.items = np.zeros((0, length), np.int32)
        self.size = np.zeros(0, np.int32)
        self.changed = np.zeros(0, np.bool_)
        self.ended: list[str] = []
        """Users whose sessions were forgotten since the last checkpoint."""
        self._free: list[int] = []

    def intern(self, users: Sequence[str]) -> NDArray[np.int32]:
        """The row of each user, int32 [len(users)]."""
        rows = self.users
        for user in users:
            if user not in rows:
                if self._free:
                    row = self._free.pop()
                    self.names[row] = user
                else:
                    row = len(self.names)
                    self.names.append(user)
                rows[user] = row
        if len(self.names) > len(self.time):
            self._grow(max(1024, 2 * len(self.names)))
        return np.fromiter(map(rows.__getitem__, users), np.int32, len(users))

    def _grow(self, n: int) -> None:
        grown = n - len(self.time)
        self.time = np.concatenate([self.time, np.zeros(grown, np.int64)])
        self.items = np.concatenate([self.items, np.zeros((grown, self.items.shape[1]), np.int32)])
        self.size = np.concatenate([self.size, np.zeros(grown, np.int32)])
        self.changed = np.concatenate([self.changed, np.zeros(grown, np.bool_)])

    def end(self, before: int, dead: NDArray[np.bool_]) -> None:
        """End sessions whose last click is older than `before` (ms), or that name a dead slot."""
        n = len(self.names)
        live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
        over = (self.time[:n] < before) | (live & dead[self.items[:n]]).any(axis=1)
        self.size[:n][over] = 0

    def collect(self) -> None:
        """Free the rows of users whose sessions ended."""
        if len(self.users) == int((self.size > 0).sum()):
            return
        for row in np.flatnonzero(self.size[: len(self.names)] == 0).tolist():
            user = self.names[row]
            if user is not None:
                self.names[row] = None
                del self.users[user]
                self._free.append(row)
                self.changed[row] = False
                self.ended.append(user)

    def load(self, users: Sequence[str], time: NDArray[np.int64], items: list[list[int]]) -> None:
        """Take sessions from a checkpoint; `items` are slots, newest first."""
        rows = self.intern(users)
        self.time[rows] = time
        for row, slots in zip(rows, items, strict=True):
            self.items[row, : len(slots)] = slots
            self.size[row] = len(slots)

    def relabel(self, new: NDArray[np.int32]) -> None:
        """Follow the vocabulary's new order; `new[old slot]` is the new slot or -1."""
        n = len(self.names)
        live = np.arange(self.items.shape[1])[None, :] < self.size[:n, None]
        moved = np.where(live, new[self.items[:n]], 0)
        self.size[:n][(moved < 0).any(axis=1)] = 0
        self.items[:n] = np.maximum(moved, 0)
        self.changed[:n] = self.size[:n] > 0
        self.collect()
