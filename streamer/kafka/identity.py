"""What tells cluster and topics apart, their ids and partitions: at a start, and meanwhile.

A topic that was deleted and created again under its old name has another id: what was known about
its offsets is void. The client reads on in the new topic, at the offset where it was in the old
one, and says nothing. So the ids are asked for before each commit, when all that is to be in it was
read: nothing of a topic is committed under the name of another one.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from streamer.errors import KafkaTrouble, Refused, WalkstreamError
from streamer.kafka import topics as all_topics
from streamer.kafka.clients import CALL_SECONDS
from streamer.kafka.failures import FORBIDDEN, Forbidden
from streamer.settings.sections import Config, TopicSettings
from streamer.state.records import Layout
from streamer.wording import counted

log = logging.getLogger(__name__)

ROLES = ("clicks", "items", "item_vectors", "model_state", "transitions", "dead_letters")
"""The topics, as `TopicSettings` calls them."""
USERS = "user_vectors"
"""The one that there need not be."""

LOOK_SECONDS = 10.0
"""Time between looks at the topics while a worker runs."""
GRACE_SECONDS = 1.0
"""How long a broker that has just started has to hear of all topics."""


class Identity(NamedTuple):
    """The cluster and the topics that are there now."""

    cluster: str
    """Its id; empty where `topics.check` is off."""
    topics: dict[str, Layout]
    """By role."""

    @property
    def ids(self) -> dict[str, str]:
        """The ids that are known, by role, and that of the `cluster`."""
        known = {"cluster": self.cluster, **{role: t.id for role, t in self.topics.items()}}
        return {role: name for role, name in known.items() if name}


def identity(admin: AdminClient, config: Config) -> Identity:
    """Ids and partitions of the topics, with that of the users if it is used. Refused if one is
    missing.

    With `topics.check` off only partitions are asked for, which every cluster tells.
    """
    roles = (*ROLES, *[USERS] * config.has_users)
    names = {role: str(getattr(config.topics, role)) for role in roles}
    if not config.topics.check:
        there = {n: admin.list_topics(n, CALL_SECONDS).topics[n] for n in names.values()}
        for name, topic in there.items():
            if topic.error is not None and topic.error.code() in FORBIDDEN:
                raise Forbidden(topic.error, name)
        _refuse_missing({name for name, topic in there.items() if topic.error is not None})
        counts = {role: len(there[name].partitions) for role, name in names.items()}
        return Identity("", {role: Layout("", count) for role, count in counts.items()})
    described = all_topics.describe(admin, names.values())
    _refuse_missing(set(names.values()) - set(described))
    cluster = all_topics.cluster_id(admin)
    return Identity(cluster, {role: _layout(described[name]) for role, name in names.items()})


def _layout(topic: TopicDescription) -> Layout:
    return Layout(str(topic.topic_id), len(topic.partitions))


def _refuse_missing(missing: set[str]) -> None:
    if missing:
        raise Refused(
            f"topics {sorted(missing)} do not exist: run `walkstream topics create`, or name the "
            "right topics in section [topics]"
        )


class Watch:
    """Looks at the topics of a running worker: none may go, change or grow without notice."""

    def __init__(self, admin: AdminClient, topics: TopicSettings, known: Identity) -> None:
        self.admin, self.settings = admin, topics
        self.known = {
            str(getattr(topics, role)): (role, layout) for role, layout in known.topics.items()
        }
        self._asked: dict[str, Future[Any]] = {}
        self._due = time.monotonic() + LOOK_SECONDS
        self._missing: set[str] = set()
        self.others: list[Callable[[], WalkstreamError | None]] = []
        """What else a failed call may come from."""

    def look(self) -> None:
        """Ask for the topics when it is time, and judge the answer once it is there.

        It waits for nothing. Raises where going on would be wrong.
        """
        if not self.settings.check:
            return
        if not self._asked and time.monotonic() >= self._due:
            self._asked = self._ask()
        if self._asked and all(future.done() for future in self._asked.values()):
            asked, self._asked = self._asked, {}
            self._due = time.monotonic() + LOOK_SECONDS
            gone, _ = self._judge(asked)
            # A broker that has just started may not know of all topics yet.
            if again := gone & self._missing:
                raise deleted(again)
            self._missing = gone

    def confirm(self) -> None:
        """Return once all topics are known to be those that they were, and raise otherwise.

        To be called before a commit, when all that is to be in it was read.
        """
        if not self.settings.check:
            return
        deadline, gone = time.monotonic() + CALL_SECONDS, set[str]()
        while True:
            missing, silent = self._judge(self._ask())
            if not missing and not silent:
                self._due = time.monotonic() + LOOK_SECONDS
                return
            if again := gone & missing:
                raise deleted(again)
            if time.monotonic() > deadline:
                raise KafkaTrouble(
                    "the brokers do not say whether the topics are those that they were "
                    f"({silent}), so nothing more was committed"
                )
            gone |= missing
            time.sleep(GRACE_SECONDS)

    def explain(self) -> WalkstreamError | None:
        """What happened to topics or model, if anything did: asked when a call has failed."""
        return next(filter(None, (ask() for ask in [self._changed, *self.others])), None)

    def _changed(self) -> WalkstreamError | None:
        if not self.settings.check:
            return None
        try:
            gone, _ = self._judge(self._ask())
        except WalkstreamError as changed:
            return changed
        return deleted(gone) if gone else None

    def _ask(self) -> dict[str, "Future[Any]"]:
        names = TopicCollection(sorted(self.known))
        return self.admin.describe_topics(names, request_timeout=CALL_SECONDS / 3)

    def _judge(self, asked: dict[str, "Future[Any]"]) -> tuple[set[str], str]:
        """The topics that are not there, and why there is no answer for one, or nothing.

        Raises where one is not what it was.
        """
        gone, silent = set(), ""
        for name, future in asked.items():
            role, was = self.known[name]
            try:
                now = _layout(future.result(CALL_SECONDS))
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    gone.add(name)
                else:
                    silent = error.args[0].str()
                continue
            except TimeoutError:
                silent = f"no answer within {CALL_SECONDS:g} s"
                continue
            if now.id != was.id:
                raise WalkstreamError(
                    f"topic {name} was deleted and created again while the worker ran. Nothing "
                    "that was read of the new one was committed. Start again: the worker then says "
                    "what that means"
                )
            if now.partitions != was.partitions:
                self.known[name] = role, now
                _grew(name, role, was.partitions, now.partitions)
        return gone, silent


def _grew(name: str, role: str, was: int, now: int) -> None:
    """Partitions were added. They are read only by a worker that knows of them from the start."""
    if role in ("clicks", "items"):
        raise WalkstreamError(
            f"topic {name} has {counted(now, 'partition')}, and had {was} when the worker started: "
            "start again, and it reads the new ones too"
        )
    log.warning("topic %s has %d partitions by now: nothing is written to the new ones", name, now)


def deleted(names: set[str]) -> Refused:
    return Refused(
        f"topics {sorted(names)} were deleted while the worker ran; nothing was committed since. "
        "Whatever deleted them must stop. Then run `walkstream topics create` and start again: the "
        "worker says what was lost, and how to go on"
    )
