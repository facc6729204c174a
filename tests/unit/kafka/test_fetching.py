"""A consumer waits for no more than an answer may have."""

import pytest

from streamer.kafka.fetching import LEAST_BYTES, defaults


def test_what_is_read_at_once() -> None:
    assert defaults({})["fetch.min.bytes"] == LEAST_BYTES
    assert defaults({"fetch.max.bytes": 10 * LEAST_BYTES})["fetch.min.bytes"] == LEAST_BYTES


@pytest.mark.parametrize(
    "name", ["fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.max.bytes"]
)
def test_a_small_answer_is_not_waited_for(name: str) -> None:
    assert defaults({name: "16384"})["fetch.min.bytes"] == 16384
