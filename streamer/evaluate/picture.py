"""Pictures of hit rates, one line a ranker: over the stream, and by clicks seen."""

import importlib.util
import io
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from streamer import outputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate.challenging import NAME
from streamer.evaluate.rankers import Mode
from streamer.evaluate.scores import COLD, Point
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


def draw(
    points: list[Point], marks: Mapping[int, str] | None = None,
    by_clicks: dict[str, dict[str, float]] | None = None,
) -> bytes:  # fmt: skip
    """A PNG of HR@20 of each ranker; the model's lines are solid, the others dashed. `marks` are
    texts at clicks.

    With `by_clicks`, of some rankers by how often the item was clicked before
    (`streamer.evaluate.scores.COLD`), these stand beside it. WalkstreamError if there are no
    points.
    """
    if not points:
        raise WalkstreamError("too few clicks were ranked for a picture over the stream")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17 if by_clicks else 11, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    planes = figure.subplots(1, 2 if by_clicks else 1, sharey=True, squeeze=False)[0]
    clicks = [point.click for point in points]
    last = points[-1].hr
    for number, ranker in enumerate(sorted(last, key=lambda ranker: -last[ranker])):
        ours = ranker.rpartition(": ")[2].split(",")[0] in (*get_args(Mode), NAME)
        style = {
            "color": PALETTE[number % len(PALETTE)], "linestyle": "-" if ours else "--",
            "linewidth": 2.2 if ours else 1.4,
        }  # fmt: skip
        label = textwrap.fill(re.sub(", ?", ", ", ranker), LABEL)
        planes[0].plot(clicks, [point.hr[ranker] for point in points], label=label, **style)
        if by_clicks and ranker in by_clicks:
            rates = [by_clicks[ranker].get(group, math.nan) for group in COLD]
            planes[1].plot(list(COLD), rates, marker="o", **style)
    for click, text in (marks or {}).items():
        planes[0].axvline(click, color="black", linewidth=1, linestyle=":")
        planes[0].annotate(
            text, (click, 1), (4, -12), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    planes[0].set_xlabel("clicks so far")
    planes[0].set_ylabel("HR@20, each round ranked before it is learned")
    planes[0].xaxis.set_major_formatter("{x:,.0f}")
    planes[0].set_xlim(left=0)
    for plane in planes:
        plane.set_ylim(bottom=0)
        plane.grid(alpha=0.25)
        plane.spines[["top", "right"]].set_visible(False)
    if by_clicks:
        planes[1].set_xlabel("clicks on the item before")
    figure.legend(loc="outside right center", frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
