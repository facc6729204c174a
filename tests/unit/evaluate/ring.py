"""Clicks that go round a ring of items, and an engine and a past that took them."""

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from core.settings import Duration, GraphSettings, ModelSettings, SessionSettings, Settings
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked
from streamer.evaluate.tables import Table

START, GAP = 1_700_000_000_000, 1000
SETTINGS = Settings(
    session=SessionSettings(Duration(GAP), 3, 50, 2),
    graph=GraphSettings(half_life=Duration(100_000), max_degree=64),
    model=ModelSettings(dim=16),
)
ALL = 1_000_000

Row = tuple[str, str, int]


def clicks(rows: list[Row], ids: NDArray[np.uint64] | None = None) -> Clicks:
    """Rows are user, item and time."""
    times = np.array([START + time for _, _, time in rows], np.int64)
    users, items = [user for user, _, _ in rows], [item for _, item, _ in rows]
    return Clicks(users, items, times, np.ones(len(rows), np.float32), ids)


def visits(seed: int, at: int, users: int = 40, items: int = 50) -> list[Row]:
    """Clicks of users who go round a ring of items, by one step or two, and at times back."""
    rng = np.random.default_rng(seed)
    where = rng.integers(items, size=users)
    rows = []
    for k in range(5):
        where = (where + rng.choice([-1, 1, 1, 2], size=users)) % items
        rows += [(f"u{seed % 3}-{user}", f"i{where[user]}", at + 20 * k) for user in range(users)]
    return rows


class Learned:
    """An engine and a past that took the same rounds."""

    def __init__(self, settings: Settings = SETTINGS, rounds: int = 6) -> None:
        self.engine, self.past = Engine(settings), Past(settings)
        for number in range(rounds):
            self.round(visits(number, at=400 * number))

    def round(self, rows: list[Row]) -> None:
        self.past.take(clicks(rows), 0)
        self.past.learn()
        self.engine.step(Inputs(clicks(rows)))

    def ask(self, rows: list[Row], unseen: bool = False, size: int = ALL) -> Asked:
        """The positions of a round that the past goes on to know of, and the engine does not."""
        return Asked(self.engine, self.past, self.past.take(clicks(rows), size), unseen)


def names(past: Past, numbers: NDArray[np.int32]) -> list[str]:
    return past.vocabulary.names(numbers)


def weights(table: Table, a: int) -> dict[int, float]:
    """The row of item a."""
    return dict(zip(*(column.tolist() for column in table.row(a)), strict=True))
