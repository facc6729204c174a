"""Numbers by text, looked up many at a time.

A dict has the last word on one text. For a batch it is slow: each look-up waits for memory several
times, one after the other. So what the dict has is in a hash table too, over the bytes of the
texts, which a kernel searches for many texts at a time; it compares all bytes, so that texts with
one hash stay two.
"""

from array import array
from collections.abc import Sequence
from secrets import randbits

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.ids.hashing import mix
from core.ids.texts import Texts
from core.learning.lanes import SOURCES, address, prefetch

TOGETHER = 64
"""Texts whose memory is asked for at once."""


@nb.njit(cache=True, nogil=True)
def _look_up(  # type: ignore[no-untyped-def]
    data, starts, lengths, seed, table, hashes, begins, sizes, texts, used, fresh, out, first,
    sources=SOURCES,
):  # fmt: skip
    """The number of each text, which is a span of `data`, into `out`, int32 [n].

    A text that is not there takes the next of the numbers `fresh`, int32 [n], and its place in the
    batch is the next of `first`, int64 [n]. The table has room for all, and gaps besides; `texts`
    has room too, from `used` on. Returns (numbers taken, bytes of `texts` in use).

    An entry of the table is 0, or the upper half of a hash and in the lower half a number + 1.
    """
    mask = np.uint64(len(table) - 1)
    half = np.uint64(32)
    low = np.uint64(0xFFFFFFFF)
    found = np.empty(TOGETHER, np.uint64)
    taken = 0
    for block in range(0, len(starts), TOGETHER):
        stop = min(block + TOGETHER, len(starts))
        for i in range(block, stop):
            h = mix(seed ^ np.uint64(lengths[i]))
            end = starts[i] + lengths[i]
            for begin in range(starts[i], end, 8):
                word = np.uint64(0)
                for j in range(begin, min(begin + 8, end)):
                    # An unsigned index is never counted from the end.
                    word = word << np.uint64(8) | np.uint64(data[np.uint64(j)])
                h = mix(h ^ word)
            found[i - block] = h
            prefetch(address(table, np.int64(h & mask)))
        for i in range(block, stop):
            entry = table[found[i - block] & mask] & low
            if entry != 0:
                number = np.int64(entry) - 1
                prefetch(address(begins, number))
                prefetch(address(sizes, number))
        for i in range(block, stop):
            entry = table[found[i - block] & mask] & low
            if entry != 0:
                prefetch(address(texts, begins[np.int64(entry) - 1]))
        for i in range(block, stop):
            at, size = starts[i], lengths[i]
            h = found[i - block]
            k = h & mask
            while table[k] != 0:
                if table[k] >> half == h >> half:
                    number = np.int64(table[k] & low) - 1
                    same = sizes[number] == size
                    if same:
                        where = begins[number]
                        for j in range(size):
                            same &= texts[np.uint64(where + j)] == data[np.uint64(at + j)]
                    if same:
                        out[i] = number
                        break
                k = (k + np.uint64(1)) & mask
            if table[k] == 0:
                number = np.int64(fresh[taken])
                table[k] = (h >> half << half) | np.uint64(number + 1)
                hashes[number], begins[number], sizes[number] = h, used, size
                for j in range(size):
                    texts[used + j] = data[at + j]
                used += size
                out[i] = number
                first[taken] = i
                taken += 1
    return taken, used


@nb.njit(cache=True, nogil=True)
def _remove(numbers, table, hashes, sizes):  # type: ignore[no-untyped-def]
    """Take numbers out of the table. What lies behind one moves up, so that no gap is left."""
    mask = np.uint64(len(table) - 1)
    low = np.uint64(0xFFFFFFFF)
    one = np.uint64(1)
    for number in numbers:
        sizes[number] = -1
        gap = hashes[number] & mask
        while table[gap] & low != np.uint64(number + 1):
            gap = (gap + one) & mask
        k = (gap + one) & mask
        while table[k] != 0:
            home = hashes[np.int64(table[k] & low) - 1] & mask
            if (k - home) & mask >= (k - gap) & mask:
                table[gap] = table[k]
                gap = k
            k = (k + one) & mask
        table[gap] = 0


@nb.njit(cache=True, nogil=True)
def _rebuild(table, hashes, begins, sizes, old, texts):  # type: ignore[no-untyped-def]
    """Fill an empty table and empty `texts` with what is there. Returns the bytes in use."""
    mask = np.uint64(len(table) - 1)
    used = 0
    for number in range(len(sizes)):
        if sizes[number] >= 0:
            k = hashes[number] & mask
            while table[k] != 0:
                k = (k + np.uint64(1)) & mask
            h = hashes[number] >> np.uint64(32) << np.uint64(32)
            table[k] = h | np.uint64(number + 1)
            for j in range(sizes[number]):
                texts[used + j] = old[begins[number] + j]
            begins[number] = used
            used += sizes[number]
    return used


class Numbers(dict[str, int]):
    """Texts and their numbers, each of which one text has. Change it by the methods here alone."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str | None] = []
        """The text of each number, None for one that has none."""
        self.clear()

    def clear(self) -> None:
        """Forget all texts."""
        super().clear()
        self.names.clear()
        self._free = array("i")
        # A seed that nobody knows: ids come from outside, and could be made to share a hash.
        self._seed = np.uint64(randbits(64))
        self._table = np.zeros(0, np.uint64)
        self._hashes = np.zeros(0, np.uint64)
        self._begins = np.zeros(0, np.int64)
        self._sizes = np.zeros(0, np.int32)
        self._texts = np.zeros(0, np.uint8)
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
            keys.data, keys.begins, keys.sizes, self._seed, self._table, self._hashes,
            self._begins, self._sizes, self._texts, self._used, fresh, out, first,
        )  # fmt: skip
        if taken:
            del self._free[max(0, len(self._free) - taken) :]
            self.names += [None] * (taken - len(free))
            new = keys.taken(first[:taken]).tolist()
            for key, number in zip(new, fresh[:taken].tolist(), strict=True):
                self.names[number] = key
                self[key] = number
        return out

    def forget(self, numbers: Sequence[int], reuse: bool = False) -> list[str]:
        """Take the texts of these numbers away, and return them; numbers without one have none.

        With `reuse` new texts get these numbers, the last one first.
        """
        gone = [n for n in dict.fromkeys(numbers) if self.names[n] is not None]
        texts = [self.names[number] or "" for number in gone]
        for number, text in zip(gone, texts, strict=True):
            self.names[number] = None
            del self[text]
        _remove(np.array(gone, np.int32), self._table, self._hashes, self._sizes)
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
        return self._sizes[: len(self.names)] >= 0

    def _reserve(self, more: int, size: int) -> None:
        """Make room for so many texts of so many bytes in all."""
        numbers = len(self.names) + more
        if numbers > len(self._sizes):
            grown = numbers + numbers // 2 - len(self._sizes)
            self._hashes = np.concatenate([self._hashes, np.zeros(grown, np.uint64)])
            self._begins = np.concatenate([self._begins, np.zeros(grown, np.int64)])
            self._sizes = np.concatenate([self._sizes, np.full(grown, -1, np.int32)])
        length = max(16, len(self._table))
        while length < 2 * (len(self) + more):  # long runs of entries are slow to search
            length *= 2
        if length > len(self._table) or self._used + size > len(self._texts):
            live = int(self._sizes[self._sizes > 0].sum())
            texts = np.zeros(2 * (live + size), np.uint8)
            table = np.zeros(length, np.uint64)
            self._used = _rebuild(
                table, self._hashes, self._begins, self._sizes, self._texts, texts
            )
            self._table, self._texts = table, texts
