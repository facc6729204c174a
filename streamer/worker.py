"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
from confluent_kafka import KafkaException, Message
from prometheus_client import CollectorRegistry

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Changes, Inputs
from streamer import checkpoint, kafka, restore, topics
from streamer.commit import Batch, Committer, DeadLetter
from streamer.errors import Refused, WalkstreamError
from streamer.events import Reason, decode_batch
from streamer.group import Group
from streamer.health import Health
from streamer.kafka import CALL_SECONDS, Place, failure, place_of
from streamer.metrics import Metrics
from streamer.restore import Tail
from streamer.settings import Config
from streamer.store import guarded

log = logging.getLogger(__name__)


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
        self.health = Health(registry)
        if config.metrics.port:
            self.health.start(config.metrics.host, config.metrics.port)
            stack.callback(self.health.stop)
        self.by_count = config.round.max_seconds == 0
        self.offsets: dict[Place, int] = {}
        """Next click of each partition: all before it are in the engine."""
        self.pending = Pending()
        self.complained: set[Reason] = set()
        self.said = time.monotonic()
        self.attributes: restore.Attributes = []

    # -- start -----------------------------------------------------------------------------------

    def start(self, accept_loss: bool) -> None:
        """Restore, join the group, and be ready to learn from the first unprocessed click."""
        config, stack = self.config, self.stack
        self.health.state = "restoring"
        self.metrics.restore_progress.set(0)
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
            clicks, _ = self._decode(messages)
            self.engine.fold(clicks)
        self.commits = restore.load_model(self.store, self.engine, self.tail.tokens)
        self.group.begin(self.offsets)
        self.committer = Committer(
            config, self.space, self.store, self.engine, self.producer, self.group, self.metrics
        )
        self.attributes = self.tail.pending()
        if restore.adopt(self.store, self.engine, self.offsets):
            self._round([], closes=True)
        self.metrics.restore_progress.set(1)
        self._gauges()
        if len(self.engine.items) and not self.engine.graph.arcs:
            log.warning("the clicks that made the vectors are not in Kafka: the graph begins empty")
        self.health.state = "running"
        log.info(
            "running: %d items, %d arcs, %d commits so far",
            len(self.engine.items), self.engine.graph.arcs, self.commits,
        )  # fmt: skip

    def _told(self, share: float) -> None:
        self.metrics.restore_progress.set(share)
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
            if collected or self.attributes or self.pending.rounds:
                self._round(collected, self._closes())

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

    def _decode(self, messages: list[Message]) -> tuple[Clicks, list[tuple[int, Reason, str]]]:
        values, timestamps = [m.value() for m in messages], [m.timestamp()[1] for m in messages]
        return decode_batch(values, timestamps, self.config.events)

    def _closes(self) -> bool:
        settings, pending = self.config.commit, self.pending
        if settings.rounds and pending.rounds + 1 >= settings.rounds:
            return True
        return not self.by_count and time.monotonic() - pending.since >= settings.seconds

    def _round(self, messages: list[Message], closes: bool) -> None:
        """One round, and the commit if it closes one."""
        clicks, bad = self._decode(messages)
        pending = self.pending
        if not pending.rounds:
            pending.since = time.monotonic()
        for at, reason, text in bad:
            pending.dead_letters.append(DeadLetter.of(messages[at], reason, text))
            if reason not in self.complained:
                self.complained.add(reason)
                log.warning("first dead letter of class %s: %s", reason.value, text)
            self.metrics.dead_letters_total.labels(reason.value).inc()
        for message in messages:
            self.offsets[place_of(message)] = (message.offset() or 0) + 1
        pending.sent += [m.timestamp()[1] for m in messages if m.timestamp()[1] > 0]
        pending.rounds += 1
        pending.events += len(clicks)
        outputs = self.engine.step(Inputs(clicks, self.attributes, closes))
        if self.attributes:
            pending.described |= {item: tokens is None for item, tokens in self.attributes}
            pending.items = self.tail.items_offsets()
            self.attributes = []
        self.metrics.rounds_total.inc()
        if outputs.changes is not None:
            self._commit(outputs.changes)

    def _commit(self, changes: Changes) -> None:
        self.commits += 1
        pending, metrics = self.pending, self.metrics
        self.committer.run(
            Batch(
                changes, dict(self.offsets), self.commits, self.engine.round_number,
                pending.dead_letters, pending.described, pending.items,
            )
        )  # fmt: skip
        metrics.staleness_seconds.observe(time.time() - np.array(pending.sent) / 1000.0)
        metrics.events_total.inc(pending.events)
        metrics.published_vectors_total.inc(len(changes.published))
        metrics.row_writes_total.inc(len(changes.keys))
        metrics.cluster_moves_total.inc(changes.cluster_moves)
        metrics.bucket_moves_total.inc(changes.bucket_moves)
        self._gauges()
        self.pending = Pending()
        if time.monotonic() - self.said >= SAY_SECONDS:
            self.said = time.monotonic()
            log.info(
                "commit %d: %d items, %d arcs, %d clicks behind",
                self.commits, len(self.engine.items), self.engine.graph.arcs,
                sum(lag for _, lag in self.group.lag(self.offsets)),
            )  # fmt: skip

    def _gauges(self) -> None:
        self.metrics.items.set(len(self.engine.items))
        self.metrics.arcs.set(self.engine.graph.arcs)
        for (topic, partition), lag in self.group.lag(self.offsets):
            self.metrics.lag.labels(topic, partition).set(lag)
