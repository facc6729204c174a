"""Publish without a broker: what it says of files, and of a Kafka that does not answer."""

import gzip
import logging
import re
from pathlib import Path

import pytest
from broker import free_port

from streamer.demo import synthetic
from streamer.demo.embedded import EmbeddedBroker
from streamer.errors import ConfigError, WalkstreamError
from streamer.files import delivery
from streamer.files.publish import dry_run, run
from streamer.files.readers import Source
from streamer.kafka import clients, rights
from streamer.settings.sections import Config, EventSettings, KafkaValue


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Line 1 is the header, line n a click of n seconds; some are broken."""
    lines = ["user_id,item_id,ts", *(f"u{n},i{n},{n}000" for n in range(2, 41))]
    for number in (5, 6, 7, 8):
        lines[number - 1] = "u,i"
    lines[19] = ",i,20000"
    lines[29] = "u,i,2026-01-31"
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_dry_run_shows_one_line_of_each_kind(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run(Config(kafka={}), Source([table]), items=False)
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("a worker would make 6 dead letters")
    assert told[2].startswith(f"  4 undecodable, the first in {table}, line 5: has 2 columns, and")
    assert told[3] == "      u,i"
    assert told[4] == f"  1 undecodable in {table}, line 20: has no user_id: the field is empty"
    assert told[6].startswith(f"  1 undecodable in {table}, line 30: ts is '2026-01-31', which is")
    assert len(told) == 8


@pytest.mark.parametrize(
    ("text", "items"),
    [("", False), ("", True), ("user_id,item_id,ts\n", False), ("item_id,name\n", True)],
)
def test_a_dry_run_of_nothing_fails(tmp_path: Path, text: str, items: bool) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(WalkstreamError, match="no record in the input"):
        dry_run(Config(kafka={}), Source([path]), items=items)


def test_lines_of_json_are_told_by_their_number_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"user_id": "u", "item_id": "i", "ts": 5}\n\n{"user_id": "u", "ts": 5}\n')
    dry_run(Config(kafka={}), Source([path]), items=False)
    assert f"1 bad_field in {path}, line 3: " in capsys.readouterr().out


def test_what_a_worker_will_refuse_or_leave_out_is_told_of_what_went_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.jsonl"
    good = '{"user_id": "u", "item_id": "i", "ts": 1700000000000, "event_type": '
    lines = [
        good + '"click"}',
        good + '"view"}',
        good + '"zoom"}',
        '{"user_id": "u", "ts": 5}',
        "{",
    ]
    path.write_text("\n".join(lines))
    with EmbeddedBroker() as broker:
        broker.create("clicks")
        config = Config(
            kafka={"bootstrap.servers": broker.bootstrap},
            events=EventSettings({"click": 1.0, "view": 0.0}),
        )
        run(config, Source([path]), items=False, rate=None, speed=None)
    told, noted = capsys.readouterr()
    assert "clicks: 5 records delivered" in told
    assert "a worker will make 3 dead letters of these, sent as they came" in told
    assert f"1 unknown_type in {path}, line 3: event_type 'zoom' is not in" in told
    assert f"1 bad_field in {path}, line 4: item_id" in told
    assert f"1 undecodable in {path}, line 5: is not JSON" in told
    assert "note: 1 click of types that weigh 0" in noted
    assert "note: event types that events.weights does not list: 'zoom' (1). Give each" in noted


def test_events_of_unknown_types_alone_are_told_with_their_types_and_the_setting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.csv"
    lines = [f"u,i{n},{n}000,{kind}" for n, kind in enumerate(["zoom", "zoom", "scroll"])]
    path.write_text("\n".join(["user_id,item_id,ts,event_type", *lines]))
    told = (
        r"^no record of the input can be used\. There are event types that events\.weights does "
        r"not list: 'zoom' \(2\), 'scroll' \(1\)\. Give each a weight.*the worker\)$"
    )
    with pytest.raises(ConfigError, match=told):
        dry_run(Config(kafka={}), Source([path]), items=False)
    path.write_text(path.read_text() + "\nu,i,never,click\n")
    with pytest.raises(ConfigError, match=r"(?s)'zoom' \(2\).*Look at --columns"):
        dry_run(Config(kafka={}), Source([path]), items=False)


def test_a_file_of_which_nothing_can_be_read_is_refused_with_its_first_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("user_id,item_id,ts\n" + "u,i,2026-01-31\n" * 30)
    message = r"(?s)none of the first 30 lines could be read:.*line 2: ts is .*--time iso.*u,i,2026"
    with pytest.raises(ConfigError, match=message):
        dry_run(Config(kafka={}), Source([path]), items=False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            '{"user_id": "u", "item_id": "i", "ts": 5',
            "1: is not JSON in UTF-8: .* at character 41\n",
        ),
        ('{"visitor": "u", "sku": "i", "time": 5}', "1: user_id is missing"),
        ('{"user_id": null, "item_id": "i"}', "1: user_id must be a string or an integer, not nul"),
        ("[1, 2]", "1: is an array of 2 elements with no click in it"),
    ],
)
def test_lines_of_json_that_are_all_bad_are_refused_with_the_decoders_reason(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f"{line}\n" * 30)
    with pytest.raises(ConfigError, match=rf"(?s)none of the first 30 .*line {reason}.*jq -c"):
        dry_run(Config(kafka={}), Source([path]), items=False)


def test_a_kafka_that_is_down_is_told_in_one_message(
    table: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clients, "PROBE_SECONDS", 2.0)
    monkeypatch.setattr(clients, "REFUSED_SECONDS", 2.0)
    servers = f"127.0.0.1:{free_port()}"
    config = Config(kafka={"bootstrap.servers": servers})
    with pytest.raises(WalkstreamError, match=r"no Kafka answered at .* within 2 s.*refused"):
        run(config, Source([table]), items=False, rate=None, speed=None)
    with pytest.raises(WalkstreamError, match=r"no Kafka answered at .* within 2 s.*refused"):
        synthetic.run(config, seconds=1, users=10_000)
    told = about(servers, capfd)
    assert [line for line in told if not line.startswith("walkstream: ")] == []


def test_a_kafka_that_goes_away_is_told_in_a_few_lines(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBroker() as broker:
        broker.create("clicks")
        servers: dict[str, KafkaValue] = {
            "bootstrap.servers": broker.bootstrap,
            "message.timeout.ms": 2000,
        }
        sender = delivery.Delivery(Config(kafka=servers), "clicks")
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            sender.send("clicks", b"u", b"{}")
            sender.wait(0.1)
        sender.flush()
    with pytest.raises(WalkstreamError, match="not delivered to clicks: 20 of 20 records"):
        sender.require_all()
    assert 1 <= len(caplog.records) < 10
    assert [line for line in about(broker.bootstrap, capfd) if "FAIL" in line] == []


def about(servers: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Standard error without the lines of clients that other tests of this process left behind:
    librdkafka's own begin with the level, and name the broker."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if servers in line or not line.startswith("%")]


def test_a_catalogue_that_is_sent_as_clicks_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "i", "name": "Lamp"}\n' * 30)
    with pytest.raises(ConfigError, match=r"Is it a catalogue\? Then add --items"):
        dry_run(Config(kafka={}), Source([path]), items=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "user_id,item_id,ts\nu,i,5000\n"),
        ("c.csv", "item_id,ts,more,user_id\ni,5000,x,u\n"),
        ("c.jsonl", '\n{"user_id": "u", "item_id": "i", "ts": 5000}\n'),
    ],
)
def test_clicks_that_are_sent_as_a_catalogue_are_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"user_id, item_id and ts, so .*publish` without it"):
        dry_run(Config(kafka={}), Source([path]), items=True)


def test_a_catalogue_may_have_users_or_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(
        '{"item_id": "i", "ts": 5000}\n{"item_id": "j", "user_id": "u"}\n'
        '{"item_id": "k", "attributes": {"user_id": "u", "ts": "5"}}\n'
    )
    dry_run(Config(kafka={}), Source([path]), items=True)
    assert "3 records: 3 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "row", "items", "told"),
    [
        ("user_id,item_id,ts", "u,an-item-{n},{n}000", False, "twice, as they have no event_id"),
        (
            "user_id,item_id,ts,event_id", "u,some-item-{n},{n}000,{n}", False,
            "twice, but for those whose event_id is among the last 8 of an open session",
        ),
        ("item_id,name", "an-item-{n},Name {n}", True, "Items that are published again do no"),
    ],
)  # fmt: skip
def test_of_a_file_that_ends_too_early_is_told_what_was_sent_and_what_sending_it_again_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, row: str, items: bool, told: str
) -> None:
    monkeypatch.setattr(rights, "CALL_SECONDS", 1.0)  # the broker does not know of rights
    rows = "\n".join(row.format(n=n) for n in range(1, 25_001))
    path = tmp_path / "c.csv.gz"
    path.write_bytes(gzip.compress(f"{header}\n{rows}".encode())[:-1000])
    with EmbeddedBroker() as broker:
        for topic in ("clicks", "items"):
            broker.create(topic)
        config = Config(kafka={"bootstrap.servers": broker.bootstrap})
        with pytest.raises(WalkstreamError, match="ends too early") as cut:
            run(config, Source([path]), items=items, rate=None, speed=None)
    ends, summary, again = str(cut.value).splitlines()
    lines = int(ends.split("cut off. ")[1].split()[0].replace(",", ""))
    assert f": {lines - 1:,} records delivered in" in summary
    assert again.startswith(
        f"The last record that was sent is {path}, line {lines:,}, and none is "
    )
    assert told in again


ICONV = r"is not in UTF-8\. .* Windows-1252, .* send `iconv -f WINDOWS-1252 -t UTF-8` of the file"


@pytest.mark.parametrize(
    ("name", "line", "items"),
    [
        ("c.csv", "ü,i,5000", False),
        ("c.jsonl", '{"user_id": "u", "item_id": "ü", "ts": 5000}', False),
        ("i.csv", "ü,N,N", True),
        ("i.jsonl", '{"item_id": "i", "name": "ü"}', True),
    ],
)
@pytest.mark.parametrize("count", [2, 40])
def test_of_latin_1_is_told_how_to_convert_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    line: str,
    items: bool,
    count: int,
) -> None:
    path = tmp_path / name
    head = [] if "{" in line else ["item_id,a,b" if items else "user_id,item_id,ts"]
    path.write_text("\n".join([*head, *[line] * count]), encoding="latin-1")
    with pytest.raises(WalkstreamError) as refusal:
        dry_run(Config(kafka={}), Source([path]), items=items)
    told = capsys.readouterr().out + str(refusal.value)
    assert len(re.findall(ICONV, told)) == 1
    assert "--columns" not in told


def test_of_a_header_in_latin_1_too(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("üser,item_id,ts\nu,i,5000\n", encoding="latin-1")
    with pytest.raises(ConfigError, match=rf"no column 'user_id' among .*; the first line {ICONV}"):
        dry_run(Config(kafka={}), Source([path]), items=False)
