"""What `--drift` found: as JSON, and as a table."""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from streamer.evaluate.drift_log import GROUP, HALF_LIFE, ITEMS
from streamer.evaluate.knn import NAMES
from streamer.evaluate.report import Stable
from streamer.evaluate.scores import BASELINES, Point
from streamer.evaluate.stability import Step
from streamer.terminal import Console

BACK = 0.9
"""The share of its plateau at which a ranker is back."""
RIVALS = {
    "hybrid": [name for name in BASELINES if name not in NAMES],
    "hybrid, session": list(BASELINES),
}
"""By ranker, the baselines that know no more than it is asked by."""
OVER = 10_000
"""Clicks over which hit rates are averaged: half of them before, half after."""


class Recovery(msgspec.Struct, frozen=True):
    """How one ranker fared."""

    ranker: str
    before: float
    """HR@20 before the change: the plateau."""
    clicks: int | None
    """From the change until it is back, None if it never was."""
    after: float
    """HR@20 at the end."""


class Worst(msgspec.Struct, frozen=True):
    """Where a ranker of the model was lowest beside the best baseline that is asked by the same."""

    ranker: str
    ratio: float
    """Of their HR@20."""
    baseline: str
    """That one, there."""
    clicks: int
    """Since the change."""


class Aged(msgspec.Struct, frozen=True):
    """What came of a change at one age."""

    age: int
    rankers: list[Recovery]
    worst: list[Worst]
    """Of the fused ranker, by the last item and by the session. The first round after the change is
    left out: nobody has learned of it yet."""
    stability: Stable
    """Before the change."""
    curve: list[Point]
    """HR@20 of each round after it."""

    @classmethod
    def of(
        cls, age: int, before: Sequence[Point], after: Sequence[Point], steps: Sequence[Step]
    ) -> "Aged":
        click, curves = _curves(after)
        rankers = []
        for name, curve in curves.items():
            weights = [point.positions for point in before]
            plateau = float(np.average([point.hr[name] for point in before], weights=weights))
            clicks = _first(click, curve, BACK * plateau)
            rankers.append(Recovery(name, plateau, clicks, float(curve[-1])))
        worst = [_worst(ranker, after[1:], rivals) for ranker, rivals in RIVALS.items()]
        return cls(age, rankers, worst, Stable.of(steps), list(after))


def _first(click: NDArray[np.int64], curve: NDArray[np.float64], goal: float) -> int | None:
    """Where a curve first comes to this, between two of its points; None if it never does."""
    there = np.flatnonzero(curve >= goal)
    if not len(there):
        return None
    at = int(there[0])
    return int(np.interp(goal, curve[max(at - 1, 0) : at + 1], click[max(at - 1, 0) : at + 1]))


def _worst(ranker: str, points: Sequence[Point], rivals: Sequence[str]) -> Worst:
    click, curves = _curves(points)
    best = np.stack([curves[name] for name in rivals])
    ratio = curves[ranker] / np.maximum(best.max(axis=0), 1e-9)
    at = int(ratio.argmin())
    return Worst(ranker, float(ratio[at]), rivals[int(best[:, at].argmax())], int(click[at]))


def _curves(points: Sequence[Point]) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """When the points are, in clicks, and by ranker its HR@20 there, float64 [points]."""
    click = np.array([point.click for point in points])
    names = points[0].hr
    return click, {name: smooth(click, [point.hr[name] for point in points]) for name in names}


def smooth(click: NDArray[np.int64], hr: Sequence[float]) -> NDArray[np.float64]:
    """Means over all points that are at most OVER / 2 clicks away, float64 [len(hr)]."""
    near = np.abs(click[:, None] - click) <= OVER // 2
    mean: NDArray[np.float64] = near @ np.array(hr) / near.sum(axis=1)
    return mean


class Report(msgspec.Struct, frozen=True):
    """All of it."""

    round: int
    """Clicks of a round."""
    ages: list[Aged]
    items: int = ITEMS
    group: int = GROUP
    half_life: int = HALF_LIFE
    """That of the graph, in clicks."""


def show(report: Report, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    last = report.ages[-1].curve[-1].click
    print(f"{report.items:,} items change their groups of {report.group}, all at some age.")
    print(f"A half-life of the graph has {report.half_life:,} clicks, however long it is.\n")
    Console().print(_table(report.ages, last))
    print()
    print(NOTES)


NOTES = f"""\
Back: HR@20 is at {BACK:.0%} of what it was before. Hit rates are means over {OVER:,}
clicks; those before the change tell whether the model keeps learning.
worst: the lowest ratio to the best baseline that is asked by the same, and
where that was; the round right after the change is left out, as nobody has
learned of it yet. cosine, top 10: as without --drift, before the change,
between publishes that are a round apart."""

Cell = Callable[[Aged], str]


def _ratio(one: Aged, at: int) -> str:
    return f"{one.worst[at].ratio:.2f}"


def _beside(one: Aged, at: int) -> str:
    return one.worst[at].baseline


def _clicks(one: Aged, at: int) -> str:
    return f"{one.worst[at].clicks:,}"


_WORST = {"worst of {}": _ratio, "  beside": _beside, "  after clicks": _clicks}


def _table(ages: list[Aged], last: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("clicks until it is back", no_wrap=True)
    for one in ages:
        table.add_column(f"at {one.age:,}", justify="right")
    names = [one.ranker for one in ages[0].rankers]

    def of(one: Aged, name: str) -> Recovery:
        return next(ranker for ranker in one.rankers if ranker.ranker == name)

    def back(one: Aged, name: str) -> str:
        clicks = of(one, name).clicks
        return f"> {last:,}" if clicks is None else f"{round(clicks, -2):,}"

    for name in names:
        table.add_row(name, *(back(one, name) for one in ages), end_section=name == names[-1])
    for name in names:
        cells = (f"{of(one, name).before:.3f}" for one in ages)
        table.add_row(f"HR@20 before: {name}", *cells, end_section=name == names[-1])
    rows: list[tuple[str, Cell]] = [
        (label.format(ranker), partial(cell, at=at))
        for at, ranker in enumerate(RIVALS)
        for label, cell in _WORST.items()
    ]
    rows += [
        ("cosine, untouched items", lambda one: f"{one.stability.cosine_untouched:.4f}"),
        ("cosine, touched", lambda one: f"{one.stability.cosine_touched:.4f}"),
        ("top 10, untouched items", lambda one: f"{one.stability.overlap_untouched:.3f}"),
        ("top 10, touched", lambda one: f"{one.stability.overlap_touched:.3f}"),
    ]
    for name, cell in rows:
        table.add_row(name, *map(cell, ages))
    return table
