"""The worker: collect clicks, take rounds, commit; and the life around that loop."""

import logging
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from confluent_kafka import Message
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from core.rounds import Changes
from streamer.errors import Fenced, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition
from streamer.settings.sections import Config
from streamer.state import folders
from streamer.state.records import NEWER, Space
from streamer.watch import log as logs
from streamer.watch.health import Health
from streamer.watch.metrics import Metrics
from streamer.worker import header, repair, restore, verdict
from streamer.worker.batch import Pending
from streamer.worker.behind import Behind
from streamer.worker.challenging import Contest
from streamer.worker.commit import Committer
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.outgoing import Outgoing
from streamer.worker.reader import Reader, full
from streamer.worker.report import Report
from streamer.worker.rounds import Rounds
from streamer.worker.start import Start
from streamer.worker.stop import Stop
from streamer.worker.users import Leaving, Users

log = logging.getLogger(__name__)

SHARE_OF_LETTERS = 4
"""A commit closes when dead letters fill this part of it."""
STILL_WRITTEN = "what was folded by other settings is still written"
LOOK_SECONDS = 0.5
"""How often a worker that collects looks at what else has come: each look costs a millisecond."""


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
        self.given_back = False
        """Whether partitions were given back since the last look."""
        self._looked = 0.0
        """When it looked last, by the monotonic clock."""
        self.begun: Start | None = None
        """How it began, or is beginning."""
        self.misplaced: list[tuple[int, bytes]] = []
        """Vectors that a repair is to delete, as `repair.Astray`."""

    @property
    def pending(self) -> Pending:
        """What happened since the last commit."""
        return self.rounds.pending

    @property
    def users(self) -> Users | None:
        """Those whose vectors are published, if any are."""
        return self.rounds.users

    @property
    def member(self) -> Group | None:
        """The worker's membership, once it has one."""
        return None if self.begun is None else self.begun.member

    def verdict(self, error: WalkstreamError) -> WalkstreamError:
        """What the worker ends with: trouble with Kafka, and commits, may be another process's."""
        group = self.member
        if group is None or (not isinstance(error, Fenced) and not group.joined):
            return error  # it has no place yet that anybody could take
        assert self.begun is not None, "it has a membership"
        return verdict.of(error, self.config, self.begun.watch, group, self.health.beat)

    # -- start -----------------------------------------------------------------------------------

    def start(self, accepted: Accepted) -> None:
        """Restore, join the group, and be ready to learn from the first unprocessed click."""
        config, stack = self.config, self.stack
        start = self.begun = Start(config, self.stop, stack, self.health, self.metrics)
        self.rounds = Rounds(config, self.metrics, self.health)
        start.recent = lambda: self.rounds.recent
        start.run(accepted)
        self.store, self.tail, self.engine = start.store, start.tail, start.engine
        self.identity = start.identity
        self.group, self.admin, self.readback = start.group, start.admin, start.readback
        self.transactions, self.told, self.shares = start.transactions, start.told, start.shares
        self.commits, self.offsets = start.commits, start.shares.offsets
        self.readback.last, self.readback.owned = self.commits, lambda: self.shares.owned
        self.tail.commits.begin(self.commits)
        self.rounds.decoder.remember(restore.windows(self.store, self.offsets))
        logs.context.update(round=self.engine.round_number, commit=self.commits)
        self.reader = Reader(config, self.admin, self.health.beat)
        stack.callback(self.reader.close)
        self.reader.begin(self.offsets)
        self.report = Report(
            self.metrics, self.health, self.store, self.engine, self.reader, self.offsets,
            clients.ends(self.admin, self.offsets),
        )  # fmt: skip
        self.behind = Behind()
        stack.callback(self.behind.close)
        self.committer = Committer(
            config, start.space, self.store, self.transactions, self.readback, start.watch,
            self.group, self.metrics, start.traces,
        )  # fmt: skip
        found = start.found
        self.outgoing = Outgoing(
            config, self.store, self.engine, lambda: self.shares.end, found.last, found.gone
        )
        self.outgoing.again = [(one.commit, one.rounds) for one in found.again]
        self.rounds.begin(
            self.engine, self.tail, self.reader, self.shares, self.told, self.outgoing,
            self.report, self.admin, self._join,
        )  # fmt: skip
        if config.has_users:
            count = self.identity.topics["clicks"].partitions
            users = self.rounds.users = Users(
                config, self.store, self.engine, self.tail, self.offsets.keys, count,
                start.space, self.health.beat,
            )  # fmt: skip
            self.outgoing.publishes_users = lambda: users.publishes_all
        self.contest = Contest(config, self.store, self.engine, self.metrics)
        self._follow_shares()
        self.repairs = start.accepted.repair
        if self.store.is_replay:
            self.outgoing.publish_all()
        elif self.repairs:
            versions, count = self.engine.versions, start.space.partitions
            newest = max(versions.values(), default=0)
            # A torn commit has used the next version already.
            versions |= dict.fromkeys(range(count), newest + 1)
            astray = repair.astray(config, self.store, self.admin, newest, self.health.beat)
            self.misplaced = astray.misplaced
            self.outgoing.publish_all(astray.dead)
            if self.users is not None:
                self.users.publish_all()
        while self.by_count and self._clicks_wait and not self.stop.asked:
            self._round([], closes=True)  # no clicks come for it
        self._join()
        if self.outgoing.lacks_counts:  # clicks are counted from here on: a restart must know it
            self.outgoing.write_folder()
        self.group.on_release = self._release
        folders.drop_kept(Path(config.state.dir))
        self.health.restored = 1.0
        self.metrics.identify(clients.identity(config), start.space.name)
        self.report.observe(at_once=True)
        if len(self.engine.items) and not self.engine.graph.arcs:
            log.warning("the model has vectors, and no graph: it begins empty")
        self.health.state = "running"
        log.info(
            "running: %d items, %d arcs, %d commits so far",
            len(self.engine.items), self.engine.graph.arcs, self.commits,
        )  # fmt: skip

    # -- shares ----------------------------------------------------------------------------------

    def _release(self, left: set[Partition]) -> None:
        """Commit, and go on with no more than these partitions. Within a call of the group's."""
        publishes_all = self.repairs or self.outgoing.needs_folder
        if self.by_count or publishes_all or self.outgoing.changes:
            why = "everything is published again" if publishes_all else "rounds go by count"
            raise verdict.not_alone(self.config, STILL_WRITTEN if self.outgoing.changes else why)
        self.given_back = True
        self.contest.follow(is_alone=False, commit=self.commits)  # before it decides in a commit
        if self.pending.rounds:
            self._round([], closes=True)
        self._join()
        self.shares.release(left)
        self._follow_shares()
        self.reader.begin(self.offsets)

    def _look_at_shares(self) -> None:
        """Take up what the group handed over, and be alone where there is nobody else."""
        shares = self.shares
        if self.outgoing.changes and not shares.has_all:
            raise verdict.not_alone(self.config, STILL_WRITTEN)
        if taken := shares.look():
            self.rounds.decoder.remember(restore.windows(self.store, taken))
            self._follow_shares()
            self.reader.begin(self.offsets)
            self.report.ends |= clients.ends(self.admin, taken)
        if shares.is_settling and not self.pending.rounds:
            self._join()
            self._look()
            if shares.settle():
                self._follow_shares()

    def _follow_shares(self) -> None:
        """Let those know who go by what this worker has."""
        leads = self.shares.leads
        if leads and not self.outgoing.leads:
            self.rounds.forgotten = frozenset()
            self.rounds.pending.items = {}
            self.tail.read_items_again()
        alone, clicks = self.shares.is_alone, len(self.shares.offsets)
        self.metrics.show_shares(clicks, len(self.shares.owned), alone)
        self.outgoing.is_alone = alone
        self.outgoing.lead(leads)
        self.contest.follow(alone, self.commits)

    # -- the loop --------------------------------------------------------------------------------

    def loop(self) -> None:
        """Rounds and commits until a stop is asked for."""
        while not self.stop.asked:
            self.health.beat()
            if self.repairs and not self._publishes_all:
                self._end_repair()
            self.group.poll()
            self.group.look()
            self._look_at_shares()
            with self.metrics.timed("collect"):
                collected = self._collect_round()
            if collected is None:
                return
            if collected or self.pending.rounds or self._has_work():
                closes = self._closes() or self.shares.is_settling or self.outgoing.changes
                self._look_if_due(at_once=closes or not self.pending.rounds)  # items come first
                self._round(collected, closes)
            self.report.observe(all_taken=not self.reader.waiting, also=self.shares.lag)

    @property
    def _publishes_all(self) -> bool:
        """Whether not all is out of what is published once more."""
        return self.outgoing.needs_folder or (self.users is not None and self.users.publishes_all)

    @property
    def _clicks_wait(self) -> bool:
        """Whether rounds by count begin only once something has left."""
        return self._publishes_all or self.outgoing.changes

    def _end_repair(self) -> None:
        """All was published again: say so, so that no start has to do it once more."""
        self.repairs = False
        self._join()
        self.tail.later.flush()
        header.repaired(
            self.config, self.store, self.identity, self.readback, self.transactions,
            repair.overwritten(
                self.store, self.tail.strangers, self.engine, self.outgoing.topic.last,
                self.config.app.instance,
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
        waits = bool(self.tail.queue) and not self.shares.is_settling
        waits |= not self.shares.is_alone and self.told.has_more
        decides = self.shares.leads
        waits |= self.users is not None and self.users.has_work
        return waits or self.engine.has_work(now, decides) or self.outgoing.has_work

    def finish(self) -> None:
        """Commit what is learned, unless commits close by count, and write graph and sessions."""
        self.health.state = "stopping"
        if self.pending.rounds and not self.by_count:
            self._round([], closes=True)
        self._join()
        self.tail.later.flush()
        with suppress(WalkstreamError):
            if self.config.topics.check and self.group.others:
                self.group.leave()  # they need not wait until its session has ended
        if not self.pending.rounds and self.commits:
            self.outgoing.write_folder()
            self.contest.save(self.commits)
        log.info("stopped after commit %d, round %d", self.commits, self.engine.round_number)

    def _collect_round(self) -> list[Message] | None:
        """The records of the next round. None when stopped before a round by count is full."""
        out: list[Message] = []
        deadline = time.monotonic() + self.config.round.max_seconds
        while (size := full(out, self.config.round.max_events)) is None:
            if self.given_back:  # the reader began anew, behind what was taken
                out, self.given_back = [], False
            if self.stop.asked and self.by_count:
                return None
            waits = self.shares.is_settling or self.outgoing.changes
            if waits or (not out and self.rounds.has_to_learn):
                time.sleep(0.01)  # the log comes first
                return out
            left = 0.1 if self.by_count else deadline - time.monotonic()
            if left <= 0 or self.stop.asked:
                return out
            self.health.beat()
            wanted = self.config.round.max_events - len(out)
            self.group.poll()
            if self.given_back:
                continue
            out += self.reader.consume(wanted, min(left, LOOK_SECONDS))
            self._look_if_due()  # a round by count may take for ever to fill
            if self.by_count:
                self.report.observe(all_taken=not out and not self.reader.waiting)
        self.reader.put_back(out[size:])
        return out[:size]

    def _look_if_due(self, at_once: bool = False) -> None:
        if not self.behind.is_busy and (at_once or time.monotonic() - self._looked > LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        """What has to be read, and noticed, while no commit is under way: the folder has one writer
        at a time."""
        self._looked = time.monotonic()
        self.tail.poll()
        self.engine.starts.asked = self.store.asked()
        self.committer.look()

    def _beat(self) -> None:
        """A commit takes as long as its calls may, each of which has its bounds. Callbacks of the
        group wait: what they would take away is not committed yet."""
        self.health.beat()
        self.group.note()
        # What comes meanwhile waits, and the loop does not come to say so.
        self.report.observe(all_taken=not self.reader.waiting, also=self.shares.lag)

    def _join(self) -> None:
        """Wait for the commit that is under way."""
        self.behind.join(self._beat)

    def _closes(self) -> bool:
        settings, pending = self.config.commit, self.pending
        if settings.rounds and pending.rounds + 1 >= settings.rounds:
            return True
        if len(pending.dead_letters) >= settings.max_records // SHARE_OF_LETTERS:
            return True
        if self.users is not None and self.users.is_full:
            return True
        return not self.by_count and time.monotonic() - pending.since >= settings.seconds

    def _round(self, messages: list[Message], closes: bool) -> None:
        """One round, and the commit if it closes one."""
        changes = self.rounds.take(messages, closes)
        if changes is not None:
            self._commit(changes)

    def _new_space(self, changes: Changes) -> Space | None:
        """The header of the vector space that begins with a commit, if one does. All that leaves
        from this commit on is of it."""
        if changes.promotion is None or not changes.promotion.is_new_space:
            return None
        before = self.store.space
        assert before is not None, "a worker has a header since it settled"
        since = self.engine.leaving.space_from
        space = self.shares.space = replace(before, since=since, format=NEWER)
        if self.users is not None:
            self.users.space = space
        self.metrics.identify(clients.identity(self.config), space.name)
        return space

    def _commit(self, changes: Changes) -> None:
        """Hand copies of all that leaves to the thread that commits, once it has made the last."""
        pending, self.rounds.pending = self.pending, Pending()
        self.rounds.budget.take(len(changes.published))
        # Greater than that of every commit that this one may build on.
        self.commits = max(self.commits, self.tail.commits.seen, self.outgoing.evidence) + 1
        self.contest.closing(changes)
        space = self._new_space(changes)
        with self.metrics.timed("commit"):
            users = Leaving({}, None)
            if self.users is not None:  # first: the marks say whether all have left
                users = self.users.leave(changes.time, not self.behind.is_busy)
            batch = self.outgoing.batch(self.commits, changes, pending, self.offsets,
                                        self.rounds.decoder.windows)  # fmt: skip
            batch.users, batch.looked = users
            batch.space = space
            retired = sum(pending.described.get(gone.key, b"") is None for gone in changes.gone)
            is_told = not self.shares.is_alone
            batch.told = self.report.closing(self.commits, pending.events, batch, retired, is_told)
            if self.shares.is_alone:
                self.told.number = self.outgoing.evidence
            self._join()
            self.rounds.recent = dict(pending.described)
            self._look()
            logs.context.update(round=self.engine.round_number, commit=self.commits)
            self.behind.start(partial(self.committer.run, batch))
