"""Words that many messages need."""

import textwrap


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


def wrapped(text: str, width: int = 80, indent: str = "    ") -> str:
    """A line as lines of `width` columns, broken at spaces; all but the first are indented."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
