"""The kernel that reads plain JSON records (`streamer.decode.plain`)."""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import INLINED, SOURCES, pointer, pointers

FIELDS = ("user_id", "item_id", "event_type", "event_id", "ts", "weight")
_TS = FIELDS.index("ts")
"""This field and the weight, which follows it, are numbers."""
ABSENT = -1
_DEPTH = 60
"""Most levels of objects and lists in a field that is not used."""

TEXT, WHOLE, NUMBER, NULL, OTHER = 1, 2, 4, 8, 16
"""Kinds of values: text without escapes, integers of 64 bits, other numbers, null, all else."""
_QUOTE, _COMMA, _COLON, _OPENED, _CLOSED, _LISTED, _UNLISTED, _BACKSLASH, _U, _LINE = (
    np.uint8(code) for code in b'",:{}[]\\u\n'
)
_MINUS, _PLUS, _POINT, _ZERO, _NINE, _SMALL_E, _GREAT_E = (np.uint8(code) for code in b"-+.09eE")
IN_ASCII = np.array([0x20 <= c < 0x80 and c not in b'"\\' for c in range(256)], np.uint8)
IN_UTF8 = np.array([c >= 0x20 and c not in b'"\\' for c in range(256)], np.uint8)
_BLANK = np.array([c in b" \t\r" for c in range(256)])
_ESCAPED = np.array([c in b'"\\/bfnrt' for c in range(256)])
_HEX = np.array([c in b"0123456789abcdefABCDEF" for c in range(256)])
_LETTERS = np.frombuffer(b"nulltruefalse", np.uint8)
_WORDS = ((NULL, 0, 4), (OTHER, 4, 8), (OTHER, 8, 13))
_INT64_DIGITS, _EXACT = 19, 2**53
"""Digits of the greatest integer; below, one division by a power of ten is rounded right."""


class Names(NamedTuple):
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
    """[names]: the field that its value is, or ABSENT for a name that is not plain."""
    kinds: NDArray[np.int64]
    """[names]: the kinds that its value may be of."""


class Columns(NamedTuple):
    """Where clicks go: value i of field f is at f * `most` + i."""

    begins: NDArray[np.int64]
    sizes: NDArray[np.int32]
    """Spans of the values, ABSENT for none or null."""
    whole: NDArray[np.int64]
    """ts as an integer."""
    decimal: NDArray[np.float64]
    """ts, and then weight; NaN if it takes a slower parser."""


# Each of these begins at data[i]. The position that it returns is -1 where something is not plain.
# All stop at a newline, which is behind each record.


@INLINED
def _past_blanks(data, i):  # type: ignore[no-untyped-def]
    while _BLANK[data[i]]:
        i += 1
    return i


@INLINED
def _end_of_text(data, i, in_text):  # type: ignore[no-untyped-def]
    """(where the quote stands that ends a text, whether it has escapes)."""
    has_escapes = False
    while True:
        while in_text[data[i]]:
            i += 1
        if data[i] == _QUOTE:
            return i, has_escapes
        if data[i] != _BACKSLASH:
            return -1, has_escapes
        has_escapes = True
        i += 1
        if data[i] == _U:
            for _ in range(4):
                i += 1
                if not _HEX[data[i]]:
                    return -1, has_escapes
        elif not _ESCAPED[data[i]]:
            return -1, has_escapes
        i += 1


@INLINED
def _past_digits(data, i, value):  # type: ignore[no-untyped-def]
    """(the position after digits, `value` with them behind it); too many overflow it."""
    while _ZERO <= data[i] <= _NINE:
        value = value * 10 + np.int64(data[i] - _ZERO)
        i += 1
    return i, value


@INLINED
def _past_number(data, i):  # type: ignore[no-untyped-def]
    """(the position after a number, its kind, its value as an integer, as a decimal or NaN)."""
    negative = data[i] == _MINUS
    begin = i + 1 if negative else i
    i, value = _past_digits(data, begin, np.int64(0))
    digits, decimals = i - begin, 0
    plain = digits == 1 or (digits > 1 and data[begin] != _ZERO)
    kind = WHOLE
    if data[i] == _POINT:
        begin = i + 1
        i, value = _past_digits(data, begin, value)
        decimals = i - begin
        digits += decimals
        plain &= decimals > 0
        kind = NUMBER
    decimal = np.nan
    # A number of 19 digits that does not fit is negative by now. -0 is no integer: it would lose
    # its sign.
    if digits > _INT64_DIGITS or value < 0 or (negative and value == 0):
        kind = NUMBER
    elif kind == WHOLE or value < _EXACT:
        decimal = value / 10.0**decimals
    if data[i] == _SMALL_E or data[i] == _GREAT_E:
        begin = i + 2 if data[i + 1] == _MINUS or data[i + 1] == _PLUS else i + 1
        i, _ = _past_digits(data, begin, np.int64(0))
        plain &= i > begin
        kind, decimal = NUMBER, np.nan
    return (
        i if plain else -1,
        kind,
        -value if negative else value,
        -decimal if negative else decimal,
    )


@INLINED
def _past_scalar(data, i, in_text):  # type: ignore[no-untyped-def]
    """(the position after a value, its kind, its span, and what it is as a number)."""
    begin = i
    if data[i] == _QUOTE:
        end, has_escapes = _end_of_text(data, i + 1, in_text)
        past = end + 1 if end >= 0 else -1
        return past, OTHER if has_escapes else TEXT, begin + 1, end, np.int64(0), np.nan
    if data[i] == _MINUS or _ZERO <= data[i] <= _NINE:
        i, kind, value, decimal = _past_number(data, i)
        return i, kind, begin, i, value, decimal
    for kind, k, last in _WORDS:
        i = begin
        while k < last and data[i] == _LETTERS[k]:
            k += 1
            i += 1
        if k == last:
            return i, kind, begin, i, np.int64(0), np.nan
    return -1, OTHER, begin, begin, np.int64(0), np.nan


@INLINED
def _past_name(data, i, in_text):  # type: ignore[no-untyped-def]
    """(where the value of a name begins, the name's span, whether it has escapes)."""
    begin = i + 1
    if data[i] != _QUOTE:
        return -1, begin, begin, False
    end, has_escapes = _end_of_text(data, begin, in_text)
    if end < 0:
        return -1, begin, end, False
    i = _past_blanks(data, end + 1)
    if data[i] != _COLON:
        return -1, begin, end, False
    return _past_blanks(data, i + 1), begin, end, has_escapes


@INLINED
def _past_nested(data, i, in_text):  # type: ignore[no-untyped-def]
    """The position after an object or a list, whatever is in it."""
    depth = 0
    objects = np.int64(0)  # bits, the innermost the lowest: whether it is one
    while True:
        if data[i] == _OPENED or data[i] == _LISTED:
            if depth == _DEPTH:
                return -1
            is_object = data[i] == _OPENED
            objects = objects << 1 | is_object
            depth += 1
            i = _past_blanks(data, i + 1)
            if data[i] != (_CLOSED if is_object else _UNLISTED):
                if is_object:
                    i, _, _, _ = _past_name(data, i, in_text)
                    if i < 0:
                        return -1
                continue
        else:
            i, _, _, _, _, _ = _past_scalar(data, i, in_text)
            if i < 0:
                return -1
        i = _past_blanks(data, i)
        while data[i] == (_CLOSED if objects & 1 else _UNLISTED):
            i += 1
            depth -= 1
            objects >>= 1
            if depth == 0:
                return i
            i = _past_blanks(data, i)
        if data[i] != _COMMA:
            return -1
        i = _past_blanks(data, i + 1)
        if objects & 1:
            i, _, _, _ = _past_name(data, i, in_text)
            if i < 0:
                return -1


@INLINED
def _known(data, begin, end, names, node):  # type: ignore[no-untyped-def]
    """Which of the node's names data[begin:end] is, or -1."""
    for k in range(names.edges[node], names.edges[node + 1]):
        if names.begins[k + 1] - names.begins[k] == end - begin:
            j = 0
            while j < end - begin and data[begin + j] == names.letters[names.begins[k] + j]:
                j += 1
            if j == end - begin:
                return k
    return -1


@INLINED
def _past_document(data, i, in_text, names, needed, n, most, columns):  # type: ignore[no-untyped-def]
    """The position after a document, whose fields go to the columns at n."""
    for field in range(len(FIELDS)):
        columns.begins[field * most + n] = 0
        columns.sizes[field * most + n] = ABSENT
    if data[i] != _OPENED:
        return -1
    met = node = np.int64(0)
    i += 1
    while True:
        i, begin, end, has_escapes = _past_name(data, _past_blanks(data, i), in_text)
        if i < 0 or has_escapes:
            return -1
        name = _known(data, begin, end, names, node)
        if name >= 0:
            if met >> name & 1:
                return -1
            met |= 1 << name
        if name >= 0 and names.inner[name] > 0:
            if data[i] != _OPENED:
                return -1
            node = names.inner[name]
            i += 1
            continue
        if data[i] == _OPENED or data[i] == _LISTED:
            if name >= 0:
                return -1
            i = _past_nested(data, i, in_text)
            if i < 0:
                return -1
        else:
            i, kind, begin, end, value, decimal = _past_scalar(data, i, in_text)
            if i < 0 or (name >= 0 and (not names.kinds[name] & kind or begin == end)):
                return -1
            if name >= 0 and kind != NULL:
                field = names.field[name]
                columns.begins[field * most + n] = begin
                columns.sizes[field * most + n] = end - begin
                if field == _TS:
                    columns.whole[n] = value
                if field >= _TS:
                    columns.decimal[(field - _TS) * most + n] = decimal
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
def scan(data, ends, parts, in_text, names, needed, columns, records, odd, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Columns of the clicks of plain records. Returns (clicks, records that are not plain).

    `data` is the records, each with a newline behind it, at `ends`; a record may have so many
    `parts`; `in_text` tells which bytes may be in text.
    """
    n = odds = 0
    end = np.int64(-1)
    most = len(records)
    data, in_text = pointer(data), pointer(in_text)
    names, columns = pointers(names), pointers(columns)
    for record in range(len(ends)):
        i = end + 1
        end = ends[record]
        first = n
        plain = True
        while plain:
            i = _past_blanks(data, i)
            if data[i] == _LINE:
                if i == end:
                    break
                i += 1  # a blank line, which other parsers skip too
                continue
            i = _past_document(data, i, in_text, names, needed, n, most, columns)
            plain = i >= 0 and n - first < parts
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
