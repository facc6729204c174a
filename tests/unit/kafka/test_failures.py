"""What Kafka says when something fails is told with what there is to do about it."""

import time

import pytest
from confluent_kafka import KafkaError, Message

from streamer.errors import KafkaTrouble, WalkstreamError
from streamer.kafka.clients import checked
from streamer.kafka.failures import failure
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def test_a_record_that_is_too_long_is_told_by_what_bounds_it() -> None:
    told = str(failure(TOO_LARGE, "commit"))
    assert "max.message.bytes" in told
    assert 'kafka."message.max.bytes"' in told


def test_a_record_that_is_too_long_is_no_slow_broker() -> None:
    transactions = Transactions.__new__(Transactions)
    transactions.config, transactions.began = Config(), time.monotonic() - 60.0
    assert "transaction.timeout.ms" not in str(transactions.failure(TOO_LARGE, "commit"))


def test_what_is_no_longer_in_the_log_is_told_so_and_not_that_nothing_is_lost() -> None:
    error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
    message = Message(topic="transitions", partition=0, offset=7, error=error)
    with pytest.raises(WalkstreamError, match=r"transitions\[0\]: offset 7, .* no longer") as told:
        checked(message)
    # Of that it is said that a restart loses nothing, which may not be so.
    assert not isinstance(told.value, KafkaTrouble)
