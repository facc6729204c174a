"""What comes out of a file: records for the topics, each with the line that it was."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from streamer.decode.formats import short

Unit = Literal["ms", "s", "iso", "order"]

STDIN = Path("-")

UNREADABLE = (
    LookupError,
    ValueError,
    OverflowError,
    RecursionError,
    csv.Error,
    msgspec.MsgspecError,
)
"""What reading a line raises that is not as it should be."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Flaw(NamedTuple):
    """Why a line was not made into a click."""

    kind: str
    """The same for all lines of which one example is enough."""
    message: str


class Record(msgspec.Struct, gc=False):
    """A record for a topic. Key and time are None if they could not be read."""

    key: bytes | None
    """The id as text: of the user for a click, of the item for an item."""
    value: bytes
    """JSON, or the line as it came."""
    time: int | None
    """Event time in ms; items have none."""
    path: Path
    line: int
    """From 1, header and blank lines counted."""
    flaw: Flaw | None = None

    @property
    def place(self) -> str:
        """The line in words."""
        return f"{'standard input' if self.path == STDIN else self.path}, line {self.line:,}"


def key_of(identifier: object) -> bytes | None:
    """7 and "7" are one id."""
    if isinstance(identifier, str | int) and not isinstance(identifier, bool):
        return str(identifier).encode() or None
    return None


def text_of(block: bytes) -> str:
    """Bytes that are not UTF-8 survive as surrogates, on which JSON encoding fails line by line."""
    return block.decode("utf-8", "surrogateescape")


def bytes_of(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")


def _milliseconds(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return round(float(text))


def _seconds(text: str) -> int:
    try:
        return int(text) * 1000
    except ValueError:
        return round(float(text) * 1000)


def _iso(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


TO_MS: dict[Unit, Callable[[str], int]] = {
    "ms": _milliseconds,
    "s": _seconds,
    "order": _seconds,
    "iso": _iso,
}
"""From a field's text to ms since the epoch; raises one of UNREADABLE."""

_UNITS: dict[Unit, str] = {
    "ms": "number of milliseconds",
    "s": "number of seconds",
    "order": "number",
    "iso": "time such as 2026-01-31T12:00:00Z",
}


def time_flaw(text: str, unit: Unit) -> Flaw | None:
    """What is wrong with the text of a time; None if it can be read."""
    if _reads(text, unit):
        return None
    other: Unit = "ms" if unit == "iso" else "iso"
    hint = {"iso": "; is it --time iso?", "ms": "; is it --time ms or s?"}[other]
    message = f"ts is {short(text)}, which is no {_UNITS[unit]}"
    return Flaw("time", message + (hint if _reads(text, other) else ""))


def _reads(text: str, unit: Unit) -> bool:
    try:
        TO_MS[unit](text)
    except UNREADABLE:
        return False
    return True
