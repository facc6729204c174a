"""Workers as processes, and what a test reads from their topics."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import Any, ClassVar

import msgspec
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streamer import kernels
from streamer.kafka import clients, topics
from streamer.settings import load as configs
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.records import Progress
from tests.forks import Commands, Fork, Zygote

ROOT = Path(__file__).resolve().parent.parent
CHILD = Path(__file__).resolve().parent / "chaos" / "child.py"
SECONDS = 120.0
"""Nothing that a test waits for may take longer, on the slowest of machines."""

START_MS = 1_700_000_000_000
SMALL: dict[str, object] = {
    "model.dim": 16,
    "clusters.count": 8,
    "clusters.min_items": 40,
    "walks.per_node": 2,
    "metrics.port": 0,
    "kafka.session.timeout.ms": 6000,
}
"""Settings of every app here: little to compute, and sessions as short as a broker allows."""

DETERMINISTIC: dict[str, object] = {
    "round.max_seconds": 0,
    "round.max_events": 200,
    "commit.rounds": 2,
    "engine.threads": 1,
    "topics.partitions": 1,
    "checkpoint.seconds": 0.001,
    "session.gap": "5m",
    "graph.half_life": "10m",
    "graph.horizon": "40m",
    "major.every": "1h",
    "model.attribute_slots": 1,
    "publish.min_drift": 0,
}
"""Rounds and commits by count, all rows that changed in each commit, a sweep of the folder with
each of them, and enough event time at one click in two seconds for expiry, for moved clusters and
for sessions that end."""


@cache
def compile_kernels(dim: int = 16) -> None:
    """So that no test waits for it; one process after the other, as all need the same. Kernels are
    compiled for each number of dims: tests have those of SMALL, or the 64 of the defaults."""
    with (Path(gettempdir()) / f"walkstream-tests-compile-{dim}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for slots in (0, 1):
            wanted = {**SMALL, "model.dim": dim, "model.attribute_slots": slots}
            config = configs.load(None, [f"{key}={value}" for key, value in wanted.items()], {})
            kernels.prepare(config.engine_settings)


def wait_until(done: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Process:
    """A command of the CLI that runs; its output is a file. With a zygote it is a fork."""

    popen: "subprocess.Popen[bytes] | Fork"

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        plan: dict[str, Any] | None,
        zygote: Zygote | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{uuid.uuid4().hex[:8]}.log"
        self.log.touch()  # a fork takes a moment until it writes
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WALKSTREAM_")}
        environ["PYTHONPATH"] = str(ROOT)
        program = ["-m", "streamer.cli"]
        if plan is not None:
            program = [str(CHILD)]
            environ["CHAOS_PLAN"] = json.dumps(plan)
        if zygote is not None:
            path = CHILD if plan is not None else None
            self.popen = zygote.fork(path, arguments, folder, environ, self.log)
            return
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, *program, *arguments], cwd=folder, env=environ,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds:g} s:\n{self.output}") from None

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something is true, which this process must live to see."""

        def alive_and_done() -> bool:
            code = self.popen.poll()
            assert code is None, f"exit code {code} before: {what}\n{self.output}"
            return done()

        try:
            wait_until(alive_and_done, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def running(self) -> "Process":
        self.until(lambda: "running: " in self.output, "running")
        return self

    def metric(self, port: int, name: str) -> float:
        """A counter or gauge without labels from /metrics; -1 where nobody answers yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return -1.0
        found = re.search(rf"^walkstream_{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"no walkstream_{name} in:\n{text}"
        return float(found[1])

    def stop(self) -> None:
        """SIGTERM, and the clean end that it must bring within 30 s."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.wait(30) == 0, self.output

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@cache
def _config(*overrides: str) -> Config:
    """Kept, as tests that wait ask for it all the time."""
    return configs.load(None, overrides, {})


@dataclass
class App:
    """One app on a broker: its names are its own, unless `settings` say otherwise."""

    servers: str
    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    commands: ClassVar[Commands | None] = None
    """Who starts processes; None: all are real."""

    def __post_init__(self) -> None:
        self.name = f"app-{uuid.uuid4().hex[:8]}"
        self.state = self.folder / f"{self.name}-state"
        self.processes: list[Process] = []
        self._described = False
        own = {
            "app.name": self.name,
            "state.dir": self.state,
            "kafka.bootstrap.servers": self.servers,
            "topics.clicks": f"{self.name}-clicks",
            "topics.items": f"{self.name}-items",
            "topics.item_vectors": f"{self.name}-vectors",
            "topics.user_vectors": f"{self.name}-users",
            "topics.model_state": f"{self.name}-model",
            "topics.transitions": f"{self.name}-transitions",
            "topics.dead_letters": f"{self.name}-dlq",
        }
        self.settings = {**SMALL, **own, **self.settings}
        self.admin = AdminClient(clients.COMMON | {"bootstrap.servers": self.servers})
        config = self.config
        specs = topics.specs(config)
        topics.create(self.admin, specs)

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        """No process outlives its test, nor do topics: each start reads the names of all."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()
        names = map(str, self.settings.values())
        own = [name for name in names if name.startswith(f"{self.name}-")]
        # Those that are not there are an error, and so is a broker that is gone.
        futures.wait(self.admin.delete_topics(own).values(), 5.0)
        if "_asking" in vars(self):
            self._asking.close()

    @property
    def config(self) -> Config:
        return _config(*self._overrides({}))

    def _overrides(self, changed: Mapping[str, object]) -> list[str]:
        return [f"{key}={value}" for key, value in {**self.settings, **changed}.items()]

    def command(
        self, *arguments: str, plan: dict[str, Any] | None = None, **changed: object
    ) -> Process:
        """Run a command of the CLI; settings are changed by `section__key=value`."""
        options = []
        for override in self._overrides({k.replace("__", "."): v for k, v in changed.items()}):
            options += ["--set", override]
        zygote = self.commands.next(arguments[0]) if self.commands else None
        process = Process([*arguments, *options], self.folder / "logs", plan, zygote)
        self.processes.append(process)
        return process

    def worker(self, *arguments: str, **options: Any) -> Process:
        return self.command("worker", *arguments, **options)

    # -- topics ----------------------------------------------------------------------------------

    def partitions(self, topic: str) -> list[tuple[str, int]]:
        return [(topic, p) for p in self.admin.list_topics(topic, 10).topics[topic].partitions]

    def ends(self, topic: str) -> dict[tuple[str, int], int]:
        return clients.ends(self.admin, self.partitions(topic))

    def publish(self, clicks: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Send key and value of clicks, all acknowledged."""
        publish(self.servers, self.config.topics.clicks, clicks)

    def describe(self, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Send key and value of items, all acknowledged; None retires one."""
        publish(self.servers, self.config.topics.items, items)
        self._described = True

    def read(self, topic: str) -> list[Message]:
        """All that a consumer with read_committed gets, partition by partition."""
        ends = self.ends(topic)
        out: dict[tuple[str, int], list[Message]] = {partition: [] for partition in ends}
        consumer = clients.tail_consumer(self.config)
        begins = clients.begins(self.admin, list(ends))
        consumer.assign([TopicPartition(*partition, begin) for partition, begin in begins.items()])
        reached: dict[tuple[str, int], int] = {}
        deadline = time.monotonic() + SECONDS
        while any(reached.get(partition, -1) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic}: read to {reached}, the ends are {ends}"
            for message in consumer.consume(10_000, clients.POLL_SECONDS):
                partition = message.topic() or "", message.partition() or 0
                error = message.error()
                if error is None:
                    out[partition].append(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    reached[partition] = message.offset() or 0
        consumer.close()
        return [message for partition in sorted(out) for message in out[partition]]

    def group_offsets(self) -> dict[tuple[str, int], int]:
        """What the consumer group has committed; negative where it has nothing."""
        asked = [TopicPartition(t, p) for t, p in self.partitions(self.config.topics.clicks)]
        try:
            found = self._asking.committed(asked, 10)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            return {}  # a broker that has just started
        return {(tp.topic, tp.partition): tp.offset for tp in found}

    @cached_property
    def _asking(self) -> Consumer:
        """One asks all, as a new one for each question takes both sides ten times as much."""
        own = {"bootstrap.servers": self.servers, "group.id": self.name}
        return Consumer(clients.COMMON | clients.STEADY | own)

    def caught_up(self) -> bool:
        """Whether every click that is in the topic now is in a commit, and all of `items`."""
        if self.group_offsets() != self.ends(self.config.topics.clicks):
            return False
        # The group has no offsets of `items`: the clicks may end before the catalogue does.
        return not self._described or self._items_taken() == self.ends(self.config.topics.items)

    def _items_taken(self) -> dict[tuple[str, int], int]:
        """Next offset of each partition of `items` that is in a commit, from the topic."""
        out = dict.fromkeys(self.ends(self.config.topics.items), 0)
        keys = {records.items_key(*partition): partition for partition in out}
        for message in self.read(self.config.topics.model_state):
            if (partition := keys.get(message.key() or b"")) is not None:
                value = message.value()
                out[partition] = 0 if value is None else int(msgspec.msgpack.decode(value))
        return out

    def group_is_empty(self) -> bool:
        """Whether no worker has a place in the group any more."""
        group = self.admin.describe_consumer_groups([self.name])[self.name].result()
        return bool(group.state == ConsumerGroupState.EMPTY)

    def run_to_end(self, **changed: object) -> None:
        """A worker until all clicks are committed, and its clean end."""
        worker = self.worker(**changed)
        worker.until(self.caught_up, "all clicks committed")
        worker.stop()

    def progress(self) -> dict[tuple[str, int], Progress]:
        """The last progress record of each clicks partition, from the topic."""
        return {
            records.progress_partition(message.key() or b""): msgspec.msgpack.decode(
                message.value() or b"", type=Progress
            )
            for message in self.read(self.config.topics.model_state)
            if (message.key() or b"").startswith(records.PROGRESS)
        }


def publish(servers: str, topic: str, clicks: Iterable[tuple[bytes, bytes | None]]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,  # a batch that is sent again keeps its place
            "linger.ms": 5,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for key, value in clicks:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def as_records(clicks: Iterable[Mapping[str, object]]) -> list[tuple[bytes, bytes]]:
    return [(str(click["user_id"]).encode(), json.dumps(click).encode()) for click in clicks]
