"""Bytes of the clicks topic into structs, many usual records in one call of msgspec.

What is odd is left to `formats`, which has the last word on it.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.decode.formats import MAX_ID_BYTES, MAX_PARTS, UNREADABLE
from streamer.decode.lines import numbers_of

_BLOCK, _BLOCK_BYTES = 400, 40_000
"""So many records, and bytes, at a time stay in the processor's cache with their structs."""


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
        tree = _tree(paths)
        bare = self._struct(tree, types, "", [], is_bare=True)
        struct = self._struct(tree, types, "", literals)
        many = Annotated[list[struct], msgspec.Meta(max_length=MAX_PARTS)]  # type: ignore[valid-type]
        one_or_many = struct | many
        self._bare, self._type = bare, struct
        self._decode: Any = (
            msgspec.json.Decoder(one_or_many).decode
            if format == "json"
            else msgspec.msgpack.Decoder(one_or_many).decode
        )
        self._decode_lines = msgspec.json.Decoder(struct).decode_lines if format == "json" else None
        self._decode_bare = msgspec.json.Decoder(bare).decode_lines

    def _struct(
        self, tree: Mapping[str, Any], types: Mapping[str, Any], prefix: str, literals: list[str],
        is_bare: bool = False,
    ) -> Any:  # fmt: skip
        """The struct of a tree. A bare one takes no documents with other fields than it must have,
        and is quicker."""
        members: list[tuple[Any, ...]] = []
        names: dict[str, str] = {}
        for number, (name, inner) in enumerate(tree.items()):
            if is_bare and isinstance(inner, str) and inner in _OPTIONAL:
                continue
            if isinstance(inner, str):
                attribute, type_ = inner, types[inner]
                self._parents[inner] = prefix.removesuffix(".")
                default = None if inner in _OPTIONAL else msgspec.NODEFAULT
            else:
                attribute = f"group_{number}"
                type_ = self._struct(inner, types, f"{prefix}{attribute}.", [], is_bare)
                needed = any(field.required for field in msgspec.structs.fields(type_))
                default = msgspec.NODEFAULT if needed else msgspec.field(default_factory=type_)
            names[attribute] = name
            members.append((attribute, type_, default))
        for number, name in enumerate(literals):
            names[f"literal_{number}"] = name
            members.append((f"literal_{number}", msgspec.UnsetType, msgspec.UNSET))
        members = [m[:2] if m[2] is msgspec.NODEFAULT else m for m in members]
        return msgspec.defstruct(
            "Click", members, rename=names, kw_only=True, gc=False, forbid_unknown_fields=is_bare
        )

    def columns(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[dict[str, list[Any]], NDArray[np.int64], list[int]]:
        """The fields of n clicks, None where an optional one is absent.

        Then the number of the record of each, int64 [n], and the numbers of the records to read
        slowly.
        """
        columns: dict[str, list[Any]] = {field: [] for field in self._parents}
        records = [np.empty(0, np.int64)]
        left: list[int] = []
        begin = 0
        while begin < len(values):
            likely = len(values[begin] or b"") + 1
            block = values[begin : begin + max(1, min(_BLOCK, _BLOCK_BYTES // likely))]
            found = self._usual(block, max_bytes)
            if found is None:
                found = self._each(block, max_bytes)
                left += (begin + np.setdiff1d(np.arange(len(block)), found[1])).tolist()
            structs, numbers = found
            records.append(begin + numbers)
            begin += len(block)
            is_bare = structs and type(structs[0]) is self._bare
            for field, parent in self._parents.items():
                if is_bare and field in _OPTIONAL:
                    columns[field] += [None] * len(structs)
                    continue
                holders = list(map(attrgetter(parent), structs)) if parent else structs
                columns[field] += _FIELDS[field](holders)
        return columns, np.concatenate(records), left

    def _usual(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[list[Any], NDArray[np.int64]] | None:
        """Structs and the number of the record of each, if all records are of the usual form.

        That is a click a record, and in JSON also a click a line. Those are decoded in one call, as
        bare structs if they all can be.
        """
        try:
            if max(map(len, values)) > max_bytes:  # type: ignore[arg-type]  # TypeError
                return None
            if self._decode_lines is None:
                structs = list(map(self._decode, values))
                usual = set(map(type, structs)) == {self._type}
                return (structs, np.arange(len(values))) if usual else None
            text = b"\n".join(values)  # type: ignore[arg-type]
            if not text.isascii():
                text.decode()  # msgspec does not look at text that it skips
            try:
                structs = self._decode_bare(text)
            except UNREADABLE:
                structs = self._decode_lines(text)
        except UNREADABLE:
            return None
        if not structs:
            return None
        numbers = numbers_of(text, values, len(structs), MAX_PARTS)  # type: ignore[arg-type]
        return None if numbers is None else (structs, numbers)

    def _each(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """The same of those records that can be read by themselves."""
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
