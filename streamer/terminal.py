"""The way to standard output and standard error, on which no foreign text commands a terminal.

Ids, names, field names, file names and broker messages come from outside. Written raw, an escape
sequence among them moves the cursor, hides a line, sets the title or forges what an operator reads,
and a bidirectional control makes a text look like another one. So the doors are here: `guarded`
around each command, `Console` for rich's tables, `printable` in the log and in the last error.
"""

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from streamer.wording import wrapped

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # directions, line ends, invisible
    "\ud800-\udfff"  # halves of pairs: no encoding has them
    "\U000e0000-\U000e007f]"  # tags, which are invisible
)


def printable(text: str) -> str:
    """`text` with its control characters spelled as JSON does, so that JSON stays the same JSON.

    >>> printable("\\x1b[31mred")
    '\\\\u001b[31mred'
    """
    return _CONTROLS.sub(_spelled, text)


def one_line(text: str) -> str:
    """`printable`, and newlines too: for what has a line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _spelled(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def fitted(text: str, stream: IO[str] | None) -> str:
    """`text` with no line longer than the terminal is wide, if `stream` is one."""
    if stream is None or not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(
        wrapped(line, width, " " * (len(line) - len(line.lstrip()) + 4))
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def say(text: str) -> None:
    """Print a text for people to standard output, `fitted`."""
    print(fitted(text, sys.stdout))


class Printable:
    """A text stream that writes `printable` text to another one, which does all the rest."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Inside, whatever is printed to standard output and standard error is `printable`."""
    before = sys.stdout, sys.stderr
    # A closed one is None, to which Python prints nothing.
    sys.stdout, sys.stderr = (
        cast(IO[str], Printable(stream)) if stream is not None else stream for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Console(rich.console.Console):
    """rich's, for tables and progress: it writes codes of its own, and none that came in a text."""

    @property
    def file(self) -> IO[str]:
        stream: Any = super().file
        return cast(IO[str], stream.stream if isinstance(stream, Printable) else stream)

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROLS.search(segment.text):
                yield segment
            else:
                yield segment._replace(text=printable(segment.text))
