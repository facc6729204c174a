"""A picture of the hit rates over the stream, one line a ranker."""

import importlib.util
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from streamer import outputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate.challenging import NAME
from streamer.evaluate.rankers import Mode
from streamer.evaluate.scores import Point
from streamer.inspect.plot import PALETTE

LABEL = 32
"""Letters in a line of the legend."""


def check(out: Path, force: bool) -> None:
    """ConfigError if nothing can be drawn there."""
    if out.suffix != ".png":
        raise ConfigError(f"--plot {out}: the name must end in .png")
    outputs.check("--plot", out, force)
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            'matplotlib is missing: run `pip install ".[plot]"` in the folder of Walkstream'
        )


def draw(points: list[Point], marks: Mapping[int, str] | None = None) -> bytes:
    """A PNG of HR@20 of each ranker; the model's lines are solid, the others dashed. `marks` are
    texts at clicks.

    WalkstreamError if there are no points.
    """
    if not points:
        raise WalkstreamError("too few clicks were ranked for a picture over the stream")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    plane = figure.add_subplot()
    clicks = [point.click for point in points]
    last = points[-1].hr
    for number, ranker in enumerate(sorted(last, key=lambda ranker: -last[ranker])):
        ours = ranker.rpartition(": ")[2].split(",")[0] in (*get_args(Mode), NAME)
        plane.plot(
            clicks, [point.hr[ranker] for point in points],
            label=textwrap.fill(ranker.replace(",", ", "), LABEL),
            color=PALETTE[number % len(PALETTE)], linestyle="-" if ours else "--",
            linewidth=2.2 if ours else 1.4,
        )  # fmt: skip
    for click, text in (marks or {}).items():
        plane.axvline(click, color="black", linewidth=1, linestyle=":")
        plane.annotate(
            text, (click, 1), (4, -12), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    plane.set_xlabel("clicks so far")
    plane.set_ylabel("HR@20, each round ranked before it is learned")
    plane.xaxis.set_major_formatter("{x:,.0f}")
    plane.set_xlim(left=0)
    plane.set_ylim(bottom=0)
    plane.grid(alpha=0.25)
    plane.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
