"""Bytes of the clicks topic into values: fast into structs, or, for what is odd, part by part.

`Layout` takes the usual record in one call of msgspec. What it does not take is read again by
`json_parts`, `msgpack_parts` or `registry.Registry`, slower: they find the parts of a record that
carries many clicks and raise ValueError with what is wrong. Only they decide what is bad.
"""

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec

UNREADABLE = (ValueError, TypeError, RecursionError)
"""What decoders raise on bytes that are not theirs."""

MAX_ID_BYTES = 512
"""Longer ids are no ids."""

MAX_PARTS = 10_000
"""Clicks of a record at most: each may be a dead letter, and all are in one transaction."""

WIRE_BYTES = 5
"""Confluent wire format begins with a zero byte and a schema id of four."""

_BLOCK, _BLOCK_BYTES = 200, 20_000
"""So many records, and bytes, at a time stay in the processor's cache with their structs."""

_SHORT = reprlib.Repr()
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

    def __init__(self, n: int, what: str) -> None:
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
    """Why there is no document."""


def _integer(digits: str) -> int | float:
    """Infinity for one that Python refuses to read for its length: a field not used may hold it."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_JSON = json.JSONDecoder(parse_int=_integer)


def json_parts(value: bytes) -> list[Part]:
    """A JSON document, the elements of an array, or the lines of NDJSON.

    The standard library also reads NaN, infinities and surrogates, so that they get a reason of
    their own. Raises ValueError, TooManyParts before any part is built.
    """
    try:
        text = value.decode()
        document = _JSON.decode(text)
    except UNREADABLE as error:
        parts = _lines(value)
        if not parts:
            raise ValueError(f"is not JSON in UTF-8: {error}{_hint(value)}") from None
        return parts
    if not isinstance(document, list):
        return [Part(None, value, document)]
    if len(document) > MAX_PARTS:
        raise TooManyParts(len(document), "elements")
    if not _has_click(document):
        raise ValueError(_NO_CLICK.format(len(document)))
    return _elements(text)


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
        return Part(number, line, _JSON.decode(line.decode()))
    except UNREADABLE as error:
        return Part(number, line, None, f"is not JSON in UTF-8: {error}")


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
# An extension as a pair, which a message can show.
_msgpack = msgspec.msgpack.Decoder(ext_hook=lambda code, data: (code, bytes(data))).decode


def msgpack_parts(value: bytes) -> list[Part]:
    """A MessagePack document, or the elements of an array.

    Raises ValueError, TooManyParts before any part is built.
    """
    try:
        raws = _raw_array(value)
    except msgspec.ValidationError:
        part = _msgpack_part(None, value)
        if part.problem:
            raise ValueError(part.problem + _hint(value)) from None
        return [part]
    except UNREADABLE as error:
        raise ValueError(f"is not MessagePack: {error}{_hint(value)}") from None
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
        return Part(number, value, None, f"is not MessagePack: {error}")


def _hint(value: bytes) -> str:
    if not is_framed(value):
        return ""
    return '; it looks like Confluent wire format: clicks.format is then "json-schema" or "avro"'


class Layout:
    """The usual records of a mapping, decoded by msgspec into structs made for it.

    `paths` are the fields that are in the value, with their paths. A record that does not fit is
    not bad yet: null parents and keys with dots in them, for two, are left to the slow way.
    """

    def __init__(self, format: str, paths: Mapping[str, str], is_iso: bool) -> None:
        self._parents: dict[str, str] = {}
        types = _TYPES | {"ts": str if is_iso else int | float}
        # A literal key goes before a path of the same letters; a struct cannot choose.
        literals = [path for path in paths.values() if "." in path]
        struct = self._struct(_tree(paths), types, "", literals)
        many = Annotated[list[struct], msgspec.Meta(max_length=MAX_PARTS)]  # type: ignore[valid-type]
        one_or_many = struct | many
        self._type = struct
        self._decode: Any = (
            msgspec.json.Decoder(one_or_many).decode
            if format == "json"
            else msgspec.msgpack.Decoder(one_or_many).decode
        )
        self._decode_lines = msgspec.json.Decoder(struct).decode_lines if format == "json" else None

    def _struct(
        self, tree: Mapping[str, Any], types: Mapping[str, Any], prefix: str, literals: list[str]
    ) -> Any:
        members: list[tuple[Any, ...]] = []
        names: dict[str, str] = {}
        for number, (name, inner) in enumerate(tree.items()):
            if isinstance(inner, str):
                attribute, type_ = inner, types[inner]
                self._parents[inner] = prefix.removesuffix(".")
                default = None if inner in _OPTIONAL else msgspec.NODEFAULT
            else:
                attribute = f"group_{number}"
                type_ = self._struct(inner, types, f"{prefix}{attribute}.", [])
                needed = any(field.required for field in msgspec.structs.fields(type_))
                default = msgspec.NODEFAULT if needed else msgspec.field(default_factory=type_)
            names[attribute] = name
            members.append((attribute, type_, default))
        for number, name in enumerate(literals):
            names[f"literal_{number}"] = name
            members.append((f"literal_{number}", msgspec.UnsetType, msgspec.UNSET))
        members = [m[:2] if m[2] is msgspec.NODEFAULT else m for m in members]
        return msgspec.defstruct("Click", members, rename=names, kw_only=True, gc=False)

    def columns(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[dict[str, list[Any]], list[int], list[int]]:
        """The fields of n clicks, None where an optional one is absent.

        Then the number of the record of each, and the numbers of the records to read slowly.
        """
        columns: dict[str, list[Any]] = {field: [] for field in self._parents}
        records: list[int] = []
        left: list[int] = []
        begin = 0
        while begin < len(values):
            likely = len(values[begin] or b"") + 1
            block = values[begin : begin + max(1, min(_BLOCK, _BLOCK_BYTES // likely))]
            structs = self._structs(begin, block, max_bytes, records, left)
            begin += len(block)
            for field, parent in self._parents.items():
                holders = list(map(attrgetter(parent), structs)) if parent else structs
                columns[field] += _FIELDS[field](holders)
        return columns, records, left

    def _structs(
        self, begin: int, values: Sequence[bytes | None], max_bytes: int,
        records: list[int], left: list[int],
    ) -> list[Any]:  # fmt: skip
        decode, type_ = self._decode, self._type
        try:  # the usual block: a click a record
            if max(map(len, values)) <= max_bytes:  # type: ignore[arg-type]  # TypeError
                if self._decode_lines is not None:
                    # msgspec does not look at text that it skips.
                    b"\n".join(values).decode()  # type: ignore[arg-type]
                structs = list(map(decode, values))
                if set(map(type, structs)) == {type_}:
                    records += range(begin, begin + len(structs))
                    return structs
        except UNREADABLE:
            pass
        structs = []
        for record, value in enumerate(values, begin):
            found = self._found(value) if value is not None and len(value) <= max_bytes else []
            if type(found) is type_:
                structs.append(found)
                records.append(record)
            elif found:
                structs += found
                records += [record] * len(found)
            else:
                left.append(record)
        return structs

    def _found(self, value: bytes) -> Any:
        """A struct, the list of those of a record of many clicks, or an empty one."""
        try:
            if self._decode_lines is not None:
                value.decode()
                if (lines := _clicks_in_lines(value)) > 1:
                    found = self._decode_lines(value) if lines <= MAX_PARTS else []
                    return found if len(found) == lines else []
            return self._decode(value)
        except UNREADABLE:
            return []


def _clicks_in_lines(value: bytes) -> int:
    """How many lines there are if each is a click of its own, else 0.

    Inside of a document, no line ends with an object where the next begins with one; so if
    so many documents are found, each is in its line.
    """
    newlines = value.strip().count(b"\n")
    if newlines and newlines == (value.count(b"}\n{") or value.count(b"}\r\n{")):
        return newlines + 1
    return 0


# An id that may be one, if it is ASCII. Integers of more than 64 bits are left to be measured.
_ID = (
    Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
)
_TYPES: dict[str, Any] = {
    "user_id": _ID,
    "item_id": _ID,
    "event_type": str | None,
    "weight": float | None,
    "event_id": str | int | None,
}
_FIELDS: dict[str, Callable[[list[Any]], list[Any]]] = {  # the interpreter is quick at a fixed name
    "user_id": lambda structs: [struct.user_id for struct in structs],
    "item_id": lambda structs: [struct.item_id for struct in structs],
    "ts": lambda structs: [struct.ts for struct in structs],
    "event_type": lambda structs: [struct.event_type for struct in structs],
    "weight": lambda structs: [struct.weight for struct in structs],
    "event_id": lambda structs: [struct.event_id for struct in structs],
}
_OPTIONAL = frozenset({"event_type", "weight", "event_id"})


def _tree(paths: Mapping[str, str]) -> dict[str, Any]:
    """Paths as nested names with the fields as leaves. ValueError if two paths meet."""
    tree: dict[str, Any] = {}
    for field, path in paths.items():
        *parents, leaf = path.split(".")
        node: Any = tree
        for name in parents:
            node = node.setdefault(name, {})
            if isinstance(node, str):
                raise ValueError(f"{path} leads through another field")
        if node.setdefault(leaf, field) != field:
            raise ValueError(f"{path} is another field too")
    return tree
