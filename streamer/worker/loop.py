"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import numpy as np
from confluent_kafka import KafkaException, Message
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from core.engine import Engine
from core.rounds import Changes, Inputs, Outputs
from streamer import kafka, topics
from streamer import log as logs
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Decoded, Decoder
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import CALL_SECONDS, Place, failure, place_of
from streamer.metrics import Metrics
from streamer.settings import Config
from streamer.store import guarded
from streamer.upkeep import forget
from streamer.worker import checkpoint, restore
from streamer.worker.commit import Batch, Committer
from streamer.worker.group import Group
from streamer.worker.health import Health, Lag
from streamer.worker.restore import Tail

log = logging.getLogger(__name__)


GAUGE_SECONDS = 1.0
"""Time between looks at what the gauges show."""
SAY_SECONDS = 60.0
"""Time between lines of the log that say how far the worker is."""


def run(config: Config, accept_loss: bool) -> None:
    """Run one worker until SIGTERM or SIGINT. Returns after a clean stop, raises otherwise."""
    stop = Stop()
    try:
        with ExitStack() as stack:
            worker = Worker(config, stop, stack)
            worker.start(accept_loss)
            worker.loop()
            worker.finish()
    except Stopped:
        log.info("stopped while restoring; nothing was changed")
    except WalkstreamError:
        raise
    except KafkaException as error:
        raise failure(error.args[0], "kafka") from error
    except Exception:
        # RocksDB is closed by now, so that a folder that it could not read may be moved.
        with guarded(Path(config.state.dir)):
            raise


class Stopped(Exception):
    """A stop was asked for before the worker was running."""


class Stop:
    """Set by the first SIGTERM or SIGINT; a second one ends the process on the spot."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        log.info("stopping: finishing the round and committing; once more to abort")
        self.asked = True


@dataclass
class Pending:
    """What happened since the last commit."""

    rounds: int = 0
    events: int = 0
    sent: list[int] = field(default_factory=list)
    """Record timestamps, ms."""
    clicked: list[NDArray[np.int64]] = field(default_factory=list)
    """Times of the clicks, ms."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[str, bool] = field(default_factory=dict)
    items: dict[Place, int] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class Worker:
    """One process of an app: consumers, producer, engine and state folder."""

    def __init__(self, config: Config, stop: Stop, stack: ExitStack) -> None:
        self.config, self.stop, self.stack = config, stop, stack
        registry = CollectorRegistry()
        self.metrics = Metrics(registry)
        self.health = Health(registry, config)
        self.metrics.follow(self.health)
        logs.context.update(worker=kafka.identity(config), round=0, commit=0)
        stack.callback(self.health.stop)
        if config.metrics.port:
            self.health.start(config.metrics.host, config.metrics.port)
        self.by_count = config.round.max_seconds == 0
        self.offsets: dict[Place, int] = {}
        """Next click of each partition: all before it are in the engine."""
        self.pending = Pending()
        self.decoder = Decoder(config.clicks, config.events, config.registry)
        self.complained: set[str] = set()
        self.said = self.looked = time.monotonic()
        self.attributes: restore.Attributes = []
        self.newest: dict[Place, int] = {}
        """Record timestamp, ms, of the last click taken from each partition."""
        self.level_at: dict[Place, int] = {}
        """When nothing was left to read in a partition the last time, ms since the epoch."""

    # -- start -----------------------------------------------------------------------------------

    def start(self, accept_loss: bool) -> None:
        """Restore, join the group, and be ready to learn from the first unprocessed click."""
        config, stack = self.config, self.stack
        self.health.state = "restoring"
        admin = kafka.admin(config)
        if config.topics.check:
            specs = topics.specs(config.topics, config.graph.horizon_ms)
            mismatches = topics.check(admin, specs)
            if mismatches:
                raise Refused("the topics do not fit:\n  " + "\n  ".join(mismatches))
        self.store = restore.open_store(config, admin)
        stack.callback(self.store.close)
        log.info("settling what an earlier process may have left open")
        self.producer = kafka.producer(config)
        try:
            self.producer.init_transactions(CALL_SECONDS)
        except KafkaException as error:
            raise failure(error.args[0], "init transactions") from error

        tail_consumer = kafka.tail_consumer(config)
        stack.callback(tail_consumer.close)
        self.tail = Tail(config, self.store, tail_consumer)
        self.tail.start(admin)
        self.tail.catch_up(admin, self._told)
        self.space = restore.settle_space(config, self.store, self.producer, self.tail.partitions)
        self.engine = Engine(config.engine_settings, self.space.partitions, self.metrics.timed)

        self.group = Group(config, self._told)
        stack.callback(self.group.close)
        if config.topics.check:
            self.group.wait_for_others(admin)
        self.group.join()
        # Until now another worker may have committed; from here on only this one does.
        self.tail.catch_up(admin, self._told)
        self.offsets = restore.starts(config, self.store, self.group, admin, accept_loss)
        begin = restore.fold_from(
            config, self.engine, self.store, self.group, admin, self.offsets, accept_loss
        )
        for messages in self.group.between(begin, self.offsets):
            self.engine.fold(self._decode(messages).clicks)
        self.commits = restore.load_model(self.store, self.engine, self.tail.tokens)
        self.group.begin(self.offsets)
        self.committer = Committer(
            config, self.space, self.store, self.engine, self.producer, self.group, self.metrics
        )
        self.attributes = self.tail.pending()
        if restore.adopt(self.store, self.engine, self.offsets):
            self._round([], closes=True)
        self.health.restored = 1.0
        self.metrics.identify(kafka.identity(config), self.space.name)
        self._gauges()
        if len(self.engine.items) and not self.engine.graph.arcs:
            log.warning("the clicks that made the vectors are not in Kafka: the graph begins empty")
        self.health.state = "running"
        log.info(
            "running: %d items, %d arcs, %d commits so far",
            len(self.engine.items), self.engine.graph.arcs, self.commits,
        )  # fmt: skip

    def _told(self, share: float) -> None:
        self.health.restored = share
        self.health.beat()
        if self.stop.asked:
            raise Stopped

    # -- the loop --------------------------------------------------------------------------------

    def loop(self) -> None:
        """Rounds and commits until a stop is asked for."""
        while not self.stop.asked:
            self.health.beat()
            with self.metrics.timed("collect"):
                collected = self._collect_round()
                self.attributes += self.tail.poll()
            if collected is None:
                return
            if collected or self.attributes or self.tail.bad or self.pending.rounds:
                self._round(collected, self._closes())
            if time.monotonic() - self.looked >= GAUGE_SECONDS:
                self._gauges()

    def finish(self) -> None:
        """Commit what is learned, unless commits close by count, and write a checkpoint."""
        self.health.state = "stopping"
        if self.pending.rounds and not self.by_count:
            self._round([], closes=True)
        if not self.pending.rounds and self.commits:
            checkpoint.save(self.store, self.engine, self.offsets)
        log.info("stopped after commit %d, round %d", self.commits, self.engine.round_number)

    def _collect_round(self) -> list[Message] | None:
        """The records of the next round. None when stopped before a round by count is full."""
        limit, seconds = self.config.round.max_events, self.config.round.max_seconds
        out: list[Message] = []
        deadline = time.monotonic() + seconds
        while len(out) < limit:
            if self.stop.asked and self.by_count:
                return None
            left = 0.1 if self.by_count else deadline - time.monotonic()
            if left <= 0 or self.stop.asked:
                break
            self.health.beat()
            out += self.group.consume(limit - len(out), min(left, 0.1))
        return out

    def _decode(self, messages: list[Message]) -> Decoded:
        """The clicks of these records, without those of users that are forgotten."""
        decoded = self.decoder(
            [m.key() for m in messages], [m.value() for m in messages],
            [m.timestamp()[1] for m in messages],
        )  # fmt: skip
        clicks = forget.leave_out(decoded.clicks, self.config.app.name, self.tail.forgotten)
        left_out = len(decoded.clicks) - len(clicks)
        self.metrics.ignored_clicks_total.labels("forgotten").inc(left_out)
        return replace(decoded, clicks=clicks)

    def _closes(self) -> bool:
        settings, pending = self.config.commit, self.pending
        if settings.rounds and pending.rounds + 1 >= settings.rounds:
            return True
        return not self.by_count and time.monotonic() - pending.since >= settings.seconds

    def _round(self, messages: list[Message], closes: bool) -> None:
        """One round, and the commit if it closes one.

        Records that carry many clicks make several rounds; no commit may close between them, as
        offsets count records.
        """
        with self.metrics.timed("decode"):
            decoded = self._decode(messages)
        pending = self.pending
        if not pending.rounds:
            pending.since = time.monotonic()
        self.metrics.ignored_clicks_total.labels("unwanted").inc(decoded.unwanted)
        self._bury(messages, decoded)
        for message in messages:
            place, sent = place_of(message), message.timestamp()[1]
            self.offsets[place] = (message.offset() or 0) + 1
            if sent > 0:
                pending.sent.append(sent)
                self.newest[place] = sent
        pending.clicked.append(decoded.clicks.times)
        parts = decoded.clicks.parts(self.config.round.max_events)
        for number, clicks in enumerate(parts, 1):
            last = number == len(parts)
            outputs = self.engine.step(Inputs(clicks, self.attributes, closes and last, last))
            if self.attributes or self.tail.bad:
                pending.described |= {item: tokens is None for item, tokens in self.attributes}
                pending.dead_letters += self.tail.dead_letters()
                pending.items = self.tail.items_offsets()
                self.attributes = []
            pending.rounds += 1
            pending.events += outputs.events
            self._count(outputs)
        if outputs.changes is not None:
            self._commit(outputs.changes)

    def _bury(self, messages: list[Message], decoded: Decoded) -> None:
        """Take note of the dead letters. Refused if there are more than `dlq.stop_ratio` allows."""
        for bad in decoded.bad:
            self.pending.dead_letters.append(DeadLetter.of(messages[bad.record], bad))
            if bad.reason not in self.complained:
                self.complained.add(bad.reason)
                log.warning("first dead letter of class %s: %s", bad.reason.value, bad.message)
            self.metrics.dead_letters_total.labels(bad.reason.value).inc()
        letters, bound = self.health.dead_letters, self.config.dlq.stop_ratio
        letters.add(len(decoded.clicks) + decoded.unwanted + len(decoded.bad), len(decoded.bad))
        if bound and letters.share >= bound and decoded.bad:
            raise Refused(
                f"{letters.share:.0%} of the last {letters.records} records are dead letters, and "
                f"dlq.stop_ratio is {bound:g}. The last one: {decoded.bad[-1].message}. Those "
                "since the last commit are still in the clicks topic: mend the producer or section "
                "[clicks], or raise dlq.stop_ratio, and start again"
            )

    def _count(self, outputs: Outputs) -> None:
        metrics = self.metrics
        metrics.rounds_total.inc()
        metrics.ignored_clicks_total.labels("duplicate").inc(outputs.duplicates)
        metrics.ignored_clicks_total.labels("too_long").inc(outputs.too_long)
        metrics.quality_trials_total.inc(outputs.quality.trials)
        for ranker, hits in outputs.quality.hits.items():
            metrics.quality_hits_total.labels(ranker).inc(hits)

    def _commit(self, changes: Changes) -> None:
        self.commits += 1
        logs.context.update(round=self.engine.round_number, commit=self.commits)
        pending, metrics = self.pending, self.metrics
        self.committer.run(
            Batch(
                changes, dict(self.offsets), self.commits, self.engine.round_number,
                pending.dead_letters, pending.described, pending.items,
            )
        )  # fmt: skip
        now = time.time()
        metrics.staleness_seconds.observe(now - np.array(pending.sent) / 1000.0)
        for times in pending.clicked:
            metrics.click_staleness_seconds.observe(now - times / 1000.0)
        if pending.sent:
            metrics.newest_click_timestamp_seconds.set(max(self.newest.values()) / 1000.0)
        metrics.events_total.inc(pending.events)
        metrics.published_vectors_total.inc(len(changes.published))
        metrics.row_writes_total.inc(len(changes.keys))
        metrics.cluster_moves_total.inc(changes.cluster_moves)
        metrics.bucket_moves_total.inc(changes.bucket_moves)
        metrics.drift.observe(changes.drift)
        self.pending = Pending()
        if time.monotonic() - self.said >= SAY_SECONDS:
            self.said = time.monotonic()
            log.info(
                "commit %d: %d items, %d arcs, %d clicks behind",
                self.commits, len(self.engine.items), self.engine.graph.arcs,
                sum(lag for _, lag in self.group.lag(self.offsets)),
            )  # fmt: skip

    def _gauges(self) -> None:
        self.looked = time.monotonic()
        metrics, engine = self.metrics, self.engine
        metrics.items.set(len(engine.items))
        metrics.arcs.set(engine.graph.arcs)
        metrics.sessions.set(len(engine.sessions.users))
        for table, size in engine.table_bytes().items():
            metrics.table_bytes.labels(table).set(size)
        for kind, size in self.store.bytes_used().items():
            metrics.store_bytes.labels(kind).set(size)
        lags: dict[Place, Lag] = {}
        for place, behind in self.group.lag(self.offsets):
            if not behind or place not in self.level_at:
                self.level_at[place] = int(1000 * time.time())
            # What waits came after the partition was read to its end, and after what was read last.
            oldest = max(self.level_at[place], self.newest.get(place, 0))
            lags[place] = Lag(behind, oldest)
        self.health.lags = lags
        metrics.show_lags(lags)
