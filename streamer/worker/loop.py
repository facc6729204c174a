"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from core.engine import RECORDS_OF_GONE, Engine
from core.rounds import Changes, Inputs
from streamer import kernels
from streamer.admin import forget
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Decoded
from streamer.decode.guarded import GuardedDecoder
from streamer.errors import Fenced, WalkstreamError
from streamer.kafka import clients, rights, unreadable
from streamer.kafka.clients import Partition
from streamer.kafka.identity import Watch, identity
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config
from streamer.state import folders
from streamer.watch import log as logs
from streamer.watch.health import Health
from streamer.watch.metrics import Metrics
from streamer.worker import claiming, header, refold, repair, restore, verdict
from streamer.worker.batch import Pending
from streamer.worker.behind import Behind
from streamer.worker.budget import Budget
from streamer.worker.commit import Committer
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.outgoing import Outgoing
from streamer.worker.readback import Readback
from streamer.worker.reader import Reader, columns, full, placed
from streamer.worker.report import Report
from streamer.worker.starting import progress_of
from streamer.worker.stop import Stop
from streamer.worker.tail import Tail

log = logging.getLogger(__name__)

SHARE_OF_LETTERS = 4
"""A commit closes when dead letters fill this part of it."""
SHARE_OF_ITEMS = 6
"""A commit takes in so many items of the catalogue that they fill at most twice this part of it."""
OTHERS = 1000
"""Records that a commit keeps free for what is no row: progress, versions, evidence, and those of
the graph."""

Attributes = list[tuple[str, Sequence[str] | None]]
"""Items with their attribute tokens, None for one that is retired."""


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
        self.forgotten: set[bytes] = set()
        """Keys of the users whose clicks do not count, as the rounds know them."""
        self.budget = Budget(config)
        self.misplaced: list[tuple[int, bytes]] = []
        """Vectors that a repair is to delete, as `repair.Astray`."""
        self.recent: dict[bytes, bytes | None] = {}
        """Items that were taken in with commits which the folder does not have yet, as JSON."""
        self.newest_stamp = -1
        """Greatest record timestamp of the clicks so far, ms."""
        self._progress_of = partial(progress_of, self.health, stop)

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
            restore.check_topics(config, admin)
        now = identity(admin, config.topics)
        self.identity = now
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
            self.tail.commits.doubtful = self.readback.doubt.first
        self.tail.strangers.repairs = accepted.repair
        self.tail.start(admin, header.void(config, self.store, now))
        self.tail.catch_up(admin, self._progress_of(0.0, 0.5, self.group), items=False)
        self.space = header.settle(
            config, self.store, now, accepted, self.readback, self.transactions, admin,
            self.tail.header_from, self.group.consumer,
            partial(restore.starts, config, self.store, self.group, admin, accepted),
        )  # fmt: skip
        if header.lacks_vectors(self.space, now):
            repair.ask(self.store)  # a start that does not come to the end of it is not the last
            accepted = accepted._replace(repair=True)
        # What a new header changed of the progress reaches the folder by way of Kafka.
        self.tail.catch_up(admin, self._progress_of(0.5, 0.5, self.group))
        self.engine = Engine(config.engine_settings, self.space.partitions, self.metrics.timed)
        self.reader = Reader(config, admin, self.health.beat)
        stack.callback(self.reader.close)
        self.offsets = restore.starts(config, self.store, self.group, admin, accepted)
        found = refold.restore(
            config, self.store, self.engine, admin, accepted.loss,
            self._progress_of(0.5, 1.0, self.group),
        )  # fmt: skip
        traces = refold.traces(config, self.store, admin, self._progress_of(1.0, 1.0, self.group))
        newest = restore.load_model(config, self.store, self.engine, lambda: self.recent)
        self.commits = max(newest, self.readback.last or 0)
        self.tail.commits.begin(self.commits)
        self.decoder.remember(restore.windows(self.store, self.offsets))
        logs.context.update(round=self.engine.round_number, commit=self.commits)
        self.reader.begin(self.offsets)
        self.report = Report(
            self.metrics, self.health, self.store, self.engine, self.reader, self.offsets,
            clients.ends(admin, self.offsets),
        )  # fmt: skip
        self.admin = admin
        self.behind = Behind()
        stack.callback(self.behind.close)
        self.committer = Committer(
            config, self.space, self.store, self.transactions, self.readback, self.watch,
            self.group, self.metrics, traces,
        )  # fmt: skip
        self.watch.others.append(
            lambda: claiming.handed_over(config, admin, self.store.space, self.tail.header_from)
        )
        self.readback.beat = self.health.beat  # from here on a stop is no reason to break off
        self.outgoing = Outgoing(
            config, self.store, self.engine,
            lambda: self.readback.at[config.topics.transitions, 0], found.last,
        )  # fmt: skip
        self.outgoing.again = [(one.commit, one.rounds) for one in found.again]
        self.repairs = accepted.repair
        if self.store.is_replay:
            self.outgoing.publish_all()
        elif accepted.repair:
            versions, count = self.engine.versions, self.space.partitions
            newest = max(versions.values(), default=0)
            # A torn commit has used the next version already.
            versions |= dict.fromkeys(range(count), newest + 1)
            astray = repair.astray(config, self.store, admin, newest, alive)
            self.misplaced = astray.misplaced
            self.outgoing.publish_all(astray.dead)
        while self.by_count and self.outgoing.needs_folder and not self.stop.asked:
            self._round([], closes=True)  # no clicks come for it
        self._join()
        folders.drop_kept(Path(config.state.dir))
        self.health.restored = 1.0
        self.metrics.identify(clients.identity(config), self.space.name)
        self.report.observe(at_once=True)
        if len(self.engine.items) and not self.engine.graph.arcs:
            log.warning("the model has vectors, and no graph: it begins empty")
        self.health.state = "running"
        log.info(
            "running: %d items, %d arcs, %d commits so far",
            len(self.engine.items), self.engine.graph.arcs, self.commits,
        )  # fmt: skip

    # -- the loop --------------------------------------------------------------------------------

    def loop(self) -> None:
        """Rounds and commits until a stop is asked for."""
        while not self.stop.asked:
            self.health.beat()
            if self.repairs and not self.outgoing.needs_folder:
                self._end_repair()
            with self.metrics.timed("collect"):
                collected = self._collect_round()
            if collected is None:
                return
            if collected or self.pending.rounds or self._has_work():
                self._round(collected, self._closes())
            self.report.observe(all_taken=not self.reader.waiting)

    def _end_repair(self) -> None:
        """All was published again: say so, so that no start has to do it once more."""
        self.repairs = False
        self._join()
        header.repaired(
            self.config, self.store, self.identity, self.readback, self.transactions,
            repair.overwritten(
                self.store, self.tail.strangers, self.engine, self.outgoing.topic.last
            ),
            self.misplaced,
        )  # fmt: skip
        repair.finish(self.config, self.store, self.tail, self.commits)
        self.commits = self.readback.last or self.commits

    def _has_work(self) -> bool:
        """Whether there is something to do without clicks. By count only clicks make rounds."""
        if self.by_count:
            return False
        now = int(time.time() * 1000)
        return bool(self.tail.queue) or self.engine.has_work(now) or self.outgoing.has_work

    def finish(self) -> None:
        """Commit what is learned, unless commits close by count, and write graph and sessions."""
        self.health.state = "stopping"
        if self.pending.rounds and not self.by_count:
            self._round([], closes=True)
        self._join()
        if not self.pending.rounds and self.commits:
            self.outgoing.write_folder(self.commits)
        log.info("stopped after commit %d, round %d", self.commits, self.engine.round_number)

    def _collect_round(self) -> list[Message] | None:
        """The records of the next round. None when stopped before a round by count is full."""
        out: list[Message] = []
        deadline = time.monotonic() + self.config.round.max_seconds
        while (size := full(out, self.config.round.max_events)) is None:
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
            if not self.behind.is_busy:
                self._look()
            if self.by_count:
                self.report.observe(all_taken=not out and not self.reader.waiting)
        self.reader.put_back(out[size:])
        return out[:size]

    def _look(self) -> None:
        """What has to be read, and noticed, while no commit is under way: the folder has one writer
        at a time."""
        self.tail.poll()
        self.committer.look()

    def _beat(self) -> None:
        """A commit takes as long as its calls may, each of which has its bounds."""
        self.health.beat()
        self.group.poll()

    def _join(self) -> None:
        """Wait for the commit that is under way."""
        self.behind.join(self._beat)

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
        if len(pending.dead_letters) >= settings.max_records // SHARE_OF_LETTERS:
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
        self.newest_stamp = max([self.newest_stamp, *(m.timestamp()[1] for m in messages)])
        attributes: Attributes = []
        if not pending.rounds:
            pending.since = time.monotonic()
            attributes = self._take_items()
        self.report.read(messages, decoded, forgotten)
        self.report.dead_lettered(self.config.topics.clicks, decoded.bad)
        if decoded.bad:
            bound = self.config.dlq.stop_ratio
            self.health.dead_letters.check(bound, decoded.bad[-1].message)
        pending.dead_letters += [DeadLetter.of(messages[bad.record], bad) for bad in decoded.bad]
        self.offsets |= self.reader.after(messages)
        parts = placed(decoded, messages).parts(self.config.round.max_events)
        for number, clicks in enumerate(parts, 1):
            self.health.beat()
            inputs = Inputs(
                clicks, attributes, self._forgotten(), closes and number == len(parts),
                self._room(), int(self.budget), None if self.by_count else int(time.time() * 1000),
            )  # fmt: skip
            outputs = self.engine.step(inputs)
            attributes = []
            pending.rounds += 1
            pending.events += outputs.events
            pending.evidence.append(outputs.evidence)
            self.report.learned(outputs)
        if outputs.changes is not None:
            self._commit(outputs.changes)

    def _take_items(self) -> Attributes:
        """The items of the catalogue that this commit takes in. By count it takes those that are
        dated before its first clicks end, whoever read them when."""
        until = None
        if self.by_count:
            self._join()
            self.tail.read_items(self.admin)
            until = self.newest_stamp
        pending = self.pending
        taken = self.tail.take(self.config.commit.max_records // SHARE_OF_ITEMS, until)
        if taken:
            pending.items = self.tail.items_offsets()
        letters = [one.letter for one in taken if one.letter is not None]
        self.report.dead_lettered(self.config.topics.items, [letter.bad for letter in letters])
        pending.dead_letters += letters
        news = [one for one in taken if one.letter is None]
        pending.described |= {one.item.encode(): one.value for one in news}
        self.recent |= pending.described
        return [(one.item, one.tokens) for one in news]

    def _forgotten(self) -> list[str]:
        """The users with open sessions that were put on the list since the last look."""
        if self.tail.forgotten == self.forgotten:
            return []
        self.forgotten = set(self.tail.forgotten)
        return forget.among(self.config.app.name, self.engine.sessions.users, self.forgotten)

    def _room(self) -> int:
        """Records that are left for rows, vectors and tombstones."""
        most = self.config.commit.max_records - OTHERS - len(self.pending.dead_letters)
        return max(0, most - RECORDS_OF_GONE * self.outgoing.tombstones)

    def _commit(self, changes: Changes) -> None:
        """Hand copies of all that leaves to the thread that commits, once it has made the last."""
        pending, self.pending = self.pending, Pending()
        self.budget.take(len(changes.published))
        self.commits += 1
        with self.metrics.timed("commit"):
            batch = self.outgoing.batch(self.commits, changes, pending, self.offsets,
                                        self.decoder.windows)  # fmt: skip
            retired = sum(pending.described.get(gone.key, b"") is None for gone in changes.gone)
            batch.told = self.report.closing(self.commits, pending.events, batch, retired)
            self._join()
            self.recent = dict(pending.described)
            self._look()
            logs.context.update(round=self.engine.round_number, commit=self.commits)
            self.behind.start(partial(self.committer.run, batch))
