"""What a client cannot fetch: batches that inflate past its limits, or that are damaged.

librdkafka reports such a batch and asks for it again for ever. A fresh consumer finds where the
batch ends, and another one, with more room, tries to read what is in it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streamer.decode.events import Bad, Reason
from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS, Partition, checked, is_unreadable, label
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

ROOM = 256 * 1024 * 1024
"""Bytes that one batch may inflate to when it is read by itself. A worker needs some two times that
for a moment."""


class Found(NamedTuple):
    """What became of a batch that could not be fetched."""

    messages: list[Message]
    """Its records, if they were read after all; else one that stands for all, with its error."""
    next: int
    """Where to read on: the offset behind it, or the same if it was fetched the second time."""


def read_alone(
    config: Config, partition: Partition, offset: int, message: Message, beat: Callable[[], None]
) -> Found:
    """The batch at `offset`, which is the next to be read; `message` has the error of it."""
    error, base = message.error(), message.offset() or 0
    assert error is not None, "only an error brings a batch here"
    if not _is_in(config, partition, offset, base, beat):
        log.warning("%s: fetched again, after: %s", label(partition), error.str())
        return Found([], offset)
    behind = _behind(config, partition, offset, base, beat)
    found = _with_room(config, partition, offset, behind, beat)
    if found is None:
        first = max(offset, base)
        stand_in = Message(
            topic=partition[0], partition=partition[1], offset=first, timestamp=(0, -1),
            error=KafkaError(error.code(), _told(partition, first, behind, error)),
        )  # fmt: skip
        found = [stand_in]
    return Found(found, behind)


def named(messages: Sequence[Message], bad: list[Bad]) -> list[Bad]:
    """Verdicts on records, in which those that stand for what cannot be fetched get their own."""
    out = []
    for verdict in bad:
        error = messages[verdict.record].error()
        if error is not None:
            verdict = verdict_on(error)._replace(record=verdict.record)
        out.append(verdict)
    return out


def verdict_on(error: KafkaError) -> Bad:
    """What is said of a record that stands for what cannot be fetched."""
    return Bad(0, None, None, Reason.UNREADABLE, error.str())


def _told(partition: Partition, offset: int, behind: int, error: KafkaError) -> str:
    which = f"offset {offset}" if behind == offset + 1 else f"offsets {offset} to {behind - 1}"
    return f"{label(partition)}: {which} cannot be fetched: {error.str()}"


def _is_in(
    config: Config, partition: Partition, offset: int, base: int, beat: Callable[[], None]
) -> bool:
    """Whether a fresh consumer at this offset fails at the batch that begins at `base`."""
    first = first_at(clients.reading_consumer(config, "probe"), partition, offset, beat)
    return is_unreadable(first.error()) and first.offset() == base


def _behind(
    config: Config, partition: Partition, offset: int, base: int, beat: Callable[[], None]
) -> int:
    """The first offset after `offset` that is not in the batch that begins at `base`."""
    inside, step = max(offset, base), 1
    while _is_in(config, partition, inside + step, base, beat):
        inside, step = inside + step, 2 * step
    outside = inside + step
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if _is_in(config, partition, middle, base, beat):
            inside = middle
        else:
            outside = middle
    return outside


def first_at(
    consumer: Consumer, partition: Partition, offset: int, beat: Callable[[], None]
) -> Message:
    """The first record or event that this consumer gets there; closes it."""
    try:
        consumer.assign([TopicPartition(*partition, offset)])
        for _ in range(int(CALL_SECONDS / 0.2)):
            beat()
            for message in consumer.consume(1, 0.2):
                if message.topic() is not None:
                    return message
                checked(message)
    finally:
        consumer.close()
    raise WalkstreamError(
        f"{label(partition)}: no record came from offset {offset} within {CALL_SECONDS:g} s. "
        "Look whether the partition has a leader, and restart the worker"
    )


def _with_room(
    config: Config, partition: Partition, offset: int, behind: int, beat: Callable[[], None]
) -> list[Message] | None:
    """The records from `offset` to `behind`, if a consumer with much room can fetch them."""
    out: list[Message] = []
    room = max(ROOM, int(config.kafka.get("receive.message.max.bytes", 0)))
    consumer = clients.reading_consumer(config, "probe", {"receive.message.max.bytes": room})
    try:
        consumer.assign([TopicPartition(*partition, offset)])
        for _ in range(int(CALL_SECONDS / 0.2)):
            beat()
            for message in consumer.consume(1000, 0.2):
                at = message.offset() or 0
                if is_unreadable(message.error()):
                    return None if at < behind else out
                if checked(message).error() is None and at < behind:
                    out.append(message)
                if at >= behind - (message.error() is None):
                    return out
    finally:
        consumer.close()
    return None
