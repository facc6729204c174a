"""The logs of what commits write: how far each is read, and what comes of it."""

from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer.kafka import clients
from streamer.kafka.clients import Partition, checked, is_unreadable, label, partition_of
from streamer.kafka.identity import Identity
from streamer.kafka.stalls import Stalls
from streamer.kafka.unreadable import read_alone
from streamer.kafka.waiting import Waiting
from streamer.settings.sections import Config

WRITTEN = ("model_state", "item_vectors", "transitions", "dead_letters", "user_vectors")
"""The topics that commits write to, by role; the last one where there are vectors of users."""


class Logs:
    """Reads partitions of these topics, those that it is told to."""

    def __init__(
        self, config: Config, now: Identity, admin: AdminClient, beat: Callable[[], None]
    ) -> None:
        self.config, self.admin, self.beat = config, admin, beat
        consumer = clients.reading_consumer(config, "readback")
        self.model_state, self.dead_letters = config.topics.model_state, config.topics.dead_letters
        there = [(role, now.topics[role]) for role in WRITTEN if role in now.topics]
        topics = {str(getattr(config.topics, role)): layout for role, layout in there}
        self.consumer = clients.look_up(consumer, topics)
        self.ids = {topic: layout.id for topic, layout in topics.items()}
        self.where = [(t, p) for t, layout in topics.items() for p in range(layout.partitions)]
        self.counts = {topic: layout.partitions for topic, layout in topics.items()}
        self.vectors = {config.topics.item_vectors, config.topics.user_vectors} & {*topics}
        self.at: dict[Partition, int] = {}
        """The next offset of each partition: nothing before it is of a commit that was not looked
        at."""
        self.followed: set[Partition] = set()
        """The partitions that are read."""
        self.reached: dict[Partition, int] = {}
        self._stalls, self._took_all = Stalls(config, admin, beat), True

    def close(self) -> None:
        self.consumer.close()

    def assign(self, starts: Mapping[Partition, int]) -> None:
        """Read these partitions, and no others, from here on."""
        self.at |= starts
        self.followed, self.reached = set(starts), {}
        self.consumer.assign([TopicPartition(*p, offset) for p, offset in starts.items()])

    def arrived(self, timeout: float) -> Iterator[tuple[Partition, Message]]:
        """The records that came, each with its partition."""
        messages = self.consumer.consume(10_000, timeout)
        self._took_all = len(messages) < 10_000
        for message in messages:
            partition, offset = partition_of(message), message.offset() or 0
            if partition[0] == self.dead_letters and is_unreadable(message.error()):
                # What else came with it is read again.
                found = read_alone(self.config, partition, self.at[partition], message, self.beat)
                yield from ((partition, one) for one in found.messages if one.error() is None)
                anew = clients.reading_consumer(self.config, "readback")
                self.consumer = clients.anew(self.consumer, anew)
                at = {p: self.at[p] for p in self.followed}
                self.assign(at | {partition: found.next})
                return
            if checked(message).error() is not None:
                self.reached[partition] = offset
            else:
                self.at[partition] = offset + 1
                yield partition, message

    def read(
        self, starts: Mapping[Partition, int], stops: Mapping[Partition, int]
    ) -> Iterator[tuple[Partition, Message]]:
        """All that is committed between these offsets. `stops` may come nearer meanwhile."""
        self.assign(starts)
        waiting = Waiting()
        while self.lagging({p: stops[p] for p in starts}):
            self.beat()
            for partition, message in self.arrived(clients.POLL_SECONDS):
                if (message.offset() or 0) < stops[partition]:
                    yield partition, message
            waiting.look({p: self.at[p] for p in starts}, self.reached, stops)

    def behind(self, partition: Partition) -> int:
        """The offset behind all that was read, and behind markers of transactions that follow. What
        is before it may be gone."""
        return max(self.at[partition], self.reached.get(partition, 0))

    def lagging(self, ends: Mapping[Partition, int]) -> str:
        """Some of the partitions that are not read up to these offsets; nothing if all are."""
        late = [p for p, end in ends.items() if self.behind(p) < end]
        return ", ".join(f"{label(p)} is at {self.at[p]} of {ends[p]}" for p in late[:3])

    def look_for_stalls(self) -> None:
        """To be called after a look at what arrived."""
        if self._took_all:
            self._stalls.look({p: self.behind(p) for p in self.followed})
