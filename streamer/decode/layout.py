"""Bytes of the clicks topic into columns of fields, where they are of a usual form.

Whatever is odd is left to `formats`, which decides about it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.decode.formats import MAX_ID_BYTES, MAX_PARTS, UNREADABLE
from streamer.decode.paths import is_plain
from streamer.decode.plain import OPTIONAL, Plain, Tree

_BLOCK = 400
"""So many records at a time stay in the processor's cache with their structs."""

Fields = dict[str, Any]
"""By field a column: a sequence, or an array of numbers."""


class Layout:
    """The usual records of a mapping: in JSON most are plain, others become structs made for it.

    `paths` are the fields that are in the value, with their paths. A record that does not fit is
    not bad yet: null parents and keys with dots in them, for two, are left to the slow way.
    ValueError for a mapping whose every record is left to it.
    """

    def __init__(self, format: str, paths: Mapping[str, str], unit: str) -> None:
        if paths.keys() <= OPTIONAL:
            raise ValueError("what must be in a click is not in the value: {} and [{}] look alike")
        if not all(map(is_plain, paths.values())):
            raise ValueError("a struct has one place for a field, and is one click")
        self._parents: dict[str, str] = {}
        types = _TYPES | {"ts": _TS_TYPES.get(unit, int | float)}
        # A literal key goes before a path of the same letters; a struct cannot choose.
        literals = [path for path in paths.values() if "." in path]
        tree = _tree(paths)
        struct = self._struct(tree, types, "", literals)
        many = Annotated[list[struct], msgspec.Meta(max_length=MAX_PARTS)]  # type: ignore[valid-type]
        self._type, one_or_many = struct, struct | many
        self._decode: Any = msgspec.msgpack.Decoder(one_or_many).decode
        self._decode_lines = None
        self._plain: Plain | None = None
        if format == "json":
            self._decode = msgspec.json.Decoder(one_or_many).decode
            self._decode_lines = msgspec.json.Decoder(struct).decode_lines
            # What is plain is of one type.
            with suppress(ValueError):
                self._plain = None if unit == "auto" else Plain(tree, literals, unit)

    def _struct(
        self, tree: Tree, types: Mapping[str, Any], prefix: str, literals: list[str]
    ) -> Any:
        members: list[tuple[Any, ...]] = []
        names: dict[str, str] = {}
        for number, (name, inner) in enumerate(tree.items()):
            if isinstance(inner, str):
                attribute, type_ = inner, types[inner]
                self._parents[inner] = prefix.removesuffix(".")
                default = None if inner in OPTIONAL else msgspec.NODEFAULT
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
    ) -> tuple[list[tuple[Fields, NDArray[np.int64]]], list[int]]:
        """The fields of clicks in batches: columns of n, and the number of the record of each,
        int64 [n], ascending. Where an optional one is absent, None stands, or what means the same.

        Then the numbers of the records to read slowly.
        """
        batches: list[tuple[Fields, NDArray[np.int64]]] = []
        other = np.arange(len(values))
        if self._plain is not None:
            fields, records, other = self._plain.columns(values, max_bytes)
            batches.append((fields, records))
        left: list[int] = []
        for begin in range(0, len(other), _BLOCK):
            numbers = other[begin : begin + _BLOCK]
            structs, at = self._each([values[number] for number in numbers.tolist()], max_bytes)
            left += np.delete(numbers, at).tolist()
            fields = {}
            for field, parent in self._parents.items():
                holders = list(map(attrgetter(parent), structs)) if parent else structs
                fields[field] = _FIELDS[field](holders)
            batches.append((fields, numbers[at]))
        return batches, left

    def _each(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """Structs of the records that can be read, and the number of the record of each."""
        text = b"".join(filter(None, values))
        # ASCII without a line end: one document, and msgspec may skip text without a look at it.
        read = self._document if text.isascii() and b"\n" not in text else self._found
        structs: list[Any] = []
        numbers: list[int] = []
        for number, value in enumerate(values):
            found = read(value) if value is not None and len(value) <= max_bytes else []
            if type(found) is self._type:
                structs.append(found)
                numbers.append(number)
            else:
                structs += found
                numbers += [number] * len(found)
        return structs, np.array(numbers, np.int64)

    def _found(self, value: bytes) -> Any:
        """A struct, the list of those of a record of many clicks, or an empty one."""
        if self._decode_lines is not None:
            try:
                value.decode()
                if (lines := _clicks_in_lines(value)) > 1:
                    found = self._decode_lines(value) if lines <= MAX_PARTS else []
                    return found if len(found) == lines else []
            except UNREADABLE:
                return []
        return self._document(value)

    def _document(self, value: bytes) -> Any:
        """The same of a record that is one document."""
        try:
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
_TS_TYPES: dict[str, Any] = {"iso": str, "auto": str | int | float}
_FIELDS: dict[str, Callable[[list[Any]], list[Any]]] = {  # the interpreter is quick at a fixed name
    "user_id": lambda structs: [struct.user_id for struct in structs],
    "item_id": lambda structs: [struct.item_id for struct in structs],
    "ts": lambda structs: [struct.ts for struct in structs],
    "event_type": lambda structs: [struct.event_type for struct in structs],
    "weight": lambda structs: [struct.weight for struct in structs],
    "event_id": lambda structs: [struct.event_id for struct in structs],
}


def _tree(paths: Mapping[str, str]) -> Tree:
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
