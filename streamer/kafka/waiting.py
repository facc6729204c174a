"""Readers of committed records: how they get to an end, what they wait for, and when they give up.

What holds them back is an open transaction of another producer, which the broker ends in time, or a
partition without a leader.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, Message, TopicPartition

from streamer.errors import WalkstreamError
from streamer.kafka.clients import (
    POLL_SECONDS,
    Partition,
    checked,
    label,
    look_up,
    partition_of,
)

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0
"""A transaction of a living producer ends sooner than this, as a rule."""
PATIENCE_SECONDS = 60.0
"""A reader for whom nothing comes gives up after so long."""
OPEN_SECONDS = 1000.0
"""The same where open transactions hold it back: brokers end each after 15 minutes at most."""


class OpenTransactions:
    """Says once of each that an open transaction holds back what is to be read."""

    def __init__(self) -> None:
        self._since: dict[Partition, tuple[int, float]] = {}
        """Where each partition that waits is held back, and since when; for ever, once told."""

    def announce(
        self, at: Mapping[Partition, int], ends: Mapping[Partition, int],
        until: Mapping[Partition, int],
    ) -> None:  # fmt: skip
        """Log once what a reader waits for: it is `at` these offsets, and wants `until` those.

        `ends` is where what can be read ended, the last time that the reader was told so.
        """
        now = time.monotonic()
        for partition, offset in at.items():
            end = ends.get(partition, -1)
            if not offset <= end < until[partition]:
                self._since.pop(partition, None)
                continue
            held, since = self._since.get(partition, (-1, now))
            if held != end:
                self._since[partition] = end, now
            elif now - since > TELL_SECONDS:
                self._since[partition] = end, math.inf
                log.warning(
                    "%s: waiting for a producer's open transaction to end: what is at offsets %d "
                    "to %d cannot be read before. The broker ends it when its producer's "
                    "transaction.timeout.ms is over, at most transaction.max.timeout.ms of the "
                    "broker (15 min unless it was changed). kafka-transactions.sh find-hanging "
                    "names it",
                    label(partition), end, until[partition] - 1,
                )  # fmt: skip


class Waiting:
    """One reader on its way to an end: says what it waits for, and gives up in the end."""

    def __init__(self) -> None:
        self._open = OpenTransactions()
        self._seen: tuple[int, int] = -1, -1
        self._since = time.monotonic()

    def look(
        self, at: Mapping[Partition, int], ends: Mapping[Partition, int],
        until: Mapping[Partition, int],
    ) -> None:  # fmt: skip
        """To be called after each poll, with what `OpenTransactions.announce` gets.

        WalkstreamError if nothing moved for too long.
        """
        self._open.announce(at, ends, until)
        now = time.monotonic()
        late = {p: o for p, o in at.items() if max(o, ends.get(p, -1)) < until[p]}
        seen = sum(at.values()), sum(ends.get(p, -1) for p in at)
        if seen != self._seen:
            self._seen, self._since = seen, now
        held = all(offset <= ends.get(p, -1) for p, offset in late.items())
        if now - self._since > (OPEN_SECONDS if held else PATIENCE_SECONDS):
            where = ", ".join(
                f"{label(p)} is at {o} of {until[p]}" for p, o in list(late.items())[:3]
            )
            raise WalkstreamError(
                f"nothing more could be read for {now - self._since:.0f} s: {where}. "
                + (
                    "A transaction holds it back that no broker ends: kafka-transactions.sh "
                    "find-hanging names it, and abort ends it"
                    if held
                    else "Look whether these partitions have leaders"
                )
                + ". Then start again; nothing is lost"
            )


def between(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Message]:  # fmt: skip
    """The records between two offsets of each partition; `beat` is called all the while.

    The consumer is of no group, and asks for the ends of partitions. WalkstreamError as `Waiting`.
    """
    at, reached, waiting = dict(begins), dict[Partition, int](), Waiting()
    look_up(consumer, {topic for topic, _ in begins})
    consumer.assign([TopicPartition(*partition, offset) for partition, offset in begins.items()])
    while any(max(at[p], reached.get(p, -1)) < ends[p] for p in begins):
        beat()
        for message in map(checked, consumer.consume(10_000, POLL_SECONDS)):
            partition, offset = partition_of(message), message.offset() or 0
            if message.error() is not None:
                # The last offsets may be markers of transactions: then only the end tells.
                reached[partition] = offset
            else:
                at[partition] = offset + 1
                if offset < ends[partition]:
                    yield message
        waiting.look(at, reached, ends)
    consumer.unassign()
