"""One worker against a real Kafka: what goes in, what comes out, and how it ends."""

import gzip
import json
import math
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from broker import free_port
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from streamer.demo.shop import Shop
from streamer.state.store import FAMILIES, Store
from tests.folders import assert_same, contents
from tests.support import DETERMINISTIC, START_MS, App, as_records, wait_until

SHOP = Shop(5, products=60, users=40)
CLICKS = as_records(islice(SHOP.clicks(START_MS, 0.5), 2000))


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {"topics.partitions": 2, "commit.seconds": 0.2}) as app:
        yield app


@pytest.fixture
def counted(kafka: str, tmp_path: Path) -> Iterator[App]:
    """Rounds and commits by count, one partition."""
    with App(kafka, tmp_path, {**DETERMINISTIC, "major.every": 0}) as app:
        yield app


def vectors(app: App) -> list[dict[str, object]]:
    values = [message.value() for message in app.read(app.config.topics.item_vectors)]
    return [msgspec.json.decode(value) for value in values if value is not None]


def test_a_click_becomes_a_vector_and_a_bad_record_a_dead_letter(app: App) -> None:
    port = free_port()
    worker = app.worker(metrics__port=port)
    app.publish([*CLICKS[:500], (b"key", b"not json"), *CLICKS[500:1000]])
    worker.until(app.caught_up, "all clicks committed")
    last = {str(v["item_id"]): v for v in vectors(app)}
    clicked = {json.loads(value)["item_id"] for _, value in CLICKS[:1000]}
    assert last.keys() <= clicked
    assert len(last) > 0.9 * len(clicked)
    for vector in last.values():
        assert isinstance(vector["vector"], list)
        assert sum(x * x for x in vector["vector"]) == pytest.approx(1.0, abs=1e-4)
    assert {v["space"] for v in last.values()} == {next(iter(last.values()))["space"]}
    (letter,) = app.read(app.config.topics.dead_letters)
    headers = dict(letter.headers() or [])
    assert (letter.key(), letter.value()) == (b"key", b"not json")
    assert headers["error.class"] == b"undecodable"
    assert headers["source.topic"] == app.config.topics.clicks.encode()
    wait_until(lambda: worker.metric(port, "events_total") == 1000, "metrics of the last commit")
    wait_until(lambda: worker.metric(port, "items") == len(clicked), "the gauges of a second later")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        assert json.load(answer)["state"] == "running"
    worker.stop()


def test_unwanted_clicks_are_counted_as_left_out_and_as_records_but_never_as_bad(app: App) -> None:
    """The dead letters are a fifth of the other records, and a seventeenth of all."""
    mixed = []
    for n, (key, value) in enumerate(CLICKS[:200]):
        refund = json.dumps(json.loads(value) | {"event_type": "refund", "item_id": None}).encode()
        mixed += [(key, value), *[(key, refund)] * 3, *[(key, b"no json")] * (n % 4 == 0)]
    app.publish(mixed)
    port = free_port()
    worker = app.worker(
        events__weights__refund=0, dlq__stop_ratio=0.15, dlq__alarm_ratio=0.15, metrics__port=port
    )
    worker.until(lambda: worker.metric(port, "events_total") == 200, "all clicks committed")
    assert worker.metric(port, r'ignored_clicks_total\{reason="unwanted"\}') == 600
    assert worker.metric(port, "dead_letter_ratio") == pytest.approx(50 / 850, abs=0.01)
    worker.stop()
    letters = app.read(app.config.topics.dead_letters)
    assert [letter.value() for letter in letters] == [b"no json"] * 50


def test_sigterm_commits_what_was_learned(app: App) -> None:
    worker = app.worker(commit__seconds=3600, round__max_seconds=0.1).running()
    app.publish(CLICKS[:700])
    time.sleep(1.5)
    assert not app.caught_up()
    worker.stop()
    assert app.caught_up()
    assert sum(p.offset for p in app.progress().values()) == 700


def test_a_stop_while_restoring_is_a_clean_end(app: App) -> None:
    app.publish(CLICKS)
    app.run_to_end()
    worker = app.worker()
    worker.until(lambda: "settling" in worker.output, "the start of the restore")
    worker.stop()
    app.worker().running().stop()


def test_the_second_of_two_processes_with_one_name_takes_over(app: App) -> None:
    first = app.worker().running()
    app.publish(CLICKS[:300])
    first.until(app.caught_up, "the first clicks")
    second = app.worker(state__dir=app.folder / "second").running()
    assert first.wait(30) == 4, first.output
    assert "app.instance" in first.output
    assert "Traceback" not in first.output
    app.publish(CLICKS[300:600])
    second.until(app.caught_up, "the clicks of the second")
    second.stop()


def test_a_worker_with_another_name_takes_its_share_and_gives_it_back(app: App) -> None:
    first = app.worker().running()
    second = app.worker(app__instance="other", state__dir=app.folder / "second").running()
    second.until(lambda: "1 of 2 partitions" in second.output, "its share")
    app.publish(CLICKS[:300])
    first.until(app.caught_up, "the first clicks")
    second.stop()
    first.until(lambda: "alone: " in first.output, "the share of the second")
    app.publish(CLICKS[300:600])
    first.until(app.caught_up, "the rest")
    first.stop()


def test_two_processes_on_one_state_folder_are_refused(app: App) -> None:
    first = app.worker().running()
    second = app.worker(app__instance="other")
    assert second.wait() == 3
    assert "another process has this state folder open" in second.output
    first.stop()


def test_aborted_clicks_do_not_count_and_markers_in_the_log_stop_nothing(app: App) -> None:
    """Other people's producers are transactional too."""
    producer = Producer({"bootstrap.servers": app.servers, "transactional.id": f"{app.name}-src"})
    producer.init_transactions(30)
    topic = app.config.topics.clicks

    def send(clicks: list[tuple[bytes, bytes]], partition: int) -> None:
        producer.begin_transaction()
        for key, value in clicks:
            producer.produce(topic, value, key, partition=partition)
        producer.flush(10)

    send(CLICKS[:100], 0)
    producer.commit_transaction(30)
    send(CLICKS[:100], 1)
    producer.commit_transaction(30)
    # Begins after these: one partition stays at a marker, the other goes on.
    worker = app.worker(start__position="latest").running()
    send(CLICKS[100:200], 0)
    producer.abort_transaction(30)
    send(CLICKS[200:300], 0)
    producer.commit_transaction(30)
    place = app.config.topics.clicks, 0
    worker.until(lambda: app.group_offsets()[place] > 200, "the committed clicks")
    worker.stop()
    clicked = {json.loads(value)["item_id"].encode() for _, value in CLICKS[200:300]}
    assert contents(app.config).rows.keys() == clicked
    # A new folder: both partitions are folded again up to where they were.
    app.worker(state__dir=app.folder / "again").running().stop()


def write_log(path: Path, clicks: list[tuple[bytes, bytes]]) -> Path:
    path.write_bytes(gzip.compress(b"".join(value + b"\n" for _, value in clicks)))
    return path


def test_replay_of_the_same_log_gives_the_same_vectors(counted: App, tmp_path: Path) -> None:
    counted.publish(CLICKS)
    counted.run_to_end()
    log = write_log(tmp_path / "clicks.jsonl.gz", CLICKS)
    replay = counted.command("replay", str(log), "--out", str(tmp_path / "out"), "--publish", "all")
    assert replay.wait() == 0, replay.output
    lines = (tmp_path / "out" / "vectors.jsonl").read_bytes().splitlines()
    replayed = [msgspec.json.decode(line) for line in lines]
    names = ("item_id", "vector", "context", "cluster", "buckets", "updates", "ts", "space")

    def told(records: list[dict[str, object]]) -> list[list[object]]:
        return [[r.get(name) for name in names] for r in records if r["vector"] is not None]

    assert told(replayed) == told(vectors(counted))
    assert len(told(replayed)) > 200


@pytest.mark.parametrize(
    ("point", "when"),
    [
        ("adopt", "after"),
        pytest.param("produce", "middle", marks=pytest.mark.long),
        ("commit", "after"),
    ],
)
def test_a_replayed_folder_starts_a_worker_even_if_its_first_commit_is_killed(
    counted: App, tmp_path: Path, point: str, when: str
) -> None:
    log = write_log(tmp_path / "clicks.jsonl.gz", CLICKS)
    replay = counted.command("replay", str(log), "--out", str(tmp_path / "out"))
    assert replay.wait() == 0, replay.output
    lines = (tmp_path / "out" / "vectors.jsonl").read_bytes().splitlines()
    replayed = {r["item_id"]: r for r in map(msgspec.json.decode, lines)}
    (tmp_path / "out" / "state").rename(counted.state)
    marker = tmp_path / "marker"
    plan = {"point": point, "when": when, "call": 1, "marker": str(marker)}
    assert counted.worker(plan=plan).wait() == -signal.SIGKILL
    assert marker.exists()
    worker = counted.worker().running()
    published = {v["item_id"]: v for v in vectors(counted)}
    assert published.keys() == replayed.keys()
    for item, vector in published.items():
        assert vector["cluster"] == replayed[item]["cluster"]
        assert vector["version"] > replayed[item]["version"]
    more = as_records(islice(SHOP.clicks(START_MS + 4_000_000, 0.5), 400))
    counted.publish(more)
    worker.until(counted.caught_up, "clicks after the replayed ones")
    worker.stop()
    last = {m.key(): m.value() for m in counted.read(counted.config.topics.model_state)}
    rows = {k: v for k, v in last.items() if v is not None and not (k or b"").startswith(b"\xff")}
    assert contents(counted.config).rows == rows
    # The model is in Kafka now: the folder is a cache like any other.
    wanted = contents(counted.config)
    assert sum(len(row[3]) for row in wanted.graph.values()) > 500
    shutil.rmtree(counted.state)
    counted.worker().running().stop()
    assert_same(contents(counted.config), wanted)


def test_a_refused_start_leaves_a_replayed_folder_as_it_was(counted: App, tmp_path: Path) -> None:
    counted.publish(CLICKS)
    counted.run_to_end()
    log = write_log(tmp_path / "clicks.jsonl.gz", CLICKS[:600])
    replay = counted.command("replay", str(log), "--out", str(tmp_path / "out"))
    assert replay.wait() == 0, replay.output
    folder = tmp_path / "out" / "state"

    def held() -> dict[str, dict[bytes, bytes]]:
        store = Store(folder)
        families = {name: store.everything(name) for name in FAMILIES}
        store.close()
        return families

    before = held()
    taken = counted.worker(state__dir=folder)
    assert taken.wait() == 3, "the topics have a model already"
    assert "already has the model of a worker" in taken.output
    assert held() == before
    fresh = {"topics__model_state": f"{counted.name}-other", "state__dir": folder}
    topic = NewTopic(f"{counted.name}-other", 1, config={"cleanup.policy": "compact"})
    counted.admin.create_topics([topic])[topic.topic].result()
    other = counted.worker(**fresh, topics__check=False, model__dim=32)
    assert other.wait() == 3, "the vectors of the replay have another space"
    assert "model.dim is 16 there and 32 here" in other.output
    assert held() == before


def answers(port: int, page: str) -> tuple[int, str]:
    """Status and text of a page of the worker; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_worker_that_was_away_says_that_it_is_behind_from_the_start(app: App) -> None:
    app.publish(CLICKS[:200])
    app.run_to_end()
    hours_ago = int(time.time() * 1000) - 7_200_000
    producer = Producer({"bootstrap.servers": app.servers, "partitioner": "murmur2_random"})
    for number in range(10_000):
        key, value = CLICKS[number % 2000]
        producer.produce(app.config.topics.clicks, value, key, timestamp=hours_ago + number)
    assert producer.flush(30) == 0
    port = free_port()
    worker = app.worker(metrics__port=port, round__max_events=200)
    seen: set[int] = set()

    def caught_up() -> bool:
        status, text = answers(port, "readyz")
        if "restoring" not in text and status:
            seen.add(status)
            ends, done = app.ends(app.config.topics.clicks), app.group_offsets()
            # What is read, and not committed yet, is no lag: some commits of 200 clicks a round.
            assert status == 503 or sum(ends.values()) - sum(done.values()) < 5000, text
        return status == 200

    worker.until(caught_up, "the worker to be ready")
    assert seen == {503, 200}
    worker.stop()


def test_records_that_are_all_bad_do_not_look_fresh(app: App) -> None:
    port = free_port()
    worker = app.worker(metrics__port=port).running()
    app.publish([(b"k", b"no json")] * 50)
    worker.until(app.caught_up, "all records committed")
    wait_until(lambda: worker.metric(port, "rounds_total") > 0, "a round")
    assert worker.metric(port, "events_total") == 0
    assert math.isnan(worker.metric(port, "newest_click_timestamp_seconds"))
    assert worker.metric(port, "staleness_seconds_count") == 0
    app.publish(CLICKS[:10])
    wait_until(lambda: worker.metric(port, "staleness_seconds_count") == 10, "good clicks")
    assert worker.metric(port, "newest_click_timestamp_seconds") == pytest.approx(
        time.time(), abs=60
    )
    worker.stop()


def clicks_behind(port: int) -> float:
    """The lag of all partitions of the clicks, as /metrics tells it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(one.split()[-1]) for one in lines if one.startswith("walkstream_lag{"))


def test_what_comes_while_a_commit_hangs_is_behind(app: App, tmp_path: Path) -> None:
    port, marker = free_port(), tmp_path / "marker"
    seconds = 8.0
    plan = {"point": "offsets", "when": "before", "call": 2, "sleeps": seconds}
    worker = app.worker(plan=plan | {"marker": str(marker)}, metrics__port=port).running()
    app.publish(CLICKS[:200])
    worker.until(app.caught_up, "the first commit")
    app.publish(CLICKS[200:400])
    worker.until(marker.exists, "a commit that hangs")
    begun = time.monotonic()
    app.publish(CLICKS[400:600])  # rounds until the next commit closes
    time.sleep(0.5)
    app.publish(CLICKS[600:1000])
    worker.until(lambda: clicks_behind(port) >= 300, "clicks that wait for it")
    assert time.monotonic() - begun < seconds - 2.0, "the commit was over, or nearly"
    worker.until(app.caught_up, "all the same")
    worker.stop()
