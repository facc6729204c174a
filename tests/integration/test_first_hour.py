"""What people need around a worker: a look ahead, a beginning in time, users to forget."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from broker import free_port
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)

from streamer.demo.shop import Shop
from tests.folders import contents
from tests.support import START_MS, App, as_records, wait_until

CLICKS = list(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1000))
RECORDS = as_records(CLICKS)


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {"topics.partitions": 2, "commit.seconds": 0.2}) as app:
        yield app


def learned(app: App) -> set[str]:
    values = [message.value() for message in app.read(app.config.topics.item_vectors)]
    return {msgspec.json.decode(value)["item_id"] for value in values if value is not None}


# -- dry run -------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_worker_would_do_and_writes_nothing(app: App) -> None:
    app.publish([*RECORDS[:600], (b"k", b"no json")])
    ahead = app.worker("--dry-run")
    assert ahead.wait() == 0, ahead.output
    assert "of the newest 601 records, 600 clicks of" in " ".join(ahead.output.split())
    assert "1 undecodable" in ahead.output
    assert "no state folder yet" in ahead.output
    assert not app.state.exists()
    assert set(app.group_offsets().values()) == {-1001}
    for topic in (app.config.topics.model_state, app.config.topics.dead_letters):
        assert set(app.ends(topic).values()) == {0}

    app.run_to_end()
    before = app.ends(app.config.topics.model_state)
    app.publish(RECORDS[600:700])
    behind = app.worker("--dry-run")
    assert behind.wait() == 0, behind.output
    assert "and its space fits" in behind.output
    assert "the first click of today lets every item leave" in " ".join(behind.output.split())
    assert app.ends(app.config.topics.model_state) == before

    again = app.worker().running()
    assert "the first click of today lets every item leave" in again.output
    again.stop()


def test_a_dry_run_is_refused_as_the_worker_would_be(app: App) -> None:
    app.publish(RECORDS[:300])
    app.run_to_end()
    refused = app.worker("--dry-run", model__dim=32)
    assert refused.wait() == 3, refused.output
    assert "model.dim is 16 there and 32 here" in refused.output


def test_a_dry_run_begins_where_model_state_says_if_the_group_has_expired(app: App) -> None:
    app.publish(RECORDS[:300])
    app.run_to_end()
    ends = app.ends(app.config.topics.clicks)
    wait_until(lambda: delete_group(app), "the group to be empty and deleted")
    app.publish(RECORDS[300:350])
    for _ in range(2):
        ahead = app.worker("--dry-run")
        assert ahead.wait() == 0, ahead.output
        table = [line.split("│") for line in ahead.output.splitlines() if "clicks[" in line]
        begins = {cells[1].strip(): int(cells[2]) for cells in table}
        assert begins == {f"{topic}[{p}]": end for (topic, p), end in ends.items()}
        assert sum(int(cells[3]) for cells in table) == 50
        # The second time there is no folder, and all of model-state has to be read.
        shutil.rmtree(app.state, ignore_errors=True)
    assert "reading up to" in ahead.output


def delete_group(app: App) -> bool:
    """Whether the group is gone by now: a member that left stays for a session."""
    try:
        app.admin.delete_consumer_groups([app.name])[app.name].result()
    except KafkaException:
        return False
    return True


def move_group(app: App) -> None:
    place = TopicPartition(app.config.topics.clicks, 0, 1)
    app.admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(app.name, [place])]
    )[app.name].result()  # fmt: skip


def lose_clicks(app: App) -> None:
    topic = app.config.topics.clicks
    app.publish(RECORDS[300:350])
    ends = [TopicPartition(*place, end) for place, end in app.ends(topic).items()]
    for gone in app.admin.delete_records(ends).values():
        gone.result()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(move_group, "Somebody moved the group's offsets"), (lose_clicks, "are below retention")],
)
def test_a_dry_run_stops_where_the_offsets_would_stop_a_worker(
    app: App, spoil: Callable[[App], None], said: str
) -> None:
    app.publish(RECORDS[:300])
    app.run_to_end()
    wait_until(lambda: app.group_is_empty(), "the worker to have left the group")
    spoil(app)
    # One after the other: beside a worker that runs, moved offsets are taken for its progress.
    ahead = app.worker("--dry-run")
    ahead.wait()
    worker = app.worker()
    for process in (ahead, worker):
        assert process.wait() == 3, process.output
        assert said in process.output
    refusal = worker.output.splitlines()[-1]
    assert refusal in ahead.output.splitlines()


# -- where to begin ------------------------------------------------------------------------------


def test_a_first_start_begins_at_a_time(app: App) -> None:
    at, by = START_MS + 500_000, int(1000 * time.time()) - 7_200_000 - START_MS
    clicks = [
        {**c, "item_id": f"early-{c['item_id']}"} if int(str(c["ts"])) < at else c for c in CLICKS
    ]
    producer = Producer({"bootstrap.servers": app.servers, "partitioner": "murmur2_random"})
    for click, (key, value) in zip(clicks, as_records(clicks), strict=True):
        # Sent as far apart as they happened, and lately: retention is days.
        producer.produce(app.config.topics.clicks, value, key, timestamp=int(str(click["ts"])) + by)
    assert producer.flush(30) == 0
    position = datetime.fromtimestamp((at + by) / 1000, UTC).isoformat()
    worker = app.worker(start__position=position, topics__check="false")
    worker.until(app.caught_up, "all clicks committed")
    worker.stop()
    assert learned(app) == {str(c["item_id"]) for c in clicks if int(str(c["ts"])) >= at}


# -- users to forget -----------------------------------------------------------------------------


def test_a_forgotten_user_counts_no_more_and_what_counted_stays_so_in_a_new_folder(
    app: App,
) -> None:
    port = free_port()
    worker = app.worker(metrics__port=port)
    own = [(b"anna", json.dumps({"user_id": "anna", "item_id": i, "ts": START_MS + n}).encode())
           for n, i in enumerate(("secret-1", "secret-2"))]  # fmt: skip
    app.publish([*RECORDS[:500], *own])
    worker.until(app.caught_up, "all clicks committed")
    others = len({click["user_id"] for click in CLICKS[:600]})
    told = app.command("forget", "anna")
    assert told.wait() == 0, told.output
    assert "anna" not in told.output
    assert "checkpoint.seconds, 60 s" in told.output
    assert app.config.topics.transitions in told.output
    app.publish(RECORDS[500:600])
    worker.until(app.caught_up, "the worker to have read what was written before")
    wait_until(lambda: worker.metric(port, "sessions") == others, "her session to have ended")
    app.publish([(b"anna", own[0][1].replace(b"secret-1", b"secret-3"))])
    worker.until(app.caught_up, "the click of a forgotten user")
    wait_until(lambda: worker.metric(port, "events_total") == 602, "the others, and no more")
    worker.stop()
    assert "secret-3" not in learned(app)
    before = contents(app.config)
    assert "secret-1" in before.graph
    assert "anna" not in before.sessions

    assert app.command("reset", "--yes").wait() == 0
    app.worker().running().stop()
    after = contents(app.config)
    assert (after.graph, after.sessions) == (before.graph, before.sessions)
    assert b"anna" not in b"".join(m.key() or b"" for m in app.read(app.config.topics.model_state))

    assert app.command("forget", "anna", "--undo").wait() == 0
    worker = app.worker().running()
    again = {"user_id": "anna", "item_id": "public", "ts": START_MS + 2_000_000}
    app.publish([(b"anna", json.dumps(again).encode()), *RECORDS[600:650]])
    worker.until(app.caught_up, "clicks after all")
    worker.stop()
    assert "public" in contents(app.config).graph


# -- items that cannot be used -------------------------------------------------------------------


def test_a_bad_item_becomes_one_dead_letter_over_restarts_and_a_lost_folder(app: App) -> None:
    app.publish(RECORDS[:300])
    app.describe([(b"sku-0001", b'{"item_id":"sku-0001","attributes":7}')])
    worker = app.worker()
    worker.until(lambda: bool(app.read(app.config.topics.dead_letters)), "the dead letter")
    worker.stop()
    assert f"{app.config.topics.items}: first dead letter of class bad_field" in worker.output
    app.worker().running().stop()
    assert app.command("reset", "--yes").wait() == 0
    app.publish(RECORDS[300:400])
    app.run_to_end()
    (letter,) = app.read(app.config.topics.dead_letters)
    headers = dict(letter.headers() or [])
    assert headers["source.topic"] == app.config.topics.items.encode()
    assert headers["error.class"] == b"bad_field"


def test_bad_items_of_a_worker_that_died_before_its_first_commit_are_dead_letters(
    app: App,
) -> None:
    app.describe([(b"a", b"not json"), (b"b", b'{"item_id":"b","attributes":{"name":"B"}}')])
    marker = app.folder / "killed"
    plan = {"point": "begin", "when": "before", "call": 1, "marker": str(marker)}
    assert app.worker(plan=plan).wait() == -9
    assert marker.exists()
    assert app.read(app.config.topics.dead_letters) == []
    app.publish(RECORDS[:100])
    app.run_to_end()
    assert [m.value() for m in app.read(app.config.topics.dead_letters)] == [b"not json"]


def test_too_many_dead_letters_stop_a_worker_that_is_told_so(app: App) -> None:
    app.publish([*RECORDS[:200], *[(b"k", b"no json")] * 200])
    worker = app.worker(dlq__stop_ratio=0.3)
    assert worker.wait() == 3, worker.output
    assert "dlq.stop_ratio is 0.3" in worker.output
    app.run_to_end()
    assert len(app.read(app.config.topics.dead_letters)) == 200
