"""Finds partitions that a consumer has stopped to read, and says nothing of.

A client that gave up on a partition says so once, or not at all; what is in the log then, or was
deleted from it meanwhile, would wait for ever.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS, Partition, is_unreadable, label
from streamer.kafka.failures import gone
from streamer.kafka.unreadable import first_at
from streamer.settings.sections import Config

LOOK_SECONDS = 10.0
"""Time between a look and the next, and that a consumer has to get what was there at the last. In
two of them it has asked again for an answer that never came, after `clients.READ_MS`."""


class Stalls:
    """Asks where the logs begin and end, and later whether the reader got on. It waits for none.

    `beat` is called while a second consumer looks at a partition that seems to stand.
    """

    def __init__(self, config: Config, admin: AdminClient, beat: Callable[[], None]) -> None:
        self.config, self.admin, self.beat = config, admin, beat
        self._asked: list[dict[TopicPartition, Future[Any]]] = []
        self._at: dict[Partition, int] = {}
        self._limits: dict[Partition, tuple[int, int]] = {}
        self._stood: dict[Partition, int] = {}
        self._due = time.monotonic() + LOOK_SECONDS

    def look(self, at: Mapping[Partition, int]) -> None:
        """WalkstreamError if a fresh consumer gets a record where this one has got nothing.

        `at` is the next offset of each. To be called when all that the consumer has was taken.
        """
        for where in self._standing(at):
            first = first_at(
                clients.reading_consumer(self.config, "witness"), where, at[where], self.beat
            )
            error = first.error()
            if error is None or is_unreadable(error):
                raise WalkstreamError(
                    f"{label(where)}: the Kafka client reads nothing from offset {at[where]} on, "
                    f"and a fresh one finds what is at offset {first.offset()}. Nothing is lost. "
                    "Restart the worker: it reads on from its last commit"
                )
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise gone(label(where), at[where])

    def _standing(self, at: Mapping[Partition, int]) -> Iterator[Partition]:
        """Partitions that stand where they stood, although records lay or were lost behind that.

        At two looks: brokers may have been away between the answer to one and the next.
        """
        now = time.monotonic()
        if self._asked:
            if all(future.done() for asked in self._asked for future in asked.values()):
                begins, ends = map(_answers, self._asked)
                self._limits = {p: (begins[p], ends[p]) for p in begins.keys() & ends.keys()}
                self._asked, self._due = [], now + LOOK_SECONDS
        elif now >= self._due:
            stood, self._stood = self._stood, {}
            for where, (begin, end) in self._limits.items():
                offset = self._at[where]
                if at.get(where) == offset and (begin > offset or end > offset):
                    self._stood[where] = offset
                    if stood.get(where) == offset:
                        yield where
            self._at, self._limits = dict(at), {}
            self._asked = [self._ask(OffsetSpec.earliest()), self._ask(OffsetSpec.latest())]  # type: ignore[no-untyped-call]

    def _ask(self, what: OffsetSpec) -> dict[TopicPartition, "Future[Any]"]:
        return self.admin.list_offsets(
            {TopicPartition(*where): what for where in self._at},
            isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=CALL_SECONDS,
        ) if self._at else {}  # fmt: skip


def _answers(asked: Mapping[TopicPartition, "Future[Any]"]) -> dict[Partition, int]:
    """Whoever needs the brokers will say that they do not answer."""
    out = {}
    for where, future in asked.items():
        try:
            out[where.topic, where.partition] = future.result().offset
        except KafkaException:
            continue
    return out
