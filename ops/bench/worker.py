"""A worker process on a real Kafka, watched through its metrics, for measurements."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "kafka"))
from broker import Broker, free_port

TOPICS = ("clicks", "items", "item_vectors", "model_state", "transitions", "dead_letters")
BUCKET = re.compile(r'walkstream_staleness_seconds_bucket\{le="(.+)"\}')


def walkstream(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamer.cli", *arguments]


def as_options(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def a_kafka() -> Iterator[str]:
    """Bootstrap servers of KAFKA_BOOTSTRAP_SERVERS, or of a broker that the block has."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    with Broker() as broker:
        yield broker.bootstrap


class Worker:
    """A worker of the app `name`, with topics of its own, and a state folder of each instance."""

    process: subprocess.Popen[bytes]

    def __init__(
        self, name: str, bootstrap: str, folder: Path, settings: list[str], instance: str = "0"
    ) -> None:
        self.port, self.instance = free_port(), instance
        self.state, self.log = folder / f"{name}-{instance}", folder / f"{name}-{instance}.log"
        self.topics = {role: f"{name}.{role}" for role in TOPICS}
        self.options = as_options(
            [
                *settings,
                f"app.name={name}",
                f"app.instance={instance}",
                f"kafka.bootstrap.servers={bootstrap}",
                f"state.dir={self.state}",
                f"metrics.port={self.port}",
                *(f"topics.{role}={topic}" for role, topic in self.topics.items()),
            ]
        )
        command = walkstream("topics", "create", *self.options)
        subprocess.run(command, check=True, stdout=sys.stderr)

    # -- the process -----------------------------------------------------------------------------

    def begin(self, *changed: str) -> None:
        """Start it, and wait until it takes clicks."""
        command = walkstream("worker", *self.options, *as_options(list(changed)))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        while self.alive_metrics().get("walkstream_restore_progress") != 1.0:
            time.sleep(0.1)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit("the worker did not stop cleanly")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextmanager
    def running(self) -> Iterator[None]:
        self.begin()
        try:
            yield
        finally:
            self.end()

    @property
    def told(self) -> str:
        """What it wrote to its log."""
        return self.log.read_text(errors="replace")

    def peak_mib(self) -> float:
        """Most memory that the process had at a time, 0 where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return int(found[1]) / 1024 if found else 0.0

    def publish(self, events: Path, *more: str) -> None:
        command = walkstream("publish", str(events), *more, *self.options)
        subprocess.run(command, check=True, stdout=sys.stderr)

    def neighbours(self, item: str) -> list[str]:
        command = walkstream("query", item, "--state", str(self.state), "-k", "10", "--json")
        answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [neighbour["item"] for neighbour in answer["neighbours"]]

    # -- what it says of itself ------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }

    def alive_metrics(self) -> dict[str, float]:
        """The same of a process that must not have ended."""
        if self.process.poll() is not None:
            sys.exit(f"the worker ended with {self.process.returncode}")
        return self.metrics()

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        found = self.alive_metrics().items()
        return sum(value for key, value in found if key.partition("{")[0] == f"walkstream_{name}")

    def taken(self) -> float:
        """Records that it learned from, left out, or made dead letters."""
        counters = ("events_total", "ignored_clicks_total", "dead_letters_total")
        return sum(self.total(name) for name in counters)

    def buckets(self) -> dict[str, float]:
        """Of the staleness histogram: clicks up to each bound in seconds."""
        return {m[1]: n for name, n in self.metrics().items() if (m := BUCKET.match(name))}

    def staleness(self, share: float, before: dict[str, float] | None = None) -> float:
        """A quantile of click sent to vector committed, in seconds, linear inside its bucket.

        With buckets of `before`, of the clicks since then.
        """
        low, below = 0.0, 0.0
        found = [(edge, n - (before or {}).get(edge, 0.0)) for edge, n in self.buckets().items()]
        wanted = share * found[-1][1]
        for edge, count in found:
            if count >= wanted:
                inside = (wanted - below) / (count - below) if count > below else 0.0
                return low + inside * (float(edge) - low)
            low, below = float(edge), count
        raise AssertionError("the last bucket holds all")
