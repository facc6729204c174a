"""How a worker comes back: the table of what a restart may find, one worker."""

import shutil
import time
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

from core.rows import FORMAT, row_dtype, to_values
from streamer.decode.deadletter import Headers
from streamer.demo.shop import Shop
from streamer.kafka import clients
from streamer.state import commits, evidence, records
from streamer.state import store as stores
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.worker import tail
from streamer.worker.tail import Tail
from tests.folders import Contents, assert_same, contents, counts
from tests.support import DETERMINISTIC, START_MS, App, as_records, wait_until

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


def files_of(app: App, family: str) -> list[Path]:
    """The files of a column family of a stopped worker: their properties name the family."""
    named = b"name" + family.encode()
    found = [path for path in app.state.glob("*.sst") if named in path.read_bytes()]
    assert found
    return found


def garble(path: Path) -> None:
    """Change bytes of all that comes before the properties."""
    data = bytearray(path.read_bytes())
    for at in range(16, data.index(b"rocksdb."), 64):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("damaged", ["rows", "graph", "sessions", "meta", "cut rows", "MANIFEST"])
def test_an_unreadable_folder_is_moved_aside_and_the_next_start_rebuilds_it(
    stopped: tuple[App, Contents], damaged: str
) -> None:
    app, wanted = stopped
    Store(app.state).close()  # what only the log of RocksDB has is in files from then on
    if damaged == "MANIFEST":
        for path in app.state.glob("MANIFEST-*"):
            cut(path)
    elif damaged == "cut rows":
        for path in files_of(app, "rows"):
            cut(path)
    else:
        for path in files_of(app, damaged):
            garble(path)
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
    delete_records(app, clicks, 1700)
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


def delete_records(app: App, topic: str, until: int) -> None:
    """What retention does: partition 0 begins at this offset."""
    for future in app.admin.delete_records([TopicPartition(topic, 0, until)]).values():
        future.result()


def test_retention_that_took_processed_clicks_only_is_no_loss(app: App) -> None:
    """Graph, counts and sessions are of older clicks too, and nobody needs these again."""
    wanted = committed(app)
    delete_records(app, app.config.topics.clicks, 1600)
    app.worker().running().stop()
    assert_same(contents(app.config), wanted)
    shutil.rmtree(app.state)
    app.worker().running().stop()
    assert_same(contents(app.config), wanted)


def test_evidence_that_retention_took_is_refused_until_accepted(kafka: str, tmp_path: Path) -> None:
    """Where a sweep takes longer than the log is, a new folder needs all of it."""
    clicks = as_records(islice(Shop(5, products=900, users=200).clicks(START_MS, 0.5), 2000))
    settings = {**DETERMINISTIC, "graph.half_life": "36500d", "graph.horizon": 0}
    with App(kafka, tmp_path, settings) as app:
        app.publish(clicks[:1600])
        app.run_to_end()
        wanted, transitions = contents(app.config), app.config.topics.transitions
        delete_records(app, transitions, app.ends(transitions)[transitions, 0])
        app.worker().running().stop()
        assert_same(contents(app.config), wanted)
        shutil.rmtree(app.state)
        refused = app.worker()
        assert refused.wait() == 3, refused.output
        assert f"{transitions}[0]: the evidence between commit " in refused.output
        assert "--accept-loss" in refused.output
        app.publish(clicks[1600:])
        worker = app.worker("--accept-loss")
        worker.until(app.caught_up, "the next clicks")
        worker.stop()
        assert "is lost" in worker.output
        after = contents(app.config)
        assert wanted.rows.keys() <= after.rows.keys()
        assert 400 <= round(sum(counts(app.config).values())) < 2000
        app.worker().running().stop()
        assert_same(contents(app.config), after)


def test_evidence_that_only_the_folder_has_leaves_with_the_next_commit(
    kafka: str, tmp_path: Path
) -> None:
    """As after a commit that was torn: the folder has what it did to the graph, and Kafka not."""
    clicks = as_records(islice(Shop(5, products=900, users=200).clicks(START_MS, 0.5), 2000))
    settings = DETERMINISTIC | {"checkpoint.seconds": 3600, "graph.half_life": "36500d"}
    with App(kafka, tmp_path, {**settings, "graph.horizon": 0}) as app:
        app.publish(clicks[:1200])
        app.run_to_end()
        transitions = app.config.topics.transitions
        for at in 1200, 1600:
            app.publish(clicks[at : at + 400])
            worker = app.worker()
            worker.until(app.caught_up, "one more commit")
            time.sleep(0.5)  # until it is in the folder
            worker.kill()
            if at == 1200:
                delete_records(app, transitions, app.ends(transitions)[transitions, 0])
        told = [evidence.unpack(m.value() or b"") for m in app.read(transitions)]
        clicked = [sum(len(one.clicks) for one in rounds) for _, _, rounds in told]
        assert clicked == [400, 400]
        app.worker().running().stop()
        assert round(sum(counts(app.config).values())) == 2000


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
        mark: Headers = [(records.COMMIT_HEADER, commits.Mark(app.name, 1, "0").packed)]
        for n, value in enumerate(to_values(rows)):
            producer.produce(topic, value, b"item-%d" % n, partition=1 + n % 3, headers=mark)
        producer.flush(30)
        space = Space.of(app.config.engine_settings, 4)
        value = msgspec.msgpack.encode(space)
        producer.produce(topic, value, records.SPACE, partition=0, headers=mark)
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
                        idle.poll(0.05)
                        return store.meta(stores.APPLIED_AT) != then

                    wait_until(is_younger, "the folder says so")
                assert 0 < store.age() < 10
            finally:
                idle.close()
