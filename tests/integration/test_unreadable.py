"""What no client can fetch is a dead letter, and what an open transaction holds back is told."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from streamer.kafka import unreadable
from streamer.kafka.members import other_members
from streamer.worker.reader import Reader
from tests import inside
from tests.folders import contents
from tests.support import START_MS, App, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 200))
MIB = 1024 * 1024
ZEROS = bytes(3 * MIB)
"""Some hundred bytes in the log, and more than `TIGHT` lets a client take."""
TIGHT: dict[str, object] = {
    "topics.partitions": 1,
    "commit.seconds": 0.2,
    "kafka.fetch.max.bytes": MIB,
    "kafka.receive.message.max.bytes": MIB + 1024,
}


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, TIGHT) as app:
        yield app


def send_batch(app: App, topic: str, values: list[tuple[bytes, bytes]]) -> None:
    """Send these in one batch, whatever their size."""
    producer = Producer(
        {
            "bootstrap.servers": app.servers, "compression.type": "zstd", "linger.ms": 1000,
            "message.max.bytes": 200 * MIB, "batch.size": 200 * MIB,
        }
    )  # fmt: skip
    for key, value in values:
        producer.produce(topic, value, key)
    assert producer.flush(60) == 0


def letters(app: App) -> list[dict[str, object]]:
    """Headers of the dead letters, and under `value` what they hold."""
    out: list[dict[str, object]] = []
    for message in app.read(app.config.topics.dead_letters):
        headers = dict(message.headers() or []).items()
        texts = {name: value.decode() for name, value in headers if isinstance(value, bytes)}
        out.append({**texts, "value": message.value()})
    return out


def publish_with_zeros(app: App) -> int:
    """100 clicks, a batch of two around what is too long, 98 clicks. Returns the end of the log."""
    app.publish(CLICKS[:100])
    send_batch(app, app.config.topics.clicks, [CLICKS[100], (b"zeros", ZEROS), CLICKS[101]])
    app.publish(CLICKS[102:])
    return 201


def test_what_cannot_be_fetched_is_a_dead_letter_and_reading_goes_on(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "ROOM", 2 * MIB)
    clicks, end = app.config.topics.clicks, publish_with_zeros(app)
    assert inside.run(app.config, {(clicks, 0): end}) == 198
    assert app.caught_up()
    (letter,) = letters(app)
    assert (letter["error.class"], letter["value"]) == ("unreadable", None)
    assert (letter["source.topic"], letter["source.partition"]) == (clicks, "0")
    assert letter["source.offset"] == "100"
    message = str(letter["error.message"])
    assert message.startswith(f"{clicks}[0]: offsets 100 to 102 cannot be fetched: Decompression")
    before = contents(app.config)
    # With another folder the clicks are folded again, those before and behind it.
    app.settings = {**app.settings, "state.dir": app.folder / "again"}
    assert inside.run(app.config, {(clicks, 0): end}) == 0
    assert contents(app.config).graph == before.graph
    assert len(letters(app)) == 1
    # To begin within the batch is to get past the rest of it.
    reader = Reader(app.config, app.admin, lambda: None)
    reader.begin({(clicks, 0): 101})
    stand_in, *_ = inside.until(lambda: reader.consume(10, 0.2))
    assert (stand_in.offset(), stand_in.error() is None) == (101, False)
    assert reader.after([stand_in]) == {(clicks, 0): 103}
    reader.close()


def test_good_records_beside_it_are_read_with_more_room(app: App) -> None:
    end = publish_with_zeros(app)
    assert inside.run(app.config, {(app.config.topics.clicks, 0): end}) == 200
    (letter,) = letters(app)
    assert (letter["error.class"], letter["source.offset"]) == ("oversized", "101")
    assert letter["source.bytes"] == str(len(ZEROS) + 5)


def test_150_mib_of_zeros_in_5_kb_stop_no_worker(kafka: str, tmp_path: Path) -> None:
    """With the settings that a user has."""
    with App(kafka, tmp_path, {"topics.partitions": 1, "commit.seconds": 0.2}) as app:
        app.publish(CLICKS[:100])
        send_batch(app, app.config.topics.clicks, [(b"zeros", bytes(150 * MIB))])
        app.publish(CLICKS[100:])
        app.run_to_end()
        (letter,) = letters(app)
        assert (letter["error.class"], letter["source.offset"]) == ("oversized", "100")
        assert sum(session[2] for session in contents(app.config).sessions.values()) > 0


def test_a_record_of_items_likewise(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unreadable, "ROOM", 2 * MIB)
    topic, item = app.config.topics.items, json.loads(CLICKS[0][1])["item_id"]
    first, last = (
        json.dumps({"item_id": name, "attributes": {"category": "a"}}).encode()
        for name in (item, "other")
    )
    app.describe([(str(item).encode(), first)])
    send_batch(app, topic, [(b"zeros", ZEROS)])
    app.describe([(b"other", last)])
    app.publish(CLICKS)
    assert inside.run(app.config, {(app.config.topics.clicks, 0): 200}, items=3) == 200
    (letter,) = letters(app)
    assert (letter["error.class"], letter["source.topic"]) == ("unreadable", topic)
    assert letter["source.offset"] == "1"
    assert contents(app.config).attributes.keys() == {str(item).encode(), b"other"}
    assert inside.run(app.config, {(app.config.topics.clicks, 0): 200}) == 0
    assert len(letters(app)) == 1


def test_none_of_model_state_may_be_missing(app: App) -> None:
    send_batch(app, app.config.topics.model_state, [(b"zeros", os.urandom(1024) + ZEROS)])
    with (
        pytest.raises(WalkstreamError, match=r"-model\[0\]: what is at offset 0 cannot be fetched"),
        inside.started(app.config, lambda worker: True),
    ):
        pass


@pytest.mark.parametrize("topic", ["items", "clicks"])
def test_a_worker_says_which_open_transaction_it_waits_for(app: App, topic: str) -> None:
    app.publish(CLICKS)
    app.run_to_end()
    name = getattr(app.config.topics, topic)
    producer = Producer({"bootstrap.servers": app.servers, "transactional.id": f"{app.name}-src"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, CLICKS[0][1], CLICKS[0][0], partition=0)
    producer.flush(10)
    # What is committed can be read: the worker runs, and waits in its loop.
    worker = app.worker().running()
    worker.until(lambda: f"{name}[0]: waiting for a producer's open" in worker.output, "a word")
    assert "15 min" in worker.output
    worker.stop()
    producer.abort_transaction(30)
    app.worker().running().stop()


def test_members_without_an_instance_id_are_named(app: App) -> None:
    """A program of somebody else may use the group's id."""
    consumer = Consumer(
        {"bootstrap.servers": app.servers, "group.id": app.name, "client.id": "their-client"}
    )
    consumer.subscribe([app.config.topics.clicks])
    found = inside.until(
        lambda: (consumer.poll(0.1) and None) or other_members(app.admin, app.config)
    )
    consumer.close()
    (member,) = found
    assert "their-client-" in member.split()[0]  # the member id
    assert "client id their-client, host /127.0.0.1" in member
