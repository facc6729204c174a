"""What ends a worker, as who has to start it again reads it: the exit code, and the last line.

Each fault is made on a real Kafka. Code 4 needs another process that has the worker's place; code
3 a loss that somebody must decide on; with 1 a supervisor starts the worker again, and all is well.
"""

import os
import resource
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from broker import Broker
from confluent_kafka import TopicPartition

from streamer.demo.shop import Shop
from tests.brokers import a_broker
from tests.support import START_MS, App, Process, as_records, wait_until

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 2000))
SETTINGS = {"topics.partitions": 2, "commit.seconds": 0.2, "round.max_seconds": 0.1}
SESSION_SECONDS = 6.0
"""The shortest that a broker allows, and what every app here has."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker of these tests alone, which they freeze and stop."""
    looks = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
    settings = {looks: "1000", "group.initial.rebalance.delay.ms": "0"}
    with a_broker(settings=settings) as broker:
        yield broker


def ended(worker: Process, code: int, *words: str, without: tuple[str, ...] = ()) -> None:
    """The worker ends with this code, and its last words have these."""
    assert worker.wait() == code, worker.output
    assert "Traceback" not in worker.output
    last = worker.output.strip().splitlines()[-1]
    assert last.startswith("walkstream: "), worker.output
    for word in words:
        assert word in last
    for word in (*without, "None"):
        assert word not in last


def goes_on(app: App) -> None:
    """Another start goes on from the last commit to the end of the clicks, each counted once."""
    worker = app.worker().running()
    app.publish(CLICKS[-300:])
    worker.until(app.caught_up, "the clicks after the fault")
    worker.stop()
    ends = app.ends(app.config.topics.clicks)
    assert {p: done.offset for p, done in app.progress().items()} == ends


def freeze(process: Process) -> None:
    os.kill(process.popen.pid, signal.SIGSTOP)


def thaw(process: Process) -> None:
    os.kill(process.popen.pid, signal.SIGCONT)


def test_a_worker_that_stood_still(broker: Broker, tmp_path: Path) -> None:
    """Past its session alone; past it, while another came; and past its transaction's time."""

    def made(name: str, **settings: object) -> App:
        return App(broker.bootstrap, tmp_path / name, SETTINGS | settings)

    # Its first clicks are there before it starts, and one commit takes them all.
    late = {
        "kafka.transaction.timeout.ms": 1000,
        "kafka.session.timeout.ms": 45_000,
        "round.max_seconds": 2,
    }
    with made("alone") as alone, made("replaced") as replaced, made("slow", **late) as slow:
        one, two = alone.worker().running(), replaced.worker().running()
        marker = tmp_path / "marker"
        plan = {"point": "commit", "when": "before", "call": 2, "freezes": 1, "marker": str(marker)}
        slow.publish(CLICKS[:400])
        three = slow.worker(plan=plan).running()
        for app in (alone, replaced):
            app.publish(CLICKS[:400])
        one.until(alone.caught_up, "the first clicks")
        two.until(replaced.caught_up, "the first clicks")
        three.until(slow.caught_up, "the first clicks")
        slow.publish(CLICKS[400:500])
        wait_until(marker.exists, "the third to freeze in its transaction")
        freeze(one)
        freeze(two)
        other = replaced.worker(app__instance="b", state__dir=tmp_path / "other").running()
        other.until(lambda: "alone: " in other.output, "all that the second had")
        wait_until(alone.group_is_empty, "the session of the first to be over")
        for process in (one, two, three):
            thaw(process)
        ended(one, 1, "session.timeout.ms", "No other process has its place", "nothing is lost")
        ended(two, 4, "Its partitions are with", "-b on")
        ended(three, 1, "transaction.timeout.ms", "No other process has its place")
        other.stop()
        goes_on(alone)
        goes_on(slow)


def test_clicks_that_were_deleted_while_the_worker_stood_still(
    broker: Broker, tmp_path: Path
) -> None:
    with App(broker.bootstrap, tmp_path, SETTINGS) as app:
        worker = app.worker().running()
        freeze(worker)
        time.sleep(0.5)  # longer than a fetch waits for records
        app.publish(CLICKS[:400])
        ends = app.ends(app.config.topics.clicks)
        gone = [TopicPartition(*partition, end) for partition, end in ends.items()]
        for done in app.admin.delete_records(gone).values():
            done.result()
        thaw(worker)
        ended(worker, 1, "offset 0, which is the next to be read, is no longer in the log")


GONE = {"clicks": 3, "item_vectors": 3, "model_state": 3, "transitions": 3}


def test_a_topic_that_is_deleted_while_the_worker_runs(broker: Broker, tmp_path: Path) -> None:
    apps = {role: App(broker.bootstrap, tmp_path / role, SETTINGS) for role in GONE}
    try:
        workers = {role: app.worker() for role, app in apps.items()}
        for role, app in apps.items():
            workers[role].running()
            app.publish(CLICKS[:200])
            workers[role].until(app.caught_up, "the first clicks")
        for role, app in apps.items():
            topic = getattr(app.config.topics, role)
            app.admin.delete_topics([topic])[topic].result()
        for role, app in apps.items():
            if role != "clicks":
                app.publish(CLICKS[200:300])
        for role, app in apps.items():
            topic = getattr(app.config.topics, role)
            ended(
                workers[role], GONE[role], "were deleted while the worker ran", topic,
                without=("raise", "Another process"),
            )  # fmt: skip
    finally:
        for app in apps.values():
            app.__exit__()


def test_a_full_disk(broker: Broker, tmp_path: Path) -> None:
    """As RocksDB sees it: no file may grow past a bound."""
    with App(broker.bootstrap, tmp_path, SETTINGS) as app:
        worker = app.worker().running()
        resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        app.publish(CLICKS[:1500])
        ended(worker, 1, str(app.state), "no room left on the disk", "Nothing is lost")
        goes_on(app)


def test_a_broker_that_is_frozen(broker: Broker, tmp_path: Path) -> None:
    settings = {**SETTINGS, "kafka.transaction.timeout.ms": 2000}
    with App(broker.bootstrap, tmp_path, settings) as app:
        worker = app.worker().running()
        app.publish(CLICKS[:400])
        worker.until(app.caught_up, "the first clicks")
        freeze(worker)
        app.publish(CLICKS[400:500])
        os.kill(broker.pid, signal.SIGSTOP)
        thaw(worker)
        try:
            ended(
                worker, 1, "No broker answers now", broker.bootstrap, without=("Another process",)
            )
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        goes_on(app)
