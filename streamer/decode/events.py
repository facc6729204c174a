"""Records of the topics `clicks` and `items` into clicks and items, or into reasons why not.

`Decoder` runs once for every click there ever is. Its fast way takes batches as columns and only
decides which records are surely good. Each of the others is read again by itself: that way has the
last word, and says what is wrong.
"""

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.hashing import hash_keys
from streamer.decode.fields import (
    AT_KEY,
    AT_TIMESTAMP,
    DEFAULT_TYPE,
    MAX_TIME,
    MAX_WEIGHT,
    MIN_WEIGHT,
    UNITS_PER_MS,
    Invalid,
    Reader,
    Reason,
    Row,
    id_of,
    key_id,
    paths_of,
    to_ms,
)
from streamer.decode.formats import (
    MAX_ID_BYTES,
    UNREADABLE,
    Layout,
    Part,
    Registry,
    json_parts,
    msgpack_parts,
    short,
)
from streamer.settings import ClickSettings, EventSettings, KafkaValue

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

Attributes = dict[str, str | list[str]]


@dataclass(frozen=True)
class Item:
    """An item's attributes; None when the item is retired (a tombstone)."""

    id: str
    attributes: Attributes | None


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
    """What became of a batch, both in the order of its records."""

    clicks: Clicks
    bad: list[Bad]


class Decoder:
    """Reads the topic `clicks` as the settings say.

    ConfigError if the settings cannot be, if a schema registry is asked for and has no address, or
    if the extra that reads its formats is not installed.
    """

    def __init__(
        self,
        clicks: ClickSettings,
        events: EventSettings,
        registry: Mapping[str, KafkaValue] | None = None,
    ) -> None:
        self._paths, self._unit, self._events = paths_of(clicks), clicks.time_unit, events
        self._reader = Reader(self._paths, self._unit, events)
        self._type_weights = _TypeWeights(events.weights)
        self._registry: Registry | None = None
        self._layout: Layout | None = None
        if clicks.format in ("avro", "json-schema"):
            self._registry = Registry(clicks.format, registry or {})
            self._parts = self._registry.parts
            return
        self._parts = json_parts if clicks.format == "json" else msgpack_parts
        inside = {n: p for n, p in self._paths.items() if p not in ("", AT_KEY, AT_TIMESTAMP)}
        try:
            self._layout = Layout(clicks.format, inside, self._unit == "iso")
        except ValueError:  # two fields are one, or msgspec cannot spell a name: read slowly
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
        if self._registry is not None:
            self._registry.ask_again()
        stamps = np.array(array("q", timestamps))
        columns, doubtful = self._columns(keys, values, stamps)
        rows: list[Row] = []
        bad: list[Bad] = []
        for record in doubtful:
            self._read(record, keys[record], values[record], timestamps[record], rows, bad)
        if rows:
            columns = columns.with_rows(rows)
        stamps = stamps[columns.records]
        times = np.where(stamps < 0, columns.times, np.minimum(columns.times, stamps))
        weights = columns.weights.astype(np.float32)
        event_ids = _hashes(columns.event_ids)
        return Decoded(Clicks(columns.users, columns.items, times, weights, event_ids), bad)

    def _columns(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        stamps: NDArray[np.int64],
    ) -> tuple["_Columns", list[int]]:
        """Clicks that are surely good, and the numbers of all other records."""
        layout, paths = self._layout, self._paths
        if layout is None:
            return _Columns.of([]), list(range(len(values)))
        fields, numbers, doubtful = layout.columns(values, self._events.max_bytes)
        records = np.array(array("q", numbers))
        stamps = stamps[records]

        def column(name: str) -> list[Any]:
            if paths[name] == AT_KEY:
                return [_key_text(keys[number]) for number in numbers]
            return fields[name] if paths[name] else [None] * len(numbers)

        users, fit_users = _ids(column("user_id"))
        items, fit_items = _ids(column("item_id"))
        times = stamps if paths["ts"] == AT_TIMESTAMP else _times(column("ts"), self._unit)
        weights = self._weights(column("event_type"), column("weight"))
        columns = _Columns(records, users, items, times, weights, column("event_id"))
        good = (times >= 0) & (times <= MAX_TIME)
        good &= (stamps < 0) | (times <= stamps + int(self._events.max_ahead))
        good &= (weights >= MIN_WEIGHT) & (weights <= MAX_WEIGHT)
        good &= fit_users
        good &= fit_items
        if not good.all():
            doubtful = sorted({*doubtful, *records[~good].tolist()})
            columns = columns.taken(np.flatnonzero(~np.isin(records, doubtful)))
        return columns, doubtful

    def _weights(self, types: list[str | None], given: list[float | None]) -> NDArray[np.float64]:
        """Weights times those of their types; 0 for an unknown type."""
        weight_of = self._type_weights.__getitem__
        weights = np.fromiter(map(weight_of, types), np.float64, len(types))
        if given.count(None) < len(given):
            # Unlike JSON, MessagePack has infinities.
            with np.errstate(over="ignore", invalid="ignore"):
                weights *= np.array([1.0 if weight is None else weight for weight in given])
        return weights

    def _read(
        self, record: int, key: bytes | None, value: bytes | None, timestamp: int,
        rows: list[Row], bad: list[Bad],
    ) -> None:  # fmt: skip
        """Add what is good and what is bad of a record."""
        try:
            parts = self._split(value)
        except Invalid as invalid:
            bad.append(Bad(record, None, value, invalid.reason, invalid.message))
            return
        for part in parts:
            try:
                if part.problem:
                    raise Invalid(Reason.UNDECODABLE, part.problem)
                rows.append(self._reader.click(part.document, record, key, timestamp))
            except Invalid as invalid:
                bad.append(Bad(record, part.number, part.value, invalid.reason, invalid.message))

    def _split(self, value: bytes | None) -> list[Part]:
        if value is None:
            raise Invalid(Reason.UNDECODABLE, "the record has no value")
        if len(value) > self._events.max_bytes:
            message = f"has {len(value)} bytes; events.max_bytes is {self._events.max_bytes}"
            raise Invalid(Reason.OVERSIZED, message)
        try:
            parts = self._parts(value)
        except ValueError as error:
            raise Invalid(Reason.UNDECODABLE, str(error)) from None
        if not parts:
            raise Invalid(Reason.UNDECODABLE, "is an empty array: there is no click in it")
        return parts


class _TypeWeights(dict[str | None, float]):
    """Weights by type, 0 for an unknown one."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights.items())
        self[None] = self[DEFAULT_TYPE]

    def __missing__(self, _: str | None) -> float:
        return self.get("*", 0.0)


@dataclass(frozen=True)
class _Columns:
    """Clicks on their way: the fields of `Row`, each for all of n clicks."""

    records: NDArray[np.int64]
    users: list[str]
    items: list[str]
    times: NDArray[np.int64]
    weights: NDArray[np.float64]
    event_ids: list[str | int | None]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        records, users, items, times, weights, event_ids = (
            zip(*rows, strict=True) if rows else [()] * 6
        )
        return cls(
            np.array(records, np.int64), list(users), list(items),
            np.array(times, np.int64), np.array(weights, np.float64), list(event_ids),
        )  # fmt: skip

    def taken(self, places: NDArray[np.intp]) -> Self:
        """The clicks at `places`, in that order."""
        at = places.tolist()
        return type(self)(
            self.records[places],
            [self.users[i] for i in at],
            [self.items[i] for i in at],
            self.times[places],
            self.weights[places],
            [self.event_ids[i] for i in at],
        )

    def with_rows(self, rows: Sequence[Row]) -> Self:
        """These and the clicks of other records, in the order of the records."""
        other = self.of(rows)
        both = type(self)(
            np.concatenate([self.records, other.records]),
            self.users + other.users,
            self.items + other.items,
            np.concatenate([self.times, other.times]),
            np.concatenate([self.weights, other.weights]),
            self.event_ids + other.event_ids,
        )
        return both.taken(np.argsort(both.records, kind="stable"))


def _ids(given: list[Any]) -> tuple[list[str], NDArray[np.bool] | bool]:
    """Ids as texts, and which of them have a length that fits."""
    try:
        if all(map(str.isascii, given)):
            return given, True  # measured by the layout
    except TypeError:  # an integer
        pass
    texts = list(map(str, given))
    return texts, np.array([0 < len(text.encode()) <= MAX_ID_BYTES for text in texts], bool)


_NO_KEY = "\N{REPLACEMENT CHARACTER}" * MAX_ID_BYTES  # not ASCII, so that it is measured


def _key_text(key: bytes | None) -> str:
    """A key as text; one that is too long for an id if it is none."""
    try:
        return key.decode() if key and len(key) <= MAX_ID_BYTES else _NO_KEY
    except UnicodeDecodeError:
        return _NO_KEY


def _times(given: list[Any], unit: str) -> NDArray[np.int64]:
    """Times in ms, -1 for what is none."""
    try:
        if unit == "s":
            ms = np.rint(np.clip(np.array(array("d", given)), -1.0, MAX_TIME) * 1000.0)
            return np.nan_to_num(ms, nan=-1.0).astype(np.int64)
        if unit != "iso":
            return np.array(array("q", given)) // UNITS_PER_MS[unit]
    except (TypeError, OverflowError):  # not all are integers of 64 bits
        pass
    return np.array([_time(ts, unit) for ts in given], np.int64)


def _time(ts: str | float, unit: str) -> int:
    try:
        ms = to_ms(ts, unit)
    except ValueError:
        return -1
    return ms if 0 <= ms <= MAX_TIME else -1


def _hashes(event_ids: list[str | int | None]) -> NDArray[np.uint64] | None:
    """Hashes of 64 bits, 0 where there is no id or an empty one; None if there is none at all."""
    if event_ids.count(None) == len(event_ids):
        return None
    # Surrogates, which JSON can spell, are as good as other text here.
    names = [b"" if i is None else str(i).encode(errors="surrogatepass") for i in event_ids]
    _, hashes = hash_keys(names, 1)
    there = np.array([name != b"" for name in names])
    return np.where(there, np.maximum(hashes, np.uint64(1)), np.uint64(0)) if there.any() else None


def decode_item(key: bytes | None, value: bytes | None) -> Item:
    """The item of a record of the topic `items`. Raises `Invalid`."""
    item_key = None if key is None else key_id(key)
    if value is None:
        if item_key is None:
            raise Invalid(Reason.BAD_FIELD, "a tombstone without a key retires nothing")
        return Item(item_key, None)
    try:
        record = json.loads(value.decode())
    except UNREADABLE as error:
        raise Invalid(Reason.UNDECODABLE, f"is not JSON in UTF-8: {error}") from None
    if not isinstance(record, dict):
        raise Invalid(Reason.UNDECODABLE, f"must be a JSON object, not {short(record)}")
    item_id = id_of(record, "item_id", "item_id")
    if item_key is not None and item_key != item_id:
        message = f"the key is {short(item_key)} but item_id is {short(item_id)}; they must agree"
        raise Invalid(Reason.BAD_ID, message)
    attributes = record.get("attributes", {})
    if not isinstance(attributes, dict):
        raise Invalid(Reason.BAD_FIELD, f"attributes must be an object, not {short(attributes)}")
    return Item(item_id, {name: _attribute(name, entry) for name, entry in attributes.items()})


def attribute_tokens(attributes: Attributes, use: Iterable[str]) -> list[str]:
    """Each value of each used attribute once, as "name=value", in the order of `use`."""
    tokens: dict[str, None] = {}
    for name in use:
        entry = attributes.get(name, [])
        for value in [entry] if isinstance(entry, str) else entry:
            tokens[f"{name}={value}"] = None
    return list(tokens)


def _attribute(name: str, entry: object) -> str | list[str]:
    if isinstance(entry, list):
        return [_attribute_text(name, value) for value in entry]
    return _attribute_text(name, entry)


def _attribute_text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"attributes.{name} must be text, a number or a list of them, not {short(value)}"
        raise Invalid(Reason.BAD_FIELD, message)
    text = str(value)
    try:
        f"{name}{text}".encode()
    except UnicodeEncodeError:
        message = f"attributes.{short(name)} {short(text)} is not encodable as UTF-8"
        raise Invalid(Reason.BAD_FIELD, message) from None
    return text
