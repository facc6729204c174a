"""The dashboard's story as a picture: a worker through good and bad minutes, seen by Prometheus.

    .venv/bin/python ops/bench/dashboard.py ops/grafana/dashboard.png

A worker starts with clicks waiting; malformed records come among the good ones; the producer is
killed, and comes back. Titles, units and expressions are those of `ops/grafana/walkstream.json`.
Needs Java 17 and Maven, or KAFKA_BOOTSTRAP_SERVERS; and Prometheus, or apt-get to fetch it. Takes
some three and a half minutes.
"""

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

sys.path.insert(0, str(Path(__file__).parents[1] / "kafka"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from broker import Broker, free_port

from tests.monitoring import Labels, Prometheus, Query, queries
from tests.support import App, Process

RATE = 200
MALFORMED_RATE = 100
SETTINGS: dict[str, object] = {
    "model.dim": 64,
    "walks.per_node": 4,
    "dlq.window": 2000,
    "commit.seconds": 1,
}
WINDOW = "10s"
STEP = 1.0
SHOWN = (
    *("Staleness, sent to published", "Seconds since the newest click", "Lag, seconds"),
    *("HR@20, last 5 minutes", "Trials", "Clicks learned"),
    *("Dead letters by reason", "Dead letters, share now", "Time by stage"),
)
STACKED = {"Dead letters by reason", "Time by stage"}
COLOURS = ("#3274d9", "#e0752d", "#37872d", "#a352cc", "#c4162a", "#8f8f8f", "#f2cc0c", "#0a8f8f")
BANDS = {
    "clicks wait for the worker": "#8f8f8f",
    "malformed records": "#f2cc0c",
    "producer killed": "#c4162a",
}
INK, FAINT = "#24292e", "#d8dbdf"


@dataclass
class Story:
    """When what happened, in unix seconds."""

    begin: float = field(default_factory=time.time)
    end: float = 0.0
    bands: dict[str, tuple[float, float]] = field(default_factory=dict)

    def tell(self, what: str, since: float) -> None:
        self.bands[what] = since, time.time()

    def say(self, text: str) -> None:
        print(f"{time.time() - self.begin:4.0f} s  {text}", file=sys.stderr, flush=True)


def play(app: App, port: int) -> Story:
    """Three minutes of a worker's life, on the topics of `app`."""
    story = Story()

    def produce(**options: float) -> Process:
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return app.command("publish", "--synthetic", *given)

    story.say("a producer")
    since = time.time()
    producer = produce(rate=RATE)
    time.sleep(10)
    story.say("a worker")
    worker = app.worker(metrics__port=port).running()
    story.tell("clicks wait for the worker", since)
    time.sleep(50)
    story.say("malformed records")
    since = time.time()
    spoiled = produce(rate=MALFORMED_RATE, malformed=1, seconds=20)
    assert spoiled.wait() == 0, spoiled.output
    story.tell("malformed records", since)
    time.sleep(30)
    story.say("the producer is killed")
    since = time.time()
    producer.popen.send_signal(signal.SIGKILL)
    producer.popen.wait()
    time.sleep(35)
    story.say("a new producer")
    produce(rate=RATE)
    story.tell("producer killed", since)
    time.sleep(40)
    story.end = time.time()
    worker.stop()
    return story


def draw(prometheus: Prometheus, story: Story, out: Path) -> None:
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK})
    figure, grid = plt.subplots(3, 3, figsize=(14, 9), dpi=100, sharex=True)
    asked = queries(WINDOW)
    for title, axes in zip(SHOWN, grid.flat, strict=True):
        shown = [query for query in asked if query.panel == title]
        _panel(axes, prometheus, story, shown)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", color=INK)
    patches = [Patch(color=BANDS[what], alpha=0.18, label=what) for what in story.bands]
    figure.legend(
        handles=patches, loc="upper right", ncols=len(patches), frameon=False,
        fontsize=11, bbox_to_anchor=(0.99, 0.985),
    )  # fmt: skip
    title = f"Walkstream: one worker, {RATE} clicks a second"
    figure.text(0.012, 0.957, title, fontsize=15, fontweight="bold")
    figure.tight_layout(rect=(0, 0, 1, 0.945), h_pad=1.6, w_pad=1.6)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _panel(axes: Axes, prometheus: Prometheus, story: Story, shown: list[Query]) -> None:
    lines = [
        (_name(query.legend, labels), times, values)
        for query in shown
        for labels, times, values in prometheus.history(query.expr, story.begin, story.end, STEP)
    ]
    if shown[0].panel in STACKED:
        lines = [line for line in lines if max(line[2]) > 0.02]
        grid = sorted({at for _, times, _ in lines for at in times})
        known = [dict(zip(times, values, strict=True)) for _, times, values in lines]
        axes.stackplot(
            [at - story.begin for at in grid],
            [[values.get(at, 0.0) for at in grid] for values in known],
            labels=[name for name, _, _ in lines], colors=COLOURS, linewidth=0, zorder=2,
        )  # fmt: skip
    else:
        for (name, times, values), colour in zip(lines, COLOURS, strict=False):
            seconds = [at - story.begin for at in times]
            axes.plot(seconds, values, color=colour, linewidth=1.8, label=name)
    for what, (since, until) in story.bands.items():
        span = since - story.begin, until - story.begin
        axes.axvspan(*span, color=BANDS[what], alpha=0.13, linewidth=0, zorder=0)
    axes.set_title(shown[0].panel, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlim(0, story.end - story.begin)
    room_for_legend = 1.35 if len(lines) > 1 else 1.1
    axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1] * room_for_legend, 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_FORMATS.get(shown[0].unit, _plain)))
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, length=0)
    if len(lines) > 1:
        axes.legend(
            loc="upper left", ncols=2 if len(lines) <= 4 else 3, frameon=False, fontsize=8,
            handlelength=1.2, columnspacing=0.9, labelspacing=0.3,
        )  # fmt: skip


def _name(legend: str, labels: Labels) -> str:
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def _plain(value: float, _: object = None) -> str:
    return f"{value:g}"


_FORMATS = {
    "s": lambda value, _: f"{value:g} s",
    "percentunit": lambda value, _: f"{value:.0%}",
    "cps": lambda value, _: f"{value:g}/s",
}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not servers:
            servers = stack.enter_context(Broker()).bootstrap
        port = free_port()
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", port))
        app = stack.enter_context(App(servers, folder, SETTINGS))
        draw(prometheus, play(app, port), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
