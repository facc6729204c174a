"""Lines that break, and requests of a worker that reach the broker late and twice.

The line breaks after the request was sent; the worker asks again, is answered, and runs. Then the
first request arrives. The group makes a member of it that nobody is, or the producer is fenced.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from broker import Broker
from confluent_kafka.admin import AdminClient
from proxy import (
    FETCH,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LIST_OFFSETS,
    PRODUCE,
    REQUEST,
    RESPONSE,
    Frame,
    Proxy,
    Rule,
)

from streamer.demo.shop import Shop
from streamer.errors import Fenced
from streamer.kafka import clients
from streamer.kafka.clients import session_seconds
from streamer.worker.group import Group
from tests.brokers import a_broker
from tests.chaos.test_faults import ended
from tests.support import START_MS, App, Process, as_records, wait_until

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1000))
SETTINGS = {"topics.partitions": 2, "commit.seconds": 0.2, "round.max_seconds": 0.1}


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def broker(proxy: Proxy) -> Iterator[Broker]:
    settings = {"group.initial.rebalance.delay.ms": "0"}
    with a_broker(settings=settings, behind=proxy) as broker:
        yield broker


def asked_twice(app: App, proxy: Proxy, api: int) -> tuple[Process, Rule]:
    """A worker that runs, and its first request of this kind, which is still to come."""

    def is_ours(frame: Frame) -> bool:
        return frame.client in (f"{app.name}-0-group", f"{app.name}-0-producer")

    late = proxy.hold(api, REQUEST, times=1, where=is_ours)
    worker = app.worker(**{"kafka__bootstrap__servers": proxy.address})
    late.wait()
    late.cut()
    return worker.running(), late


def goes_on(app: App, worker: Process) -> None:
    app.publish(CLICKS[-300:])
    worker.until(app.caught_up, "the clicks after the fault")
    worker.stop()
    ends = app.ends(app.config.topics.clicks)
    assert {p: done.offset for p, done in app.progress().items()} == ends


def test_a_late_request_to_join_is_no_other_process(
    broker: Broker, proxy: Proxy, tmp_path: Path
) -> None:
    with App(broker.direct, tmp_path, SETTINGS) as app:
        worker, late = asked_twice(app, proxy, JOIN_GROUP)
        app.publish(CLICKS[:300])
        worker.until(app.caught_up, "the first clicks")
        late.remove()
        ended(worker, 1, "No other process has its place", without=("Another process",))
        goes_on(app, app.worker().running())


def test_a_late_request_for_a_producer_is_no_other_process(
    broker: Broker, proxy: Proxy, tmp_path: Path
) -> None:
    with App(broker.direct, tmp_path, SETTINGS) as app:
        worker, late = asked_twice(app, proxy, INIT_PRODUCER_ID)
        late.remove()
        goes_on(app, worker)


@pytest.mark.parametrize("strategy", ["none", "rebootstrap"])
def test_a_worker_goes_on_after_its_lines_broke(
    broker: Broker, proxy: Proxy, tmp_path: Path, strategy: str
) -> None:
    """The producer's at a record, and then all. By default its client then waits for good for a
    broker that it gave up, as any client may if a broker left the cluster for a while."""
    with App(broker.direct, tmp_path, SETTINGS) as app:
        settings = {"kafka.bootstrap.servers": proxy.address}
        if strategy != "none":
            settings["kafka.metadata.recovery.strategy"] = strategy
        worker = app.worker(**settings).running()
        app.publish(CLICKS[:100])
        worker.until(app.caught_up, "the first clicks")
        name = f"{app.name}-0-producer"
        broken = proxy.break_lines(PRODUCE, REQUEST, 1, lambda frame: frame.client == name)
        app.publish(CLICKS[100:200])
        broken.wait()
        worker.until(app.caught_up, "the clicks after the producer's line broke")
        assert ("did not come back" in worker.output) == (strategy == "rebootstrap")
        if strategy == "none":
            proxy.close_lines()
        goes_on(app, worker)


def test_an_answer_that_never_comes_is_asked_for_again_in_time(
    broker: Broker, proxy: Proxy, tmp_path: Path
) -> None:
    """What is read back, that is: without it nothing more is committed."""
    with App(broker.direct, tmp_path, SETTINGS) as app:
        worker = app.worker(kafka__bootstrap__servers=proxy.address).running()
        lost = proxy.swallow(FETCH, RESPONSE, 1, lambda f: f.client == f"{app.name}-0-readback")
        lost.wait()
        app.publish(CLICKS[:100])
        worker.until(app.caught_up, "the commit that is to be read back")
        app.publish(CLICKS[100:200])
        wait_until(lambda: "to be read back" in worker.output, "what it waits for")
        goes_on(app, worker)


def test_a_member_that_lost_its_place_to_one_of_its_name_says_so(
    broker: Broker, proxy: Proxy, tmp_path: Path
) -> None:
    """It hears of the end of its session first, and when it looks, no call works any more."""
    with App(broker.direct, tmp_path, SETTINGS) as app:
        config = app.config
        kafka = config.kafka | {"bootstrap.servers": proxy.address}
        cut_off = replace(config, kafka=kafka)
        with closing(Group(cut_off, app.admin, lambda _: None)) as group:
            group.join()
            held = proxy.hold(HEARTBEAT, REQUEST)
            held.wait()
            with closing(Group(config, app.admin, lambda _: None)) as other:
                other.join()
                deadline = time.monotonic() + session_seconds(config) + 1.0
                wait_until(lambda: time.monotonic() > deadline, "the end of the session")
                answer = proxy.hold(HEARTBEAT, RESPONSE, seconds=0.0)
                held.remove()
                answer.wait()
                answer.remove()
                time.sleep(0.5)  # until the client has it
                for _ in range(2):
                    with pytest.raises(Fenced, match=r"its own app\.instance"):
                        group.poll(1.0)
                other.check()


def test_an_answer_about_offsets_that_is_lost_with_its_line_is_asked_for_again(
    proxy: Proxy, broker: Broker, tmp_path: Path
) -> None:
    """librdkafka reports no error of it, and an offset of -1001."""
    with App(broker.bootstrap, tmp_path, SETTINGS) as app:
        clicks = app.config.topics.clicks
        app.publish(CLICKS[:100])
        where = app.partitions(clicks)
        for _ in range(5):
            held = proxy.hold(LIST_OFFSETS, RESPONSE, seconds=30, times=1)
            admin = AdminClient({"bootstrap.servers": proxy.address})
            with ThreadPoolExecutor(1) as executor:
                asked = executor.submit(clients.ends, admin, where)
                held.wait(1, 10)
                proxy.close_lines()
                held.release()
                assert sum(asked.result().values()) == 100
            held.remove()
