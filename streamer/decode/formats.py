"""Bytes of the clicks topic into values, part by part, and back.

What `layout.Layout` does not take is read again by `json_parts`, `msgpack_parts` or
`registry.Registry`, slower: they find the parts of a record that carries many clicks and raise
ValueError with what is wrong. Only they decide what is bad.
"""

import json
import re
import reprlib
from codecs import BOM_UTF8
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from streamer.decode import lenient

UNREADABLE = (ValueError, TypeError, RecursionError)
"""What decoders raise on bytes that are not theirs."""


def why(error: Exception) -> str:
    """What is wrong with the bytes, of one that a decoder raised."""
    if isinstance(error, json.JSONDecodeError):
        line = f" of line {error.lineno:,}" if error.lineno > 1 else ""
        return f"{error.msg} at character {error.colno:,}{line}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


MAX_ID_BYTES = 512
"""Longer ids are no ids."""

MAX_PARTS = 10_000
"""Clicks of a record at most: each may be a dead letter, and all are in one transaction."""

WIRE_BYTES = 5
"""Confluent wire format begins with a zero byte and a schema id of four."""


class _Short(reprlib.Repr):
    """Looks at no more of a value than it prints: a message may be made for each of many clicks.

    What stands for nothing, and truth, is named as in JSON.
    """

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"

    def repr_Ext(self, extension: msgspec.msgpack.Ext, level: int) -> str:  # noqa: N802
        return self.repr1((extension.code, bytes(extension.data)[: self.maxother]), level)

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[: self.maxother])

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        if level <= 0 < len(value):
            return "{...}"
        shown = [
            f"{self.repr1(name, level - 1)}: {self.repr1(inner, level - 1)}"
            for name, inner in islice(value.items(), self.maxdict)
        ]
        return f"{{{', '.join(shown + ['...'] * (len(value) > self.maxdict))}}}"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 76


def short(value: object) -> str:
    """`repr`, which keeps lone surrogates printable, cut in depth and to what fits in a message."""
    return cut(_SHORT.repr(value), 80)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def is_framed(value: bytes) -> bool:
    """Whether a value looks like Confluent wire format."""
    return len(value) > WIRE_BYTES and value[0] == 0


class TooManyParts(ValueError):
    """A record carries more than `MAX_PARTS` clicks."""

    def __init__(self, n: int | str, what: str) -> None:
        super().__init__(
            f"has {n} {what}, and a record may carry {MAX_PARTS} clicks: none of them is used, "
            "good or bad; send fewer in a record"
        )


class Part(NamedTuple):
    """One click of a record, not yet looked at."""

    number: int | None
    """From 0 in a record that carries many clicks, else None."""
    value: bytes
    """Its own bytes."""
    document: object
    problem: str = ""
    """Why there is no document, or why one that has no click in it is no good."""


def _integer(digits: str) -> int | float:
    """Infinity for one that Python refuses to read for its length: a field not used may hold it."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_JSON = json.JSONDecoder(parse_int=_integer)


def json_document(value: bytes) -> object:
    """The one JSON document that a value is. What it raises is in UNREADABLE."""
    return _JSON.decode(value.removeprefix(BOM_UTF8).decode())


def json_parts(value: bytes) -> list[Part]:
    """A JSON document, the elements of an array, or the lines of NDJSON.

    The standard library also reads NaN, infinities and surrogates, so that they get a reason of
    their own. Raises ValueError, TooManyParts before any part is built.
    """
    try:
        document = json_document(value)
    except UNREADABLE as error:
        parts = _lines(value)
        if not parts:
            raise ValueError(f"is not JSON in UTF-8: {why(error)}{_hint(value)}") from None
        return parts
    if not isinstance(document, list):
        return [Part(None, value, document)]
    if len(document) > MAX_PARTS:
        raise TooManyParts(len(document), "elements")
    if not _has_click(document):
        raise ValueError(_NO_CLICK.format(len(document)))
    return _elements(value.removeprefix(BOM_UTF8).decode())


def json_bytes(document: object) -> bytes:
    """A document as `json_parts` reads it, numbers and surrogates that are none in JSON too."""
    return json.dumps(document, separators=(",", ":")).encode()


_NO_CLICK = "is an array of {} elements with no click in it: none is an object with a field"


def _has_click(documents: Iterable[object]) -> bool:
    """Whether one is a click to be: a record of numbers alone is bad as a whole, and once."""
    return any(document and isinstance(document, dict) for document in documents)


def _filled_lines(value: bytes) -> list[bytes]:
    return [line for line in value.split(b"\n") if line.strip()]


def _lines(value: bytes) -> list[Part]:
    """Lines that are not blank, if one is a click to be; else a broken document over many lines."""
    lines = _filled_lines(value)
    if len(lines) > MAX_PARTS:
        raise TooManyParts(len(lines), "lines")
    parts = [_line(number, line) for number, line in enumerate(lines)] if len(lines) > 1 else []
    if not _has_click(part.document for part in parts):
        return []
    opening = lines[0].strip()
    is_cut_open = parts[0].problem and (opening.startswith(b"[") or opening == b"{")
    return [] if is_cut_open else parts


def _line(number: int, line: bytes) -> Part:
    try:
        return Part(number, line, json_document(line))
    except UNREADABLE as error:
        return Part(number, line, None, f"is not JSON in UTF-8: {why(error)}")


_space = re.compile(r"[ \t\n\r]*")


def _elements(text: str) -> list[Part]:
    """The elements of what is known to be a JSON array."""
    parts: list[Part] = []
    at = _skip_space(text, text.index("[") + 1)
    while text[at] != "]":
        document, end = _JSON.raw_decode(text, at)
        parts.append(Part(len(parts), text[at:end].encode(), document))
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    return parts


def _skip_space(text: str, at: int) -> int:
    found = _space.match(text, at)
    return found.end() if found else at


_raw_array = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_msgpack = msgspec.msgpack.Decoder().decode
msgpack_bytes = msgspec.msgpack.Encoder().encode


def msgpack_parts(value: bytes) -> list[Part]:
    """A MessagePack document, or the elements of an array.

    Raises ValueError, TooManyParts before any part is built.
    """
    try:
        raws = _raw_array(value)
    except msgspec.ValidationError:
        part = _msgpack_part(None, value)
        if part.problem and part.document is None:
            raise ValueError(part.problem + _hint(value)) from None
        return [part]
    except UNREADABLE as error:
        raise ValueError(f"is not MessagePack: {why(error)}{_hint(value)}") from None
    if len(raws) > MAX_PARTS:
        raise TooManyParts(len(raws), "elements")
    parts = [_msgpack_part(number, bytes(raw)) for number, raw in enumerate(raws)]
    if not _has_click(part.document for part in parts):
        raise ValueError(_NO_CLICK.format(len(raws)))
    return parts


def _msgpack_part(number: int | None, value: bytes) -> Part:
    try:
        return Part(number, value, _msgpack(value))
    except UNREADABLE as error:
        document, problem = None, f"is not MessagePack: {why(error)}"
        if not isinstance(error, RecursionError):
            with suppress(ValueError):
                document = lenient.decode(value)
        return Part(number, value, document, problem)


def _hint(value: bytes) -> str:
    if not is_framed(value):
        return ""
    return '; it looks like Confluent wire format: clicks.format is then "json-schema" or "avro"'
