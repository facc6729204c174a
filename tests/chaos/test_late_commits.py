"""EndTxn that arrives late: nothing is torn, and what is torn all the same is seen and mended."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import late_commits
import msgspec
import pytest
from broker import Broker
from confluent_kafka import KafkaException, Producer
from late_commits import SETTINGS, audit, miscounted
from proxy import END_TXN, REQUEST, Proxy

from core.ids.hashing import hash_keys
from streamer.decode.deadletter import Headers
from streamer.demo.shop import Shop
from streamer.errors import Refused
from streamer.kafka.identity import identity
from streamer.kafka.transactions import Send, Transactions
from streamer.state import records
from streamer.state.commits import Manifest, Mark
from streamer.worker.readback import Readback
from tests.folders import row_table
from tests.support import START_MS, App, as_records, wait_until

CLICKS = as_records(islice(Shop(3, products=60, users=40).clicks(START_MS, 50.0), 400))


@pytest.mark.parametrize("commits", [15, pytest.param(100, marks=pytest.mark.long)])
def test_commits_are_whole_though_their_ends_come_late_and_twice(
    monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    monkeypatch.setattr(late_commits, "Broker", partial(Broker, brief=True))
    lines, good = late_commits.run(commits, seed=7, say=print)
    assert good, lines
    assert "workers that ended by themselves, by exit code: none" in "\n".join(lines)
    late = next(line for line in lines if "freed into the next" in line)
    assert int(late.rpartition(" ")[2]) >= commits // 5


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def behind(proxy: Proxy) -> Iterator[str]:
    with Broker(behind=proxy, brief=True) as broker:
        yield broker.bootstrap


def commit(
    transactions: Transactions, readback: Readback, number: int, after: str,
    halfway: Callable[[], object] = lambda: None,
) -> None:  # fmt: skip
    """A transaction as a worker makes it, of eight rows; `after` is in the values."""
    app, topic = transactions.config.app.name, transactions.config.topics.model_state
    mark: list[tuple[str, str | bytes | None]] = [
        (records.COMMIT_HEADER, Mark(app, number, "0").packed)
    ]
    sends = [Send(topic, n % 2, b"item-%d" % n, after.encode(), mark) for n in range(8)]
    readback.settle()
    manifest = readback.manifest(number, sends)
    transactions.begin()
    for n, send in enumerate([*sends, manifest]):
        transactions.send(send)
        if n == 3:
            transactions.producer.flush(10)
            halfway()
    transactions.producer.flush(10)
    transactions.commit()
    readback.expect(manifest)


@pytest.mark.parametrize("fresh", [True, False])
def test_an_end_that_is_freed_into_the_next_transaction(
    behind: str, proxy: Proxy, tmp_path: Path, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fresh producer it is refused. Without, it settles that one, and that is noticed."""
    if not fresh:
        monkeypatch.setattr(Transactions, "renew", lambda self: setattr(self, "_doubt", ""))
    with App(behind, tmp_path, SETTINGS) as app:
        transactions = Transactions(app.config)
        now = identity(app.admin, app.config)
        with closing(Readback(app.config, now, app.admin, lambda: None)) as readback:
            readback.start(repair=False)
            commit(transactions, readback, 1, "first")
            rule = proxy.hold(END_TXN, REQUEST, times=1)

            def cut() -> None:
                rule.wait()
                rule.cut()

            def release() -> None:
                rule.release()
                time.sleep(0.3)  # on its way to the broker

            adversary = threading.Thread(target=cut)
            adversary.start()
            commit(transactions, readback, 2, "second")
            ended = None
            try:
                commit(transactions, readback, 3, "third", release)
                commit(transactions, readback, 4, "fourth")
                readback.settle()
            except (Refused, KafkaException) as error:
                ended = error
            assert (ended is None) == fresh == (transactions.renewed > 0)
            adversary.join()
            rule.remove()
        # What a start says of it.
        with closing(Readback(app.config, now, app.admin, lambda: None)) as readback:
            Transactions(app.config)
            if fresh:
                readback.start(repair=False)
                assert readback.last == 4
            else:
                with pytest.raises(Refused, match=r"is torn: .*--repair"):
                    readback.start(repair=False)


def test_a_torn_commit_is_refused_and_a_repair_mends_it(kafka: str, tmp_path: Path) -> None:
    """Of a commit after the last one, the first half of the vectors and rows was committed."""
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        topics, name = app.config.topics, app.name
        state = app.read(topics.model_state)
        manifests = [m.value() or b"" for m in state if records.is_manifest(m.key() or b"")]
        last = msgspec.msgpack.decode(manifests[-1], type=Manifest).commit
        keys, rows = row_table(app.config)
        published = [key for key, row in zip(keys, rows, strict=True) if row["published"] > 0]
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{name}-hand"})
        producer.init_transactions(30)
        producer.begin_transaction()
        headers: Headers = [(records.COMMIT_HEADER, Mark(name, last + 1, "0").packed)]
        torn = msgspec.json.encode({"item_id": "torn", "version": 999})
        told = [published[0], b"nobody's"]
        places = hash_keys(told, 2)[0].tolist()
        for key, partition in zip(told, places, strict=True):
            producer.produce(topics.item_vectors, torn, key, partition, headers=headers)
        for message in [m for m in state if records.is_row(m.key() or b"")][-6:]:
            producer.produce(
                topics.model_state, message.value(), message.key(), message.partition() or 0,
                headers=headers,
            )  # fmt: skip
        producer.commit_transaction(30)
        app.publish(CLICKS[200:])
        for folder in app.state, tmp_path / "new":
            worker = app.worker(state__dir=folder)
            assert worker.wait() == 3, worker.output
            assert f"commit {last + 1} is torn" in worker.output
            assert f"{topics.item_vectors}[{places[0]}] has " in worker.output
            assert "walkstream worker --repair" in worker.output
        worker = app.worker("--repair")
        worker.until(lambda: "repaired: all rows and vectors" in worker.output, "the repair")
        worker.until(app.caught_up, "all clicks committed")
        worker.stop()
        assert miscounted(app, CLICKS) == []
        # The torn commit itself stays in the log, and nothing else is wrong.
        wrong = [one for one in audit(app) if "version 999" not in one]
        assert wrong[1:] == [f"commit {last + 1} of 0 has no manifest"]
        assert wrong[0].startswith(f"commit {last + 2} of 0 came after another")
        # What the torn commit said of an item that is nobody's is gone.
        vectors = {m.key(): m.value() for m in app.read(topics.item_vectors)}
        assert vectors[b"nobody's"] is None
        app.worker().running().stop()


def test_many_fresh_producers_leave_no_threads(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        transactions = Transactions(app.config)

        def threads() -> int:
            return len(list(Path("/proc/self/task").iterdir()))

        before = threads()
        for _ in range(20):
            transactions.begin()
            transactions.send(Send(app.config.topics.model_state, 0, b"k", b"v", []))
            transactions.abort()
        assert transactions.renewed == 19
        wait_until(lambda: threads() <= before + 2, "the threads of old producers to end")
