"""How a worker comes back: the table of what a restart may find, one worker."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from rocksdict import AccessType, Options, Rdict

from core.rows import FORMAT, row_dtype, to_values
from streamer import records
from streamer import store as stores
from streamer.demo.shop import Shop
from streamer.kafka import clients
from streamer.records import Space
from streamer.store import Store
from streamer.worker import tail
from streamer.worker.tail import Tail
from tests.support import (
    DETERMINISTIC,
    START_MS,
    App,
    Contents,
    as_records,
    assert_same,
    contents,
    wait_until,
)

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 2400))


def committed(app: App) -> Contents:
    """Publish the first 1600 clicks, four commits; what the folder of the stopped worker holds."""
    app.publish(CLICKS[:1600])
    app.run_to_end()
    return contents(app.config)


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {**DETERMINISTIC, "major.every": 0}) as app:
        yield app


@pytest.fixture(scope="module")
def stopped(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, Contents]]:
    """An app that tests may start, break and mend, as long as they leave its topics alone."""
    settings = {**DETERMINISTIC, "major.every": 0}
    with App(kafka, tmp_path_factory.mktemp("stopped"), settings) as app:
        yield app, committed(app)


FIRST_KEYS = {"rows": b"sku-0000", "graph": bytes(4), "sessions": b"user-", "meta": b"applied-at"}
"""How the first key of a column family begins, by which its file is known."""


def file_of(app: App, family: str) -> Path:
    """The largest file of a column family of a stopped worker."""
    options = Options(raw_mode=True)
    families = dict.fromkeys(Rdict.list_cf(str(app.state)), options)
    db = Rdict(str(app.state), options, families, access_type=AccessType.read_only())
    found = [f for f in db.live_files() if is_first(family, f["start_key"])]
    db.close()
    return app.state / max(found, key=lambda f: int(f["size"]))["name"].lstrip("/")


def is_first(family: str, key: bytes) -> bool:
    first = FIRST_KEYS[family]
    return key == first if family == "graph" else key.startswith(first)


def garble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    data[at : at + 16] = bytes(byte ^ 0xFF for byte in data[at : at + 16])
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("damaged", ["rows", "graph", "sessions", "meta", "cut rows", "MANIFEST"])
def test_an_unreadable_folder_is_moved_aside_and_the_next_start_rebuilds_it(
    stopped: tuple[App, Contents], damaged: str
) -> None:
    app, wanted = stopped
    if damaged == "MANIFEST":
        for path in app.state.glob("MANIFEST-*"):
            cut(path)
    elif damaged == "cut rows":
        cut(file_of(app, "rows"))
    else:
        garble(file_of(app, damaged))
    worker = app.worker()
    assert worker.wait() == 5, worker.output
    (aside,) = app.state.glob("corrupt-*")
    assert str(aside) in worker.output
    assert list(app.state.iterdir()) == [aside]
    app.worker().running().stop()
    assert_same(contents(app.config), wanted)
    shutil.rmtree(aside)


def test_a_folder_ahead_of_the_topic_is_not_used(stopped: tuple[App, Contents]) -> None:
    app, _ = stopped
    store = Store(app.state)
    topic = app.config.topics.model_state
    store.set_meta({stores.TAIL + f"{topic}/0".encode(): msgspec.msgpack.encode(10**9)})
    store.close()
    worker = app.worker()
    assert worker.wait() == 5, worker.output
    assert f"{topic}[0] up to offset 1000000000" in worker.output
    shutil.rmtree(app.state, ignore_errors=True)
    app.worker().running().stop()


def test_a_deleted_folder_comes_back_the_same_with_its_graph(
    stopped: tuple[App, Contents],
) -> None:
    app, wanted = stopped
    shutil.rmtree(app.state)
    app.worker().running().stop()
    assert_same(contents(app.config), wanted)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("model.dim", 32), ("model.seed", 9), ("lsh.tables", 4), ("lsh.family", "p-stable")],
)
def test_a_configuration_that_does_not_fit_the_space_is_refused_by_name(
    stopped: tuple[App, Contents], setting: str, value: object
) -> None:
    app, _ = stopped
    worker = app.worker(**{setting.replace(".", "__"): value})
    assert worker.wait() == 3, worker.output
    assert f"{setting} is " in worker.output
    assert "settling" not in worker.output  # known before the kernels compile
    assert "Traceback" not in worker.output


def test_a_topic_that_does_not_fit_is_refused_by_its_setting(app: App) -> None:
    resource = ConfigResource(ResourceType.TOPIC, app.config.topics.clicks)
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(entry)
    for future in app.admin.incremental_alter_configs([resource]).values():
        future.result()
    worker = app.worker()
    assert worker.wait() == 3, worker.output
    assert f"topic {app.config.topics.clicks}: cleanup.policy is compact" in worker.output
    assert not app.state.exists()


def test_clicks_that_retention_took_before_they_were_read_are_refused_until_accepted(
    app: App,
) -> None:
    committed(app)
    clicks = app.config.topics.clicks
    app.publish(CLICKS[1600:2000])
    for future in app.admin.delete_records([TopicPartition(clicks, 0, 1700)]).values():
        future.result()
    worker = app.worker()
    assert worker.wait() == 3, worker.output
    assert f"{clicks}[0]: clicks from offset 1600 to 1700" in worker.output
    assert "--accept-loss" in worker.output
    worker = app.worker("--accept-loss")
    worker.running()
    assert "from offset 1600 to 1700 are lost" in worker.output
    app.publish(CLICKS[2000:2100])
    worker.until(app.caught_up, "the clicks that are left")
    worker.stop()
    assert contents(app.config).progress[clicks, 0].offset == 2100


def test_retention_that_took_processed_clicks_only_is_no_loss(app: App) -> None:
    wanted = committed(app)
    clicks = app.config.topics.clicks
    for future in app.admin.delete_records([TopicPartition(clicks, 0, 1500)]).values():
        future.result()
    app.worker().running().stop()
    assert_same(contents(app.config), wanted)
    shutil.rmtree(app.state)
    app.worker().running().stop()
    # Of the graph there is only what the clicks that are left tell.
    assert_same(contents(app.config), wanted, but=("graph", "sessions", "clock"))


def has_no_members(app: App) -> bool:
    """Only then may others change the offsets of a group."""
    (future,) = app.admin.describe_consumer_groups([app.name]).values()
    return bool(future.result().state == ConsumerGroupState.EMPTY)


def test_group_offsets_that_somebody_moved_are_refused_and_missing_ones_are_no_loss(
    app: App,
) -> None:
    wanted = committed(app)
    place = TopicPartition(app.config.topics.clicks, 0)
    wait_until(lambda: has_no_members(app), "the end of the worker's session")
    moved = ConsumerGroupTopicPartitions(app.name, [TopicPartition(place.topic, 0, 700)])
    for future in app.admin.alter_consumer_group_offsets([moved]).values():
        future.result()
    worker = app.worker()
    assert worker.wait() == 3, worker.output
    assert f"{place.topic}[0]: group {app.name} is at offset 700" in worker.output
    assert "clicks before 1600 are in the model" in worker.output

    wait_until(lambda: has_no_members(app), "the end of the refused worker's session")
    for future in app.admin.delete_consumer_groups([app.name]).values():
        future.result()
    worker = app.worker().running()
    app.publish(CLICKS[1600:2000])
    worker.until(app.caught_up, "the next clicks")
    worker.stop()
    after = contents(app.config)
    assert after.progress[place.topic, 0].offset == 2000
    assert after.progress[place.topic, 0].commit == wanted.progress[place.topic, 0].commit + 1


def test_rows_that_arrive_before_the_header_of_their_space_wait_for_it(
    kafka: str, tmp_path: Path
) -> None:
    """Partitions are read side by side, and only partition 0 has the header."""
    rows = np.zeros(12_000, row_dtype(dim=16, attribute_slots=0, tables=8))
    rows["format"], rows["version"] = FORMAT, 1
    with App(kafka, tmp_path, {"topics.partitions": 4}) as app:
        topic = app.config.topics.model_state
        producer = Producer({"bootstrap.servers": kafka})
        for n, value in enumerate(to_values(rows)):
            producer.produce(topic, value, b"item-%d" % n, partition=1 + n % 3)
        producer.flush(30)
        space = Space.of(app.config.engine_settings, 4)
        producer.produce(topic, msgspec.msgpack.encode(space), records.SPACE, partition=0)
        producer.flush(30)
        store = Store(app.state)
        consumer = clients.tail_consumer(app.config)
        tail = Tail(app.config, store, consumer)
        tail.start(app.admin)
        tail.catch_up(app.admin, lambda share: None)
        consumer.close()
        assert len(store.everything("rows")) == len(rows)
        store.close()


def test_a_folder_that_nothing_happens_to_stays_young(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is level with Kafka, as often as it finds no more there."""
    with App(kafka, tmp_path) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        monkeypatch.setattr(tail, "IDLE_SECONDS", 0.2)
        with Store(app.state) as store:
            idle = Tail(app.config, store, clients.tail_consumer(app.config))
            try:
                idle.start(app.admin)
                idle.catch_up(app.admin, lambda share: None)
                for _ in range(2):
                    then = store.meta(stores.APPLIED_AT)

                    def is_younger(then: bytes | None = then) -> bool:
                        assert idle.poll(0.05) == []
                        return store.meta(stores.APPLIED_AT) != then

                    wait_until(is_younger, "the folder says so")
                assert 0 < store.age() < 10
            finally:
                idle.close()
