"""Finds partitions that a consumer has stopped to read, and says nothing of.

A client that gave up on a partition says so once, or not at all; what is in the log then, or was
deleted from it meanwhile, would wait for ever.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamer.kafka.clients import CALL_SECONDS, Partition

LOOK_SECONDS = 4.0
"""Time between a look and the next, and that a consumer has to get what was there at the last."""


class Stalls:
    """Asks where the logs begin and end, and later whether the reader got on. It waits for none."""

    def __init__(self, admin: AdminClient) -> None:
        self.admin = admin
        self._asked: list[dict[TopicPartition, Future[Any]]] = []
        self._at: dict[Partition, int] = {}
        self._limits: dict[Partition, tuple[int, int]] = {}
        self._due = time.monotonic() + LOOK_SECONDS

    def look(self, at: Mapping[Partition, int]) -> Iterator[Partition]:
        """Partitions that stand where they stood, although records lay or were lost behind that.

        `at` is the next offset of each. To be called when all that the consumer has was taken.
        """
        now = time.monotonic()
        if self._asked:
            if all(future.done() for asked in self._asked for future in asked.values()):
                begins, ends = map(_answers, self._asked)
                self._limits = {p: (begins[p], ends[p]) for p in begins.keys() & ends.keys()}
                self._asked, self._due = [], now + LOOK_SECONDS
        elif now >= self._due:
            for where, (begin, end) in self._limits.items():
                if at.get(where) == self._at[where] and (begin > at[where] or end > at[where]):
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
