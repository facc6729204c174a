"""The algorithm: a round takes clicks into the graph, walks from what changed, and learns.

Read `Engine.step` from top to bottom. Everything random follows from (seed, round number), every
time is event time, and no result depends on slot numbers beyond their order, which is the order of
birth; so an engine restored from its rows, sessions and graph goes on bit for bit. What a round
costs follows from what it changes.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.clock import Clock
from core.expiry import Expiry
from core.graph import fold as graphs
from core.graph.fold import Batch, Folded, Rules
from core.graph.graph import LIVE, NEVER, Graph
from core.graph.sessions import Sessions
from core.graph.slabs import TOPIC, UNWRITTEN
from core.graph.sweep import Sweep
from core.graph.walks import walk
from core.graph.written import Scale
from core.ids.vocabulary import ID_BYTES, Vocabulary, encode
from core.learner import Learner
from core.model import Model
from core.placing.leaving import AT_ONCE, Leaving, ready
from core.placing.placement import Placement, Placer
from core.quality import measure
from core.ranking.fusion import Fusion
from core.restoring import Packed, take_rows
from core.rounds import Changes, Evidence, Gone, Inputs, Outputs
from core.settings import Settings
from core.starts import Starts

RECORDS_OF_GONE = 3
"""Tombstones of an item that leaves: of its row, its row of the graph and its vector."""
SHARE_OF_GONE = 4
"""A commit gives this part of its room to items that expire."""


@dataclass
class Engine:
    """The state of one worker and the steps on it.

    `partitions` is how many partitions items are spread over (those of `model-state`). `timed` is
    entered around each stage with its name: rank, fold, walk, learn, place.
    """

    settings: Settings
    partitions: int = 1
    timed: Callable[[str], AbstractContextManager[object]] = nullcontext
    round_number: int = 0
    clock: Clock = field(default_factory=Clock)
    placement: Placement = field(default_factory=Placement.empty)
    versions: dict[int, int] = field(default_factory=dict)
    fusion: Fusion = field(default_factory=Fusion.new)
    publish_from: int = 0
    """Rows with a version below it are to be written again."""
    sweeps: list[Sweep] = field(default_factory=list)
    """Sweeps of the graph that are under way, which follow when slots are numbered anew."""

    def __post_init__(self) -> None:
        s = self.settings
        self.placer = Placer(s)
        self.leaving = Leaving(s, self.placer)
        self.catalogue = Catalogue(s, self.partitions)
        self._placement_changed = False
        self.learner = Learner(s, self.catalogue)
        self.starts = Starts(s, self.catalogue, self.placer)
        self.expiry = Expiry(s, self.catalogue)

    # Only the catalogue holds these, so that none can be replaced and be out of step with the rest.

    @property
    def vocabulary(self) -> Vocabulary:
        return self.catalogue.vocabulary

    @property
    def graph(self) -> Graph:
        return self.catalogue.graph

    @property
    def sessions(self) -> Sessions:
        return self.catalogue.sessions

    @property
    def model(self) -> Model:
        return self.catalogue.model

    @property
    def items(self) -> NDArray[np.int32]:
        """Slots of the living items, ascending."""
        return self.catalogue.items

    @property
    def scale(self) -> Scale:
        """By which weights and counts are scaled now."""
        return Scale(self.clock.landmark, int(self.settings.graph.half_life), self.clock.time)

    # -- a round ---------------------------------------------------------------------------------

    def step(self, inputs: Inputs) -> Outputs:
        """Take one round. It costs O(clicks + walks + rows that moved)."""
        s, catalogue = self.settings, self.catalogue
        self.round_number += 1
        catalogue.begin_round(self.round_number)
        self.sessions.forget(inputs.forgotten)
        most = inputs.room // SHARE_OF_GONE // RECORDS_OF_GONE - len(catalogue.gone)
        gone = catalogue.leave(self.expiry.next(self.clock.time, most))
        gone += catalogue.leave(catalogue.retired(inputs.attributes))
        self.leaving.any_stale |= bool(catalogue.waiting)
        catalogue.describe(inputs.attributes, self.clock.time)
        with self.timed("rank"):
            quality = measure(inputs.clicks, catalogue, self.fusion, s, self.round_number)
        with self.timed("fold"):
            folded = self.fold(inputs.clicks)
            slots = folded.slots[folded.fate == graphs.KEPT]
            known = len(self.items)
            births = catalogue.give_birth(slots)
            self.expiry.add_late(self.items[known:])
            self.model.rows.dirty[slots] = True
        continued = folded.added > 0.0
        history, target = folded.history[continued], folded.target[continued]
        with self.timed("walk"):
            touched = np.unique(np.concatenate([slots, history[:, 0]]))
            self.learner.first_vectors(touched[self.model.columns.updates[touched] == 0])
            starts = self.starts.of(touched, self.placement, self.round_number, self.clock.time)
            walks = walk(
                self.graph, starts, s.walks.length,
                s.model.seed, self.round_number, s.walks.p, s.walks.q, s.engine.threads,
            )  # fmt: skip
        with self.timed("learn"):
            self.learner.learn(walks, history, target, self.clock.time, self.round_number)
        catalogue.drop_unused(inputs.room // SHARE_OF_GONE - RECORDS_OF_GONE * len(catalogue.gone))
        counts = folded.fate != graphs.DUPLICATE
        clicks = inputs.clicks if counts.all() else inputs.clicks.at(counts)
        evidence = Evidence(self.round_number, gone, inputs.forgotten, clicks, births)
        changes = None
        if inputs.closes_commit:
            with self.timed("place"):
                changes = self._close(inputs)
        return Outputs(
            round_number=self.round_number,
            events=len(slots),
            duplicates=len(counts) - len(clicks),
            too_long=int((folded.fate == graphs.TOO_LONG).sum()),
            quality=quality,
            evidence=evidence,
            changes=changes,
        )

    def fold(self, clicks: Clicks, commit: int = LIVE) -> Folded:
        """Take clicks into sessions and graph, and no further.

        Folding in one batch or in many gives bitwise the same state: so a restart that folds what
        came after a sweep gets to where the worker was. An item whose clicks do not count gets no
        slot. With a `commit`, its clicks are folded again into the rows that do not have them.
        """
        s, known = self.settings, len(self.vocabulary)
        slots = self.vocabulary.intern(clicks.items)
        if commit != LIVE:
            known = len(self.vocabulary)  # what is born is told, and not found out
        users = self.sessions.intern(clicks.users)
        self.catalogue.reserve()
        batch = Batch(
            users=users,
            event_ids=_column(clicks.event_ids, np.uint64),
            times=np.ascontiguousarray(clicks.times),
            weights=np.ascontiguousarray(clicks.weights),
            partitions=_column(clicks.partitions, np.int32),
            clocks=self.clock.of(clicks),
            rows=len(self.sessions.names),
            known=known,
        )
        folded = Folded.of(slots, s.session.length, len(self.vocabulary) - known)
        half_life = int(s.graph.half_life)
        g, clock, n = self.graph, self.clock, len(clicks)
        rules = Rules(half_life, int(s.session.gap), s.session.max_events, g.max_degree, commit)
        if n and clock.landmark == NEVER:
            clock.landmark = int(clicks.times[0]) // half_life * half_life
        if n and clock.time == NEVER:
            # Items that came with attributes before any click begin to age now.
            g.last_seen[self.items] = int(clicks.times[0])
            g.changed[self.items] |= UNWRITTEN
            self.model.rows.dirty[self.items] = True
        at = 0
        while at < n:
            at, why, clock.time = graphs.fold(
                at, batch, self.sessions.columns(), g.slabs(), folded,
                (clock.time, clock.landmark), rules,
            )  # fmt: skip
            if why == graphs.FULL:
                g.grow_pool()
            elif why == graphs.MOVE:
                moved = (int(clicks.times[at]) - clock.landmark) // half_life
                g.shift(moved)
                for scaled in (folded.amounts, folded.added):
                    np.ldexp(scaled, -moved, out=scaled)
                clock.landmark += moved * half_life
        if commit == LIVE:
            self._number(known, folded.born)
        self.catalogue.visits.add(folded, users, batch.times, self.sessions.newest)
        self.sessions.collect()
        return folded

    def _number(self, known: int, born: NDArray[np.int32]) -> None:
        """Give the items after the first `known` the slots `born`, and forget those with -1."""
        if (born == np.arange(known, len(self.vocabulary))).all():
            return
        order = np.argsort(born)[(born < 0).sum() :]
        names = self.vocabulary.names(known + order)
        self.vocabulary.cut(known)
        self.vocabulary.intern(names)

    # -- what leaves -----------------------------------------------------------------------------

    def _close(self, inputs: Inputs) -> Changes:
        """Choose the rows that leave, place them, and hand over copies of them."""
        c, catalogue = self.model.columns, self.catalogue
        self._refresh()
        judged = self.leaving.judge(self.model, self.placement)
        must = judged
        if self.settings.publish.min_drift > 0:
            told = [catalogue.vocabulary.get(name) for name in catalogue.described]
            must = np.unique(np.array([slot for slot in told if slot is not None], np.int32))
        catalogue.described.clear()
        now = self.clock.time if inputs.now is None else inputs.now
        room = inputs.room - RECORDS_OF_GONE * len(catalogue.gone)
        slots = self.leaving.choose(self.model, must, room, inputs.budget, now)
        left = list(catalogue.gone.values())
        touched = np.unique(c.partition[np.concatenate([slots, left]).astype(np.int32)]).tolist()
        for partition in touched:
            self.versions[partition] = self.versions.get(partition, 0) + 1
        version_of = np.array([self.versions.get(p, 0) for p in range(self.partitions)], np.int64)
        gone = [
            Gone(
                encode(name), p := int(c.partition[at]), self.versions[p],
                bool(c.published[at] > 0), bool(c.version[at] > 0),
            )
            for name, at in catalogue.gone.items()
        ]  # fmt: skip
        catalogue.gone = {}
        c.version[slots] = version_of[c.partition[slots]]
        placed = self.leaving.leave(self.model, self.placement, slots, now)
        waiting = self.leaving.waiting
        changes = Changes(
            keys=[encode(name) for name in self.vocabulary.names(slots)],
            partitions=c.partition[slots],
            rows=self.model.pack(slots, self.graph.last_seen),
            published=placed.published,
            vectors=placed.vectors,
            contexts=placed.contexts,
            lengths=placed.lengths,
            drift=placed.drift,
            gone=gone,
            versions={p: self.versions[p] for p in touched},
            placement=self.placement if self._placement_changed else None,
            time=self.clock.time,
            cluster_moves=placed.cluster_moves,
            bucket_moves=placed.bucket_moves,
            waiting=len(waiting),
            stale=self.leaving.stale,
            furthest=float(c.moved[waiting[c.moved[waiting] < AT_ONCE]].max(initial=0.0)),
        )
        self._placement_changed = False
        if len(self.vocabulary) > 2 * self.vocabulary.known + 1024:
            self._relabel(np.flatnonzero(c.alive[: len(self.vocabulary)]))
        return changes

    def _refresh(self) -> None:
        """Move the centroids where a major update is at its end, or make the first ones."""
        if self.starts.is_major_over or self.placer.is_first_due(
            self.placement, self.catalogue.settled
        ):
            self.placement = self.placer.refresh(
                self.placement, self.model, self.items, self.clock.time
            )
            self.starts.major = None
            self._placement_changed = True
            # What was never published, or came back and is not learned yet, will be placed by them
            # when it is.
            known = self.items[self.model.columns.published[self.items] > 0]
            self._mark_stale(known[ready(self.model, known)])

    def _mark_stale(self, slots: NDArray[np.integer]) -> None:
        self.model.columns.stale[slots] = True
        self.leaving.any_stale = self.leaving.any_stale or len(slots) > 0

    def _relabel(self, order: NDArray[np.int64]) -> None:
        new = self.catalogue.relabel(order)
        self.leaving.relabel(new)
        self.starts.relabel(new)
        self.expiry.relabel(new)
        for sweep in self.sweeps:
            sweep.relabel(order)

    def has_work(self, now: int) -> bool:
        """Whether rounds without clicks have something to do: rows wait to leave, or items to be
        learned again or to expire. `now` (ms) is what `publish.min_interval` goes by."""
        waits = self.leaving.any_stale or self.leaving.due_at <= now
        waits |= bool(self.catalogue.waiting) or self.starts.major is not None
        expires = self.clock.time != NEVER and self.expiry.is_behind
        return waits or expires or len(self.starts.behind) > 0

    def publish_all(self) -> None:
        """Write all rows, vectors, the placement and the graph again, with new versions, as commits
        have room for them."""
        newest = max(self.versions.values(), default=0)
        self.versions = dict.fromkeys(range(self.partitions), newest)
        self.publish_from = newest + 1
        self._mark_stale(np.flatnonzero(self.model.columns.alive))
        self._placement_changed = self.placement.epoch > 0
        self.graph.changed[self.graph.last_seen != NEVER] |= TOPIC

    def table_bytes(self) -> dict[str, int]:
        """Bytes of memory of each table: vectors, graph, sessions, ids (a close estimate)."""
        tables = (self.model.rows, self.model.columns)
        return {
            "vectors": sum(int(getattr(t, f.name).nbytes) for t in tables for f in fields(t)),
            "graph": self.graph.nbytes,
            "sessions": self.sessions.nbytes,
            "ids": ID_BYTES * (self.vocabulary.known + len(self.sessions.users)),
        }

    # -- restore ---------------------------------------------------------------------------------

    def fold_again(self, evidence: Evidence, commit: int) -> None:
        """Fold what a round of this commit did, into the rows of the graph that do not have it.

        Between `core.graph.written.load_nodes` and `load_rows`, in the order of the rounds.
        """
        g = self.graph
        g.catch_up(commit, self.clock.landmark, int(self.settings.graph.half_life))
        self.sessions.forget(evidence.forgotten)
        if evidence.gone:
            slots = self.vocabulary.intern(list(evidence.gone))
            self.catalogue.reserve()
            dead = np.zeros(len(g.degree), np.bool_)
            dead[slots] = True
            self.sessions.end_with(dead)
            g.drop(slots, commit)
        self.fold(evidence.clicks, commit)
        c = self.model.columns
        for name, rank in evidence.births.items():
            slot = self.vocabulary.get(name)
            if slot is not None and g.cut[slot] < commit:
                c.born_round[slot], c.born_rank[slot] = evidence.round_number, rank
        self.round_number = evidence.round_number

    def load_rows(
        self, parts: Iterable[Packed], attributes: Callable[[str], Sequence[str]] = lambda item: (),
    ) -> None:  # fmt: skip
        """Take all packed rows into an engine whose graph and sessions are already restored.

        `attributes` gives the tokens of an item; it is asked now, and again when an item that left
        is clicked once more. A node without a row gets its first one. Afterwards slots are in the
        order of birth, and the engine goes on as the one that packed the rows would have: bit for
        bit, if `publish.min_drift` is 0.
        """
        self.catalogue.attributes = attributes
        g = self.graph
        half_life = int(self.settings.graph.half_life)
        self.clock.landmark = g.end_again(self.clock.landmark, half_life)
        self.model.age(self.clock.time)
        order, heard = take_rows(self.catalogue, parts)
        self._relabel(order)
        if self.clock.time != NEVER:
            # Items that came with attributes before any click have aged since the first one.
            unseen = g.last_seen[self.items] == NEVER
            g.last_seen[self.items[unseen]] = self.clock.time
        self.catalogue.recall_all()
        self._find_what_waits(heard)

    def _find_what_waits(self, heard: NDArray[np.int64]) -> None:
        """What was to be written, and was not, before the process ended: it follows from the rows.

        `heard` int64 [slots] is the time of the last click that each row knows of.
        """
        c, items = self.model.columns, self.items
        alive = np.flatnonzero(c.alive)
        # One that came back, and is not learned yet, has only the vector that it had.
        known, is_old = c.published[items] > 0, c.epoch[items] != self.placement.epoch
        c.stale[items] |= ready(self.model, items) & (is_old | ~known)
        c.stale[alive] |= c.version[alive] < self.publish_from
        self.leaving.any_stale = bool(c.stale.any())
        if self.settings.publish.min_drift > 0:
            seen = self.graph.last_seen[items]
            self.starts.behind = items[(seen != NEVER) & (seen > heard[items])]


def _column(given: NDArray[Any] | None, kind: type[np.generic]) -> NDArray[Any]:
    return np.zeros(0, kind) if given is None else np.ascontiguousarray(given, kind)
