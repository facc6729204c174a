"""Avro documents, read by fastavro within bounds that it does not have itself.

Its reader is C that calls itself for each level of a document, and it makes what a few bytes
declare: a record of a recursive schema ends the process, an array of nulls takes any time. So a
schema is looked at once. Where each of its values takes bytes of its own, and none can hold another
of its kind, the size of a record bounds the work. A record of another schema is first walked
through here, slower.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

Type = Any
"""A type as fastavro has parsed it: a name, a union's list of types, or a dict of the rest."""

DEEPEST = 64
"""Types inside each other, and values inside each other, at most."""
MOST_TYPES = 10_000
"""Of a schema, each counted as often as it is used."""
MOST_FREE = 8
"""Values without bytes of their own, such as null, at most for each byte of an array's elements."""
MOST_DECIMAL_BYTES = 128
"""Of a decimal: more take a time that grows with their square, and no weight has 300 digits."""

_SIZES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8}


def reader(schema: str, references: Sequence[str]) -> Callable[[bytes], object]:
    """What reads documents of a schema, whose references are given before what refers to them.

    The reader raises anything on bytes that do not fit, and ValueError for what is out of bounds.
    ValueError here, or what fastavro raises, for a schema that is none or is out of bounds.
    """
    import fastavro
    from fastavro.read import LOGICAL_READERS

    for name in ("bytes-decimal", "fixed-decimal"):
        LOGICAL_READERS[name] = _bounded(LOGICAL_READERS[name])
    named: dict[str, Type] = {}
    parsed: Type = None
    for text in (*references, schema):
        given = json.loads(text)
        _check_nesting(given)
        parsed = fastavro.parse_schema(given, named_schemas=named)
    walks = not _Look(named).is_tame(parsed)

    def read(data: bytes) -> object:
        if walks:
            _Walk(data, named).past(parsed, 0)
        return fastavro.schemaless_reader(BytesIO(data), parsed)

    return read


def _bounded(read: Callable[..., object]) -> Callable[..., object]:
    if hasattr(read, "is_bounded"):
        return read

    def bounded(data: bytes, *others: object) -> object:
        if len(data) > MOST_DECIMAL_BYTES:
            raise ValueError(
                f"a decimal of {len(data)} bytes: at most {MOST_DECIMAL_BYTES} are read"
            )
        return read(data, *others)

    bounded.is_bounded = True  # type: ignore[attr-defined]
    return bounded


def _check_nesting(schema: object) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > 4 * DEEPEST:
            raise ValueError(f"its schema nests deeper than {DEEPEST} types")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


class _Types:
    def __init__(self, named: Mapping[str, Type]) -> None:
        self._named = named

    def resolved(self, type_: Type) -> tuple[str, Type]:
        """The kind of a type, and what it is made of."""
        while True:
            if isinstance(type_, list):
                return "union", type_
            if isinstance(type_, str):
                if type_ not in self._named:
                    return type_, type_
                type_ = self._named[type_]
            elif isinstance(type_["type"], str) and type_["type"] not in self._named:
                return type_["type"], type_
            else:
                type_ = type_["type"]


class _Look(_Types):
    """Whether records of a schema need to be walked through."""

    def __init__(self, named: Mapping[str, Type]) -> None:
        super().__init__(named)
        self._types = 0
        self._is_tame = True

    def is_tame(self, schema: Type) -> bool:
        """ValueError if it is out of bounds itself."""
        self._cost(schema, ())
        return self._is_tame

    def _cost(self, type_: Type, inside: tuple[int, ...]) -> tuple[int, int]:
        """(fewest bytes of a value, most values in it that have none of their own)."""
        self._types += 1
        if len(inside) > DEEPEST or self._types > MOST_TYPES:
            raise ValueError(
                f"its schema has more than {MOST_TYPES} types, or {DEEPEST} inside each other"
            )
        kind, made_of = self.resolved(type_)
        if id(made_of) in inside:
            self._is_tame = False
            return 1, 0
        inside = (*inside, id(made_of))
        if kind in ("record", "error"):
            costs = [self._cost(field["type"], inside) for field in made_of["fields"]]
            return sum(size for size, _ in costs), 1 + sum(free for _, free in costs)
        if kind == "union":
            costs = [self._cost(branch, inside) for branch in made_of]
            return 1 + min(size for size, _ in costs), max(free for _, free in costs)
        if kind in ("array", "map"):
            size, free = self._cost(made_of["items" if kind == "array" else "values"], inside)
            self._is_tame &= free <= MOST_FREE * (size + (kind == "map"))
            return 1, 0
        if kind == "fixed":
            return made_of["size"], int(not made_of["size"])
        return _SIZES.get(kind, 1), int(kind == "null")


class _Walk(_Types):
    """Goes past the values of a document. ValueError for one that does not fit, or is too much."""

    def __init__(self, data: bytes, named: Mapping[str, Type]) -> None:
        super().__init__(named)
        self._data, self._at = data, 0
        self._left = 10_000 + MOST_FREE * len(data)

    def past(self, type_: Type, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"declares more than {MOST_FREE} values for each of its bytes")
        if depth > DEEPEST:
            raise ValueError(f"nests deeper than {DEEPEST} values")
        kind, made_of = self.resolved(type_)
        if kind in ("record", "error"):
            for field in made_of["fields"]:
                self.past(field["type"], depth + 1)
        elif kind == "union":
            branch = self._long()
            if not 0 <= branch < len(made_of):
                raise ValueError(f"has branch {branch} of a union of {len(made_of)}")
            self.past(made_of[branch], depth + 1)
        elif kind in ("array", "map"):
            while n := self._long():
                if n < 0:
                    n = -n
                    self._long()
                for _ in range(n):
                    if kind == "map":
                        self._skip(self._long())
                    self.past(made_of["items" if kind == "array" else "values"], depth + 1)
        elif kind in ("int", "long", "enum"):
            self._long()
        elif kind == "fixed":
            self._skip(made_of["size"])
        else:
            self._skip(_SIZES[kind] if kind in _SIZES else self._long())

    def _skip(self, n: int) -> None:
        if not 0 <= n <= len(self._data) - self._at:
            raise ValueError(f"ends in the middle of a value of {n} bytes")
        self._at += n

    def _long(self) -> int:
        bits = shift = 0
        while True:
            self._skip(1)
            byte = self._data[self._at - 1]
            bits |= (byte & 0x7F) << shift
            if byte < 0x80:
                return bits >> 1 ^ -(bits & 1)
            shift += 7
            if shift > 63:
                raise ValueError("has an integer of more than 64 bits")
