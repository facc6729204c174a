"""What each command must be allowed on a cluster that asks, and which of it is missing.

Asked before a command begins, so that none stops half-way: a worker would learn only at its first
dead letter that it may not write one, and `reset --topics` only after it had deleted.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from streamer.errors import Refused
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS
from streamer.kafka.failures import FORBIDDEN, Forbidden, failure, kafka_error
from streamer.settings.sections import Config

TOPIC, GROUP, TRANSACTIONAL_ID = "topic", "group", "transactional id"


class Right(NamedTuple):
    """An operation, as `kafka-acls` spells it, on a resource."""

    operation: str
    resource: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "worker": {
        "Read": (
            *("topics.clicks", "topics.items", "topics.model_state", "topics.transitions"),
            *("topics.item_vectors", "topics.dead_letters", "topics.user_vectors"),
        ),
        "Write": (
            *("topics.item_vectors", "topics.model_state", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "DescribeConfigs": ("topics.*",),
        "Read group": ("app.name",),
        "Describe group": ("app.name-tail",),
        "Write transactional id": ("app.name-app.instance",),
    },
    "worker --dry-run": {
        "Read": ("topics.clicks", "topics.model_state"),
        "Describe": (
            *("topics.items", "topics.item_vectors", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "DescribeConfigs": ("topics.*",),
        "Describe group": ("app.name", "app.name-tail"),
    },
    "publish": {"Write": ("topics.clicks",)},
    "publish --items": {"Write": ("topics.items",)},
    "publish --synthetic": {"Write": ("topics.clicks", "topics.items")},
    "topics create": {"Create": ("topics.*",), "Describe": ("topics.*",)},
    "topics check": {
        "Describe": (
            *("topics.clicks", "topics.items", "topics.item_vectors", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "Read": ("topics.model_state",),
        "DescribeConfigs": ("topics.*",),
        "Describe group": ("app.name-tail",),
    },
    "check-topic": {
        "Read": ("topics.clicks",),
        "Describe group": ("app.name-tail",),
    },
    "cluster": {
        "Read": ("topics.model_state",),
        "Describe": ("topics.clicks", "topics.transitions"),
        "Describe group": ("app.name", "app.name-tail"),
    },
    "export": {
        "Read": ("topics.item_vectors",),
        "Describe group": ("app.name-tail",),
    },
    "dlq list": {"Read": ("topics.dead_letters",), "Describe group": ("app.name-tail",)},
    "dlq replay": {
        "Read": ("topics.dead_letters",),
        "Write": ("topics.clicks", "topics.items"),
        "Describe group": ("app.name-tail",),
        "Write transactional id": ("app.name-",),
    },
    "forget": {"Write": ("topics.model_state",)},
    "forget --undo": {
        "Read": ("topics.model_state",),
        "Write": ("topics.model_state",),
        "Describe group": ("app.name-tail",),
    },
    "major": {
        "Read": ("topics.model_state",),
        "Write": ("topics.model_state",),
        "Describe group": ("app.name", "app.name-tail"),
    },
    "hand-over": {
        "Read": (
            *("topics.item_vectors", "topics.model_state", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "Write": ("topics.model_state",),
        "Describe": ("topics.clicks", "topics.items"),
        "Describe group": ("app.name", "app.name-tail"),
        "Write transactional id": ("app.name-app.instance",),
    },
    "reset --topics": {
        "Read": ("topics.model_state",),
        "Describe group": ("app.name-tail",),
        "Write": ("topics.model_state",),
        "Delete": (
            *("topics.item_vectors", "topics.model_state", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "Create": (
            *("topics.item_vectors", "topics.model_state", "topics.transitions"),
            *("topics.dead_letters", "topics.user_vectors"),
        ),
        "Delete group": ("app.name",),
    },
}
"""By command and operation (on a topic, if nothing else is said) the names of the resources, as
the settings that name them. README shows it, and a test takes each entry away in turn."""


def needs(config: Config, command: str) -> list[Right]:
    """What a command must be allowed."""
    out = []
    for what, names in TABLE[command].items():
        operation, _, resource = what.partition(" ")
        if operation == "DescribeConfigs" and not config.topics.check:
            continue
        for name in names:
            named = _names(config, name)
            out += [Right(operation, resource or TOPIC, one) for one in named]
    return out


def _names(config: Config, name: str) -> list[str]:
    if name == "topics.*":
        topics = config.topics
        return [
            *(topics.clicks, topics.items, topics.item_vectors, topics.model_state),
            *(topics.transitions, topics.dead_letters),
            *([topics.user_vectors] * config.has_users),
        ]
    if name == "topics.user_vectors" and not config.has_users:
        return []
    if name.startswith("topics."):
        return [str(getattr(config.topics, name.removeprefix("topics.")))]
    return [name.replace("app.name", config.app.name).replace("app.instance", config.app.instance)]


@contextmanager
def allowed(config: Config, command: str, ask: bool = True) -> Iterator[AdminClient]:
    """An admin client, for a command that may do what it must.

    Refused with what is missing: before the block unless `ask` is false, and for what is taken
    away meanwhile.
    """
    admin = clients.admin(config)
    wanted = needs(config, command)
    if ask:
        require(admin, command, wanted)
    try:
        yield admin
    except (Forbidden, KafkaException, SystemError) as error:
        told = kafka_error(error)
        kind = None if told is None else FORBIDDEN.get(told.code())
        if isinstance(error, Forbidden):
            kind = error.resource
        if kind is None:
            raise
        # Nobody can ask about transactional ids: of these the refusal itself is the answer.
        unsure = [right for right in wanted if right.resource == kind == TRANSACTIONAL_ID]
        if lacking := missing(admin, wanted) or unsure:
            raise Refused(_told(command, lacking)) from error
        if told is None:
            raise
        raise failure(told, command) from error


def require(admin: AdminClient, command: str, wanted: Sequence[Right]) -> None:
    """Refused if any of these rights is missing."""
    if lacking := missing(admin, wanted):
        raise Refused(_told(command, lacking))


def missing(admin: AdminClient, wanted: Iterable[Right]) -> list[Right]:
    """Those of the rights that the cluster says are not there.

    Not asked: transactional ids, and what a cluster does not tell.
    """
    wanted = list(wanted)
    held: dict[tuple[str, str], set[str] | None] = {}
    if topics := _named(wanted, TOPIC):
        asked = TopicCollection(topics)
        described = admin.describe_topics(
            asked, include_authorized_operations=True, request_timeout=CALL_SECONDS
        )
        held |= {(TOPIC, name): _operations(future) for name, future in described.items()}
    if groups := _named(wanted, GROUP):
        found = admin.describe_consumer_groups(
            groups, include_authorized_operations=True, request_timeout=CALL_SECONDS
        )
        held |= {(GROUP, name): _operations(future) for name, future in found.items()}
    # Create may be held for the whole cluster: only a request, which creates nothing, tells.
    refused = _refused_to_create(admin, _named(wanted, TOPIC, "Create"))
    # Who may not see a topic may be allowed to read its settings all the same.
    unseen = [
        name for name in _named(wanted, TOPIC, "DescribeConfigs") if held[TOPIC, name] == set()
    ]
    refused |= _refused_to_describe_configs(admin, unseen)
    out = []
    for right in wanted:
        operations = held.get((right.resource, right.name))
        by_request = right.operation == "Create" or (
            right.operation == "DescribeConfigs" and right.name in unseen
        )
        if by_request:
            lacks = right in refused
        else:
            lacks = operations is not None and right.operation.upper() not in operations
        if lacks:
            out.append(right)
    return out


def _named(wanted: Iterable[Right], resource: str, operation: str | None = None) -> list[str]:
    return sorted(
        {r.name for r in wanted if r.resource == resource and operation in (None, r.operation)}
    )


def _refused_to_create(admin: AdminClient, names: list[str]) -> set[Right]:
    if not names:
        return set()
    asked = admin.create_topics(
        [NewTopic(name, 1) for name in names], validate_only=True, request_timeout=CALL_SECONDS
    )
    refused = {name for name, future in asked.items() if _is_forbidden(future.exception())}
    return {Right("Create", TOPIC, name) for name in refused}


def _refused_to_describe_configs(admin: AdminClient, names: list[str]) -> set[Right]:
    if not names:
        return set()
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=CALL_SECONDS
    )
    refused = {one.name for one, future in asked.items() if _is_forbidden(future.exception())}
    return {Right("DescribeConfigs", TOPIC, name) for name in refused}


def _operations(future: Any) -> set[str] | None:
    """What is allowed on something: nothing, if it may not be seen; None if that is not known."""
    error = future.exception()
    if error is None:
        told = future.result().authorized_operations
        return None if told is None else {one.name.replace("_", "") for one in told}
    if _is_forbidden(error):
        return set()
    if isinstance(error, KafkaException):
        # A topic that is not there, a coordinator that is not ready: not a matter of rights.
        return None
    raise error


def _is_forbidden(error: BaseException | None) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in FORBIDDEN


def _told(command: str, lacking: Sequence[Right]) -> str:
    return (
        f"{command}: the Kafka user of section [kafka] may not {'; '.join(map(str, lacking))}. "
        "Have it allowed (kafka-acls --add --allow-principal User:... --operation "
        f"{lacking[0].operation} --{lacking[0].resource.replace(' ', '-')} {lacking[0].name}); "
        "README lists what each command needs"
    )
