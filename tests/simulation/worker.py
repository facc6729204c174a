"""One process of an app, without Kafka: a real engine, and topics that are lists."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.ids.vocabulary import decode
from core.rounds import Evidence, Inputs
from core.rows import from_values

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

Click = tuple[str, str, int]
"""User, item, time."""


class Entry(NamedTuple):
    """A record of the log: what a commit of one worker did."""

    writer: str
    is_decided: bool
    """Whether the writer has folded this already, as nobody else writes."""
    rounds: list[Evidence]


class Row(NamedTuple):
    """A record of an item partition: a model row, or None for a tombstone."""

    key: bytes
    value: bytes | None
    version: int
    writer: str


@dataclass
class Topics:
    """All that is kept when workers die."""

    clicks: list[list[Click]]
    items: list[tuple[str, list[str] | None]]
    """The catalogue: attributes, or None for an item that is retired."""
    partitions: int
    log: list[Entry] = field(default_factory=list)
    rows: list[list[Row]] = field(default_factory=list)
    """By item partition."""
    done: list[int] = field(default_factory=list)
    """The next offset of each clicks partition."""
    taken: int = 0
    """The next offset of the catalogue: retirements before it are in the log."""
    versions: list[int] = field(default_factory=list)
    placements: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [[] for _ in range(self.partitions)]
        self.versions = [0] * self.partitions
        self.done = [0] * len(self.clicks)

    def last(self, partition: int, end: int) -> dict[bytes, Row]:
        """The last record of each key that is no tombstone, as of this offset."""
        found = {row.key: row for row in self.rows[partition][:end]}
        return {key: row for key, row in found.items() if row.value is not None}


class Fault(Exception):
    """What must hold does not."""


class Worker:
    """One process. `state` is what its folder has of an earlier life: where to fold on from."""

    def __init__(self, name: str, cluster: "Cluster") -> None:
        self.name, self.cluster, topics = name, cluster, cluster.topics
        self.generation, self.is_lost = -1, False
        self.reads: set[int] = set()
        self.owns: set[int] = set()
        self.gained: tuple[set[int], set[int], int, list[int]] | None = None
        """Clicks and item partitions to take over, once the log and the rows are read so far."""
        self.offsets: dict[int, int] = {}
        self.pending: list[Evidence] = []
        """Evidence since the last commit, decided or not."""
        self.is_decided = False
        """Whether that of `pending` is."""
        self.at = 0
        """The next place in the log."""
        self.tail = [0] * topics.partitions
        self.seen = 0
        """The next offset of the catalogue, of which attributes are known."""
        self.taken = 0
        """The next one whose retirement is to be written, by who holds the first clicks."""
        self.attributes: dict[str, list[str]] = {}
        self.heard: dict[str, int] = {}
        """Of items: the clicks that walks have started from."""
        self.engine = Engine(cluster.settings, topics.partitions)
        self.engine.own([], self.written)
        self.engine.catalogue.written = self.written
        self.restore()

    # -- start -----------------------------------------------------------------------------------

    def restore(self) -> None:
        """Fold all evidence again, in the order of the log, and take all rows."""
        topics, engine = self.cluster.topics, self.engine
        engine.graph.begin_again(0)
        for entry in topics.log:
            for one in entry.rounds:
                engine.fold_again(one, 1)
        self.at = len(topics.log)
        self.tail = [len(part) for part in topics.rows]
        self.read_catalogue()
        found = [row for p, end in enumerate(self.tail) for row in topics.last(p, end).values()]
        keys, values = [row.key for row in found], [row.value or b"" for row in found]
        rows = from_values(values, engine.model.dtype)
        engine.load_rows([(keys, rows)], lambda item: self.attributes.get(item, ()))
        self.read_placements()
        self._watch_starts()

    def _watch_starts(self) -> None:
        of, engine = self.engine.starts.of, self.engine

        def watched(touched: Any, *rest: Any) -> Any:
            out = of(touched, *rest)
            for slot in np.unique(out).tolist():
                name = engine.vocabulary.keys[slot]
                if name is not None and engine.model.rows.owned[slot]:
                    self.heard[name] = int(engine.graph.clicks[slot])
            return out

        self.engine.starts.of = watched  # type: ignore[method-assign,assignment]

    def written(self, keys: Sequence[bytes]) -> tuple[list[bytes], Any]:
        """What was last written of these rows, as far as this worker has read."""
        topics, found = self.cluster.topics, []
        for key in keys:
            partition = self.cluster.partition_of(key)
            row = topics.last(partition, self.tail[partition]).get(key)
            if row is not None:
                found.append(row)
        values = [row.value or b"" for row in found]
        return [row.key for row in found], from_values(values, self.engine.model.dtype)

    # -- the group -------------------------------------------------------------------------------

    def join(self) -> None:
        """Follow the group. Who was cut off while it took partitions away ends."""
        cluster = self.cluster
        if self.generation == cluster.generation:
            return
        if self.is_lost and not cluster.has("a member that was cut off goes on"):
            cluster.replace(self.name)
            return
        self.generation, self.is_lost = cluster.generation, False
        reads, owns = cluster.share_of(self.name)
        ends = [len(part) for part in cluster.topics.rows]
        self.gained = reads - self.reads, owns - self.owns, len(cluster.topics.log), ends
        if cluster.has("taken over before the log is read"):
            self.take_over(at_once=True)

    def release(self, reads: set[int], owns: set[int]) -> None:
        """Commit, while the old generation counts, and go on with no more than these."""
        cluster = self.cluster
        if not cluster.has("revoked without a commit"):
            self.commit()
        self.gained = None
        self.reads &= reads
        if not cluster.has("lost rows stay owned"):
            self.owns &= owns
        self.engine.own(self.owns, self.written)

    def take_over(self, at_once: bool = False) -> None:
        """Own what was gained, where log and rows are read as far as they were then."""
        if self.gained is None:
            return
        reads, owns, place, ends = self.gained
        is_read = self.at >= place and all(a >= b for a, b in zip(self.tail, ends, strict=True))
        if not (is_read or at_once):
            return
        topics, self.gained = self.cluster.topics, None
        for partition in reads:
            self.offsets[partition] = topics.done[partition]
        self.reads |= reads
        for partition in owns if not self.cluster.has("versions begin anew") else ():
            self.engine.versions[partition] = topics.versions[partition]
        self.owns |= owns
        self.engine.own(self.owns, self.written)
        if 0 in self.reads:
            self.taken = topics.taken
        if self.cluster.has("nothing is learned again"):
            self.engine.starts.behind = self.engine.starts.behind[:0]

    # -- the loop --------------------------------------------------------------------------------

    def read_rows(self, partition: int, most: int = 1 << 30) -> None:
        """Take what others have written of an item partition."""
        new = self.cluster.topics.rows[partition][self.tail[partition] :][:most]
        self.tail[partition] += len(new)
        if partition in self.owns or self.cluster.has("others are not read"):
            return
        last = {row.key: row for row in new}
        ownership = self.engine.ownership
        ownership.read(*self.written([key for key, row in last.items() if row.value is not None]))
        if not self.cluster.has("tombstones of others are not read"):
            ownership.unpublish([key for key, row in last.items() if row.value is None])

    def read_placements(self) -> None:
        for placement in self.cluster.topics.placements:
            self.engine.take_placement(placement)

    def read_catalogue(self) -> list[tuple[str, list[str] | None]]:
        news = self.cluster.topics.items[self.seen :]
        self.seen += len(news)
        for item, tokens in news:
            self.attributes.pop(item, None)
            if tokens is not None:
                self.attributes[item] = tokens
        return news

    @property
    def is_alone(self) -> bool:
        """Whether no other worker writes evidence, and all that was written is folded."""
        all_read = len(self.reads) == len(self.cluster.topics.clicks)
        at_the_end = self.at == len(self.cluster.topics.log)
        return all_read and at_the_end and (self.is_decided or not self.pending)

    def collect(self) -> None:
        """Take own clicks: fold them at once, or leave them for the log."""
        topics, cluster = self.cluster.topics, self.cluster
        parts = []
        for partition in sorted(self.reads):
            begin = self.offsets[partition]
            clicks = topics.clicks[partition][begin : begin + cluster.chance.randint(1, 9)]
            self.offsets[partition] += len(clicks)
            parts.append(to_clicks(partition, begin, clicks))
        own = Clicks.joined(parts) if parts else Clicks.empty()
        news, retired = self.read_catalogue(), []
        if 0 in self.reads:
            retired = [one for one in topics.items[self.taken :] if one[1] is None]
            self.taken = len(topics.items)
        described = [one for one in news if one[1] is not None]
        alone = self.is_alone or (cluster.has("folded before it is written") and bool(self.reads))
        if alone:
            inputs = Inputs(own, [*described, *retired], closes_commit=False)
            self.pending.append(self.engine.step(inputs).evidence)
            self.is_decided = True
            return
        gone = {}
        if 0 in self.reads:
            gone = self.engine.gone(Inputs(own, retired, room=120))
        told = Evidence(0, gone, (), own, {})
        if told:
            self.pending.append(told)
        self.engine.step(Inputs(Clicks.empty(), described, is_told=True, closes_commit=False))

    def learn(self, most: int) -> None:
        """Fold so many entries of the log, and learn from them."""
        for entry in self.cluster.topics.log[self.at : self.at + most]:
            self.at += 1
            for one in entry.rounds:
                self.engine.step(
                    Inputs(
                        one.clicks, is_told=True, gone=one.gone, ranks=entry.writer == self.name,
                        closes_commit=False,
                    )
                )  # fmt: skip
            self.cluster.note(self)

    def commit(self) -> None:
        """One transaction: evidence, rows and tombstones, progress. A zombie is refused."""
        cluster, topics = self.cluster, self.cluster.topics
        if self.generation != cluster.generation and not cluster.has("zombies commit"):
            return  # ILLEGAL_GENERATION: it hears of the rebalance, and joins
        changes = self.engine.step(Inputs(Clicks.empty(), is_told=True)).changes
        assert changes is not None
        pending, self.pending = [one for one in self.pending if one], []
        if cluster.has("evidence leaves twice"):
            pending += pending[:1]
        if pending:
            topics.log.append(Entry(self.name, self.is_decided, pending))
            cluster.count(topics.log[-1])
            self.at += self.is_decided  # it is folded
            if self.is_decided:
                cluster.note(self)
        self.is_decided = False
        for partition in self.reads:
            topics.done[partition] = self.offsets[partition]
        if 0 in self.reads:
            topics.taken = self.taken
        for key, value, p in zip(changes.keys, changes.values, changes.partitions, strict=True):
            self._write(Row(key, value, changes.versions[int(p)], self.name), int(p))
            name = decode(key)
            cluster.learned[name] = max(cluster.learned.get(name, 0), self.heard.get(name, 0))
        for gone in changes.gone:
            self._write(Row(gone.key, None, gone.version, self.name), gone.partition)
            cluster.learned.pop(decode(gone.key), None)
        for p in self.owns:
            topics.versions[p] = max(topics.versions[p], self.engine.versions.get(p, 0))
        if changes.placement is not None:
            topics.placements.append(changes.placement)

    def _write(self, row: Row, partition: int) -> None:
        part = self.cluster.topics.rows[partition]
        before = [other for other in part if other.key == row.key]
        if before and before[-1].version >= row.version:
            told = f"{row.key!r} goes from version {before[-1].version} to {row.version}"
            raise Fault(f"{self.name}: {told}")
        part.append(row)


def to_clicks(partition: int, first: int, clicks: Sequence[Click]) -> Clicks:
    n = len(clicks)
    return Clicks(
        [user for user, _, _ in clicks],
        [item for _, item, _ in clicks],
        np.array([time for _, _, time in clicks], np.int64),
        np.ones(n, np.float32),
        partitions=np.full(n, partition, np.int32),
        offsets=np.arange(first, first + n, dtype=np.int64),
    )
