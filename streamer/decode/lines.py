"""Which record each line is of, when records are joined to be decoded in one call."""

from collections.abc import Sequence

import numba as nb
import numpy as np
from numpy.typing import NDArray

_NEWLINE, _RETURN, _OPENED, _CLOSED = b"\n\r{}"
_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


@nb.njit(
    "int64(Array(uint8, 1, 'C', readonly=True), Array(uint64, 1, 'C', readonly=True), int64[::1],"
    "int64, int64[::1])",
    cache=True,
    nogil=True,
)
def _number(data, words, lengths, most, numbers):  # type: ignore[no-untyped-def]
    """Writes the number of each line's record; returns how many lines, -1 if one does not fit.

    `words` are the bytes of `data`, eight in each: most have no newline, and are passed in one step
    (Mycroft's test for a zero byte).
    """
    lines = 0
    end = -1
    for record in range(len(lengths)):
        begin = end + 1
        end = begin + lengths[record]
        stop = end
        while stop > begin and (data[stop - 1] == _NEWLINE or data[stop - 1] == _RETURN):
            stop -= 1
        if lines == len(numbers) or stop == begin:
            return -1
        if data[begin] != _OPENED or data[stop - 1] != _CLOSED:
            return -1
        first = lines
        numbers[lines] = record
        lines += 1
        i = begin + 1
        while i < stop - 1:
            if i & 7 == 0 and i + 8 <= stop:
                zeros = words[np.uint64(i) >> np.uint64(3)] ^ (_ONES * np.uint64(_NEWLINE))
                if (zeros - _ONES) & ~zeros & _TOPS == 0:
                    i += 8
                    continue
            if data[np.uint64(i)] == _NEWLINE:
                last = i - 2 if data[i - 1] == _RETURN else i - 1
                if data[i + 1] != _OPENED or data[last] != _CLOSED or lines == len(numbers):
                    return -1
                numbers[lines] = record
                lines += 1
            i += 1
        if lines - first > most:
            return -1
    return lines


def numbers_of(
    text: bytes, values: Sequence[bytes], documents: int, most: int
) -> NDArray[np.int64] | None:
    """The number of the record of each line, int64 [documents]; `text` is the values and newlines
    between them. None unless each document is a line, and a record has `most` at most.

    Lines are from `{` to `}`. Inside of a document none ends with an object where the next begins
    with one, so that each has a document at least; if there are so many in all, each has one.
    """
    numbers = np.empty(max(documents, len(values)), np.int64)
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    words = np.frombuffer(text, np.uint64, len(text) // 8)
    lines = _number(np.frombuffer(text, np.uint8), words, lengths, most, numbers)
    return numbers[:lines] if lines == documents else None
