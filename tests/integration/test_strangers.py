"""Records of `model-state` whose keys no worker writes, with values that one might have written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from core.rows import from_values, to_values
from streamer.state import folders, records
from streamer.state.model_state import is_ours
from streamer.state.store import Store
from tests.folders import row_table
from tests.integration.models import (
    CLICKS,
    EXACT,
    counted,
    newest_vectors,
    published,
    refused,
    repair,
)
from tests.support import App

FIVE = msgspec.msgpack.encode(5)
PROGRESS = msgspec.msgpack.encode(records.Progress(5, 5, 5, 5))
MALFORMED = {
    records.FORMER_APP + b"zz": b"\x01",
    records.FORMER_APP + b"ff": b"\x01",
    records.FORGOTTEN + b"somebody": b"\x01",
    records.PROGRESS + b"x": PROGRESS,
    records.PROGRESS + b"clicks/one": PROGRESS,
    records.PROGRESS + b"\xff/1": PROGRESS,
    records.ITEMS + b"x": FIVE,
    records.ITEMS + b"items/-1": FIVE,
    records.VERSION: FIVE,
    records.VERSION + b"abc": FIVE,
}


@pytest.mark.parametrize("key", MALFORMED)
def test_a_key_that_only_begins_as_a_reserved_one_is_nothing_that_a_worker_writes(
    key: bytes,
) -> None:
    assert not is_ours(key, MALFORMED[key])


def test_keys_that_workers_write_are_well_formed() -> None:
    for key in (
        records.progress_key("a.topic_of-mine", 12), records.items_key("items", 0),
        records.version_key(0), records.SPACE, records.FORMER_APP + "käse".encode().hex().encode(),
        records.FORGOTTEN + b"0123456789abcdef" * 2, b"progress/x", b"\xffattr/version=x",
    ):  # fmt: skip
        assert not records.is_malformed(key)


def test_a_folder_in_which_an_older_version_kept_such_keys_can_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.set_meta(MALFORMED | {records.progress_key("clicks", 1): PROGRESS})
    assert store.progress().keys() == {("clicks", 1)}
    assert (store.items_taken(), store.versions(), store.forgotten()) == ({}, {}, frozenset())
    store.close()


def test_records_under_malformed_keys_are_named_and_a_repair_deletes_them(
    kafka: str, tmp_path: Path
) -> None:
    with App(kafka, tmp_path, EXACT) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        producer, topic = Producer({"bootstrap.servers": kafka}), app.config.topics.model_state
        others = {b"\xfe\xfe": b"garbage", b"\xffattr/x=y": b"garbage"}
        odd = MALFORMED | others | {records.VERSION + b"99": b"garbage", records.SPACE: b"garbage"}
        for number, (key, value) in enumerate(odd.items()):
            partition = 0 if key == records.SPACE else number % 2
            producer.produce(topic, value, key, partition=partition)
        assert producer.flush(10) == 0
        told = f"{topic}[", "the record at offset", "--repair"
        refused(app.command("topics", "check"), *told)
        refused(app.worker("--dry-run"), *told)
        refused(app.worker(), *told)
        repair(app)
        assert newest_vectors(app) == published(app)
        living = {m.key(): m.value() for m in app.read(topic)}
        assert not [key for key in odd if living[key] is not None and key != records.SPACE]
        check = app.command("topics", "check")
        assert check.wait() == 0, check.output
        fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
        app.worker(**fresh).running().stop()


def test_records_of_no_commit_are_nothing_that_a_worker_writes(kafka: str, tmp_path: Path) -> None:
    """However well they are formed: a row of numbers that are none would spread over all others."""
    with App(kafka, tmp_path, EXACT) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        topic = app.config.topics.model_state
        before = {m.key(): (m.partition(), m.value()) for m in app.read(topic)}
        with folders.reading(app.state) as store:
            dtype = store.dtype
        item = next(key for key in before if key and records.is_item(key) and before[key][1])
        row = from_values([before[item][1] or b""], dtype).copy()
        row["version"], row["v"] = 10**6, np.nan
        producer = Producer({"bootstrap.servers": kafka})
        names = records.SWEPT, records.MARKS, records.FUSION, records.VERSION + b"0"
        odd = {item: to_values(row)[0]} | {n: before[n][1] for n in names if n in before}
        assert len(odd) > 3
        for key, value in odd.items():
            producer.produce(topic, value, key, partition=before[key][0] or 0)
        assert producer.flush(10) == 0
        refused(app.worker(), f"{topic}[", "the record at offset", "--repair")
        repair(app)
        assert newest_vectors(app) == published(app)
        app.publish(CLICKS[200:300])
        app.run_to_end()
        assert newest_vectors(app) == published(app)
        fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
        app.worker(**fresh).running().stop()


def test_what_others_write_to_the_evidence_is_told_and_passed_over(
    kafka: str, tmp_path: Path
) -> None:
    with App(kafka, tmp_path, EXACT | {"commit.seconds": 0.2, "round.max_seconds": 0.1}) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        topic = app.config.topics.transitions
        producer = Producer({"bootstrap.servers": kafka})
        worker = app.worker().running()
        for value in b"garbage", b"", b"\x01notzlib":
            producer.produce(topic, value, partition=0)
        assert producer.flush(10) == 0
        told = f"{topic}[0]: the record at offset", "is of no commit"
        app.publish(CLICKS[200:400])
        worker.until(app.caught_up, "the clicks behind it")
        worker.until(lambda: all(text in worker.output for text in told), "a word of it")
        worker.stop()
        fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
        again = app.worker(**fresh).running()
        assert all(text in again.output for text in told), again.output
        again.stop()
        assert counted(app) == 400
        app.state.rename(tmp_path / "old")
        (tmp_path / "fresh").rename(app.state)
        assert counted(app) == 400


def copies(app: App, chosen: Callable[[bytes], bool]) -> list[tuple[int, bytes, bytes | None]]:
    """What `model-state` has under such keys, as somebody would write it once more."""
    found = {m.key() or b"": m for m in app.read(app.config.topics.model_state)}
    return [
        (m.partition() or 0, key, m.value())
        for key, m in found.items()
        if m.value() is not None and chosen(key)
    ]


def is_graph(key: bytes) -> bool:
    return key.startswith((records.GRAPH, records.SESSIONS))


CASES: dict[str, Callable[[App], list[tuple[int, bytes, bytes | None]]]] = {
    "copies": lambda app: copies(app, lambda key: not key.startswith(records.FORGOTTEN)),
    "graph": lambda app: copies(app, is_graph),
    "garbage over the graph": lambda app: [
        (partition, key, b"garbage") for partition, key, _ in copies(app, is_graph)
    ],
    "elsewhere": lambda app: [
        (1 - partition, key, value)
        for partition, key, value in copies(app, lambda key: not records.is_row(key))
    ],
    "deletions": lambda app: [
        (partition, key, None) for partition, key, _ in copies(app, lambda key: True)
    ],
}


OFTEN = "garbage over the graph", "elsewhere", "deletions"
"""The cases of each run. Copies in their own places say less than those that lie elsewhere."""


@pytest.mark.parametrize(
    "case",
    [case if case in OFTEN else pytest.param(case, marks=pytest.mark.long) for case in CASES],
)
def test_a_repair_leaves_all_that_workers_wrote(kafka: str, tmp_path: Path, case: str) -> None:
    """Also a folder that is made anew of it has all clicks, and the rows as they were."""
    with App(kafka, tmp_path, EXACT) as app:
        app.publish(CLICKS[:300])
        app.run_to_end()
        producer, topic = Producer({"bootstrap.servers": kafka}), app.config.topics.model_state
        for partition, key, value in CASES[case](app):
            producer.produce(topic, value, key, partition=partition)
        assert producer.flush(10) == 0
        refused(app.worker(), f"{topic}[", "the record at offset", "--repair")
        repair(app)
        known, vectors = vectors_of(app), newest_vectors(app)
        assert (counted(app), vectors) == (300, published(app))
        fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
        app.worker(**fresh).running().stop()
        app.state.rename(tmp_path / "old")
        (tmp_path / "fresh").rename(app.state)
        assert (counted(app), vectors_of(app), published(app)) == (300, known, vectors)
        app.publish(CLICKS[300:400])
        app.run_to_end()
        assert counted(app) == 400


def vectors_of(app: App) -> dict[bytes, bytes]:
    """What was learned of each item, in the folder."""
    keys, rows = row_table(app.config)
    return {key: row["v"].tobytes() for key, row in zip(keys, rows, strict=True)}


def test_a_repair_deletes_what_lies_where_no_worker_writes(kafka: str, tmp_path: Path) -> None:
    """Rows and vectors in the wrong partitions, and deletions of what is in no model."""
    with App(kafka, tmp_path, EXACT) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        topics = app.config.topics
        rows = copies(app, records.is_item)[:3]
        producer = Producer({"bootstrap.servers": kafka})
        for (partition, key, value), odd in zip(rows, (b"garbage", None, ...), strict=True):
            wrong = value if odd is ... else odd
            producer.produce(topics.model_state, wrong, key, partition=1 - partition)
        for key in b"nobody", b"", b"\xc3\x28":
            producer.produce(topics.model_state, None, key, partition=0)
        vectors = {m.key() or b"": m for m in app.read(topics.item_vectors)}
        item, vector = next(iter(vectors.items()))
        stray = 1 - (vector.partition() or 0)
        producer.produce(topics.item_vectors, vector.value(), item, partition=stray)
        assert producer.flush(10) == 0
        refused(app.worker(), "the record at offset", "--repair")
        repair(app)
        there = [m for m in app.read(topics.item_vectors) if m.key() == item]
        assert [m.value() for m in there if m.partition() == stray][-1] is None
        fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
        app.worker(**fresh).running().stop()
        app.state.rename(tmp_path / "old")
        (tmp_path / "fresh").rename(app.state)
        assert counted(app) == 200
