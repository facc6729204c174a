"""Ranks of many positions, and the figures that they come to."""

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER
from core.quality import DEPTH
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Ranks

BASELINE = "co-visitation"
"""The ranker whose hits are the measure of the others'."""
POPULAR, COMMON = 0.1, 0.5
"""The most popular tenth, by decayed count when asked; and the rest of the more popular half."""
NEW, YOUNG = 0.01, 0.1
"""Ages as shares of the log's time, below which an item is new, and young."""
UNKNOWN = "never seen"
"""The group of clicks on items that nobody clicked before."""
PARTS = 20
"""Points of the stream at which the picture has a figure."""
FEWEST = 20
"""Positions that such a point needs."""


class Figures(msgspec.Struct, frozen=True):
    """What a ranker did at some positions, with rank r from 1 on; past 20 it counts for nothing."""

    ranker: str
    of: str
    """Which positions: `all`, or by the target: `first` in its session or there `again`; `popular`,
    `common` or `rare`; `new`, `young` or `old`; or `never seen`."""
    positions: int
    hr: float
    """Share with r <= 20."""
    mrr: float
    """Mean of 1 / r."""
    ndcg: float
    """Mean of 1 / log2(1 + r)."""
    hr_error: float
    """Standard error of `hr`, as if positions were independent."""
    ratio: float
    """`hr` over that of BASELINE at the same positions; NaN if that is 0."""
    ratio_error: float
    """Its standard error: less than those of its parts, which hit and miss together."""


class Point(msgspec.Struct, frozen=True):
    """HR@20 in one stretch of the stream."""

    click: int
    """The number of the last click of the stretch."""
    positions: int
    hr: dict[str, float]


class Scores:
    """All ranks so far, with what positions are told apart by."""

    def __init__(self) -> None:
        self._ranks: list[Ranks] = []
        self._about: list[NDArray[np.float64]] = []
        self._first_time, self._last_time = NEVER, NEVER

    def add(self, asked: Asked, ranks: Ranks, past: Past) -> None:
        """Take the ranks of a round in; those of `popularity` and BASELINE are among them."""
        at = asked.positions
        known = asked.target >= 0
        popularity = ranks["popularity"] / max(len(asked.numbers), 1)
        born = np.array([past.born.get(b, NEVER) for b in at.target.tolist()], np.int64)
        age = np.where(known & (born != NEVER), at.time - born, 0)
        self._ranks.append(ranks)
        self._about.append(
            np.stack([at.click, known, at.repeated, np.where(known, popularity, 2.0), age])
        )
        if self._first_time == NEVER:
            self._first_time = past.time
        self._last_time = past.time

    def rankers(self) -> list[str]:
        return list(self._ranks[0]) if self._ranks else []

    def figures(self, begin: int) -> list[Figures]:
        """What each ranker did from click number `begin` on, for all positions and for groups."""
        if not self._ranks:
            return []
        about = np.concatenate(self._about, axis=1)
        late = about[0] >= begin
        groups = dict(self._groups(about[:, late]))
        rank = {
            ranker: np.concatenate([ranks[ranker] for ranks in self._ranks])[late]
            for ranker in self.rankers()
        }
        return [
            figures(ranker, of, rank[ranker][chosen], rank[BASELINE][chosen])
            for ranker in rank
            for of, chosen in groups.items()
        ]

    def _groups(self, about: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        _, known, repeated, popularity, age = about
        span = float(max(self._last_time - self._first_time, 1))
        is_known = known > 0
        yield "all", np.ones(len(known), np.bool_)
        yield "first", repeated == 0
        yield "again", repeated > 0
        yield "popular", popularity < POPULAR
        yield "common", (popularity >= POPULAR) & (popularity < COMMON)
        yield "rare", is_known & (popularity >= COMMON)
        yield "new", is_known & (age < NEW * span)
        yield "young", is_known & (age >= NEW * span) & (age < YOUNG * span)
        yield "old", is_known & (age >= YOUNG * span)
        yield UNKNOWN, ~is_known

    def over_stream(self, clicks: int) -> list[Point]:
        """HR@20 by stretch of a log of so many clicks, without those of under FEWEST positions."""
        if not self._ranks:
            return []
        click = np.concatenate([about[0] for about in self._about])
        part = (click * PARTS // max(clicks, 1)).astype(np.int64)
        hits = {
            ranker: np.concatenate([ranks[ranker] for ranks in self._ranks]) < DEPTH
            for ranker in self.rankers()
        }
        return [
            Point(
                int((p + 1) * clicks // PARTS),
                int((part == p).sum()),
                {ranker: float(hit[part == p].mean()) for ranker, hit in hits.items()},
            )
            for p in np.flatnonzero(np.bincount(part) >= FEWEST).tolist()
        ]


def figures(ranker: str, of: str, rank: NDArray[np.int32], baseline: NDArray[np.int32]) -> Figures:
    """The figures of ranks from 0 on, int32 [q], beside those of BASELINE; NaN of none."""
    q = len(rank)
    if q == 0:
        return Figures(ranker, of, 0, *[math.nan] * 6)
    hit, base = rank < DEPTH, baseline < DEPTH
    r = rank[hit] + 1.0
    hr, base_hr = len(r) / q, float(base.mean())
    ratio = hr / base_hr if base_hr else math.nan
    # Of a ratio of means, to the first order.
    ratio_error = (
        float(np.std(hit - ratio * base)) / base_hr / math.sqrt(q) if base_hr else math.nan
    )
    return Figures(
        ranker, of, q, hr, float((1.0 / r).sum() / q), float((1.0 / np.log2(1.0 + r)).sum() / q),
        math.sqrt(hr * (1.0 - hr) / q), ratio, ratio_error,
    )  # fmt: skip
