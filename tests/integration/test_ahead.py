"""Records dated ahead, timestamp included, in a topic whose broker lets them pass."""

import json
import shutil
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from core.settings import DAY_MS
from tests.support import App, wait_until

ITEMS, YEAR_2099 = 40, 4_070_908_800_000
AFTER = "message.timestamp.after.max.ms"


def unbounded(app: App) -> None:
    """As brokers before 3.6 are, and those of others by their settings."""
    entry = ConfigEntry(AFTER, str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    topic = app.config.topics.clicks
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    app.admin.incremental_alter_configs([change])[change].result()

    def seen() -> bool:
        asked = ConfigResource(ResourceType.TOPIC, topic)
        return bool(
            app.admin.describe_configs([asked])[asked].result()[AFTER].value == str(2**63 - 1)
        )

    wait_until(seen, "the broker shows the change")


def send(app: App, clicks: list[tuple[str, str, int]], partition: int = -1) -> None:
    producer = Producer({"bootstrap.servers": app.servers, "linger.ms": 5})
    for user, item, ms in clicks:
        value = json.dumps({"user_id": user, "item_id": item, "ts": ms})
        producer.produce(app.config.topics.clicks, value, user, partition, timestamp=ms)
    assert producer.flush(30) == 0


@pytest.mark.timeout(300)
def test_one_record_that_is_dated_ahead_retires_nothing(kafka: str, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    usual = [
        (f"u{n // 10}", f"i{n * 7 % ITEMS}", now - 2 * DAY_MS + n * DAY_MS // 400)
        for n in range(600)
    ]
    settings = {
        "topics.partitions": 1, "graph.half_life": "7d", "graph.horizon": "56d",
        "session.gap": "30m", "major.every": "0s",
    }  # fmt: skip
    with App(kafka, tmp_path, settings) as app:
        unbounded(app)
        send(app, usual[:300])
        worker = app.worker()
        worker.until(app.caught_up, "the first half")
        # One in the life that has seen the clicks before it, one in a life that has not.
        send(app, [("odd", "i0", YEAR_2099), *usual[300:450]])
        worker.until(app.caught_up, "what follows the first")
        worker.kill()
        send(app, [("odd", "i1", usual[450][2] + 60 * DAY_MS), *usual[450:]])
        app.run_to_end()
        letters = app.read(app.config.topics.dead_letters)
        told = [dict(letter.headers() or []) for letter in letters]
        assert [one["error.class"] for one in told] == [b"bad_time"] * 2
        assert all(b"clicks.max_ahead is 14 days" in (one["error.message"] or b"") for one in told)
        for rebuilt in (False, True):
            if rebuilt:
                shutil.rmtree(app.state)
                app.worker().running().stop()
            vectors = app.read(app.config.topics.item_vectors)
            assert all(vector.value() is not None for vector in vectors)
            assert {vector.key() for vector in vectors} == {f"i{n}".encode() for n in range(ITEMS)}
            assert max(p.time for p in app.progress().values()) == usual[-1][2]
        assert len(app.read(app.config.topics.dead_letters)) == 2
        # A partition of which nothing is known, but that the model has reached a time.
        clicks = app.config.topics.clicks
        app.admin.create_partitions([NewPartitions(clicks, 2)])[clicks].result()
        wait_until(lambda: len(app.partitions(clicks)) == 2, "the second partition")
        send(app, [("odd", "i2", YEAR_2099)], partition=1)
        app.run_to_end()
        assert len(app.read(app.config.topics.dead_letters)) == 3
        assert max(p.time for p in app.progress().values()) == usual[-1][2]
