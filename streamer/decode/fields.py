"""One click, field by field: what it says, or the first reason why it is not used."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from uuid import UUID

from streamer.decode.formats import MAX_ID_BYTES, short
from streamer.decode.paths import ABSENT, EACH, Element, find, found
from streamer.settings.sections import EventSettings

if TYPE_CHECKING:  # it takes numba along, and settings look at this module
    from streamer.decode.ahead import Bound

AT_KEY = "@key"
AT_TIMESTAMP = "@timestamp"
DEFAULT_TYPE = "click"

MAX_TIME = 253_402_300_799_999
"""The end of the year 9999 in ms. Later times are in another unit."""
MIN_WEIGHT, MAX_WEIGHT = 1e-9, 1e9
"""Sums of such weights, times years of decay, stay inside float32."""

_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
Document = Mapping[Any, Any] | Element
UNITS_PER_MS = {"ms": 1, "us": 1000, "ns": 1_000_000}
NumberUnit = Literal["s", "ms", "us", "ns"]
_UNITS_PER_SECOND: dict[NumberUnit, int] = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
USUAL_SECONDS = 631_152_000, 4_102_444_800
"""1990 and 2100, between which clicks are; so a number is in one unit at most."""
_ZONE = re.compile(r"\s*(?:UTC|GMT|[zZ])$|\s+(?=[+-]\d\d:?\d\d$)")


class Reason(StrEnum):
    """Why a record is a dead letter; the header `error.class` and the metric carry it."""

    UNDECODABLE = "undecodable"
    OVERSIZED = "oversized"
    BAD_FIELD = "bad_field"
    BAD_ID = "bad_id"
    BAD_WEIGHT = "bad_weight"
    BAD_TIME = "bad_time"
    UNKNOWN_TYPE = "unknown_type"
    UNREADABLE = "unreadable"


class Invalid(Exception):
    """A verdict on a record, which is not used; it never ends the process."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def alone(self) -> Self:
        """Itself, to be kept: without the frames that it came through, which hold who keeps it, and
        all that came with it."""
        self.__context__ = None
        return self.with_traceback(None)


class Row(NamedTuple):
    """A good click."""

    record: int
    """Its record's number in the batch."""
    user: str
    item: str
    time: int
    """ms since the epoch, as the click has it."""
    weight: float
    """Times the weight of its type."""
    event_id: str | int | None


class Reader:
    """Reads documents into clicks by a mapping."""

    def __init__(
        self,
        paths: Mapping[str, str],
        unit: str,
        events: EventSettings,
        max_weight: float = MAX_WEIGHT,
    ) -> None:
        self._paths, self._unit, self._events = paths, unit, events
        self._max_weight = max_weight
        self.bound: Bound | None = None
        """How far ahead clicks may be, if that is known."""

    def click(self, document: object, record: int, key: bytes | None, timestamp: int) -> Row | None:
        """The click of a document, None for one of a type that weighs 0. Raises `Invalid`.

        Of an `Element`, it is one of several clicks, and an event id that they share gets its place
        behind it.
        """
        if not isinstance(document, dict | Element):
            raise Invalid(Reason.UNDECODABLE, f"must be an object, not {short(document)}")
        type_weight = self._type_weight(document)
        if not type_weight:
            return None  # whatever else is in it: it may well be about no item
        user = self._id(document, "user_id", key)
        item = self._id(document, "item_id", key)
        time = self._time(document, timestamp)
        counts = min(time, timestamp) if timestamp >= 0 else time
        if self.bound is not None and counts > self.bound.latest:
            raise Invalid(Reason.BAD_TIME, self.bound.refusal(counts))
        weight = self._weight(document, type_weight)
        event_id = self._optional(document, "event_id", (str, int, UUID), "a string or an integer")
        if isinstance(event_id, UUID):
            event_id = str(event_id)
        if isinstance(document, Element) and event_id is not None:
            if len(str(event_id)) > MAX_ID_BYTES:
                message = f"event_id {short(event_id)} is too long to be that of several clicks"
                raise Invalid(Reason.BAD_ID, message)
            if found(document, self._paths["event_id"])[1] != document.arrays:
                event_id = f"{event_id}#{'.'.join(map(str, document.where))}"
        return Row(record, user, item, time, weight, event_id)

    @property
    def item_path(self) -> str:
        return self._paths["item_id"]

    @property
    def has_arrays(self) -> bool:
        """Whether a document may carry several clicks: no field is in an array that has no item."""
        return EACH in self.item_path

    def leaves_out(self, document: Document, key: bytes | None, timestamp: int) -> bool:
        """Whether all clicks of a document are of a type that weighs 0. Raises `Invalid` for what
        is bad of what they share, so that it is looked at once."""
        shared = {name for name, path in self._paths.items() if EACH not in path}
        if "event_type" in shared and not self._type_weight(document):
            return True
        if "user_id" in shared:
            self._id(document, "user_id", key)
        if "ts" in shared:
            self._time(document, timestamp)
        return False

    def _id(self, document: Document, name: str, key: bytes | None) -> str:
        if self._paths[name] != AT_KEY:
            path = self._paths[name]
            own = document.arrays if isinstance(document, Element) and name == "item_id" else None
            # What is around the elements is the item of none of them.
            if own is not None and found(document, path)[1] != own:
                raise Invalid(Reason.BAD_FIELD, f"{_label(name, path)} is missing in it")
            return id_of(document, name, path)
        if key is None:
            message = f"{name} is the record's key (clicks.fields.{name}), and it has none"
            raise Invalid(Reason.BAD_FIELD, message)
        return key_id(key)

    def _time(self, document: Document, timestamp: int) -> int:
        path, unit = self._paths["ts"], self._unit
        if path == AT_TIMESTAMP:
            if not 0 <= timestamp <= MAX_TIME:
                message = f"ts is the record's timestamp (clicks.fields.ts), which is {timestamp}"
                raise Invalid(Reason.BAD_TIME, message)
            return timestamp
        types: tuple[type, ...] = (str,) if unit == "iso" else (int, float, str)
        wanted = "text (clicks.time_unit)" if unit == "iso" else f"a number of {unit}"
        if unit == "auto":
            wanted = "a time"
        ts = field(document, "ts", path, (*types, datetime), wanted)
        try:
            ms = to_ms(ts, unit)
        except ValueError as error:
            raise Invalid(Reason.BAD_FIELD, f"{_label('ts', path)} must be {error}") from None
        if not 0 <= ms <= MAX_TIME:
            message = f"ts {short(ts)} is not between 1970 and 9999 in {unit} (clicks.time_unit)"
            raise Invalid(Reason.BAD_TIME, message)
        ahead, most = (ms - timestamp) / 1000, self._events.max_ahead
        if timestamp >= 0 and ms > timestamp + most:
            # As dates: a file may have had it in another unit than the record.
            times = f"{_EPOCH + ms * _MS:%FT%TZ} is {ahead:.0f} s ahead of the record timestamp"
            message = f"ts {times} {_EPOCH + timestamp * _MS:%FT%TZ}"
            raise Invalid(Reason.BAD_TIME, f"{message}; events.max_ahead is {most / 1000:.0f} s")
        return ms

    def _type_weight(self, document: Document) -> float:
        type_weights = self._events.all_weights
        event_type = self._optional(document, "event_type", (str,), "a string")
        event_type = DEFAULT_TYPE if event_type is None else event_type
        type_weight = type_weights.get(event_type, type_weights.get("*"))
        if type_weight is None:
            known = ", ".join(type_weights)
            message = f"event_type {short(event_type)} is not in events.weights ({known})"
            raise Invalid(Reason.UNKNOWN_TYPE, f"{message}; a weight of 0 leaves it out")
        return type_weight

    def _weight(self, document: Document, type_weight: float) -> float:
        if type_weight < 0.0:
            return type_weight  # an impression is one, whatever it weighs
        given = self._optional(document, "weight", (int, float, Decimal), "a number")
        # An integer of any size times a float may overflow; cut, it is still too large.
        weight = 1.0 if given is None else float(min(given, 1e300))
        if not weight > 0:
            raise Invalid(Reason.BAD_WEIGHT, f"weight is {short(given)} and must be > 0")
        if weight > self._max_weight:
            most = f"clicks.max_weight, which is {self._max_weight:g}"
            message = f"weight {short(given)} is more than {most}"
            raise Invalid(Reason.BAD_WEIGHT, message)
        if not MIN_WEIGHT <= weight * type_weight <= MAX_WEIGHT:
            message = (
                f"weight {short(given)} times {type_weight:g}, the weight of its type, "
                f"is not between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}"
            )
            raise Invalid(Reason.BAD_WEIGHT, message)
        return weight * type_weight

    def _optional(self, document: Document, name: str, types: tuple[type, ...], wanted: str) -> Any:
        """None where the field is not used, absent or null."""
        path = self._paths[name]
        if not path or find(document, path) in (ABSENT, None):
            return None
        return field(document, name, path, types, wanted)


def unit_of(number: float) -> NumberUnit | None:
    """The unit in which it is a time from 1990 to 2100."""
    first, last = USUAL_SECONDS
    for unit, per_second in _UNITS_PER_SECOND.items():
        if first * per_second <= number < last * per_second:
            return unit
    return None


def numeral(text: str) -> int | float:
    """The number that a text is. ValueError, also for what only Python takes for a number."""
    digits = text.strip()
    try:
        if digits.isascii() and "_" not in digits:
            number = int(digits) if digits.lstrip("+-").isdecimal() else float(digits)
            float(number)
            return number
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"a number, not {short(text)}")


def iso_ms(text: str) -> int:
    """ms of a time such as 2026-01-31T12:00:00Z; UTC unless it says otherwise. ValueError."""
    try:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            # As databases and logs write it: 2026-01-31 12:00:00 UTC, 2026-01-31 12:00:00 +0000.
            moment = datetime.fromisoformat(_ZONE.sub(_zone, text.strip()))
    except ValueError:
        raise ValueError(f"a time such as 2026-01-31T12:00:00Z, not {short(text)}") from None
    return _moment_ms(moment)


def _zone(found: re.Match[str]) -> str:
    return "+00:00" if found[0].strip() else ""


def _moment_ms(moment: datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MS


def _is_iso(text: str) -> bool:
    try:
        iso_ms(text)
    except ValueError:
        return False
    return True


def to_ms(ts: str | float | datetime, unit: str) -> int:
    """ms since the epoch, out of bounds or not. ValueError that says what `ts` must be.

    A number may be written as text. `auto` takes what the number, or the text, can only be.
    """
    if isinstance(ts, datetime):
        return _moment_ms(ts)
    if isinstance(ts, str):
        if unit == "iso":
            return iso_ms(ts)
        text = ts
        try:
            ts = numeral(text)
        except ValueError:
            if unit == "auto":
                return iso_ms(text)
            hint = "; is clicks.time_unit iso?" if _is_iso(text) else ""
            raise ValueError(f"a number of {unit}, not {short(text)}{hint}") from None
    if unit == "auto":
        fitting = unit_of(ts)
        if fitting is None:
            raise ValueError(f"a time between 1990 and 2100 in s, ms, us or ns, not {short(ts)}")
        unit = fitting
    if isinstance(ts, float) and not math.isfinite(ts):
        raise ValueError(f"a whole number of ms, not {ts}" if unit == "ms" else f"finite, not {ts}")
    if unit == "s":
        # So many seconds are out of bounds as ms already, and their product may overflow.
        return int(ts) if abs(ts) > MAX_TIME else round(ts * 1000)
    if unit == "ms" and ts != int(ts):
        raise ValueError(f"a whole number of ms, not {ts}")
    return int(ts // UNITS_PER_MS[unit])


def id_of(document: Document, name: str, path: str) -> str:
    """An id of a document. Raises `Invalid`."""
    value = field(document, name, path, (str, int, UUID), "a string or an integer")
    return checked_id(name, str(value))


def key_id(key: bytes) -> str:
    """The id that a record's key is. Raises `Invalid`."""
    try:
        return checked_id("the key", key.decode())
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_ID, f"the key {short(key)} is not UTF-8") from None


def checked_id(name: str, text: str) -> str:
    """`text`, if it may be an id. Raises `Invalid`."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Invalid(Reason.BAD_ID, f"{name} {short(text)} is not encodable as UTF-8") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise Invalid(Reason.BAD_ID, f"{name} has {size} bytes and must have 1 to {MAX_ID_BYTES}")
    return text


def field(document: Document, name: str, path: str, types: tuple[type, ...], wanted: str) -> Any:
    """The value at `path`, if it is of `types`. Raises `Invalid`."""
    value = find(document, path)
    if value is ABSENT:
        of_array = ", or its array is empty" if EACH in path else ""
        raise Invalid(Reason.BAD_FIELD, f"{_label(name, path)} is missing{of_array}")
    if isinstance(value, bool) or not isinstance(value, types):
        message = f"{_label(name, path)} must be {wanted}, not {short(value)}"
        raise Invalid(Reason.BAD_FIELD, message)
    return value


def _label(name: str, path: str) -> str:
    return name if name == path else f"{name} ({short(path)})"
