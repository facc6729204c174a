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
from rich.console import Console

from streamer.demo.embedded import EmbeddedBroker, Figures
from streamer.demo.shop import Shop
from streamer.demo.view import History, Newcomer, line, picture

ROOT = Path(__file__).resolve().parents[3]


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
def test_the_demo_shows_what_it_learned_and_ends_with_commands_that_work(tmp_path: Path) -> None:
    # A setting of the person's own worker is none of the demo's.
    process = demo(tmp_path, 12, WALKSTREAM_MODEL__DIM="7")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert err == ""
    told = [item["attributes"] for item in Shop(seed=1).items()]
    products = {(one["name"], one["category"]) for one in told}
    found, arrival = out.split(" was new after ")
    for text, count in ((found, 25), (arrival, 3)):
        named = re.findall(r"^  \d\.\d\d  (.+) \((.+)\)$", text, re.MULTILINE)
        assert len(named) == count
        assert set(named) <= products
    flat = " ".join(out.split())  # lines are broken at 80 columns
    times = re.search(r": ([\d.]+) times chance ", flat)
    assert times is not None, out
    assert float(times[1]) >= 3
    shape = r"^ +\d+ s: ([\d,]+) clicks \(\d+/s\), staleness .* s, HR@20 .*%\)$"
    learned = re.findall(shape, out, re.MULTILINE)
    assert int(learned[-1].replace(",", "")) > 3000
    assert re.search(r"in their dead letter: \d+ \(.*bad_", flat)
    assert re.search(r"Clicks of bots, left out: [1-9]", flat)
    prose = [text for text in out.splitlines() if "walkstream" not in text]
    assert max(map(len, prose)) <= 80
    rates = re.search(r"first 20: hybrid, by the session (\d+)%.*? popularity (\d+)%", flat)
    assert rates is not None, out
    assert int(rates[1]) > 1.3 * int(rates[2])

    (state,) = tmp_path.glob("walkstream-demo-*/state")
    commands = re.findall(
        rf"^  \S+ ((?:inspect|query|plot) .*--state {state}.*)$", out, re.MULTILINE
    )
    assert [command.split()[0] for command in commands] == ["inspect", "query", "plot"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "streamer.cli", *command.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.html").stat().st_size > 1000


def figures(
    events: int = 0, trials: int = 0, staleness: tuple[int, int, int] = (0, 0, 0), **hits: int
) -> Figures:
    """A scrape; `staleness` counts clicks below 1 s, below 2 s, and all."""
    buckets = zip(("1.0", "2.0", "+Inf"), staleness, strict=True)
    return {
        ("events_total",): events,
        ("quality_trials_total",): trials,
        **{("quality_hits_total", ranker): count for ranker, count in hits.items()},
        **{("staleness_seconds_bucket", bound): count for bound, count in buckets},
    }


def test_figures_are_those_of_the_last_seconds() -> None:
    history = History(figures(events=100, trials=10, hybrid=5, popularity=5, staleness=(0, 90, 90)))
    for n in range(1, 21):
        # In the first 5 s half of the trials hit, then all of them.
        hits = 5 + 5 * min(n, 10) + 10 * max(0, n - 10)
        counts = figures(
            events=100 + 200 * n, trials=10 + 10 * n, hybrid=hits, popularity=5 + 2 * n,
            staleness=(10 * n, 90 + 20 * n, 90 + 20 * n),
        )  # fmt: skip
        history.add(n / 2, counts)
        if n == 10:
            assert history.hit_rates["hybrid"][-1] == 0.5
    assert history.events_per_second() == pytest.approx(400)
    assert history.hit_rates["hybrid"][-1] == 1.0
    assert history.hit_rates["popularity"][-1] == pytest.approx(0.2)
    assert (history.staleness(0.5), history.staleness(0.75)) == (1.0, 1.5)
    rates, trials = history.overall()
    assert trials == 200
    assert rates["hybrid"] == pytest.approx(0.75)


def test_a_series_that_is_missing_has_no_value() -> None:
    history = History({})
    history.add(0.5, {})
    assert not any(history.hit_rates.values())
    assert history.staleness(0.5) is None
    assert history.overall() == ({}, 0)
    assert line(history, 0.5) == "  0 s: 0 clicks (0/s), staleness -"


def test_a_line_is_short_after_an_hour() -> None:
    history = History(figures())
    now = figures(events=1_440_000, trials=300, session=300, popularity=150, staleness=(0, 9, 9))
    history.add(3600, now)
    shown = line(history, 3600)
    assert shown.endswith("staleness 1.50 s, HR@20 100% (popularity 50%)")
    assert len(shown) <= 80


def pictured(history: History, elapsed: float, newcomer: Newcomer | None) -> str:
    with (console := Console(width=120)).capture() as capture:
        console.print(picture(history, elapsed, newcomer))
    return capture.get()


def test_the_picture_shows_quality_as_bars_beside_the_obvious() -> None:
    history = History(figures())
    for n in range(1, 4):
        history.add(n / 2, figures(trials=100 * n, hybrid=100 * n, popularity=25 * n))
    text = pictured(history, 1.5, None)
    assert re.search(r"hybrid, by the last item +100% +███", text)
    assert re.search(r"popularity +25% +▂▂▂", text)


def test_a_newcomer_is_told_by_its_first_click_vector_and_neighbours() -> None:
    newcomer = Newcomer("Tin robot", "toys", arrived=10.0)
    history = History({})
    assert "Tin robot (toys), not clicked yet" in pictured(history, 10.0, newcomer)
    newcomer.click(11.0)
    newcomer.see((), 11.5)
    assert "0.5 s and 1 click after its first, has no" in pictured(history, 11.5, newcomer)
    newcomer.see(((0.9, "Oak desk", "office"), (0.8, "Tin train", "toys")), 12.0)
    newcomer.click(12.5)
    newcomer.see(((0.9, "Tin doll", "toys"), (0.8, "Tin train", "toys")), 13.0)
    assert newcomer.since_click(newcomer.first_vector) == 1.0
    assert newcomer.since_click(newcomer.at_home) == 2.0
    text = pictured(history, 13, newcomer)
    assert re.search(r"2 clicks after its first, is nearest to\n +0.90  Tin doll \(toys\)", text)


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
