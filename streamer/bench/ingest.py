"""Clicks from a Kafka broker into sessions and graph on one core: a worker's rounds, but for the
learning.

Rates are by the processor's time of the process, all threads of it: it has one core, and waiting
for a slower broker is none of its cost. Results name the rates by the clock too.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from uuid import uuid4

import msgspec
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from core.engine import Engine
from core.graph.fold import KEPT
from streamer.bench import peers
from streamer.bench.clicks import Stream
from streamer.bench.results import Options, Result, in_turns
from streamer.decode.events import Decoder
from streamer.errors import ConfigError
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS
from streamer.settings.sections import AppSettings, Config, TopicSettings
from streamer.worker.reader import MAX_ROUND_BYTES, Reader, columns

SERVERS = "KAFKA_BOOTSTRAP_SERVERS"
BROKER = Path(__file__).parents[2] / "ops" / "kafka" / "broker.py"
ITEMS, USERS, CLICKS, PACKED = 50_000, 60_000, 1_000_000, 2_000_000
QUICK = 5
"""So many times less with `--quick`."""
PER_RECORD = 20
PARTITIONS = 4
CLICK_BYTES = 80
"""About so many a click has; a worker collects until it has a round's records, or bytes."""
TARGET, PACKED_TARGET = 250_000.0, 1_000_000.0
QUIXSTREAMS = "quixstreams==3.28.1"


def measure(options: Options) -> Iterator[Result]:
    """Clicks a second from the broker, one a record beside quixstreams, and many a record."""
    share = QUICK if options.quick else 1
    with broker() as servers, one_core(), closing(Bench(servers)) as bench:
        clicks = Stream.of(CLICKS // share, ITEMS, USERS)
        python = peers.python_with("quixstreams", QUIXSTREAMS)
        script = Path(__file__).with_name("peer_quixstreams.py")
        single = bench.fill(clicks, 1)
        with peers.running(python, script) as peer:
            question = {"servers": servers, "topic": single.topic, "clicks": single.clicks}

            their_clock: list[float] = []

            def theirs() -> float:
                answer = peer.ask(question)
                their_clock.append(single.clicks / answer["seconds"])
                return single.clicks / float(answer["cpu_seconds"])

            ours, raw, count = in_turns(single.fold, single.consume, theirs)
        yield Result(
            bench="ingest",
            setting=f"{single.clicks:,} clicks, one a record, one core",
            ours=ours,
            unit="clicks/s of CPU time",
            peer=f"{QUIXSTREAMS.replace('==', ' ')}, count by user, one core",
            peer_value=count,
            ratio=ours / count,
            quality=single.summary(),
            peer_quality=f"{median(their_clock):,.0f}/s by the clock",
            ceiling=f"{raw:,.0f}/s: consume alone, in the same run",
            target=f"{TARGET:,.0f} and 4 times",
        )
        packed = bench.fill(Stream.of(PACKED // share, ITEMS, USERS), PER_RECORD)
        ours, raw = in_turns(packed.fold, packed.consume)
        yield Result(
            bench="ingest",
            setting=f"{packed.clicks:,} clicks, NDJSON, up to {PER_RECORD} a record, one core",
            ours=ours,
            unit="clicks/s of CPU time",
            peer="none",
            quality=packed.summary(),
            ceiling=f"{raw:,.0f}/s: consume alone, in the same run",
            target=f"{PACKED_TARGET:,.0f}",
        )


@contextmanager
def broker() -> Iterator[str]:
    """The servers of a cluster: the one that the environment names, or one that runs meanwhile."""
    if SERVERS in os.environ:
        yield os.environ[SERVERS]
        return
    spec = importlib.util.spec_from_file_location("broker", BROKER) if BROKER.exists() else None
    if spec is None or spec.loader is None:
        raise ConfigError(
            f"bench ingest needs a Kafka: set {SERVERS} to the address of one, such as "
            "127.0.0.1:9092; ops/kafka, which can start one, is in a clone of the repository only"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        running = module.Broker()
    except module.Unavailable as error:
        raise ConfigError(f"bench ingest needs a Kafka: {error}; or set {SERVERS}") from None
    with running:
        yield running.bootstrap


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, threads and children to come included, on one of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class Bench:
    """Topics of its own on a cluster, deleted when it closes."""

    def __init__(self, servers: str) -> None:
        self.config = Config(kafka={"bootstrap.servers": servers})
        self.admin: AdminClient = clients.admin(self.config)
        self.topics: list[str] = []
        self.readers: list[Reader] = []

    def fill(self, stream: Stream, per_record: int) -> "Log":
        """A new topic with these clicks, and the reader of a worker on it."""
        name = f"walkstream-bench-{uuid4()}"
        topics = TopicSettings(clicks=f"{name}-clicks")
        config = replace(self.config, app=AppSettings(name), topics=topics)
        self.topics.append(topics.clicks)
        for future in self.admin.create_topics([NewTopic(topics.clicks, PARTITIONS, 1)]).values():
            future.result(CALL_SECONDS)
        publish(config, stream, per_record)
        reader = Reader(config, self.admin, lambda: None)
        self.readers.append(reader)
        batch = min(config.round.max_events, MAX_ROUND_BYTES // (per_record * CLICK_BYTES))
        return Log(config, reader, self.admin, len(stream.times), batch)

    def close(self) -> None:
        """Leave nothing behind."""
        for reader in self.readers:
            reader.close()
        for future in self.admin.delete_topics(self.topics).values():
            future.result(CALL_SECONDS)


def publish(config: Config, stream: Stream, per_record: int) -> None:
    """Clicks in the default form, keyed by user; many of a user as lines of one record."""
    producer = Producer({**config.kafka, "linger.ms": 20, "compression.type": "lz4"})
    encode, topic = msgspec.json.encode, config.topics.clicks
    waiting: dict[int, list[bytes]] = {}

    def send(user: int) -> None:
        value = b"\n".join(waiting.pop(user))
        while True:
            try:
                return producer.produce(topic, value, f"user-{user}".encode())
            except BufferError:
                producer.poll(0.1)

    columns = (column.tolist() for column in (stream.users, stream.items, stream.times))
    for user, item, ts in zip(*columns, strict=True):
        click = {"user_id": f"user-{user}", "item_id": f"item-{item}", "ts": ts}
        lines = waiting.setdefault(user, [])
        lines.append(encode(click))
        if len(lines) == per_record:
            send(user)
    for user in list(waiting):
        send(user)
    if producer.flush(CALL_SECONDS):
        raise ConfigError(f"{topic}: the broker did not take all records")


class Log:
    """A topic of clicks and a reader of it, which begins again and again."""

    def __init__(
        self, config: Config, reader: Reader, admin: AdminClient, clicks: int, batch: int
    ) -> None:
        self.config, self.reader, self.clicks = config, reader, clicks
        self.batch = batch
        """Records taken at a time."""
        self.topic = config.topics.clicks
        self.by_clock: list[float] = []
        """Clicks a second of waiting for the broker included, of each reading in turn."""
        partitions = [(self.topic, partition) for partition in range(PARTITIONS)]
        self.begins, self.ends = clients.begins(admin, partitions), clients.ends(admin, partitions)

    def fold(self) -> float:
        """Clicks a second into a new engine."""
        engine = Engine(self.config.engine_settings)
        decoder = Decoder(self.config.clicks, self.config.events)
        kept = 0

        def take(messages: list[Message]) -> None:
            nonlocal kept
            clicks = decoder(*columns(messages)).clicks
            for part in clicks.parts(self.config.round.max_events):
                kept += int((engine.fold(part).fate == KEPT).sum())

        rate = self._read(take)
        assert kept == self.clicks, "all clicks are good, and none is left out"
        return rate

    def summary(self) -> str:
        """The rate of `fold` by the clock; it took turns with `consume`."""
        return f"{median(self.by_clock[::2]):,.0f}/s by the clock"

    def consume(self) -> float:
        """The same with no look into the records."""
        return self._read(lambda messages: None)

    def _read(self, take: Callable[[list[Message]], None]) -> float:
        """All records in batches. Returns clicks a second of the processor's time: this process
        has one core, and what it waits for the broker is not its own.

        As with the peer, time by the clock begins when the first records are there.
        """
        left = sum(self.ends.values()) - sum(self.begins.values())
        begin, clock = time.process_time(), 0.0
        self.reader.begin(self.begins)
        while left > 0:
            # More than there is would be waited for.
            messages = self.reader.consume(min(self.batch, left), 0.1)
            if messages and not clock:
                clock = time.perf_counter()
            left -= len(messages)
            take(messages)
        self.by_clock.append(self.clicks / (time.perf_counter() - clock))
        return self.clicks / (time.process_time() - begin)
