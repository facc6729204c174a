"""What is too much for one commit leaves with several, also where a worker dies between them."""

import shutil
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Message

from streamer.demo.shop import Shop
from streamer.state import records
from streamer.state.commits import Manifest
from tests.folders import Contents, contents, counts
from tests.integration.models import newest_vectors, published, recreate, refused
from tests.support import START_MS, App, as_records

MOST = 4000
SETTINGS: dict[str, object] = {
    "topics.partitions": 2,
    "commit.max_records": MOST,
    "commit.seconds": 0.1,
    "round.max_seconds": 0.05,
    "checkpoint.seconds": 0.2,
    "graph.half_life": "36500d",
    "model.attribute_slots": 1,
    "major.every": 0,
}
CLICKS = as_records(islice(Shop(5, products=3000, users=300).clicks(START_MS, 5.0), 10_000))


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SETTINGS) as app:
        yield app


@pytest.fixture
def learned(app: App) -> App:
    """An app that has learned most of the clicks."""
    app.publish(CLICKS[:9000])
    app.run_to_end()
    assert len(published(app)) > 1900
    return app


def killed(app: App, *options: str, call: int) -> None:
    """A worker that ends when a commit after the first is through."""
    plan = {"point": "commit", "when": "after", "call": call, "marker": str(app.folder / "killed")}
    worker = app.worker(*options, plan=plan)
    assert worker.wait() == -signal.SIGKILL, worker.output


def sizes(app: App) -> list[int]:
    """How many records each commit has."""
    messages: list[Message] = app.read(app.config.topics.model_state)
    values = [
        message.value() or b"" for message in messages if records.is_manifest(message.key() or b"")
    ]
    manifests = [msgspec.msgpack.decode(value, type=Manifest) for value in values]
    return [
        1 + sum(part.size for told in one.topics.values() for part in told.partitions)
        for one in manifests
    ]


def assert_comes_back(app: App, wanted: Contents) -> None:
    """A new folder has the same from Kafka. Vectors that had not moved far are learned again."""
    shutil.rmtree(app.state)
    app.worker().running().stop()
    after = contents(app.config)
    for name in ("rows", "attributes"):
        assert getattr(after, name).keys() == getattr(wanted, name).keys()
    for name in ("graph", "sessions"):
        assert getattr(after, name) == getattr(wanted, name)


def test_a_replayed_folder_becomes_a_cache_when_all_of_it_is_in_kafka(
    app: App, tmp_path: Path
) -> None:
    log = tmp_path / "clicks.jsonl"
    log.write_bytes(b"".join(value + b"\n" for _, value in CLICKS[:9000]))
    replay = app.command("replay", str(log), "--out", str(tmp_path / "out"))
    assert replay.wait() == 0, replay.output
    (tmp_path / "out" / "state").rename(app.state)
    killed(app, call=2)
    lost = tmp_path / "lost"
    refused(app.worker(state__dir=lost), str(lost), "the state folder is gone", "Put the folder")
    app.publish(CLICKS[9000:9500])
    worker = app.worker()
    worker.until(lambda: "everything was published again" in worker.output, "all of the folder")
    worker.until(app.caught_up, "clicks after the replayed ones")
    worker.stop()
    assert max(sizes(app)) <= MOST
    assert newest_vectors(app) == published(app)
    assert round(sum(counts(app.config).values())) == 9500
    wanted = contents(app.config)
    assert_comes_back(app, wanted)


def test_a_repair_that_was_killed_goes_on_by_itself(learned: App) -> None:
    wanted, topic = contents(learned.config), learned.config.topics.item_vectors
    recreate(learned, topic)
    killed(learned, "--repair", call=1)
    assert len(newest_vectors(learned)) < len(wanted.rows)
    worker = learned.worker()
    worker.until(lambda: "repaired: all rows and vectors" in worker.output, "the repair")
    worker.stop()
    assert max(sizes(learned)) <= MOST
    assert newest_vectors(learned) == published(learned)
    assert contents(learned.config).graph == wanted.graph


def test_a_model_made_anew_comes_from_the_folder_alone_until_all_of_it_is_there(
    learned: App, tmp_path: Path
) -> None:
    wanted, topic = contents(learned.config), learned.config.topics.model_state
    recreate(learned, topic)
    killed(learned, "--repair", call=2)
    lost = tmp_path / "lost"
    refused(learned.worker(state__dir=lost), str(lost), "the state folder is gone")
    worker = learned.worker()
    worker.until(lambda: "repaired: all rows and vectors" in worker.output, "the repair")
    worker.stop()
    assert_comes_back(learned, wanted)


def test_evidence_made_anew_is_needed_only_since_then(learned: App) -> None:
    """What a worker that was stopped well has in its folder is all that there was."""
    wanted, topic = contents(learned.config), learned.config.topics.transitions
    recreate(learned, topic)
    refused(learned.worker(), f"{topic}: its id was", "--accept-loss")
    learned.worker("--accept-loss").running().stop()
    assert contents(learned.config).graph == wanted.graph
    learned.publish(CLICKS[9000:])
    worker = learned.worker()
    worker.until(learned.caught_up, "the last clicks")
    worker.kill()
    learned.worker().running().stop()
    assert round(sum(counts(learned.config).values())) == 10_000


def test_a_catalogue_comes_in_over_commits_and_clicks_come_first(app: App) -> None:
    items = [b"thing-%04d" % n for n in range(3000)]
    app.describe(
        (item, b'{"item_id":"%s","attributes":{"category":"c%d"}}' % (item, n % 700))
        for n, item in enumerate(items)
    )
    app.publish(CLICKS[:500])
    killed(app, call=3)
    worker = app.worker()
    worker.until(app.caught_up, "the clicks")

    def taken() -> bool:
        ends = app.ends(app.config.topics.items)
        read = app.read(app.config.topics.model_state)
        last = {m.key(): m.value() for m in read if (m.key() or b"").startswith(records.ITEMS)}
        at = [msgspec.msgpack.decode(value or b"", type=int) for value in last.values()]
        return sum(at) == sum(ends.values())

    worker.until(taken, "the catalogue")
    app.describe((item, None) for item in items[:1500])
    worker.until(taken, "the retirements")
    worker.stop()
    assert max(sizes(app)) <= MOST
    vectors = newest_vectors(app)
    assert vectors == published(app)
    assert vectors.keys() >= set(items[1500:])
    assert vectors.keys().isdisjoint(items[:1500])
    wanted = contents(app.config)
    assert wanted.attributes.keys() == set(items[1500:])
    assert_comes_back(app, wanted)
