"""What several workers cost in quality, and in work and bytes: `walkstream evaluate` of a log by N
engines that share the rows of a model, as workers do, each commit of them at the same moment.

One engine learns each round when it has ranked it. Of several, each folds all rounds of a commit
when that is over, moves the rows that it owns, and reads the others' as they were written with the
commit before.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Changes, Evidence, Inputs
from core.rows import Packed, from_values
from streamer import vectors
from streamer.evaluate.report import Report
from streamer.evaluate.rounds import Round
from streamer.evaluate.run import Evaluation, Options, describe, tokens_of
from streamer.files.readers import Source
from streamer.files.replay import ALL
from streamer.settings.sections import Config
from streamer.state import evidence

QUALITY = ("next", "hybrid", "hybrid, session")
"""Rankers that are told of."""
TOPICS = ("model-state", "item-vectors", "transitions")
"""Bytes a click into these."""
PARTITIONS = 16
"""Of the items."""
STAGES = ("rank", "fold", "walk", "learn", "place", "read")
THREADED = "walk", "learn"
"""What `engine.threads` share."""


@dataclass
class Costs:
    """Of one worker, or of all."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Processor time by stage."""
    size: Counter[str] = field(default_factory=Counter)
    """Bytes of keys and values by topic, as they are written."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - begin


class Together(Evaluation):
    """An evaluation by several workers. All are asked the same by the first, which has the rows of
    the others as they were written last."""

    def __init__(
        self, config: Config, source: Source, workers: int, commit: int, items: Path | None
    ) -> None:
        options = Options("all", None, True, False, 256, 0.5, True, None)
        super().__init__(config, source, options)
        self.config, self.commit = config, commit
        self.costs = [Costs() for _ in range(workers)]
        self.engines = [Engine(config.engine_settings, PARTITIONS, one.timed) for one in self.costs]
        self.engine = self.engines[0]
        self.written: dict[bytes, bytes] = {}
        self.read: list[Round] = []
        """Rounds of the commit before, which all have read."""
        self.collected: list[Round] = []
        self.number = self.rounds = 0
        for n, engine in enumerate(self.engines if workers > 1 else []):
            engine.own(range(n, PARTITIONS, workers), self._written)
            engine.catalogue.written = self._written
        tokens = tokens_of(config, source, items)
        for engine in self.engines:
            describe(engine, tokens)

    def _written(self, keys: Sequence[bytes]) -> Packed:
        there = [key for key in keys if key in self.written]
        return there, from_values([self.written[key] for key in there], self.engine.model.dtype)

    def run(self) -> Report:
        found = super().run()
        for _ in range(2):
            self._close()
        return found

    def _round(self, taken: Round) -> None:
        if len(self.engines) == 1:
            self._rank(taken)
            self.engine.step(Inputs(taken.clicks, closes_commit=False, room=ALL, budget=ALL))
        self.collected.append(taken)
        if sum(len(one.clicks) for one in self.collected) >= self.commit:
            self._close()

    def _close(self) -> None:
        """A commit of all workers."""
        self.number += 1
        gone = self.engine.gone(Inputs(Clicks.empty(), room=ALL)) if len(self.engines) > 1 else {}
        for k, taken in enumerate(self.read if len(self.engines) > 1 else []):
            self._rank(taken)
            for n, engine in enumerate(self.engines):
                engine.step(
                    Inputs(
                        taken.clicks, is_told=True, gone=gone if k == 0 else {},
                        closes_commit=False, ranks=(self.rounds + k) % len(self.engines) == n,
                    )
                )  # fmt: skip
        left: list[Changes] = []
        for engine, cost in zip(self.engines, self.costs, strict=True):
            closing = Inputs(Clicks.empty(), room=ALL, budget=ALL, is_told=True)
            changes = engine.step(closing).changes
            assert changes is not None
            left.append(changes)
            cost.size["model-state"] += sum(map(len, changes.keys)) + sum(map(len, changes.values))
            told = vectors.records(changes, "space", self.config.publish.format)
            cost.size["item-vectors"] += sum(len(key) + len(value or b"") for key, value in told)
        self.rounds += len(self.read)
        rounds = [Evidence(0, {}, (), taken.clicks, {}) for taken in self.collected]
        packed = evidence.pack(self.number, self.number - 1, rounds)
        self.costs[0].size["transitions"] += sum(map(len, packed))
        self._exchange(left)
        self.read, self.collected = self.collected, []

    def _exchange(self, left: list[Changes]) -> None:
        """Everybody reads what the others have written."""
        for changes in left:
            self.written |= zip(changes.keys, changes.values, strict=True)
            for gone in changes.gone:
                self.written.pop(gone.key, None)
        for n, (engine, cost) in enumerate(zip(self.engines, self.costs, strict=True)):
            for m, changes in enumerate(left):
                if m != n:
                    with cost.timed("read"):
                        engine.ownership.read(changes.keys, changes.rows)
                        engine.ownership.unpublish([gone.key for gone in changes.gone])
                        if changes.placement is not None:
                            engine.take_placement(changes.placement)


def table(
    config: Config, source: Source, workers: Sequence[int], commit: int,
    terms: dict[int, dict[str, float]], items: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """The lines of a table: hit rates, reciprocal ranks, and what each count of workers costs, in
    microseconds of all of them a click, which `terms` gets too, by count and stage."""
    names = " | ".join((*QUALITY, "CPU us a click, of all", *STAGES, *TOPICS))
    yield f"| workers | {names} |"
    yield "|---" * (2 + len(QUALITY) + len(STAGES) + len(TOPICS)) + "|"
    for n in workers:
        one = Together(config, source, n, commit, items)
        found = {(f.ranker, f.of): f for f in one.run().figures}
        clicks = one.past.clicks
        cells = [str(n)]
        for name in QUALITY:
            figure = found[name, "all"]
            cells.append(f"{figure.hr:.4f} / {figure.mrr:.4f}")
        size = Counter[str]()
        for cost in one.costs:
            size.update(cost.size)
        micro = {s: sum(1e6 * cost.seconds[s] / clicks for cost in one.costs) for s in STAGES}
        terms[n] = micro
        cells += [f"{sum(micro.values()):.0f}", *(f"{micro[stage]:.1f}" for stage in STAGES)]
        cells += [f"{size[topic] / clicks:.0f}" for topic in TOPICS]
        yield f"| {' | '.join(cells)} |"


def capacity(
    terms: dict[int, dict[str, float]], outside: float, speedups: dict[int, float]
) -> Iterator[str]:
    """The lines of a table: clicks a second that N workers of some threads carry, each on cores of
    its own, by what the one has to do that ranks for all.

    `outside` is collecting, decoding, commits and the folder, which no engine does and workers
    share out, in microseconds a click; `speedups` says how much faster so many threads learn."""
    names = " | ".join(f"{threads} threads: clicks/s | of one" for threads in speedups)
    stages = (*STAGES, "outside")
    yield f"| workers | {' | '.join(stages)} | {names} |"
    yield "|---" * (1 + len(stages) + 2 * len(speedups)) + "|"
    alone: dict[int, float] = {}
    for n, micro in terms.items():
        # A worker's part of the sum over all; but ranking is of one of them.
        own = {stage: micro[stage] / n for stage in STAGES if stage != "rank"}
        own = {"rank": micro["rank"], **own, "outside": outside / n}
        cells = [f"{n}", *(f"{own[stage]:.1f}" for stage in stages)]
        for threads, speedup in speedups.items():
            spent = sum(own[s] / (speedup if s in THREADED else 1.0) for s in stages)
            alone.setdefault(threads, spent)
            cells += [f"{1e6 / spent:,.0f}", f"{alone[threads] / spent:.2f}"]
        yield f"| {' | '.join(cells)} |"
