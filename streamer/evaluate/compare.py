"""`walkstream evaluate --compare`: several configurations in one pass, asked the same.

Each has an engine of its own, which takes the same rounds and ranks the same clicks before it
learns them. So their differences are told with errors of pairs, which are much smaller than those
of the figures: most clicks are hits, or misses, of all of them.
"""

import math
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table

from core.rounds import Inputs
from streamer import outputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate import challenging, picture, users
from streamer.evaluate.baselines import baselines
from streamer.evaluate.challenging import Contest
from streamer.evaluate.cold import stand_ins
from streamer.evaluate.past import Past, Positions
from streamer.evaluate.rankers import Asked, Mode, Model, Ranks
from streamer.evaluate.rounds import Log, Round
from streamer.evaluate.run import Options, describe, tokens_of
from streamer.evaluate.scores import COLD, Scores
from streamer.files.log import tell
from streamer.files.readers import Source
from streamer.files.replay import ALL, NO_CLICK
from streamer.progress import Display
from streamer.settings.load import load
from streamer.settings.presets import KEY, PRESETS
from streamer.settings.sections import Config
from streamer.terminal import Console
from streamer.wording import amounts, counted

SHARED = ("clicks", "events", "session", "round", "commit")
"""Sections that decide what a round is: all must have the same."""

OPTION = "--compare"
"""From where the settings behind a name are."""


@dataclass(frozen=True)
class Variant:
    """A configuration by its name."""

    name: str
    config: Config


class Line(msgspec.Struct, frozen=True):
    """How a variant did in one mode, and how far that is from the first variant that has it."""

    variant: str
    """What has few clicks may be found by others' vectors (`streamer.evaluate.cold`)."""
    mode: str
    hr: float
    hr_error: float
    """One standard error, as below."""
    hr_difference: float
    hr_difference_error: float
    """Of the pairs: the same clicks."""
    mrr: float
    mrr_error: float
    mrr_difference: float
    mrr_difference_error: float
    microseconds: float
    """Processor time of the engine a click, ranking for the figures apart."""
    by_clicks: dict[str, float]
    """HR@20 by how often the item was clicked before (`scores.COLD`)."""


class Comparison(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    clicks: int
    positions: int
    begin: int
    """The click that figures begin with."""
    best: str
    """The best baseline in HR@20, and how it did."""
    best_hr: float
    best_mrr: float
    by_clicks: dict[str, int]
    """Positions by how often the item was clicked before."""
    lines: list[Line]
    challengers: dict[str, Contest] = {}
    """By the variants that have one."""


def variants(names: Sequence[str], base: Path | None, overrides: Sequence[str]) -> list[Variant]:
    """The configurations that are named: files, or presets on top of `base`, each with settings of
    its own behind commas."""
    out = []
    for name in names:
        # A comma may be in a value, too, but not before what is a key.
        first, *own = re.split(r",(?=[\w.]+\s*=)", name)
        if any(setting.partition("=")[0].strip() == KEY for setting in own):
            raise ConfigError(f"--compare {name}: a preset is what the name begins with")
        if first in PRESETS:
            config = load(base, overrides, os.environ, {OPTION: [*own, f"preset={first}"]})
        elif Path(first).suffix == ".toml" or Path(first).exists():
            config = load(Path(first), overrides, os.environ, {OPTION: own})
        else:
            raise ConfigError(
                f"--compare {first}: is no file, and no preset: there are {', '.join(PRESETS)}"
            )
        shown = first if first in PRESETS else Path(first).stem
        out.append(Variant(",".join([shown, *own]), config))
    if len({variant.name for variant in out}) < len(out):
        raise ConfigError("--compare: each configuration once, and each file with its own name")
    for section in SHARED:
        first = getattr(out[0].config, section)
        for other in out[1:]:
            if getattr(other.config, section) != first:
                raise ConfigError(
                    f"--compare: [{section}] of {other.name} and of {out[0].name} differ, and all "
                    "have to take the same rounds"
                )
    return out


def run(compared: Sequence[Variant], source: Source, options: Options) -> None:
    """Compare, print, and draw. Errors are those of `streamer.evaluate.run`."""
    if options.peer:
        raise ConfigError("--compare goes without --peer")
    if options.plot is not None:
        picture.check(options.plot, options.force)
    one = _Pass(compared, source, options)
    found = one.run()
    if options.as_json:
        print(msgspec.json.encode(found).decode())
    else:
        _show(found)
    if options.plot is not None:
        marks = {
            contest.took_over: f"{name}: its challenger takes over"
            for name, contest in found.challengers.items()
            if contest.took_over is not None
        }
        cold = {_of(line.variant, line.mode): line.by_clicks for line in found.lines}
        drawn = picture.draw(one.scores.over_stream(one.past.clicks), marks, cold)
        outputs.write("--plot", options.plot, drawn, options.force)
        print(f"wrote {options.plot}", file=sys.stderr)


class _Pass:
    """One pass over a log."""

    def __init__(self, compared: Sequence[Variant], source: Source, options: Options) -> None:
        self.options, self.compared = options, compared
        first = compared[0].config
        self.log, self.past = Log(first, source), Past(first.engine_settings)
        self.engines = [challenging.engine_of(variant.config) for variant in compared]
        self.contenders = [challenging.Contender(engine) for engine in self.engines]
        tokens = tokens_of(first, source, options.items)
        for variant, engine in zip(compared, self.engines, strict=True):
            describe(engine, tokens_of(variant.config, source, options.items))
        self.seconds = [0.0] * len(compared)
        self.modes = get_args(Mode) if options.mode == "all" else (options.mode,)
        decays = [v.config.model.session_decay if options.session else None for v in compared]
        self.models = [Model(self.modes, decay) for decay in decays]
        self.users = [
            users.of(engine, self.past, variant.config, self.modes)
            for variant, engine in zip(compared, self.engines, strict=True)
        ]
        found = stand_ins(tokens, self.past, self.modes, decays[0])
        self.stand_ins = {f"{compared[0].name} + {name}": one for name, one in found.items()}
        """What has few clicks, by the first variant's vectors of other items."""
        self.baselines = list(baselines(self.past, first.engine_settings))
        self.scores = Scores()

    def run(self) -> Comparison:
        reader = self.log.reader
        with Display("compare", reader.total_bytes) as display:
            for taken in self.log:
                if taken is not None:
                    self._rank(taken)
                    self._learn(taken)
                display.show(reader.bytes_read, amounts(click=self.past.clicks))
        tell(self.log.log.notes())
        if not self.scores.rankers():
            log, why = self.log.log, "there was nothing to rank"
            lines = [why] if self.past.clicks else [f"{why}: {NO_CLICK}", *log.refused.lines()]
            raise WalkstreamError("\n".join([*lines, *log.left_out.lines()]))
        return self._found()

    def _rank(self, taken: Round) -> None:
        positions = self.past.take(taken.clicks, self.options.sample)
        for of_users in chain(*self.users):
            of_users.take(taken.clicks, positions)
        asked = self._asked(positions)
        # An item may have left one of them, where they forget at different times.
        shared = set(asked[0].positions.click.tolist())
        shared.intersection_update(*(one.positions.click.tolist() for one in asked[1:]))
        if any(len(one) != len(shared) for one in asked):
            asked = self._asked(positions.at(np.isin(positions.click, list(shared))))
        if len(shared):
            ranks: Ranks = {}
            for variant, model, own, one in zip(
                self.compared, self.models, self.users, asked, strict=True
            ):
                found = model(one)
                for of_users in own:
                    found |= of_users(one)
                ranks |= {_of(variant.name, mode): row for mode, row in found.items()}
            for name, stand_in in self.stand_ins.items():
                rows = stand_in(stand_in.asked(asked[0], self.options.unseen))
                ranks |= {_of(name, mode): row for mode, row in rows.items()}
            for baseline in self.baselines:
                ranks |= baseline(asked[0])
            self.scores.add(asked[0], ranks, self.past)
        self.past.learn()

    def _asked(self, positions: Positions) -> list[Asked]:
        unseen = self.options.unseen
        return [Asked(engine, self.past, positions, unseen) for engine in self.engines]

    def _learn(self, taken: Round) -> None:
        inputs = Inputs(taken.clicks, closes_commit=taken.closes_commit, room=ALL, budget=ALL)
        for n, engine in enumerate(self.engines):
            begin = time.process_time()
            outputs = engine.step(inputs)
            self.seconds[n] += time.process_time() - begin
            self.contenders[n].observe(outputs, self.past.clicks)

    def _found(self) -> Comparison:
        begin, clicks = int(self.options.begin * self.past.clicks), self.past.clicks
        best, figures = self.scores.figures(begin)
        if not any(figure.positions for figure in figures):
            raise WalkstreamError(
                f"no click was ranked from click {begin:,} on: take a smaller --from"
            )
        by_name = {figure.ranker: figure for figure in figures if figure.of == "all"}
        cold = {(figure.ranker, figure.of): figure for figure in figures if figure.of in COLD}
        gains = self.scores.gains(begin)
        modes = dict.fromkeys(name.partition(": ")[2] for name in gains if ": " in name)
        took = {v.name: s for v, s in zip(self.compared, self.seconds, strict=True)}
        took |= dict.fromkeys(self.stand_ins, self.seconds[0])
        lines = []
        for mode in modes:
            names = {shown: _of(shown, mode) for shown in took if _of(shown, mode) in gains}
            base = gains[next(iter(names.values()))]
            for shown, name in names.items():
                seconds, figure, own = took[shown], by_name[name], gains[name]
                lines.append(
                    Line(
                        shown, mode,
                        figure.hr, figure.hr_error, *difference(own.hr, base.hr),
                        figure.mrr, figure.mrr_error, *difference(own.mrr, base.mrr),
                        1e6 * seconds / max(clicks, 1),
                        {of: cold[name, of].hr for of in COLD if cold[name, of].positions},
                    )
                )  # fmt: skip
        beaten = by_name[best.hr]
        ranked = {of: cold[best.hr, of].positions for of in COLD}
        return Comparison(
            clicks, beaten.positions, begin, best.hr, beaten.hr, beaten.mrr, ranked, lines,
            {
                variant.name: contender.found
                for variant, contender in zip(self.compared, self.contenders, strict=True)
                if contender.found is not None
            },
        )  # fmt: skip


def _of(name: str, mode: str) -> str:
    return f"{name}: {mode}"


def difference(own: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of own - base, float64 [q] each, and the standard error of a mean of pairs."""
    apart = own - base
    return float(apart.mean()), float(apart.std()) / math.sqrt(len(apart))


def _show(found: Comparison) -> None:
    console = Console()
    print(
        f"{amounts(click=found.clicks)}, {counted(found.positions, 'click')} ranked, from click "
        f"{found.begin:,} on\n"
        f"the best baseline: {found.best}, {found.best_hr:.3f} in HR@20, {found.best_mrr:.3f} in "
        "MRR@20"
    )
    for name, contest in found.challengers.items():
        print(f"the challenger of {name}: {contest.told()}")
    for mode in dict.fromkeys(line.mode for line in found.lines):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        # In 80 columns, as in every pipe, names are folded, and numbers are whole.
        table.add_column(mode, overflow="fold", min_width=len("walkstream"))
        for column in "HR@20", "±", "vs first", "±", "MRR@20", "±", "vs first", "±":
            table.add_column(column, justify="right", min_width=5 + 2 * column.startswith("vs"))
        table.add_column("us a click", justify="right", min_width=len("click"))
        for line in found.lines:
            if line.mode == mode:
                table.add_row(
                    escape(line.variant), f"{line.hr:.3f}", f"{line.hr_error:.3f}",
                    f"{line.hr_difference:+.4f}", f"{line.hr_difference_error:.4f}",
                    f"{line.mrr:.3f}", f"{line.mrr_error:.3f}",
                    f"{line.mrr_difference:+.4f}", f"{line.mrr_difference_error:.4f}",
                    f"{line.microseconds:.1f}",
                )  # fmt: skip
        console.print()
        console.print(table)
        console.print()
        console.print(_by_clicks(found, mode))
    print()
    print(NOTES)


def _by_clicks(found: Comparison, mode: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(f"{mode}, HR@20 by clicks before", overflow="fold")
    for of in found.by_clicks:
        table.add_column(of, justify="right", no_wrap=True)
    table.add_row("clicks ranked", *(f"{n:,}" for n in found.by_clicks.values()))
    for line in found.lines:
        if line.mode == mode:
            rates = (line.by_clicks.get(of) for of in found.by_clicks)
            table.add_row(escape(line.variant), *("-" if x is None else f"{x:.3f}" for x in rates))
    return table


NOTES = """\
vs first: the difference to the configuration that was named first, of those
that have it: user is by vectors of users, with user_vectors.kind. ± is one
standard error; of a difference it is that of pairs, as all rank the same
clicks. us a click: processor time of the engine, without ranking for these
figures."""
