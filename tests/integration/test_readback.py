"""What is read of the topics that commits write to, where others may write as well."""

from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Message, Producer

from streamer.decode.deadletter import Headers
from streamer.demo.shop import Shop
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, waiting
from streamer.kafka.identity import identity
from streamer.kafka.transactions import Send, Transactions
from streamer.state import records
from streamer.state.commits import Manifest, Mark
from streamer.worker.loop import Worker
from streamer.worker.readback import Readback
from tests import inside
from tests.support import START_MS, App, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 300))
BAD = (b"user", b"no click")
MIB = 1024 * 1024
SETTINGS: dict[str, object] = {
    "topics.partitions": 1,
    "commit.seconds": 0.2,
    "kafka.fetch.max.bytes": MIB,
    "kafka.receive.message.max.bytes": MIB + 1024,
}


def write_letters(app: App) -> None:
    """What a tool that copies letters leaves, what nobody can read, and what no worker wrote."""
    topic, name = app.config.topics.dead_letters, app.name.encode()
    settings = {"compression.type": "zstd", "message.max.bytes": 8 * MIB, "linger.ms": 5}
    producer = Producer({"bootstrap.servers": app.servers, **settings})
    for letter in app.read(topic):
        producer.produce(topic, letter.value(), letter.key(), headers=letter.headers())
    for number in (b"17", b"17@0", b"9" * 5000, "\u0663".encode(), b""):
        mark: list[tuple[str, str | bytes | None]] = [("commit", name + b"/" + number)]
        producer.produce(topic, b"{}", records.MANIFEST, headers=mark)
    assert producer.flush(30) == 0
    # Few bytes in the log, and more than the worker may take.
    producer.produce(topic, bytes(3 * MIB))
    assert producer.flush(30) == 0


def test_dead_letters_of_anybody_stop_no_worker_and_a_commit_that_is_missing_does(
    kafka: str, tmp_path: Path
) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        first = app.worker()
        app.publish([*CLICKS[:100], BAD])
        first.until(app.caught_up, "the first clicks")
        write_letters(app)
        app.publish([*CLICKS[100:150], BAD, *CLICKS[150:200]])
        first.until(app.caught_up, "more clicks")
        first.stop()
        app.settings = {**app.settings, "kafka.receive.message.max.bytes": 64 * MIB}
        write_letters(app)
        app.settings = {**app.settings, **SETTINGS}
        second = app.worker().running()
        app.publish([*CLICKS[200:], BAD])
        second.until(app.caught_up, "the last clicks")
        state = app.config.topics.model_state
        last = max(progress.commit for progress in app.progress().values())
        producer = Producer({"bootstrap.servers": kafka})
        ahead = Manifest(last + 2, app.name, "0", {}, last + 1)
        value = msgspec.msgpack.encode(ahead)
        mark: Headers = [(records.COMMIT_HEADER, ahead.mark.packed)]
        producer.produce(state, value, records.manifest_key("0"), partition=0, headers=mark)
        assert producer.flush(30) == 0
        assert second.wait() in (1, 3), second.output
        # Whoever reads it first says so: the tail, or who reads commits back.
        told = f"commit {last + 2} came after commit {last}", f"a record of commit {last + 2} at"
        assert any(text in second.output for text in told), second.output


def test_a_reader_beats_while_it_waits_and_gives_up_on_a_transaction_that_never_ends(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OPEN_SECONDS", 1.0)
    with App(kafka, tmp_path, SETTINGS) as app:
        topic = app.config.topics.model_state
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{app.name}-open"})
        producer.init_transactions(30)
        for ends in producer.commit_transaction, producer.flush:
            producer.begin_transaction()
            producer.produce(topic, b"value", b"key", 0)
            producer.flush(30)
            ends(30)
        beats: list[None] = []
        read: list[Message] = []
        with closing(clients.tail_consumer(app.config)) as consumer:
            begins = {(topic, 0): 0}
            messages = waiting.between(
                consumer, begins, clients.ends(app.admin, begins), lambda: beats.append(None)
            )
            with pytest.raises(
                WalkstreamError, match=r"is at 1 of 3\. A transaction holds it back"
            ):
                read.extend(messages)
        assert len(read) == 1
        assert len(beats) > 3
        producer.abort_transaction(30)


def poll(readback: Readback, times: int) -> None:
    for _ in range(times):
        readback.poll(0.1)


def test_a_torn_commit_is_noticed_while_nothing_else_is_sent(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        config, now = app.config, identity(app.admin, app.config)
        with closing(Readback(config, now, app.admin, lambda: None)) as readback:
            readback.start(repair=False)
            mark: Headers = [(records.COMMIT_HEADER, Mark(app.name, 1, "0").packed)]
            state = config.topics.model_state
            sends = [Send(state, 0, b"item-%d" % n, b"row", mark) for n in range(3)]
            manifest = readback.manifest(1, sends)
            transactions = Transactions(config)
            transactions.begin()
            for send in [*sends[:2], manifest]:
                transactions.send(send)
            transactions.producer.flush(10)
            readback.expect(manifest)
            poll(readback, 20)
            transactions.commit()
            with pytest.raises(Refused, match=r"commit 1 is torn: .* has 2 of its 3 records"):
                poll(readback, 300)
        # Whose rows others have written again since then may have lost some to compaction.
        for over, refusal in ((0, "has 2 of its 3 records"), (1, "")):
            producer = Producer({"bootstrap.servers": kafka})
            other: Headers = [(records.COMMIT_HEADER, Mark(app.name, 2, "1").packed)]
            for n in range(over):
                producer.produce(state, b"row", b"item-%d" % n, partition=0, headers=other)
            assert producer.flush(10) == 0
            for of in None, "0":
                with closing(Readback(config, now, app.admin, lambda: None)) as readback:
                    readback.start(repair=True, of=of)
                    told = "" if readback.doubt is None else readback.doubt.what
                    assert refusal in told
                    assert bool(told) == bool(refusal)


def test_a_worker_reads_back_its_own_partitions_and_what_else_it_writes_to(
    kafka: str, tmp_path: Path
) -> None:
    with App(kafka, tmp_path, SETTINGS | {"topics.partitions": 3}) as app:
        config, now = app.config, identity(app.admin, app.config)
        state, vectors = config.topics.model_state, config.topics.item_vectors
        transactions, number = Transactions(config), 0

        def commit(*sends: tuple[str, int], loses: int = 0) -> None:
            nonlocal number
            number += 1
            mark: Headers = [(records.COMMIT_HEADER, Mark(app.name, number, "0").packed)]
            made = [Send(topic, p, b"item-%d" % n, b"row", mark) for n, (topic, p) in
                    enumerate(sends)]  # fmt: skip
            manifest = readback.manifest(number, made)
            transactions.begin()
            for send in [*made[loses:], manifest]:
                transactions.send(send)
            transactions.commit()
            readback.expect(manifest)

        def followed() -> set[tuple[str, int]]:
            return {(t, p) for t, p in readback.logs.followed if t in (state, vectors)}

        own, first = {(state, 1), (vectors, 1)}, (state, 0)
        with closing(Readback(config, now, app.admin, lambda: None)) as readback:
            readback.start(repair=False)
            assert len(followed()) == 6
            readback.owned = lambda: [1]
            commit((state, 1), (vectors, 1))
            readback.settle()
            assert followed() == {*own, first}
            commit((state, 1), (state, 2))  # the graph's row of an item that another one owns
            readback.settle()
            commit((state, 1))
            readback.settle()
            assert followed() == {*own, first, (state, 2)}, "it may come again"
            readback.owned = lambda: [2]
            commit((state, 2), (vectors, 2))
            readback.settle()
            assert followed() == {(state, 2), (vectors, 2), first}
            commit((state, 1), loses=1)
            with pytest.raises(Refused, match=rf"commit 5 is torn: {state}\[1\] has 0 of its 1"):
                poll(readback, 300)
        with (
            closing(Readback(config, now, app.admin, lambda: None)) as readback,
            pytest.raises(Refused, match="commit 5 is torn"),
        ):
            readback.start(repair=False)


def test_what_a_worker_has_applied_itself_never_waits_to_be_applied_again(
    kafka: str, tmp_path: Path
) -> None:
    settings = SETTINGS | {"topics.partitions": 3, "round.max_events": 30, "commit.rounds": 1}
    with App(kafka, tmp_path, settings) as app:
        waited: list[bytes] = []

        def done(worker: Worker) -> bool:
            later = worker.tail.later
            versions = (key for key in later.meta if key.startswith(records.VERSION))
            waited.extend([*later.rows, *later.gone, *versions])
            # All that was committed has been read as well.
            return worker.commits >= 10 and not any(clients_behind(worker).values())

        with inside.started(app.config, done) as worker:
            app.publish(CLICKS)
            worker.loop()
            worker.finish()
        assert waited == []
        assert len(app.read(app.config.topics.item_vectors)) > 50


def clients_behind(worker: Worker) -> dict[tuple[str, int], int]:
    """How many offsets of `model-state` the tail has not read yet, by partition."""
    state = [p for p in worker.tail.watched if p[0] == worker.config.topics.model_state]
    ends = clients.ends(worker.admin, state, committed=True)
    at = {p: max(worker.tail.offsets[p], worker.tail.reached[p]) for p in state}
    return {p: end - at[p] for p, end in ends.items() if end > at[p]}
