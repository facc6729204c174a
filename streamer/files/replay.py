"""The same engine, rounds and commits on files instead of Kafka: for backfill and try-outs."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from prometheus_client import CollectorRegistry

from core.engine import Engine
from core.rounds import Changes, Evidence, Inputs
from streamer import kernels, outputs
from streamer import vectors as public
from streamer.decode.deadletter import as_json_line
from streamer.decode.events import attribute_tokens
from streamer.errors import WalkstreamError
from streamer.files.catalogue import described
from streamer.files.lines import Record
from streamer.files.log import ClickLog, tell
from streamer.files.readers import Source
from streamer.files.replay_report import Report
from streamer.progress import Display
from streamer.settings.load import spelled
from streamer.settings.sections import Config
from streamer.state import evidence, folders, packing, records, traces
from streamer.state import store as stores
from streamer.state.records import Space
from streamer.state.store import Entry, Store
from streamer.terminal import say
from streamer.watch.metrics import STAGES, Metrics
from streamer.wording import amounts
from streamer.worker import checkpoint

ALL = 2**31
"""The room that a commit has for records where no broker sets bounds."""

PARTITIONS = 1
"""Item partitions of a replayed folder; a worker that adopts it spreads the items over its own."""

NO_COMMIT = 0
"""Under this number the folder has the evidence: the commits of a worker begin with 1."""

DIRECTORY, VECTORS, DEAD_LETTERS = "state", "vectors.jsonl", "dead-letters.jsonl"
"""What a replay writes."""

STAGE_SECONDS = "walkstream_stage_seconds_total"

ROUNDS_PER_COMMIT = 20
"""Rounds of a commit where `commit.rounds` does not say: no clock may decide it here. A worker that
is as fast as a replay has about as many in a second."""


def run(
    config: Config,
    source: Source,
    items: Path | None,
    out: Path,
    publish_all: bool,
    as_json: bool = False,
    force: bool = False,
) -> None:
    """Take the clicks of `source`, and the catalogue `items`, through the engine into `out`.

    Writes `vectors.jsonl` (the last record of each item, or all in order), `dead-letters.jsonl` and
    `state/`. ConfigError if `out` holds something already, or is a link and not `force`. A replay
    that fails, or finds nothing to learn, takes back what it wrote: the corrected one may have the
    same `out`.
    """
    outputs.make_folder("--out", out, force)
    try:
        with (
            folders.writing(out / DIRECTORY),
            Replay(config, source, out, publish_all) as replay,
        ):
            if items is not None:
                replay.describe(items)
            replay.run(as_json)
    except WalkstreamError:
        folders.remove(out / DIRECTORY)
        for name in (VECTORS, DEAD_LETTERS):
            (out / name).unlink(missing_ok=True)
        raise


class Replay:
    """One replay: rounds of `round.max_events` records, commits of `commit.rounds` rounds."""

    def __init__(self, config: Config, source: Source, out: Path, publish_all: bool) -> None:
        self.config, self.out, self.publish_all = config, out, publish_all
        self.log = ClickLog(config, source)
        self.nulls = source.nulls
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        kernels.prepare(config.engine_settings)
        self.engine = Engine(config.engine_settings, PARTITIONS, self.metrics.timed)
        self.space = Space.of(config.engine_settings, PARTITIONS)
        self.store = Store(out / DIRECTORY)
        self.store.set_meta(
            {records.SPACE: msgspec.msgpack.encode(self.space), stores.ORIGIN: stores.REPLAY}
        )
        self.engine.load_rows(self.store.rows_in_parts(), self._tokens)
        self.last: dict[bytes, bytes] = {}
        self.attributes: list[tuple[str, list[str] | None]] = []
        self.taken = self.events = self.ignored = self.published = self.trials = 0
        self.evidence: list[Evidence] = []
        """Since the last commit."""
        self.traces = traces.Traces(self.store, config.session.visits)
        self.hits: Counter[str] = Counter()
        """Trials whose item was among the first 20, by ranker."""

    def describe(self, catalogue: Path) -> None:
        """Take attributes in; the first round learns them. WalkstreamError for a bad record."""
        stored: dict[bytes, bytes] = {}
        for item, attributes, tokens in described(catalogue, self.nulls, self.config.items.use):
            stored[item.encode()] = msgspec.json.encode(attributes)
            self.attributes.append((item, tokens))
        self.store.write_entries({"attributes": stored.items()})

    def _tokens(self, item: str) -> list[str]:
        return attribute_tokens(self.store.attributes(item.encode()), self.config.items.use)

    def run(self, as_json: bool) -> None:
        """Take all records, the unfinished round at the end included."""
        begin = time.perf_counter()
        with (
            (self.out / VECTORS).open("wb") as self.vectors,
            (self.out / DEAD_LETTERS).open("wb") as self.dead_letters,
            Display("replay", self.log.reader.total_bytes) as display,
        ):
            reader = self.log.reader
            per_commit = self.config.commit.rounds or ROUNDS_PER_COMMIT
            number = 0
            for chunk, is_last in self._rounds():
                if chunk or is_last:
                    number += 1
                    self._round(chunk, is_last or number % per_commit == 0)
                rate = self.taken / (time.perf_counter() - begin)
                what = f"{amounts(record=self.taken, item=len(self.engine.items))}, {rate:,.0f}/s"
                display.show(reader.bytes_read, what if self.taken else "sorting")
            self.vectors.writelines(value + b"\n" for value in self.last.values())
        checkpoint.save(self.store, self.engine, 0, 0)
        self._tell(self._report(time.perf_counter() - begin), as_json)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Let go of the state folder."""
        self.store.__exit__(*error)

    def _rounds(self) -> Iterator[tuple[list[Record], bool]]:
        """The records in rounds, and whether a round is the last."""
        rounds = self.log.chunks(self.config.round.max_events)
        while True:
            with self.metrics.timed("collect"):
                found = next(rounds, None)
            if found is None:
                return
            yield found

    def _round(self, chunk: list[Record], closes: bool) -> None:
        with self.metrics.timed("decode"):
            decoded, bad = self.log.decoded(chunk)
        topic = self.config.topics.clicks
        for one in bad:
            position = topic, 0, self.taken + one.record
            self.dead_letters.write(as_json_line(*position, -1, chunk[one.record].key, one))
        self.taken += len(chunk)
        self.ignored += decoded.unwanted
        parts = decoded.clicks.parts(self.config.round.max_events)
        for number, clicks in enumerate(parts, 1):
            last = number == len(parts)
            inputs = Inputs(clicks, self.attributes, (), closes and last, ALL, ALL)
            outputs = self.engine.step(inputs)
            self.attributes = []
            self.events += outputs.events
            self.ignored += outputs.duplicates + outputs.too_long + outputs.held
            self.trials += outputs.quality.trials
            self.hits.update(outputs.quality.hits)
            self.evidence.append(outputs.evidence)
        changes = outputs.changes
        if changes is not None:
            with self.metrics.timed("commit"):
                self._publish(changes)
            with self.metrics.timed("apply"):
                self.store.write_changes(changes, {}, self._more())

    def _more(self) -> dict[str, list[Entry]]:
        """What the folder gets beside the rows: what `hybrid` ranks by, and the newest clicks."""
        told = evidence.pack(NO_COMMIT, NO_COMMIT, self.evidence)
        entries = self.traces.entries((NO_COMMIT, record) for record in told)
        self.evidence.clear()
        fusion = packing.pack_fusion(self.engine.fusion, self.engine.settings)
        return {traces.FAMILY: entries, "meta": [(records.FUSION, fusion)]}

    def _publish(self, changes: Changes) -> None:
        for key, value in public.records(changes, self.space.name, "json"):
            self.published += 1
            if self.publish_all:
                self.vectors.write((value or tombstone(key)) + b"\n")
            elif value is None:
                self.last.pop(key, None)
            else:
                self.last[key] = value

    def _report(self, seconds: float) -> Report:
        spent = {
            stage: self.registry.get_sample_value(STAGE_SECONDS, {"stage": stage}) or 0.0
            for stage in STAGES
        }
        spent["other"] = seconds - sum(spent.values())
        return Report(
            records=self.taken,
            clicks=self.events,
            dead_letters=self.log.refused.total,
            left_out=self.ignored,
            late=self.log.order.late,
            rounds=self.engine.round_number,
            items=len(self.engine.items),
            arcs=self.engine.graph.arcs,
            published=self.published,
            seconds=seconds,
            records_per_second=self.taken / seconds,
            stages={stage: s / seconds for stage, s in spent.items() if s > 0},
            transitions=self.trials,
            hit_rates={ranker: hits / self.trials for ranker, hits in self.hits.items()}
            if self.trials
            else {},
        )

    def _tell(self, report: Report, as_json: bool) -> None:
        """Print what came of it. WalkstreamError if nothing was learned."""
        refused = self.log.refused
        tell(self.log.notes())
        if not report.records:
            raise WalkstreamError("nothing was learned: there is no record in the input")
        if as_json:
            print(msgspec.json.encode(report).decode())
        else:
            say("\n".join(report.lines()))
            if not report.hit_rates and report.clicks and self.config.quality.sample:
                say(f"no hit rate: {report.why_unranked()}")
            if refused.total:
                say("\n".join(["dead letters:", *refused.lines()]))
        if not report.clicks:
            raise WalkstreamError(self._nothing_learned(NO_CLICK))
        if not report.arcs:
            raise WalkstreamError(self._nothing_learned(self._why_no_arcs()))
        if not as_json:
            print(f"try: walkstream query ITEM --state {self.out / DIRECTORY}")

    def _nothing_learned(self, why: str) -> str:
        return "\n".join([f"nothing was learned: {why}", *self.log.left_out.lines()])

    def _why_no_arcs(self) -> str:
        gap = self.config.session.gap
        why = f"no user went on from one item to another within session.gap ({spelled(gap)})"
        if self.log.order.is_out_of_order:
            return f"{why}, as the clicks are out of order: give --sort"
        return (
            f"{why}. Where users come once a day or a week, give --set session.gap=1d or more; "
            "where each line has a user of its own, --columns names the wrong column"
        )


NO_CLICK = (
    "no record is a click, or all were left out. Look at --columns and --delimiter for tables, at "
    "section [clicks.fields] for JSON, at --time, and at events.weights for types of events"
)


def tombstone(key: bytes) -> bytes:
    """What stands for the deletion of an item where every record is written."""
    return msgspec.json.encode({"item_id": key.decode(), "vector": None})
