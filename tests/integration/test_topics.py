import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from core.settings import DAY_MS, Duration, SessionSettings
from streamer.errors import Refused
from streamer.kafka import topics
from streamer.kafka.identity import identity
from streamer.settings.sections import Config, TopicSettings

GAP_MS = 7 * DAY_MS


@pytest.fixture(scope="module")
def admin(kafka: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka})


@pytest.fixture
def names() -> TopicSettings:
    run = uuid.uuid4().hex[:8]
    return TopicSettings(
        clicks=f"{run}.clicks",
        items=f"{run}.items",
        item_vectors=f"{run}.item-vectors",
        model_state=f"{run}.model-state",
        transitions=f"{run}.transitions",
        dead_letters=f"{run}.clicks.dlq",
        partitions=2,
    )


def of(names: TopicSettings) -> Config:
    return Config(topics=names, session=SessionSettings(gap=Duration(GAP_MS)))


@pytest.fixture
def wanted(admin: AdminClient, names: TopicSettings) -> list[topics.TopicSpec]:
    """Specs of topics that exist and fit."""
    specs = topics.specs(of(names))
    topics.create(admin, specs)
    return specs


def wait_until(seen: Callable[[], bool]) -> None:
    """The broker learns of a change a moment after the controller has accepted it."""
    deadline = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < deadline, "the broker does not show the change"
        time.sleep(0.02)


def alter(admin: AdminClient, topic: str, setting: str, value: str) -> None:
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([change])[change].result()

    def seen() -> bool:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = admin.describe_configs([resource])[resource].result()
        return bool(entries[setting].value == value)

    wait_until(seen)


def delete(admin: AdminClient, topic: str) -> None:
    admin.delete_topics([topic])[topic].result()
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics)


def add_partition(admin: AdminClient, topic: str) -> None:
    count = len(admin.list_topics(timeout=10).topics[topic].partitions) + 1
    admin.create_partitions([NewPartitions(topic, count)])[topic].result()
    wait_until(lambda: len(admin.list_topics(timeout=10).topics[topic].partitions) == count)


def test_created_topics_pass_the_check(admin: AdminClient, wanted: list[topics.TopicSpec]) -> None:
    assert topics.check(admin, wanted) == []


def test_create_makes_only_what_is_missing(admin: AdminClient, names: TopicSettings) -> None:
    specs = topics.specs(of(names))
    own = NewTopic(names.clicks, 5, 1, config={"retention.ms": "-1"})
    admin.create_topics([own])[names.clicks].result()
    wait_until(lambda: names.clicks in admin.list_topics(timeout=10).topics)

    first, second = topics.create(admin, specs), topics.create(admin, specs)

    assert sorted(first) == sorted(spec.name for spec in specs if spec.name != names.clicks)
    assert second == []
    assert topics.check(admin, specs) == []


def test_create_does_not_wait_for_a_topic_that_goes_meanwhile(
    admin: AdminClient, names: TopicSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = topics.specs(of(names))[:2]
    topics.create(admin, [one])
    describe = topics.describe

    def then_delete(client: AdminClient, asked: Iterable[str]) -> dict[str, TopicDescription]:
        monkeypatch.undo()
        seen = describe(client, asked)
        delete(admin, one.name)
        return seen

    monkeypatch.setattr(topics, "describe", then_delete)
    assert topics.create(admin, [one, other]) == [other.name]


@pytest.mark.parametrize(
    ("role", "setting", "value", "repaired"),
    [
        ("clicks", "cleanup.policy", "compact", "delete"),
        ("clicks", "cleanup.policy", "compact,delete", "delete"),
        ("transitions", "cleanup.policy", "compact", "delete"),
        ("dead_letters", "cleanup.policy", "compact", "delete"),
        ("items", "cleanup.policy", "compact,delete", "compact"),
        ("item_vectors", "cleanup.policy", "delete", "compact"),
        ("model_state", "cleanup.policy", "compact,delete", "compact"),
        ("clicks", "retention.ms", str(GAP_MS), str(GAP_MS + DAY_MS)),
        ("clicks", "retention.bytes", "1000000000", "-1"),
        ("transitions", "retention.ms", str(DAY_MS), str(7 * DAY_MS)),
        ("transitions", "retention.bytes", "1000000000", "-1"),
        ("model_state", "segment.bytes", "1073741824", str(16 * 2**20)),
        ("model_state", "delete.retention.ms", "3600000", str(DAY_MS)),
        ("model_state", "max.message.bytes", "10000", "1000000"),
        ("model_state", "min.insync.replicas", "3", "1"),
    ],
)
def test_a_wrong_setting_is_named_and_the_proposed_value_repairs_it(
    admin: AdminClient,
    names: TopicSettings,
    wanted: list[topics.TopicSpec],
    role: str,
    setting: str,
    value: str,
    repaired: str,
) -> None:
    topic = getattr(names, role)
    alter(admin, topic, setting, value)

    [sentence] = topics.check(admin, wanted)
    assert f"topic {topic}: {setting} is" in sentence
    assert f"--entity-name {topic} --add-config {setting}={repaired}" in sentence

    alter(admin, topic, setting, repaired)
    assert topics.check(admin, wanted) == []


@pytest.mark.parametrize("retention", ["-1", str(GAP_MS + DAY_MS)])
def test_clicks_kept_for_a_session_and_a_day_or_for_ever_are_enough(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec], retention: str
) -> None:
    alter(admin, names.clicks, "retention.ms", retention)
    assert topics.check(admin, wanted) == []


def test_a_missing_topic_is_named(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec]
) -> None:
    delete(admin, names.item_vectors)
    [sentence] = topics.check(admin, wanted)
    assert f"topic {names.item_vectors} does not exist" in sentence


def test_too_few_replicas_are_named(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec]
) -> None:
    safer = topics.specs(of(replace(names, replication=3, min_insync_replicas=2)))
    sentences = topics.check(admin, safer)
    for spec in wanted:
        assert any(f"topic {spec.name}: it has 1 replicas, wanted 3" in s for s in sentences)


def test_identity_stays_while_the_topics_live(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec]
) -> None:
    first = identity(admin, of(names)).ids
    alter(admin, names.clicks, "retention.ms", "-1")
    assert identity(admin, of(names)).ids == first
    assert len(set(first.values())) == len(first) == 7


def test_identity_changes_only_for_a_topic_that_was_created_again(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec]
) -> None:
    before = identity(admin, of(names)).ids
    delete(admin, names.model_state)
    topics.create(admin, wanted)
    after = identity(admin, of(names)).ids
    assert {role for role in before if before[role] != after[role]} == {"model_state"}


def test_identity_refuses_a_missing_topic(
    admin: AdminClient, names: TopicSettings, wanted: list[topics.TopicSpec]
) -> None:
    delete(admin, names.items)
    with pytest.raises(Refused, match=names.items):
        identity(admin, of(names))
