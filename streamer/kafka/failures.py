"""What Kafka says when something fails, for the person who reads the log at night."""

import re

from confluent_kafka import KafkaError, KafkaException

from streamer.errors import ConfigError, Fenced, KafkaTrouble, Refused, WalkstreamError

TAKEN_OVER = frozenset(
    {
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
"""Another process has the name of this one. The last three are also said to a producer whose
transaction was too old: the broker fences it as if another had come."""

FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
}
"""What brokers say to a user that lacks a right, and what it is a right on."""

_BEYOND = {
    KafkaError.INVALID_SESSION_TIMEOUT: (
        "session.timeout.ms",
        "group.min.session.timeout.ms and group.max.session.timeout.ms",
    ),
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        "transaction.timeout.ms",
        "transaction.max.timeout.ms",
    ),
}
"""What brokers say of a property that is beyond their bounds: which one, and what bounds it."""


class Forbidden(Refused):
    """The user of section [kafka] lacks a right. `rights.allowed` says which, where it is known."""

    def __init__(self, error: KafkaError, where: str) -> None:
        self.resource = FORBIDDEN[error.code()]
        super().__init__(
            f"{where}: {said(error)}. The Kafka user of section [kafka] lacks a right "
            f"on a {self.resource}: README lists what each command needs"
        )


def kafka_error(error: BaseException) -> KafkaError | None:
    """What a client raised, if it is of Kafka.

    A fatal error comes out of any call, as a SystemError if a callback was called meanwhile.
    """
    if isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    return error.args[0] if isinstance(error, KafkaException) else None


def is_fatal(error: KafkaError) -> bool:
    """Whether its client can do nothing more. `produce` of one that failed says so by the code."""
    return error.fatal() or error.code() == KafkaError._FATAL


def said(error: KafkaError) -> str:
    """What a client or a broker says, less how long the client was in some state before."""
    return re.sub(r" ?\(after \d+ ?ms[^)]*\)", "", error.str()).rstrip(".")


def failure(error: KafkaError, where: str) -> WalkstreamError:
    """An error's message for the person who reads the log at night."""
    if error.code() in FORBIDDEN:
        return Forbidden(error, where)
    if error.code() in TAKEN_OVER:
        return Fenced(f"{where}: {said(error)}")
    if error.code() in _BEYOND:
        name, bounds = _BEYOND[error.code()]
        return ConfigError(
            f'kafka."{name}" is beyond what the brokers allow ({where}: {said(error)}): change it, '
            f"or their {bounds}"
        )
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return KafkaTrouble(
            f"{where}: {said(error)}. A record, or a batch of them, is longer than its topic's "
            "max.message.bytes, which `walkstream topics check` looks at, or than "
            'kafka."message.max.bytes" here: raise it'
        )
    return KafkaTrouble(f"{where}: {error.name()}: {said(error)}. Restart the worker")


def gone(name: str, offset: int) -> WalkstreamError:
    """What is said where the next record to be read of a partition is not there any more."""
    return WalkstreamError(
        f"{name}: offset {offset}, which is the next to be read, is no longer in the log: "
        "retention took it, or somebody deleted records or the topic. Start the worker again: it "
        "says what is gone, and how to go on without that"
    )
