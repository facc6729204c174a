"""Files into the topics `clicks` and `items`: at full speed, at a rate, or as event time went."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from streamer.errors import ConfigError, WalkstreamError
from streamer.readers import (
    Reader,
    Record,
    Source,
    read_clicks,
    read_items,
    refuse_unreadable,
)
from streamer.settings import Config

METADATA_SECONDS = 15.0
INTERRUPT_SECONDS = 10.0
"""How long an interrupted publish waits for the broker's word on what is under way."""
BURST_SECONDS = 0.01
SHORTEST_SLEEP = 0.001
SHOW_SECONDS = 0.25
LINE_SECONDS = 5.0


def run(
    config: Config, source: Source, items: bool, rate: float | None, speed: float | None
) -> None:
    """Publishes `source` to the items topic or the clicks topic, and prints what was delivered.

    `rate` is in records a second; `speed` is a multiple of event time (60: an hour in a minute).
    Record timestamps are left to the broker: old ones would be deleted by retention at once.
    Raises `ConfigError` before anything is sent, `WalkstreamError` if a record was not delivered or
    Ctrl-C came; its message says how many were.
    """
    _check_pace(items, rate, speed)
    topic = config.topics.items if items else config.topics.clicks
    reader: Reader[Any] = read_items(source) if items else read_clicks(source)
    batches: Iterable[list[Record]] = (
        ([(key, value, None)] for key, value in reader) if items else reader
    )
    tally = _Tally(topic)
    producer = _producer(config, tally)
    _require_topic(producer, topic, tally)
    if rate is not None:
        wait = _by_rate(rate)
    else:
        wait = _by_event_time(speed) if speed is not None else _at_once
    tally.started = time.monotonic()
    try:
        with _Display(topic, reader.total_bytes) as display:
            for batch, begin, end in _positions(batches, reader):
                if not items and begin == 0:
                    refuse_unreadable(batch)
                for number, record in enumerate(batch):
                    while (seconds := wait(record[2])) > SHORTEST_SLEEP:
                        producer.poll(min(seconds, SHOW_SECONDS))
                        display.show(begin + (end - begin) * number // len(batch), tally.sent)
                    _send(producer, topic, record, tally)
                    if not items and (record[0] is None or record[2] is None):
                        tally.unreadable += 1
                producer.poll(0)
                display.show(end, tally.sent)
            display.finish(reader.bytes_read, tally.sent)
            producer.flush()
    except KeyboardInterrupt:
        producer.flush(INTERRUPT_SECONDS)
        raise WalkstreamError(f"interrupted; {tally.summary(len(producer))}") from None
    except WalkstreamError as error:
        if not tally.sent:
            raise
        producer.flush()
        raise WalkstreamError(f"{error}\n{tally.summary(len(producer))}") from error
    print(tally.summary(len(producer)))
    if tally.failed:
        raise WalkstreamError(
            f"{tally.failed} of {tally.sent} records were not delivered to {topic}; "
            f"the first because: {tally.first_failure}"
        )


@dataclass
class _Tally:
    """What became of the records; a record is delivered when it is sent and neither of the rest."""

    topic: str
    sent: int = 0
    failed: int = 0
    unreadable: int = 0
    first_failure: str = ""
    client_error: str = ""
    started: float = field(default_factory=time.monotonic)

    def on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.fail(error)

    def on_error(self, error: KafkaError) -> None:
        self.client_error = f" ({error.str()})"

    def fail(self, error: KafkaError) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or error.str()

    def summary(self, unknown: int) -> str:
        seconds = time.monotonic() - self.started
        delivered = self.sent - self.failed - unknown
        text = (
            f"{self.topic}: {delivered:,} records delivered in {seconds:.1f} s "
            f"({delivered / seconds:,.0f} a second), {self.failed:,} failed"
        )
        if unknown:
            text += f", {unknown:,} without an answer from the broker: they may have arrived or not"
        if self.unreadable:
            text += (
                f". {self.unreadable:,} of all lines had no readable user or time and went out as "
                "they are; a worker moves those that are no clicks to the dead-letter topic"
            )
        return text


def _check_pace(items: bool, rate: float | None, speed: float | None) -> None:
    if rate is not None and speed is not None:
        raise ConfigError("--rate and --speed exclude each other: give one of them")
    if items and speed is not None:
        raise ConfigError("--speed needs event times and items have none: use --rate")
    for name, value in (("--rate", rate), ("--speed", speed)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be above 0")


def _producer(config: Config, tally: _Tally) -> Producer:
    if not config.kafka.get("bootstrap.servers"):
        raise ConfigError(
            'kafka."bootstrap.servers" is missing: name a broker as host:port in section [kafka]'
        )
    properties: dict[str, Any] = {
        "compression.type": "lz4",
        "linger.ms": 20,
        **config.kafka,
        # Repeats after a lost answer would count clicks twice.
        "enable.idempotence": True,
        # The partition of a user is the same for clients in every language.
        "partitioner": "murmur2_random",
        "delivery.report.only.error": True,
        "on_delivery": tally.on_delivery,
        "error_cb": tally.on_error,
    }
    try:
        return Producer(properties)
    except KafkaException as error:
        raise ConfigError(f"section [kafka]: {error.args[0].str()}") from error


def _require_topic(producer: Producer, topic: str, tally: _Tally) -> None:
    try:
        # Asked for by name, a missing topic would be created by brokers that allow it.
        topics = producer.list_topics(timeout=METADATA_SECONDS).topics
    except KafkaException as error:
        producer.poll(0)
        raise WalkstreamError(
            f"no answer from Kafka within {METADATA_SECONDS:g} s: {error.args[0].str()}"
            f"{tally.client_error}. Look at section [kafka] and whether the broker runs"
        ) from error
    if topic not in topics:
        raise ConfigError(
            f"topic {topic} does not exist: run `walkstream topics create`, or name the right "
            "topic in section [topics]"
        )


def _send(producer: Producer, topic: str, record: Record, tally: _Tally) -> None:
    # Counted afterwards: Ctrl-C in between leaves a record uncounted, never one counted too many.
    while True:
        try:
            producer.produce(topic, record[1], record[0])
            tally.sent += 1
            return
        except BufferError:
            producer.poll(0.05)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            tally.sent += 1
            tally.fail(error)
            if error.fatal():
                raise WalkstreamError(f"the producer cannot go on: {error.str()}") from failure
            return


def _positions(
    batches: Iterable[list[Record]], reader: Reader[Any]
) -> Iterator[tuple[list[Record], int, int]]:
    """Batches with the positions in bytes where they begin and end."""
    begin = 0
    for batch in batches:
        yield batch, begin, reader.bytes_read
        begin = reader.bytes_read


def _at_once(_: int | None) -> float:
    return 0.0


def _by_rate(rate: float) -> Callable[[int | None], float]:
    """Seconds until the next record is due. A call that says none is due yet does not count.

    What is late by more than `BURST_SECONDS` is not made up for, so that a stall ends in no burst.
    """
    due = time.monotonic()

    def wait(_: int | None) -> float:
        nonlocal due
        now = time.monotonic()
        if due - now > SHORTEST_SLEEP:
            return due - now
        due = max(due, now - BURST_SECONDS) + 1 / rate
        return 0.0

    return wait


def _by_event_time(speed: float) -> Callable[[int | None], float]:
    """Seconds until an event time (ms) is reached; the first one that comes starts the clock."""
    first: tuple[int, float] | None = None

    def wait(event_ms: int | None) -> float:
        nonlocal first
        if event_ms is None:
            return 0.0
        now = time.monotonic()
        if first is None:
            first = event_ms, now
        return first[1] + (event_ms - first[0]) / 1000 / speed - now

    return wait


class _Display:
    """A progress bar on a terminal, else a line now and then; both on standard error."""

    def __init__(self, topic: str, total: int | None) -> None:
        self._topic = topic
        self._total = total
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[sent]:,} records, {task.fields[rate]:,.0f} a second"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(topic, total=total, sent=0, rate=0.0)
        self._interval = SHOW_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._shown = (time.monotonic(), 0)

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, position: int, sent: int) -> None:
        now = time.monotonic()
        since, before = self._shown
        if now - since < self._interval:
            return
        rate = (sent - before) / max(now - since, 1e-9)
        self._shown = (now, sent)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=position, sent=sent, rate=rate)
        else:
            share = f"{position / self._total:.0%}, " if self._total else ""
            self._console.print(
                f"{self._topic}: {share}{sent:,} records, {rate:,.0f} a second", highlight=False
            )

    def finish(self, position: int, sent: int) -> None:
        self._bar.update(self._task, completed=position, sent=sent)
