"""Records of the topics `clicks` and `items` into clicks and items, or into reasons why not.

`decode_batch` runs once for every click there ever is. Its loop only decides whether a record is
good; what is wrong with a bad one is found afterwards, by `_diagnose`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from core.clicks import Clicks
from streamer.settings import EventSettings

MAX_ID_BYTES = 512
MAX_TIME = 253_402_300_799_999
"""The end of the year 9999 in ms. Later times are in another unit."""
MIN_WEIGHT, MAX_WEIGHT = 1e-9, 1e9
"""Sums of such weights, times years of decay, stay inside float32."""

Attributes = dict[str, str | list[str]]


class Reason(StrEnum):
    """Why a record is a dead letter; the header `error.class` and the metric carry it."""

    UNDECODABLE = "undecodable"
    BAD_FIELD = "bad_field"
    BAD_ID = "bad_id"
    BAD_WEIGHT = "bad_weight"
    BAD_TIME = "bad_time"
    UNKNOWN_TYPE = "unknown_type"


class Invalid(Exception):
    """A verdict on a record, which is not used; it never ends the process."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Item:
    """An item's attributes; None when the item is retired (a tombstone)."""

    id: str
    attributes: Attributes | None


class _Click(msgspec.Struct, gc=False):
    user_id: str | int
    item_id: str | int
    ts: int | float
    event_type: str = "click"
    weight: float = 1.0


_decode_click = msgspec.json.Decoder(_Click).decode
_UNREADABLE = (ValueError, TypeError, RecursionError)


def decode_batch(
    values: Sequence[bytes | None], timestamps: Sequence[int], settings: EventSettings
) -> tuple[Clicks, list[tuple[int, Reason, str]]]:
    """Good clicks in their order, and (index, reason, message) of every other record.

    `timestamps` are record timestamps in ms, -1 for none. The time of a click is the earlier of its
    own and its record's; its weight is multiplied by that of its type. Never raises on any value.
    """
    decode, max_ahead = _decode_click, int(settings.max_ahead)
    type_weights, other_weight = settings.weights, settings.weights.get("*", 0.0)
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    weights: list[float] = []
    bad: list[tuple[int, Reason, str]] = []
    for index, (value, timestamp) in enumerate(zip(values, timestamps, strict=True)):
        try:
            click = decode(value)  # type: ignore[arg-type]  # None raises TypeError
            user, item, ts = click.user_id, click.item_id, click.ts
            if type(user) is not str:
                user = str(user)
            if type(item) is not str:
                item = str(item)
            if type(ts) is not int:
                ts = _integral(ts)
        except _UNREADABLE as error:
            bad.append((index, *_diagnose(value, timestamp, settings, str(error))))
            continue
        weight = click.weight * type_weights.get(click.event_type, other_weight)
        if (
            0 <= ts <= MAX_TIME
            and MIN_WEIGHT <= weight <= MAX_WEIGHT
            # UTF-8 takes at most 4 bytes a character: few ids are encoded to be measured.
            and (0 < len(user) <= MAX_ID_BYTES // 4 or _fits(user))
            and (0 < len(item) <= MAX_ID_BYTES // 4 or _fits(item))
            and (timestamp < 0 or ts <= timestamp + max_ahead)
        ):
            users.append(user)
            items.append(item)
            times.append(ts if timestamp < 0 or ts < timestamp else timestamp)
            weights.append(weight)
        else:
            bad.append((index, *_diagnose(value, timestamp, settings, "is not valid")))
    clicks = Clicks(users, items, np.array(times, np.int64), np.array(weights, np.float32))
    return clicks, bad


def decode_item(key: bytes | None, value: bytes | None) -> Item:
    """The item of a record of the topic `items`. Raises `Invalid`."""
    key_id = None if key is None else _key_id(key)
    if value is None:
        if key_id is None:
            raise Invalid(Reason.BAD_FIELD, "a tombstone without a key retires nothing")
        return Item(key_id, None)
    record = _parse(value)
    item_id = _id(record, "item_id")
    if key_id is not None and key_id != item_id:
        message = f"the key is {_short(key_id)} but item_id is {_short(item_id)}; they must agree"
        raise Invalid(Reason.BAD_ID, message)
    attributes = record.get("attributes", {})
    if not isinstance(attributes, dict):
        raise Invalid(Reason.BAD_FIELD, f"attributes must be an object, not {_short(attributes)}")
    return Item(item_id, {name: _attribute(name, entry) for name, entry in attributes.items()})


def attribute_tokens(attributes: Attributes, use: Iterable[str]) -> list[str]:
    """Each value of each used attribute once, as "name=value", in the order of `use`."""
    tokens: dict[str, None] = {}
    for name in use:
        entry = attributes.get(name, [])
        for value in [entry] if isinstance(entry, str) else entry:
            tokens[f"{name}={value}"] = None
    return list(tokens)


def _fits(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_BYTES and len(text.encode()) <= MAX_ID_BYTES


def _integral(ts: int | float) -> int:
    if ts != int(ts):
        raise ValueError("ts is not a whole number")
    return int(ts)


def _diagnose(
    value: bytes | None, timestamp: int, settings: EventSettings, fallback: str
) -> tuple[Reason, str]:
    """Reason and message of a record that was found bad; `fallback` if nothing else is wrong."""
    try:
        record = _parse(value)
        for name in ("user_id", "item_id"):
            _id(record, name)
        _check_time(record, timestamp, settings)
        _check_weight(record, settings.weights)
    except Invalid as invalid:
        return invalid.reason, invalid.message
    return Reason.UNDECODABLE, fallback


def _parse(value: bytes | None) -> dict[str, Any]:
    """A JSON object by the standard library, which also reads NaN, infinities and surrogates."""
    if value is None:
        raise Invalid(Reason.UNDECODABLE, "the record has no value")
    try:
        record = json.loads(value.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(Reason.UNDECODABLE, f"is not JSON in UTF-8: {error}") from None
    if not isinstance(record, dict):
        raise Invalid(Reason.UNDECODABLE, f"must be a JSON object, not {_short(record)}")
    return record


def _id(record: Mapping[str, Any], name: str) -> str:
    value = _field(record, name, (str, int), "a string or an integer")
    return _checked_id(name, str(value))


def _key_id(key: bytes) -> str:
    try:
        return _checked_id("the key", key.decode())
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_ID, f"the key {_short(key)} is not UTF-8") from None


def _checked_id(name: str, text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Invalid(Reason.BAD_ID, f"{name} {_short(text)} is not encodable as UTF-8") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise Invalid(Reason.BAD_ID, f"{name} has {size} bytes and must have 1 to {MAX_ID_BYTES}")
    return text


def _check_time(record: Mapping[str, Any], timestamp: int, settings: EventSettings) -> None:
    ts = _field(record, "ts", (int, float), "a number of ms")
    # An infinity has no remainder, so that it is no whole number either.
    if isinstance(ts, float) and not ts.is_integer():
        raise Invalid(Reason.BAD_FIELD, f"ts must be a whole number of ms, not {ts}")
    if not 0 <= ts <= MAX_TIME:
        raise Invalid(Reason.BAD_TIME, f"ts {_short(ts)} is not between 1970 and 9999 in ms")
    if timestamp >= 0 and ts > timestamp + settings.max_ahead:
        raise Invalid(
            Reason.BAD_TIME,
            f"ts {ts} is {(ts - timestamp) / 1000:.0f} s ahead of the record timestamp {timestamp};"
            f" events.max_ahead is {settings.max_ahead / 1000:.0f} s",
        )


def _check_weight(record: Mapping[str, Any], type_weights: Mapping[str, float]) -> None:
    event_type = _field(record, "event_type", (str,), "a string", "click")
    type_weight = type_weights.get(event_type, type_weights.get("*"))
    if type_weight is None:
        known = ", ".join(type_weights)
        message = f"event_type {_short(event_type)} is not in events.weights ({known})"
        raise Invalid(Reason.UNKNOWN_TYPE, message)
    weight = _field(record, "weight", (int, float), "a number", 1.0)
    if not weight > 0:
        raise Invalid(Reason.BAD_WEIGHT, f"weight is {_short(weight)} and must be > 0")
    # An integer of any size times a float may overflow; cut, it is still too large.
    if not MIN_WEIGHT <= min(weight, 1e300) * type_weight <= MAX_WEIGHT:
        message = (
            f"weight {_short(weight)} times {type_weight:g}, the weight of its type, "
            f"is not between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}"
        )
        raise Invalid(Reason.BAD_WEIGHT, message)


def _field(
    record: Mapping[str, Any], name: str, types: tuple[type, ...], wanted: str, default: Any = None
) -> Any:
    value = record.get(name, default)
    if name not in record and default is None:
        raise Invalid(Reason.BAD_FIELD, f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, types):
        raise Invalid(Reason.BAD_FIELD, f"{name} must be {wanted}, not {_short(value)}")
    return value


def _attribute(name: str, entry: object) -> str | list[str]:
    if isinstance(entry, list):
        return [_attribute_text(name, value) for value in entry]
    return _attribute_text(name, entry)


def _attribute_text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"attributes.{name} must be text, a number or a list of them, not {_short(value)}"
        raise Invalid(Reason.BAD_FIELD, message)
    text = str(value)
    try:
        f"{name}{text}".encode()
    except UnicodeEncodeError:
        message = f"attributes.{_short(name)} {_short(text)} is not encodable as UTF-8"
        raise Invalid(Reason.BAD_FIELD, message) from None
    return text


def _short(value: object) -> str:
    """`repr`, which keeps lone surrogates printable, cut to what fits in a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
