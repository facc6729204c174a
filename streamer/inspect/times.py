"""Which fields of a sample are times, in which unit, and why one that looks like a time is none.

What is a time is for the decoder to say: each value is read as it would read it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from streamer.decode.fields import to_ms
from streamer.decode.formats import short

TimeUnit = Literal["ms", "s", "us", "ns", "iso", "auto"]
_NUMBERS: dict[TimeUnit, float] = {"ms": 1, "s": 1e3, "us": 1e-3, "ns": 1e-6}
"""Units of numbers, in ms."""

MOST = 500
"""Values of a field that are looked at."""
_SHARE = 0.95
"""Of the values that must be so; a field may have a few bad ones."""
_DIGITS = 4
"""Fewer do not even make a year."""
_LEAST_NUMBER = 10**8
"""Smaller ones are durations, hours and the like: as seconds they are before 1974."""


def time_unit(values: Sequence[object], reference_ms: float) -> TimeUnit | None:
    """The unit in which these are times, or None if they are none.

    Numbers are times if they are within a factor of three of the reference. Units are a thousand
    apart, so only one can fit; `auto` is for fields that have several.
    """
    values = values[:MOST]
    for unit in _NUMBERS:
        if _most(sum(_is_near(_ms(value, unit), reference_ms) for value in values), values):
            return unit
    if _most(sum(_ms(value, "iso") is not None for value in values), values):
        return "iso"
    if _most(sum(_is_near(_ms(value, "auto"), reference_ms) for value in values), values):
        return "auto"
    return None


def unreadable(values: Sequence[object], reference_ms: float) -> str:
    """Why values that look like times are none, "" if they do not look like times."""
    values = values[:MOST]
    if not _most(sum(map(_looks_like_time, values)), values):
        return ""
    odd = next(value for value in values if _looks_like_time(value))
    if isinstance(odd, str) and not _is_number(odd):
        try:
            to_ms(odd, "iso")
        except ValueError as error:
            return f"it must be {error}"
        return f"{short(odd)} has no time of the day"
    for unit, ms in _NUMBERS.items():
        if _is_near(float(odd) * ms, reference_ms):  # type: ignore[arg-type]
            try:
                to_ms(odd, unit)  # type: ignore[arg-type]
            except ValueError as error:
                return f"it must be {error}"
            return f"{short(odd)} is a time in {unit}, and others of its values are none"
    near = datetime.fromtimestamp(reference_ms / 1000).date()
    return f"{short(odd)} is no time near that of the records ({near}) in s, ms, us or ns"


def _most(n: int, values: Sequence[object]) -> bool:
    return 0 < n >= _SHARE * len(values)


def _is_near(ms: float | None, reference_ms: float) -> bool:
    return ms is not None and reference_ms / 3 < ms < reference_ms * 3


def _is_number(text: str) -> bool:
    return text.strip().lstrip("+-").replace(".", "", 1).isdecimal()


def _ms(value: object, unit: TimeUnit) -> int | None:
    """The time that the decoder reads, None for what nobody would call a time."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | datetime):
        return None
    if isinstance(value, datetime) and unit != "ms":
        return None  # Avro's logical types bring their unit along
    if isinstance(value, str):
        if ":" in value:
            if unit not in ("iso", "auto"):
                return None
        elif unit == "iso" or not _is_number(value):
            return None  # a date alone may as well be a number
    elif unit == "iso":
        return None
    try:
        return to_ms(value, unit)
    except (ValueError, OverflowError):
        return None


def _looks_like_time(value: object) -> bool:
    if isinstance(value, str):
        if _is_number(value):
            return float(value) >= _LEAST_NUMBER or len(value) == len("20260131")
        return sum(c.isdecimal() for c in value) >= _DIGITS
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return _LEAST_NUMBER <= value < 1e30
