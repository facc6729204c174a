"""What a bench finds, and how two sides are timed fairly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

TIMES = 5
"""Measurements of each side; the median counts."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    threads: int = 1
    quick: bool = False
    """Smaller inputs: figures in a minute or two, rougher."""
    events: Path | None = None
    """A log for the round: TSV of user, item, ms and type."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a setting, our figure and the peer's, taken in turns."""

    bench: str
    setting: str
    ours: float
    unit: str
    peer: str
    """Name and version, or "none" where there is no peer but a limit."""
    peer_value: float | None = None
    ratio: float | None = None
    """Ours as a multiple of the peer's."""
    quality: str | None = None
    peer_quality: str | None = None
    """How good the results are, where speed could be bought with quality."""
    ceiling: str
    """The estimated physical limit, and how it was estimated."""
    target: str | None = None
    """What is aimed at, where something is."""


def in_turns(*sides: Callable[[], float], times: int = TIMES) -> list[float]:
    """The median figure of each side, measured one after the other, `times` times over.

    A machine that slows down meanwhile slows all sides. Each is called once before, unmeasured, so
    that compiling and cold caches count for none.
    """
    for side in sides:
        side()
    figures = [[side() for side in sides] for _ in range(times)]
    return [median(column) for column in zip(*figures, strict=True)]
