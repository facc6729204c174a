"""Records of `model-state` whose keys no worker writes, with values that one might have written."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from streamer.state import records
from streamer.state.model_state import is_ours
from streamer.state.store import Store
from tests.integration.models import CLICKS, EXACT, newest_vectors, published, refused, repair
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
    assert (store.items_taken(), store.versions(), store.forgotten()) == ({}, {}, set())
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
