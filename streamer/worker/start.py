"""How a worker begins: alone, or beside others that run.

Alone it is the group's member first, and restores then: what it reads is final. Beside others it
restores first, while they hold the partitions, and follows them until it is level; then it joins,
and takes up what the group hands over as any other running worker does (`streamer.worker.shares`).

What changes for all (a new header, a repair, a folder of `replay`) only a worker does that is
alone.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from core.engine import Engine
from streamer import kernels
from streamer.errors import KafkaTrouble, Refused
from streamer.kafka import clients, rights
from streamer.kafka.clients import Partition
from streamer.kafka.identity import USERS, Watch, identity
from streamer.kafka.transactions import Transactions
from streamer.settings import challenger
from streamer.settings.sections import Config
from streamer.state import folded_by, records
from streamer.state.records import Space
from streamer.state.traces import Traces
from streamer.watch.health import Health
from streamer.watch.metrics import Metrics
from streamer.worker import challenging, claiming, header, refold, repair, restore
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.readback import Readback
from streamer.worker.refold import Refolded
from streamer.worker.shares import Shares
from streamer.worker.starting import progress_of
from streamer.worker.stop import Stop
from streamer.worker.tail import Tail
from streamer.worker.told import Log

log = logging.getLogger(__name__)

APART_SECONDS = 0.5, 3.0
"""Workers that joined at the same moment, before there was a model, try again so much later."""
HEADER_SECONDS = 60.0
"""How long another worker may take to write the header."""


class Start:
    """The parts of a worker, once `run` has returned."""

    def __init__(
        self, config: Config, stop: Stop, stack: ExitStack, health: Health, metrics: Metrics
    ) -> None:
        self.config, self.stop, self.stack = config, stop, stack
        self.health, self.metrics = health, metrics
        self.recent: Callable[[], Mapping[bytes, bytes | None]] = dict
        """Gives the items that were taken in with commits which the folder does not have yet."""
        self.member: Group | None = None
        """The membership, once there is one to be ended."""
        self._progress_of = partial(progress_of, health, stop)

    def run(self, accepted: Accepted) -> None:
        """Restore, and be the group's member."""
        config, stack = self.config, self.stack
        self.health.beat()
        restore.check_space(config)
        self.checks = checks = config.topics.check
        self.admin = admin = stack.enter_context(rights.allowed(config, "worker", ask=checks))
        if checks:
            restore.check_topics(config, admin)
        self.identity = now = identity(admin, config)
        self.watch = Watch(admin, config.topics, now)
        # Whoever has to look at Kafka or at the topics first is told at once.
        kernels.prepare(config.engine_settings, config.user_vectors.kind == "interests")
        if (beside := challenger.settings(config)) is not None:
            kernels.prepare(beside)
        self.health.state = "restoring"
        self.health.beat()
        self.store = stack.enter_context(restore.open_store(config, admin, now, accepted))
        self.accepted = accepted._replace(repair=repair.is_asked(self.store, accepted.repair))
        self.group = self.member = Group(config, admin, self._progress_of(0.0, 0.0))
        stack.callback(self.group.close)
        alive = partial(self._progress_of(0.0, 0.0, self.group), 0.0)
        self.readback = Readback(config, now, admin, alive)
        stack.callback(self.readback.close)
        self.tail = Tail(config, self.store, clients.tail_consumer(config), self.health.beat)
        stack.callback(self.tail.close)
        self.tail.strangers.repairs = self.accepted.repair
        self.told = Log(config)
        stack.callback(self.told.close)
        if (why := self._needs_to_be_alone()) and checks:
            self.group.wait_for_others(why)
        while True:
            if self._is_alone():
                self._begin_alone()
                break
            if self._begin_beside():
                break
        self.watch.others.append(
            lambda: claiming.handed_over(config, admin, self.store.space, self.tail.header_from)
        )
        self.readback.beat = self.health.beat  # from here on a stop is no reason to break off

    def _needs_to_be_alone(self) -> str:
        """What only a worker does that is alone; nothing if it may run beside others."""
        if self.config.round.max_seconds == 0:
            return "rounds by count (round.max_seconds = 0) are those of one worker"
        if self.accepted.repair:
            return "a repair writes what all of them own"
        if self.accepted.loss:
            return "a loss is accepted for all of them"
        if self.store.is_replay:
            return "the folder of a replay becomes the model"
        return ""

    def _is_alone(self) -> bool:
        """Join the group, unless another worker is there: what it commits is read first."""
        while not (self.checks and self.group.others):
            self.group.join()
            if self.group.has_all:
                return True
            # Another one joined in the same moment, and neither knows what the other finds.
            log.info("another worker is in group %s, or joins it", self.config.app.name)
            self.group.leave()
            self._wait(random.uniform(*APART_SECONDS))
            if not self.checks:
                break  # who is there may not be asked
        return False

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._progress_of(0.0, 0.0)(0.0)
            time.sleep(0.1)

    # -- alone -----------------------------------------------------------------------------------

    def _begin_alone(self) -> None:
        """Another worker may have committed until this one was the group's member and has fenced
        what an earlier process left open: what was read before that would not be the newest."""
        config, store, admin, accepted = self.config, self.store, self.admin, self.accepted
        self._fence()
        self.readback.start(accepted.repair)
        if self.readback.doubt is not None:
            self.tail.commits.doubtful = self.readback.doubt
        self.tail.start(admin, header.void(config, store, self.identity))
        self.tail.catch_up(admin, self._progress_of(0.0, 0.5, self.group), items=False)
        self.space = header.settle(
            config, store, self.identity, accepted, self.readback, self.transactions, admin,
            self.tail.header_from, self.group.consumer, self._starts,
        )  # fmt: skip
        if header.lacks_vectors(self.space, self.identity):
            repair.ask(store)  # a start that does not come to the end of it is not the last
            self.accepted = accepted = accepted._replace(repair=True)
        # What a new header changed of the progress reaches the folder by way of Kafka.
        self.tail.catch_up(admin, self._progress_of(0.5, 0.5, self.group))
        self._restore(owned=None)
        if not self.group.gave_back:
            self.shares.offsets = dict(self._starts())
            self.shares.is_alone = True
            self.told.rest()
        elif why := self._needs_to_be_alone():
            raise KafkaTrouble(
                f"another worker joined group {config.app.name} while this one restored, and "
                f"{why}: stop the others, and start this one again"
            )
        else:  # others may have committed meanwhile: it takes up what it has as any other does
            self.engine.own([], self.tail.later.written)

    def _starts(self) -> Mapping[Partition, int]:
        return restore.starts(self.config, self.store, self.group, self.admin, self.accepted)

    def _fence(self) -> None:
        log.info("settling what an earlier process may have left open")
        self.transactions = Transactions(self.config, self.group.check)

    def _restore(self, owned: list[int] | None) -> None:
        """Make the engine from folder and log. `owned` are its item partitions, None for all."""
        config, store, admin = self.config, self.store, self.admin
        member = None if owned is not None else self.group
        settings = challenging.in_force(config, store.promoted)
        challenging.tell(config, store.promoted)
        self.engine = Engine(settings, self.space.partitions, self.metrics.timed)
        self.engine.outdated = challenging.outdated(settings, store.promoted, self.space)
        self.engine.leaving.space_from = self.space.since
        if owned is not None:
            self.engine.own(owned, self.tail.later.written)
        self.found: Refolded = refold.restore(
            config, store, self.engine, admin, self.accepted.loss,
            self._progress_of(0.5, 1.0, member), is_alone=owned is None,
        )  # fmt: skip
        self.traces: Traces = refold.traces(
            config, store, admin, self.found, self._progress_of(1.0, 1.0, member)
        )
        newest = restore.load_model(config, store, self.engine, self.recent)
        self.commits = max(newest, self.readback.last or 0)
        self.told.begin(self.found.at, self.found.last)
        where = config.topics.transitions, 0
        self.shares = Shares(
            config, self.space, store, self.engine, self.group, self.tail, self.told, admin,
            lambda: self.readback.logs.behind(where),
        )  # fmt: skip

    # -- beside others ---------------------------------------------------------------------------

    def _begin_beside(self) -> bool:
        """Whether others stayed until the model fitted; if not, this worker may change that."""
        config, store, admin = self.config, self.store, self.admin
        log.info("beside %s: restoring before this worker joins", ", ".join(self.group.others))
        on_progress = self._progress_of(0.0, 0.5)
        self.tail.start(admin, header.void(config, store, self.identity))
        until, told = time.monotonic() + HEADER_SECONDS, ""
        while (why := self._unfit(on_progress)) != "":
            if why != told:
                log.info("waiting beside the others: %s", why)
                told = why
            marks = self.store.marks
            if marks.needs_folder or marks.folds_next:  # that may take long, and comes to an end
                until = time.monotonic() + HEADER_SECONDS
            if time.monotonic() > until:
                raise Refused(
                    f"{why}. Only a worker that is alone may change that: stop the others, start "
                    "one, and the others when it runs"
                )
            self._wait(random.uniform(*APART_SECONDS))
            if not self.group.others:
                return False
        header.renew(store, self.identity)
        self._restore(owned=[])
        self.group.join()
        self._fence()
        # An earlier process of this name may have committed until it was fenced.
        self.tail.catch_up(admin, on_progress, items=False)
        own = store.meta(records.manifest_key(config.app.instance))
        self.readback.start(repair=False, of=config.app.instance if own else "")
        self.commits = max(self.commits, self.readback.last or 0, self.tail.commits.seen)
        return True

    def _unfit(self, on_progress: Callable[[float], None]) -> str:
        """Why a worker can not run beside others yet, as the topics are now."""
        self.tail.catch_up(self.admin, on_progress)
        config, space = self.config, self.store.space
        if space is None:
            return f"{config.topics.model_state} has no header yet"
        wanted = Space.of(config.engine_settings, space.partitions)
        space.check(wanted, f"the topic {config.topics.model_state}")
        if (USERS in space.topics) != config.has_users:
            which = "have" if USERS in space.topics else "have not"
            return f"the workers that run {which} vectors of users (user_vectors.kind)"
        known = header.folder_ids(self.store)
        unlike = header.differences(config.app.name, config.topics, space, known, self.identity)
        # Partitions that were added to the clicks change who owns what.
        told = [one.text for one in unlike if not one.is_harmless or one.role == "clicks"]
        if told:
            return "; ".join(told)
        own = folded_by.folds_by(config.engine_settings, config.round.max_seconds == 0)
        marks = self.store.marks
        theirs = marks.folds_next or marks.folds_by or own
        if others := folded_by.unlike(own, theirs):
            return (
                f"the workers that run fold clicks otherwise than this one would: {others[0]} "
                "differs. Of what decides that all must have the same"
            )
        if marks.folds_next:
            return "another worker is still writing what was folded by other settings"
        if why := challenging.unlike(config, self.store.promoted):
            return why
        if self.store.marks.needs_folder:
            return "another worker is still publishing everything again"
        if not self.store.progress():
            return "nothing was committed yet"
        self.space = space
        return ""
