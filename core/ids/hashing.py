"""Hashes of ids, and the random numbers of the kernels.

Python's own `hash()` differs between processes; these do not, so that partitions, first vectors
and random draws are the same on every worker and after every restart.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.ids.texts import Texts

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@nb.njit(nb.uint64(nb.uint64), cache=True, nogil=True)
def mix(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@nb.njit(cache=True, nogil=True)
def stream(seed, round_number, purpose, index):  # type: ignore[no-untyped-def]
    """The first state of a stream of random numbers; equal arguments give equal streams."""
    state = mix(np.uint64(seed) + GOLDEN)
    state = mix(state ^ mix(np.uint64(round_number) + GOLDEN))
    state = mix(state ^ mix(np.uint64(purpose) + GOLDEN))
    return mix(state ^ mix(np.uint64(index) + GOLDEN))


@nb.njit(nb.float64(nb.uint64), cache=True, nogil=True)
def unit(state):  # type: ignore[no-untyped-def]
    """The state as a number in [0, 1)."""
    return np.float64(mix(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@nb.njit(cache=True, nogil=True)
def below(state, n):  # type: ignore[no-untyped-def]
    """The state as an integer in [0, n), n < 2**32."""
    return np.int64(((mix(state) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@nb.njit(cache=True)
def _murmur2(data, begin, end):  # type: ignore[no-untyped-def]
    m = np.uint32(0x5BD1E995)
    length = end - begin
    h = np.uint32(0x9747B28C) ^ np.uint32(length)
    i = begin
    while end - i >= 4:
        k = (
            np.uint32(data[i])
            | np.uint32(data[i + 1]) << np.uint32(8)
            | np.uint32(data[i + 2]) << np.uint32(16)
            | np.uint32(data[i + 3]) << np.uint32(24)
        )
        k = np.uint32(k * m)
        k = np.uint32((k ^ (k >> np.uint32(24))) * m)
        h = np.uint32(np.uint32(h * m) ^ k)
        i += 4
    left = end - i
    if left >= 3:
        h ^= np.uint32(data[i + 2]) << np.uint32(16)
    if left >= 2:
        h ^= np.uint32(data[i + 1]) << np.uint32(8)
    if left >= 1:
        h = np.uint32((h ^ np.uint32(data[i])) * m)
    h = np.uint32((h ^ (h >> np.uint32(13))) * m)
    return h ^ (h >> np.uint32(15))


@nb.njit(cache=True)
def _partitions(data, begins, sizes, partitions, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        h = _murmur2(data, begins[i], begins[i] + sizes[i])
        out[i] = np.int32(h & np.uint32(0x7FFFFFFF)) % partitions


@nb.njit(cache=True)
def _hashes(data, begins, sizes, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        h = np.uint64(0xCBF29CE484222325)
        for j in range(begins[i], begins[i] + sizes[i]):
            h = (h ^ np.uint64(data[np.uint64(j)])) * np.uint64(0x100000001B3)
        out[i] = mix(h)


def hash_keys(keys: list[bytes], partitions: int) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """The Kafka partition (murmur2, as the Java client's default partitioner) and a 64-bit hash.

    Returns two arrays of `len(keys)`: partitions in [0, partitions), and SplitMix64 of FNV-1a.
    """
    sizes = np.fromiter(map(len, keys), np.int32, len(keys))
    begins = np.cumsum(sizes, dtype=np.int64) - sizes
    texts = Texts(np.frombuffer(b"".join(keys), np.uint8), begins, sizes)
    partition = np.empty(len(keys), np.int32)
    _partitions(texts.data, begins, sizes, partitions, partition)
    return partition, hash_texts(texts)


def hash_texts(texts: Texts) -> NDArray[np.uint64]:
    """SplitMix64 of FNV-1a of the bytes of each, uint64 [n]."""
    out = np.empty(len(texts), np.uint64)
    _hashes(texts.data, texts.begins, texts.sizes, out)
    return out
