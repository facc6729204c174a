import json
import time
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
)

from streamer.demo.shop import Shop
from streamer.errors import ConfigError, Refused
from streamer.inspect import check_topic, topic_report
from streamer.kafka import clients
from streamer.settings import load as config
from streamer.settings.sections import Config
from tests.integration.test_foreign_topic import CLICKS, avro, foreign, registry

PARTITIONS = 3


class Topic:
    """A topic of its own, and what `check-topic` says of it."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.name = f"foreign-{uuid.uuid4().hex[:8]}"
        self.servers, self.folder = servers, folder
        self.admin = AdminClient({"bootstrap.servers": servers})
        for made in self.admin.create_topics([NewTopic(self.name, PARTITIONS, 1)]).values():
            made.result()

    def config(
        self, settings: Mapping[str, object] | None = None, file: Path | None = None
    ) -> Config:
        given: dict[str, object] = {"kafka.bootstrap.servers": self.servers, "app.name": self.name}
        given |= settings or {}
        overrides = [f"{key}={value}" for key, value in given.items()]
        return config.load(file or self.folder / "none.toml", overrides, {})

    def send(self, records: Sequence[tuple[bytes | None, bytes | None]], **how: Any) -> None:
        producer = Producer({"bootstrap.servers": self.servers})
        for key, value in records:
            producer.produce(self.name, value, key, **how)
        assert producer.flush(30) == 0

    def report(
        self,
        capsys: pytest.CaptureFixture[str],
        settings: Mapping[str, object] | None = None,
        sample: int = 1000,
    ) -> topic_report.Report:
        capsys.readouterr()
        check_topic.run(self.config(settings), self.name, sample, True)
        return msgspec.json.decode(capsys.readouterr().out, type=topic_report.Report)

    def as_pasted(self, settings: str) -> Config:
        """The configuration of somebody who has pasted the lines."""
        file = self.folder / "pasted.toml"
        file.write_text(settings)
        return self.config(file=file)


@pytest.fixture
def topic(kafka: str, tmp_path: Path) -> Topic:
    (tmp_path / "none.toml").write_text("")
    return Topic(kafka, tmp_path)


def key(click: dict[str, Any]) -> bytes:
    return str(click["user_id"]).encode()


def own(n: int) -> list[dict[str, Any]]:
    """Clicks as Walkstream has them by default, of just now."""
    return list(islice(Shop(2, users=40).clicks(int(time.time() * 1000) - 600_000), n))


def test_foreign_names_and_seconds_become_settings_that_read_every_click(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), json.dumps(foreign(c)).encode()) for c in CLICKS])
    found = topic.report(capsys)
    assert (found.records, found.clicks, found.bad) == (1000, 1000, 0)
    assert found.forms == {"JSON object": 1000}
    pasted = topic.as_pasted(found.settings)
    assert pasted.topics.clicks == topic.name
    assert (pasted.clicks.format, pasted.clicks.time_unit) == ("json", "s")
    assert pasted.clicks.fields == {
        "user_id": "visitor.id", "item_id": "product.sku", "ts": "occurredAt",
        "event_type": "action", "weight": "", "event_id": "event_id",
    }  # fmt: skip
    assert pasted.events.weights["page_view"] == 1.0
    # With these lines in force there is nothing left to guess, and the same lines come out.
    capsys.readouterr()
    check_topic.run(pasted, topic.name, 1000, True)
    again = msgspec.json.decode(capsys.readouterr().out, type=topic_report.Report)
    assert tomllib.loads(again.settings) == tomllib.loads(found.settings)
    assert again.sources["user_id"].why == "as configured"


def test_people_get_a_report_and_the_lines_to_paste_go_to_standard_output_alone(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [(key(c), json.dumps(foreign(c)).encode()) for c in CLICKS[:200]]
    topic.send([*records, (b"k", b"{broken"), (b"k", None)])
    found = topic.report(capsys)
    check_topic.run(topic.config(), topic.name, 1000, False)
    told = capsys.readouterr()
    assert told.out == f"{found.settings}\n"
    out = told.err
    for text in (
        topic.name,
        "occurredAt",
        "ts in s",
        "200 of 202 clicks",
        "undecodable",
        "{broken",
    ):
        assert text in out


def test_a_topic_of_walkstreams_own_form_needs_only_its_name(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), json.dumps(c).encode()) for c in own(300)])
    found = topic.report(capsys)
    assert found.settings == f'[topics]\nclicks = "{topic.name}"'
    assert (found.clicks, found.users_in_several_partitions) == (300, 0)
    assert (found.warnings, found.suspicions) == ([], [])


def test_lines_of_json_are_read_click_by_click(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = [json.dumps(c).encode() for c in own(300)]
    packs = [(b"k", b"\n".join(clicks[at : at + 5])) for at in range(0, 300, 5)]
    topic.send([*packs, (b"k", clicks[0] + b"\n{broken\n" + clicks[1])])
    found = topic.report(capsys)
    assert found.forms == {"JSON objects, one a line": 61}
    assert (found.clicks, found.bad) == (302, 1)
    assert found.unused["undecodable"].where.endswith(", click 1")


def test_messagepack_is_told_from_json(topic: Topic, capsys: pytest.CaptureFixture[str]) -> None:
    topic.send([(key(c), msgspec.msgpack.encode(c)) for c in own(300)])
    found = topic.report(capsys)
    assert found.forms == {"MessagePack map": 300}
    assert found.clicks == 300
    assert topic.as_pasted(found.settings).clicks.format == "msgpack"


def test_avro_without_a_registry_is_recognised_and_refused(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), avro(foreign(c))) for c in CLICKS[:50]])
    with pytest.raises(Refused, match="no click was understood in 50 records") as refused:
        check_topic.run(topic.config(), topic.name, 1000, True)
    assert refused.value.exit_code == 3
    found = msgspec.json.decode(capsys.readouterr().out, type=topic_report.Report)
    assert found.forms == {"binary in the Confluent wire format": 50}
    assert any("registry.url" in warning for warning in found.warnings)
    assert 'format = "avro"' in found.settings
    assert "# url = ...  # of your schema registry" in found.settings


def test_avro_with_a_registry_is_understood(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), avro(foreign(c))) for c in CLICKS[:200]])
    with registry() as url:
        found = topic.report(capsys, {"registry.url": url})
    assert (found.clicks, found.bad) == (200, 0)
    pasted = topic.as_pasted(found.settings)
    assert (pasted.clicks.format, pasted.registry) == ("avro", {"url": url})
    assert pasted.clicks.fields["user_id"] == "visitor.id"


def test_users_that_are_scattered_over_partitions_are_told_of(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(None, json.dumps(c).encode()) for c in own(20)], partition=0)
    topic.send([(None, json.dumps(c).encode()) for c in own(20)], partition=2)
    found = topic.report(capsys)
    assert found.users_in_several_partitions == found.users > 5
    assert any("set the key of a record to its user" in warning for warning in found.warnings)


def test_lines_that_are_pasted_below_the_same_section_say_what_to_do(topic: Topic) -> None:
    for lines, section in (
        ('[topics]\nclicks = "a"\n[topics]\nitems = "b"', "topics"),
        ("[clicks.fields]\nts = 'a'\n[clicks.fields]\nitem_id = 'b'", "clicks.fields"),
    ):
        with pytest.raises(ConfigError, match=rf"section \[{section}\] is there twice: merge"):
            topic.as_pasted(lines)
    with pytest.raises(ConfigError) as other:
        topic.as_pasted("[topics")
    assert "merge" not in str(other.value)


def test_types_without_items_are_left_out_and_too_many_dead_letters_are_told_of(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    types = ["view", "heartbeat", "scroll", "search"]
    events = [c | {"event_type": types[at % 4]} for at, c in enumerate(own(400))]
    for event in events:
        if event["event_type"] != "view":
            del event["item_id"]
    topic.send([(key(e), json.dumps(e).encode()) for e in events])
    found = topic.report(capsys)
    weights = tomllib.loads(found.settings)["events"]["weights"]
    assert weights == {"heartbeat": 0.0, "scroll": 0.0, "search": 0.0}
    assert found.event_types["scroll"].note == "100% have no item: 0 leaves it out"
    assert (found.clicks, found.bad, found.unwanted) == (100, 0, 300)
    assert not any("dead letters" in warning for warning in found.warnings)

    kept = topic.report(capsys, {"events.weights.scroll": 2})
    (warning,) = [one for one in kept.warnings if "dead letters" in one]
    assert "25% would be dead letters" in warning
    assert "dlq.alarm_ratio" in warning
    assert "bad_field, such as: item_id is missing" in warning
    calm = topic.report(capsys, {"events.weights.scroll": 2, "dlq.alarm_ratio": 0.3})
    assert not any("dead letters" in warning for warning in calm.warnings)


def test_a_topic_without_event_types_is_told_of(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = own(50)
    for click in clicks:
        del click["event_type"]
    topic.send([(key(c), json.dumps(c).encode()) for c in clicks])
    assert any("every click counts as a click" in one for one in topic.report(capsys).warnings)
    settled = topic.report(capsys, {"clicks.fields.event_type": ""})
    assert not any("event type" in one for one in settled.warnings)


def test_orders_with_items_in_an_array_are_a_click_of_each(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = [
        {
            "customer_id": c["user_id"], "ts": c["ts"], "order_id": f"o{at}",
            "lines": [{"sku": c["item_id"], "qty": 1}, {"sku": f"s{at % 9}"}],
        }
        for at, c in enumerate(own(100))
    ]  # fmt: skip
    topic.send([(None, json.dumps(order).encode()) for order in orders])
    found = topic.report(capsys)
    assert (found.clicks, found.bad) == (200, 0)
    fields = topic.as_pasted(found.settings).clicks.fields
    assert (fields["item_id"], fields["user_id"]) == ("lines[].sku", "customer_id")


def test_the_last_records_are_taken_from_all_partitions(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = [json.dumps(c | {"item_id": at}).encode() for at, c in enumerate(own(500))]
    topic.send([(None, value) for value in clicks[:10]], partition=0)
    topic.send([(None, value) for value in clicks[10:]], partition=2)
    found = topic.report(capsys, sample=100)
    assert found.records == 100
    items = next(one for one in found.fields if one.path == "item_id")
    assert items.distinct == 100
    seen = topic.report(capsys, sample=3)
    assert seen.records == 3


def test_an_open_transaction_does_not_keep_it_waiting(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), json.dumps(c).encode()) for c in own(50)], partition=1)
    options = {"bootstrap.servers": topic.servers, "transactional.id": topic.name}
    producer = Producer(options)
    producer.init_transactions(30)
    producer.begin_transaction()
    for click in own(10):
        producer.produce(topic.name, json.dumps(click).encode(), partition=1)
    producer.flush(30)
    found = topic.report(capsys)
    producer.abort_transaction(30)
    assert found.clicks == 50


def test_nothing_is_joined_committed_or_created(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send([(key(c), json.dumps(c).encode()) for c in own(50)])
    topic.report(capsys)
    groups = topic.admin.list_consumer_groups().result().valid
    assert not [group.group_id for group in groups if group.group_id.startswith(topic.name)]
    typo = f"{topic.name}x"
    with pytest.raises(Refused, match=f"there is no such topic.*did you mean {topic.name}"):
        check_topic.run(topic.config(), typo, 1000, True)
    assert typo not in clients.admin(topic.config()).list_topics(timeout=10).topics


def test_an_empty_topic_is_refused(topic: Topic) -> None:
    with pytest.raises(Refused, match="no records"):
        check_topic.run(topic.config(), topic.name, 1000, True)
