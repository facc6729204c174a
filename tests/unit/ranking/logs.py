"""Small logs, and an engine that has taken them."""

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from core.settings import (
    Duration,
    GraphSettings,
    ModelSettings,
    QualitySettings,
    SessionSettings,
    Settings,
)

START, GAP, HALF_LIFE = 1_700_000_000_000, 1000, 4000
Row = tuple[str, str, int]
"""User, item and time."""


def settings(visits: int = 1000, sample: int = 0) -> Settings:
    return Settings(
        session=SessionSettings(Duration(GAP), 5, visits=visits),
        graph=GraphSettings(half_life=Duration(HALF_LIFE), horizon=Duration(10**9)),
        model=ModelSettings(dim=16),
        quality=QualitySettings(sample),
    )


def clicks(rows: list[Row]) -> Clicks:
    return Clicks(
        [user for user, _, _ in rows],
        [item for _, item, _ in rows],
        np.array([START + time for _, _, time in rows], np.int64),
        np.ones(len(rows), np.float32),
    )


def log_of(seed: int, n: int = 400, users: int = 12, items: int = 25) -> list[Row]:
    """Users who click items near the one before, some of them again, and pause now and then."""
    rng = np.random.default_rng(seed)
    where, time, out = rng.integers(items, size=users), 0, []
    for _ in range(n):
        user = int(rng.integers(users))
        time += int(rng.choice([1, 5, 20, 20, 200]))
        where[user] = (where[user] + rng.choice([-1, 0, 1, 1, 2])) % items
        out.append((f"u{user}", f"i{where[user]}", time))
    return out


def learned(rows: list[Row], chosen: Settings, size: int = 50) -> Engine:
    engine = Engine(chosen)
    for begin in range(0, len(rows), size):
        engine.step(Inputs(clicks(rows[begin : begin + size])))
    return engine
