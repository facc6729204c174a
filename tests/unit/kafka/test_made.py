"""Clients that cannot be made say so as wrong settings, which no further start makes right."""

import pytest
from confluent_kafka import KafkaError

from streamer.errors import ConfigError
from streamer.kafka import clients
from streamer.kafka.failures import failure
from streamer.settings.sections import Config


@pytest.mark.parametrize(
    "setting",
    [
        "acks=1",
        "retries=0",
        "max.in.flight=100",
        "linger.ms=20000",
        "delivery.timeout.ms=1",
        "max.poll.interval.ms=1000",
        "fetch.max.bytes=1",
        "session.timeout.ms=x",
    ],
)
def test_a_property_that_never_works(setting: str) -> None:
    name, _, value = setting.partition("=")
    config = Config(kafka={name: value})
    with pytest.raises(ConfigError, match=r"^kafka: "):
        _make_all(config)


def _make_all(config: Config) -> None:
    for make in (clients.group_consumer, clients.reading_consumer, clients.producer):
        make(config)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, 'kafka."transaction.timeout.ms" is beyond'),
        (KafkaError.INVALID_SESSION_TIMEOUT, 'kafka."session.timeout.ms" is beyond'),
    ],
)
def test_a_property_that_brokers_refuse(code: int, words: str) -> None:
    told = failure(KafkaError(code), "somewhere")
    assert isinstance(told, ConfigError)
    assert str(told).startswith(words)
