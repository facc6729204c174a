"""One worker after the other: what the second one read while it waited is not the newest."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.kafka.failures import is_fatal
from streamer.kafka.transactions import Send, Transactions
from tests.integration.models import CLICKS, SETTINGS
from tests.support import App, wait_until


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SETTINGS) as app:
        yield app


@contextmanager
def clicking(app: App) -> Iterator[None]:
    """A few clicks come in all the while."""
    ended = threading.Event()

    def click() -> None:
        clicks = iter(CLICKS[300:1200])
        while not ended.wait(0.2):
            app.publish(list(islice(clicks, 8)))

    thread = threading.Thread(target=click)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_worker_goes_on_behind_what_the_one_before_committed_beside_it(app: App) -> None:
    first = app.worker().running()
    app.publish(CLICKS[:300])
    first.until(app.caught_up, "the first clicks")
    second = app.worker(app__instance="other", state__dir=app.folder / "second").running()
    app.publish(CLICKS[300:600])
    first.until(app.caught_up, "more clicks")
    first.stop()
    app.publish(CLICKS[600:900])
    second.until(app.caught_up, "the clicks since then")
    second.stop()


def test_a_replaced_worker_ends_and_its_successor_goes_on_though_commits_are_slow(
    app: App,
) -> None:
    """Each commit takes a fresh producer, which fences whoever has the name."""
    app.publish(CLICKS[:300])
    with clicking(app):
        first = app.worker(plan={"slow": 0.0}).running()
        wait_until(lambda: "a fresh producer" in first.output, "a fresh producer")
        second = app.worker(plan={"slow": 0.0}, state__dir=app.folder / "second").running()
        assert first.wait() == 4, first.output
        assert "its own app.instance" in first.output
        begun = second.output.count("a fresh producer")
        second.until(lambda: second.output.count("a fresh producer") > begun + 3, "its commits")
    second.until(app.caught_up, "all clicks")
    second.stop()


def test_a_worker_that_was_fenced_and_has_its_place_still_goes_on(app: App) -> None:
    """By one that was replaced before, and took a fresh producer all the same."""
    worker = app.worker().running()
    app.publish(CLICKS[:300])
    worker.until(app.caught_up, "the first clicks")
    Transactions(app.config)
    app.publish(CLICKS[300:600])
    worker.until(app.caught_up, "the clicks since then")
    assert "the producer was replaced" in worker.output
    worker.stop()


def until_it_fails(send: Callable[[], None]) -> KafkaError:
    for _ in range(200):
        try:
            send()
        except KafkaException as error:
            found: KafkaError = error.args[0]
            return found
        time.sleep(0.05)
    raise AssertionError("it never failed")


def test_a_producer_that_is_fenced_between_two_records_may_be_replaced(app: App) -> None:
    """The record that is the first to meet the fence says so otherwise than all calls do."""
    first = Transactions(app.config)
    first.begin()
    send = Send(app.config.topics.dead_letters, 0, b"key", b"value", [])
    first.send(send)
    first.producer.flush(10)
    Transactions(app.config)
    error = until_it_fails(lambda: first.send(send))
    assert not error.fatal()
    assert is_fatal(error)
    assert first.may_go_on(error)
    first.renew()
    first.begin()
    first.send(send)
    first.commit()
