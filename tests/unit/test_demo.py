"""The demo, whole: its broker is inside the process, so it needs no Kafka."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streamer.embedded import EmbeddedBroker
from streamer.shop import Shop

ROOT = Path(__file__).resolve().parents[2]


def demo(folder: Path, seconds: int, **environ: str) -> "subprocess.Popen[str]":
    """`walkstream demo`, which leaves its state in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "streamer.cli", "demo", "--seconds", str(seconds)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(180)
def test_the_demo_finds_neighbours_of_the_same_category_and_names_them(tmp_path: Path) -> None:
    # A setting of the person's own worker is none of the demo's.
    process = demo(tmp_path, 12, WALKSTREAM_MODEL__DIM="7")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert err == ""
    named = re.findall(r"^  \d\.\d\d  (.+) \((.+)\)$", out, re.MULTILINE)
    products = {tuple(item["attributes"].values()) for item in Shop(seed=1).items()}
    assert len(named) == 25
    assert set(named) <= products
    times = re.search(r": ([\d.]+) times chance$", out, re.MULTILINE)
    assert times is not None, out
    assert float(times[1]) >= 3
    learned = re.findall(r"clicks learned ([\d,]+) \(", out)
    assert int(learned[-1].replace(",", "")) > 3000
    (state,) = tmp_path.glob("walkstream-demo-*/state")
    assert f"--state {state}" in out


@pytest.mark.timeout(180)
def test_a_demo_that_is_stopped_takes_its_worker_along(tmp_path: Path) -> None:
    process = demo(tmp_path, 100)
    assert process.stdout is not None
    while "worker.log" not in process.stdout.readline():
        pass
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
    assert not child.is_running()


@pytest.mark.timeout(180)
def test_a_worker_that_dies_ends_the_demo_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = demo(tmp_path, 100)
    assert process.stdout is not None
    while "worker.log" not in process.stdout.readline():
        pass
    (log,) = tmp_path.glob("walkstream-demo-*/worker.log")
    while "running" not in log.read_text():
        time.sleep(0.1)
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    _, err = process.communicate()
    assert process.returncode == 1
    assert "the worker ended with exit code -9" in err
    assert log.read_text().splitlines()[-1] in err


def test_the_embedded_broker_keeps_records_for_other_clients() -> None:
    with EmbeddedBroker() as broker:
        broker.create("a", "b")
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("a", b"value", b"key", partition=3)
        assert producer.flush(30) == 0
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g"})
        topics = consumer.list_topics(timeout=30).topics
        assert {name: len(topic.partitions) for name, topic in topics.items()} == {"a": 4, "b": 4}
        consumer.assign([TopicPartition("a", 3, 0)])
        (message,) = consumer.consume(1, 30)
        assert (message.key(), message.value(), message.error()) == (b"key", b"value", None)
        consumer.close()
        producer.close()
