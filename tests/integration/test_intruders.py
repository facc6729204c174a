"""What others do to the topics and to the model of an app, and what its worker says of it."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamer.state import records
from streamer.state import store as stores
from streamer.state.store import Store
from tests.integration.models import (
    CLICKS,
    SETTINGS,
    hand_over,
    newest_vectors,
    published,
    refused,
    repair,
)
from tests.support import App


@pytest.fixture
def learned(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        yield app


def test_records_that_no_worker_wrote_are_named_and_a_repair_writes_over_them(
    learned: App, tmp_path: Path
) -> None:
    topic, key = learned.config.topics.model_state, next(iter(published(learned)))
    where = next(m.partition() for m in learned.read(topic) if m.key() == key) or 0
    producer = Producer({"bootstrap.servers": learned.servers})
    producer.produce(topic, b"{}", b"no-item", partition=1)
    producer.produce(topic, b"\x02garbage of some length", key, partition=where)
    reserved = records.SPACE, records.MANIFEST, records.PROGRESS + b"?", records.ITEMS + b"a/b"
    for name in reserved:
        producer.produce(topic, b"garbage", name, partition=0)
    assert producer.flush(10) == 0
    fresh: dict[str, Any] = {"state__dir": tmp_path / "fresh"}
    renamed: dict[str, Any] = {"app__name": f"{learned.name}-new"}
    told = f"{topic}[", "the record at offset", "with key b'\\xff", "worker --repair"
    for process in learned.command("topics", "check"), learned.worker("--dry-run", **fresh):
        refused(process, *told)
    for changed in {}, {}, fresh:  # it is told again by a start that has read it already
        refused(learned.worker(**changed), f"{topic}[", "the record at offset", "--repair")
    # Who was refused has left the group, or this would be told of a member.
    refused(learned.command("hand-over", "--from", learned.name, **renamed), *told)
    repair(learned)
    for process in learned.command("topics", "check"), learned.worker("--dry-run", **fresh):
        refused(process, code=0)
    assert newest_vectors(learned) == published(learned)
    assert key in newest_vectors(learned)
    # The records lie in the log until it is compacted.
    learned.worker(**fresh).running().stop()


def test_an_app_does_not_begin_to_publish_where_another_one_does(learned: App) -> None:
    topic = learned.config.topics.item_vectors
    second = App(learned.servers, learned.folder, SETTINGS)
    with second:
        second.settings = {**second.settings, "topics.item_vectors": topic}
        told = f"has a record by app '{learned.name}'"
        refused(second.command("topics", "check"), topic, told)
        refused(second.worker("--dry-run"), topic, told)
        refused(second.worker(), topic, told, "topics.item_vectors")
        assert second.read(second.config.topics.model_state) == []
    learned.publish(CLICKS[200:400])
    learned.run_to_end()


def test_a_worker_whose_model_was_handed_over_while_it_stood_still_says_so(learned: App) -> None:
    worker, name = learned.worker().running(), f"{learned.name}-new"
    worker.popen.send_signal(signal.SIGSTOP)
    changed: dict[str, Any] = {"app__name": name, "state__dir": learned.folder / "new"}
    hand_over(learned, learned.name, **changed)
    worker.popen.send_signal(signal.SIGCONT)
    refused(worker, f"was handed over to app '{name}'", "do not start it again")
    refused(learned.worker("--repair"), f"model of app '{name}'")
    store = Store(learned.state)
    assert store.meta(stores.REPAIR) is None, "a repair that was refused is not done later"
    store.close()
