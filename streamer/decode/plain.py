"""Plain JSON records into columns, without a Python object for any of their clicks.

A plain document has strings of ASCII without escapes, short numbers without an exponent, and no
objects but those on the way to a field. A plain record is one such document, or has one in each of
its lines. What is plain means what any JSON parser takes it for; all else is left to those.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.lanes import INLINED, SOURCES, pointer
from core.texts import Texts
from streamer.decode.formats import MAX_PARTS

Tree = Mapping[str, Any]
"""Nested names: of each its field, or the names inside of it."""

FIELDS = ("user_id", "item_id", "event_type", "event_id", "ts", "weight")
OPTIONAL = frozenset({"event_type", "event_id", "weight"})
_TS, _WEIGHT = FIELDS.index("ts"), FIELDS.index("weight")
_ABSENT = -1
_NAMES = 62
"""Most that the bits of an integer can tell of."""

_TEXT, _WHOLE, _DECIMAL, _NULL, _LOGICAL = 1, 2, 4, 8, 16
"""Kinds of values."""
_KINDS = {
    "user_id": _TEXT | _WHOLE,
    "item_id": _TEXT | _WHOLE,
    "event_type": _TEXT | _NULL,
    "event_id": _TEXT | _WHOLE | _NULL,
    "ts": _WHOLE,
    "weight": _WHOLE | _DECIMAL | _NULL,
}

_QUOTE, _COMMA, _COLON, _OPENED, _CLOSED, _MINUS, _POINT, _ZERO, _NINE, _LINE = (
    np.uint8(code) for code in b'",:{}-.09\n'
)
_IN_TEXT = np.array([0x20 <= code < 0x80 and code not in b'"\\' for code in range(256)])
_BLANK = np.array([code in b" \t\r" for code in range(256)])
_LETTERS = np.frombuffer(b"nulltruefalse", np.uint8)
_WORDS = ((_NULL, 0, 4), (_LOGICAL, 4, 8), (_LOGICAL, 8, 13))
_INT64_DIGITS, _EXACT_DIGITS = 18, 15
"""Digits of any integer that fits, and of any decimal that one division of float64 gets right."""


class _Names(NamedTuple):
    """The names on the way to the fields, in nodes: one for each object, the outermost first."""

    letters: NDArray[np.uint8]
    begins: NDArray[np.int64]
    """[names + 1]: name k is letters[begins[k]:begins[k + 1]]."""
    edges: NDArray[np.int64]
    """[nodes + 1]: the names that node j has are edges[j] to edges[j + 1]."""
    above: NDArray[np.int64]
    """[nodes]: the node that a node is in."""
    inner: NDArray[np.int64]
    """[names]: the node that its value is, or 0."""
    field: NDArray[np.int64]
    """[names]: the field that its value is, or _ABSENT for a name that is not plain."""
    kinds: NDArray[np.int64]
    """[names]: the kinds that its value may be of."""


@INLINED
def _past_blanks(data, i):  # type: ignore[no-untyped-def]
    while _BLANK[data[i]]:
        i += 1
    return i


@INLINED
def _end_of_text(data, i):  # type: ignore[no-untyped-def]
    """Where the quote stands that ends the text from i on, or -1."""
    while _IN_TEXT[data[i]]:
        i += 1
    return i if data[i] == _QUOTE else -1


@INLINED
def _past_digits(data, i, value):  # type: ignore[no-untyped-def]
    """(the place after digits, `value` with them behind it); too many overflow it."""
    while _ZERO <= data[i] <= _NINE:
        value = value * 10 + np.int64(data[i] - _ZERO)
        i += 1
    return i, value


@INLINED
def _past_number(data, i):  # type: ignore[no-untyped-def]
    """(the place after a number, or -1; its digits as an integer; how many are after the point)."""
    negative = data[i] == _MINUS
    begin = i + 1 if negative else i
    i, value = _past_digits(data, begin, np.int64(0))
    digits, decimals, most = i - begin, 0, _INT64_DIGITS
    plain = digits == 1 or data[begin] != _ZERO
    plain &= digits > 0
    if data[i] == _POINT:
        begin = i + 1
        i, value = _past_digits(data, begin, value)
        decimals, most = i - begin, _EXACT_DIGITS
        plain &= decimals > 0
    plain &= digits + decimals <= most
    plain &= not negative or value != 0  # other parsers make 0 or -0 of -0
    return i if plain else -1, -value if negative else value, decimals


@INLINED
def _past_value(data, i):  # type: ignore[no-untyped-def]
    """(the place after a value, or -1; its kind; its span; digits and decimals of a number)."""
    first = data[i]
    begin = i
    if first == _QUOTE:
        end = _end_of_text(data, i + 1)
        return end + 1 if end >= 0 else -1, _TEXT, begin + 1, end, 0, 0
    if first == _MINUS or _ZERO <= first <= _NINE:
        i, value, decimals = _past_number(data, i)
        return i, _DECIMAL if decimals > 0 else _WHOLE, begin, i, value, decimals
    for kind, k, last in _WORDS:
        i = begin
        while k < last and data[i] == _LETTERS[k]:
            k += 1
            i += 1
        if k == last:
            return i, kind, begin, i, 0, 0
    return -1, 0, begin, begin, 0, 0


@INLINED
def _name(data, begin, end, names, node):  # type: ignore[no-untyped-def]
    """Which of the node's names data[begin:end] is, or -1."""
    for k in range(names.edges[node], names.edges[node + 1]):
        if names.begins[k + 1] - names.begins[k] == end - begin:
            j = 0
            while j < end - begin and (data[begin + j] == names.letters[names.begins[k] + j]):
                j += 1
            if j == end - begin:
                return k
    return -1


@INLINED
def _past_document(data, i, names, needed, n, most, begins, sizes, whole, decimal):  # type: ignore[no-untyped-def]
    """The place after a document, whose fields go to the columns at n; -1 if it is not plain."""
    for field in range(len(FIELDS)):
        sizes[field * most + n] = _ABSENT
    if data[i] != _OPENED:
        return -1
    met = node = np.int64(0)
    i += 1
    while True:
        i = _past_blanks(data, i)
        if data[i] != _QUOTE:
            return -1
        begin = i + 1
        i = _end_of_text(data, begin)
        if i < 0:
            return -1
        name = _name(data, begin, i, names, node)
        i = _past_blanks(data, i + 1)
        if data[i] != _COLON or (name >= 0 and met >> name & 1):
            return -1
        i = _past_blanks(data, i + 1)
        if name >= 0:
            met |= 1 << name
            if names.inner[name] > 0:
                if data[i] != _OPENED:
                    return -1
                node = names.inner[name]
                i += 1
                continue
        i, kind, begin, end, value, decimals = _past_value(data, i)
        if i < 0 or (name >= 0 and not names.kinds[name] & kind):
            return -1
        if name >= 0 and kind != _NULL:
            field = names.field[name]
            begins[field * most + n], sizes[field * most + n] = begin, end - begin
            if field == _TS:
                whole[n] = value
            elif field == _WEIGHT:
                decimal[n] = value / 10.0**decimals
        i = _past_blanks(data, i)
        while node > 0 and data[i] == _CLOSED:
            node = names.above[node]
            i = _past_blanks(data, i + 1)
        if data[i] == _CLOSED:
            return i + 1 if met & needed == needed else -1
        if data[i] != _COMMA:
            return -1
        i += 1


@nb.njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    data, ends, max_bytes, names, needed, begins, sizes, whole, decimal, records, odd,
    sources=SOURCES,
):  # fmt: skip
    """Columns of the clicks of plain records. Returns (clicks, records that are not plain).

    `data` is the records, each with a newline behind it, at `ends`.
    """
    n = odds = 0
    end = np.int64(-1)
    most = len(records)
    data, begins, sizes = pointer(data), pointer(begins), pointer(sizes)
    whole, decimal = pointer(whole), pointer(decimal)
    names = _Names(
        pointer(names.letters), pointer(names.begins), pointer(names.edges), pointer(names.above),
        pointer(names.inner), pointer(names.field), pointer(names.kinds),
    )  # fmt: skip
    for record in range(len(ends)):
        i = end + 1
        end = ends[record]
        first = n
        plain = end - i <= max_bytes
        while plain:
            i = _past_blanks(data, i)
            if data[i] == _LINE:
                if i == end:
                    break
                i += 1  # a blank line, which other parsers skip too
                continue
            i = _past_document(data, i, names, needed, n, most, begins, sizes, whole, decimal)
            plain = i >= 0 and n - first < MAX_PARTS
            if plain:
                i = _past_blanks(data, i)
                plain = data[i] == _LINE
                records[n] = record
                n += 1
                if i == end:
                    break
                i += 1
        if not plain or n == first:
            n = first
            odd[odds] = record
            odds += 1
    return n, odds


class Plain:
    """The plain records of a mapping: its tree, and names that are not plain."""

    def __init__(self, tree: Tree, literals: Sequence[str], is_iso: bool) -> None:
        kinds_of = _KINDS | {"ts": _TEXT} if is_iso else _KINDS
        self._ts_is_text = is_iso
        letters: list[bytes] = []
        edges, above = [0], [0]
        inner, fields, kinds = list[int](), list[int](), list[int]()
        # The names of one node after those of the other: nodes are numbered as they are met.
        nodes = [tree]
        for number, node in enumerate(nodes):
            # Beside the outermost, a literal key goes before a path of the same letters.
            odd = literals if number == 0 else ()
            for name, below in [*node.items(), *((name, None) for name in odd)]:
                letters.append(name.encode(errors="surrogatepass"))
                is_field, is_node = isinstance(below, str), isinstance(below, Mapping)
                fields.append(FIELDS.index(below) if is_field else _ABSENT)
                kinds.append(kinds_of[below] if is_field else 0)
                inner.append(len(nodes) if is_node else 0)
                if is_node:
                    nodes.append(below)
                    above.append(number)
            edges.append(len(letters))
        if len(letters) > _NAMES:
            raise ValueError(f"{len(letters)} names")
        self._fields = [FIELDS[field] for field in fields if field != _ABSENT]
        needed = [f != _ABSENT and FIELDS[f] not in OPTIONAL for f in fields]
        self._needed = sum(1 << k for k, is_needed in enumerate(needed) if is_needed)
        self._names = _Names(
            np.frombuffer(b"".join(letters), np.uint8),
            np.cumsum([0, *map(len, letters)]),
            *(np.array(column, np.int64) for column in (edges, above, inner, fields, kinds)),
        )

    def columns(
        self, values: Sequence[bytes | None], max_bytes: int
    ) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.int64]]:
        """The fields of n clicks: ids as Texts, ts int64 [n] or as Texts, others None where absent.

        Then the number of the record of each, int64 [n], ascending, and the numbers of the records
        that are not plain.
        """
        there = [value or b"" for value in values]
        text = b"\n".join([*there, b""])
        ends = np.cumsum(np.fromiter(map(len, there), np.int64, len(there)) + 1) - 1
        most = text.count(b"{") + 1
        begins = np.empty((len(FIELDS), most), np.int64)
        sizes = np.empty((len(FIELDS), most), np.int32)
        whole, decimal = np.empty(most, np.int64), np.empty(most)
        records, odd = np.empty(most, np.int64), np.empty(len(there), np.int64)
        data = np.frombuffer(text, np.uint8)
        n, odds = _scan(
            data, ends, max_bytes, self._names, self._needed, begins, sizes, whole, decimal,
            records, odd,
        )  # fmt: skip
        out: dict[str, Any] = {}
        for field in self._fields:
            at = FIELDS.index(field)
            texts = Texts(data, begins[at, :n], sizes[at, :n])
            if field == "ts" and not self._ts_is_text:
                out[field] = whole[:n]
            elif field not in OPTIONAL:
                out[field] = texts
            else:
                there = texts.sizes != _ABSENT
                found = decimal[:n][there] if field == "weight" else texts.taken(there)
                out[field] = _spread(found.tolist(), there)
        return out, records[:n], odd[:odds]


def _spread(values: list[Any], there: NDArray[np.bool]) -> list[Any]:
    """The values where they are `there`, bool [n], and None elsewhere."""
    if not values:
        return [None] * len(there)
    left = iter(values)
    return [next(left) if is_there else None for is_there in there.tolist()]
