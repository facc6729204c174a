"""All that a demo needs on this machine: a broker inside the process, and a worker beside it.

The broker is the mock cluster that comes with librdkafka; the worker is the real one.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Self

from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from streamer.errors import WalkstreamError
from streamer.kafka.clients import CALL_SECONDS

Figures = dict[tuple[str, ...], float]
"""Samples of /metrics by name, without the prefix, and label values."""

READY_SECONDS = 900.0
"""As many as a worker may take for its start: kernels take minutes to compile on a busy machine."""
STOP_SECONDS = 30.0
LOG_LINES = 15
POLL_SECONDS = 0.05
QUIET = 3
"""Syslog level of errors. Below it are notices that the broker is a mock and that it went away."""


class EmbeddedBroker:
    """One broker on a free port of this machine, until the `with` block ends.

    It is good for one short run: it keeps 5 MiB a partition in memory, shows aborted transactions,
    and forgets the offsets that transactions commit. It says nothing about exactly-once.
    """

    def __init__(self) -> None:
        # The cluster lives as long as the client that asked for it.
        self._host = Producer({"test.mock.num.brokers": 1, "log_level": QUIET})
        (broker,) = self._host.list_topics(timeout=CALL_SECONDS).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.close()

    def create(self, *topics: str) -> None:
        """Create topics, of 4 partitions each: the mock has no other number, and no other way."""
        for topic in topics:
            self._host.list_topics(topic, timeout=CALL_SECONDS)


class WorkerProcess:
    """`walkstream worker` in its own process, with a state folder and a log in `folder`.

    It ends at the latest with the `with` block. Methods raise WalkstreamError, with the end of the
    log, when it has ended by itself.
    """

    def __init__(self, bootstrap: str, folder: Path, settings: Iterable[str]) -> None:
        self.log, self.port = folder / "worker.log", _free_port()
        settings = [
            *settings,
            "topics.check=false",  # the embedded broker cannot say how its topics are set
            "kafka.check.crcs=false",  # nor has it checksums
            "commit.read_back=false",  # and it shows what is not committed yet
            f"kafka.bootstrap.servers={bootstrap}",
            f"state.dir={folder / 'state'}",
            f"metrics.port={self.port}",
        ]
        # The empty file stands in for a walkstream.toml that may lie here.
        command = [sys.executable, "-m", "streamer.cli", "worker", "--config", os.devnull]
        command += [word for setting in settings for word in ("--set", setting)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WALKSTREAM_")}
        with self.log.open("wb") as log:
            # Its own session: Ctrl-C at the terminal is for this process, which ends the worker.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environ, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def figures(self) -> Figures | None:
        """What /metrics says; None while nothing listens there."""
        if self._process.poll() is not None:
            raise self._failure(f"ended with exit code {self._process.returncode}")
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            try:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
            except OSError:
                return None
        return {
            (sample.name.removeprefix("walkstream_"), *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_until_learning(self) -> Figures:
        """Returns the figures after the first commit with clicks in it."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            figures = self.figures()
            if figures and figures[("events_total",)]:
                return figures
            time.sleep(POLL_SECONDS)
        raise self._failure(f"committed nothing within {READY_SECONDS:g} s")

    def stop(self) -> None:
        """Let it commit what it has and leave."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not stop within {STOP_SECONDS:g} s") from None
        if code:
            raise self._failure(f"ended with exit code {code}")

    def _failure(self, what: str) -> WalkstreamError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return WalkstreamError("\n  ".join([f"the worker {what}. {self.log} ends with:", *lines]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
