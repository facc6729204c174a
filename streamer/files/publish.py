"""Files into the topics `clicks` and `items`: at full speed, at a rate, or as event time went."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.decode.events import Invalid, decode_item
from streamer.errors import ConfigError, WalkstreamError
from streamer.files.delivery import (
    INTERRUPT_SECONDS,
    SHOW_SECONDS,
    Delivery,
    Display,
    refuse_foreign_clicks,
)
from streamer.files.lines import Record
from streamer.files.log import ClickLog, tell
from streamer.files.order import Order, day
from streamer.files.readers import Reader, Source, read_items
from streamer.files.refusals import Refusals, refuse_unreadable
from streamer.files.sorting import Sorted, open_clicks
from streamer.files.times import Flaw
from streamer.settings.sections import Config

BURST_SECONDS = 0.01
SHORTEST_SLEEP = 0.001


def run(
    config: Config, source: Source, items: bool, rate: float | None, speed: float | None
) -> None:
    """Publishes `source` to the items topic or the clicks topic, and prints what was delivered.

    `rate` is in records a second; `speed` is a multiple of event time (60: an hour in a minute).
    Raises `ConfigError` before anything is sent, `WalkstreamError` if a record was not delivered or
    Ctrl-C came; its message says how many were.
    """
    _check_pace(items, rate, speed)
    topic = config.topics.items if items else config.topics.clicks
    batches, reader = _batches(config, source, items)
    delivery = Delivery(config, topic)
    if rate is not None:
        wait = _by_rate(rate)
    else:
        wait = _by_event_time(speed) if speed is not None else _at_once
    unreadable, refused = 0, Refusals()
    order = Order(config.session.gap, source.time != "order")
    try:
        with Display(topic, reader.total_bytes) as display:
            for batch, begin, end in _positions(batches, reader):
                if not items and not delivery.sent:
                    refuse_unreadable(batch)
                order.add(_times(batch))
                for number, record in enumerate(batch):
                    while (seconds := wait(record.time)) > SHORTEST_SLEEP:
                        delivery.wait(min(seconds, SHOW_SECONDS))
                        position = begin + (end - begin) * number // len(batch)
                        display.show(position, delivery.delivered)
                    delivery.send(topic, record.key, record.value)
                    unreadable += not items and (record.key is None or record.time is None)
                    if record.flaw is not None:
                        refused.add("lines", record.flaw, record)
                delivery.wait(0)
                display.show(end, delivery.delivered)
            display.finish(reader.bytes_read, delivery.delivered)
            delivery.flush()
    except KeyboardInterrupt:
        delivery.flush(INTERRUPT_SECONDS)
        raise WalkstreamError(f"interrupted; {delivery.summary()}") from None
    except WalkstreamError as error:
        if not delivery.sent:
            raise
        delivery.flush()
        raise WalkstreamError(f"{error}\n{delivery.summary()}") from error
    notice = (
        f". {unreadable:,} of all lines had no readable user or time and went out as they are; "
        "a worker moves those that are no clicks to the dead-letter topic"
    )
    print(delivery.summary() + (notice if unreadable else ""))
    for line in refused.lines():
        print(line)
    tell(chain(reader.findings.lines(), order.lines()))
    delivery.require_all()


def dry_run(config: Config, source: Source, items: bool) -> None:
    """Reads `source` as a worker would if it were published now, and prints what is in it.

    Needs no Kafka. Raises `ConfigError` and `WalkstreamError` as `run` does for what is in files,
    and where nothing is in them.
    """
    found: _Items | _Clicks = _Items(config, source) if items else _Clicks(config, source)
    is_first = True
    for batch in found.batches():
        if not items and is_first and batch:
            refuse_unreadable(batch)
            is_first = False
        found.take(batch)
    print(f"{found.summary()}. Nothing was sent")
    if not found.records:
        raise WalkstreamError("there is no record in the input")
    if found.refused.total:
        print(f"{found.refused.total:,} records could not be used; a worker would refuse them:")
        for line in found.refused.lines():
            print(line)
    tell(found.notes())


class _Clicks:
    """What is in the clicks so far."""

    def __init__(self, config: Config, source: Source) -> None:
        refuse_foreign_clicks(config.clicks)
        self.records = 0
        self._log = ClickLog(config, source)
        self.batches, self.refused = self._log.reader.__iter__, self._log.refused
        self.notes = self._log.notes
        self._now = int(time.time() * 1000)
        self._users: set[str] = set()
        self._items: set[str] = set()
        self._first, self._last = np.iinfo(np.int64).max, -1

    def take(self, batch: list[Record]) -> None:
        decoded, _ = self._log.decoded(batch, self._now)
        self.records += len(batch)
        self._users.update(decoded.clicks.users)
        self._items.update(decoded.clicks.items)
        if len(decoded.clicks):
            self._first = min(self._first, int(decoded.clicks.times.min()))
            self._last = max(self._last, int(decoded.clicks.times.max()))

    def summary(self) -> str:
        text = f"{self.records:,} records: {len(self._users):,} users, {len(self._items):,} items"
        return f"{text}, {day(self._first)} to {day(self._last)}" if self._users else text


class _Items:
    """What is in the items so far."""

    def __init__(self, config: Config, source: Source) -> None:
        self.records, self.refused, self._use = 0, Refusals(), config.items.use
        self._reader = read_items(source)
        self.notes = self._reader.findings.lines
        self._ids: set[str] = set()
        self._attributes: Counter[str] = Counter()

    def batches(self) -> Iterator[list[Record]]:
        return ([record] for record in self._reader)

    def take(self, batch: list[Record]) -> None:
        for record in batch:
            self.records += 1
            try:
                item = decode_item(record.key, record.value, self._use)
            except Invalid as invalid:
                self.refused.add(invalid.reason.value, Flaw("", invalid.message), record)
                continue
            self._ids.add(item.id)
            self._attributes.update((item.attributes or {}).keys())

    def summary(self) -> str:
        text = f"{self.records:,} records: {len(self._ids):,} items"
        names = ", ".join(f"{name} ({count:,})" for name, count in self._attributes.most_common())
        return f"{text}; attributes: {names}" if names else text


def _batches(
    config: Config, source: Source, items: bool
) -> tuple[Iterable[list[Record]], Reader[Any] | Sorted]:
    """The records of a source, and the reader that knows how far they are read."""
    if items:
        of_items = read_items(source)
        return ([record] for record in of_items), of_items
    refuse_foreign_clicks(config.clicks)
    reader = open_clicks(source)
    return reader, reader


def _times(batch: list[Record]) -> NDArray[np.int64]:
    return np.array([record.time for record in batch if record.time is not None], np.int64)


def _check_pace(items: bool, rate: float | None, speed: float | None) -> None:
    if rate is not None and speed is not None:
        raise ConfigError("--rate and --speed exclude each other: give one of them")
    if items and speed is not None:
        raise ConfigError("--speed needs event times and items have none: use --rate")
    for name, value in (("--rate", rate), ("--speed", speed)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be above 0")


def _positions(
    batches: Iterable[list[Record]], reader: Reader[Any] | Sorted
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
