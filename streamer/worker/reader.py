"""The one reader of `clicks`, and the one holder of the position in it.

Each record has the offset that is expected, or the log explains the gap: markers of transactions
and aborted batches have offsets, and no consumer is given them. A gap is believed when a fresh
consumer, which begins where the gap begins, sees the same record behind it. Anything else ends
the process before it is committed: a client that jumps would lose clicks, one that falls back
would count them twice, and neither says a word.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from confluent_kafka import KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from core.clicks import Clicks
from streamer.decode.events import Decoded
from streamer.errors import WalkstreamError
from streamer.kafka import clients, unreadable
from streamer.kafka.clients import Partition, checked, is_unreadable, label, partition_of
from streamer.kafka.failures import gone
from streamer.kafka.stalls import Stalls
from streamer.kafka.waiting import OpenTransactions
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

MAX_ROUND_BYTES = 1_000_000
"""Records of a round together: long ones carry many clicks, and all of them may be bad."""
MARKERS = 8
"""So many offsets may be those of markers, where a gap of this kind was looked into before."""


class Reader:
    """Reads partitions of `clicks` from where it is told to begin, each record once, in order.

    It is assigned at offsets, and it never seeks: a seek that comes before a late answer of the
    broker is overrun by that. `beat` is called while it waits.
    """

    def __init__(self, config: Config, admin: AdminClient, beat: Callable[[], None]) -> None:
        self.config, self.beat = config, beat
        self.consumer = clients.look_up(clients.reading_consumer(config), [config.topics.clicks])
        self.expected: dict[Partition, int] = {}
        """The next offset of each partition: all before it were returned, or are no records."""
        self.waiting: list[Message] = []
        """Records that were returned, and put back."""
        self._ends: dict[Partition, int] = {}
        """Where what can be read ended, when the client said so the last time."""
        self._waits = OpenTransactions()
        self._stalls = Stalls(config, admin, beat)
        self._has_markers: set[Partition] = set()
        self._behind: dict[tuple[Partition, int], int] = {}
        """The offset behind what stands for a batch that cannot be fetched, by where it stands."""

    def close(self) -> None:
        self.consumer.close()

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        """Read from these offsets on, and nothing else; what was put back is forgotten."""
        self.waiting = []
        self.expected = dict(offsets)
        self._assign(offsets)

    def _assign(self, partitions: Iterable[Partition]) -> None:
        """Fetch these from where they are expected, and nothing else."""
        self._ends.clear()
        self._has_markers.clear()
        self.consumer.assign([TopicPartition(*where, self.expected[where]) for where in partitions])

    def put_back(self, messages: list[Message]) -> None:
        """The next call of `consume` returns these first."""
        self.waiting = messages + self.waiting

    def consume(self, n: int, timeout: float) -> list[Message]:
        """Up to n records. One with an error stands for a batch that cannot be fetched."""
        if self.waiting:
            out, self.waiting = self.waiting[:n], self.waiting[n:]
            return out
        messages = self.consumer.consume(n, timeout)
        if len(messages) < n:
            self._stalls.look(self.expected)
            # Only here: a worker that is busy asks for nothing, and waits for nobody.
            self._waits.announce(self.expected, self._ends, dict(self._known_ends(self.expected)))
        # Each question to a message costs: what is all well is asked in one go.
        if any(map(Message.error, messages)):
            return self._without_events(messages)
        self._check(messages)
        return messages

    def after(self, messages: Sequence[Message]) -> dict[Partition, int]:
        """The next offset of each partition, when these records, in order, are taken."""
        last = dict(zip(map(Message.partition, messages), messages, strict=True))
        out = {}
        for message in last.values():
            where, offset = partition_of(message), message.offset() or 0
            out[where] = self._behind.get((where, offset), offset + 1)
        return out

    def lag(
        self, offsets: Mapping[Partition, int], ends: Mapping[Partition, int], all_taken: bool
    ) -> Iterator[tuple[Partition, int]]:
        """Records behind these offsets in each partition, as far as the consumer knows.

        `ends` are ends that are known from elsewhere. If `all_taken`, all that was consumed is
        before the offsets: then the position, which also gets past the markers of transactions,
        is as far as they are.
        """
        for where, end in self._known_ends(offsets):
            offset = offsets[where]
            begin = max(offset, self.expected[where]) if all_taken else offset
            yield where, max(0, max(end, ends[where]) - begin)

    def _known_ends(self, partitions: Iterable[Partition]) -> Iterator[tuple[Partition, int]]:
        """The end of each partition as of the last answer to a fetch; negative before the first."""
        for where in partitions:
            _, end = self.consumer.get_watermark_offsets(TopicPartition(*where), cached=True)
            yield where, end

    # -- what came -------------------------------------------------------------------------------

    def _without_events(self, messages: list[Message]) -> list[Message]:
        """The records among messages of which some are none; what those say is done."""
        out: list[Message] = []
        run: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                run.append(message)
                continue
            self._check(run)
            out += run
            run = []
            where = partition_of(message)
            if error.code() == KafkaError._PARTITION_EOF:
                self._follow(where, message.offset() or 0, is_end=True)
                self._ends[where] = message.offset() or 0
            elif is_unreadable(error):
                # The position is set anew: what came after this, of all partitions, comes again.
                return out + self._read_alone(where, message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET and where in self.expected:
                raise gone(label(where), self.expected[where])
            else:
                checked(message)
        self._check(run)
        return out + run

    def _check(self, messages: list[Message]) -> None:
        """Take notice of records, in order, whose offsets are as expected or explained."""
        if not messages:
            return
        numbers = np.array(list(map(Message.partition, messages)))
        offsets = np.array(list(map(Message.offset, messages)))
        breaks = np.flatnonzero((numbers[1:] != numbers[:-1]) | (offsets[1:] - offsets[:-1] != 1))
        topic = self.config.topics.clicks
        for first, behind in pairwise([0, *(breaks + 1).tolist(), len(messages)]):
            where = topic, int(numbers[first])
            self._follow(where, int(offsets[first]))
            self.expected[where] = int(offsets[behind - 1]) + 1

    def _follow(self, where: Partition, offset: int, is_end: bool = False) -> None:
        """Go on to this offset, of a record or of the end of what can be read, if that is right."""
        expected = self.expected[where]
        if offset < expected:
            raise WalkstreamError(
                f"{label(where)}: the Kafka client went back to offset {offset} after offset "
                f"{expected - 1}: clicks would count twice. Nothing of this is committed. Restart "
                "the worker: it reads on from its last commit. If it comes again, the log was "
                "truncated, or the client has a fault: keep this line for a report"
            )
        gap = offset - expected
        if gap > MARKERS or (gap and where not in self._has_markers):
            self._look_again(where, expected, offset, is_end)
            self._has_markers.add(where)
        self.expected[where] = offset

    def _look_again(self, where: Partition, expected: int, offset: int, is_end: bool) -> None:
        """WalkstreamError unless a fresh consumer goes from `expected` to this offset as well."""
        witness = clients.reading_consumer(self.config, "witness")
        first = unreadable.first_at(witness, where, expected, self.beat)
        error, seen = first.error(), first.offset() or 0
        if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise gone(label(where), self.expected[where])
        # The end moves on; a record does not.
        if seen == offset if not is_end else seen >= offset:
            log.debug("%s: %d to %d are no records", label(where), expected, offset - 1)
            return
        what = "reads to the end of the log at" if error is not None else "finds a record at"
        raise WalkstreamError(
            f"{label(where)}: the Kafka client went from offset {expected} to {offset}, and a "
            f"second look {what} offset {seen}: clicks would be lost. Nothing of this is "
            "committed. Restart the worker: it reads on from its last commit. If it comes again, "
            "the client has a fault: keep this line for a report"
        )

    def _read_alone(self, where: Partition, message: Message) -> list[Message]:
        """What could not be fetched with the rest, and reading on behind it."""
        expected = self.expected[where]
        found = unreadable.read_alone(self.config, where, expected, message, self.beat)
        for one in found.messages:
            if one.error() is not None:
                self._behind[where, one.offset() or 0] = found.next
        self.expected[where] = found.next
        assigned = [(tp.topic, tp.partition) for tp in self.consumer.assignment()]
        self.consumer = clients.anew(self.consumer, clients.reading_consumer(self.config))
        self._assign(assigned)
        return found.messages


def columns(
    messages: Sequence[Message],
) -> tuple[list[bytes | None], list[bytes | None], list[int]]:
    """Keys, values and timestamps (ms, -1 for none) of records, as a `Decoder` takes them."""
    stamps = [stamp for _, stamp in map(Message.timestamp, messages)]
    return list(map(Message.key, messages)), list(map(Message.value, messages)), stamps


def full(messages: Sequence[Message], limit: int) -> int | None:
    """How many of these records make a full round, of at most `limit`; None if they make none.

    It depends on the records alone, so that rounds by count are the same in every life.
    """
    room = MAX_ROUND_BYTES
    for size, value in enumerate(map(Message.value, messages[:limit]), 1):
        room -= len(value or b"")
        if room <= 0:
            return size
    return limit if len(messages) >= limit else None


def placed(decoded: Decoded, messages: Sequence[Message]) -> Clicks:
    """The clicks, each with the partition and the offset of its record."""
    partitions = np.fromiter(map(Message.partition, messages), np.int32, len(messages))
    offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
    at = decoded.records
    return replace(decoded.clicks, partitions=partitions[at], offsets=offsets[at])
