"""A synthetic stream of clicks, for benches that must run anywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

START_MS = 1_700_000_000_000
SPAN_MS = 14 * 86_400_000
CLICKS_A_SESSION = 6
PAUSE_MS = 40_000
RELATED = 24
"""Items that visitors of an item go on to, three times in four; else to any item."""
POPULARITY = 0.8
"""Exponent of Zipf's law."""


@dataclass(frozen=True)
class Stream:
    """n clicks in the order of their times, shapes (n,): int32 numbers, and ms."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, clicks: int, items: int, users: int, seed: int = 1) -> "Stream":
        """About so many clicks over two weeks: sessions of random length that begin at any time."""
        rng = np.random.default_rng(seed)
        shares = np.cumsum(1.0 / np.arange(1, items + 1) ** POPULARITY)

        def popular(n: int) -> NDArray[np.int32]:
            return np.searchsorted(shares, rng.random(n) * shares[-1]).astype(np.int32)

        related = popular(items * RELATED).reshape(items, RELATED)
        sessions = clicks // CLICKS_A_SESSION
        left = rng.geometric(1 / CLICKS_A_SESSION, sessions)
        user = rng.integers(users, size=sessions, dtype=np.int32)
        time = START_MS + rng.integers(SPAN_MS, size=sessions)
        item = popular(sessions)
        steps = []
        while len(left):
            steps.append((user, item, time))
            on = left > 1
            left, user, item, time = left[on] - 1, user[on], item[on], time[on]
            n = len(left)
            near = related[item, rng.integers(RELATED, size=n)]
            item = np.where(rng.random(n) < 0.75, near, popular(n))
            time = time + 1 + rng.exponential(PAUSE_MS, n).astype(np.int64)
        columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
        order = np.argsort(columns[2], kind="stable")
        return cls(*(column[order] for column in columns))
