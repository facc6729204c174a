"""What a worker tells while it runs: metrics, readiness, and lines in the log."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.graph import NEVER
from core.ids.vocabulary import decode, is_attribute
from core.ranking.experts import EXPERTS
from core.rounds import Changes, Outputs
from core.settings import Duration
from streamer.admin.letters import iso
from streamer.decode.events import Bad, Decoded
from streamer.kafka.clients import Partition, partition_of
from streamer.settings.load import spelled
from streamer.state.store import Store
from streamer.watch.health import Health, Lag
from streamer.watch.metrics import Metrics
from streamer.wording import counted
from streamer.worker.batch import Batch
from streamer.worker.reader import Reader

log = logging.getLogger(__name__)

OBSERVE_SECONDS = 1.0
"""Time between observations that set the gauges."""
LOG_SECONDS = 60.0
"""Time between lines of the log that say how far the worker is."""
MANY = 0.1
"""From this share of the catalogue on, the log says why items left."""


class Report:
    """Keeps metrics and health up to date with the loop.

    Create it when everything is restored. `ends` are the ends of the clicks partitions at that
    time: until they are reached, the worker knows that it is behind, whatever the consumer has
    heard of. `offsets` is the loop's own dict, of the next click of each partition.
    """

    def __init__(
        self, metrics: Metrics, health: Health, store: Store, engine: Engine, reader: Reader,
        offsets: Mapping[Partition, int], ends: Mapping[Partition, int],
    ) -> None:  # fmt: skip
        self.metrics, self.health, self.store = metrics, health, store
        self.engine, self.reader, self.offsets, self.ends = engine, reader, offsets, dict(ends)
        self.newest: dict[Partition, int] = {}
        """Record timestamp, ms, of the last record taken from each partition."""
        self.level_at: dict[Partition, int] = {}
        """When nothing was left to read in a partition the last time, ms since the epoch."""
        self.departures = Departures(engine, engine.clock.time)
        self.complained: set[tuple[str, str]] = set()
        self.observed = time.monotonic()
        self.logged = -LOG_SECONDS
        self.sent: list[NDArray[np.int64]] = []
        """Since the last commit: record timestamps, ms, of records with clicks that were kept."""
        self.clicked: list[NDArray[np.int64]] = []
        """Since the last commit: times of the clicks, ms."""
        self.written: dict[int, Stamps] = {}
        """By commit, those of clicks that left as evidence, and are not learned yet."""
        self.learned_of: list[Stamps] = []
        """Since the last commit: those of clicks that were learned from the log."""
        if engine.clock.time != NEVER:
            metrics.newest_click_timestamp_seconds.set(engine.clock.time / 1000.0)

    def read(self, messages: list[Message], decoded: Decoded, forgotten: int) -> None:
        """A round's records were read; `forgotten` clicks of them are of forgotten users."""
        ignored = self.metrics.ignored_clicks_total
        ignored.labels("unwanted").inc(decoded.unwanted)
        ignored.labels("forgotten").inc(forgotten)
        stamps = np.array([m.timestamp()[1] for m in messages], np.int64)
        for message, stamp in zip(messages, stamps.tolist(), strict=True):
            self.newest[partition_of(message)] = stamp
        sent = stamps[np.unique(decoded.records)]
        self.sent.append(sent[sent > 0])
        self.clicked.append(decoded.clicks.times)
        every = len(decoded.clicks) + forgotten + decoded.unwanted + len(decoded.bad)
        self.health.dead_letters.add(every, len(decoded.bad))

    def dead_lettered(self, topic: str, letters: Iterable[Bad]) -> None:
        """Records of a topic became dead letters."""
        for bad in letters:
            self.metrics.dead_letters_total.labels(bad.reason.value).inc()
            if (topic, bad.reason) not in self.complained:
                self.complained.add((topic, bad.reason))
                log.warning(
                    "%s: first dead letter of class %s: %s", topic, bad.reason.value, bad.message
                )

    def learned(self, outputs: Outputs, counts: bool) -> None:
        """A round was learned. One worker counts the clicks, of all that learn them."""
        metrics = self.metrics
        metrics.rounds_total.inc()
        if counts:
            metrics.ignored_clicks_total.labels("duplicate").inc(outputs.duplicates)
            metrics.ignored_clicks_total.labels("too_long").inc(outputs.too_long)
            metrics.ignored_clicks_total.labels("held").inc(outputs.held)
            metrics.admitted_items_total.inc(outputs.admitted)
        metrics.quality_trials_total.inc(outputs.quality.trials)
        if outputs.quality.trials:
            metrics.quality_candidates.set(outputs.quality.candidates)
        for ranker, hits in outputs.quality.hits.items():
            metrics.quality_hits_total.labels(ranker).inc(hits)
            reciprocal = outputs.quality.reciprocal[ranker]
            metrics.quality_reciprocal_ranks_total.labels(ranker).inc(reciprocal)
        duel = outputs.quality.duel
        metrics.challenger_trials_total.inc(duel.trials)
        metrics.challenger_hits_total.labels("challenger").inc(duel.both + duel.wins)
        metrics.challenger_hits_total.labels("champion").inc(duel.both + duel.losses)
        for expert, share in zip(EXPERTS, self.engine.fusion.shares[-1].tolist(), strict=True):
            metrics.expert_share.labels(expert).set(share)

    def heard(self, number: int) -> None:
        """The clicks that left as evidence with this commit came back, and are learned."""
        if number in self.written:
            self.learned_of.append(self.written.pop(number))

    def closing(
        self, number: int, events: int, batch: Batch, retired: int, is_told: bool
    ) -> Callable[[Batch], None]:
        """A commit closes; returns what to call with it, from whatever thread, when it is through.
        Where the log tells what to learn, the vectors of clicks leave with a later commit."""
        sent, clicked, self.sent, self.clicked = self.sent, self.clicked, [], []
        if is_told:
            if batch.evidence:
                self.written[number] = Stamps(sent, clicked)
            sent = [part for one in self.learned_of for part in one.sent]
            clicked = [part for one in self.learned_of for part in one.clicked]
        self.learned_of.clear()
        changes = batch.changes
        if told := self.departures.add(changes, retired):
            log.warning("commit %d: %s", number, told)
        return partial(self._through, events, sent, clicked)

    def _through(
        self, events: int, sent: list[NDArray[np.int64]], clicked: list[NDArray[np.int64]],
        batch: Batch,
    ) -> None:  # fmt: skip
        """A commit is through: its vectors can be read."""
        metrics, now, changes = self.metrics, time.time(), batch.changes
        for stamps in sent:
            metrics.staleness_seconds.observe(now - stamps / 1000.0)
        for times in clicked:
            metrics.click_staleness_seconds.observe(now - times / 1000.0)
        newest = [stamps.max() for stamps in sent if len(stamps)]
        if newest:
            metrics.newest_click_timestamp_seconds.set(max(newest) / 1000.0)
        metrics.events_total.inc(events)
        metrics.published_vectors_total.inc(len(changes.published))
        metrics.published_user_vectors_total.inc(len(batch.users))
        metrics.row_writes_total.inc(len(changes.keys))
        metrics.graph_writes_total.inc(batch.swept.records)
        metrics.evidence_bytes_total.inc(sum(map(len, batch.evidence)))
        metrics.waiting.labels("moved").set(changes.waiting)
        metrics.waiting.labels("stale").set(changes.stale)
        metrics.waiting_drift.set(changes.furthest)
        metrics.cluster_moves_total.inc(changes.cluster_moves)
        metrics.bucket_moves_total.inc(changes.bucket_moves)
        metrics.drift.observe(changes.drift)

    def observe(
        self, all_taken: bool = True, at_once: bool = False,
        also: Mapping[Partition, int] | None = None,
    ) -> None:  # fmt: skip
        """Set the gauges, if it is time to. `all_taken`: all that was read is in a round. `also`:
        what else is behind, in records."""
        if not at_once and time.monotonic() - self.observed < OBSERVE_SECONDS:
            return
        self.observed = time.monotonic()
        metrics, engine = self.metrics, self.engine
        if engine.round_number and time.monotonic() - self.logged >= LOG_SECONDS:
            self.logged = time.monotonic()
            log.info(
                "%d items, %d arcs, %d clicks behind", len(engine.items), engine.graph.arcs,
                sum(behind for _, behind in self.reader.lag(self.offsets, self.ends, False)),
            )  # fmt: skip
        metrics.items.set(len(engine.items))
        metrics.counted_items.set(engine.catalogue.admission.counted)
        metrics.arcs.set(engine.graph.arcs)
        metrics.sessions.set(len(engine.sessions.users))
        for table, size in engine.table_bytes().items():
            metrics.table_bytes.labels(table).set(size)
        for kind, size in self.store.bytes_used().items():
            metrics.store_bytes.labels(kind).set(size)
        lags: dict[Partition, Lag] = {}
        own = self.reader.lag(self.offsets, self.ends, all_taken)
        for partition, behind in [*own, *(also or {}).items()]:
            if not behind:
                self.level_at[partition] = int(1000 * time.time())
            # What waits came after the partition was read to its end, and after what was read last.
            oldest = max(self.level_at.get(partition, -1), self.newest.get(partition, -1))
            lags[partition] = Lag(behind, oldest)
        self.health.lags = lags
        metrics.show_lags(lags)


class Stamps(NamedTuple):
    """Of clicks that left together: times of records, and of the clicks, ms."""

    sent: list[NDArray[np.int64]]
    clicked: list[NDArray[np.int64]]


@dataclass
class Departures:
    """Tells why items leave, once it is more than a share MANY of them, in however many commits."""

    engine: Engine
    now: int
    """Event time (ms) as of the last commit in which none left."""

    def __post_init__(self) -> None:
        self.before = self.now
        """And of the last but one: an item leaves after what moved event time on."""
        self.left = self.retired = 0
        self.is_told = False

    def add(self, changes: Changes, retired: int) -> str | None:
        """What to tell of a commit, of whose items `retired` left by records of the items topic."""
        left = sum(not is_attribute(decode(g.key)) for g in changes.gone)
        if not left:
            self.before, self.now = self.now, changes.time
            self.left, self.retired, self.is_told = 0, 0, False
            return None
        self.left, self.retired = self.left + left, self.retired + retired
        items = self.left + len(self.engine.items)
        if self.is_told or self.left <= MANY * items:
            return None
        self.is_told = True
        why = f"{self.left:,} of {counted(items, 'item')} left"
        if expired := self.left - self.retired:
            horizon = spelled(Duration(self.engine.settings.graph.horizon_ms))
            was = self.before
            moved = f"event time moved from {iso(was)} to" if was != NEVER else "event time is"
            why += f": {expired:,} that nobody clicked for graph.horizon ({horizon})"
            if was == changes.time:
                why += ", which was longer before. To keep the others, raise it again"
            else:
                why += (
                    f", because {moved} {iso(changes.time)}. If no click is that new, look at "
                    "clicks.max_ahead"
                )
        if self.retired:
            why += f"; {self.retired:,} were retired by the items topic"
        return why
