"""Why a worker ends when Kafka fails: a look at topics and group, as one error has many causes.

A worker whose session ended may have been frozen, or another has its place; a transaction that
never ends is that of a slow broker, or of a topic that somebody deleted. Exit code 4 says that
others go on with what this worker had, so it needs another process that was really seen with it.

Who took a worker's name may be the worker itself: its line broke, it asked once more to join, and
the first request reached the broker afterwards, which then made a member that nobody is. It has the
name of the worker, as one that was started twice has, but sends no heartbeat: a session later it is
gone.
"""

import logging
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, MemberDescription

from streamer.errors import Fenced, KafkaTrouble, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition
from streamer.kafka.identity import Watch
from streamer.settings.sections import Config
from streamer.worker.group import Group

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How long brokers have to answer. What frozen ones know is not worth more."""
GRACE_SECONDS = 3.0
"""How much later than a session ends a group may tell of it."""


def not_alone(config: Config, why: str) -> KafkaTrouble:
    """What a worker ends with that may not go on beside another, and why not."""
    return KafkaTrouble(
        f"group {config.app.name} took partitions away for another worker, and {why}, which one "
        "worker does alone: stop the other one, and start this one again"
    )


def of(
    error: WalkstreamError, config: Config, watch: Watch, group: Group, beat: Callable[[], None]
) -> WalkstreamError:
    """What the worker ends with, which says what happened, and what to do.

    `beat` is called again and again while it is waited for the end of a session.
    """
    if isinstance(error, (KafkaTrouble, Fenced)):
        return _of_kafka(error, config, watch, group, beat)
    return _replaced(error, config, watch, group, beat)


def _replaced(
    error: WalkstreamError, config: Config, watch: Watch, group: Group, beat: Callable[[], None]
) -> WalkstreamError:
    """The error, or that another process has this worker's place, of which it may come.

    What that one commits looks torn to this one, and goes another way than its own commits. This
    may be seen before the group says what happened, which it does with the next heartbeat.
    """
    try:
        group.check()
    except (Fenced, KafkaTrouble) as lost:  # the name is another's, or nobody's any more
        told = _of_kafka(lost, config, watch, group, beat)
        return told if isinstance(told, Fenced) else error
    except (WalkstreamError, KafkaException):
        pass
    return error


def _of_kafka(
    trouble: KafkaTrouble | Fenced, config: Config, watch: Watch, group: Group,
    beat: Callable[[], None],
) -> WalkstreamError:  # fmt: skip
    try:
        admin = AdminClient(clients.COMMON | clients.STEADY | config.kafka)
        admin.list_topics(timeout=LOOK_SECONDS)
    except KafkaException:
        return KafkaTrouble(
            f"{_what(trouble)}. No broker answers now ({config.kafka.get('bootstrap.servers')}): "
            "look whether they run. Nothing is lost: started again, the worker goes on from its "
            "last commit as soon as they do"
        )
    if (changed := watch.explain()) is not None:
        return changed
    others = _others(admin, config, group)
    me = clients.identity(config)
    if any(one.group_instance_id == me for one in others):
        others = _lasting(admin, config, group, beat)
    if any(one.group_instance_id == me for one in others):
        if isinstance(trouble, Fenced):
            return trouble
        return Fenced(
            _what(trouble),
            f"Another process is in group {config.app.name} under this worker's name by now: "
            f"{_named(others)}. Each has an app.instance of its own: stop one of the two, and "
            "start this one only if it is the one that stays",
        )
    if heirs := [one for one in others if _partitions(one) & group.assigned]:
        return Fenced(
            _what(trouble),
            f"Its partitions are with {_named(heirs)} by now. Nothing was committed since, and "
            "nothing is lost: started again, the worker takes its share once more",
        )
    late = (
        ". It was this worker's own request, which came late and twice, or a process that is gone"
        if isinstance(trouble, Fenced)
        else ""
    )
    return KafkaTrouble(
        f"{_what(trouble)}{late}. No other process has its place in group {config.app.name}, and "
        "nothing is lost: started again, the worker goes on from its last commit"
    )


def _what(trouble: KafkaTrouble | Fenced) -> str:
    return trouble.what if isinstance(trouble, Fenced) else str(trouble)


def _named(members: list[MemberDescription]) -> str:
    return ", ".join(f"{one.group_instance_id or one.member_id} on {one.host}" for one in members)


def _partitions(member: MemberDescription) -> set[Partition]:
    return {(tp.topic, tp.partition) for tp in member.assignment.topic_partitions}


def _lasting(
    admin: AdminClient, config: Config, group: Group, beat: Callable[[], None]
) -> list[MemberDescription]:
    """Other members of the group, once that of this worker's name is gone, or has lasted for the
    time of a session."""
    session = clients.session_seconds(config)
    log.warning(
        "group %s gave this worker's place to another member: whether a process is behind it, or a "
        "request of this one that came late, is seen within %g s", config.app.name, session,
    )  # fmt: skip
    deadline = time.monotonic() + session + GRACE_SECONDS
    me = clients.identity(config)
    others = _others(admin, config, group)
    while any(one.group_instance_id == me for one in others) and time.monotonic() < deadline:
        beat()
        time.sleep(0.5)
        others = _others(admin, config, group)
    return others


def _others(admin: AdminClient, config: Config, group: Group) -> list[MemberDescription]:
    """Members of the group that are not this process, as far as that can be learned now.

    Client ids say nothing: a group keeps that of whoever had a place first. Before this process
    joined, others may be about to leave: only who has its name counts.
    """
    try:
        asked = admin.describe_consumer_groups([config.app.name], request_timeout=LOOK_SECONDS)
        members = asked[config.app.name].result().members
    except KafkaException:
        return []
    ours, me = (group.id, group.consumer.memberid()), clients.identity(config)
    return [
        member
        for member in members
        if member.member_id not in ours and (group.joined or member.group_instance_id == me)
    ]
