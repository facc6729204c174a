"""The tail of `items` and `model-state`, with which the state folder is kept level."""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from numpy.typing import NDArray

from core.rows import fits, from_values
from streamer.decode.deadletter import DeadLetter
from streamer.errors import Refused
from streamer.kafka import clients
from streamer.kafka.clients import (
    Partition,
    checked,
    is_unreadable,
    label,
    partition_name,
    partition_of,
)
from streamer.kafka.stalls import Stalls
from streamer.kafka.unreadable import read_alone, verdict_on
from streamer.kafka.waiting import OpenTransactions, Waiting
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state import store as stores
from streamer.state.store import Store
from streamer.worker.arrived import Arrived
from streamer.worker.kept import Read
from streamer.worker.later import Later
from streamer.worker.news import News, news_of, stamp
from streamer.worker.sequence import Commits
from streamer.worker.strangers import Strangers

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""A folder that nothing happens to says so often that it is level with Kafka: by that its age
counts, and brokers that were away for longer would have ended the worker."""

QUEUED = 10_000
"""News of items that are read ahead: more of them wait in their topic."""


class Tail:
    """Reads `items` and `model-state` to their ends and keeps the state folder level with them."""

    def __init__(
        self, config: Config, store: Store, consumer: Consumer,
        beat: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.config, self.store, self.consumer, self.beat = config, store, consumer, beat
        topics, has_users = config.topics, config.has_users
        watched = (topics.items, topics.model_state, *[topics.user_vectors] * has_users)
        self.watched = [(t, p) for t in watched for p in clients.partitions(consumer, t)]
        self.offsets = dict.fromkeys(self.watched, 0)
        self.reached = dict.fromkeys(self.watched, -1)
        self.applied = time.monotonic()
        """When the folder last said that it is level with Kafka, by the monotonic clock."""
        self.forgotten = frozenset[bytes]()
        """Keys of the users whose clicks do not count; another object once it is another list."""
        self.on_read: Callable[[Read], None] = lambda read: None
        """Told of all that the folder has taken in."""
        self.queue: deque[News] = deque()
        """What was read of `items`, and no round has taken yet."""
        self.later = Later(store)
        self._paused = False
        self._open = OpenTransactions()
        self.commits = Commits(f"{config.topics.model_state}[0]", config.app.instance)
        self.strangers = Strangers()
        self._own = records.manifest_key(config.app.instance)

    @property
    def header_from(self) -> int:
        """The offset of `model-state` behind which no header was read yet."""
        first = self.config.topics.model_state, 0
        return max(self.offsets[first], self.reached[first])

    def close(self) -> None:
        self.consumer.close()

    @property
    def _of_items(self) -> list[Partition]:
        return [p for p in self.watched if p[0] == self.config.topics.items]

    @property
    def of_workers(self) -> list[Partition]:
        """Those that commits write to."""
        return [p for p in self.watched if p[0] != self.config.topics.items]

    def start(self, admin: AdminClient, void: Collection[str] = ()) -> None:
        """Know where to read on. Of the topics in `void` the folder's offsets mean nothing."""
        self._stalls = Stalls(self.config, admin, self.beat)
        begins, ends = clients.begins(admin, self.watched), clients.ends(admin, self.watched)
        self._begins = begins
        stored = {p: o for p, o in self.store.tail_offsets().items() if p[0] not in void}
        self.forgotten = self.store.forgotten()
        for partition in self.watched:
            self.offsets[partition] = stored.get(partition, begins[partition])
            if self.offsets[partition] > ends[partition]:
                raise stores.Ahead(
                    f"it holds {label(partition)} up to offset {self.offsets[partition]}, and "
                    f"the log ends at {ends[partition]}"
                )

    def catch_up(
        self, admin: AdminClient, on_progress: Callable[[float], None], items: bool = True
    ) -> None:
        """Read `model-state` to what is the end now, uncommitted records included, and of `items`
        what commits have taken in, unless that is not sure yet. What lies behind that is for
        `take`."""
        ends = clients.ends(admin, self.of_workers)
        # Rows of any partition are readable only once the header, in partition 0, was read; and
        # only the header says that records of users under a former name of the app are its own.
        space, first = self.store.space, (self.config.topics.model_state, 0)
        if space is None or space.app != self.config.app.name:
            self._read_to({first: ends[first]}, lambda share: None)
        self._read_to(ends, on_progress)
        if items:
            self._read_to(self._taken(admin), lambda share: None)
        self.strangers.judge()
        self._assign(self.watched)

    def _taken(self, admin: AdminClient) -> dict[Partition, int]:
        """What commits have taken in of each partition of `items`. Refused where that is gone."""
        taken, ends = self.store.items_taken(), clients.ends(admin, self._of_items)
        for partition, end in ends.items():
            if taken.get(partition, 0) > end:
                raise Refused(
                    f"{label(partition)}: taken in up to offset {taken[partition]}, and the log "
                    f"ends at {end}: the topic was emptied, or lost what it had acknowledged. Run "
                    "`walkstream reset --topics`, and all is learned anew"
                )
        return {p: taken[p] for p in ends if p in taken}

    def _read_to(self, ends: Mapping[Partition, int], on_progress: Callable[[float], None]) -> None:
        """Apply all up to these offsets, and what comes along with it."""
        begins = {p: self.offsets[p] for p in ends}
        total = max(1, sum(end - begins[p] for p, end in ends.items()))
        waiting = Waiting()
        self._assign(ends)
        while any(max(self.offsets[p], self.reached[p]) < end for p, end in ends.items()):
            self.poll(clients.POLL_SECONDS)
            self._fill(ends)
            waiting.look({p: self.offsets[p] for p in ends}, self.reached, ends)
            on_progress(min(1.0, sum(self.offsets[p] - begins[p] for p in ends) / total))
        self.later.flush()

    def _assign(self, partitions: Iterable[Partition]) -> None:
        self.queue.clear()
        for partition in partitions:
            if partition[0] == self.config.topics.items:
                # What was read and not taken is read again.
                taken = self.store.items_taken().get(partition, self.offsets[partition])
                self.offsets[partition] = min(self.offsets[partition], taken)
        self._paused = False
        self.consumer.assign([TopicPartition(*p, self.offsets[p]) for p in partitions])

    def _fill(self, taken: Mapping[Partition, int]) -> None:
        """Give the folder the attributes that commits have taken in before."""
        known = [one for one in self.queue if one.offset < taken.get(one.partition, 0)]
        if known:
            self.store.write_entries(
                {
                    "attributes": [
                        (one.item.encode(), one.value) for one in known if one.letter is None
                    ],
                    "meta": [
                        _offset_entry(p, min(self.offsets[p], end)) for p, end in taken.items()
                    ],
                }
            )
        self.queue.clear()

    def take(self, most: int, until: int | None = None) -> list[News]:
        """The next news of items, at most so many, and only what is dated up to `until` (ms)."""
        out: list[News] = []
        while self.queue and len(out) < most:
            if until is not None and self.queue[0].stamp > until:
                break
            out.append(self.queue.popleft())
        return out

    def is_at(self, ends: Mapping[Partition, int]) -> bool:
        """Whether all before these offsets was applied."""
        return all(max(self.offsets[p], self.reached[p]) >= end for p, end in ends.items())

    def read_items_again(self) -> None:
        """Read once more what no commit of the worker that takes items in has taken."""
        taken, at = self.store.items_taken(), self.items_offsets()
        self.offsets |= {p: min(at[p], taken.get(p, self._begins[p])) for p in at}
        self._assign(self.watched)

    def items_offsets(self) -> dict[Partition, int]:
        """Next offset of each partition of `items`: what is before it was taken."""
        out = {p: self.offsets[p] for p in self._of_items}
        for one in self.queue:
            out[one.partition] = min(out[one.partition], one.offset)
        return out

    def read_items(self, admin: AdminClient) -> None:
        """Read `items` to what is the end now, as far as there is room for it."""
        ends = clients.ends(admin, self._of_items)
        while len(self.queue) < QUEUED and any(
            max(self.offsets[p], self.reached[p]) < end for p, end in ends.items()
        ):
            self.beat()
            self.poll(clients.POLL_SECONDS)

    def poll(self, timeout: float = 0.0) -> None:
        """Apply what has arrived of `model-state`, and queue what has of `items`."""
        self._pause()
        messages = self.consumer.consume(10_000, timeout)
        if messages:
            arrived = Arrived(self.config, self.store, self.commits, self.strangers, self.later)
        items, lost = self.config.topics.items, None
        for partition, run in _by_partition(messages):
            if any(map(Message.error, run)):
                run, lost = self._without_events(partition, run)
            if run:
                self.offsets[partition] = (run[-1].offset() or 0) + 1
            if partition[0] == items:
                self.queue += [news_of(message, self.config.items.use) for message in run]
            else:
                arrived.take(partition, run)
            if lost is not None:
                self._get_past(lost)
                break
        if self.commits.is_level and len(messages) < 10_000:
            # What is paused is not read.
            looked = self.of_workers if self._paused else self.watched
            self._stalls.look({p: max(self.offsets[p], self.reached[p]) for p in looked})
            self._tell_what_waits()
        if messages:
            self._apply(arrived)
            if self.commits.is_level:
                self.strangers.judge()
        elif time.monotonic() - self.applied > IDLE_SECONDS and self._at_the_ends():
            self.applied = time.monotonic()
            self.store.write_entries({"meta": [stores.applied_now()]})
        if self.later.is_due:
            self.later.flush()

    def _without_events(
        self, partition: Partition, run: list[Message]
    ) -> tuple[list[Message], Message | None]:
        """The records of a run in which there is something else, up to one that stands for what
        cannot be fetched, and that."""
        out: list[Message] = []
        for message in run:
            error = message.error()
            if error is None:
                out.append(message)
            # Records of `items` may be lost. Of `model-state` none can be missing.
            elif partition[0] == self.config.topics.items and is_unreadable(error):
                return out, message
            else:
                self.reached[partition] = checked(message).offset() or 0
        return out, None

    def _tell_what_waits(self) -> None:
        """Say of `items` which open transaction holds back what lies there."""
        at = {p: self.offsets[p] for p in self._of_items}
        watermarks = {
            p: self.consumer.get_watermark_offsets(TopicPartition(*p), cached=True) for p in at
        }
        until = {p: max(at[p], end) for p, (_, end) in watermarks.items()}
        self._open.announce(at, self.reached, until)

    def _pause(self) -> None:
        """Read no more of `items` than there is room for."""
        full = len(self.queue) >= QUEUED
        if full != self._paused:
            assigned = {(tp.topic, tp.partition) for tp in self.consumer.assignment()}
            which = [TopicPartition(*p) for p in self._of_items if p in assigned]
            (self.consumer.pause if full else self.consumer.resume)(which)
            self._paused = full

    def _at_the_ends(self) -> bool:
        """Whether all that was there is in the folder, as of the last word of the brokers."""
        return all(self.reached[p] >= self.offsets[p] for p in self.watched)

    def _get_past(self, message: Message) -> None:
        """Read on behind a batch that cannot be fetched; what was read after it comes again."""
        partition = partition_of(message)
        found = read_alone(self.config, partition, self.offsets[partition], message, self.beat)
        for one in found.messages:
            error = one.error()
            if error is None:
                self.queue.append(news_of(one, self.config.items.use))
            else:
                letter = DeadLetter.of(one, verdict_on(error))
                self.queue.append(News(partition, one.offset() or 0, stamp(one), letter=letter))
        self.offsets[partition] = found.next
        assigned = [(tp.topic, tp.partition) for tp in self.consumer.assignment()]
        self.consumer = clients.anew(self.consumer, clients.tail_consumer(self.config))
        self.consumer.assign([TopicPartition(*where, self.offsets[where]) for where in assigned])
        self._paused = False

    def _apply(self, arrived: Arrived) -> None:
        self.applied = time.monotonic()
        self.forgotten = arrived.forgotten_after(self.forgotten)
        rows, meta = arrived.rows, arrived.meta
        if records.SPACE in meta:
            header = meta.pop(records.SPACE) or b""
            topic = self.config.topics.model_state
            msgspec.msgpack.decode(header, type=records.Space).check_format(topic)
            self.store.write_entries({"meta": [(records.SPACE, header)]})
        meta |= dict([stores.applied_now()])
        packed = self._pack(rows) if rows else None
        # They say that rows of other workers are there, which wait.
        said = [
            k for k in meta if k.startswith((records.VERSION, records.MANIFEST)) and k != self._own
        ]
        later = {key: meta.pop(key) for key in said}
        # What is refused now has to be met again, by the start that repairs it.
        at = [(where, self.offsets[where]) for where in self.of_workers]
        later |= [_offset_entry(p, self.strangers.first_of(p, offset)) for p, offset in at]
        families = arrived.families()
        self.store.write_entries({name: entries.items() for name, entries in families.items()})
        self.later.add({k: m.value() or b"" for k, m in rows.items()}, arrived.gone, later)
        self.on_read(Read(list(rows), packed, list(arrived.gone), meta))

    def _pack(self, rows: dict[bytes, Message]) -> NDArray[np.void]:
        """The rows that these records hold. Those that hold none are taken out, or refused."""
        if self.store.space is None:
            self.strangers.judge()  # it may be that the header is one of them
        dtype = self.store.dtype
        try:
            return from_values([message.value() or b"" for message in rows.values()], dtype)
        except ValueError:
            for key, message in list(rows.items()):
                if not fits(message.value() or b"", dtype):
                    self.strangers.add(rows.pop(key))
        return from_values([message.value() or b"" for message in rows.values()], dtype)


def _by_partition(messages: Sequence[Message]) -> Iterator[tuple[Partition, list[Message]]]:
    """Messages, in order, as runs of those that follow each other in a partition."""
    places = zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
    for (topic, number), run in groupby(zip(places, messages, strict=True), itemgetter(0)):
        yield (topic or "", number or 0), [message for _, message in run]


def _offset_entry(partition: Partition, offset: int) -> stores.Entry:
    """What the folder says of how far it has a partition."""
    return stores.TAIL + partition_name(partition).encode(), msgspec.msgpack.encode(offset)
