"""Commits are read back: each is counted and compared with its manifest before the next is final.

A transaction that brokers settled in the middle (`streamer.kafka.transactions`) looks like any
other to those who read what it left. Its manifest tells: so many records in each partition, with
these checksums. A commit that does not have them all is torn, and a worker that goes on from it
would learn clicks twice, or never publish what it believes to be published.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from core.settings import DAY_MS
from streamer import records
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, checked, label, partition_name, partition_of
from streamer.kafka.identity import Identity
from streamer.kafka.transactions import Send
from streamer.records import Manifest, Part, Parts, commit_of
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

WRITTEN = ("model_state", "item_vectors", "dead_letters")
"""The topics that commits write to, by role."""

GRACE_SECONDS = 1.0
"""A commit that is not read back after so long is compared with where the logs end."""
WAIT_SECONDS = 60.0
"""A commit must be read back within so long, and a start must get to the ends of the logs."""
WINDOW = 2000
"""Offsets at the end of a log in which the newest manifest is looked for first."""

REPAIR = (
    "A transaction was settled in the middle, as an old request reached the brokers late. Nothing "
    "was learned from it since. Start once with `walkstream worker --repair`: it goes on from what "
    "the state folder has, and publishes all rows and vectors again"
)


class Doubt(NamedTuple):
    """Commits that are not whole."""

    first: int
    last: int
    what: str


class Readback:
    """Reads what commits write, and knows what the last one should have written."""

    def __init__(
        self, config: Config, now: Identity, admin: AdminClient, beat: Callable[[], None]
    ) -> None:
        self.config, self.admin, self.beat = config, admin, beat
        self.consumer = clients.reading_consumer(config, "readback")
        self.model_state = config.topics.model_state
        topics = {str(getattr(config.topics, role)): now.topics[role] for role in WRITTEN}
        self.ids = {topic: layout.id for topic, layout in topics.items()}
        self.where = [(t, p) for t, layout in topics.items() for p in range(layout.partitions)]
        self.at: dict[Partition, int] = {}
        """The next offset of each partition: all before it was looked at."""
        self.reached: dict[Partition, int] = {}
        self.last: int | None = None
        """The number of the last commit, whole or not; None before the first of all."""
        self.wanted: Manifest | None = None
        """Of the commit that was sent and is not read back yet."""
        self.doubt: Doubt | None = None
        """What `start` found."""
        self.found: dict[Partition, Part] = {}
        self.has_manifest = False

    def close(self) -> None:
        self.consumer.close()

    # -- what is sent ----------------------------------------------------------------------------

    def manifest(
        self, commit: int, offsets: Mapping[Partition, int], sends: Iterable[Send]
    ) -> Send:
        """The record that says what a commit consists of, which is to be its last."""
        app = self.config.app
        parts = {partition: Part(self.at[partition]) for partition in self.where}
        for send in sends:
            parts[send.topic, send.partition].add(send.key, send.value)
        topics = {topic: Parts(name, []) for topic, name in self.ids.items()}
        for (topic, _), part in parts.items():
            topics[topic].partitions.append(part)
        after = {partition_name(partition): offset for partition, offset in offsets.items()}
        manifest = Manifest(commit, app.name, app.instance, after, topics)
        mark: list[tuple[str, str | bytes | None]] = [(records.COMMIT_HEADER, manifest.mark)]
        value = msgspec.msgpack.encode(manifest)
        return Send(self.model_state, 0, records.MANIFEST, value, mark)

    def expect(self, manifest: Send) -> None:
        """This commit was sent, and is to be read back now."""
        assert self.wanted is None, "the commit before was settled"
        self.wanted = msgspec.msgpack.decode(manifest.value or b"", type=Manifest)
        self.last = self.wanted.commit
        self.found = {partition: Part(0) for partition in self.where}
        self.has_manifest = False

    # -- what came -------------------------------------------------------------------------------

    def poll(self, timeout: float = 0.0) -> None:
        """Look at what has arrived. Refused where it cannot be part of what was sent."""
        for message in map(checked, self.consumer.consume(10_000, timeout)):
            partition, offset = partition_of(message), message.offset() or 0
            if message.error() is not None:
                self.reached[partition] = offset
                continue
            self.at[partition] = offset + 1
            if (commit := commit_of(message)) is not None:
                self._take(partition, message, *commit)
        if self.wanted is not None and self._is_whole(self.wanted):
            self.wanted = None

    def settle(self) -> None:
        """Return when the commit that was sent last is read back whole. Refused if it is torn.

        To be called once the next transaction has its offsets: until the one before is settled in
        every partition, brokers let it have none.
        """
        self.poll()
        begin = time.monotonic()
        while self.wanted is not None:
            self.beat()
            self.poll(0.05)
            waited = time.monotonic() - begin
            if waited > GRACE_SECONDS and self.wanted is not None:
                ends = clients.ends(self.admin, self.where, committed=True)
                self.poll(0.05)
                if self.wanted is not None and self._is_at(ends):
                    what = "; ".join(_missing(self.wanted, self.found, self.has_manifest))
                    raise Refused(f"commit {self.wanted.commit} is torn: {what}. {REPAIR}")
            if waited > WAIT_SECONDS and self.wanted is not None:
                raise WalkstreamError(
                    f"commit {self.wanted.commit} could not be read back within {WAIT_SECONDS:g} s "
                    f"({self._lagging(ends)}), so nothing was committed after it. Look at the "
                    "leaders of these partitions, then start again"
                )

    def _take(self, partition: Partition, message: Message, app: str, commit: int) -> None:
        """A record of some commit came."""
        if app != self.config.app.name:
            if partition[0] != self.config.topics.dead_letters:  # which apps may share
                raise Refused(_foreign(partition, message, app))
            return
        if self.wanted is None or commit != self.wanted.commit:
            sent = "none" if self.wanted is None else f"commit {self.wanted.commit}"
            raise Refused(
                f"{label(partition)} has a record of commit {commit} at offset {message.offset()}, "
                f"and {sent} is expected there: commit {commit} is torn. {REPAIR}"
            )
        if message.key() == records.MANIFEST and partition == (self.model_state, 0):
            self.has_manifest = True
        else:
            self.found[partition].add(message.key(), message.value())

    def _is_whole(self, manifest: Manifest) -> bool:
        return self.has_manifest and not any(_missing(manifest, self.found, True))

    def _is_at(self, ends: Mapping[Partition, int]) -> bool:
        return not self._lagging(ends)

    def _lagging(self, ends: Mapping[Partition, int]) -> str:
        late = [p for p, end in ends.items() if max(self.at[p], self.reached.get(p, 0)) < end]
        return ", ".join(f"{label(p)} is at {self.at[p]} of {ends[p]}" for p in late[:3])

    # -- at a start ------------------------------------------------------------------------------

    def start(self, repair: bool) -> None:
        """Find the newest commit and look whether it is whole, and the last. Reads on from there.

        Refused if it is not, unless that shall be repaired: then `doubt` says what is in doubt.
        """
        self.doubt = self._doubt()
        if self.doubt is not None:
            if not repair:
                raise Refused(f"commit {self.doubt.first} is torn: {self.doubt.what}. {REPAIR}")
            log.warning("commit %d is torn: %s. Repairing", self.doubt.first, self.doubt.what)

    def _doubt(self) -> Doubt | None:
        """What is not whole; None also where there is no commit that has a manifest."""
        begins, ends = clients.begins(self.admin, self.where), clients.ends(self.admin, self.where)
        first = self.model_state, 0
        window, found = WINDOW, None
        while found is None:
            begin = max(begins[first], ends[first] - window)
            for message in self._read({first: begin}, {first: ends[first]}):
                if message.key() == records.MANIFEST and message.value() is not None:
                    found = message
            if begin == begins[first]:
                break
            window *= 16
        if found is None:
            self._assign(ends)
            return None
        _, stamp = found.timestamp()
        newest = msgspec.msgpack.decode(found.value() or b"", type=Manifest)
        # What lies in a topic that was made anew, or is before what retention left, is gone.
        parts = {p: part for p, part in _parts(newest) if p in begins}
        checked = {
            p
            for p, part in parts.items()
            if newest.topics[p[0]].id == self.ids[p[0]] and begins[p] <= part.begin <= ends[p]
        }
        starts = {p: parts[p].begin if p in checked else ends[p] for p in self.where}
        seen: dict[int, dict[Partition, Part]] = defaultdict(lambda: defaultdict(lambda: Part(0)))
        foreign: dict[str, str] = {}
        for message in self._read(starts, ends):
            partition, commit = partition_of(message), commit_of(message)
            if commit is None or message.key() == records.MANIFEST:
                continue
            if commit[0] not in (newest.app, self.config.app.name):
                if partition[0] != self.config.topics.dead_letters:
                    foreign[partition[0]] = _foreign(partition, message, commit[0])
            elif commit[1] >= newest.commit:
                seen[commit[1]][partition].add(message.key(), message.value())
        for told in foreign.values():
            log.error("%s", told)
        # Its own clock dates a record: one that is young has its tombstones still.
        old = stamp < time.time() * 1000 - DAY_MS
        what = list(_missing(newest, seen[newest.commit], True, checked, tombstones=not old))
        later = sorted(number for number in seen if number > newest.commit)
        self.last = max([newest.commit, *later])
        for number in later:
            counts = "; ".join(
                f"{label(p)} has {part.records + part.tombstones} records of it"
                for p, part in sorted(seen[number].items())
            )
            what.append(f"there is no manifest of commit {number}, and {counts}")
        if not what:
            return None
        torn = sorted({*later, *([] if len(what) == len(later) else [newest.commit])})
        return Doubt(torn[0], torn[-1], "; ".join(what))

    def _assign(self, starts: Mapping[Partition, int]) -> None:
        self.at, self.reached = dict(starts), {}
        self.consumer.assign([TopicPartition(*p, offset) for p, offset in starts.items()])

    def _read(
        self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> list[Message]:
        """All that is committed between these offsets."""
        self._assign(starts)
        out: list[Message] = []
        begin, told = time.monotonic(), False
        while lagging := self._lagging({p: ends[p] for p in starts}):
            self.beat()
            for message in map(checked, self.consumer.consume(10_000, 0.1)):
                partition, offset = partition_of(message), message.offset() or 0
                if message.error() is not None:
                    self.reached[partition] = offset
                else:
                    self.at[partition] = offset + 1
                    out.append(message)
            waited = time.monotonic() - begin
            if waited > GRACE_SECONDS * 5 and not told:
                told = True
                log.info("waiting for the end of the newest commit: %s", lagging)
            if waited > WAIT_SECONDS and not out:
                raise WalkstreamError(
                    f"the newest commit could not be read within {WAIT_SECONDS:g} s ({lagging}). "
                    "Look for a transaction that is open, and at the leaders of these partitions, "
                    "then start again"
                )
        return out


def _parts(manifest: Manifest) -> Iterable[tuple[Partition, Part]]:
    for topic, parts in manifest.topics.items():
        for number, part in enumerate(parts.partitions):
            yield (topic, number), part


def _missing(
    manifest: Manifest, found: Mapping[Partition, Part], has_manifest: bool,
    checked: Iterable[Partition] | None = None, tombstones: bool = True,
) -> Iterable[str]:  # fmt: skip
    """What the partitions do not have of a commit, or have too much of; by default all of them."""
    nothing = Part(0)
    for partition, part in _parts(manifest):
        if checked is not None and partition not in checked:
            continue
        got = found.get(partition, nothing)
        for name, have, wanted in (
            ("records", (got.records, got.checksum), (part.records, part.checksum)),
            (
                "tombstones",
                (got.tombstones, got.tombstones_checksum),
                (part.tombstones, part.tombstones_checksum),
            ),
        ):
            if have != wanted and (tombstones or name == "records"):
                others = " that are others than were sent" if have[0] == wanted[0] else ""
                yield f"{label(partition)} has {have[0]} of its {wanted[0]} {name}{others}"
    if not has_manifest:
        yield "its manifest and progress are missing"


def _foreign(partition: Partition, message: Message, app: str) -> str:
    return (
        f"{label(partition)} has a record by app {app!r} at offset {message.offset()}: two apps "
        "publish into one topic, and readers of it get both models in turns. Stop one of them, and "
        "give it topics of its own (section [topics]); then `walkstream worker --repair` publishes "
        "all that is the other's again"
    )
