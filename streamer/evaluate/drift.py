"""`walkstream evaluate --drift`: how soon a model follows items that change groups, by its age.

An invented log (`streamer.evaluate.drift_log`) goes through the engine, ranked and learned round by
round as any other. At each age it goes on in a copy of the engine with all groups changed, and in
the engine itself as before. The graph forgets at the same pace in all of them: what tells an old
model from a young one is what it has learned until then.
"""

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from core.engine import Engine
from core.quality import DEPTH
from core.rounds import Inputs
from core.settings import Settings
from streamer import kernels, outputs
from streamer.errors import ConfigError
from streamer.evaluate import drift_picture, drift_report, picture
from streamer.evaluate.baselines import baselines
from streamer.evaluate.drift_log import PAUSE, START_MS, Groups, Stretch, interval
from streamer.evaluate.drift_report import Aged, Report
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Model, Ranker, Ranks
from streamer.evaluate.scores import Point
from streamer.evaluate.stability import Stability
from streamer.files.replay import ALL
from streamer.inspect.plot import PALETTE
from streamer.progress import Display
from streamer.settings.sections import Config
from streamer.wording import amounts

AGES = (50_000, 200_000, 1_000_000, 2_000_000)
OLDEST = 20_000_000
"""The log is held in memory."""
AFTER = 60_000
"""Clicks after a change."""
STEADY = 20_000
"""Clicks before it, of which the plateau is."""
RANKED = 400
"""Clicks of a round that are ranked."""
PUBLISHES = 10
"""Publishes before it, between which stability is measured. One is made after each round."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    ages: tuple[int, ...]
    """Ascending, in clicks."""
    as_json: bool
    plot: Path | None
    force: bool = False


def ages_of(text: str | None) -> tuple[int, ...]:
    """The ages that a text names, as `50k,1M`, ascending; by default AGES. ConfigError if it names
    none."""
    if text is None:
        return AGES
    units = {"k": 1000, "M": 1_000_000}
    ages = set()
    for part in text.split(","):
        number = part.strip()
        unit = units.get(number[-1:], 1)
        digits = number if unit == 1 else number[:-1]
        if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
            raise ConfigError(f"--ages: {part!r} is no number of clicks, as 50000, 200k or 2M")
        ages.add(int(digits) * unit)
        if max(ages) > OLDEST:
            raise ConfigError(f"--ages: {part!r} is more than {OLDEST:,} clicks")
    return tuple(sorted(ages))


def run(config: Config, options: Options) -> None:
    """Measure, print, and draw. ConfigError for a picture that cannot be drawn."""
    _check(config, options.ages)
    if options.plot is not None:
        picture.check(options.plot, options.force)
    settings, size = config.engine_settings, config.round.max_events
    kernels.prepare(settings)
    aged, done = list[Aged](), 0
    total = options.ages[-1] + AFTER * len(options.ages)
    with Display("evaluate --drift", total) as display:
        for clicks, one in measure(settings, size, options.ages):
            done += clicks
            aged += [one] if one is not None else []
            display.show(done, f"{len(aged)} of {amounts(age=len(options.ages))}")
    report = Report(size, aged)
    drift_report.show(report, options.as_json)
    if options.plot is not None:
        outputs.write("--plot", options.plot, drift_picture.draw(report), options.force)
        print(f"wrote {options.plot}", file=sys.stderr)


def _check(config: Config, ages: tuple[int, ...]) -> None:
    """ConfigError if there is too little of something to measure."""
    size = config.round.max_events
    if size * 10 > AFTER:
        raise ConfigError(f"--drift: round.max_events {size:,} is more than {AFTER // 10:,}")
    if ages[0] < (fewest := (PUBLISHES + 1) * size):
        raise ConfigError(
            f"--ages: {ages[0]:,} clicks are too few: stability is measured over {PUBLISHES} "
            f"rounds of {size:,}, so {fewest:,} are the least"
        )
    if len(ages) > len(PALETTE):
        raise ConfigError(f"--ages: {len(ages)} are too many for a picture, {len(PALETTE)} at most")
    pause, gap = PAUSE * interval(config.graph.half_life), int(config.session.gap)
    if pause > gap / 4:
        raise ConfigError(
            f"--drift: by graph.half_life the clicks of a session are {pause / 1000:,.0f} s apart, "
            "which is too near session.gap"
        )


def measure(
    settings: Settings, size: int, ages: tuple[int, ...]
) -> Iterator[tuple[int, Aged | None]]:
    """Clicks that were taken in since the one before, and what was found at an age that is over."""
    seed, between = settings.model.seed, interval(settings.graph.half_life)
    groups, others = (Groups(n) for n in np.random.default_rng(seed).integers(1 << 31, size=2))
    log = groups.clicks(ages[-1], "before-", seed, START_MS, between)
    watched, at = Watched(settings), 0
    for age in ages:
        while at < age:
            begin, at = at, min(at + size, age)
            left = age - begin
            watched.round(log, begin, at, left <= STEADY, left <= (PUBLISHES + 1) * size)
            yield at - begin, None
        other = deepcopy(watched)
        start = int(log.times[age - 1]) + 1
        changed = others.clicks(AFTER, f"after-{age}-", seed, start, between)
        for begin in range(0, AFTER, size):
            other.round(changed, begin, min(begin + size, AFTER), True, False)
            yield min(size, AFTER - begin), None
        before = [point for point in watched.points if point.click > age - STEADY]
        after = [
            replace(point, click=point.click - age) for point in other.points if point.click > age
        ]
        yield 0, Aged.of(age, before, after, watched.stability.steps[-PUBLISHES:])


class Watched:
    """An engine and its rivals that take a log, and what was seen of them."""

    def __init__(self, settings: Settings) -> None:
        self.engine, self.past = Engine(settings), Past(settings)
        self.stability, self.points = Stability(settings.model.seed), list[Point]()
        self.rankers: list[Ranker] = [
            Model(("next", "hybrid"), settings.model.session_decay),
            *baselines(self.past, settings),
        ]

    def round(self, log: Stretch, begin: int, end: int, ranks: bool, compares: bool) -> None:
        """Take the clicks from `begin` up to `end`, and publish. Some are ranked if `ranks`; the
        publish is compared with the one before if `compares`."""
        clicks = log.part(begin, end)
        asked = Asked(self.engine, self.past, self.past.take(clicks, RANKED if ranks else 0), False)
        if len(asked):
            found: Ranks = {}
            for ranker in self.rankers:
                found |= ranker(asked)
            hr = {name: float((rank < DEPTH).mean()) for name, rank in found.items()}
            self.points.append(Point(self.past.clicks, len(asked), hr))
        self.past.learn()
        self.past.transitions.clear()  # no peer is trained from them
        changes = self.engine.step(Inputs(clicks, room=ALL, budget=ALL)).changes
        assert changes is not None
        if compares:
            self.stability.observe(self.engine, self.past, changes)
        self.past.touched.clear()
