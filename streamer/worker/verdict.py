"""Why a worker ends when Kafka fails: a look at topics and group, as one error has many causes.

A worker whose session ended may have been frozen, or another has its place; a transaction that
never ends is that of a slow broker, or of a topic that somebody deleted. Exit code 4 keeps a
supervisor from starting the worker again, so it needs another process that was really seen.
"""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamer.errors import Fenced, KafkaTrouble, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.identity import Watch
from streamer.settings.sections import Config
from streamer.worker.group import Group

LOOK_SECONDS = 5.0
"""How long brokers have to answer. What frozen ones know is not worth more."""


def of(
    trouble: KafkaTrouble | Fenced, config: Config, watch: Watch, group: Group
) -> WalkstreamError:
    """What the worker ends with, which says what happened, and what to do."""
    try:
        admin = AdminClient(clients.COMMON | config.kafka)
        admin.list_topics(timeout=LOOK_SECONDS)
    except KafkaException:
        return KafkaTrouble(
            f"{trouble}. No broker answers now ({config.kafka.get('bootstrap.servers')}): look "
            "whether they run. Nothing is lost: started again, the worker goes on from its last "
            "commit as soon as they do"
        )
    if (changed := watch.explain()) is not None:
        return changed
    others = _others(admin, config, group)
    if isinstance(trouble, Fenced) and others != []:
        return trouble
    if others:
        return Fenced(
            f"{trouble}. Another process is in group {config.app.name} by now: "
            f"{', '.join(others)}. One worker runs for an app.name, and each has an app.instance "
            "of its own: stop one of the two, and start this one only if it is the one that stays"
        )
    return KafkaTrouble(
        f"{trouble}. No other process has its place in group {config.app.name}, and nothing is "
        "lost: started again, the worker goes on from its last commit"
    )


def _others(admin: AdminClient, config: Config, group: Group) -> list[str] | None:
    """Members of the group that are not this process; None if that cannot be learned now.

    Client ids say nothing: a group keeps that of whoever had a place first.
    """
    try:
        asked = admin.describe_consumer_groups([config.app.name], request_timeout=LOOK_SECONDS)
        members = asked[config.app.name].result().members
    except KafkaException:
        return None
    ours = (group.id, group.consumer.memberid())
    return [
        f"{m.group_instance_id or m.member_id} on {m.host}"
        for m in members
        if m.member_id not in ours
    ]
