"""`walkstream evaluate`: takes a log through the engine, and ranks each round before learning it.

Prequential (Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
Learning 90, 2013): all are asked by the item, or the items, that a session was at, and rank every
living item but the last. What they know is what came before the round.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Changes, Inputs
from streamer import outputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate import challenging, peers, picture, report, users
from streamer.evaluate.baselines import baselines
from streamer.evaluate.past import Past
from streamer.evaluate.peers import Peer
from streamer.evaluate.rankers import Asked, Mode, Model, Ranker, Ranks
from streamer.evaluate.rounds import Log, Round
from streamer.evaluate.scores import Scores
from streamer.evaluate.stability import Stability
from streamer.files.catalogue import described
from streamer.files.log import tell
from streamer.files.readers import Source
from streamer.files.replay import ALL, NO_CLICK
from streamer.progress import Display
from streamer.settings.sections import Config
from streamer.wording import amounts


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    mode: Mode | Literal["all"]
    peer: Peer | Literal["all"] | None
    session: bool
    """Ask by the last items of the session too."""
    unseen: bool
    """Rank what the session does not have yet."""
    sample: int
    """Positions ranked in a round at most."""
    begin: float
    """Figures are of what comes after this share of the clicks."""
    as_json: bool
    plot: Path | None
    force: bool = False
    """Write the picture over a file that is there."""
    items: Path | None = None
    """Attributes of items, which are all there before the first click."""


Tokens = dict[str, list[str]]
"""What the model learns from, of the attributes of each item."""


def tokens_of(config: Config, source: Source, items: Path | None) -> Tokens:
    """Those of a catalogue. WalkstreamError for a bad record."""
    if items is None:
        return {}
    found = described(items, source.nulls, config.items.use)
    return {item: tokens for item, _, tokens in found}


def describe(engine: Engine, tokens: Tokens) -> None:
    """Let an engine know a catalogue, before its first click."""
    if not tokens or not engine.settings.model.attribute_slots:
        return
    engine.catalogue.attributes = lambda item: tokens.get(item, ())
    described = list(tokens.items())
    engine.step(Inputs(Clicks.empty(), described, closes_commit=False, room=ALL))


def run(config: Config, source: Source, options: Options) -> None:
    """Evaluate, print, and draw.

    ConfigError for a picture that cannot be drawn or a peer that is not installed, WalkstreamError
    if there was nothing to rank.
    """
    if options.plot is not None:
        picture.check(options.plot, options.force)
    found = Evaluation(config, source, options).run()
    report.show(found, options.as_json)
    if options.plot is not None:
        drawn = picture.draw(found.over_stream, report.marks(found))
        outputs.write("--plot", options.plot, drawn, options.force)
        print(f"wrote {options.plot}", file=sys.stderr)


class Evaluation:
    """One pass over a log."""

    def __init__(self, config: Config, source: Source, options: Options) -> None:
        settings = config.engine_settings
        self.options = options
        self.log = Log(config, source)
        if options.peer and self.log.reader.total_bytes is None:
            raise ConfigError("--peer: name files on disk; a pipe cannot be read twice")
        self.engine, self.past = challenging.engine_of(config), Past(settings)
        self.contender = challenging.Contender(self.engine)
        describe(self.engine, tokens_of(config, source, options.items))
        self.changes: Changes | None = None
        """Of the last round."""
        self.scores, self.stability = Scores(), Stability(settings.model.seed)
        self.total = self.log.log.count() if options.peer else 0
        """Records of the log, if the peers have to know."""
        modes = get_args(Mode) if options.mode == "all" else (options.mode,)
        names = get_args(Peer) if options.peer == "all" else (options.peer,)
        self.retrained = [one for name in names if name for one in peers.of(name, settings)]
        decay = settings.model.session_decay if options.session else None
        self.users = users.of(self.engine, self.past, config, modes)
        self.rankers: list[Ranker] = [
            Model(modes, decay),
            *self.users,
            *([challenging.beside] if self.engine.challenger is not None else []),
            *baselines(self.past, settings),
            *self.retrained,
        ]

    def run(self) -> report.Report:
        reader = self.log.reader
        with Display("evaluate", reader.total_bytes) as display:
            for taken in self.log:
                what = "sorting"
                if taken is not None:
                    self._round(taken)
                    what = amounts(click=self.past.clicks, item=len(self.engine.items))
                display.show(reader.bytes_read, what)
        log = self.log.log
        tell(log.notes())
        if not self.log.records:
            raise WalkstreamError("there was nothing to rank: there is no record in the input")
        if not self.past.clicks:
            lines = [*log.refused.lines(), *log.left_out.lines()]
            raise WalkstreamError("\n".join([f"there was nothing to rank: {NO_CLICK}", *lines]))
        if not self.scores.rankers():
            why = (
                "there was nothing to rank: no user went on from one item, learned before, to "
                "another within session.gap. "
                + (
                    "The clicks are out of order: give --sort"
                    if log.order.is_out_of_order
                    else "Look at --columns and --time, or take smaller rounds with "
                    "--set round.max_events=N"
                )
            )
            raise WalkstreamError("\n".join([why, *log.left_out.lines()]))
        return report.Report.of(
            self.past.clicks,
            self.log.left_out,
            self.engine,
            self.options.begin,
            self.scores,
            self.stability.steps,
            self.contender.found,
        )

    def _rank(self, taken: Round) -> None:
        """Rank, by what is known before this round."""
        positions = self.past.take(taken.clicks, self.options.sample)
        for of_users in self.users:
            of_users.take(taken.clicks, positions)
        asked = Asked(self.engine, self.past, positions, self.options.unseen)
        if len(asked):
            ranks: Ranks = {}
            for ranker in self.rankers:
                ranks |= ranker(asked)
            self.scores.add(asked, ranks, self.past)
        self.past.learn()

    def _round(self, taken: Round) -> None:
        self._rank(taken)
        outputs = self.engine.step(
            Inputs(taken.clicks, closes_commit=taken.closes_commit, room=ALL, budget=ALL)
        )
        self.changes = outputs.changes
        self.contender.observe(outputs, self.past.clicks)
        if outputs.changes is not None:
            self.stability.observe(self.engine, self.past, outputs.changes)
        for peer in self.retrained:
            peer.follow(self.log.records / self.total, self.engine, self.past)
