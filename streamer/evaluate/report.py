"""What an evaluation found: as JSON, and as tables."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from core.engine import Engine
from streamer.evaluate.challenging import Contest
from streamer.evaluate.scores import COLD, KNOWN, UNKNOWN, Best, Figures, Point, Scores
from streamer.evaluate.stability import Step
from streamer.terminal import Console
from streamer.wording import amounts, counted

PER_CLICKS = 100_000


class Stable(msgspec.Struct, frozen=True):
    """Means over the publishes, each item of each counting once; NaN where there are none."""

    publishes: int
    cosine_touched: float
    cosine_untouched: float
    overlap_touched: float
    overlap_untouched: float
    moved_clusters: float
    """Share of the known items that change cluster in 100,000 clicks, without new centroids."""
    moved_keys: float
    """Share of the bucket keys that move at a publish, without a new centre."""

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Stable":
        quiet = [step for step in steps if not step.fitted]
        clicks = sum(step.clicks for step in quiet)
        moved = sum(step.moved_clusters for step in quiet)
        return cls(
            len(steps),
            _mean([s.cosine_touched for s in steps], [s.touched for s in steps]),
            _mean([s.cosine_untouched for s in steps], [s.untouched for s in steps]),
            _mean([s.overlap_touched for s in steps], [s.touched for s in steps]),
            _mean([s.overlap_untouched for s in steps], [s.untouched for s in steps]),
            moved * PER_CLICKS / clicks if clicks else float("nan"),
            _mean([s.moved_keys for s in quiet], [1] * len(quiet)),
        )


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    x, w = np.array(values), np.array(weights, np.float64)
    there = w > 0
    return float(np.average(x[there], weights=w[there])) if there.any() else float("nan")


class Report(msgspec.Struct, frozen=True):
    """All of it."""

    clicks: int
    left_out: int
    """Records that a worker would refuse, and types that weigh 0: `replay` shows them."""
    rounds: int
    items: int
    """Those that live at the end."""
    begin: int
    """The click that figures begin with."""
    best: Best
    figures: list[Figures]
    stability: Stable
    over_stream: list[Point]
    challenger: Contest | None = None

    @classmethod
    def of(
        cls,
        clicks: int,
        left_out: int,
        engine: Engine,
        begin: float,
        scores: Scores,
        steps: Sequence[Step],
        challenger: Contest | None = None,
    ) -> "Report":
        first = int(begin * clicks)
        return cls(
            clicks, left_out, engine.round_number, len(engine.items), first, *scores.figures(first),
            Stable.of([step for step in steps if step.click - step.clicks >= first]),
            scores.over_stream(clicks), challenger,
        )  # fmt: skip


def marks(report: Report) -> dict[int, str]:
    """What a picture over the stream says besides, by click."""
    one = report.challenger
    if one is None or one.took_over is None:
        return {}
    return {one.took_over: "the challenger takes over"}


def show(report: Report, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    console = Console()
    ranked = {f.of: f.positions for f in report.figures}
    share = ranked[UNKNOWN] / max(ranked["all"], 1)
    print(
        f"{amounts(click=report.clicks, round=report.rounds, item=report.items)}\n"
        + (
            f"{counted(report.left_out, 'record')} left out: bad ones and types that weigh 0, "
            "which `walkstream replay` shows\n"
            if report.left_out
            else ""
        )
        + f"{counted(ranked['all'], 'click')} ranked, from click {report.begin:,} on\n"
        f"{ranked[UNKNOWN]:,} of them ({share:.1%}) are on items unknown until then: all miss\n"
        f"the best baseline: {report.best.hr} in HR@20, {report.best.mrr} in MRR@20"
    )
    if report.challenger is not None:
        print(f"the challenger: {report.challenger.told()}")
    if not report.stability.publishes:
        print("For a log this short, publish more often: --set commit.rounds=1")
    for table in (
        _totals(report.figures, "hr"),
        _totals(report.figures, "mrr"),
        _groups(report.figures),
        _cold(report.figures),
        _stability(report.stability),
    ):
        console.print()
        console.print(table)
    print()
    print(NOTES)


NOTES = """\
All items but the one that the session was at are ranked, by what was known
before the round. ± is one standard error, of ratios that of the difference at
the same clicks.
similar, next, hybrid: as in `walkstream query --mode`. session: asked by its
last items. user: by the vectors of the user, with user_vectors.kind.
challenger: its next, which is the model's own once it took over.
of best: the ratio to the best of the baselines, which need no training:
popularity; transitions; co-visitation of adjacent clicks, decayed; w5, of
clicks within five steps, by 1/distance; session-kNN, VSKNN and STAN, by past
sessions like the one at hand. Peers, which are trained anew on all history, are
none. known: without the clicks on unknown items.
first, again: whether the session had the item already. popular, common, rare:
the first tenth of the items by decayed count, the rest of the first half, the
others. new, young, old: the first click on the item was less than 1% of the
log's time ago, less than 10%, longer. A click on an unknown item is in none of
these last six. Clicks before: how often the item was clicked in the rounds
before; one that was never clicked is known by its attributes (--items), if any.
cosine: of an item's vector at a publish with the one at the publish before. top
10: how many of its ten nearest items stayed. Touched: clicked in between. A
publish is every 20 rounds, or commit.rounds. Clusters and keys leave those out
that are major updates, which may move any."""


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _totals(figures: list[Figures], kind: Literal["hr", "mrr"]) -> Table:
    """HR@20 or MRR@20 at all positions, and beside those of the best baseline and of w5."""
    further = ["NDCG@20"] * (kind == "mrr")
    table = _table(
        "ranker", f"{kind.upper()}@20", "±", "of best", "±", "of w5", "±", "known", *further
    )
    known = {f.ranker: f for f in figures if f.of == KNOWN}
    names = ("", "_error", "_ratio", "_ratio_error", "_to_w5", "_to_w5_error")
    for f in figures:
        if f.of == "all":
            values = [getattr(f, kind + name) for name in names] + [getattr(known[f.ranker], kind)]
            values += [f.ndcg] * (kind == "mrr")
            table.add_row(f.ranker, *("-" if math.isnan(x) else f"{x:.3f}" for x in values))
    return table


def _groups(figures: list[Figures]) -> Table:
    others = ("all", KNOWN, UNKNOWN, *COLD)
    groups = [of for of in dict.fromkeys(f.of for f in figures) if of not in others]
    return _by_group(figures, groups, "HR@20")


def _cold(figures: list[Figures]) -> Table:
    return _by_group(figures, list(COLD), "HR@20 by clicks before")


def _by_group(figures: list[Figures], groups: list[str], title: str) -> Table:
    table = _table(title, *groups)
    by = {(f.ranker, f.of): f for f in figures}
    rankers = list(dict.fromkeys(f.ranker for f in figures))
    table.add_row("clicks ranked", *(f"{by[rankers[0], of].positions:,}" for of in groups))
    for ranker in rankers:
        found = [by[ranker, of] for of in groups]
        table.add_row(ranker, *(f"{f.hr:.3f}" if f.positions else "-" for f in found))
    return table


def _stability(s: Stable) -> Table:
    table = _table(
        f"over {s.publishes:,} publish{'es' * (s.publishes != 1)}", "touched items", "untouched"
    )
    for name, touched, untouched, spec in (
        ("cosine", s.cosine_touched, s.cosine_untouched, ".4f"),
        ("top 10", s.overlap_touched, s.overlap_untouched, ".3f"),
        ("bucket keys that moved", s.moved_keys, None, ".2%"),
        (f"items that changed cluster, in {PER_CLICKS:,} clicks", s.moved_clusters, None, ".2%"),
    ):
        cells = (
            "" if x is None else "-" if math.isnan(x) else f"{x:{spec}}"
            for x in (touched, untouched)
        )
        table.add_row(name, *cells)
    return table
