"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from core.engine import Engine
from core.rounds import Changes, Inputs
from streamer import kernels
from streamer.admin import forget
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Decoded
from streamer.decode.guarded import GuardedDecoder
from streamer.errors import Fenced, Refused, WalkstreamError
from streamer.folders import guarded
from streamer.kafka import clients, rights, topics, unreadable
from streamer.kafka.clients import Partition
from streamer.kafka.failures import failure, kafka_error
from streamer.kafka.identity import Watch, identity
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config
from streamer.watch import log as logs
from streamer.watch.health import Health
from streamer.watch.metrics import Metrics
from streamer.worker import checkpoint, header, repair, restore, verdict
from streamer.worker.commit import Batch, Committer, Pending
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.readback import Readback
from streamer.worker.reader import Reader, columns
from streamer.worker.report import Report
from streamer.worker.stop import Stop
from streamer.worker.tail import Attributes, Tail

log = logging.getLogger(__name__)


MAX_ROUND_BYTES = 1_000_000
"""Records of a round together: long ones carry many clicks, and all of them may be bad."""
MAX_DEAD_LETTERS = 50_000
"""A commit closes with so many, so that its transaction ends in time."""


CLOSE_SECONDS = 10.0
"""How long the farewell to the brokers may take when all else is done."""


def run(config: Config, accepted: Accepted) -> None:
    """Run one worker until SIGTERM or SIGINT. Returns after a clean stop, raises otherwise."""
    stop = Stop()
    # RocksDB is closed at the end of it, so that a folder that it could not read may be moved.
    with guarded(Path(config.state.dir)), ExitStack() as stack:
        worker = Worker(config, stop, stack)
        try:
            worker.start(accepted)
            worker.loop()
            worker.finish()
        except Stopped:
            log.info("stopped while restoring; nothing was changed")
        except Exception as error:
            if isinstance(error, SystemError) and isinstance(error.__cause__, WalkstreamError):
                error = error.__cause__  # of a callback, from within a call that failed as well
            if (kafka := kafka_error(error)) is not None:
                error = failure(kafka, "kafka")
            if isinstance(error, WalkstreamError):
                error = worker.verdict(error)
            stop.ending.within(CLOSE_SECONDS, partial(logs.end, error))
            if isinstance(error, Refused) and hasattr(worker, "group"):
                worker.group.leave()
            raise error
        stop.ending.within(CLOSE_SECONDS, _without_farewell)


def _without_farewell() -> int:
    log.warning("the brokers did not answer to the farewell: ended without it, nothing is lost")
    return 0


class Stopped(Exception):
    """A stop was asked for before the worker was running."""


class Worker:
    """One process of an app: consumers, producer, engine and state folder."""

    def __init__(self, config: Config, stop: Stop, stack: ExitStack) -> None:
        self.config, self.stop, self.stack = config, stop, stack
        registry = CollectorRegistry()
        self.metrics = Metrics(registry)
        self.health = Health(registry, config)
        self.metrics.follow(self.health)
        logs.context.update(worker=clients.identity(config), round=0, commit=0)
        stack.callback(self.health.stop)
        if config.metrics.port:
            self.health.start(config.metrics.host, config.metrics.port)
        self.by_count = config.round.max_seconds == 0
        self.offsets: dict[Partition, int] = {}
        """Next click of each partition: all before it are in the engine."""
        self.pending = Pending()
        self.decoder = GuardedDecoder(
            config.clicks, config.events, config.registry, self.health.beat
        )
        self.attributes: Attributes = []
        self.forgotten: set[bytes] = set()

    def verdict(self, error: WalkstreamError) -> WalkstreamError:
        """What the worker ends with: trouble with Kafka, and commits, may be another process's."""
        if not hasattr(self, "group"):
            return error
        if not isinstance(error, Fenced) and not self.group.joined:
            return error  # it has no place yet that anybody could take
        return verdict.of(error, self.config, self.watch, self.group, self.health.beat)

    # -- start -----------------------------------------------------------------------------------

    def start(self, accepted: Accepted) -> None:
        """Restore, join the group, and be ready to learn from the first unprocessed click."""
        config, stack = self.config, self.stack
        self.health.beat()
        restore.check_space(config)
        kernels.prepare(config.engine_settings)
        self.health.state = "restoring"
        self.health.beat()
        checks = config.topics.check
        admin = stack.enter_context(rights.allowed(config, "worker", ask=checks))
        if checks:
            specs = topics.specs(config.topics, config.graph.horizon_ms)
            mismatches = topics.check(admin, specs)
            if mismatches:
                raise Refused("the topics do not fit:\n  " + "\n  ".join(mismatches))
        now = identity(admin, config.topics)
        self.watch = Watch(admin, config.topics, now)
        self.store = stack.enter_context(restore.open_store(config, admin, now, accepted))
        accepted = accepted._replace(repair=repair.is_asked(self.store, accepted.repair))
        # Another worker may commit until this one is the group's member and has fenced what an
        # earlier process left open: what was read before that would not be the newest.
        self.group = Group(config, admin, self._progress_of(0.0, 0.0))
        stack.callback(self.group.close)
        if checks:
            self.group.wait_for_others()
        self.group.join()
        log.info("settling what an earlier process may have left open")
        self.transactions = Transactions(config, self.group.check)
        alive = partial(self._progress_of(0.0, 0.0, self.group), 0.0)
        self.readback = Readback(config, now, admin, alive)
        stack.callback(self.readback.close)
        self.readback.start(accepted.repair)

        self.tail = Tail(config, self.store, clients.tail_consumer(config), self.health.beat)
        stack.callback(self.tail.close)
        if self.readback.doubt is not None:
            self.tail.doubtful = self.readback.doubt.first
        self.tail.repairs = accepted.repair
        self.tail.start(admin, header.void(config, self.store, now))
        self.tail.catch_up(admin, self._progress_of(0.0, 0.5, self.group))
        self.space = header.settle(
            config, self.store, now, accepted, self.readback, self.transactions, admin,
            self.tail.header_from, self.group.consumer,
            partial(restore.starts, config, self.store, self.group, admin, accepted),
        )  # fmt: skip
        # What a new header changed of the progress reaches the folder by way of Kafka.
        self.tail.catch_up(admin, self._progress_of(0.5, 0.5, self.group))
        self.engine = Engine(config.engine_settings, self.space.partitions, self.metrics.timed)
        self.reader = Reader(config, admin, self.health.beat)
        stack.callback(self.reader.close)
        self.offsets = restore.starts(config, self.store, self.group, admin, accepted)
        begin = restore.fold_from(
            config, self.engine, self.store, self.group, admin, self.offsets, accepted.loss
        )
        self._fold_again(begin)
        number = restore.load_model(config, self.store, self.engine)
        self.commits = max(number, self.readback.last or 0)
        self.tail.follow(self.commits)
        self._forget()
        logs.context.update(round=self.engine.round_number, commit=self.commits)
        self.reader.begin(self.offsets)
        self.report = Report(
            self.metrics, self.health, self.store, self.engine, self.reader, self.offsets,
            clients.ends(admin, self.offsets),
        )  # fmt: skip
        self.committer = Committer(
            config, self.space, self.store, self.engine, self.transactions, self.readback,
            self.watch, self.group, self.metrics,
        )  # fmt: skip
        self.attributes = self.tail.pending()
        self.watch.others.append(partial(self.tail.handed_over, admin))
        self.readback.beat = self.health.beat  # from here on a stop is no reason to break off
        if restore.adopt(self.store, self.engine, self.offsets):
            self._round([], closes=True)
        elif accepted.repair:
            self.pending.gone = repair.begin(config, self.store, self.engine, admin, alive)
            self._round([], closes=True)
            header.repaired(config, self.store, now, self.readback, self.transactions)
            repair.finish(config, self.store, self.tail, self.commits)
            self.commits = self.readback.last or self.commits
        self.health.restored = 1.0
        self.metrics.identify(clients.identity(config), self.space.name)
        self.report.observe(at_once=True)
        if len(self.engine.items) and not self.engine.graph.arcs:
            log.warning("the clicks that made the vectors are not in Kafka: the graph begins empty")
        self.health.state = "running"
        log.info(
            "running: %d items, %d arcs, %d commits so far",
            len(self.engine.items), self.engine.graph.arcs, self.commits,
        )  # fmt: skip

    def _fold_again(self, begin: dict[Partition, int]) -> None:
        """Fold old clicks from `begin` on, without learning, as they were folded before."""
        self.decoder.remember(restore.windows(self.store, self.offsets))
        refused: set[tuple[int, int]] = set()
        on_progress = self._progress_of(0.5, 1.0, self.group)
        for messages in self.reader.between(begin, self.offsets, on_progress):
            decoded, _ = self._decode(messages)
            refused |= {restore.place_of(messages[number]) for number in self.decoder.refused}
            copies = restore.copies(messages, begin, self.decoder.decode, refused)
            clicks = decoded.clicks
            if copies:
                clicks = clicks.at(~np.isin(decoded.records, copies))
            self.engine.fold(clicks)
        for partition, progress in self.store.progress().items():
            if partition in self.offsets and progress.window is not None:
                self.decoder.remember({partition[1]: progress.window})

    def _progress_of(
        self, begin: float, end: float, member: Group | None = None
    ) -> Callable[[float], None]:
        """What a part of the restore calls with the share of it that is done."""

        def on_progress(share: float) -> None:
            self.health.restored = max(self.health.restored, begin + share * (end - begin))
            self.health.beat()
            if member is not None:
                member.poll()
            if self.stop.asked:
                raise Stopped

        return on_progress

    # -- the loop --------------------------------------------------------------------------------

    def loop(self) -> None:
        """Rounds and commits until a stop is asked for."""
        while not self.stop.asked:
            self.health.beat()
            with self.metrics.timed("collect"):
                collected = self._collect_round()
            if collected is None:
                return
            if collected or self.attributes or self.tail.bad or self.pending.rounds:
                self._round(collected, self._closes())
            self.report.observe(all_taken=not self.reader.waiting)

    def _forget(self) -> None:
        """End the sessions of users that were put on the list since the last look."""
        if self.tail.forgotten != self.forgotten:
            self.forgotten = set(self.tail.forgotten)
            users = list(self.engine.sessions.users)
            gone = forget.among(self.config.app.name, users, self.forgotten)
            self.engine.sessions.forget(gone)

    def finish(self) -> None:
        """Commit what is learned, unless commits close by count, and write a checkpoint."""
        self.health.state = "stopping"
        if self.pending.rounds and not self.by_count:
            self._round([], closes=True)
        if not self.pending.rounds and self.commits:
            checkpoint.save(self.store, self.engine, self.offsets, self.decoder.windows)
        log.info("stopped after commit %d, round %d", self.commits, self.engine.round_number)

    def _collect_round(self) -> list[Message] | None:
        """The records of the next round. None when stopped before a round by count is full."""
        out: list[Message] = []
        deadline = time.monotonic() + self.config.round.max_seconds
        while (size := self._size(out)) is None:
            if self.stop.asked and self.by_count:
                return None
            left = 0.1 if self.by_count else deadline - time.monotonic()
            if left <= 0 or self.stop.asked:
                return out
            self.health.beat()
            wanted = self.config.round.max_events - len(out)
            self.group.poll()
            out += self.reader.consume(wanted, min(left, 0.1))
            # A round by count may take for ever to fill.
            self.attributes += self.tail.poll()
            self._forget()
            self.committer.look()
            if self.by_count:
                self.report.observe(all_taken=not out and not self.reader.waiting)
        self.reader.put_back(out[size:])
        return out[:size]

    def _size(self, messages: list[Message]) -> int | None:
        """How many of these records make a full round; None if they do not fill one.

        It depends on the records alone, so that rounds by count are the same in every life.
        """
        limit, room = self.config.round.max_events, MAX_ROUND_BYTES
        for size, value in enumerate(map(Message.value, messages[:limit]), 1):
            room -= len(value or b"")
            if room <= 0:
                return size
        return limit if len(messages) >= limit else None

    def _decode(self, messages: list[Message]) -> tuple[Decoded, int]:
        """What is in these records, and how many clicks of forgotten users were left out of it."""
        partitions = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        decoded = self.decoder(*columns(messages), partitions)
        if decoded.bad:
            decoded = replace(decoded, bad=unreadable.named(messages, decoded.bad))
        kept = forget.kept(decoded.clicks.users, self.config.app.name, self.tail.forgotten)
        if kept is None:
            return decoded, 0
        clicks, records = decoded.clicks.at(kept), decoded.records[kept]
        left_out = len(decoded.clicks) - len(clicks)
        return replace(decoded, clicks=clicks, records=records), left_out

    def _closes(self) -> bool:
        settings, pending = self.config.commit, self.pending
        if settings.rounds and pending.rounds + 1 >= settings.rounds:
            return True
        if len(pending.dead_letters) >= MAX_DEAD_LETTERS:
            return True
        return not self.by_count and time.monotonic() - pending.since >= settings.seconds

    def _round(self, messages: list[Message], closes: bool) -> None:
        """One round, and the commit if it closes one.

        Records that carry many clicks make several rounds; no commit may close between them, as
        offsets count records.
        """
        with self.metrics.timed("decode"):
            decoded, forgotten = self._decode(messages)
        pending = self.pending
        if not pending.rounds:
            pending.since = time.monotonic()
        self.report.read(messages, decoded, forgotten)
        self.report.dead_lettered(self.config.topics.clicks, decoded.bad)
        self._stop_on_dead_letters(decoded)
        pending.dead_letters += [DeadLetter.of(messages[bad.record], bad) for bad in decoded.bad]
        self.offsets |= self.reader.after(messages)
        parts = decoded.clicks.parts(self.config.round.max_events)
        for number, clicks in enumerate(parts, 1):
            self.health.beat()
            last = number == len(parts)
            outputs = self.engine.step(Inputs(clicks, self.attributes, closes and last, last))
            if self.attributes or self.tail.bad:
                letters = self.tail.dead_letters()
                self.report.dead_lettered(
                    self.config.topics.items, [letter.bad for letter in letters]
                )
                pending.dead_letters += letters
                pending.described |= {item: tokens is None for item, tokens in self.attributes}
                pending.items = self.tail.items_offsets()
                self.attributes = []
            pending.rounds += 1
            pending.events += outputs.events
            self.report.learned(outputs)
        if outputs.changes is not None:
            self._commit(outputs.changes)

    def _stop_on_dead_letters(self, decoded: Decoded) -> None:
        """Refused if the last records hold more dead letters than `dlq.stop_ratio` allows."""
        letters, bound = self.health.dead_letters, self.config.dlq.stop_ratio
        if bound and letters.share >= bound and decoded.bad:
            raise Refused(
                f"{letters.share:.0%} of the last {letters.records} records are dead letters, and "
                f"dlq.stop_ratio is {bound:g}. The last one: {decoded.bad[-1].message}. Those "
                "since the last commit are still in the clicks topic: mend the producer or section "
                "[clicks], or raise dlq.stop_ratio, and start again"
            )

    def _commit(self, changes: Changes) -> None:
        self.commits += 1
        logs.context.update(round=self.engine.round_number, commit=self.commits)
        pending = self.pending
        if pending.gone:
            changes = replace(changes, gone=[*changes.gone, *pending.gone])
        self.committer.run(
            Batch(
                changes, dict(self.offsets), self.commits, self.engine.round_number,
                pending.dead_letters, pending.described, pending.items, self.decoder.windows,
                self.config.items.use,
            )
        )  # fmt: skip
        retired = sum(
            pending.described.get(gone.key.decode(errors="replace"), False) for gone in changes.gone
        )
        self.report.committed(self.commits, pending.events, changes, retired)
        self.pending = Pending()
