"""Files into the topics `clicks` and `items`: at full speed, at a rate, or as event time went."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from streamer.decode.events import Invalid, Reason, decode_item
from streamer.errors import ConfigError, WalkstreamError
from streamer.files.delivery import (
    INTERRUPT_SECONDS,
    Delivery,
    Display,
    refuse_foreign_clicks,
)
from streamer.files.lines import Record, text_flaw
from streamer.files.log import ClickLog, tell
from streamer.files.order import day
from streamer.files.readers import Source, read_items
from streamer.files.refusals import Refusals, refuse_unreadable
from streamer.files.times import Flaw
from streamer.progress import SHOW_SECONDS
from streamer.settings.sections import Config
from streamer.terminal import say
from streamer.wording import counted

BURST_SECONDS = 0.01
SHORTEST_SLEEP = 0.001


def run(
    config: Config, source: Source, items: bool, rate: float | None, speed: float | None
) -> None:
    """Publishes `source` to the items topic or the clicks topic, and prints what was delivered.

    `rate` is in records a second; `speed` is a multiple of event time (60: an hour in a minute).
    Raises `ConfigError` before anything is sent, `WalkstreamError` if a record was not delivered, a
    file is damaged or Ctrl-C came; its message says how many were, and what sending them again
    does.
    """
    _check_pace(items, rate, speed)
    topic = config.topics.items if items else config.topics.clicks
    found: _Items | _Clicks = _Items(config, source) if items else _Clicks(config, source)
    delivery = Delivery(config, topic)
    if rate is not None:
        wait = _by_rate(rate)
    else:
        wait = _by_event_time(speed) if speed is not None else _at_once
    last: Record | None = None
    try:
        with Display(topic, found.reader.total_bytes) as display:
            for batch, begin, end in _positions(found):
                found.take(batch)
                if not items and not delivery.sent:
                    refuse_unreadable(batch, found.refused)
                for number, record in enumerate(batch):
                    while (seconds := wait(record.time)) > SHORTEST_SLEEP:
                        delivery.wait(min(seconds, SHOW_SECONDS))
                        position = begin + (end - begin) * number // len(batch)
                        display.deliver(position, delivery.delivered)
                    delivery.send(topic, record.key, record.value)
                    last = record
                delivery.wait(0)
                display.deliver(end, delivery.delivered)
            display.end(found.reader.bytes_read, delivery.delivered)
            delivery.flush()
    except KeyboardInterrupt:
        delivery.flush(INTERRUPT_SECONDS)
        told = f"interrupted; {delivery.summary()}"
        raise WalkstreamError("\n".join([told, *_so_far(delivery, last, found.again)])) from None
    except WalkstreamError as error:
        if not delivery.sent:
            raise
        delivery.flush()
        told = "\n".join([str(error), delivery.summary(), *_so_far(delivery, last, found.again)])
        raise WalkstreamError(told) from error
    say(delivery.summary())
    if not found.records:
        raise WalkstreamError("there is no record in the input")
    if refused := found.refused.total:
        say(f"a worker will make {counted(refused, 'dead letter')} of these, sent as they came:")
        say("\n".join(found.refused.lines()))
    tell(found.notes())
    delivery.require_all()


def _so_far(delivery: Delivery, last: Record | None, again: str) -> Iterator[str]:
    """What to know before all of it is published again, of which `last` was sent last."""
    if last is not None:
        # Partitions fail each for itself: what arrived, need not be all up to a line.
        is_whole = delivery.delivered == delivery.sent
        where = f"The last record that was sent is {last.where}, and none is missing. "
        yield f"{where if is_whole else ''}{again}"


def dry_run(config: Config, source: Source, items: bool) -> None:
    """Reads `source` as a worker would if it were published now, and prints what is in it.

    Needs no Kafka. Raises `ConfigError` and `WalkstreamError` as `run` does for what is in files,
    and where nothing is in them.
    """
    found: _Items | _Clicks = (
        _Items(config, source, counts=True) if items else _Clicks(config, source, counts=True)
    )
    for batch in found.batches():
        is_first = not found.records
        found.take(batch)
        if not items and is_first:
            refuse_unreadable(batch, found.refused)
    say(f"{found.summary()}. Nothing was sent")
    if not found.records:
        raise WalkstreamError("there is no record in the input")
    if found.refused.total:
        say(f"a worker would make {counted(found.refused.total, 'dead letter')} of these:")
        say("\n".join(found.refused.lines()))
    tell(found.notes())
    if found.refused.total and not found.usable:
        raise ConfigError(f"no record of the input can be used. {found.cure}")


class _Clicks:
    """What is in the clicks so far; who and what, and from when on, only if that `counts`."""

    def __init__(self, config: Config, source: Source, counts: bool = False) -> None:
        refuse_foreign_clicks(config.clicks)
        self.records, self._unwanted, self._counts = 0, 0, counts
        self._remembered, self._has_ids = config.session.event_ids, False
        self._log = ClickLog(config, source)
        self.reader, self.refused = self._log.reader, self._log.refused
        self.batches = self.reader.__iter__
        self._users: set[str] = set()
        self._items: set[str] = set()
        self._first, self._last = np.iinfo(np.int64).max, -1

    @property
    def usable(self) -> bool:
        """Whether a worker would take any record, were it only as one that is left out."""
        return bool(self._users) or self._unwanted > 0

    @property
    def cure(self) -> str:
        """Where to look if nothing is usable."""
        told = [f"There are {line}" for line in self._types()]
        if not self.refused.are_all(Reason.UNKNOWN_TYPE.value):
            told.append(self.refused.where_to_look)
        return "\n".join(told)

    @property
    def again(self) -> str:
        """What sending all of it again does."""
        but = (
            f"but for those whose event_id is among the last {self._remembered} of an open session "
            "(session.event_ids)"
        )
        if not self._has_ids:
            but = "as they have no event_id"
        elif not self._remembered:
            but = "as session.event_ids is 0"
        return f"Clicks that are published again count twice, {but}"

    def _types(self) -> Iterator[str]:
        return (f"{line} (in the settings of the worker)" for line in self._log.left_out.lines())

    def take(self, batch: list[Record]) -> None:
        decoded, _ = self._log.decoded(batch, int(time.time() * 1000))
        self.records += len(batch)
        self._unwanted += decoded.unwanted
        self._has_ids |= decoded.clicks.event_ids is not None
        if not self._counts:
            return
        self._users.update(decoded.clicks.users)
        self._items.update(decoded.clicks.items)
        if len(decoded.clicks):
            self._first = min(self._first, int(decoded.clicks.times.min()))
            self._last = max(self._last, int(decoded.clicks.times.max()))

    def notes(self) -> Iterator[str]:
        yield from self._log.notes()
        if self._unwanted:
            what = counted(self._unwanted, "click")
            yield f"{what} of types that weigh 0 (events.weights): a worker leaves them out"
        if self.usable or not self._counts:  # else the error tells them
            yield from self._types()

    def summary(self) -> str:
        users, items = counted(len(self._users), "user"), counted(len(self._items), "item")
        text = f"{counted(self.records, 'record')}: {users}, {items}"
        return f"{text}, {day(self._first)} to {day(self._last)}" if self._users else text


class _Items:
    """What is in the items so far; their ids and attributes only if that `counts`."""

    def __init__(self, config: Config, source: Source, counts: bool = False) -> None:
        self.records, self.refused, self._use = 0, Refusals(), config.items.use
        self.reader, self._counts = read_items(source), counts
        self.notes = self.reader.findings.lines
        self._ids: set[str] = set()
        self._attributes: Counter[str] = Counter()

    @property
    def usable(self) -> bool:
        return bool(self._ids)

    again = "Items that are published again do no harm"
    cure = "An item needs an item_id, and its attributes are an object"

    def batches(self) -> Iterator[list[Record]]:
        return ([record] for record in self.reader)

    def take(self, batch: list[Record]) -> None:
        for record in batch:
            self.records += 1
            try:
                item = decode_item(record.key, record.value, self._use)
            except Invalid as invalid:
                flaw = text_flaw(record.value) or Flaw("", invalid.message)
                self.refused.add(invalid.reason.value, flaw, record)
                continue
            if self._counts:
                self._ids.add(item.id)
                self._attributes.update((item.attributes or {}).keys())

    def summary(self) -> str:
        text = f"{counted(self.records, 'record')}: {counted(len(self._ids), 'item')}"
        names = ", ".join(f"{name} ({count:,})" for name, count in self._attributes.most_common())
        return f"{text}; attributes: {names}" if names else text


def _check_pace(items: bool, rate: float | None, speed: float | None) -> None:
    if rate is not None and speed is not None:
        raise ConfigError("--rate and --speed exclude each other: give one of them")
    if items and speed is not None:
        raise ConfigError("--speed needs event times and items have none: use --rate")
    for name, value in (("--rate", rate), ("--speed", speed)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be above 0")


def _positions(found: _Items | _Clicks) -> Iterator[tuple[list[Record], int, int]]:
    """Batches with the positions in bytes where they begin and end."""
    begin = 0
    for batch in found.batches():
        yield batch, begin, found.reader.bytes_read
        begin = found.reader.bytes_read


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
