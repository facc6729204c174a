"""Dead letters looked through and sent back, by the commands that operators have."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from broker import free_port
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streamer.demo.shop import Shop
from streamer.kafka import clients
from streamer.state import records
from tests.folders import contents
from tests.integration.letters import bury, done, headers, listed, sent
from tests.support import START_MS, App, as_records


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {"topics.partitions": 2, "commit.seconds": 0.2}) as app:
        yield app


def test_list_prints_the_newest_last_with_reason_source_and_value(app: App) -> None:
    for n in range(5):
        value = f'{{"n": {n}}}'.encode()
        bury(app, value, headers(app, source=f"1@{n}"), f"user{n}".encode(), START_MS + n)
    bury(app, None, headers(app, "undecodable", source="0@7"), time=START_MS + 5)
    output = done(app.command("dlq", "list", "--limit", "2"))
    clicks = app.config.topics.clicks
    assert output.startswith(
        f"2023-11-14T22:13:20.004Z  unknown_type  {clicks}[1]@4\n"
        '    this is unknown_type\n    {"n": 4}\n'
        f"2023-11-14T22:13:20.005Z  undecodable  {clicks}[0]@7\n"
        "    this is undecodable\n    no value\n"
    )
    assert "dead letters: 6\n" in output
    (first, second) = [json.loads(line) for line in done(
        app.command("dlq", "list", "--summary", "--json")
    ).splitlines()]  # fmt: skip
    assert (first["error.class"], first["source.partition"], first["letters"]) == (
        "undecodable", "0", 1,
    )  # fmt: skip
    assert (second["error.class"], second["source.partition"], second["letters"]) == (
        "unknown_type", "1", 5,
    )  # fmt: skip
    assert second["first"] == "2023-11-14T22:13:20.000Z"
    assert second["last"] == "2023-11-14T22:13:20.004Z"


def test_list_shows_bytes_as_base64_and_the_part_of_a_record(app: App) -> None:
    bury(app, b"\xff\x00", headers(app, "undecodable", source__part=3), None)
    (letter,) = listed(app)
    assert letter["value.base64"] == "/wA="
    assert letter["key"] is None
    assert (letter["source.offset"], letter["source.part"]) == (0, 3)
    assert "[1]@0 part 3\n" in done(app.command("dlq", "list"))


def test_what_a_record_holds_cannot_steer_the_terminal(app: App) -> None:
    bury(app, b"\x1b[2J\r\n[bold]x", headers(app, error__message="a\x1b]0;title\x07"))
    bury(app, b"x" * 1000, headers(app, "[red]strange"))
    output = done(app.command("dlq", "list"))
    assert r"    \x1b[2J\r\n[bold]x" in output
    assert r"    a\x1b]0;title\x07" in output
    assert f"    {'x' * 200}... (1,000 bytes)" in output
    assert "\x1b" not in output
    assert output.count("[red]strange") == 3, "as class, in the message, in the table"


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--reason", "bad_id"], [1]),
        (["--reason", "bad_id", "--reason", "bad_time"], [1, 2]),
        (["--since", "2023-11-14T22:13:21Z"], [1, 2]),
        (["--until", "2023-11-14T23:13:22+01:00"], [0, 1]),
        (["--since", "2023-11-14T22:13:21", "--until", "2023-11-14T22:13:22"], [1]),
        (["--since", "1h"], []),
        (["--partition", "1"], [0, 2]),
        (["--match", "two"], [2]),
        (["--match", "this is bad_id"], [1]),
        (["--match", "key-0"], [0]),
        (["--partition", "1", "--match", "one"], []),
    ],
)
def test_letters_are_chosen_by_all_filters_that_are_given(
    app: App, options: list[str], kept: list[int]
) -> None:
    for n, (reason, partition, value) in enumerate(
        [("unknown_type", 1, b"zero"), ("bad_id", 0, b"one"), ("bad_time", 1, b"\xfftwo")]
    ):
        marks = headers(app, reason, source=f"{partition}@{n}")
        bury(app, value, marks, f"key-{n}".encode(), START_MS + 1000 * n)
    assert [letter["source.offset"] for letter in listed(app, *options)] == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reason", "ugly"], "the reasons are undecodable"),
        (["--since", "yesterday"], "write a time as 2026-01-31T12:00:00Z, or a span"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(app: App, options: list[str], said: str) -> None:
    for command in ("list", "replay"):
        assert said in done(app.command("dlq", command, *options), 2)


def test_replay_sends_key_and_value_as_they_came_to_the_partition_they_came_from(app: App) -> None:
    users = [f"user{n}".encode() for n in range(40)]
    app.publish([(user, b"before") for user in users])
    for n, user in enumerate(users):
        bury(app, b"\xff%d" % n, headers(app), user)
    bury(app, b"other", headers(app, "bad_id"))
    app.describe([(b"item", b"before")])
    items = app.config.topics.items
    bury(app, None, headers(app, source__topic=items), b"item")
    output = done(app.command("dlq", "replay", "--all", "--reason", "unknown_type"))
    assert "dead letters sent: 41\n" in output
    replayed = [message for message in sent(app) if message.value() != b"before"]
    assert {m.key(): m.value() for m in replayed} == {u: b"\xff%d" % n for n, u in enumerate(users)}
    assert len(replayed) == 40
    places = {
        f"{m.topic()}[{m.partition()}]@{m.offset()}": m.key()
        for m in app.read(app.config.topics.dead_letters)
    }
    for message in replayed:
        assert message.partition() == 1
        marks: dict[str, Any] = dict(message.headers() or [])
        assert marks.keys() == {"replayed.from", *records.SOURCE}
        assert [marks[name] for name in records.SOURCE] == [b"1", b"0", b"%d" % START_MS]
        assert places[marks["replayed.from"].decode()] == message.key()
    assert [m.value() for m in app.read(items)] == [b"before", None]
    (since,) = re.findall(r"--since (\S+)", output)
    bury(app, b"later", headers(app))
    again = app.command("dlq", "replay", "--all", "--reason", "unknown_type", "--since", since)
    assert "dead letters sent: 1\n" in done(again)
    assert [m.value() for m in sent(app)].count(b"later") == 1
    assert len(sent(app)) == 81


def test_a_dry_run_sends_nothing_and_cut_letters_never_go(app: App) -> None:
    bury(app, b"good by now", headers(app))
    bury(app, b"begin of a long one", headers(app, source__bytes=2_000_000))
    output = done(app.command("dlq", "replay", "--all", "--dry-run"))
    assert "dead letters to send: 1\n" in output
    assert "never sent: 1\n" in output
    assert sent(app) == []
    assert "dead letters sent: 1\n" in done(app.command("dlq", "replay", "--all"))
    assert [message.value() for message in sent(app)] == [b"good by now"]
    output = done(app.command("dlq", "replay", "--all", "--match", "begin of"))
    assert output == "nothing to send: cut, because they were too long, and never sent: 1\n"


def test_where_nothing_matches_there_is_nothing_to_do(app: App) -> None:
    assert "there are no dead letters" in done(app.command("dlq", "list"))
    assert "nothing to send: there are no dead letters" in done(
        app.command("dlq", "replay", "--all")
    )
    bury(app, b"x", headers(app))
    output = done(app.command("dlq", "replay", "--all", "--reason", "bad_id"))
    assert "nothing to send: no dead letter fits the filters" in output
    assert sent(app) == []


def test_letters_of_a_topic_that_is_not_ours_stop_a_replay_before_it_sends(app: App) -> None:
    bury(app, b"x", headers(app))
    bury(app, b"y", headers(app, source__topic=app.config.topics.item_vectors))
    bury(app, b"z", {})
    assert "is neither topics.clicks" in done(app.command("dlq", "replay", "--all"), 3)
    assert sent(app) == []


def test_all_letters_are_sent_or_none(app: App) -> None:
    topic = app.config.topics.clicks
    entry = ConfigEntry("max.message.bytes", "20000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    app.admin.incremental_alter_configs([change])[change].result()
    for n in range(10):
        bury(app, b"small", headers(app, source=f"0@{n}"))
    bury(app, bytes(range(256)) * 400, headers(app, source="0@10"))
    output = done(app.command("dlq", "replay", "--all", kafka__compression__type="none"), 1)
    assert "nothing was sent: " in output
    assert sent(app) == []
    assert "dead letters sent: 10\n" in done(
        app.command("dlq", "replay", "--all", "--match", "small")
    )
    assert len(sent(app)) == 10


def test_many_letters_go_in_one_transaction(app: App) -> None:
    producer = Producer({"bootstrap.servers": app.servers})
    marks: list[tuple[str, str | bytes | None]] = [
        (name, str(text).encode()) for name, text in headers(app).items()
    ]
    topic = app.config.topics.dead_letters
    for n in range(10_000):
        producer.produce(topic, b"%d" % n, b"%d" % (n % 50), headers=marks)
    assert producer.flush(30) == 0
    assert "dead letters sent: 10,000\n" in done(app.command("dlq", "replay", "--all"))
    assert sorted(int(m.value() or b"") for m in sent(app)) == list(range(10_000))


def test_the_time_of_a_record_is_kept_where_it_is_the_time_of_the_click(app: App) -> None:
    bury(app, b"x", headers(app))
    done(app.command("dlq", "replay", "--all"))
    done(app.command("dlq", "replay", "--all", clicks__fields__ts="@timestamp"))
    now, then = [message.timestamp()[1] for message in sent(app)]
    assert then == START_MS < now


def test_a_replay_leaves_a_worker_alone_whose_instance_is_named_dlq(app: App) -> None:
    bury(app, b"x", headers(app))
    own = app.config
    worker = clients.producer(replace(own, app=replace(own.app, instance="dlq")))
    worker.init_transactions(30)
    worker.begin_transaction()
    worker.produce(app.config.topics.items, b"{}", b"x")
    assert worker.flush(30) == 0
    done(app.command("dlq", "replay", "--all"))
    worker.commit_transaction(30)
    assert [m.value() for m in app.read(app.config.topics.items)] == [b"{}"]


def test_what_is_still_bad_stays_unless_all_are_asked_for(app: App) -> None:
    wish = b'{"user_id": "u", "item_id": "i", "ts": %d, "event_type": "wish"}' % START_MS
    bury(app, wish, headers(app))
    bury(app, wish.replace(b"wish", b"hover"), headers(app))
    bury(app, b"no json", headers(app, "undecodable"))
    bury(app, b"no json", headers(app, source__topic=app.config.topics.items), b"item")
    bury(app, None, headers(app, source__topic=app.config.topics.items), b"item")
    output = done(app.command("dlq", "replay", events__weights__wish=1))
    assert "dead letters sent: 2\n" in output
    assert "so they stay: 3" in output
    assert [m.value() for m in sent(app)] == [wish]
    assert [m.value() for m in app.read(app.config.topics.items)] == [None]
    assert "dead letters to send: 5\n" in done(app.command("dlq", "replay", "--all", "--dry-run"))


def test_clicks_of_a_type_that_has_got_a_weight_are_learned_by_a_replay(app: App) -> None:
    shop = Shop(5, products=60, users=40)
    good = as_records(islice(shop.clicks(START_MS, 0.5), 400))
    wishes = [
        (b"%d" % n, b'{"user_id": "%d", "item_id": "wish%d", "ts": %d, "event_type": "wish"}'
         % (n % 7, n, START_MS + n))
        for n in range(50)
    ]  # fmt: skip
    worker = app.worker()
    app.publish([*good, *wishes, (b"key", b"not json"), (b"key", b"nor this")])
    worker.until(app.caught_up, "all clicks committed")
    worker.stop()
    kinds = {str(letter["error.class"]) for letter in listed(app, "--limit", "100")}
    assert kinds == {"undecodable", "unknown_type"}
    assert len(listed(app, "--limit", "100", "--reason", "unknown_type")) == 50
    assert not any(key.startswith(b"wish") for key in contents(app.config).rows)

    assert "so they stay: 50" in done(app.command("dlq", "replay", "--reason", "unknown_type"))
    output = done(app.command("dlq", "replay", events__weights__wish=1.5))
    assert "dead letters sent: 50\n" in output
    port = free_port()
    weighted = {"events__weights__wish": 1.5, "metrics__port": port}
    worker = app.worker(**weighted)
    worker.until(lambda: worker.metric(port, "events_total") == 50, "the clicks sent back")
    worker.stop()
    wished = {key for key in contents(app.config).rows if key.startswith(b"wish")}
    assert wished == {b"wish%d" % n for n in range(50)}
    assert len(listed(app, "--limit", "100")) == 52
