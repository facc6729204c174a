"""Words that many messages need."""

import textwrap
from collections.abc import Iterable
from itertools import groupby


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and what is counted.

    >>> counted(1, "record"), counted(1200, "record"), counted(2, "index", "indices")
    ('1 record', '1,200 records', '2 indices')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def amounts(**of: int) -> str:
    """Several of them.

    >>> amounts(item=1, arc=20)
    '1 item, 20 arcs'
    """
    return ", ".join(counted(count, noun) for noun, count in of.items())


def ranges(numbers: Iterable[int]) -> str:
    """Numbers without those in between, ascending.

    >>> ranges([4, 0, 1, 2])
    '0-2, 4'
    """
    runs = groupby(enumerate(sorted(numbers)), lambda placed: placed[1] - placed[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(placed) for _, placed in runs)]
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ends)


_SPANS = (("d", 86_400), ("h", 3600), ("min", 60))


def ago(seconds: float) -> str:
    """How long ago something was, in the largest unit of which there are two or more.

    >>> ago(1.4), ago(150), ago(50 * 3600)
    ('1 s ago', '2 min ago', '2 d ago')
    """
    for unit, size in _SPANS:
        if seconds >= 2 * size:
            return f"{seconds // size:,.0f} {unit} ago"
    return f"{seconds:,.0f} s ago"


def wrapped(text: str, width: int = 80, indent: str = "    ") -> str:
    """A line as lines of `width` columns, broken at spaces; all but the first are indented."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
