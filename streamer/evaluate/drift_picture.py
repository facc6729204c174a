"""A picture of how rankers come back after a change: one plane a ranker, one line an age."""

import io
from itertools import chain

import numpy as np

from streamer.evaluate.drift_report import BACK, Report, smooth
from streamer.inspect.plot import PALETTE

COLUMNS = 3


def draw(report: Report) -> bytes:
    """A PNG of HR@20 over the clicks since the change, averaged as in the table. A dotted line is
    where that age is back."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rankers = [one.ranker for one in report.ages[0].rankers]
    rows = -(-len(rankers) // COLUMNS)
    figure = Figure(figsize=(11, 3.3 * rows), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    planes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for number, (plane, ranker) in enumerate(zip(chain(*planes), rankers, strict=False)):
        for at, one in enumerate(report.ages):
            colour, click = PALETTE[at], np.array([point.click for point in one.curve])
            hr = smooth(click, [point.hr[ranker] for point in one.curve])
            plane.plot(click / 1000, hr, color=colour, label=f"{one.age:,} clicks")
            plateau = one.rankers[number].before
            plane.axhline(BACK * plateau, color=colour, linestyle=":", linewidth=0.9)
        plane.set_title(ranker, fontsize=10)
        plane.grid(alpha=0.25)
        plane.spines[["top", "right"]].set_visible(False)
    for plane in list(chain(*planes))[len(rankers) :]:
        plane.set_visible(False)
    for plane in list(chain(*planes))[max(len(rankers) - COLUMNS, 0) : len(rankers)]:
        plane.tick_params(labelbottom=True)
    planes[0][0].set_ylim(bottom=0)
    figure.supxlabel(
        f"thousand clicks since all groups changed; dotted: {BACK:.0%} of before", fontsize=10
    )
    figure.supylabel("HR@20", fontsize=10)
    lines, labels = planes[0][0].get_legend_handles_labels()
    figure.legend(
        lines, labels, title="age of the model", loc="outside right center", frameon=False
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
