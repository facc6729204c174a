"""Numbers by text, looked up many at a time.

A dict gives the number of one text. For a batch it is slow: each look-up waits for memory several
times, one after the other. So a hash table over the bytes of the texts has the same numbers, and a
kernel searches it for many texts at a time. It compares all bytes, so that two texts with one hash
stay two.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from secrets import randbits
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.ids.hashing import mix
from core.ids.texts import Texts
from core.kernels.lanes import SOURCES, address, pointer, pointers, prefetch

TOGETHER = 64
"""The kernel asks for the memory of so many texts at once."""


class _Table(NamedTuple):
    """The hash table, and the texts by number."""

    entries: NDArray[np.uint64]
    """Each is 0, or the upper half of a hash and in the lower half a number + 1. As many as a power
    of two, and gaps between them."""
    hashes: NDArray[np.uint64]
    begins: NDArray[np.int64]
    """Of each number: its text is texts[begins : begins + sizes], sizes being -1 for none."""
    sizes: NDArray[np.int32]
    texts: NDArray[np.uint8]
    seed: np.uint64


@nb.njit(cache=True, nogil=True)
def _look_up(data, begins, sizes, table, used, fresh, out, first, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The number of each text, which is a span of `data`, into `out`, int32 [n].

    A text that is not there takes the next of the numbers `fresh`, int32 [n], and its index in the
    batch is the next of `first`, int64 [n]. The table has room for all; its texts have, from `used`
    on. Returns (numbers taken, bytes of the table's texts in use).
    """
    n, mask = len(begins), np.uint64(len(table.entries) - 1)
    data, begins, sizes, table = pointer(data), pointer(begins), pointer(sizes), pointers(table)
    entries = table.entries
    half = np.uint64(32)
    low = np.uint64(0xFFFFFFFF)
    found = np.empty(TOGETHER, np.uint64)
    taken = 0
    for block in range(0, n, TOGETHER):
        stop = min(block + TOGETHER, n)
        for i in range(block, stop):
            h = mix(table.seed ^ np.uint64(sizes[i]))
            end = begins[i] + sizes[i]
            for begin in range(begins[i], end, 8):
                word = np.uint64(0)
                for j in range(begin, min(begin + 8, end)):
                    word = word << np.uint64(8) | np.uint64(data[j])
                h = mix(h ^ word)
            found[i - block] = h
            prefetch(address(entries, np.int64(h & mask)))
        for i in range(block, stop):
            entry = entries[found[i - block] & mask] & low
            if entry != 0:
                number = np.int64(entry) - 1
                prefetch(address(table.begins, number))
                prefetch(address(table.sizes, number))
        for i in range(block, stop):
            entry = entries[found[i - block] & mask] & low
            if entry != 0:
                prefetch(address(table.texts, table.begins[np.int64(entry) - 1]))
        for i in range(block, stop):
            at, size = begins[i], sizes[i]
            h = found[i - block]
            k = h & mask
            while entries[k] != 0:
                if entries[k] >> half == h >> half:
                    number = np.int64(entries[k] & low) - 1
                    same = table.sizes[number] == size
                    if same:
                        where = table.begins[number]
                        for j in range(size):
                            same &= table.texts[where + j] == data[at + j]
                    if same:
                        out[i] = number
                        break
                k = (k + np.uint64(1)) & mask
            if entries[k] == 0:
                number = np.int64(fresh[taken])
                entries[k] = (h >> half << half) | np.uint64(number + 1)
                table.hashes[number], table.begins[number], table.sizes[number] = h, used, size
                for j in range(size):
                    table.texts[used + j] = data[at + j]
                used += size
                out[i] = number
                first[taken] = i
                taken += 1
    return taken, used


@nb.njit(cache=True, nogil=True)
def _remove(numbers, table, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Take numbers out of the table. What lies behind one moves up, so that no gap is left."""
    mask = np.uint64(len(table.entries) - 1)
    low = np.uint64(0xFFFFFFFF)
    one = np.uint64(1)
    table = pointers(table)
    entries, hashes = table.entries, table.hashes
    for number in numbers:
        table.sizes[number] = -1
        gap = hashes[number] & mask
        while entries[gap] & low != np.uint64(number + 1):
            gap = (gap + one) & mask
        k = (gap + one) & mask
        while entries[k] != 0:
            home = hashes[np.int64(entries[k] & low) - 1] & mask
            if (k - home) & mask >= (k - gap) & mask:
                entries[gap] = entries[k]
                gap = k
            k = (k + one) & mask
        entries[gap] = 0


@nb.njit(cache=True, nogil=True)
def _rebuild(table, old, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Fill a table's empty entries, and its empty texts from `old`. Returns the bytes in use."""
    mask = np.uint64(len(table.entries) - 1)
    numbers, table, old = len(table.sizes), pointers(table), pointer(old)
    used = 0
    for number in range(numbers):
        if table.sizes[number] >= 0:
            k = table.hashes[number] & mask
            while table.entries[k] != 0:
                k = (k + np.uint64(1)) & mask
            h = table.hashes[number] >> np.uint64(32) << np.uint64(32)
            table.entries[k] = h | np.uint64(number + 1)
            for j in range(table.sizes[number]):
                table.texts[used + j] = old[table.begins[number] + j]
            table.begins[number] = used
            used += table.sizes[number]
    return used


class Numbers(Mapping[str, int]):
    """Texts and their numbers, each of which one text has."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.names: list[str | None] = []
        """The text of each number, None for one that has none."""
        self.clear()

    def __getitem__(self, text: str) -> int:
        return self._numbers[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def clear(self) -> None:
        """Forget all texts."""
        self._numbers.clear()
        self.names.clear()
        self._free = array("i")
        self._table = _Table(
            entries=np.zeros(0, np.uint64),
            hashes=np.zeros(0, np.uint64),
            begins=np.zeros(0, np.int64),
            sizes=np.zeros(0, np.int32),
            texts=np.zeros(0, np.uint8),
            # One that nobody knows: ids come from outside, and could be made to share a hash.
            seed=np.uint64(randbits(64)),
        )
        self._used = 0

    def of(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """The number of each key, int32 [len(keys)]; a new one gets a free number or the next."""
        n, known = len(keys), len(self.names)
        out = np.empty(n, np.int32)
        keys = Texts.of(keys)
        self._reserve(n, int(keys.sizes.sum()))
        free = self._free[: -n - 1 : -1]
        fresh = np.append(free, np.arange(known, known + n - len(free), dtype=np.int32))
        first = np.empty(n, np.int64)
        taken, self._used = _look_up(
            keys.data, keys.begins, keys.sizes, self._table, self._used, fresh, out, first
        )
        if taken:
            del self._free[max(0, len(self._free) - taken) :]
            self.names += [None] * (taken - len(free))
            new = keys.taken(first[:taken]).tolist()
            for key, number in zip(new, fresh[:taken].tolist(), strict=True):
                self.names[number] = key
                self._numbers[key] = number
        return out

    def forget(self, numbers: Sequence[int], reuse: bool = False) -> list[str]:
        """Take the texts of these numbers away, and return them; numbers without one have none.

        With `reuse` new texts get these numbers, the last one first.
        """
        gone = [n for n in dict.fromkeys(numbers) if self.names[n] is not None]
        texts = [self.names[number] or "" for number in gone]
        for number, text in zip(gone, texts, strict=True):
            self.names[number] = None
            del self._numbers[text]
        _remove(np.array(gone, np.int32), self._table)
        if reuse:
            self._free.extend(gone)
        return texts

    def cut(self, n: int) -> None:
        """Take back the numbers from n on, so that new texts get them."""
        self.forget(range(n, len(self.names)))
        del self.names[n:]
        self._free = array("i", [number for number in self._free if number < n])

    def replace(self, names: Sequence[str | None]) -> None:
        """Give number i the text names[i], and forget all others."""
        self.clear()
        self.names += [None] * len(names)
        self._free.extend([i for i, name in enumerate(names) if name is not None][::-1])
        self.of([name for name in names if name is not None])

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which numbers have a text, bool [len(names)]."""
        return self._table.sizes[: len(self.names)] >= 0

    def _reserve(self, more: int, size: int) -> None:
        """Make room for so many texts of so many bytes in all."""
        table, numbers = self._table, len(self.names) + more
        if numbers > len(table.sizes):
            grown = numbers + numbers // 2 - len(table.sizes)
            table = table._replace(
                hashes=np.concatenate([table.hashes, np.zeros(grown, np.uint64)]),
                begins=np.concatenate([table.begins, np.zeros(grown, np.int64)]),
                sizes=np.concatenate([table.sizes, np.full(grown, -1, np.int32)]),
            )
        length = max(16, len(table.entries))
        while length < 2 * (len(self) + more):  # long runs of entries are slow to search
            length *= 2
        if length > len(table.entries) or self._used + size > len(table.texts):
            live = int(table.sizes[table.sizes > 0].sum())
            old = table.texts
            table = table._replace(
                entries=np.zeros(length, np.uint64), texts=np.zeros(2 * (live + size), np.uint8)
            )
            self._used = _rebuild(table, old)
        self._table = table
