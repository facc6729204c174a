"""What comes out of a file: records for the topics, each with the line that it was."""

import csv
from pathlib import Path

import msgspec

from streamer.files.times import Flaw

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


NOT_UTF_8 = (
    "is not in UTF-8. What Excel or an old system wrote is likely in Windows-1252, of which "
    "Latin-1 is a part: send `iconv -f WINDOWS-1252 -t UTF-8` of the file through a pipe"
)
"""What is wrong with bytes, and the cure."""


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
    def where(self) -> str:
        """The line in words."""
        return f"{name_of(self.path)}, line {self.line:,}"


def name_of(path: Path) -> str:
    """The file in words."""
    return "standard input" if path == STDIN else str(path)


def key_of(identifier: object) -> bytes | None:
    """7 and "7" are one id."""
    if isinstance(identifier, str | int) and not isinstance(identifier, bool):
        return str(identifier).encode() or None
    return None


def text_of(block: bytes) -> str:
    """Bytes that are not UTF-8 survive as surrogates, on which JSON encoding fails line by line."""
    return block.decode("utf-8", "surrogateescape")


def text_flaw(line: bytes) -> Flaw | None:
    """What is wrong with a line that is not in UTF-8."""
    try:
        line.decode()
    except UnicodeError:
        return Flaw("text", NOT_UTF_8)
    return None


def bytes_of(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")
