"""A real Apache Kafka of one node (KRaft), for tests, demos and measurements. Needs Java 17.

`python broker.py [port]` runs one until interrupted, `with Broker() as broker` for a block.
"""

import fcntl
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:  # whoever loads this file alone has no need of the other
    from proxy import Proxy

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
STOPPING = {signal.SIGINT, signal.SIGTERM}

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One node cannot hold the three replicas that these ask for by default.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 partitions each by default: seconds of start-up and nothing gained on one node.
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    # A dead producer's transaction is aborted this soon after its time-out.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A misspelt topic is an error, never a new topic.
    "auto.create.topics.enable": "false",
}

LOG4J = """\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
"""


class Unavailable(Exception):
    """This machine cannot run Kafka; the message says what is missing."""


@cache
def java() -> str:
    """Path of a Java of version 17 or newer, or raises `Unavailable`."""
    path = shutil.which("java")
    if path is None:
        raise Unavailable("no Java 17 or newer")
    banner = subprocess.run([path, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < 17:
        raise Unavailable("no Java 17 or newer")
    return path


def jars() -> Path:
    """The folder of Kafka's jars, resolved by Maven the first time, or raises `Unavailable`."""
    with (HERE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if LIBS.is_dir():
            return LIBS
        maven = shutil.which("mvn")
        if maven is None:
            raise Unavailable("no Maven (mvn) to fetch Kafka's jars")
        # Renamed when complete, so that a broken download is never taken for the jars.
        with tempfile.TemporaryDirectory(prefix=".libs-", dir=HERE) as folder:
            target = Path(folder) / "libs"
            command = [maven, "-q", "-B", "-f", str(HERE / "pom.xml"), COPY_JARS]
            options = [f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
            done = subprocess.run(command + options, capture_output=True, text=True)
            if done.returncode != 0:
                raise Unavailable(f"Maven could not fetch Kafka's jars: {done.stdout[-500:]}")
            target.rename(LIBS)
    return LIBS


def free_port() -> int:
    """A port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One broker on the loopback address. Its data lives from the first `start` to `close`.

    Between a `stop` and the next `start` data and port stay, as with a broker that is restarted.
    Clients reach it at `bootstrap`. With `behind`, that is the address of a proxy, and `direct`
    goes past it. One that is `brief` starts in half the CPU, and is slower under a load for long.
    """

    def __init__(
        self,
        port: int = 0,
        settings: dict[str, str] | None = None,
        behind: "Proxy | None" = None,
        brief: bool = False,
    ) -> None:
        self._java, self._jars = java(), jars()
        # The compiler that optimises pays off after minutes.
        self._options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if brief else []
        self.folder = Path(tempfile.mkdtemp(prefix="walkstream-kafka-"))
        self.bootstrap = self.direct = f"127.0.0.1:{port or free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        controller = f"127.0.0.1:{free_port()}"
        settings = (
            SETTINGS
            | {
                "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
                "controller.quorum.voters": f"1@{controller}",
                "log.dirs": str(self.folder / "data"),
            }
            | (self._behind(behind, controller) if behind else {})
            | (settings or {})
        )
        self._properties = self.folder / "server.properties"
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self.folder / "log4j2.properties").write_text(LOG4J)
        # An id that begins with "-" would be read as an option.
        cluster = "w" + secrets.token_urlsafe(16)[1:]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)]
        if self._run(tool).wait() != 0:
            raise RuntimeError(f"Kafka's storage was not formatted: {self._log_end()}")

    def _behind(self, proxy: "Proxy", controller: str) -> dict[str, str]:
        """Advertise the proxy to clients; what the broker asks of itself goes past it."""
        proxy.target, self.bootstrap = self.bootstrap, proxy.address
        self.direct = f"127.0.0.1:{free_port()}"
        return {
            "listeners": f"PLAINTEXT://{proxy.target},INTERNAL://{self.direct},"
            f"CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{proxy.address},INTERNAL://{self.direct}",
            "inter.broker.listener.name": "INTERNAL",
            "listener.security.protocol.map": SETTINGS["listener.security.protocol.map"]
            + ",INTERNAL:PLAINTEXT",
        }

    def _run(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [
            self._java,
            "-Xmx512m",
            *self._options,
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            f"{self._jars}/*",
            *arguments,
        ]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> Path:
        """File of what the broker printed."""
        return self.folder / "kafka.log"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def start(self) -> None:
        """Starts the broker and returns once it answers; RuntimeError if it does not."""
        self._process = self._run(["kafka.Kafka", str(self._properties)])
        # log_level 0: connections refused while the broker starts are no news.
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"Kafka did not start on {self.bootstrap}: {self._log_end()}")

    def stop(self) -> None:
        """Shuts the broker down in order, and kills it if that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kills the broker at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Kills the broker and deletes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def main() -> None:
    """Runs a broker on the port that the first argument names (9092) until interrupted."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        port = sys.argv[1] if len(sys.argv) > 1 else "9092"
        if not port.isdigit():
            sys.exit("ops/kafka/run [PORT]: a real Kafka of one node until Ctrl-C, 9092 by default")
        broker = Broker(int(port))
    except Unavailable as error:
        sys.exit(f"{error}: install it, or use a Kafka of your own")
    with broker:
        print(
            f"Kafka on {broker.bootstrap}, data in {broker.folder}. Ctrl-C stops it and deletes "
            "its data",
            flush=True,
        )
        signal.sigwait(STOPPING)


if __name__ == "__main__":
    main()
