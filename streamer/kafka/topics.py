"""The topics: how they are created, and what they must be like."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from core.settings import DAY_MS, Duration
from streamer.errors import WalkstreamError
from streamer.kafka.failures import FORBIDDEN, Forbidden
from streamer.settings.load import spelled
from streamer.settings.sections import Config

DELETE_RETENTION_MS = DAY_MS
"""Tombstones stay at least this long. A store away for longer may have missed some."""

HOUR_MS = 3_600_000
KEPT_MS = 7 * DAY_MS
"""How long new topics keep clicks and evidence at least."""

MAX_SEGMENT_BYTES = 64 * 2**20
"""The cleaner never touches the segment being written: a larger one is never compacted at all."""

MIN_MESSAGE_BYTES = 1_000_000
"""A producer fills batches up to this size (its `message.max.bytes`), and they must be accepted."""

REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Limit:
    """A numeric setting that an existing topic may have otherwise, as long as `holds` is true."""

    setting: str
    wanted: str
    """The bound in words."""
    value: int
    """What a new topic gets, and what a repair proposes."""
    holds: Callable[[int], bool]
    reason: str
    otherwise: Callable[[int], str] = lambda value: ""
    """What else there is to do about a value that does not hold."""
    is_advice: bool = False
    """A worker starts without it too, and brokers of old do not know the setting."""


@dataclass(frozen=True)
class TopicSpec:
    """One topic: what it is created with, and what an existing one is held against."""

    name: str
    partitions: int
    replication: int
    min_insync_replicas: int
    cleanup: str
    limits: tuple[Limit, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    """Further settings of a new topic, free to be changed later."""

    def new(self, with_advice: bool = True) -> NewTopic:
        """The request that creates it."""
        limits = [limit for limit in self.limits if with_advice or not limit.is_advice]
        config = {
            "cleanup.policy": self.cleanup,
            "min.insync.replicas": str(self.min_insync_replicas),
            **{limit.setting: str(limit.value) for limit in limits},
            **self.config,
        }
        return NewTopic(self.name, self.partitions, self.replication, config=config)


def _at_least(setting: str, least: int, reason: str) -> Limit:
    return Limit(setting, f"at least {least}", least, lambda value: value >= least, reason)


def specs(config: Config, had_users: bool = False) -> list[TopicSpec]:
    """What the topics should be like. That of the vectors of users is one of them only where there
    are such vectors, or were."""
    topics, has_users = config.topics, config.has_users or had_users
    least = int(config.session.gap) + DAY_MS
    kept = Limit(
        "retention.ms",
        f"-1 or at least {least} ({spelled(Duration(least))})",
        max(KEPT_MS, least),
        lambda value: value == -1 or value >= least,
        "a worker that stood still must find what came meanwhile: keep it for as long as the "
        f"longest outage, a day at least, better {spelled(Duration(KEPT_MS))}",
    )
    swept = Limit(
        "retention.ms",
        f"-1 or at least {2 * DAY_MS} (2d)",
        KEPT_MS,
        lambda value: value == -1 or value >= 2 * DAY_MS,
        "a lost state folder is made anew from what two sweeps of the graph and the longest outage "
        f"take, two days at least, better {spelled(Duration(KEPT_MS))}",
    )
    unlimited = Limit(
        "retention.bytes",
        "-1",
        -1,
        lambda value: value == -1,
        "what no worker has read must stay, however much it is",
    )
    ahead = Limit(
        "message.timestamp.after.max.ms",
        f"at most {DAY_MS} (1d)",
        HOUR_MS,
        lambda value: value <= DAY_MS,
        "the broker then refuses what is dated ahead, before a worker has to judge it by "
        "clicks.max_ahead",
        is_advice=True,
    )
    segments = Limit(
        "segment.bytes",
        f"at most {MAX_SEGMENT_BYTES}",
        MAX_SEGMENT_BYTES // 4,
        lambda value: value <= MAX_SEGMENT_BYTES,
        "the segment being written is never compacted, and a new worker reads it whole",
    )
    tombstones = _at_least(
        "delete.retention.ms",
        DELETE_RETENTION_MS,
        "a worker that was away must still find the tombstones",
    )
    message = _at_least("max.message.bytes", MIN_MESSAGE_BYTES, "a producer's batch must fit")
    # A new worker reads all of model-state: at most a tenth of it shall be outdated rows.
    clean = {"min.cleanable.dirty.ratio": "0.1"}
    spec = partial(
        TopicSpec,
        partitions=topics.partitions,
        replication=topics.replication,
        min_insync_replicas=topics.min_insync_replicas,
    )
    return [
        spec(topics.clicks, cleanup="delete", limits=(kept, unlimited, ahead)),
        spec(topics.items, cleanup="compact", limits=(tombstones,)),
        spec(topics.item_vectors, cleanup="compact", limits=(message,)),
        spec(
            topics.model_state,
            cleanup="compact",
            limits=(message, tombstones, segments),
            config=clean,
        ),
        # There is one order in which everybody folds what happened.
        spec(
            topics.transitions,
            cleanup="delete",
            limits=(swept, unlimited, message),
            partitions=1,
        ),
        spec(topics.dead_letters, cleanup="delete", limits=(message,)),
        *([spec(topics.user_vectors, cleanup="compact", limits=(message, tombstones))] * has_users),
    ]


def create(admin: AdminClient, specs: Iterable[TopicSpec]) -> list[str]:
    """Creates the topics that are missing, and returns their names once all can be described.

    Existing topics stay as they are. Raises WalkstreamError when the cluster refuses one.
    """
    specs = list(specs)
    there = describe(admin, [spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in there]
    created = []
    if missing:
        # Checked before any is made, so that none is made where one of them is refused.
        checked = admin.create_topics(
            [spec.new() for spec in missing], request_timeout=REQUEST_SECONDS, validate_only=True
        )
        # Brokers before 3.6 do not know what is only advice.
        old = {name for name, future in checked.items() if _code(future) == _UNKNOWN_SETTING}
        for name in checked.keys() - old:
            _unless(checked[name], KafkaError.TOPIC_ALREADY_EXISTS, f"create topic {name}")
        futures = admin.create_topics(
            [spec.new(spec.name not in old) for spec in missing], request_timeout=REQUEST_SECONDS
        )
        for name, future in futures.items():
            if _unless(future, KafkaError.TOPIC_ALREADY_EXISTS, f"create topic {name}")[1]:
                created.append(name)
    # Brokers learn of a new topic a moment after the controller has agreed to it. One that was
    # there may go meanwhile, if it is being deleted: it is not waited for.
    names = [spec.name for spec in missing]
    deadline = time.monotonic() + REQUEST_SECONDS
    while len(describe(admin, names)) < len(names):
        if time.monotonic() > deadline:
            raise WalkstreamError(
                f"topics {names} were created but brokers do not show all of them after "
                f"{REQUEST_SECONDS:g} s: look at the health of the Kafka controller, then try again"
            )
        time.sleep(0.1)
    return created


def recreate(admin: AdminClient, specs: Iterable[TopicSpec]) -> None:
    """Deletes those topics that exist, and creates all of them, empty.

    Partitions and replicas stay as many as they were; settings become those of `specs`. Raises
    WalkstreamError when the cluster refuses, or still shows an old topic after a while.
    """
    specs = list(specs)
    old = describe(admin, [spec.name for spec in specs])
    new = [_as_large_as(spec, old[spec.name]) if spec.name in old else spec for spec in specs]
    if old:
        futures = admin.delete_topics(list(old), request_timeout=REQUEST_SECONDS)
        for name, future in futures.items():
            _unless(future, KafkaError.UNKNOWN_TOPIC_OR_PART, f"delete topic {name}")
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        # A broker that has not heard of the deletion still shows the old topic, under its old id.
        create(admin, new)
        there = describe(admin, [spec.name for spec in specs])
        late = [n for n, was in old.items() if n in there and there[n].topic_id == was.topic_id]
        if not late and len(there) == len(specs):
            return
        if time.monotonic() > deadline:
            raise WalkstreamError(
                f"topics {late} were deleted, but brokers still show them after "
                f"{REQUEST_SECONDS:g} s: look at the health of the Kafka controller, then do it "
                "again"
            )
        time.sleep(0.2)


def _as_large_as(spec: TopicSpec, there: TopicDescription) -> TopicSpec:
    replicas = min(len(partition.replicas) for partition in there.partitions)
    return replace(spec, partitions=len(there.partitions), replication=replicas)


def check(admin: AdminClient, specs: Iterable[TopicSpec], with_advice: bool = False) -> list[str]:
    """Every way in which the topics differ from `specs`, as sentences; empty when they fit.

    `with_advice`, also those that a worker does without.

    Raises WalkstreamError when the cluster does not answer or forbids the question.
    """
    specs = list(specs)
    there = describe(admin, [spec.name for spec in specs])
    configs = _configs(admin, there)
    wrong: list[str] = []
    for spec in specs:
        if spec.name in there:
            wrong += _config_mismatches(spec, configs[spec.name], with_advice)
            wrong += _layout_mismatches(spec, there[spec.name], configs[spec.name])
        else:
            wrong.append(
                f"topic {spec.name} does not exist: run `walkstream topics create`, or name the "
                "right topic in section [topics]"
            )
    return wrong


def cluster_id(admin: AdminClient) -> str:
    """The id of the cluster. Raises WalkstreamError when it does not answer or forbids it."""
    asked = admin.describe_cluster(request_timeout=REQUEST_SECONDS)
    return str(_result(asked, "ask for cluster id").cluster_id)


def _config_mismatches(
    spec: TopicSpec, config: Mapping[str, str], with_advice: bool
) -> Iterable[str]:
    cleanup = config["cleanup.policy"]
    if cleanup != spec.cleanup:
        loss = "rows" if spec.cleanup == "compact" else "records that share a key"
        yield (
            f"topic {spec.name}: cleanup.policy is {cleanup}, wanted {spec.cleanup}, or {loss} "
            f"would be lost. {_alter(spec.name, 'cleanup.policy', spec.cleanup)}"
        )
    # Where the broker stamps records, no producer can date them.
    stamped = config.get("message.timestamp.type") == "LogAppendTime"
    for limit in spec.limits:
        if limit.is_advice and (not with_advice or stamped or limit.setting not in config):
            continue
        value = config[limit.setting]
        if not limit.holds(int(value)):
            yield (
                f"topic {spec.name}: {limit.setting} is {value}, wanted {limit.wanted}, because "
                f"{limit.reason}. {_alter(spec.name, limit.setting, limit.value)}"
                + (f".{ways}" if (ways := limit.otherwise(int(value))) else "")
            )


def _layout_mismatches(
    spec: TopicSpec, there: TopicDescription, config: Mapping[str, str]
) -> Iterable[str]:
    replicas = min(len(partition.replicas) for partition in there.partitions)
    insync = int(config["min.insync.replicas"])
    if replicas < spec.replication:
        yield (
            f"topic {spec.name}: it has {replicas} replicas, wanted {spec.replication}. Add them "
            "with kafka-reassign-partitions, or lower topics.replication"
        )
    if insync > replicas:
        yield (
            f"topic {spec.name}: min.insync.replicas is {insync}, more than its {replicas} "
            f"replicas, so every write fails. {_alter(spec.name, 'min.insync.replicas', replicas)}"
        )
    elif insync < spec.min_insync_replicas:
        wanted = spec.min_insync_replicas
        yield (
            f"topic {spec.name}: min.insync.replicas is {insync}, wanted at least {wanted}. "
            f"{_alter(spec.name, 'min.insync.replicas', wanted)}"
        )


def _alter(topic: str, setting: str, value: object) -> str:
    # kafka-configs takes a value with commas in brackets only; none of ours has one.
    return (
        "Change it: kafka-configs --bootstrap-server ... --alter --entity-type topics "
        f"--entity-name {topic} --add-config {setting}={value}"
    )


def describe(admin: AdminClient, names: Iterable[str]) -> dict[str, TopicDescription]:
    """Descriptions of those topics that exist, by name."""
    futures = admin.describe_topics(
        TopicCollection(sorted(set(names))), request_timeout=REQUEST_SECONDS
    )
    asked = {
        name: _unless(future, KafkaError.UNKNOWN_TOPIC_OR_PART, f"describe topic {name}")
        for name, future in futures.items()
    }
    return {name: description for name, (description, exists) in asked.items() if exists}


def _configs(admin: AdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Settings in force of existing topics, the brokers' defaults included."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    futures = admin.describe_configs(resources, request_timeout=REQUEST_SECONDS)
    return {
        resource.name: {
            entry.name: entry.value
            for entry in _result(future, f"read the settings of topic {resource.name}").values()
        }
        for resource, future in futures.items()
    }


def _result(future: "Future[Any]", what: str) -> Any:
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() in FORBIDDEN:
            raise Forbidden(error.args[0], f"cannot {what}") from error
        raise WalkstreamError(
            f"cannot {what}: {error.args[0].str()}. Look at the [kafka] settings and at the brokers"
        ) from error


_UNKNOWN_SETTING = KafkaError.INVALID_CONFIG


def _code(future: "Future[Any]") -> int | None:
    """The code of the error that the cluster answered with, if it did."""
    error = future.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _unless(future: "Future[Any]", code: int, what: str) -> tuple[Any, bool]:
    """The result and True, or None and False if the cluster answered with error `code`."""
    if _code(future) == code:
        return None, False
    return _result(future, what), True
