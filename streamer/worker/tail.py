"""The tail of `items` and `model-state`, with which the state folder is kept level."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from numpy.typing import NDArray

from core.rows import from_values, is_packed, version_of
from streamer import records
from streamer import store as stores
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Bad, Invalid, attribute_tokens, decode_item
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, checked, is_unreadable, label, partition_of
from streamer.kafka.stalls import Stalls
from streamer.kafka.unreadable import read_alone, verdict_on
from streamer.kafka.waiting import Waiting, between
from streamer.model_state import STOP_IT, is_ours, no_workers, order
from streamer.settings.sections import Config
from streamer.store import Store

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""A folder that nothing happens to says so often that it is level with Kafka: by that its age
counts, and brokers that were away for longer would have ended the worker."""

Attributes = list[tuple[str, Sequence[str] | None]]


class Described(NamedTuple):
    """What a record of `items` says of one item: JSON of its attributes, None if it is retired."""

    value: bytes | None
    partition: int
    offset: int


class Tail:
    """Reads `items` and `model-state` to their ends and keeps the state folder level with them."""

    def __init__(
        self, config: Config, store: Store, consumer: Consumer,
        beat: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.config, self.store, self.consumer, self.beat = config, store, consumer, beat
        watched = (config.topics.items, config.topics.model_state)
        self.watched = [(t, p) for t in watched for p in clients.partitions(consumer, t)]
        self.offsets = dict.fromkeys(self.watched, 0)
        self.reached = dict.fromkeys(self.watched, -1)
        self.applied = time.monotonic()
        """When the folder last said that it is level with Kafka, by the monotonic clock."""
        self.forgotten: set[bytes] = set()
        """Keys of the users whose clicks do not count."""
        self.bad: list[tuple[Partition, int, DeadLetter]] = []
        """Partition and offset of unusable records of `items` that no commit has passed."""
        self.doubtful: int | None = None
        """The first commit that is not whole: nothing of it or of later ones is taken."""
        self.commit: int | None = None
        """The newest commit whose manifest was read."""
        self.is_level = False
        """Whether `commit` was the newest of all when the worker began."""
        self.strange: dict[bytes, Message] = {}
        """The newest records of their keys in `model-state` that no worker wrote."""
        self.overwritten: list[Message] = []
        """Those of `strange` that a repair is to write over."""
        self.repairs = False
        """Whether what is no row is passed over, as a repair writes over it."""

    @property
    def header_from(self) -> int:
        """The offset of `model-state` behind which no header was read yet."""
        first = self.config.topics.model_state, 0
        return max(self.offsets[first], self.reached[first])

    def close(self) -> None:
        self.consumer.close()

    def start(self, admin: AdminClient, void: Collection[str] = ()) -> None:
        """Know where to read on. Of the topics in `void` the folder's offsets mean nothing."""
        self._stalls = Stalls(self.config, admin, self.beat)
        begins = clients.begins(admin, self.watched)
        stored = {p: o for p, o in self.store.tail_offsets().items() if p[0] not in void}
        ends = clients.ends(admin, self.watched)
        taken, self.forgotten = self.store.items_taken(), self.store.forgotten()
        for partition in self.watched:
            self.offsets[partition] = stored.get(partition, begins[partition])
            if partition[0] == self.config.topics.items:
                # What no commit has taken in may hold bad records; reading twice does no harm.
                first = begins[partition]
                if partition[0] not in void:
                    first = taken.get(partition, first)
                self.offsets[partition] = min(self.offsets[partition], first)
            if self.offsets[partition] > ends[partition]:
                raise stores.Ahead(
                    f"it holds {label(partition)} up to offset {self.offsets[partition]}, and "
                    f"the log ends at {ends[partition]}"
                )

    def catch_up(self, admin: AdminClient, on_progress: Callable[[float], None]) -> Attributes:
        """Read to what is the end now, uncommitted records included; returns what items changed."""
        ends = clients.ends(admin, self.watched)
        begins = dict(self.offsets)
        total = max(1, sum(ends[partition] - begins[partition] for partition in self.watched))
        out: Attributes = []
        waiting = Waiting()
        # Rows of any partition are readable only once the header, in partition 0, was read.
        header = [] if self.store.space else [(self.config.topics.model_state, 0)]
        for partitions in filter(None, (header, self.watched)):
            self.consumer.assign([TopicPartition(t, p, self.offsets[t, p]) for t, p in partitions])
            while any(max(self.offsets[p], self.reached[p]) < ends[p] for p in partitions):
                out += self.poll(0.2)
                waiting.look({p: self.offsets[p] for p in partitions}, self.reached, ends)
                on_progress(
                    min(1.0, sum(self.offsets[p] - begins[p] for p in self.watched) / total)
                )
        # What commits have passed on is known only now, that model-state is read as well.
        taken = self.store.items_taken()
        self.bad = [bad for bad in self.bad if bad[1] >= taken.get(bad[0], 0)]
        self._judge_strange()
        return out

    def poll(self, timeout: float = 0.0) -> Attributes:
        """Apply what has arrived; returns the items whose attributes changed, with their tokens."""
        rows: dict[bytes, Message] = {}
        gone: dict[bytes, int] = {}
        meta: dict[bytes, bytes | None] = {}
        described: dict[bytes, Described] = {}
        out: Attributes = []
        messages = self.consumer.consume(10_000, timeout)
        lost = next((at for at, m in enumerate(messages) if self._is_lost(m)), len(messages))
        # A version record lies behind all rows of its commit, so what it covers was applied. But
        # for this, a row that has left would be back in the folder until its tombstone is read.
        applied = self.store.versions() if messages else {}
        for message in map(checked, messages[:lost]):
            partition = message.topic() or "", message.partition() or 0
            offset = message.offset() or 0
            if message.error() is not None:
                self.reached[partition] = offset
                continue
            self.offsets[partition] = offset + 1
            key, value = message.key(), message.value()
            if partition[0] == self.config.topics.items:
                out += self._describe(message, described)
            elif key is None:
                continue
            elif records.is_malformed(key):
                self.strange.pop(key, None)
                if value is not None:
                    self.strange[key] = message
                else:  # a folder of an older version may have it
                    meta[key] = None
            elif key.startswith(records.FORGOTTEN):
                meta[key] = value
                (self.forgotten.add if value is not None else self.forgotten.discard)(key)
            elif self._is_doubtful(message):
                continue
            elif not records.is_row(key):
                if value is not None and not is_ours(key, value):
                    self.strange[key] = message
                    continue
                self.strange.pop(key, None)
                if key == records.MANIFEST and value is not None:
                    self._follow(value)
                if value is None and key.startswith((records.PROGRESS, records.ITEMS)):
                    meta[key] = None
                elif value is not None and not self._is_behind(key, value, meta):
                    meta[key] = value
            elif value is not None and not is_packed(value):
                rows.pop(key, None)
                self.strange[key] = message
            elif _version(message) <= applied.get(partition[1], 0):
                continue
            elif value is None:
                rows.pop(key, None)
                self.strange.pop(key, None)
                gone[key] = _version(message)
            else:
                gone.pop(key, None)
                self.strange.pop(key, None)
                rows[key] = message
        for message in messages[lost : lost + 1]:
            out += self._get_past(message, described)
        if self.is_level and len(messages) < 10_000:
            self._stalls.look({p: max(self.offsets[p], self.reached[p]) for p in self.watched})
        if messages:
            self._apply(rows, gone, described, meta)
            if self.is_level:
                self._judge_strange()
        elif time.monotonic() - self.applied > IDLE_SECONDS and self._at_the_ends():
            self.applied = time.monotonic()
            self.store.write_entries({"meta": [stores.applied_now()]})
        return out

    def _at_the_ends(self) -> bool:
        """Whether all that was there is in the folder, as of the last word of the brokers."""
        return all(self.reached[p] >= self.offsets[p] for p in self.watched)

    def _is_lost(self, message: Message) -> bool:
        """Whether records of `items` cannot be fetched. Of `model-state` none can be missing."""
        return message.topic() == self.config.topics.items and is_unreadable(message.error())

    def _get_past(self, message: Message, described: dict[bytes, Described]) -> Attributes:
        """Read on behind a batch that cannot be fetched; what was read after it comes again."""
        partition, out = partition_of(message), []
        found = read_alone(self.config, partition, self.offsets[partition], message, self.beat)
        for one in found.messages:
            error = one.error()
            if error is None:
                out += self._describe(one, described)
            else:
                letter = DeadLetter.of(one, verdict_on(error))
                self.bad.append((partition, one.offset() or 0, letter))
        self.offsets[partition] = found.next
        assigned = [(tp.topic, tp.partition) for tp in self.consumer.assignment()]
        self.consumer = clients.anew(self.consumer, clients.tail_consumer(self.config))
        self.consumer.assign([TopicPartition(*where, self.offsets[where]) for where in assigned])
        return out

    def _apply(
        self, rows: dict[bytes, Message], gone: dict[bytes, int],
        described: dict[bytes, Described], meta: dict[bytes, bytes | None],
    ) -> None:  # fmt: skip
        self.applied = time.monotonic()
        if records.SPACE in meta:
            self.store.write(meta={records.SPACE: meta.pop(records.SPACE)})
        meta |= dict([stores.applied_now()])
        # What is refused now has to be met again, by the start that repairs it.
        held = [*self.strange.values(), *self.overwritten]
        for (topic, partition), offset in self.offsets.items():
            of_it = [m.offset() or 0 for m in held if partition_of(m) == (topic, partition)]
            offset = min([offset, *of_it])
            key = stores.TAIL + f"{topic}/{partition}".encode()
            meta[key] = msgspec.msgpack.encode(offset)
        for item, news in described.items():
            meta[stores.DESCRIBED + item] = msgspec.msgpack.encode((news.partition, news.offset))
        packed = self._pack(rows) if rows else None
        self.store.write(
            keys=list(rows),
            rows=packed,
            gone=list(gone.items()),
            meta=meta,
            attributes={item: news.value for item, news in described.items()},
        )

    def _pack(self, rows: dict[bytes, Message]) -> NDArray[np.void]:
        """The rows that these records hold. Those that hold none are taken out, or refused."""
        if self.store.space is None:
            self._judge_strange()  # it may be that the header is one of them
        dtype = self.store.dtype
        try:
            return from_values([message.value() or b"" for message in rows.values()], dtype)
        except ValueError:
            for key, message in list(rows.items()):
                if len(message.value() or b"") != dtype.itemsize:
                    self.strange[key] = rows.pop(key)
        return from_values([message.value() or b"" for message in rows.values()], dtype)

    def _judge_strange(self) -> None:
        """Refused if there are records that no worker wrote, unless a repair writes over them."""
        for message in self.strange.values():
            what = no_workers(message)
            if not self.repairs:
                raise Refused(what + STOP_IT)
            log.warning("%s. The repair writes over it", what)
            self.overwritten.append(message)
        self.strange.clear()

    def handed_over(self, admin: AdminClient) -> Refused | None:
        """What to say if the model is another app's by now, as of headers read and not yet read."""
        mine, header = self.config.app.name, self.store.space
        where = self.config.topics.model_state, 0
        try:
            with closing(clients.tail_consumer(self.config)) as consumer:
                for message in between(
                    consumer, {where: self.header_from}, clients.ends(admin, [where])
                ):
                    key, value = message.key(), message.value()
                    if key == records.SPACE and value is not None and is_ours(key, value):
                        header = msgspec.msgpack.decode(value, type=records.Space)
        except (KafkaException, WalkstreamError):
            pass  # the failure that is to be explained is told then
        if header is None or header.app in ("", mine):
            return None
        return Refused(
            f"{where[0]} was handed over to app {header.app!r} while this worker, of app {mine!r}, "
            "stood still or was cut off. Nothing was committed since, and it has no model any "
            "more: do not start it again"
        )

    def _is_doubtful(self, message: Message) -> bool:
        if self.doubtful is None:
            return False
        commit = records.commit_of(message)
        return commit is not None and commit[1] >= self.doubtful

    def follow(self, commit: int) -> None:
        """From here on no manifest may be missing behind the one of this commit."""
        self.commit, self.is_level = commit, True

    def _follow(self, value: bytes) -> None:
        """Commits have consecutive numbers. WalkstreamError where what is read goes another way.

        Of what was there before a start compaction has left the newest manifests only, so it is
        sure only that they do not go back; the newest one is read back whole. All later ones are
        this worker's, and none may be missing.
        """
        commit = msgspec.msgpack.decode(value, type=records.Manifest).commit
        goes_back = self.commit is not None and commit < self.commit
        if goes_back or (self.is_level and commit > (self.commit or 0) + 1):
            raise WalkstreamError(
                f"{self.config.topics.model_state}[0]: commit {commit} came after commit "
                f"{self.commit}: the client reads the log in another order than it was written, or "
                "another worker writes to it. Nothing was committed since. Look that only one "
                "worker runs, then start again"
            )
        self.commit = commit

    def _is_behind(self, key: bytes, value: bytes, meta: Mapping[bytes, bytes | None]) -> bool:
        """Whether the folder already has a later commit's record under this reserved key.

        `meta` is what goes to the folder next. Of headers the last one counts.
        """
        if key == records.SPACE:
            return False
        stored = meta[key] if key in meta else self.store.meta(key)
        return stored is not None and order(key, value) <= order(key, stored)

    def _describe(self, message: Message, described: dict[bytes, Described]) -> Attributes:
        offset, partition = message.offset() or 0, message.partition() or 0
        try:
            item = decode_item(message.key(), message.value(), self.config.items.use)
        except Invalid as error:
            bad = Bad(0, None, message.value(), error.reason, error.message)
            self.bad.append((partition_of(message), offset, DeadLetter.of(message, bad)))
            return []
        tokens, value = None, None
        if item.attributes is not None:
            tokens = attribute_tokens(item.attributes, self.config.items.use)
            value = msgspec.json.encode(item.attributes)
        described[item.id.encode()] = Described(value, partition, offset)
        return [(item.id, tokens)]

    def dead_letters(self) -> list[DeadLetter]:
        """Those of `bad`, each once."""
        out = [letter for _, _, letter in self.bad]
        self.bad = []
        return out

    def items_offsets(self) -> dict[Partition, int]:
        """Next offset of each partition of `items`: what is before it was returned by `poll`."""
        return {p: o for p, o in self.offsets.items() if p[0] == self.config.topics.items}

    def pending(self) -> Attributes:
        """Items whose attributes were read before a restart, and no commit has taken in."""
        taken, use = self.store.items_taken(), self.config.items.use
        return [
            (item, None if attributes is None else attribute_tokens(attributes, use))
            for item, attributes, partition, offset in self.store.described()
            if offset >= taken.get((self.config.topics.items, partition), 0)
        ]


def tokens_of(store: Store, item: str, use: Sequence[str]) -> list[str]:
    """Attribute tokens of an item, as last read, of the attributes in `use`."""
    return attribute_tokens(store.attributes(item.encode()), use)


def _version(message: Message) -> int:
    """The version of a row or of its deletion."""
    value = message.value()
    if value is None:
        return int(dict(message.headers() or []).get(records.VERSION_HEADER) or 0)
    return version_of(value)
