"""Commits are read back: each is counted and compared with its manifest before the next is final.

A transaction that brokers settled in the middle (`streamer.kafka.transactions`) looks like any
other to those who read what it left. Its manifest tells: so many records in each partition, with
these checksums. A commit that does not have them all is torn, and a worker that goes on from it
would learn clicks twice, or never publish what it believes to be published.

Only this app writes vectors and rows, so all that is there has to be of a commit that was sent, by
this worker or by another one, which looks after its own. Dead letters may come from anybody, with
any header: of those only the ones count that a manifest tells of, and where it says.

A worker beside others reads back the partitions of its own items, and whatever else it writes to.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import msgspec
from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import AdminClient

from core.settings import DAY_MS
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, label
from streamer.kafka.identity import Identity
from streamer.kafka.transactions import Send
from streamer.kafka.waiting import OpenTransactions
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.commits import Manifest, Mark, Part, Parts, mark_of, no_commits
from streamer.state.model_state import is_ours
from streamer.worker.logs import Logs
from streamer.worker.manifests import (
    REPAIR,
    Doubt,
    add_letter,
    foreign,
    is_manifest,
    missing,
    parts_of,
)

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""A commit that is not read back after so long is compared with where the logs end."""
TELL_SECONDS = 5.0
"""What a commit that is not read back after so long waits for is said."""
WAIT_SECONDS = 60.0
"""A commit must be read back within so long: in four times `clients.READ_MS`."""
WINDOW = 2000
"""Offsets at the end of a log in which the newest manifest is looked for first."""
OTHERS_SECONDS = 60.0
"""A manifest says where the partitions ended that are not read back, at most so long ago: from
there on a start reads them."""


class Readback:
    """Reads what commits write, and knows what the last one should have written."""

    def __init__(
        self, config: Config, now: Identity, admin: AdminClient, beat: Callable[[], None]
    ) -> None:
        self.config, self.admin, self.beat = config, admin, beat
        self.logs = Logs(config, now, admin, lambda: self.beat())
        self.instance = config.app.instance
        self.model_state, self.dead_letters = config.topics.model_state, config.topics.dead_letters
        self._quiet = {config.topics.transitions, *self.logs.vectors}
        """The topics of which no record by another program was told yet."""
        self.owned: Callable[[], Collection[int]] = lambda: range(len(self.logs.where))
        """The item partitions of this worker."""
        self._base: set[Partition] = set()
        """The partitions that are read whatever is written."""
        self._others_due = 0.0
        self.last: int | None = None
        """The number of the last commit, whole or not; None before the first of all."""
        self.wanted: Manifest | None = None
        """Of the commit that was sent and is not read back yet."""
        self.doubt: Doubt | None = None
        """What `start` found."""
        self.found: dict[Partition, Part] = {}
        self.has_manifest = False
        self._compared = 0.0
        """When `wanted` was sent, or compared with where the logs end, by the monotonic clock."""
        self._written: dict[Partition, int] = {}
        """Where they ended then, with what is not settled yet."""
        self._open = OpenTransactions()

    def close(self) -> None:
        self.logs.close()

    # -- what is sent ----------------------------------------------------------------------------

    def manifest(self, commit: int, sends: Iterable[Send]) -> Send:
        """The record that says what a commit consists of, which is to be its last."""
        app, sends = self.config.app, list(sends)
        self._follow({(send.topic, send.partition) for send in sends})
        parts = {partition: Part(self.logs.at[partition]) for partition in self.logs.where}
        for send in sends:
            parts[send.topic, send.partition].add(send.key, send.value)
        topics = {topic: Parts(name, []) for topic, name in self.logs.ids.items()}
        for (topic, _), part in parts.items():
            topics[topic].partitions.append(part)
        manifest = Manifest(commit, app.name, app.instance, topics, self.last or 0)
        mark: list[tuple[str, str | bytes | None]] = [(records.COMMIT_HEADER, manifest.mark.packed)]
        encoded = msgspec.msgpack.encode(manifest)
        return Send(self.model_state, 0, records.manifest_key(app.instance), encoded, mark)

    def _follow(self, written: set[Partition]) -> None:
        """Read these partitions, those of the worker's items, and until the worker has others also
        what it wrote to before. Nothing of its own is under way: what it has not read back yet will
        be behind where the logs end now."""
        logs, owned = self.logs, self.owned()
        # An item's vector has the number of its row's partition, and a user's, where clicks are
        # keyed as they should be, that of the clicks.
        count = logs.counts[self.model_state]
        shared = {self.model_state, *(t for t in logs.vectors if logs.counts[t] == count)}
        base = {p for p in logs.where if p[0] not in shared or p[1] in owned}
        wanted = base | written | (logs.followed if base == self._base else set())
        wanted = (wanted | {(self.model_state, 0)}) & {*logs.where}
        is_due = len(wanted) < len(logs.where) and time.monotonic() > self._others_due
        if wanted != logs.followed or is_due:
            logs.at |= clients.ends(self.admin, wanted - logs.followed)
            # Of the others it is only that a start has less to read, so that none has to answer.
            with suppress(WalkstreamError, KafkaException):
                logs.at |= clients.ends(self.admin, {*logs.where} - wanted - logs.followed)
            self._others_due = time.monotonic() + OTHERS_SECONDS
        if wanted != logs.followed:
            logs.assign({p: logs.behind(p) for p in wanted})
        self._base = base

    def expect(self, manifest: Send) -> None:
        """This commit was sent, and is to be read back now."""
        assert self.wanted is None, "the commit before was settled"
        sent = msgspec.msgpack.decode(manifest.value or b"", type=Manifest)
        self.last = sent.commit
        if not self.config.commit.read_back:
            return
        self.wanted = sent
        self.found = {partition: Part(0) for partition in self.logs.where}
        self.has_manifest = False
        self._compared = time.monotonic()

    # -- what came -------------------------------------------------------------------------------

    def poll(self, timeout: float = 0.0) -> None:
        """Look at what has arrived. Refused where it cannot be part of what was sent.

        Refused too if the commit that was sent last is torn, also while nothing is to be sent.
        """
        if not self.config.commit.read_back:
            return
        self._take_in(timeout)
        if self.wanted is not None and time.monotonic() - self._compared > GRACE_SECONDS:
            self._compare(self.wanted)
            self._compared = time.monotonic()
        self.logs.look_for_stalls()

    def _take_in(self, timeout: float) -> None:
        for partition, message in self.logs.arrived(timeout):
            if (mark := mark_of(message)) is not None:
                self._take(partition, message, mark)
            elif partition[0] in self._quiet:
                self._quiet.remove(partition[0])
                log.warning("%s", no_commits(message))
        if self.wanted is not None and self._is_whole(self.wanted):
            self.wanted = None

    def settle(self) -> None:
        """Return when the commit that was sent last is read back whole. Refused if it is torn.

        To be called before the next transaction begins, whose time would run meanwhile.
        """
        self.poll()
        begin, is_told = time.monotonic(), False
        while self.wanted is not None:
            self.beat()
            self.poll(0.01)
            waited = time.monotonic() - begin
            if self.wanted is not None and waited > TELL_SECONDS and not is_told:
                is_told = True
                log.info(
                    "waiting for commit %d to be read back, before anything is committed after it: "
                    "%s", self.wanted.commit, self.logs.lagging(self._written) or "all was read",
                )  # fmt: skip
            if self.wanted is not None and waited > WAIT_SECONDS:
                late = self.logs.lagging(self._written)
                raise WalkstreamError(
                    f"commit {self.wanted.commit} could not be read back within {WAIT_SECONDS:g} s "
                    f"({late}), so nothing was committed after it. Look at the leaders of these "
                    "partitions, and for transactions that stay open (kafka-transactions.sh "
                    "find-hanging), then start again"
                )

    def _compare(self, manifest: Manifest) -> None:
        """Refused if all was read, up to where the logs end, and it is not the whole commit."""
        written = self._written = clients.ends(self.admin, self.logs.followed)
        ends = clients.ends(self.admin, self.logs.followed, committed=True)
        self._take_in(0.05)
        if self.wanted is None:
            return
        self._open.announce({p: self.logs.at[p] for p in written}, self.logs.reached, written)
        takes = [*(p for p, part in parts_of(manifest) if part.size), (self.model_state, 0)]
        # Where no transaction is open, this one is settled.
        is_settled = all(ends[p] >= written[p] for p in takes)
        if is_settled and not self.logs.lagging(ends):
            what = "; ".join(missing(manifest, self.found, self.has_manifest))
            raise Refused(f"commit {manifest.commit} is torn: {what}. {REPAIR}")

    def _take(self, partition: Partition, message: Message, mark: Mark) -> None:
        """A record of some commit came."""
        is_letter, app = partition[0] == self.dead_letters, self.config.app
        if is_letter:
            if self.wanted is not None and mark == self.wanted.mark:
                add_letter(self.wanted, self.found, partition, message)
        elif mark.app != app.name:
            raise Refused(foreign(partition, message, mark.app))
        elif mark.instance not in ("", app.instance):
            pass  # it looks after its own commits
        elif self.wanted is None or mark.number != self.wanted.commit:
            sent = "none" if self.wanted is None else f"commit {self.wanted.commit}"
            raise Refused(
                f"{label(partition)} has a record of commit {mark.number} at offset "
                f"{message.offset()}, and {sent} is expected there: commit {mark.number} is torn. "
                f"{REPAIR}"
            )
        elif is_manifest(self.model_state, message):
            self.has_manifest = True
        else:
            self.found[partition].add(message.key(), message.value())

    def _is_whole(self, manifest: Manifest) -> bool:
        return self.has_manifest and not any(missing(manifest, self.found, True))

    # -- at a start ------------------------------------------------------------------------------

    def start(self, repair: bool, of: str | None = None) -> None:
        """Find the newest commit and look whether it is whole, and the last. Reads on from there.
        With a name, that of this worker alone, or nothing where the name is empty: others run, and
        look after their own.

        Refused if it is not, unless that shall be repaired: then `doubt` says what is in doubt.
        """
        self.doubt = self._doubt(of)
        if self.doubt is not None:
            if not repair:
                raise Refused(f"commit {self.doubt.first} is torn: {self.doubt.what}. {REPAIR}")
            log.warning("commit %d is torn: %s. Repairing", self.doubt.first, self.doubt.what)

    def _doubt(self, of: str | None) -> Doubt | None:
        """What is not whole; None also where the last commit has no manifest.

        An older version wrote that one, and whatever it wrote it also checked by itself.
        """
        where = self.logs.where
        begins, ends = clients.begins(self.admin, where), clients.ends(self.admin, where)
        first = self.model_state, 0
        doubt = None
        for manifest, stamp in self._newest(begins[first], ends[first], of) if of != "" else ():
            doubt = self._doubt_of(manifest, stamp, begins, ends) or doubt
        self.logs.assign(ends)
        return doubt

    def _newest(self, begin: int, end: int, of: str | None) -> list[tuple[Manifest, int]]:
        """The manifests of the last commits, each with its timestamp, between two offsets: that of
        this worker, or of each one whose last commit is near the last of all."""
        first, window = (self.model_state, 0), WINDOW
        while end > begin:
            start, is_older = max(begin, end - window), False
            found: dict[str, tuple[Manifest, int]] = {}
            for _, message in self.logs.read({first: start}, {first: end}):
                key, value, mark = message.key() or b"", message.value(), mark_of(message)
                if value is None or not is_ours(key, value):
                    continue  # a deletion, or what `Tail` refuses
                if records.is_manifest(key) and mark is not None and of in (None, mark.instance):
                    _, stamp = message.timestamp()
                    found[mark.instance] = msgspec.msgpack.decode(value, type=Manifest), stamp
                    is_older = False
                elif key.startswith(records.PROGRESS) and mark is None:
                    is_older = True
            if is_older or found:
                return [] if is_older else list(found.values())
            end, window = start, window * 16
        return []

    def _doubt_of(
        self, newest: Manifest, stamp: int,
        begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    ) -> Doubt | None:  # fmt: skip
        """What is not whole of this commit, or came after it."""
        # What lies in a topic that was made anew, or is before what retention left, is gone.
        parts = {p: part for p, part in parts_of(newest) if p in begins}
        checked = {
            p
            for p, part in parts.items()
            if newest.topics[p[0]].id == self.logs.ids[p[0]] and begins[p] <= part.begin <= ends[p]
        }
        starts = {p: parts[p].begin if p in checked else ends[p] for p in self.logs.where}
        # Letters of others are passed over: there may be any number of them.
        stops = {
            p: end if p[0] != self.dead_letters or p not in checked or parts[p].size else starts[p]
            for p, end in ends.items()
        }
        seen: dict[int, dict[Partition, Part]] = defaultdict(lambda: defaultdict(lambda: Part(0)))
        others: dict[str, str] = {}
        compacted = self.model_state, *self.logs.vectors
        written_over = Counter[Partition]()
        for partition, message in self.logs.read(starts, stops):
            mark = mark_of(message)
            if mark is None:
                continue
            if partition[0] == self.dead_letters:
                if mark == newest.mark:
                    letters = seen[newest.commit]
                    add_letter(newest, letters, partition, message)
                    if letters[partition].size >= parts[partition].size:
                        stops[partition] = self.logs.at[partition]
            elif mark.app not in (newest.app, self.config.app.name):
                others[partition[0]] = foreign(partition, message, mark.app)
            elif is_manifest(self.model_state, message):
                continue
            elif mark.instance not in ("", newest.instance):
                written_over[partition] += partition[0] in compacted
            elif mark.number >= newest.commit:
                seen[mark.number][partition].add(message.key(), message.value())
        for told in others.values():
            log.error("%s", told)
        # Its own clock dates a record: one that is young has its tombstones still.
        old = stamp < time.time() * 1000 - DAY_MS
        own = seen[newest.commit]
        what = list(missing(newest, own, True, checked, not old, written_over))
        later = sorted(number for number in seen if number > newest.commit)
        self.last = max([self.last or 0, newest.commit, *later])
        first = newest.commit if what else min(later, default=0)
        for number in later:
            there = sorted(seen[number].items())
            counts = "; ".join(f"{label(p)} has {part.size} of its records" for p, part in there)
            what.append(f"there is no manifest of commit {number}, and {counts}")
        return Doubt(newest.instance, first, "; ".join(what)) if what else None
