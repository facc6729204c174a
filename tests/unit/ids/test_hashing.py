import numpy as np
import pytest

from core.ids.hashing import hash_keys, mix

# Vectors of the tests of Apache Kafka's Java client (UtilsTest.testMurmur2).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("partitions", [1, 6, 50, 2**31 - 1])
def test_partitions_are_those_of_the_java_client(partitions: int) -> None:
    got, _ = hash_keys(list(MURMUR2), partitions)
    assert got.tolist() == [(h & 0x7FFFFFFF) % partitions for h in MURMUR2.values()]


def test_hashes_depend_on_the_key_alone() -> None:
    keys = [f"item {i}".encode() for i in range(1000)]
    _, together = hash_keys(keys, 3)
    alone = [int(hash_keys([key], 7)[1][0]) for key in keys]
    assert together.tolist() == alone
    assert len(set(alone)) == len(keys)


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The first output of SplitMix64 from state 0, whose increment is the golden ratio.
    assert int(mix(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF


def test_no_keys_give_no_hashes() -> None:
    partitions, hashes = hash_keys([], 3)
    assert len(partitions) == len(hashes) == 0
