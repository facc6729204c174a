"""What a worker tells while it runs: metrics, readiness, and lines in the log."""

import logging
import time
from collections.abc import Iterable, Mapping

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.graph import NEVER
from core.ids.vocabulary import decode, is_attribute
from core.rounds import Changes, Outputs
from core.settings import Duration
from streamer.admin.letters import iso
from streamer.decode.events import Bad, Decoded
from streamer.kafka.clients import Partition, partition_of
from streamer.settings.load import spelled
from streamer.store import Store
from streamer.watch.health import Health, Lag
from streamer.watch.metrics import Metrics
from streamer.worker.reader import Reader

log = logging.getLogger(__name__)

OBSERVE_SECONDS = 1.0
"""Time between observations that set the gauges."""
LOG_SECONDS = 60.0
"""Time between lines of the log that say how far the worker is."""
MANY = 0.1
"""From this share of the catalogue on, the log says why items left in a commit."""


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
        self.time = engine.clock.time
        """Event time of the last commit, ms."""
        self.complained: set[tuple[str, str]] = set()
        self.observed = time.monotonic()
        self.logged = -LOG_SECONDS
        self.sent: list[NDArray[np.int64]] = []
        """Since the last commit: record timestamps, ms, of records with clicks that were kept."""
        self.clicked: list[NDArray[np.int64]] = []
        """Since the last commit: times of the clicks, ms."""
        if engine.clock.time != NEVER:
            metrics.newest_click_timestamp_seconds.set(engine.clock.time / 1000.0)
            self.newest = dict.fromkeys(offsets, engine.clock.time)

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

    def learned(self, outputs: Outputs) -> None:
        """A round was learned."""
        metrics = self.metrics
        metrics.rounds_total.inc()
        metrics.ignored_clicks_total.labels("duplicate").inc(outputs.duplicates)
        metrics.ignored_clicks_total.labels("too_long").inc(outputs.too_long)
        metrics.quality_trials_total.inc(outputs.quality.trials)
        for ranker, hits in outputs.quality.hits.items():
            metrics.quality_hits_total.labels(ranker).inc(hits)

    def committed(self, number: int, events: int, changes: Changes, retired: int) -> None:
        """A commit is through: its vectors can be read."""
        metrics, now = self.metrics, time.time()
        if told := departures(changes, retired, self.engine, self.time):
            log.warning("commit %d: %s", number, told)
        self.time = changes.time
        for stamps in self.sent:
            metrics.staleness_seconds.observe(now - stamps / 1000.0)
        for times in self.clicked:
            metrics.click_staleness_seconds.observe(now - times / 1000.0)
        newest = [stamps.max() for stamps in self.sent if len(stamps)]
        if newest:
            metrics.newest_click_timestamp_seconds.set(max(newest) / 1000.0)
        self.sent, self.clicked = [], []
        metrics.events_total.inc(events)
        metrics.published_vectors_total.inc(len(changes.published))
        metrics.row_writes_total.inc(len(changes.keys))
        metrics.cluster_moves_total.inc(changes.cluster_moves)
        metrics.bucket_moves_total.inc(changes.bucket_moves)
        metrics.drift.observe(changes.drift)
        if time.monotonic() - self.logged >= LOG_SECONDS:
            self.logged = time.monotonic()
            log.info(
                "commit %d: %d items, %d arcs, %d clicks behind",
                number, len(self.engine.items), self.engine.graph.arcs,
                sum(behind for _, behind in self.reader.lag(self.offsets, self.ends, False)),
            )  # fmt: skip

    def observe(self, all_taken: bool = True, at_once: bool = False) -> None:
        """Set the gauges, if it is time to. `all_taken`: all that was read is in a round."""
        if not at_once and time.monotonic() - self.observed < OBSERVE_SECONDS:
            return
        self.observed = time.monotonic()
        metrics, engine = self.metrics, self.engine
        metrics.items.set(len(engine.items))
        metrics.arcs.set(engine.graph.arcs)
        metrics.sessions.set(len(engine.sessions.users))
        for table, size in engine.table_bytes().items():
            metrics.table_bytes.labels(table).set(size)
        for kind, size in self.store.bytes_used().items():
            metrics.store_bytes.labels(kind).set(size)
        lags: dict[Partition, Lag] = {}
        for partition, behind in self.reader.lag(self.offsets, self.ends, all_taken):
            if not behind:
                self.level_at[partition] = int(1000 * time.time())
            # What waits came after the partition was read to its end, and after what was read last.
            oldest = max(self.level_at.get(partition, -1), self.newest.get(partition, -1))
            lags[partition] = Lag(behind, oldest)
        self.health.lags = lags
        metrics.show_lags(lags)


def departures(changes: Changes, retired: int, engine: Engine, before: int) -> str | None:
    """Why items left in a commit, if it was more than a share MANY of them: `retired` by records
    of the items topic, the others by event time, which stood at `before` (ms) until then."""
    left, stay = sum(not is_attribute(decode(g.key)) for g in changes.gone), len(engine.items)
    if left <= MANY * (left + stay):
        return None
    why = f"{left:,} of {left + stay:,} items left"
    if expired := left - retired:
        horizon = spelled(Duration(engine.settings.graph.horizon_ms))
        moved = f"event time moved from {iso(before)} to" if before != NEVER else "event time is"
        why += (
            f": {expired:,} that nobody clicked for graph.horizon ({horizon}), because {moved} "
            f"{iso(changes.time)}. If no click is that new, look at clicks.max_ahead"
        )
    if retired:
        why += f"; {retired:,} were retired by the items topic"
    return why
