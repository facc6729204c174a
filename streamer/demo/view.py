"""What the demo shows while it runs: figures of the last seconds, in place or as lines."""

from collections import deque
from dataclasses import dataclass
from typing import Self

import numpy as np
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from streamer.demo.embedded import Figures
from streamer.terminal import Console
from streamer.wording import counted

WINDOW_SECONDS = 5.0
"""Figures that change are those of so many last seconds."""
SAMPLE_SECONDS = 0.5
LINE_SECONDS = 5.0
WIDTH = 40
"""Samples in a sparkline: the last 20 s."""
RANKERS = {
    "session": "hybrid, by the session",
    "hybrid": "hybrid, by the last item",
    "next": "vectors",
    "covisitation": "co-visitation",
    "popularity": "popularity",
}
"""Labels of the quality metrics, and what they are called here; the model's come first."""
_BARS = " ▁▂▃▄▅▆▇█"

Near = tuple[float, str, str]
"""Cosine, name and category of a neighbour."""


@dataclass
class Newcomer:
    """A product that arrives while the demo runs; times are seconds since the demo began."""

    name: str
    category: str
    arrived: float
    clicks: int = 0
    first_click: float | None = None
    first_vector: float | None = None
    at_home: float | None = None
    """When all the nearest were first of its category."""
    nearest: tuple[Near, ...] = ()

    def click(self, now: float) -> None:
        self.clicks += 1
        if self.first_click is None:
            self.first_click = now

    def see(self, nearest: tuple[Near, ...], now: float) -> None:
        """Take its neighbours as they are now; none while it has no vector."""
        self.nearest = nearest
        if nearest and self.first_vector is None:
            self.first_vector = now
        if nearest and self.at_home is None and all(c == self.category for _, _, c in nearest):
            self.at_home = now

    def since_click(self, moment: float | None) -> float | None:
        """Seconds from its first click to a moment, if there were both."""
        if moment is None or self.first_click is None:
            return None
        return max(0.0, moment - self.first_click)


class History:
    """The worker's figures of the last seconds. A series that is not there has no value."""

    def __init__(self, begin: Figures) -> None:
        self._begin = begin
        self._samples: deque[tuple[float, Figures]] = deque([(0.0, begin)])
        self.hit_rates: dict[str, deque[float]] = {r: deque(maxlen=WIDTH) for r in RANKERS}

    def add(self, elapsed: float, now: Figures) -> None:
        self._samples.append((elapsed, now))
        while len(self._samples) > 2 and self._samples[1][0] <= elapsed - WINDOW_SECONDS:
            self._samples.popleft()
        for ranker, rate in hit_rates(self._samples[0][1], now).items():
            self.hit_rates[ranker].append(rate)

    @property
    def now(self) -> Figures:
        return self._samples[-1][1]

    def events_per_second(self) -> float:
        (before, old), (after, new) = self._samples[0], self._samples[-1]
        learned = new.get(("events_total",), 0.0) - old.get(("events_total",), 0.0)
        return learned / max(after - before, SAMPLE_SECONDS)

    def staleness(self, share: float) -> float | None:
        """Seconds that this share of clicks waited at most, interpolated inside a bucket."""
        old = self._samples[0][1]
        counts = {
            key[1]: count - old.get(key, 0.0)
            for key, count in self.now.items()
            if key[0] == "staleness_seconds_bucket"
        }
        total = counts.pop("+Inf", 0.0)
        if not total:
            return None
        bounds = [0.0, *map(float, counts)]
        return float(np.interp(share * total, [0.0, *counts.values()], bounds))

    def by_label(self, name: str) -> dict[str, float]:
        """A counter's values that are not 0, the greatest first, since the worker started."""
        found = {key[1]: value for key, value in self.now.items() if key[0] == name and value}
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    def overall(self) -> tuple[dict[str, float], float]:
        """Hit rates since the demo began, and of how many trials."""
        trials = ("quality_trials_total",)
        count = self.now.get(trials, 0.0) - self._begin.get(trials, 0.0)
        return hit_rates(self._begin, self.now), count


def hit_rates(old: Figures, new: Figures) -> dict[str, float]:
    """HR@20 of each ranker between two scrapes; empty if nothing was ranked."""

    def grown(*key: str) -> float:
        return new.get(key, 0.0) - old.get(key, 0.0)

    trials = grown("quality_trials_total")
    if not trials:
        return {}
    return {ranker: grown("quality_hits_total", ranker) / trials for ranker in RANKERS}


class View:
    """A picture that stays in place on a terminal, else a line now and then."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._interval = SAMPLE_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._next = self._interval

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, elapsed: float, newcomer: Newcomer | None, last: bool) -> None:
        """Shows the history, if it is time for it or the `last` time."""
        if elapsed < self._next and not last:
            return
        self._next = elapsed + self._interval
        if self._console.is_terminal:
            self._live.update(picture(self._history, elapsed, newcomer), refresh=True)
        else:
            print(line(self._history, elapsed), flush=True)


def picture(history: History, elapsed: float, newcomer: Newcomer | None) -> RenderableType:
    """The whole view."""
    figures = Table.grid(padding=(0, 2))
    for name, value in _figures(history).items():
        figures.add_row(name, f"[bold]{escape(value)}")
    quality = Table.grid(padding=(0, 2))
    for ranker, rates in history.hit_rates.items():
        colour = "green" if ranker in ("session", "hybrid", "next") else "yellow"
        value = f"{rates[-1]:.0%}" if rates else "-"
        quality.add_row(RANKERS[ranker], f"[bold {colour}]{value}", f"[{colour}]{spark(rates)}")
    parts: list[RenderableType] = [
        f"[bold]{elapsed:3.0f} s[/]",
        Padding(figures, (0, 0, 0, 2)),
        "\nHow often the next click is among the first 20 that each names, before it is learned",
        Padding(quality, (0, 0, 0, 2)),
    ]
    if newcomer is not None:
        parts.append(f"\nA new product: [bold]{escape(_arrival(newcomer, elapsed))}")
        parts += [
            f"  {cosine:.2f}  {escape(name)} ({escape(category)})"
            for cosine, name, category in newcomer.nearest
        ]
    return Group(*parts)


def line(history: History, elapsed: float) -> str:
    """What matters most of it in one short line; the rest is told at the end."""
    text = (
        f"{elapsed:3.0f} s: {history.now.get(('events_total',), 0):,.0f} clicks "
        f"({history.events_per_second():,.0f}/s), staleness {_seconds(history.staleness(0.5))}"
    )
    rates = history.hit_rates
    if rates["session"]:
        text += f", HR@20 {rates['session'][-1]:.0%} (popularity {rates['popularity'][-1]:.0%})"
    return text


def spark(values: deque[float]) -> str:
    """Shares as bars, 0 to 1."""
    steps = len(_BARS) - 1
    return "".join(_BARS[min(steps, max(0, round(value * steps)))] for value in values)


def _figures(history: History) -> dict[str, str]:
    now = history.now
    dead, ignored = history.by_label("dead_letters_total"), history.by_label("ignored_clicks_total")
    median, late = (_seconds(history.staleness(share)) for share in (0.5, 0.99))
    return {
        "clicks learned": f"{now.get(('events_total',), 0):,.0f} "
        f"({history.events_per_second():,.0f}/s)",
        "staleness": f"p50 {median}, p99 {late}",
        "items": f"{now.get(('items',), 0):,.0f}",
        "vectors published": f"{now.get(('published_vectors_total',), 0):,.0f}",
        "dead letters": listed(dead),
        "clicks of bots left out": f"{ignored.get('too_long', 0):,.0f}",
    }


def listed(counts: dict[str, float]) -> str:
    """Their sum, and each."""
    each = ", ".join(f"{name} {count:,.0f}" for name, count in counts.items())
    return f"{sum(counts.values()):,.0f} ({each})" if each else "0"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _arrival(newcomer: Newcomer, now: float) -> str:
    text = f"{newcomer.name} ({newcomer.category})"
    since = newcomer.since_click(now)
    if since is None:
        return f"{text}, not clicked yet"
    nearest = "is nearest to" if newcomer.nearest else "has no vector yet"
    clicks = counted(newcomer.clicks, "click")
    return f"{text}, {since:.1f} s and {clicks} after its first, {nearest}"
