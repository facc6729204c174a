"""A call that may hang ends in time."""

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamer.kafka.bounded import within


def test_what_the_call_returns_or_raises() -> None:
    assert within(5.0, "it", lambda: 7) == 7
    assert within(5.0, "it", lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(5.0, "it", lambda: 1 // 0)


def test_a_call_that_hangs_is_left_alone() -> None:
    over = threading.Event()
    try:
        with pytest.raises(KafkaException, match=r"the offsets: .* within 0\.1 s") as raised:
            within(0.1, "the offsets", over.wait)
        error = raised.value.args[0]
        # The client is good for nothing else, and a fresh one may try again.
        assert (error.code(), error.fatal()) == (KafkaError._TIMED_OUT, True)
        left = next(thread for thread in threading.enumerate() if thread.name == "the offsets")
        assert left.daemon
    finally:
        over.set()
