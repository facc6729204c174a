"""Single records that are made to hurt: none of them may end a worker, or take it with them."""

import json
import signal
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from broker import free_port
from confluent_kafka import Message

from streamer.decode.events import MANY_BAD
from streamer.demo.shop import Shop
from tests.support import START_MS, App, as_records, wait_until

CLICKS = as_records(islice(Shop(3, products=60, users=80).clicks(START_MS, 20.0), 500))
NUMBERS = b"[" + b"1," * 449_000 + b"1]"
GOOD = b'{"user_id":1,"item_id":2,"ts":1}'
BAD = b'{"user_id":1}'


def headers(letter: Message) -> dict[str, str]:
    return {n: v.decode() for n, v in dict(letter.headers() or []).items() if isinstance(v, bytes)}


@pytest.mark.timeout(300)
def test_records_of_too_many_clicks_do_not_stop_a_worker(kafka: str, tmp_path: Path) -> None:
    many = b"[" + b",".join([GOOD] * 20_000) + b"]"
    lines = b"\n".join([GOOD] * 20_000)
    floats = b"[" + b",".join([b"0.5"] * 768) + b"]"
    records = [*CLICKS, *[(b"k", NUMBERS)] * 20, *[(b"k", many), (b"k", lines)] * 2]
    records += [(b"k", floats)] * 1000
    Random(7).shuffle(records)
    settings = {"topics.partitions": 1, "session.max_events": 10_000, "session.event_ids": 0}
    with App(kafka, tmp_path, settings) as app:
        port = free_port()
        app.publish(records)
        worker = app.worker(metrics__port=port)
        worker.until(app.caught_up, "all records committed")
        wait_until(lambda: worker.metric(port, "events_total") == 500, "every good click")
        letters = app.read(app.config.topics.dead_letters)
        told = Counter((headers(m)["error.class"], len(m.value() or b"")) for m in letters)
        assert told == {
            ("oversized", len(NUMBERS)): 20,
            ("oversized", len(many)): 2,
            ("oversized", len(lines)): 2,
            ("undecodable", len(floats)): 1000,
        }
        messages = {headers(m)["error.message"] for m in letters if len(m.value() or b"") > 10_000}
        assert any("has 449001 elements" in message for message in messages)
        assert any("has 20000 lines" in message for message in messages)
        worker.stop()


@pytest.mark.timeout(300)
def test_a_long_key_is_not_repeated_for_every_bad_click(kafka: str, tmp_path: Path) -> None:
    key, n = b"k" * 100_000, MANY_BAD
    with App(kafka, tmp_path, {"topics.partitions": 1}) as app:
        app.publish([(key, b"[" + b",".join([BAD] * n) + b"]"), *CLICKS])
        app.run_to_end()
        letters = app.read(app.config.topics.dead_letters)
        assert [(m.key(), m.value()) for m in letters] == [(key[:512], BAD)] * n
        assert headers(letters[0])["source.bytes"] == str(len(key) + len(BAD))


@pytest.mark.timeout(300)
def test_a_long_attribute_does_not_stop_a_worker(kafka: str, tmp_path: Path) -> None:
    """Of an item that the model learns from: it would be a key of `model-state`."""
    long = json.dumps({"item_id": "a", "attributes": {"category": "x" * 999_700}}).encode()
    short = json.dumps({"item_id": "b", "attributes": {"category": "x" * 503}}).encode()
    settings = {"topics.partitions": 1, "model.attribute_slots": 1}
    with App(kafka, tmp_path, settings) as app:
        dead_letters, vectors = app.config.topics.dead_letters, app.config.topics.item_vectors
        app.describe([(b"a", long), (b"b", short)])
        for life in (1, 2):
            worker = app.worker().running()
            app.publish(CLICKS[life::2])
            worker.until(app.caught_up, "all clicks committed")
            worker.until(lambda: bool(app.read(dead_letters)), "the long one to be told")
            worker.stop()
            (letter,) = app.read(dead_letters)
            assert headers(letter)["error.class"] == "bad_field"
            assert "has 999709 bytes and may have 512" in headers(letter)["error.message"]
        published = {message.key() for message in app.read(vectors)}
        assert b"b" in published
        assert b"a" not in published


@pytest.mark.timeout(300)
def test_a_transaction_that_took_too_long_is_no_other_worker(kafka: str, tmp_path: Path) -> None:
    """The broker fences a producer whose transaction it has ended; a restart is what helps."""
    settings = {
        "topics.partitions": 1,
        "kafka.transaction.timeout.ms": 1000,
        "kafka.session.timeout.ms": 120_000,
    }
    # No fewer good ones than bad ones, or all of it would be one letter.
    many_bad = (b"k", b"[" + b",".join([BAD, GOOD] * 5000) + b"]")
    with App(kafka, tmp_path, settings) as app:
        dead_letters = app.config.topics.dead_letters
        worker = app.worker().running()
        while True:  # until it is caught in a transaction
            end = app.ends(dead_letters)
            app.publish([many_bad] * 5)
            worker.until(lambda: app.ends(dead_letters) != end, "a transaction")  # noqa: B023
            worker.popen.send_signal(signal.SIGSTOP)
            if not app.caught_up():
                break
            worker.popen.send_signal(signal.SIGCONT)
        committed = len(app.read(dead_letters))  # waits for the broker to end the transaction
        worker.popen.send_signal(signal.SIGCONT)
        assert worker.wait() == 1, worker.output
        assert 'longer than kafka."transaction.timeout.ms" (1 s)' in worker.output
        assert "app.instance" not in worker.output
        app.run_to_end(kafka__transaction__timeout__ms=10_000)
        assert len(app.read(dead_letters)) > committed
