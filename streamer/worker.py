"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from core.engine import Engine
from core.rounds import Inputs
from streamer import checkpoint, deadletter, kafka, restore, topics
from streamer.commit import Batch, Committer, DeadLetter, Place
from streamer.config import Config
from streamer.errors import Fenced, Refused, WalkstreamError
from streamer.events import decode_batch
from streamer.health import Health
from streamer.kafka import CALL_SECONDS, checked, failure
from streamer.metrics import Metrics
from streamer.restore import Tail
from streamer.store import guarded

log = logging.getLogger(__name__)

JOIN_SECONDS = 60.0
"""How long the group may take to hand over all partitions; static members of a dead worker keep
theirs for a session time-out."""


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
class Collected:
    """Records of one round, in the order in which they are folded."""

    values: list[bytes | None] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


@dataclass
class Pending:
    """What happened since the last commit."""

    rounds: int = 0
    events: int = 0
    sent: list[int] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[str, bool] = field(default_factory=dict)
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
        self.assigned: set[Place] = set()
        self.ready = False
        self.early: list[Message] = []
        """Messages read past the end of the restore, to be learned from first."""
        self.pending = Pending()
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

        if config.topics.check:
            self._wait_for_others(admin)
        self.consumer = kafka.group_consumer(config)
        stack.callback(self._leave)
        self._join()
        clicks = [place for place in self.assigned if place[0] == config.topics.clicks]
        self.offsets = restore.starts(
            config, self.store, self.consumer, admin, sorted(clicks), accept_loss
        )
        fold = restore.fold_from(
            config, self.engine, self.store, self.consumer, admin, self.offsets, accept_loss
        )
        self._position(fold)
        self._fold_to_progress(fold)
        restore.load_model(self.store, self.engine, self.tail.tokens)
        progress = self.store.progress().values()
        self.commits = max((p.commit for p in progress), default=0)
        self.engine.round_number = max((p.round for p in progress), default=0)
        self.engine.clock.time = max([self.engine.clock.time, *(p.time for p in progress)])
        self.committer = Committer(
            config, self.space, self.store, self.engine, self.producer, self.consumer,
            self.metrics, self._serve_rebalance,
        )  # fmt: skip
        self.attributes = self.tail.pending()
        if restore.adopt(self.store, self.engine, self.offsets):
            self._round(Collected(), closes=True)
        self.metrics.restore_progress.set(1)
        self._gauges()
        self.ready = True
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

    def _wait_for_others(self, admin: AdminClient) -> None:
        """Join no group that another worker is in: it would lose its partitions and end."""
        deadline = time.monotonic() + JOIN_SECONDS
        while others := kafka.other_members(admin, self.config):
            if time.monotonic() > deadline:
                raise Refused(
                    f"group {self.config.app.name} has another member ({', '.join(others)}). This "
                    "version runs one worker per app: stop that one, or use another app.name"
                )
            log.info("waiting for %s to leave group %s", ", ".join(others), self.config.app.name)
            for _ in range(20):
                self._told(0.5)
                time.sleep(0.1)

    def _join(self) -> None:
        """Subscribe and wait until every partition of both topics is ours."""
        topic_names = [self.config.topics.clicks, self.config.topics.vector_deltas]
        wanted = {(t, p) for t in topic_names for p in kafka.partitions(self.consumer, t)}
        self.consumer.subscribe(
            topic_names, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        deadline = time.monotonic() + JOIN_SECONDS
        while self.assigned != wanted:
            self._told(0.5)
            for message in self.consumer.consume(1, 0.1):
                checked(message)
            if time.monotonic() > deadline:
                others = sorted(wanted - self.assigned)
                raise Refused(
                    f"{len(others)} partitions ({others[0][0]}[{others[0][1]}] first) belong to "
                    f"another member of group {self.config.app.name}. This version runs one worker "
                    "per app: stop the other one, or wait until its session has ended"
                )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Where to begin is known only after the restore, which seeks; until then nothing is read.
        # The end is an offset that always exists, should a fetch get ahead of the pause.
        self.assigned |= {(tp.topic, tp.partition) for tp in partitions}
        consumer.incremental_assign(
            [TopicPartition(tp.topic, tp.partition, OFFSET_END) for tp in partitions]
        )
        consumer.pause(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.ready:
            raise Fenced(
                f"the group took away {len(partitions)} partitions: another worker joined group "
                f"{self.config.app.name}. This version runs one worker per app"
            )
        self.assigned -= {(tp.topic, tp.partition) for tp in partitions}
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        raise Fenced(
            f"{len(partitions)} partitions were lost: the group's session ended without this worker"
        )

    def _leave(self) -> None:
        """Give the partitions back; closing revokes them, and no other worker is to blame."""
        self.ready = False
        self.consumer.close()

    def _position(self, clicks: dict[Place, int]) -> None:
        """Let consuming begin: clicks at these offsets, deltas at their ends."""
        deltas = sorted(self.assigned - set(clicks))
        for t, p in deltas:
            _, end = self.consumer.get_watermark_offsets(TopicPartition(t, p), CALL_SECONDS)
            self.consumer.seek(TopicPartition(t, p, end))
        for (t, p), offset in clicks.items():
            self.consumer.seek(TopicPartition(t, p, offset))
        self.consumer.resume([TopicPartition(t, p) for t, p in self.assigned])

    def _fold_to_progress(self, begin: dict[Place, int]) -> None:
        """Fold the clicks before `self.offsets` into graph and sessions, without learning."""
        left = {place: end for place, end in self.offsets.items() if begin[place] < end}
        total = max(1, sum(end - begin[place] for place, end in left.items()))
        folded = 0
        while left:
            self._told(min(1.0, folded / total))
            collected = Collected()
            for message in map(checked, self.consumer.consume(10_000, 0.2)):
                place, offset = _place(message), message.offset() or 0
                if message.error() is None:
                    if offset >= self.offsets[place]:
                        self.early.append(message)
                    else:
                        _collect(collected, message)
                    offset += 1
                # The last offsets may be markers of transactions: then only the end tells.
                if offset >= self.offsets.get(place, 0):
                    left.pop(place, None)
            folded += len(collected.values)
            clicks, _ = decode_batch(collected.values, collected.timestamps, self.config.events)
            self.engine.fold(clicks)

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
            if collected.values or self.attributes or self.pending.rounds:
                self._round(collected, self._closes())

    def finish(self) -> None:
        """Commit what is learned, unless commits close by count, and write a checkpoint."""
        self.health.state = "stopping"
        if self.pending.rounds and not self.by_count:
            self._round(Collected(), closes=True)
        if not self.pending.rounds and self.commits:
            offsets = {f"{t}/{p}": offset for (t, p), offset in self.offsets.items()}
            checkpoint.save(self.store, self.engine, offsets)
        log.info("stopped after commit %d, round %d", self.commits, self.engine.round_number)

    def _collect_round(self) -> Collected | None:
        """The records of the next round. None when stopped before a round by count is full."""
        limit, seconds = self.config.round.max_events, self.config.round.max_seconds
        out = Collected()
        deadline = time.monotonic() + seconds
        while len(out.values) < limit:
            if self.stop.asked and self.by_count:
                return None
            left = 0.1 if self.by_count else deadline - time.monotonic()
            if left <= 0 or self.stop.asked:
                break
            self.health.beat()
            for message in self._consume(limit - len(out.values), min(left, 0.1)):
                if _place(message) not in self.offsets:
                    raise Refused(
                        f"{message.topic()}: deltas of another worker came in, and this version "
                        "runs one worker per app"
                    )
                _collect(out, message)
            if self.by_count and not out.values and self.attributes:
                break
        return out

    def _consume(self, n: int, timeout: float) -> list[Message]:
        if self.early:
            taken, self.early = self.early[:n], self.early[n:]
            return taken
        return self._arrived(n, timeout)

    def _arrived(self, n: int, timeout: float) -> list[Message]:
        messages = map(checked, self.consumer.consume(n, timeout))
        return [message for message in messages if message.error() is None]

    def _closes(self) -> bool:
        settings, pending = self.config.commit, self.pending
        if settings.rounds and pending.rounds + 1 >= settings.rounds:
            return True
        return not self.by_count and time.monotonic() - pending.since >= settings.seconds

    def _round(self, collected: Collected, closes: bool) -> None:
        """One round, and the commit if it closes one."""
        clicks, bad = decode_batch(collected.values, collected.timestamps, self.config.events)
        pending = self.pending
        if not pending.rounds:
            pending.since = time.monotonic()
        for at, reason, text in bad:
            message = collected.messages[at]
            headers = deadletter.headers(
                message.topic() or "", message.partition() or 0, message.offset() or 0,
                collected.timestamps[at], reason, text,
            )  # fmt: skip
            pending.dead_letters.append(DeadLetter(message.key(), message.value(), headers))
            self.metrics.dead_letters_total.labels(reason.value).inc()
        for message in collected.messages:
            self.offsets[_place(message)] = (message.offset() or 0) + 1
        pending.sent += collected.timestamps
        pending.rounds += 1
        pending.events += len(clicks)
        outputs = self.engine.step(Inputs(clicks, self.attributes, closes))
        pending.described |= {item: tokens is None for item, tokens in self.attributes}
        self.attributes = []
        self.metrics.rounds_total.inc()
        if outputs.changes is None:
            return
        self.commits += 1
        self.committer.run(
            Batch(
                outputs.changes, dict(self.offsets), self.commits, self.engine.round_number,
                pending.dead_letters, pending.described,
            )
        )  # fmt: skip
        self.metrics.staleness_seconds.observe(time.time() - np.array(pending.sent) / 1000.0)
        self.metrics.events_total.inc(pending.events)
        self.metrics.published_vectors_total.inc(len(outputs.changes.published))
        self.metrics.row_writes_total.inc(len(outputs.changes.keys))
        self.metrics.cluster_moves_total.inc(outputs.changes.cluster_moves)
        self.metrics.bucket_moves_total.inc(outputs.changes.bucket_moves)
        self._gauges()
        self.pending = Pending()

    def _gauges(self) -> None:
        self.metrics.items.set(len(self.engine.items))
        self.metrics.arcs.set(self.engine.graph.arcs)
        for (topic, partition), offset in self.offsets.items():
            where = TopicPartition(topic, partition)
            _, end = self.consumer.get_watermark_offsets(where, cached=True)
            self.metrics.lag.labels(topic, partition).set(max(0, end - offset))

    def _serve_rebalance(self) -> None:
        """Let the group finish a rebalance, consuming nothing, before a commit is tried again."""
        assignment = self.consumer.assignment()
        self.consumer.pause(assignment)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            self.early += self._arrived(1, 0.1)
        self.consumer.resume(assignment)


def _place(message: Message) -> Place:
    return message.topic() or "", message.partition() or 0


def _collect(collected: Collected, message: Message) -> None:
    collected.values.append(message.value())
    collected.timestamps.append(message.timestamp()[1])
    collected.messages.append(message)
