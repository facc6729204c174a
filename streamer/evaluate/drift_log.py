"""An invented log whose items change their groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.settings import Duration

START_MS = 1_700_000_000_000
ITEMS, GROUP = 2000, 50
"""Items, and how many of them make a group."""
CLICKS_A_SESSION = 5
"""On average; the fewest are two."""
POPULARITY = 0.8
"""Exponent of Zipf's law. An item keeps its popularity when it changes its group."""
NOISE = 0.05
"""The share of clicks on any item."""
HALF_LIFE = 14_000
"""Clicks in a half-life of the graph: by so many, decayed co-visitation of an old log has 90% of
its hits again some 44,000 clicks after all groups changed."""
PAUSE = 2
"""Between two clicks of a session there are so many of others on average."""


@dataclass(frozen=True)
class Stretch:
    """n clicks in the order of their times, shapes (n,): int32 numbers, and ms."""

    name: str
    """What its users begin with, who are in no other stretch."""
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)

    def part(self, begin: int, end: int) -> Clicks:
        """Those from number `begin` up to `end`."""
        at = slice(begin, end)
        return Clicks(
            [f"{self.name}{user}" for user in self.users[at].tolist()],
            [f"i{item}" for item in self.items[at].tolist()],
            self.times[at],
            np.ones(len(self.times[at]), np.float32),
        )


class Groups:
    """Items in random groups. A visit stays in one, and popular items are clicked more often."""

    def __init__(self, seed: int, items: int = ITEMS) -> None:
        """The popularity of items is the same by any seed."""
        self._member = np.random.default_rng(seed).permutation(items).astype(np.int32)
        """int32 [items]: those of a group are next to each other."""
        popularity = 1.0 / np.arange(1, items + 1) ** POPULARITY
        popularity = np.random.default_rng(0).permutation(popularity)
        self._bounds = np.append(0.0, np.cumsum(popularity[self._member]))
        """float64 [items + 1]: between two neighbours lies the popularity of a member."""

    def clicks(self, n: int, name: str, seed: int, start: int, interval: float) -> Stretch:
        """n clicks from `start` (ms) on, one in `interval` ms on average."""
        # Each of its own numbers, so that a longer log begins as a shorter one. More sessions than
        # enough: those that begin last are cut off.
        begins, lengths, pauses, kinds, members, noise, strays = (
            np.random.default_rng([seed, start, kind]) for kind in range(7)
        )
        sessions = n // CLICKS_A_SESSION + n // 50 + 1000
        begin = start + np.cumsum(begins.exponential(CLICKS_A_SESSION * interval, sessions))
        length = 1 + lengths.geometric(1 / (CLICKS_A_SESSION - 1), sessions)
        user = np.repeat(np.arange(sessions, dtype=np.int32), length)
        passed = np.cumsum(pauses.exponential(PAUSE * interval, len(user)))
        time = begin[user] + passed - passed[np.cumsum(length) - length][user]
        group = self._at(kinds.random(sessions) * self._bounds[-1]) // GROUP
        low = self._bounds[group * GROUP]
        high = self._bounds[np.minimum((group + 1) * GROUP, len(self._member))]
        inside = low[user] + members.random(len(user)) * (high - low)[user]
        anywhere = strays.random(len(user)) * self._bounds[-1]
        item = self._member[self._at(np.where(noise.random(len(user)) < NOISE, anywhere, inside))]
        order = np.argsort(time, kind="stable")[:n]
        return Stretch(name, user[order], item[order], time[order].astype(np.int64))

    def _at(self, where: NDArray[np.float64]) -> NDArray[np.int64]:
        """The places of the members whose popularity these numbers fall on."""
        return np.minimum(np.searchsorted(self._bounds, where, "right"), len(self._member)) - 1


def interval(half_life: Duration) -> float:
    """Between two clicks, in ms, where a graph has this half-life."""
    return int(half_life) / HALF_LIFE
