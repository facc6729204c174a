"""Plain JSON records into columns, without a Python object for any of their clicks.

A plain document is an object whose fields are spelled in the usual way: text without escapes that
is not empty, integers that fit in 64 bits, decimals. A plain record is one such document on a line,
or has one on each of its lines. Every JSON parser reads plain JSON alike; all else is left to
parsers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.ids.texts import Texts
from streamer.decode.formats import MAX_PARTS
from streamer.decode.scanner import (
    ABSENT,
    FIELDS,
    IN_ASCII,
    IN_UTF8,
    NULL,
    NUMBER,
    TEXT,
    WHOLE,
    Columns,
    Names,
    scan,
)

Tree = Mapping[str, Any]
"""Nested names: of each its field, or the names inside of it."""

OPTIONAL = frozenset({"event_type", "event_id", "weight"})
_NAMES = 62
"""The most names: each is a bit of one integer."""

_KINDS = {
    "user_id": TEXT | WHOLE,
    "item_id": TEXT | WHOLE,
    "event_type": TEXT | NULL,
    "event_id": TEXT | WHOLE | NULL,
    "ts": WHOLE,
    "weight": WHOLE | NUMBER | NULL,
}
_TS_KINDS = {"iso": TEXT, "s": WHOLE | NUMBER}


class Plain:
    """The plain records of a mapping: its tree, names that are not plain, and the unit of ts.

    ValueError if there are more names than `_NAMES`.
    """

    def __init__(self, tree: Tree, literals: Sequence[str], unit: str) -> None:
        kinds_of = _KINDS | {"ts": _TS_KINDS.get(unit, WHOLE)}
        self._unit = unit
        letters: list[bytes] = []
        edges, above = [0], [0]
        inner, fields, kinds = list[int](), list[int](), list[int]()
        # Nodes are numbered as they are met, and the names of each follow those of the node before.
        nodes = [tree]
        for number, node in enumerate(nodes):
            # Beside the outermost, a literal key goes before a path of the same letters.
            odd = literals if number == 0 else ()
            for name, below in [*node.items(), *((name, None) for name in odd)]:
                letters.append(name.encode(errors="surrogatepass"))
                is_field, is_node = isinstance(below, str), isinstance(below, Mapping)
                fields.append(FIELDS.index(below) if is_field else ABSENT)
                kinds.append(kinds_of[below] if is_field else 0)
                inner.append(len(nodes) if is_node else 0)
                if is_node:
                    nodes.append(below)
                    above.append(number)
            edges.append(len(letters))
        if len(letters) > _NAMES:
            raise ValueError(f"{len(letters)} names on the way to the fields are too many")
        self._fields = [FIELDS[field] for field in fields if field != ABSENT]
        needed = [f != ABSENT and FIELDS[f] not in OPTIONAL for f in fields]
        self._needed = sum(1 << k for k, is_needed in enumerate(needed) if is_needed)
        self._names = Names(
            np.frombuffer(b"".join(letters), np.uint8),
            np.cumsum([0, *map(len, letters)]),
            *(np.array(column, np.int64) for column in (edges, above, inner, fields, kinds)),
        )

    def columns(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.int64]]:
        """The fields of n clicks: Texts, but ts and weight float64 [n], and ts int64 [n] if it is
        to be whole. Where one is absent, the text is empty, and the weight is 1.

        Then the number of the record of each, int64 [n], ascending, and the numbers of the records
        that are not plain.
        """
        # An empty record is not plain either.
        given = [value if value and len(value) <= max_bytes else b"" for value in values]
        text = b"\n".join([*given, b""])
        ends = np.cumsum(np.fromiter(map(len, given), np.int64, len(given)) + 1) - 1
        most = text.count(b"{") + 1
        columns = Columns(
            np.empty((len(FIELDS), most), np.int64),
            np.empty((len(FIELDS), most), np.int32),
            np.empty(most, np.int64),
            np.empty((2, most)),
        )
        records, odd = np.empty(most, np.int64), np.empty(len(given), np.int64)
        data = np.frombuffer(text, np.uint8)
        n, odds = scan(
            data, ends, MAX_PARTS, IN_UTF8 if _is_utf8(text) else IN_ASCII, self._names,
            self._needed, columns, records, odd,
        )  # fmt: skip
        out: dict[str, Any] = {}
        for field in self._fields:
            at = FIELDS.index(field)
            sizes = columns.sizes[at, :n]
            texts = Texts(data, columns.begins[at, :n], np.maximum(sizes, 0))
            if field == "weight":
                out[field] = _decimals(texts, columns.decimal[1, :n], sizes != ABSENT)
            elif field != "ts" or self._unit == "iso":
                out[field] = texts
            elif self._unit == "s":
                out[field] = _decimals(texts, columns.decimal[0, :n], sizes != ABSENT)
            else:
                out[field] = columns.whole[:n]
        return out, records[:n], odd[:odds]


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def _decimals(
    texts: Texts, decimal: NDArray[np.float64], there: NDArray[np.bool]
) -> NDArray[np.float64]:
    """Numbers, 1 where there is none. Python reads those that the kernel left."""
    out = np.where(there, decimal, 1.0)
    left = np.flatnonzero(np.isnan(out))
    out[left] = list(map(float, texts.taken(left)))
    return out
