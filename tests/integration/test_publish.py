import gzip
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from streamer.errors import ConfigError, WalkstreamError
from streamer.publish import run
from streamer.readers import Source
from streamer.settings import Config, TopicSettings

PARTITIONS = 3
TSV = b"user_id\titem_id\tts\n" + b"".join(
    b"u%d\ti%d\t%d\n" % (n % 7, n, 1000 * n) for n in range(100)
)


@pytest.fixture
def config(kafka: str) -> Config:
    name = f"publish-{uuid.uuid4().hex[:8]}"
    topics = TopicSettings(clicks=f"{name}-clicks", items=f"{name}-items")
    admin = AdminClient({"bootstrap.servers": kafka})
    futures = admin.create_topics(
        [
            NewTopic(topics.clicks, PARTITIONS, 1, config={"max.message.bytes": "20000"}),
            NewTopic(topics.items, 1, 1, config={"cleanup.policy": "compact"}),
        ]
    )
    for future in futures.values():
        future.result()
    while not {topics.clicks, topics.items} <= admin.list_topics(timeout=10).topics.keys():
        time.sleep(0.05)
    return Config(kafka={"bootstrap.servers": kafka}, topics=topics)


def end_of(consumer: Consumer, where: TopicPartition) -> int:
    """The end of a partition, whose leader may be elected a moment after the topic is listed."""
    for _ in range(50):
        try:
            return int(consumer.get_watermark_offsets(where, timeout=10)[1])
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            time.sleep(0.1)
    raise AssertionError(f"{where} has no leader")


def read(config: Config, topic: str, partitions: int) -> list[Message]:
    """All records of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka["bootstrap.servers"],
            "group.id": "reader",
            "enable.auto.commit": False,
        }
    )
    messages: list[Message] = []
    try:
        for partition in range(partitions):
            where = TopicPartition(topic, partition, 0)
            end = end_of(consumer, where)
            consumer.assign([where])
            count = 0
            while count < end:
                batch = consumer.consume(end - count, timeout=10)
                assert batch, f"{topic} {partition}: {count} of {end} records"
                assert not any(message.error() for message in batch)
                messages += batch
                count += len(batch)
    finally:
        consumer.close()
    return messages


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_clicks_arrive_once_with_user_keys_in_order_and_fresh_timestamps(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began_ms = time.time() * 1000
    path = write(tmp_path / "c.tsv.gz", TSV + b"broken line\n")
    run(config, Source([path]), items=False, rate=None, speed=None)

    messages = read(config, config.topics.clicks, PARTITIONS)
    raw = [message for message in messages if message.key() is None]
    assert [message.value() for message in raw] == [b"broken line"]
    times: dict[bytes, list[int]] = {}
    places: dict[bytes, set[int]] = {}
    for message in messages:
        kind, timestamp = message.timestamp()
        assert kind == TIMESTAMP_CREATE_TIME
        assert timestamp > began_ms - 60_000
        if (key := message.key()) is not None:
            value = json.loads(message.value() or b"")
            assert value["user_id"].encode() == key
            assert value["item_id"] == f"i{value['ts'] // 1000}"
            times.setdefault(key, []).append(value["ts"])
            places.setdefault(key, set()).add(message.partition() or 0)
    assert sorted(ts for own in times.values() for ts in own) == [1000 * n for n in range(100)]
    assert all(own == sorted(own) for own in times.values())
    assert all(len(partitions) == 1 for partitions in places.values())
    out = capsys.readouterr().out
    assert f"{config.topics.clicks}: 101 records delivered" in out
    assert "0 failed. 1 of all lines had no readable user or time" in out


def test_json_clicks_arrive_byte_for_byte(config: Config, tmp_path: Path) -> None:
    lines = [b'{"user_id": %d, "item_id": "i", "ts": %d, "x": null}' % (n, n) for n in range(50)]
    path = write(tmp_path / "c.jsonl", b"\n".join(lines))
    run(config, Source([path]), items=False, rate=None, speed=None)
    messages = read(config, config.topics.clicks, PARTITIONS)
    assert sorted((message.key(), message.value()) for message in messages) == sorted(
        (b"%d" % n, line) for n, line in enumerate(lines)
    )


def test_items_go_to_their_own_topic(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "i.csv", b"item_id,name,tags\n7,Lamp,a|b\n8,Mug,\n")
    run(config, Source([path]), items=True, rate=None, speed=None)
    messages = read(config, config.topics.items, 1)
    assert [(message.key(), message.value()) for message in messages] == [
        (b"7", b'{"item_id":"7","attributes":{"name":"Lamp","tags":["a","b"]}}'),
        (b"8", b'{"item_id":"8","attributes":{"name":"Mug"}}'),
    ]
    assert read(config, config.topics.clicks, PARTITIONS) == []


def test_a_rate_spreads_records_evenly(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", TSV)
    began = time.monotonic()
    run(config, Source([path]), items=False, rate=50, speed=None)
    assert 1.9 < time.monotonic() - began < 10
    stamps = sorted(m.timestamp()[1] for m in read(config, config.topics.clicks, PARTITIONS))
    assert stamps[-1] - stamps[0] > 1800
    assert max(b - a for a, b in zip(stamps[:-10], stamps[10:], strict=True)) < 1000


def test_a_speed_keeps_the_rhythm_of_event_time(config: Config, tmp_path: Path) -> None:
    lines = b"user_id\titem_id\tts\nu\ta\t0\nu\tb\t10\nu\tc\t60000\nu\td\t30000\n"
    path = write(tmp_path / "c.tsv", lines)
    run(config, Source([path]), items=False, rate=None, speed=60)
    messages = read(config, config.topics.clicks, PARTITIONS)
    a, b, c, d = (message.timestamp()[1] for message in messages)
    assert b - a < 500
    assert 900 < c - a < 3000
    assert d - c < 500


def test_a_record_that_the_broker_refuses_is_counted_and_fails_the_command(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Random text, as compression would make a longer one small enough.
    junk = os.urandom(30_000).hex().encode()
    path = write(tmp_path / "c.tsv", TSV + junk + b"\n")
    settled = replace(config, kafka={**config.kafka, "batch.num.messages": 1})
    with pytest.raises(WalkstreamError, match="1 of 101 records were not delivered"):
        run(settled, Source([path]), items=False, rate=None, speed=None)
    assert "100 records delivered" in capsys.readouterr().out
    assert len(read(config, config.topics.clicks, PARTITIONS)) == 100


def test_a_missing_topic_is_refused(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", TSV)
    elsewhere = replace(config, topics=TopicSettings(clicks="no-such-topic"))
    with pytest.raises(ConfigError, match="topic no-such-topic does not exist: run"):
        run(elsewhere, Source([path]), items=False, rate=None, speed=None)


def test_an_interrupt_tells_the_number_of_records_in_the_topic(
    config: Config, tmp_path: Path
) -> None:
    path = write(tmp_path / "c.tsv", TSV * 100)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from streamer.settings import Config, TopicSettings\n"
        "from streamer.publish import run\n"
        "from streamer.readers import Source\n"
        "servers, topic, path = sys.argv[1:]\n"
        "topics = TopicSettings(clicks=topic)\n"
        "config = Config(kafka={'bootstrap.servers': servers}, topics=topics)\n"
        "run(config, Source([Path(path)]), items=False, rate=200, speed=None)\n"
    )
    servers = str(config.kafka["bootstrap.servers"])
    process = subprocess.Popen(
        [sys.executable, "-c", program, servers, config.topics.clicks, str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (some := read(config, config.topics.clicks, PARTITIONS)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    delivered = len(read(config, config.topics.clicks, PARTITIONS))
    assert delivered >= len(some)
    assert f"interrupted; {config.topics.clicks}: {delivered:,} records delivered" in err


@pytest.mark.parametrize(
    ("items", "rate", "speed", "message"),
    [
        (False, 1.0, 1.0, "exclude each other"),
        (True, None, 1.0, "items have none"),
        (False, 0.0, None, "--rate is 0; it must be above 0"),
        (False, None, -1.0, "--speed is -1; it must be above 0"),
    ],
)
def test_a_pace_that_makes_no_sense_is_refused(
    items: bool, rate: float | None, speed: float | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(Config(), Source([]), items, rate, speed)


def test_missing_bootstrap_servers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'kafka\."bootstrap\.servers" is missing'):
        run(Config(kafka={}), Source([]), False, None, None)
