"""Records of the topic `clicks` into clicks, or into reasons why not.

`Decoder` runs once for every click there ever is. Its fast way takes batches as columns and only
decides which records are surely good. Each of the others is read again by itself: that way has the
last word, and says what is wrong.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from streamer.decode import arrays
from streamer.decode.ahead import Bound
from streamer.decode.columns import (
    Columns,
    TypeWeights,
    as_event_ids,
    as_ids,
    as_times,
    at_most,
    hashes_of,
    key_text,
    multiplied,
)
from streamer.decode.fields import (
    AT_KEY,
    AT_TIMESTAMP,
    MAX_TIME,
    MAX_WEIGHT,
    MIN_WEIGHT,
    Invalid,
    Reader,
    Reason,
    Row,
)
from streamer.decode.formats import (
    MAX_PARTS,
    Part,
    TooManyParts,
    json_bytes,
    json_parts,
    msgpack_bytes,
    msgpack_parts,
)
from streamer.decode.items import Attributes, Item, attribute_tokens, decode_item
from streamer.decode.layout import Fields, Layout
from streamer.decode.registry import Registry
from streamer.settings.sections import ClickSettings, EventSettings, KafkaValue

__all__ = [
    "Attributes",
    "Bad",
    "Decoded",
    "Decoder",
    "Invalid",
    "Item",
    "Reason",
    "attribute_tokens",
    "decode_item",
]


MANY_BAD = 20
"""A record with more bad clicks than this, and fewer good ones than bad, is one dead letter: a few
bytes could ask for ten thousand otherwise, and all of a round are in one transaction."""


class Bad(NamedTuple):
    """What of a batch is not used, and why."""

    record: int
    """The record's number in the batch."""
    part: int | None
    """The click's number in a record that carries many, else None."""
    value: bytes | None
    """The bytes of the part, or the record's value."""
    reason: Reason
    message: str


@dataclass(frozen=True)
class Decoded:
    """What became of a batch: clicks and what is bad, in the order of its records."""

    clicks: Clicks
    bad: list[Bad]
    unwanted: int
    """How many clicks are of types that weigh 0: they are neither."""
    records: NDArray[np.intp]
    """Shape (n,): of each click of `clicks` the number of its record in the batch, ascending."""


class Decoder:
    """Reads the topic `clicks` as the settings say.

    The settings are as `limits` lets them pass; `beat` is called while a schema registry is waited
    for. ConfigError if a schema registry is asked for and has no address, or if the extra that
    reads its formats is not installed.
    """

    def __init__(
        self,
        clicks: ClickSettings,
        events: EventSettings,
        registry: Mapping[str, KafkaValue] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._paths, self._unit = ClickSettings().fields | clicks.fields, clicks.time_unit
        self._events = events
        self._reader = Reader(self._paths, self._unit, events, clicks.max_weight)
        self._max_weight = clicks.max_weight
        self._type_weights = TypeWeights(events.all_weights)
        self._encode: arrays.Encode | None = None
        self._registry: Registry | None = None
        self._layout: Layout | None = None
        if clicks.format in ("avro", "json-schema"):
            self._registry = Registry(clicks.format, registry or {}, beat)
            self._parts = self._registry.parts
            return
        self._parts = json_parts if clicks.format == "json" else msgpack_parts
        self._encode = json_bytes if clicks.format == "json" else msgpack_bytes
        inside = {n: p for n, p in self._paths.items() if p not in ("", AT_KEY, AT_TIMESTAMP)}
        try:
            self._layout = Layout(clicks.format, inside, self._unit)
        except ValueError:  # also where two fields are one, or msgspec cannot spell a name
            self._layout = None

    def __call__(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
    ) -> Decoded:
        """The clicks of a batch. `timestamps` are record timestamps in ms, -1 for none.

        The time of a click is the earlier of its own and its record's; its weight is multiplied by
        that of its type. Raises nothing on any value. WalkstreamError if a schema registry does not
        answer.
        """
        stamps = np.array(array("q", timestamps))
        batches, doubtful = self._usual(keys, values, stamps)
        unwanted = 0
        parts: list[Columns] = []
        for batch in batches:
            columns, left_out, further = self._judged(*batch, stamps)
            parts.append(columns)
            unwanted += left_out
            doubtful += further
        rows: list[Row] = []
        bad: list[Bad] = []
        for record in sorted(doubtful):
            key, value, timestamp = keys[record], values[record], timestamps[record]
            unwanted += self._read(record, key, value, timestamp, rows, bad)
        if rows or not parts:
            parts.append(Columns.of(rows))
        columns = Columns.merged(parts)
        return Decoded(
            _clicks(columns, stamps), bad, unwanted, columns.records.astype(np.intp, copy=False)
        )

    def bounded(
        self,
        decoded: Decoded,
        bounds: Mapping[int, Bound],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
    ) -> Decoded:
        """What was made of a batch, but for clicks that lie past the bound of their record."""
        rows: list[Row] = []
        bad: list[Bad] = []
        try:
            for record, self._reader.bound in sorted(bounds.items()):
                self._read(record, keys[record], values[record], timestamps[record], rows, bad)
        finally:
            self._reader.bound = None
        kept = ~np.isin(decoded.records, list(bounds))
        clicks, numbers = decoded.clicks.at(kept), decoded.records[kept]
        if rows:
            columns = Columns.of(rows)
            numbers = np.concatenate([numbers, columns.records])
            order = np.argsort(numbers, kind="stable")
            stamps = np.array(array("q", timestamps))
            clicks = Clicks.joined([clicks, _clicks(columns, stamps)]).at(order)
            numbers = numbers[order]
        bad += [one for one in decoded.bad if one.record not in bounds]
        bad.sort(key=lambda one: one.record)
        return Decoded(clicks, bad, decoded.unwanted, numbers)

    def _usual(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        stamps: NDArray[np.int64],
    ) -> tuple[list[tuple[Fields, NDArray[np.int64]]], list[int]]:
        """Batches of clicks, each with the fields of all and their records, and the numbers of all
        other records."""
        if self._layout is None:
            return [], list(range(len(values)))
        batches, doubtful = self._layout.columns(values, self._events.max_bytes)
        for fields, records in batches:
            for name, path in self._paths.items():
                if path == AT_KEY:
                    fields[name] = [key_text(keys[number]) for number in records.tolist()]
                elif path == AT_TIMESTAMP:
                    fields[name] = stamps[records]
                elif not path:
                    fields[name] = [None] * len(records)
        return batches, doubtful

    def _judged(
        self, fields: Fields, records: NDArray[np.int64], stamps: NDArray[np.int64]
    ) -> tuple[Columns, int, list[int]]:
        """Clicks that are surely good, how many are unwanted, the numbers of all other records."""
        stamps = stamps[records]
        users, fit_users = as_ids(fields["user_id"])
        items, fit_items = as_ids(fields["item_id"])
        times = stamps if self._paths["ts"] == AT_TIMESTAMP else as_times(fields["ts"], self._unit)
        type_weights = self._type_weights.of(fields["event_type"])
        shown = type_weights < 0.0
        weights = np.where(shown, type_weights, multiplied(type_weights, fields["weight"]))
        columns = Columns(records, users, items, times, weights, as_event_ids(fields["event_id"]))
        good = (times >= 0) & (times <= MAX_TIME)
        good &= (stamps < 0) | (times <= stamps + int(self._events.max_ahead))
        heavy = (weights >= MIN_WEIGHT) & (weights <= MAX_WEIGHT)
        good &= shown | heavy & at_most(fields["weight"], self._max_weight)
        good &= fit_users
        good &= fit_items
        if good.all():
            return columns, 0, []
        unwanted = type_weights == 0.0
        doubtful = np.unique(records[~(good | unwanted)])
        sure = ~np.isin(records, doubtful)
        unwanted &= sure
        taken = columns.taken(np.flatnonzero(sure & ~unwanted))
        return taken, int(unwanted.sum()), doubtful.tolist()

    def _read(
        self, record: int, key: bytes | None, value: bytes | None, timestamp: int,
        rows: list[Row], bad: list[Bad],
    ) -> int:  # fmt: skip
        """Add what is good and what is bad of a record. Returns how many clicks are unwanted."""
        try:
            parts = self._split(value)
        except Invalid as invalid:
            bad.append(Bad(record, None, value, invalid.reason, invalid.message))
            return 0
        good: list[Row] = []
        not_good: list[Bad] = []
        unwanted = clicks = 0
        for part in parts:
            read = arrays.read(self._reader, self._encode, part, record, key, timestamp)
            good += read.rows
            unwanted += read.unwanted
            clicks += read.clicks
            if read.bad:
                number = read.first if part.number is None else part.number
                reason, message = read.bad.reason, read.bad.message
                not_good.append(Bad(record, number, read.letter, reason, message))
            if clicks > MAX_PARTS:
                error = TooManyParts(f"more than {MAX_PARTS}", "clicks in arrays")
                bad.append(Bad(record, None, value, Reason.OVERSIZED, str(error)))
                return 0
        if MANY_BAD < len(not_good) > len(good) + unwanted:
            why = (
                f"{len(not_good)} of its {clicks} clicks are bad, so that none of them counts; "
                f"the first: {not_good[0].message}"
            )
            bad.append(Bad(record, None, value, not_good[0].reason, why))
            return 0
        rows += good
        bad += not_good
        return unwanted

    def _split(self, value: bytes | None) -> list[Part]:
        if value is None:
            raise Invalid(Reason.UNDECODABLE, "the record has no value")
        if len(value) > self._events.max_bytes:
            message = f"has {len(value)} bytes; events.max_bytes is {self._events.max_bytes}"
            raise Invalid(Reason.OVERSIZED, message)
        try:
            return self._parts(value)
        except TooManyParts as error:
            raise Invalid(Reason.OVERSIZED, str(error)) from None
        except ValueError as error:
            raise Invalid(Reason.UNDECODABLE, str(error)) from None


def _clicks(columns: Columns, stamps: NDArray[np.int64]) -> Clicks:
    """The clicks of columns, by the timestamps of all records of the batch."""
    stamps = stamps[columns.records]
    times = np.where(stamps < 0, columns.times, np.minimum(columns.times, stamps))
    weights = columns.weights.astype(np.float32)
    return Clicks(columns.users, columns.items, times, weights, hashes_of(columns.event_ids))
