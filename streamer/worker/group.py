"""The worker's membership of the consumer group: all partitions of `clicks` and `vector-deltas`.

What is owned is fixed from the moment the group handed everything over: whatever it takes away or
adds later ends the process, and the restart begins from what was committed.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from confluent_kafka import OFFSET_END, Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer.errors import Fenced, Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS, Partition, checked, partition_of
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

JOIN_SECONDS = 60.0
"""How long another worker may take to leave; one that died stays for a session time-out."""


class Group:
    """A member of the group `app.name`."""

    def __init__(self, config: Config, on_progress: Callable[[float], None]) -> None:
        self.config, self.on_progress = config, on_progress
        self.consumer = clients.group_consumer(config)
        self.assigned: set[Partition] = set()
        self.joined = False

    def close(self) -> None:
        """Leave. Closing revokes all partitions, and no other worker is to blame for that."""
        self.joined = False
        self.consumer.close()

    def wait_for_others(self, admin: AdminClient) -> None:
        """Join no group that another worker is in: it would lose its partitions and end."""
        name, deadline = self.config.app.name, time.monotonic() + JOIN_SECONDS
        told = ""
        while others := clients.other_members(admin, self.config):
            if time.monotonic() > deadline:
                raise Refused(
                    f"group {name} has another member ({', '.join(others)}). This version runs one "
                    "worker per app: stop that one, or use another app.name"
                )
            if told != (told := ", ".join(others)):
                log.info("waiting for %s to leave group %s, %g s at most", told, name, JOIN_SECONDS)
            for _ in range(20):
                self.on_progress(0.0)
                time.sleep(0.1)

    def join(self) -> None:
        """Subscribe, and wait until every partition of both topics is ours. Nothing is read yet."""
        topics = [self.config.topics.clicks, self.config.topics.vector_deltas]
        wanted = {(t, p) for t in topics for p in clients.partitions(self.consumer, t)}
        self.consumer.subscribe(
            topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        deadline = time.monotonic() + JOIN_SECONDS
        while self.assigned != wanted:
            self.on_progress(0.0)
            for message in self.consumer.consume(1, 0.1):
                checked(message)
            if time.monotonic() > deadline:
                missing = sorted(wanted - self.assigned)
                raise Refused(
                    f"{len(missing)} partitions ({missing[0][0]}[{missing[0][1]}] first) belong to "
                    f"another member of group {self.config.app.name}. This version runs one worker "
                    "per app: stop the other one, or wait until its session has ended"
                )
        self.joined = True

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.joined and partitions:
            raise WalkstreamError(
                f"the group handed over {_named(partitions)}, which was not there at the start: "
                "restart the worker, and it reads that too"
            )
        # Where to begin is known only after the restore, which seeks; until then nothing is read.
        # The end is an offset that always exists, should a fetch get ahead of the pause.
        self.assigned |= {(tp.topic, tp.partition) for tp in partitions}
        consumer.incremental_assign(
            [TopicPartition(tp.topic, tp.partition, OFFSET_END) for tp in partitions]
        )
        consumer.pause(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.joined:
            raise Fenced(
                f"the group took away {_named(partitions)}: another worker joined group "
                f"{self.config.app.name}. This version runs one worker per app"
            )
        self.assigned -= {(tp.topic, tp.partition) for tp in partitions}
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        raise Fenced(
            f"{_named(partitions)} was lost: the group's session ended without this worker"
        )

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        """Read on from these offsets of `clicks`, and the deltas from their ends."""
        for where in self.assigned - set(offsets):
            _, end = self.consumer.get_watermark_offsets(TopicPartition(*where), CALL_SECONDS)
            self.consumer.seek(TopicPartition(*where, end))
        for where, offset in offsets.items():
            self.consumer.seek(TopicPartition(*where, offset))
        self.consumer.resume([TopicPartition(*where) for where in self.assigned])

    def between(
        self, begin: Mapping[Partition, int], end: Mapping[Partition, int]
    ) -> Iterator[list[Message]]:
        """All clicks from `begin` up to `end`, in batches, in order within a partition.

        Leaves everything paused.
        """
        left = {where: stop for where, stop in end.items() if begin[where] < stop}
        total = max(1, sum(stop - begin[where] for where, stop in left.items()))
        read = 0
        for where in left:
            self.consumer.seek(TopicPartition(*where, begin[where]))
        self.consumer.resume([TopicPartition(*where) for where in left])
        while left:
            self.on_progress(min(1.0, read / total))
            batch = []
            for message in self.consumer.consume(10_000, 0.2):
                where, offset = partition_of(message), message.offset() or 0
                if checked(message).error() is None:
                    if offset < end[where]:
                        batch.append(message)
                    offset += 1
                # The last offsets may be markers of transactions: then only the end tells.
                if offset >= end.get(where, 0) and left.pop(where, None) is not None:
                    self.consumer.pause([TopicPartition(*where)])
            read += len(batch)
            yield batch

    def consume(self, n: int, timeout: float) -> list[Message]:
        """Up to n new clicks."""
        messages = self.consumer.consume(n, timeout)
        # Each question to a message costs: what is all well is asked in one go.
        if any(map(Message.error, messages)):
            messages = [message for message in messages if checked(message).error() is None]
        if others := set(map(Message.topic, messages)) - {self.config.topics.clicks}:
            names = ", ".join(sorted(map(str, others)))
            raise Refused(
                f"{names}: deltas of another worker came in, and this version runs one worker per "
                "app"
            )
        return messages

    def serve_rebalance(self, offsets: Mapping[Partition, int]) -> None:
        """Let the group finish a rebalance without reading on, before a commit is tried again."""
        self.consumer.pause([TopicPartition(*where) for where in self.assigned])
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for message in self.consumer.consume(1, 0.1):
                checked(message)
        self.begin(offsets)

    def lag(
        self, offsets: Mapping[Partition, int], ends: Mapping[Partition, int], all_taken: bool
    ) -> Iterator[tuple[Partition, int]]:
        """Records behind these offsets in each partition, as far as the consumer knows.

        `ends` are ends that are known from elsewhere. If `all_taken`, all that was consumed is
        before the offsets: then the consumer's position, which also gets past the markers of
        transactions, is as far as they are.
        """
        for tp in self.consumer.position([TopicPartition(*where) for where in offsets]):
            where = tp.topic, tp.partition
            _, end = self.consumer.get_watermark_offsets(TopicPartition(*where), cached=True)
            begin = max(offsets[where], tp.offset) if all_taken else offsets[where]
            yield where, max(0, max(end, ends[where]) - begin)


def columns(
    messages: Sequence[Message],
) -> tuple[list[bytes | None], list[bytes | None], list[int]]:
    """Keys, values and timestamps (ms, -1 for none) of records, as a `Decoder` takes them."""
    stamps = [stamp for _, stamp in map(Message.timestamp, messages)]
    return list(map(Message.key, messages)), list(map(Message.value, messages)), stamps


def offsets_after(messages: Sequence[Message]) -> dict[Partition, int]:
    """The next offset of each partition, when these records, in order, are taken."""
    partitions = zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
    last = dict(zip(partitions, map(Message.offset, messages), strict=True))
    return {(topic or "", partition or 0): (at or 0) + 1 for (topic, partition), at in last.items()}


def _named(partitions: list[TopicPartition]) -> str:
    first = f"{partitions[0].topic}[{partitions[0].partition}]"
    return first if len(partitions) == 1 else f"{first} and {len(partitions) - 1} more"
