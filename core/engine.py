"""The algorithm: a round takes clicks into the graph, walks from what changed, and learns.

Read `Engine.step` from top to bottom. Everything random follows from (seed, round number), every
time is event time, and no result depends on slot numbers beyond their order, which is the order of
birth; so an engine restored from its rows, sessions and graph goes on bit for bit.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.graph import fold as graphs
from core.graph.fold import Batch, Folded, Rules
from core.graph.graph import NEVER, Graph
from core.graph.sessions import Sessions
from core.graph.walks import walk
from core.ids.hashing import hash_keys
from core.ids.vocabulary import ID_BYTES, Vocabulary, decode, encode, is_attribute
from core.learning import negatives, skipgram
from core.model import Model
from core.placing.placement import Placement, Placer
from core.quality import measure
from core.rounds import Changes, Gone, Inputs, Outputs
from core.settings import Settings

SWEEPS = 64
"""The engine looks for old sessions and items this many times in a horizon of event time."""


@dataclass
class Clock:
    """Times that follow the log: the greatest decay time, and the landmark of all weights."""

    time: int = NEVER
    landmark: int = NEVER


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

    def __post_init__(self) -> None:
        s = self.settings
        self.placer = Placer(s)
        self.catalogue = Catalogue(s, self.partitions)
        self._placement_changed = False

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

    # -- a round ---------------------------------------------------------------------------------

    def step(self, inputs: Inputs) -> Outputs:
        """Take one round. Learning costs O(clicks + walks), and closing O(rows that changed)."""
        s = self.settings
        self.round_number += 1
        self.catalogue.begin_round(self.round_number)
        self.catalogue.describe(inputs.attributes, self.clock.time)
        with self.timed("rank"):
            quality = measure(
                inputs.clicks, self.sessions, self.vocabulary, self.model, self.graph, self.items,
                s, self.round_number,
            )  # fmt: skip
        with self.timed("fold"):
            folded = self.fold(inputs.clicks)
            kept = folded.fate == graphs.KEPT
            slots = folded.slots[kept]
            self.catalogue.give_birth(slots)
            np.add.at(self.model.columns.count, slots, folded.amounts[kept])
            self.model.rows.dirty[slots] = True
        continued = folded.added > 0.0
        history, target = folded.history[continued], folded.target[continued]
        major = inputs.may_close and self.placer.due(
            self.placement, self.model, self.items, self.clock.time
        )
        with self.timed("walk"):
            touched = np.unique(np.concatenate([slots, history[:, 0]]))
            self._first_vectors(touched[self.model.columns.updates[touched] == 0])
            walks = walk(
                self.graph, self._starts(self.items if major else touched), s.walks.length,
                s.model.seed, self.round_number, s.walks.p, s.walks.q, s.engine.threads,
            )  # fmt: skip
        with self.timed("learn"):
            self._learn(walks, history, target)
        if self.clock.time != NEVER:
            self.catalogue.expire()
        self.catalogue.drop_unused()
        changes = None
        if inputs.closes_commit or major:
            with self.timed("place"):
                changes = self._close(major)
        return Outputs(
            round_number=self.round_number,
            events=len(slots),
            duplicates=int((folded.fate == graphs.DUPLICATE).sum()),
            too_long=int((folded.fate == graphs.TOO_LONG).sum()),
            quality=quality,
            changes=changes,
        )

    def fold(self, clicks: Clicks) -> Folded:
        """Take clicks into sessions and graph, and no further.

        Folding in one batch or in many gives bitwise the same state: so a restart that folds what
        came after a checkpoint gets to where the worker was. An item whose clicks do not count gets
        no slot.
        """
        s = self.settings
        n, known = len(clicks), len(self.vocabulary)
        slots = self.vocabulary.intern(clicks.items)
        users = self.sessions.intern(clicks.users)
        self.catalogue.reserve()
        event_ids = np.zeros(0, np.uint64) if clicks.event_ids is None else clicks.event_ids
        batch = Batch(
            users=users,
            event_ids=np.ascontiguousarray(event_ids),
            times=np.ascontiguousarray(clicks.times),
            weights=np.ascontiguousarray(clicks.weights),
            known=known,
        )
        folded = Folded.of(slots, s.session.length, len(self.vocabulary) - known)
        half_life, horizon = int(s.graph.half_life), s.graph.horizon_ms
        tick = max(int(s.session.gap), horizon // SWEEPS, 1)
        g, clock = self.graph, self.clock
        rules = Rules(half_life, int(s.session.gap), tick, s.session.max_events, g.max_degree)
        if n and clock.landmark == NEVER:
            first = int(clicks.times[0])
            clock.landmark = first // half_life * half_life
            # Items that came with attributes before any click begin to age now.
            g.last_seen[self.items] = first
            self.model.rows.dirty[self.items] = True
        at = 0
        while at < n:
            at, why, clock.time = graphs.fold(
                at, batch, self.sessions.columns(), g.slabs(), folded,
                (clock.time, clock.landmark), rules,
            )  # fmt: skip
            if why == graphs.FULL:
                g.grow_pool()
            elif why == graphs.TICK:
                clock.time = int(clicks.times[at]) // tick * tick
                self._sweep(clock.time, horizon)
            elif why == graphs.MOVE:
                moved = (int(clicks.times[at]) - clock.landmark) // half_life
                g.shift(moved)
                for scaled in (folded.amounts, folded.added, self.model.columns.count):
                    np.ldexp(scaled, -moved, out=scaled)
                clock.landmark += moved * half_life
        self.sessions.collect()
        self._number(known, folded.born)
        return folded

    def _number(self, known: int, born: NDArray[np.int32]) -> None:
        """Give the items after the first `known` the slots `born`, and forget those with -1."""
        if (born == np.arange(known, len(self.vocabulary))).all():
            return
        order = np.argsort(born)[(born < 0).sum() :]
        names = self.vocabulary.names(known + order)
        self.vocabulary.cut(known)
        self.vocabulary.intern(names)

    def _sweep(self, now: int, horizon: int) -> None:
        """Forget sessions that are over, and nodes that nobody clicked for the horizon."""
        last_seen = self.graph.last_seen
        dead = (last_seen != NEVER) & (last_seen < now - horizon)
        self.sessions.end(now - int(self.settings.session.gap), dead)
        if dead.any():
            self.graph.drop(dead)

    def _first_vectors(self, new: NDArray[np.int32]) -> None:
        """Move both vectors of items never learned to the weighted mean of their neighbours'."""
        r, c = self.model.rows, self.model.columns
        for slot in new:
            nbr, wgt = self.graph.row(int(slot))
            settled = c.updates[nbr] > 0
            total = wgt[settled].sum()
            if total > 0.0:
                share = (wgt[settled] / total)[:, None]
                r.v[slot] += (share * skipgram.hidden(r, nbr[settled])).sum(axis=0)
                r.u[slot] = (share * r.u[nbr[settled]]).sum(axis=0)

    def _starts(self, touched: NDArray[np.int32]) -> NDArray[np.int32]:
        """Where walks start: the touched items, and a share of replay so that none goes stale."""
        s = self.settings.walks
        own = np.tile(touched, s.per_node)
        if len(self.items) == 0:
            return own
        rng = np.random.default_rng([self.settings.model.seed, self.round_number])
        replay = rng.integers(len(self.items), size=int(s.replay * len(own)))
        return np.concatenate([own, self.items[replay]])

    def _learn(
        self, walks: NDArray[np.int32], history: NDArray[np.int32], target: NDArray[np.int32]
    ) -> None:
        """Skip-gram on the walks, then on the transitions of the round."""
        m, c = self.settings.model, self.model.columns
        if len(self.items) == 0:
            return
        pool = negatives.pool(self.items, c.count[self.items], m.alpha)
        skipgram.learn_walks(
            self.model.rows, walks, pool, seed=m.seed, round_number=self.round_number,
            window=m.window, negatives=m.negatives, block=m.block, hardest_of=m.hardest_of,
            rate=m.rate, threads=self.settings.engine.threads,
        )  # fmt: skip
        skipgram.learn_sessions(
            self.model.rows, history, target, pool, seed=m.seed, round_number=self.round_number,
            passes=m.session_passes, decay=m.session_decay, negatives=m.negatives,
            hardest_of=m.hardest_of, rate=m.rate,
        )  # fmt: skip
        centres = walks[walks[:, 1] >= 0] if walks.shape[1] > 1 else walks[:0]
        seen = np.bincount(centres[centres >= 0], minlength=1)
        c.updates[: len(seen)] += seen
        np.add.at(c.updates, target, 1)

    def _close(self, major: bool) -> Changes:
        """Place the rows that changed since the last commit, and hand them over."""
        r, c = self.model.rows, self.model.columns
        placement = self.placer.refresh(
            self.placement, self.model, self.items, self.clock.time, major
        )
        if placement is not None:
            self.placement = placement
            self._placement_changed = True
            c.stale[self.items] = True
            r.dirty[self.items] = True
        slots = np.flatnonzero(r.dirty & c.alive).astype(np.int32)
        left = list(self.catalogue.gone.values())
        touched = np.unique(c.partition[np.concatenate([slots, left]).astype(np.int32)]).tolist()
        for partition in touched:
            self.versions[partition] = self.versions.get(partition, 0) + 1
        version_of = np.array([self.versions.get(p, 0) for p in range(self.partitions)], np.int64)
        c.version[slots] = version_of[c.partition[slots]]
        placed = self.placer.place(self.placement, self.model, slots)
        changes = Changes(
            keys=[encode(name) for name in self.vocabulary.names(slots)],
            partitions=c.partition[slots],
            rows=self.model.pack(slots, self.clock.landmark, self.graph.last_seen),
            published=placed.published,
            vectors=placed.vectors,
            contexts=placed.contexts,
            drift=placed.drift,
            gone=[
                Gone(
                    encode(name), p := int(c.partition[at]), self.versions[p], bool(c.published[at])
                )
                for name, at in self.catalogue.gone.items()
            ],
            versions={p: self.versions[p] for p in touched},
            placement=self.placement if self._placement_changed else None,
            time=self.clock.time,
            cluster_moves=placed.cluster_moves,
            bucket_moves=placed.bucket_moves,
        )
        r.dirty[slots] = False
        self.catalogue.gone = {}
        self._placement_changed = False
        if len(self.vocabulary) > 2 * self.vocabulary.known + 1024:
            self.catalogue.relabel(np.flatnonzero(c.alive[: len(self.vocabulary)]))
        return changes

    def publish_all(self) -> None:
        """Hand over all rows, the placement and new versions everywhere at the next commit."""
        newest = max(self.versions.values(), default=0)
        self.versions = dict.fromkeys(range(self.partitions), newest)
        rows, columns = self.model.rows, self.model.columns
        rows.dirty[columns.alive] = True
        columns.stale[self.items] = True
        self._placement_changed = self.placement.epoch > 0

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

    def load_rows(
        self, keys: Sequence[bytes], rows: NDArray[np.void],
        attributes: Callable[[str], Sequence[str]] = lambda item: (),
        before: Callable[[str], Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        """Take all packed rows into an engine whose graph and sessions are already restored.

        `attributes` gives the tokens of an item; it is asked now, and again when an item that left
        is clicked once more. `before` gives those by the settings that the rows were learned with,
        if these were others. Afterwards slots are in the order of birth, nodes without a row are
        gone, and the engine goes on as the one that packed the rows would have.
        """
        self.catalogue.attributes = attributes
        names = [decode(key) for key in keys]
        slots = self.vocabulary.intern(names)
        self.catalogue.reserve()
        c, g = self.model.columns, self.graph
        if len(slots):
            self.model.first_rows(slots, *hash_keys(list(keys), self.partitions))
            self.model.unpack(slots, rows)
            c.is_item[slots] = [not is_attribute(name) for name in names]
            half_life = int(self.settings.graph.half_life)
            landmark = max(self.clock.landmark, int(rows["landmark"].max()))
            if self.clock.landmark != NEVER:
                moved = -(-(landmark - self.clock.landmark) // half_life)
                self.graph.shift(moved)
                landmark = self.clock.landmark + moved * half_life
            self.clock.landmark = landmark
            # Whole half-lives; of a half-life that was changed, nearly: that will do for counts.
            clicked = rows["landmark"] != NEVER
            shifts = np.where(clicked, (rows["landmark"] - landmark) // half_life, 0)
            c.count[slots] = np.ldexp(rows["count"], shifts.astype(np.int32))
            g.last_seen[slots] = np.maximum(g.last_seen[slots], rows["last_seen"])
        dead = ~c.alive[: len(g.degree)]
        self.sessions.end(NEVER, dead)
        self.sessions.collect()
        g.drop(dead)
        born = np.flatnonzero(c.alive[: len(self.vocabulary)])
        self.catalogue.relabel(born[np.lexsort((c.born_rank[born], c.born_round[born]))])
        self.catalogue.recall_all(before)
