"""Ranks of many positions, and the figures that they come to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER
from core.quality import DEPTH
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Ranks

BASELINES = ("popularity", "transitions", "co-visitation", "w5", "session-kNN", "VSKNN", "STAN")
"""Rankers that need no training, the best of which is the measure of the others. What is trained
anew on all history (`peers`) is none of them."""
WINDOWED = "w5"
"""The baseline that figures are always compared to besides."""
POPULAR, COMMON = 0.1, 0.5
"""The most popular tenth, by decayed count when asked; and the rest of the more popular half."""
NEW, YOUNG = 0.01, 0.1
"""Ages as shares of the log's time, below which an item is new, and young."""
COLD = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10+": (10, 1 << 60)}
"""Groups by how often the item had been clicked in the rounds before, the first and the last."""
KNOWN, UNKNOWN = "known", "unknown"
"""The groups of clicks on items that lived when asked, and on all others: nobody clicked them in a
round before, or for so long that they left. No ranker can name those."""
PARTS = 20
"""Points of the stream at which the picture has a figure."""
FEWEST = 20
"""Positions that such a point needs."""


class Figures(msgspec.Struct, frozen=True):
    """What a ranker did at some positions, with rank r from 1 on; past 20 it counts for nothing."""

    ranker: str
    of: str
    """Which positions: `all`; or by the target: `known` or `unknown`; `first` in its session or
    there `again`; `popular`, `common` or `rare`; `new`, `young` or `old`; or by how often it was
    clicked before, as in COLD."""
    positions: int
    hr: float
    """Share with r <= 20."""
    hr_error: float
    """Its standard error, as if positions were independent; likewise below."""
    mrr: float
    """Mean of 1 / r."""
    mrr_error: float
    ndcg: float
    """Mean of 1 / log2(1 + r)."""
    hr_ratio: float
    """`hr` over that of the best baseline in HR at the same positions; NaN if that is 0."""
    hr_ratio_error: float
    """Less than those of its parts make it, which hit and miss together; likewise below."""
    mrr_ratio: float
    """`mrr` over that of the best baseline in MRR."""
    mrr_ratio_error: float
    hr_to_w5: float
    """`hr` over that of WINDOWED."""
    hr_to_w5_error: float
    mrr_to_w5: float
    mrr_to_w5_error: float


class Best(msgspec.Struct, frozen=True):
    """The baselines that others are measured by: the best ones at all positions together."""

    hr: str
    mrr: str


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
        """Take the ranks of a round in; those of all BASELINES are among them."""
        at = asked.positions
        known = asked.target >= 0
        popularity = ranks["popularity"] / max(len(asked.numbers), 1)
        born = np.array([past.born.get(b, NEVER) for b in at.target.tolist()], np.int64)
        age = np.where(known & (born != NEVER), at.time - born, 0)
        self._ranks.append(ranks)
        self._about.append(
            np.stack(
                [
                    at.click,
                    known,
                    at.repeated,
                    np.where(known, popularity, 2.0),
                    age,
                    past.seen(at.target),
                ]
            )
        )
        if self._first_time == NEVER:
            self._first_time = past.time
        self._last_time = past.time

    def rankers(self) -> list[str]:
        return list(self._ranks[0]) if self._ranks else []

    def gains(self, begin: int) -> dict[str, "Gains"]:
        """What each ranker did at each position from click number `begin` on."""
        late = np.concatenate([about[0] for about in self._about]) >= begin
        return {
            ranker: Gains.of(np.concatenate([ranks[ranker] for ranks in self._ranks])[late])
            for ranker in self.rankers()
        }

    def figures(self, begin: int) -> tuple[Best, list[Figures]]:
        """What each ranker did from click number `begin` on, for all positions and for groups, and
        what the best baselines are there. There are ranks."""
        about = np.concatenate(self._about, axis=1)
        groups = dict(self._groups(about[:, about[0] >= begin]))
        gains = self.gains(begin)
        best = Best(
            max(BASELINES, key=lambda ranker: gains[ranker].hr.sum()),
            max(BASELINES, key=lambda ranker: gains[ranker].mrr.sum()),
        )
        return best, [
            figures(
                ranker, of, gains[ranker].at(chosen), gains[best.hr].at(chosen),
                gains[best.mrr].at(chosen), gains[WINDOWED].at(chosen),
            )
            for ranker in gains
            for of, chosen in groups.items()
        ]  # fmt: skip

    def _groups(self, about: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        _, known, repeated, popularity, age, seen = about
        span = float(max(self._last_time - self._first_time, 1))
        is_known = known > 0
        yield "all", np.ones(len(known), np.bool_)
        yield KNOWN, is_known
        yield UNKNOWN, ~is_known
        yield "first", repeated == 0
        yield "again", repeated > 0
        yield "popular", popularity < POPULAR
        yield "common", (popularity >= POPULAR) & (popularity < COMMON)
        yield "rare", is_known & (popularity >= COMMON)
        yield "new", is_known & (age < NEW * span)
        yield "young", is_known & (age >= NEW * span) & (age < YOUNG * span)
        yield "old", is_known & (age >= YOUNG * span)
        for name, (least, most) in COLD.items():
            yield name, (seen >= least) & (seen <= most)

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


@dataclass(frozen=True)
class Gains:
    """What each position gives to a ranker's means: float64 [q]."""

    hr: NDArray[np.float64]
    mrr: NDArray[np.float64]
    ndcg: NDArray[np.float64]

    @classmethod
    def of(cls, rank: NDArray[np.int32]) -> "Gains":
        """Of ranks from 0 on, int32 [q]."""
        hit, r = (rank < DEPTH).astype(np.float64), rank + 1.0
        return cls(hit, hit / r, hit / np.log2(1.0 + r))

    def at(self, chosen: NDArray[np.bool_]) -> "Gains":
        return Gains(self.hr[chosen], self.mrr[chosen], self.ndcg[chosen])


def figures(
    ranker: str, of: str, gains: Gains, best_hr: Gains, best_mrr: Gains, windowed: Gains
) -> Figures:
    """The figures of a ranker at q positions beside those of baselines; NaN of none."""
    q = len(gains.hr)
    if q == 0:
        return Figures(ranker, of, 0, *[math.nan] * 13)
    return Figures(
        ranker, of, q, *_mean(gains.hr), *_mean(gains.mrr), float(gains.ndcg.mean()),
        *_ratio(gains.hr, best_hr.hr), *_ratio(gains.mrr, best_mrr.mrr),
        *_ratio(gains.hr, windowed.hr), *_ratio(gains.mrr, windowed.mrr),
    )  # fmt: skip


def _mean(x: NDArray[np.float64]) -> tuple[float, float]:
    """And its standard error."""
    return float(x.mean()), float(x.std()) / math.sqrt(len(x))


def _ratio(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The ratio of two means at the same positions, and its standard error to the first order."""
    base = float(y.mean())
    if base == 0.0:
        return math.nan, math.nan
    ratio = float(x.mean()) / base
    return ratio, float((x - ratio * y).std()) / base / math.sqrt(len(x))
