"""Times in files: from what a field says to ms, and what is wrong where it says none.

A number of seconds that is read as milliseconds is a day in January 1970, and one of microseconds
the year 58,000. Each unit has its own decades of numbers, so such a mistake is seen in the number.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple

from streamer.decode.fields import MAX_TIME, USUAL_SECONDS, iso_ms, numeral, unit_of
from streamer.decode.formats import short

Unit = Literal["ms", "s", "us", "ns", "iso", "order", "auto"]

MAX_ROUNDED_MS = 1000
"""Times in E notation that leave more than this open were shortened by a spreadsheet."""

_PER_SECOND = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9, "order": 1}


class Flaw(NamedTuple):
    """Why a line was not made into a click."""

    kind: str
    """The same for all lines of which one example is enough."""
    message: str


def _number(unit: Unit) -> Callable[[str], int]:
    """Reads numbers of a unit; they may have fractions, or be written as 1.79E+12."""
    per_second = _PER_SECOND[unit]
    last = MAX_TIME * per_second // 1000
    usual, too_late = (0, last) if unit == "order" else (s * per_second for s in USUAL_SECONDS)

    def to_ms(text: str) -> int:
        try:
            if not text.strip().isascii() or "_" in text:
                raise ValueError(text)  # what only Python takes for a number
            number: int | float = int(text)
        except ValueError:
            number = _fraction(text, per_second)
        # What is unusual may be in another unit. Old or invented times are in none.
        if not usual <= number < too_late and (not 0 <= number <= last or unit_of(number)):
            raise ValueError(text)
        if isinstance(number, int):  # of nanoseconds: more than a float holds
            return number * 1000 // per_second
        return round(number * 1000 / per_second)

    return to_ms


def _fraction(text: str, per_second: int) -> float:
    """A number that is no integer. ValueError for what is none, or lost digits."""
    number = numeral(text)
    if not math.isfinite(number):
        raise ValueError(text)
    if "e" in text.lower() and _open_ms(text, per_second) > MAX_ROUNDED_MS:
        raise ValueError(text)
    return number


def _open_ms(text: str, per_second: int) -> float:
    """What the last digit given stands for, in ms."""
    try:
        exponent = Decimal(text).as_tuple().exponent
    except InvalidOperation:
        return 0.0
    return 10.0**exponent * 1000 / per_second if isinstance(exponent, int) else 0.0


def _auto(text: str) -> int:
    try:
        number = numeral(text)
    except ValueError:
        return _bounded(iso_ms(text))
    unit = unit_of(number)
    if unit is None:
        raise ValueError(text)
    return TO_MS[unit](text)


def _iso(text: str) -> int:
    return _bounded(iso_ms(text))


def _bounded(ms: int) -> int:
    if not 0 <= ms <= MAX_TIME:
        raise ValueError(ms)
    return ms


TO_MS: dict[Unit, Callable[[str], int]] = {
    **{unit: _number(unit) for unit in ("ms", "s", "us", "ns", "order")},
    "iso": _iso,
    "auto": _auto,
}
"""From a field's text to ms since the epoch, from 1970 to 9999. ValueError for any other."""

_NAMES: dict[Unit, str] = {
    "ms": "number of milliseconds",
    "s": "number of seconds",
    "us": "number of microseconds",
    "ns": "number of nanoseconds",
    "order": "number",
    "iso": "time such as 2026-01-31T12:00:00Z",
    "auto": "time in s, ms, us or ns, or such as 2026-01-31T12:00:00Z",
}


def time_flaw(text: str, unit: Unit) -> Flaw | None:
    """What is wrong with the text of a time; None if it can be read."""
    if reads(text, unit):
        return None
    message = f"ts is {short(text)}, which is "
    try:
        number = numeral(text)
    except ValueError:
        hint = "; is it --time iso?" if reads(text, "iso") else ""
        return Flaw("time", f"{message}no {_NAMES[unit]}{hint}")
    other = unit_of(number)
    if other not in (None, unit) and reads(text, other) and unit != "order":
        year = f"in {_year(TO_MS[other](text))} as {other}; is it --time {other}, or auto?"
        if unit == "iso":
            return Flaw("unit", f"{message}no {_NAMES[unit]}, and {year}")
        return Flaw("unit", f"{message}{_misread(number, unit)}, and {year}")
    if "e" in text.lower():
        why = f"{message}a time that a spreadsheet shortened: export the column as text"
        return Flaw("shortened time", why)
    if unit in _PER_SECOND and math.isfinite(number):
        return Flaw("time", f"{message}not between 1970 and 9999 in {unit}")
    return Flaw("time", f"{message}no {_NAMES[unit]}")


def _misread(number: float, unit: Unit) -> str:
    ms = number * 1000 / _PER_SECOND.get(unit, 1000)
    if 0 <= ms <= MAX_TIME:
        return f"in {_year(int(ms))} as {unit}"
    return f"not between 1970 and 9999 as {unit}"


def _year(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y}"


def reads(text: str, unit: Unit) -> bool:
    """Whether the text is a time of the unit."""
    try:
        TO_MS[unit](text)
    except (ValueError, OverflowError):
        return False
    return True
