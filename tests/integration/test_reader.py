"""No click is lost or counted twice, whatever answer of the brokers comes when."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from broker import Broker
from confluent_kafka import Producer, TopicPartition
from proxy import FETCH, LIST_OFFSETS, RESPONSE, TXN_OFFSET_COMMIT, Frame, Proxy

from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from streamer.kafka import stalls
from streamer.worker.reader import MARKERS, Reader
from tests import inside
from tests.brokers import a_broker
from tests.support import START_MS, App, as_records, publish, wait_until

CLICKS = as_records(
    # Tests send them again and again: without an id each time counts.
    {name: value for name, value in click.items() if name != "event_id"}
    for click in islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 3_000)
)
ILLEGAL_GENERATION = 22
LIGHT: dict[str, object] = {
    "topics.partitions": 1,
    "commit.seconds": 0.2,
    "walks.per_node": 1,
    "walks.length": 4,
    "engine.threads": 1,
}
"""Reading is what these are about: little is learned."""


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[Proxy, Broker]]:
    """A broker that clients meet behind a proxy."""
    with Proxy() as proxy, a_broker(behind=proxy) as broker:
        yield proxy, broker


@pytest.fixture
def proxy(proxied: tuple[Proxy, Broker]) -> Iterator[Proxy]:
    """The proxy, which has no rules before and after a test."""
    proxy, _ = proxied
    proxy.requests.clear()
    yield proxy
    for rule in list(proxy.rules):
        rule.remove()


@pytest.fixture
def app(proxied: tuple[Proxy, Broker], proxy: Proxy, tmp_path: Path) -> Iterator[App]:
    _, broker = proxied
    with App(broker.direct, tmp_path, behind(broker)) as app:
        yield app


def behind(broker: Broker) -> dict[str, object]:
    """Settings of an app whose worker is behind the proxy, while the test goes past it."""
    return {**LIGHT, "kafka.bootstrap.servers": broker.bootstrap}


def asks_for_committed(frame: Frame) -> bool:
    """Whether a ListOffsets is one of a consumer: the isolation level stands behind the replica."""
    start = 10 + len(frame.client) + (frame.version >= 6)
    return frame.asked[start + 4] == 1


@pytest.mark.parametrize("seconds", [1.5, 0.4, 0.15])
def test_a_late_answer_about_the_end_skips_nothing(app: App, proxy: Proxy, seconds: float) -> None:
    app.publish(CLICKS * 10 + CLICKS[:10])
    # Many rounds, so that much is unread when the answer comes.
    app.settings = {**app.settings, "round.max_events": 200, "kafka.queued.min.messages": 1000}
    proxy.hold(LIST_OFFSETS, RESPONSE, seconds, where=asks_for_committed, overtaken=True)
    assert inside.run(app.config, app.ends(app.config.topics.clicks)) == 30_010
    assert app.caught_up()
    # The member of the group asks for no offset and no record; nobody asks where the end is.
    asked = proxy.requests
    assert asked[f"{app.name}-0-group", FETCH] == asked[f"{app.name}-0-group", LIST_OFFSETS] == 0
    assert asked[f"{app.name}-0-reader", FETCH] > 0
    assert asked[f"{app.name}-0-reader", LIST_OFFSETS] == 0


@pytest.mark.parametrize("starts", [3, pytest.param(30, marks=pytest.mark.long)])
def test_first_starts_count_every_click(
    proxied: tuple[Proxy, Broker], proxy: Proxy, tmp_path: Path, starts: int
) -> None:
    """Every answer to a ListOffsets is late by another time."""
    random, (_, broker) = Random(7), proxied
    proxy.hold(LIST_OFFSETS, RESPONSE, lambda: random.choice((0, 0.05, 0.3)), overtaken=True)
    for _ in range(starts):
        settings = behind(broker) | {"topics.partitions": 2, "round.max_events": 50}
        with App(broker.direct, tmp_path, settings) as app:
            app.publish(CLICKS[:1000])
            assert inside.run(app.config, app.ends(app.config.topics.clicks)) == 1000
            assert app.caught_up()


def test_a_client_that_jumps_ends_the_worker_before_it_commits(app: App) -> None:
    app.publish(CLICKS)
    clicks = app.config.topics.clicks
    with inside.started(app.config, inside.has_read({(clicks, 0): 3000})) as worker:
        worker.reader.consumer.seek(TopicPartition(clicks, 0, 2000))
        with pytest.raises(
            WalkstreamError, match=r"clicks\[0\]: .* from offset 0 to 2000, .* a record at offset 0"
        ):
            worker.loop()
    assert app.progress()[clicks, 0].offset == 0
    assert app.group_offsets()[clicks, 0] == 0


def test_a_client_that_falls_back_ends_the_worker_before_it_commits(app: App) -> None:
    app.publish(CLICKS[:1000])
    where = app.config.topics.clicks, 0
    with inside.started(app.config, inside.has_read({where: 2000})) as worker:
        while worker.reader.expected[where] < 1000:
            worker.reader.put_back(worker.reader.consume(1000, 0.1))
            worker.reader.waiting.clear()
        worker.reader.consumer.seek(TopicPartition(*where, 400))
        with pytest.raises(WalkstreamError, match=r"back to offset 400 after offset 999"):
            worker.loop()
    assert app.progress()[where].offset == 0


def test_what_is_gone_from_the_log_is_no_gap(app: App) -> None:
    """Neither where reading begins, nor where the log begins by now behind a jump."""
    app.publish(CLICKS[:1000])
    topic = app.config.topics.clicks
    (deleted,) = app.admin.delete_records([TopicPartition(topic, 0, 500)]).values()
    deleted.result()
    reader = Reader(app.config, app.admin, lambda: None)
    try:
        for jump in (False, True):
            reader.begin({(topic, 0): 100})
            if jump:
                reader.consumer.assign([TopicPartition(topic, 0, 700)])
            with pytest.raises(WalkstreamError, match=r"clicks\[0\]: offset 100, .* no longer in"):
                inside.until(lambda: reader.consume(10, 0.1))
    finally:
        reader.close()


def test_gaps_that_the_log_explains_are_none(app: App) -> None:
    """Markers, and batches of an aborted transaction in the middle and at the end."""
    topic = app.config.topics.clicks
    producer = Producer({"bootstrap.servers": app.servers, "transactional.id": f"{app.name}-src"})
    producer.init_transactions(30)
    committed: list[int] = []
    offset = 0
    for size in (3, 2, 5 * MARKERS, 4, 1, 5 * MARKERS):
        producer.begin_transaction()
        for key, value in CLICKS[:size]:
            producer.produce(topic, value, key)
        producer.flush(10)
        if size > MARKERS:
            producer.abort_transaction(30)
        else:
            committed += range(offset, offset + size)
            producer.commit_transaction(30)
        offset += size + 1
    end = {(topic, 0): offset}
    reader = Reader(app.config, app.admin, lambda: None)
    try:
        reader.begin({(topic, 0): 1})
        got = []
        while reader.expected[topic, 0] < offset:
            got += reader.consume(2, 0.1)
        assert [m.offset() for m in got] == committed[1:]
        assert reader.after(got[:2]) == {(topic, 0): 3}
        assert list(reader.lag({(topic, 0): 0}, end, True)) == [((topic, 0), 0)]
    finally:
        reader.close()


def test_a_batch_that_is_damaged_on_the_way_is_a_dead_letter(app: App, proxy: Proxy) -> None:
    """Its checksum is wrong, each time that it is fetched."""
    app.publish(CLICKS[:100])
    app.publish([(b"key", CLICKS[100][1].replace(b'"click"', b'"cl*ck"'))])
    app.publish(CLICKS[101:200])
    proxy.change(FETCH, RESPONSE, lambda frame: frame.data.replace(b'"cl*ck"', b'"click"'))
    where = app.config.topics.clicks, 0
    assert inside.run(app.config, {where: 200}) == 199
    (letter,) = app.read(app.config.topics.dead_letters)
    headers = dict(letter.headers() or [])
    assert (headers["error.class"], headers["source.offset"]) == (b"unreadable", b"100")
    assert "CRC32C" in str(headers["error.message"])


def test_one_that_is_sound_when_fetched_again_counts(app: App, proxy: Proxy) -> None:
    app.publish(CLICKS[:100])
    name = f"{app.name}-0-reader"

    def damage(frame: Frame) -> bytes:
        return frame.data.replace(b'"click"', b'"clack"')

    def has_clicks(frame: Frame) -> bool:
        return frame.client == name and b'"click"' in frame.data

    rule = proxy.change(FETCH, RESPONSE, damage, times=1, where=has_clicks)
    assert inside.run(app.config, {(app.config.topics.clicks, 0): 100}) == 100
    assert len(rule.caught) == 1
    assert app.read(app.config.topics.dead_letters) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_a_client_that_reads_no_more_ends_the_worker(
    app: App, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """What it does not fetch, or what was deleted before, comes with no word."""
    monkeypatch.setattr(stalls, "LOOK_SECONDS", 0.5)
    where = TopicPartition(app.config.topics.clicks, 0)
    app.publish(CLICKS[:10])
    reader = Reader(app.config, app.admin, lambda: None)
    try:
        reader.begin({(where.topic, 0): 0})
        read = 0
        for _ in range(100):  # to the end, and for as long as several looks take
            read += len(reader.consume(1000, 0.05))
        assert read == 10
        reader.consumer.pause([where])
        app.publish(CLICKS[:100])
        if deleted:
            (done,) = app.admin.delete_records([TopicPartition(where.topic, 0, 110)]).values()
            done.result()
        words = (
            "offset 10, which is the next to be read, is no longer" if deleted else "from offset 10"
        )
        with pytest.raises(WalkstreamError, match=words):
            wait_until(lambda: bool(reader.consume(1000, 0.05)), "the client's end", 20)
    finally:
        reader.close()


def test_others_that_read_no_more_end_the_worker_too(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in `items`, and what another program writes into `item-vectors`."""
    monkeypatch.setattr(stalls, "LOOK_SECONDS", 0.5)
    names, (item, described) = app.config.topics, (b"a", b'{"item_id":"a","attributes":{}}')
    with inside.started(app.config, lambda worker: False) as worker:
        tail, readback = worker.tail, worker.readback
        for topic, reading, consumer in (
            (names.items, tail, tail.consumer),
            (names.item_vectors, readback, readback.logs.consumer),
        ):
            for _ in range(20):
                reading.poll(0.05)
            consumer.pause([TopicPartition(topic, 0)])
            publish(app.servers, topic, [(item, described)])
            with pytest.raises(WalkstreamError, match=rf"{topic}\[0\]: .* client reads nothing"):
                inside.until(lambda: reading.poll(0.05))  # noqa: B023


def pack(count: int, per_record: int) -> list[tuple[bytes, bytes]]:
    """Records of so many clicks each."""
    lines = [value for _, value in CLICKS]
    records = [b"\n".join(lines[at : at + per_record]) for at in range(0, len(lines), per_record)]
    return [(b"key", record) for record in records * (count // len(records))]


@pytest.mark.parametrize("abort", [2, 4])
@pytest.mark.parametrize("close", ["by count", "by bytes"])
def test_the_second_try_of_a_commit_counts_nothing_twice(
    app: App, proxy: Proxy, abort: int, close: str
) -> None:
    """60,000 clicks, 20 a record, in rounds that leave some of what was read for the next.

    The first offsets of all go with the header.
    """
    records = pack(3000, 20)
    assert sum(value.count(b"\n") + 1 for _, value in records) == 60_000
    if close == "by bytes":  # some 400 records a round
        filler = json.dumps({"filler": "x" * 1000}).encode()[1:-1]
        records = [(k, v.replace(b"{", b"{" + filler + b",", 1)) for k, v in records]
    limit = 250 if close == "by count" else 2_000
    app.publish(records)

    def refuse(frame: Frame) -> bytes:
        """The error of the one partition; behind it are three empty lists of tags."""
        at = len(frame.data) - (5 if frame.version >= 3 else 2)
        return frame.data[:at] + ILLEGAL_GENERATION.to_bytes(2) + frame.data[at + 2 :]

    seen: list[int] = []

    def is_chosen(frame: Frame) -> bool:
        seen.append(frame.correlation)
        return len(seen) == abort

    rule = proxy.change(TXN_OFFSET_COMMIT, RESPONSE, refuse, times=1, where=is_chosen)
    where = app.config.topics.clicks, 0
    settings = {"round.max_events": limit, "commit.rounds": 1, "round.max_seconds": 1}
    app.settings = {**app.settings, **settings}
    assert inside.run(app.config, {where: 3000}) == 60_000
    assert len(rule.caught) == 1
    assert app.progress()[where].offset == 3000
