"""Apps with a model, and what tests ask of it: whose it is, what it counted and published."""

import time
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec
from confluent_kafka.admin import NewPartitions

from streamer.demo.shop import Shop
from streamer.kafka import topics
from streamer.state import records
from streamer.state.records import Space
from tests.folders import counts, row_table
from tests.support import START_MS, App, Process, as_records, wait_until

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1600))
SETTINGS: dict[str, object] = {
    "topics.partitions": 2,
    "commit.seconds": 0.2,
    "round.max_seconds": 0.1,
    "major.every": 0,
}
EXACT: dict[str, object] = {**SETTINGS, "graph.half_life": "36500d"}
"""With these `counted` is exact: nothing fades."""


def header_of(app: App) -> Space:
    """The last header in `model-state`."""
    read = app.read(app.config.topics.model_state)
    values = [message.value() or b"" for message in read if message.key() == records.SPACE]
    return msgspec.msgpack.decode(values[-1], type=Space)


def counted(app: App) -> int:
    """How many clicks the graph of the stopped worker has counted."""
    return round(sum(counts(app.config).values()))


def newest_vectors(app: App) -> dict[bytes, int]:
    """The version of the vector that a reader of all partitions ends up with, by item."""
    out: dict[bytes, int] = {}
    for message in app.read(app.config.topics.item_vectors):
        value = message.value()
        out[message.key() or b""] = 0 if value is None else msgspec.json.decode(value)["version"]
    return {key: version for key, version in out.items() if version}


def published(app: App) -> dict[bytes, int]:
    keys, rows = row_table(app.config)
    versions = dict(zip(keys, rows["published"].tolist(), strict=True))
    return {key: version for key, version in versions.items() if version > 0}


def recreate(app: App, topic: str, partitions: int | None = None) -> None:
    names = replace(app.config.topics, partitions=partitions or app.config.topics.partitions)
    app.admin.delete_topics([topic])[topic].result()
    wait_until(lambda: topic not in app.admin.list_topics(timeout=10).topics, "the deletion")
    topics.create(app.admin, topics.specs(replace(app.config, topics=names)))


def grow(app: App, topic: str, partitions: int) -> None:
    app.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()
    wait_until(lambda: len(app.partitions(topic)) == partitions, "the new partitions")


def repair(app: App) -> None:
    """A start that publishes all once more."""
    worker = app.worker("--repair").running()
    worker.until(lambda: "repaired: all rows and vectors" in worker.output, "the repair")
    worker.stop()


def refused(worker: Process, *parts: str, code: int = 3) -> None:
    assert worker.wait() == code, worker.output
    for part in parts:
        assert part in worker.output, worker.output
    assert "Traceback" not in worker.output


def hand_over(app: App, old: str, **changed: Any) -> None:
    """Hand the model over, once the session of the worker that has it has ended."""
    handed: list[Process] = []

    def is_handed_over() -> bool:
        handed.append(app.command("hand-over", "--from", old, **changed))
        code = handed[-1].wait()
        assert code == 0 or (code == 3 and "has a member" in handed[-1].output), handed[-1].output
        if code != 0:
            time.sleep(0.5)  # each try is a process
        return code == 0

    wait_until(is_handed_over, "the end of the session")
    new = changed.get("app__name", app.name)
    assert f"is the model of app {new} now" in handed[-1].output
