"""Which partitions of the clicks this worker has, and what comes with them.

Who has a partition of the clicks decodes it, and writes what came. With the partitions of the
clicks come those of the items: item partition p of n is owned by who has clicks partition
p * c // n of c. So one assignment by the group shares out both evenly. Assignors balance the sum of
all partitions, and not each topic: of two topics with eight partitions each, cooperative-sticky
gives two members one topic each.

What is taken away is committed before, by whoever has it. What is handed over is taken up when all
is read that its holder before has left: the log, and the rows, up to where they ended when the
partition came. Records of a transaction that is still open count, so that nothing comes later.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.ids.hashing import hash_keys
from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, label
from streamer.settings.sections import Config
from streamer.state import commits, packing, records
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.worker import challenging, restore
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.kept import Read
from streamer.worker.tail import Tail
from streamer.worker.told import Log

log = logging.getLogger(__name__)


class _Coming(NamedTuple):
    """Partitions that were handed over, and how far is to be read before they are taken up."""

    partitions: set[Partition]
    evidence: int
    rows: dict[Partition, int]


class Shares:
    """What one worker has. `offsets` is the next click of each partition that it takes."""

    def __init__(
        self, config: Config, space: Space, store: Store, engine: Engine, group: Group, tail: Tail,
        told: Log, admin: AdminClient, read_back: Callable[[], int],
    ) -> None:  # fmt: skip
        """`read_back` tells an offset of `transitions` before which all was read back."""
        self.config, self.space, self.store, self.engine = config, space, store, engine
        self.group, self.tail, self.told, self.admin = group, tail, told, admin
        self.read_back = read_back
        self.offsets: dict[Partition, int] = {}
        self.is_alone = False
        """Whether this worker has all there is, and knows the whole log: then it folds its clicks
        at once, and writes what that did."""
        self.first = config.topics.clicks, 0
        self._coming: _Coming | None = None
        self._end: int | None = None
        """Where the log ended when this worker had all there is."""
        tail.on_read = self.read
        engine.catalogue.written = tail.later.written

    @property
    def leads(self) -> bool:
        """Whether it owns item partition 0, and does what one worker does for all."""
        return self.first in self.offsets

    @property
    def has_all(self) -> bool:
        return self.offsets.keys() == self.group.partitions

    @property
    def is_settling(self) -> bool:
        """Whether all is this worker's, and not all of the log is folded yet: until it is, no
        more clicks are taken."""
        return self.has_all and not self.is_alone

    @property
    def end(self) -> int:
        """An offset of the log behind which evidence of the next commits will be."""
        return max(self.told.at, self.read_back()) if self.is_alone else self.told.behind

    @property
    def lag(self) -> dict[Partition, int]:
        """How far the log is ahead of the engine, in records, where this worker follows it."""
        return {} if self.is_alone else {self.told.where: self.told.lag}

    # -- what comes ------------------------------------------------------------------------------

    def look(self) -> set[Partition]:
        """Take up what the group has handed over, if all is read. Returns what was taken up."""
        new = self.group.assigned - self.offsets.keys()
        if not new:
            self._coming, self.tail.later.hurry = None, False
            return new
        if self._coming is None or self._coming.partitions != new:
            self._coming = self._measure(new)
        coming = self._coming
        taken = self.store.items_taken().items()
        knows_items = all(self.tail.items_offsets().get(p, end) >= end for p, end in taken)
        is_level = self.told.is_at(coming.evidence) and self.tail.is_at(coming.rows)
        if not (is_level and knows_items):
            return set()
        if not self.tail.later.is_empty:  # it is taken up from the folder
            self.tail.later.hurry = True
            return set()
        self.tail.later.hurry, self._coming = False, None
        config, store = self.config, self.store
        self.offsets |= restore.unread(
            config, sorted(new), store.progress(), self.group.consumer, self.admin, Accepted(),
            commits.newest_of(store),
        )  # fmt: skip
        self._own()
        log.info(
            "took up %s: %d of %d partitions of %s, and the items of %d of %d",
            ", ".join(map(label, sorted(new))), len(self.offsets), len(self.group.partitions),
            config.topics.clicks, len(self.owned), self.space.partitions,
        )  # fmt: skip
        return new

    def _measure(self, new: set[Partition]) -> _Coming:
        evidence = self.told.where
        rows = self.tail.of_workers
        ends = clients.ends(self.admin, [evidence, *rows])
        return _Coming(new, ends.pop(evidence), ends)

    def settle(self) -> bool:
        """Whether this worker is alone from now on: it has all, nothing of its own is under way,
        and it has folded all there is."""
        if self._end is None:
            self._end = clients.ends(self.admin, [self.told.where])[self.told.where]
        if self.told.is_at(self._end):
            self.is_alone, self._end = True, None
            self.told.rest()
            log.info("alone: clicks are learned as they come")
        return self.is_alone

    # -- what goes -------------------------------------------------------------------------------

    def release(self, left: set[Partition]) -> None:
        """Give back all but these. What was learned of them is committed."""
        gone = self.offsets.keys() - left
        self._coming = self._end = None
        for partition in gone:
            del self.offsets[partition]
        if self.is_alone and gone:
            self.is_alone = False
            at, number = max(self.told.at, self.read_back()), self.told.number
            self.told.begin(at, number, known=number)
        self._own()
        log.info(
            "gave back %s: %d of %d partitions of %s are left", ", ".join(map(label, sorted(gone))),
            len(self.offsets), len(self.group.partitions), self.config.topics.clicks,
        )  # fmt: skip

    # -- rows ------------------------------------------------------------------------------------

    @property
    def owned(self) -> list[int]:
        """The item partitions that come with the clicks."""
        topic, clicks, items = self.first[0], len(self.group.partitions), self.space.partitions
        return [p for p in range(items) if (topic, p * clicks // items) in self.offsets]

    def _own(self) -> None:
        owned, before = self.owned, self.engine.model.owns.copy()
        stored = self.store.versions()
        self.engine.versions |= {p: stored.get(p, 0) for p in owned if not before[p]}
        self.engine.own(owned, self.tail.later.written)

    @property
    def _is_of_another_space(self) -> bool:
        """Whether the model that was read has another vector space than that of this worker."""
        there = self.store.space
        return there is not None and there.name != self.space.name

    def read(self, read: Read) -> None:
        """Take what other workers have written."""
        engine = self.engine
        if not self.is_alone and (read.keys or read.gone):
            owns = engine.model.owns
            keys = [*read.keys, *read.gone]
            owned = owns[hash_keys(keys, self.space.partitions)[0]].tolist()
            ownership, n = engine.ownership, len(read.keys)
            at = [i for i in range(n) if not owned[i]]
            if at and read.rows is not None:
                ownership.read([read.keys[i] for i in at], read.rows[at])
            ownership.unpublish([key for i, key in enumerate(read.gone, n) if not owned[i]])
        if self.leads:
            return
        value = read.meta.get(records.PROMOTED)
        promoted = records.promoted(value)
        if value and (
            self._is_of_another_space
            or challenging.in_force(self.config, promoted) != engine.settings
        ):
            raise WalkstreamError(
                "the challenger took over in another worker while this one stood by: start it "
                "again, and it goes on by those settings"
            )
        if (placement := read.meta.get(records.PLACEMENT)) is not None:
            dim = engine.settings.model.dim
            engine.take_placement(packing.unpack_placement(placement, dim))
        if (fusion := read.meta.get(records.FUSION)) is not None:
            engine.fusion, _ = packing.unpack_fusion(fusion)
