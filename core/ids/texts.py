"""Many short texts as bytes, which kernels read without making a string of each."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

SPARSE = 10_000
"""Texts that lie further apart than this many bytes, on average, are copied one by one."""


class Texts(Sequence[str]):
    """n texts, each a span of `data`: bytes `begins[i]` to `begins[i] + sizes[i]`, in UTF-8.

    data uint8 [bytes], read-only, which spans may share; begins int64 [n]; sizes int32 [n]. As a
    sequence it equals nothing but itself: compare lists.
    """

    __slots__ = ("begins", "data", "sizes")

    def __init__(
        self, data: NDArray[np.uint8], begins: NDArray[np.int64], sizes: NDArray[np.int32]
    ) -> None:
        self.data, self.begins, self.sizes = data, begins, sizes

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """These texts; TypeError if one is no str. Surrogates are kept as what they are."""
        if isinstance(texts, Texts):
            return texts
        text = "".join(texts)
        if text.isascii():
            data, lengths = text.encode(), map(len, texts)
        else:
            parts = [one.encode(errors="surrogatepass") for one in texts]
            data, lengths = b"".join(parts), map(len, parts)
        sizes = np.fromiter(lengths, np.int32, len(texts))
        begins = np.cumsum(sizes, dtype=np.int64) - sizes
        return cls(np.frombuffer(data, np.uint8), begins, sizes)

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """The texts of all parts."""
        shifts = np.cumsum([0, *(len(part.data) for part in parts)])
        begins = [part.begins + shift for part, shift in zip(parts, shifts, strict=False)]
        data = np.concatenate([part.data for part in parts])
        data.flags.writeable = False  # as all others are: kernels are compiled for one kind only
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(data, np.concatenate(begins), sizes)

    def taken(self, indices: NDArray[np.integer] | NDArray[np.bool_]) -> "Texts":
        """The texts at `indices`, in that order, or where a mask is true."""
        return Texts(self.data, self.begins[indices], self.sizes[indices])

    def tolist(self) -> list[str]:
        if not len(self):
            return []
        ends = self.begins + self.sizes
        low, high = int(self.begins.min()), int(ends.max())
        if high - low > SPARSE * len(self):
            return [self[i] for i in range(len(self))]
        window = self.data[low:high].tobytes()
        spans = zip((self.begins - low).tolist(), (ends - low).tolist(), strict=True)
        if window.isascii():
            text = window.decode()
            return [text[begin:end] for begin, end in spans]
        return [window[begin:end].decode(errors="surrogatepass") for begin, end in spans]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "Texts": ...
    def __getitem__(self, at: int | slice) -> "str | Texts":
        if isinstance(at, slice):
            return Texts(self.data, self.begins[at], self.sizes[at])
        begin = int(self.begins[at])
        span = self.data[begin : begin + int(self.sizes[at])]
        return span.tobytes().decode(errors="surrogatepass")
