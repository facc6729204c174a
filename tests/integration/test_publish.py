import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME

from streamer import progress
from streamer.cli import running
from streamer.demo import synthetic
from streamer.errors import ConfigError, WalkstreamError
from streamer.files import delivery
from streamer.files.publish import dry_run, run
from streamer.files.readers import Source
from streamer.settings.sections import ClickSettings, Config, TopicSettings
from tests.brokers import a_broker
from tests.integration.published import PARTITIONS, read, with_topics

TSV = b"user_id\titem_id\tts\n" + b"".join(
    b"u%d\ti%d\t%d\n" % (n % 7, n, 1000 * n) for n in range(100)
)


@pytest.fixture
def config(kafka: str) -> Config:
    return with_topics(kafka)


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
    assert "0 failed\na worker will make 1 dead letter of these, sent as they came" in out


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
    with pytest.raises(WalkstreamError, match=r"not delivered to .*: 1 of 101 records"):
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
        "from streamer.settings.sections import Config, TopicSettings\n"
        "from streamer.files.publish import run\n"
        "from streamer.files.readers import Source\n"
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
    told = re.search(rf"interrupted; {config.topics.clicks}: (\d+) records delivered", err)
    assert told, err
    # A record is counted after it was handed over: one that the signal met in between is not told.
    assert delivered - 1 <= int(told[1]) <= delivered


def test_a_broker_that_goes_away_is_told_and_given_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TELL_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "GIVE_UP_SECONDS", 4.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 1.0)
    path = write(tmp_path / "c.tsv", TSV * 100)
    with a_broker() as broker:
        away = Timer(2.0, broker.kill)
        config = with_topics(broker.bootstrap)
        away.start()
        with pytest.raises(
            WalkstreamError, match=r"gave up: nothing was delivered for 4 s \(no bro"
        ):
            run(config, Source([path]), items=False, rate=200, speed=None)
        away.join()
    err = capfd.readouterr().err
    assert f"no broker answers at {broker.bootstrap}" in err
    shown = [int(count) for count in re.findall(r"(\d+) records delivered", err)]
    assert shown[-1] == shown[-2] < 1000  # what is delivered, not what waits


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


# -- dry run -------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_is_in_the_clicks_and_sends_nothing(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "c.tsv.gz", TSV + b"broken line\nu1\t\t99\n")
    more = write(tmp_path / "c.jsonl", b'{"user_id": "u9", "item_id": "i1", "ts": -1}\n')
    dry_run(config, Source([path, more]), items=False)
    out = capsys.readouterr().out
    assert "103 records: 7 users, 100 items" in out
    assert "1970-01-01 00:00:00 UTC to 1970-01-01 00:01:39 UTC. Nothing was sent" in out
    assert "a worker would make 3 dead letters" in out
    assert f"1 undecodable in {path}, line 102: has 1 column, and there are 3" in out
    assert "broken line" in out
    assert f"1 undecodable in {path}, line 103: has no item_id" in out
    assert f"1 bad_time in {more}, line 1: " in out
    assert read(config, config.topics.clicks, PARTITIONS) == []


def test_a_dry_run_tells_what_is_in_the_items_and_sends_nothing(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        b'{"item_id": "a", "attributes": {"name": "Lamp", "tags": ["x"]}}',
        b'{"item_id": "b", "attributes": {"name": "Mug"}}',
        b'{"item_id": "c", "attributes": ["no", "object"]}',
    ]
    dry_run(config, Source([write(tmp_path / "i.jsonl", b"\n".join(lines))]), items=True)
    out = capsys.readouterr().out
    assert "3 records: 2 items; attributes: name (2), tags (1). Nothing was sent" in out
    assert "1 bad_field in " in out
    assert "i.jsonl, line 3: attributes must be an object" in out
    assert read(config, config.topics.items, 1) == []


def test_a_dry_run_needs_no_kafka(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry_run(Config(kafka={}), Source([write(tmp_path / "c.tsv", TSV)]), items=False)
    out = capsys.readouterr().out
    assert "100 records: 7 users, 100 items" in out
    assert "dead letter" not in out


def test_a_dry_run_refuses_files_that_no_line_can_be_read_of(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", TSV)
    with pytest.raises(ConfigError, match=r"none of the first 100 lines.*\n.*line 2: ts is 'u0'"):
        dry_run(Config(), Source([path], columns=["ts", "item_id", "user_id"]), items=False)


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clicks",
    [
        ClickSettings(format="avro"),
        ClickSettings(fields={**ClickSettings().fields, "item_id": "product.sku"}),
        ClickSettings(time_unit="s"),
    ],
)
def test_clicks_are_not_published_to_a_topic_of_another_format(
    clicks: ClickSettings, tmp_path: Path
) -> None:
    config, source = Config(clicks=clicks), Source([write(tmp_path / "c.tsv", TSV)])
    (changed,) = (
        name for name, value in vars(clicks).items() if value != vars(ClickSettings())[name]
    )
    message = rf"Walkstream's own format.*clicks\.{changed}\b"
    with pytest.raises(ConfigError, match=message):
        run(config, source, items=False, rate=None, speed=None)
    with pytest.raises(ConfigError, match=message):
        dry_run(config, source, items=False)
    with pytest.raises(ConfigError, match=message):
        synthetic.run(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name files to publish, or give --synthetic"),
        ({"files": [Path("c.csv")], "synthetic": True}, "FILE and --synthetic exclude each other"),
        ({"items": True, "synthetic": True}, "--items and --synthetic exclude each other"),
        ({"speed": 2.0, "synthetic": True}, "--speed and --synthetic exclude each other"),
        ({"dry_run": True, "synthetic": True}, "--dry-run and --synthetic exclude each other"),
        ({"files": [Path("c.csv")], "bots": 0.1, "seed": 2}, "--seed, --bots: only with --synth"),
        ({"files": [Path("c.csv")], "rate": 1.0, "speed": 1.0}, "--rate and --speed"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        running.publish(**arguments)
