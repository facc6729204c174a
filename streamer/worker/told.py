"""The log of what happened, as all workers read it: `transitions`, from one end of it to the other.

Where several workers take clicks, none of them knows what the others take. Each writes its own as
they came, and folds all of them in the order in which they stand here: so graphs, counts and
sessions are the same for all that are at the same place.
"""

from collections import deque
from typing import NamedTuple

from confluent_kafka import TopicPartition

from core.rounds import Evidence
from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import checked, label
from streamer.settings.sections import Config
from streamer.state import evidence
from streamer.state.commits import Mark, mark_of

READ_AHEAD = 200
"""Records that are read at a time."""
ENOUGH = 20_000
"""Clicks that wait to be folded: no more is read before."""


class Told(NamedTuple):
    """What the log says of one commit at one place: a record, or all those of one number."""

    end: int
    """The offset behind it."""
    mark: Mark
    number: int
    rounds: list[Evidence]
    packed: list[bytes]
    stamp: int
    """Timestamp of the record, ms."""

    @property
    def clicks(self) -> int:
        return sum(len(one.clicks) for one in self.rounds)


class Log:
    """Reads `transitions` from where the engine is."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.where = config.topics.transitions, 0
        consumer = clients.reading_consumer(config, "log")
        self.consumer = clients.look_up(consumer, [config.topics.transitions])
        self.number = 0
        """Of the newest evidence that is in the engine."""
        self.at = 0
        """The next offset: all before it is in the engine."""
        self._whole: deque[Told] = deque()
        self._part: Told | None = None
        """What was read last, if more of its number may follow."""
        self._number = self._known = 0
        """The number of the last record that was read; and up to which this worker has decided
        itself what stands behind `at`."""
        self._reached = -1
        self.waiting = 0
        """Clicks that were read, and are not folded."""

    def close(self) -> None:
        self.consumer.close()

    def begin(self, at: int, number: int, known: int = 0) -> None:
        """Go on at this offset, behind the evidence with this number. What was decided up to number
        `known` stands behind it, and is in the engine."""
        self._whole.clear()
        self._part, self.waiting, self._reached = None, 0, -1
        self.at, self._known = at, known
        self.number = self._number = number
        self.consumer.assign([TopicPartition(*self.where, at)])

    def rest(self) -> None:
        """Read nothing, as nobody else writes."""
        self.consumer.unassign()

    def is_at(self, end: int) -> bool:
        """Whether all before this offset is in the engine."""
        return self.behind >= end

    @property
    def lag(self) -> int:
        """Records that are not folded, as of the last answer of the broker."""
        where = TopicPartition(*self.where)
        return max(0, self.consumer.get_watermark_offsets(where, cached=True)[1] - self.behind)

    @property
    def behind(self) -> int:
        """Where it is, behind what is no record, too."""
        is_empty = not self._whole and self._part is None
        return max(self.at, self._reached) if is_empty else self.at

    @property
    def has_more(self) -> bool:
        """Whether something was read, and is not folded."""
        self._fill()
        return bool(self._whole)

    def next(self) -> Told | None:
        """What comes next; the caller folds it at once."""
        self._fill()
        if not self._whole:
            return None
        told = self._whole.popleft()
        self.at, self.number = told.end, told.number
        self.waiting -= told.clicks
        return told

    def _fill(self) -> None:
        if self.waiting >= ENOUGH:
            return
        for message in self.consumer.consume(READ_AHEAD, 0.0):
            offset = message.offset() or 0
            if checked(message).error() is not None:
                # All records of a transaction can be read at once: so nothing of it is missing.
                self._reached = offset
                self._end_part()
                continue
            value, mark = message.value(), mark_of(message)
            if value is None or mark is None or mark.app != self.config.app.name:
                continue  # who reads commits back tells of it
            self._add(offset, value, mark, message.timestamp()[1])

    def _add(self, offset: int, value: bytes, mark: Mark, stamp: int) -> None:
        record = evidence.unpack(value)
        if record.is_decided and record.commit <= self._known:
            return
        part, one = self._part, record.after(self._number)
        if one.before != self._number:
            raise WalkstreamError(
                f"{label(self.where)}: the record at offset {offset} has number {one.commit} and "
                f"follows on {one.before}, and the one before it has {self._number}: evidence is "
                "missing, or two workers took themselves for the only one. Start this worker "
                "again: it folds what the log has. If it comes again, keep this line for a report"
            )
        self.waiting += sum(len(each.clicks) for each in one.rounds)
        self._number = one.commit
        if part is not None and part.number == one.commit:
            rounds, packed = [*part.rounds, *one.rounds], [*part.packed, value]
            self._part = part._replace(end=offset + 1, rounds=rounds, packed=packed)
            return
        self._end_part()
        self._part = Told(offset + 1, mark, one.commit, one.rounds, [value], stamp)
        if not record.is_decided:
            self._end_part()

    def _end_part(self) -> None:
        if self._part is not None:
            self._whole.append(self._part)
            self._part = None
