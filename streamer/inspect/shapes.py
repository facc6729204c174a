"""How the records of a sample are written, and which fields their clicks have."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from streamer.decode.formats import WIRE_BYTES, Part, is_framed, json_parts, msgpack_parts
from streamer.decode.paths import ABSENT, EACH, find
from streamer.decode.registry import Registry

Click = dict[str, Any]
Format = Literal["json", "msgpack", "avro", "json-schema"]

DEEPEST = 8
"""Levels of maps and arrays that are gone into."""
MOST_ELEMENTS = 100
"""Of an array that are looked at."""


class Form(StrEnum):
    """How a record's value is written."""

    OBJECT = "JSON object"
    ARRAY = "JSON array of objects"
    LINES = "JSON objects, one a line"
    MSGPACK = "MessagePack map"
    MSGPACK_ARRAY = "MessagePack array of maps"
    FRAMED_JSON = "JSON in the Confluent wire format"
    FRAMED = "binary in the Confluent wire format"
    NULL = "null value"
    UNKNOWN = "neither JSON, MessagePack nor the Confluent wire format"


FORMATS: dict[Form, Format] = {
    Form.OBJECT: "json",
    Form.ARRAY: "json",
    Form.LINES: "json",
    Form.MSGPACK: "msgpack",
    Form.MSGPACK_ARRAY: "msgpack",
    Form.FRAMED_JSON: "json-schema",
    Form.FRAMED: "avro",
}
"""`clicks.format` for each form that can hold clicks."""


def parse(value: bytes | None, registry: Registry | None = None) -> tuple[Form, list[Click]]:
    """The form of a value, and the objects in it.

    A binary value of the Confluent wire format holds none without a registry. WalkstreamError if
    the registry does not answer.
    """
    if value is None:
        return Form.NULL, []
    if is_framed(value):
        if objects := _objects(json_parts, value[WIRE_BYTES:])[1]:
            return Form.FRAMED_JSON, objects
        return Form.FRAMED, _objects(registry.parts, value)[1] if registry else []
    several, objects = _objects(json_parts, value)
    if objects:
        lines = not value.lstrip().startswith(b"[")
        return (Form.LINES if lines else Form.ARRAY) if several else Form.OBJECT, objects
    several, objects = _objects(msgpack_parts, value)
    if objects:
        return Form.MSGPACK_ARRAY if several else Form.MSGPACK, objects
    return Form.UNKNOWN, []


def _objects(read: Callable[[bytes], list[Part]], value: bytes) -> tuple[bool, list[Click]]:
    """Whether the value is one of several parts, and those of its parts that are objects."""
    try:
        parts = read(value)
    except ValueError:
        return False, []
    objects = [part.document for part in parts if isinstance(part.document, dict)]
    return any(part.number is not None for part in parts), objects


@dataclass
class Field:
    """The values that a path has in the sample, nulls left out."""

    path: str
    values: list[Any] = field(default_factory=list)
    where: list[int] = field(default_factory=list)
    """Of each value the number of its click."""

    @property
    def present(self) -> int:
        """How many clicks have it."""
        return len(set(self.where))

    @property
    def array(self) -> str:
        """The array that it is in: `lines[]` of `lines[].sku`; "" for none."""
        outer, each, _ = self.path.rpartition(EACH)
        return outer + each

    @property
    def types(self) -> list[str]:
        """Names of the types, the most common first."""
        return [name for name, _ in Counter(type_name(v) for v in self.values).most_common()]

    @property
    def distinct(self) -> int:
        return len(set(map(str, self.values)))

    def all_are(self, *names: str) -> bool:
        """Whether the values are of these types, but for one in twenty."""
        fitting = sum(type_name(value) in names for value in self.values)
        return fitting >= 0.95 * len(self.values) > 0


def type_name(value: object) -> str:
    for type_, name in (
        (bool, "boolean"), (int, "integer"), (float | Decimal, "float"), (str, "string"),
        (bytes, "bytes"), (list, "array"), (datetime, "time"), (UUID, "uuid"),
    ):  # fmt: skip
        if isinstance(value, type_):
            return name
    return type(value).__name__


def fields(clicks: Iterable[Click]) -> dict[str, Field]:
    """Every path of the sample with its values; maps are gone into, and so are arrays."""
    found: dict[str, Field] = {}
    for number, click in enumerate(clicks):
        for path, value in flat(click):
            seen = found.setdefault(path, Field(path))
            if value is not None:
                seen.values.append(value)
                seen.where.append(number)
    return found


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each path below `prefix` with its value, null or not, spelled as `clicks.fields` has it.

    An array is a value, and so is each of its first elements, or what is in them.
    """
    for name, inner in value.items():
        # MessagePack has names of other types; what cannot be printed cannot be configured.
        if isinstance(name, str) and name and name.isprintable():
            yield from _flat(f"{prefix}{name}", inner)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    deep = path.count(".") + path.count(EACH) >= DEEPEST
    if isinstance(value, dict):
        if not deep:
            yield from flat(value, f"{path}.")
        return
    yield path, value
    if isinstance(value, list) and not deep:
        for element in value[:MOST_ELEMENTS]:
            if not isinstance(element, list):
                yield from _flat(f"{path}{EACH}", element)


ROW = "after"
"""The row in a message of Debezium; it is null where the row was deleted."""
OPERATIONS = frozenset("crudtm")


def envelope(clicks: Sequence[Click]) -> str | None:
    """What paths begin with up to the message of a change, if Debezium wrote most of the sample."""
    for prefix in ("payload.", ""):
        n = sum(
            find(click, f"{prefix}op") in OPERATIONS and find(click, prefix + ROW) is not ABSENT
            for click in clicks
            if isinstance(find(click, f"{prefix}op"), str)
        )
        if n > len(clicks) / 2:
            return prefix
    return None
