"""The algorithm: a round takes clicks into the graph, walks from what changed, and learns.

Read `Engine.step` from top to bottom. Everything random follows from (seed, round number), every
time is event time, and no result depends on slot numbers beyond their order, which is the order of
birth; so an engine restored from its rows, sessions and graph goes on bit for bit. What a round
costs follows from what it changes.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from core import restoring
from core.catalogue import Catalogue
from core.challenger import Challenger
from core.clicks import Clicks
from core.clock import Clock
from core.expiry import Expiry
from core.graph import fold as graphs
from core.graph.fold import Folded
from core.graph.graph import NEVER, Graph
from core.graph.sessions import Sessions
from core.graph.slabs import TOPIC
from core.graph.sweep import Sweep
from core.graph.written import Scale
from core.ids.vocabulary import ID_BYTES, Vocabulary, encode
from core.intake import Intake
from core.learner import Learner
from core.model import Model
from core.ownership import Ownership
from core.placing.leaving import AT_ONCE, Leaving, ready
from core.placing.placement import Placement, Placer
from core.quality import NOTHING_RANKED, measure
from core.ranking.fusion import Fusion
from core.rounds import ANY_TIME, Changes, Evidence, Inputs, Outputs
from core.rows import Packed
from core.settings import ChallengerSettings, Settings
from core.starts import Starts
from core.succession import promote

RECORDS_OF_GONE = 3
"""Tombstones of an item that leaves: of its row, its row of the graph and its vector."""
SHARE_OF_GONE = 4
"""A commit gives this part of its room to items that expire."""


@dataclass
class Engine:
    """The state of one worker and the steps on it.

    `partitions` is how many partitions items are spread over (those of `model-state`). `timed` is
    entered around each stage with its name: rank, fold, walk, learn, challenger, place.
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
    outdated: dict[int, int] = field(default_factory=dict)
    """By item partition: rows that were written up to this version are those of a model from which
    a challenger took over. Whoever reads one learns and writes it again."""
    sweeps: list[Sweep] = field(default_factory=list)
    """Sweeps of the graph that are under way, which follow when slots are numbered anew."""

    def __post_init__(self) -> None:
        s = self.settings
        self.catalogue = Catalogue(s, self.partitions)
        self.placer = Placer(s, self.catalogue.vocabulary.names)
        self.leaving = Leaving(s, self.placer)
        self._placement_changed = False
        self.learner = Learner(s, self.catalogue)
        self.challenger: Challenger | None = None
        self.starts = Starts(s, self.catalogue, self.placer)
        self.expiry = Expiry(s, self.catalogue)
        self.intake = Intake(s, self.catalogue, self.clock)
        self.ownership = Ownership(s, self.catalogue, self.leaving, self.starts, self.clock)

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
        """Take one round. It costs O(clicks + walks + rows that moved), and with attributes, once
        in a while, a look at those of each item (`core.learning.lending`)."""
        s, catalogue = self.settings, self.catalogue
        self.round_number += 1
        catalogue.begin_round(self.round_number)
        self.sessions.forget(inputs.forgotten)
        gone = inputs.gone if inputs.is_told else self.gone(inputs)
        if inputs.is_told:
            retired = catalogue.retired(inputs.attributes)
            catalogue.leave(retired[self.graph.clicks[retired] == 0])  # the log has none of them
        catalogue.leave_if_unseen(gone)
        self.leaving.any_stale |= bool(catalogue.waiting)
        catalogue.describe(inputs.attributes, self.clock.time)
        with self.timed("rank"):
            quality = NOTHING_RANKED
            if inputs.ranks:
                quality = measure(
                    inputs.clicks.without_impressions, catalogue, self.fusion, s, self.round_number,
                    learns=bool(self.model.owns[0]),
                )  # fmt: skip
                if self.challenger is not None:
                    duel = quality.duel
                    self.challenger.test.add(duel.trials, duel.wins, duel.losses)
        with self.timed("fold"):
            before, admitted = self.clock.time, -catalogue.admission.admitted
            folded = self.fold(inputs.clicks)
            admitted += catalogue.admission.admitted
            slots, known = folded.slots[folded.fate == graphs.KEPT], len(self.items)
            births = catalogue.give_birth(slots)
            self.expiry.add_late(self.items[known:])
            catalogue.notice(slots)
            self.model.rows.dirty[slots] = self.model.rows.owned[slots]
        continued = folded.added > 0.0
        history, target = folded.history[continued], folded.target[continued]
        if self.model.owns.any():  # or no row would move
            with self.timed("walk"):
                touched = np.unique(np.concatenate([slots, history[:, 0]]))
                starts = self.starts.of(
                    touched, self.placement, self.round_number, before, self.clock.time,
                    self.learner.corpus.has_walks,
                )  # fmt: skip
                self.learner.begin(self.starts.begun)
                walks = self.learner.walks(starts, self.round_number)
            with self.timed("learn"):
                at = self.clock.time, self.round_number, self.placement
                self.learner.learn(walks, history, target, *at)
            if self.challenger is not None:
                with self.timed("challenger"):
                    self.challenger.learn(self.starts, walks, history, target, *at)
        catalogue.drop_unused(inputs.room // SHARE_OF_GONE - RECORDS_OF_GONE * len(catalogue.gone))
        counts = folded.fate != graphs.DUPLICATE
        clicks = inputs.clicks if counts.all() else inputs.clicks.at(counts)
        held = folded.fate[counts] == graphs.HELD
        evidence = Evidence(
            self.round_number, gone, inputs.forgotten, clicks, births, held if held.any() else None
        )
        changes = None
        if inputs.closes_commit:
            with self.timed("place"):
                changes = self._close(inputs)
        return Outputs(
            round_number=self.round_number,
            events=len(slots),
            duplicates=len(counts) - len(clicks),
            too_long=int((folded.fate == graphs.TOO_LONG).sum()),
            held=int(held.sum()),
            admitted=admitted,
            quality=quality,
            evidence=evidence,
            changes=changes,
        )

    def gone(self, inputs: Inputs) -> dict[str, int]:
        """The items that leave with this round, as in `Evidence`: some that expired, as there is
        room for their tombstones, and those that are retired."""
        catalogue, room = self.catalogue, inputs.room // SHARE_OF_GONE // RECORDS_OF_GONE
        expired = self.expiry.next(self.clock.time, room - len(catalogue.gone))
        retired = catalogue.retired(inputs.attributes)
        names = catalogue.vocabulary.names
        since = self.expiry.since
        return dict.fromkeys(names(expired), since) | dict.fromkeys(names(retired), ANY_TIME)

    def fold(self, clicks: Clicks) -> Folded:
        """Take clicks into sessions and graph, and no further (`core.intake`)."""
        return self.intake.fold(clicks)

    # -- what leaves -----------------------------------------------------------------------------

    def _close(self, inputs: Inputs) -> Changes:
        """Choose the rows that leave, place them, and hand over copies of them."""
        promotion = promote(self)
        c, catalogue = self.model.columns, self.catalogue
        self._refresh()
        judged = self.leaving.judge(self.model, self.placement)
        must = judged
        if self.settings.publish.min_drift > 0:
            told = [catalogue.vocabulary.get(name) for name in catalogue.described]
            must = np.unique(np.array([slot for slot in told if slot is not None], np.int32))
            must = must[self.model.rows.owned[must]]
        catalogue.described.clear()
        now = self.clock.time if inputs.now is None else inputs.now
        left = self.ownership.left(inputs.room // SHARE_OF_GONE // RECORDS_OF_GONE)
        room = inputs.room - RECORDS_OF_GONE * len(left)
        behind = self.starts.behind
        held = behind[self.ownership.is_of_another_space(behind)]
        must = np.setdiff1d(must, held) if len(held) else must
        slots = self.leaving.choose(self.model, must, held, room, inputs.budget, now)
        keys = [encode(name) for name in self.vocabulary.names(slots)]
        if left:
            written_over = set(keys)
            left = [one for one in left if one.key not in written_over]
        touched = sorted({*c.partition[slots].tolist(), *(one.partition for one in left)})
        if promotion is not None and promotion.is_new_space:
            touched = list(range(self.partitions))  # no later version may be of the space before
        for partition in touched:
            self.versions[partition] = self.versions.get(partition, 0) + 1
        version_of = np.array([self.versions.get(p, 0) for p in range(self.partitions)], np.int64)
        gone = [one._replace(version=self.versions[one.partition]) for one in left]
        c.version[slots] = version_of[c.partition[slots]]
        # Those from which walks are still to start know no more than before.
        learned = slots[~np.isin(slots, self.starts.behind)]
        c.heard[learned] = self.graph.clicks[learned]
        if self.model.owns[0]:
            self.place_by(self.placer.spawned(self.placement, self.model, slots))
        placed = self.leaving.leave(self.model, self.placement, slots, now)
        waiting, epoch = self.leaving.waiting, self.placement.epoch
        is_written = self._placement_changed and bool(self.model.owns[0])
        needs_oldest = is_written and self.settings.publish.form == "residual"
        changes = Changes(
            keys=keys,
            partitions=c.partition[slots],
            rows=self.model.pack(slots, self.graph.last_seen),
            published=placed.published,
            vectors=placed.vectors,
            contexts=placed.contexts,
            lengths=placed.lengths,
            drift=placed.drift,
            gone=gone,
            versions={p: self.versions[p] for p in touched},
            placed_by=self.placement,
            placement=self.placement if is_written else None,
            oldest_epoch=self.ownership.oldest_epoch(epoch) if needs_oldest else 0,
            time=self.clock.time,
            cluster_moves=placed.cluster_moves,
            bucket_moves=placed.bucket_moves,
            waiting=len(waiting),
            stale=self.leaving.stale,
            furthest=float(c.moved[waiting[c.moved[waiting] < AT_ONCE]].max(initial=0.0)),
            promotion=promotion,
        )
        self._placement_changed &= not self.model.owns[0]
        if len(self.vocabulary) > 2 * self.vocabulary.known + 1024:
            self._relabel(np.flatnonzero(c.alive[: len(self.vocabulary)]))
        return changes

    def _refresh(self) -> None:
        """Move the centroids where a major update is at its end, or make the first ones."""
        if not self.model.owns[0]:
            return  # the owner of the first partition does
        if self.starts.is_major_over or self.placer.is_first_due(
            self.placement, self.catalogue.settled
        ):
            self.place_by(
                self.placer.refresh(self.placement, self.model, self.items, self.clock.time)
            )
            self.starts.major = None
            # What was never published, or came back and is not learned yet, will be placed by them
            # when it is.
            known = self.items[self.model.columns.published[self.items] > 0]
            self.ownership.mark_stale(known[ready(self.model, known)])

    def place_by(self, placement: Placement) -> None:
        """Go by this from now on; if it is another, it leaves with the commit."""
        self._placement_changed |= placement is not self.placement
        self.placement = placement

    def _relabel(self, order: NDArray[np.int64]) -> None:
        new = self.catalogue.relabel(order)
        self.leaving.relabel(new)
        self.starts.relabel(new)
        self.expiry.relabel(new)
        for sweep in self.sweeps:
            sweep.relabel(order)

    # -- a challenger ----------------------------------------------------------------------------

    def challenge(self, settings: Settings, terms: ChallengerSettings) -> Challenger:
        """Let another configuration learn beside this one from now on (`core.challenger`).
        ValueError if it may not be beside it."""
        one = self.challenger = Challenger(settings, terms, self.settings, self.catalogue)
        self.catalogue.beside = one.model
        self.intake.reach = max(map(self.intake.reach_of, (self.settings, settings)))
        return one

    def rest(self) -> None:
        """Go on without a challenger."""
        self.challenger = self.catalogue.beside = None
        self.intake.reach = self.intake.reach_of(self.settings)

    # -- owners ----------------------------------------------------------------------------------

    def own(
        self, partitions: Iterable[int], written: Callable[[Sequence[bytes]], Packed]
    ) -> None:  # fmt: skip
        """Change the rows of these item partitions alone from now on (`core.ownership`)."""
        gained = self.ownership.change(partitions, written)
        self.ownership.find_what_waits(
            gained, self.placement.epoch, self.publish_from, self.outdated
        )

    def take_placement(self, placement: Placement) -> None:
        """Go by the centroids of another worker."""
        here = self.placement
        if placement.epoch > here.epoch:
            self.placement, self.starts.major = placement, None
            items = self.items
            self.ownership.mark_stale(items[self.model.columns.published[items] > 0])
        elif placement.epoch == here.epoch and placement.founded > here.founded:
            self.placement = placement

    def tell_centroids(self) -> None:
        """Let the placement leave once more where residuals are published: who reads them has to
        have the centroids, and may have had full vectors."""
        self._placement_changed |= (
            self.settings.publish.form == "residual" and self.placement.epoch > 0
        )

    def has_work(self, now: int, decides: bool = True) -> bool:
        """Whether rounds without clicks have something to do: rows wait to leave, clusters to be
        made, or items to be learned again or, where this worker decides what leaves, to expire.
        `now` (ms) is what `publish.min_interval` goes by."""
        waits = self.leaving.any_stale or self.leaving.due_at <= now
        waits |= bool(self.catalogue.waiting or self.catalogue.heard)
        if (owns := self.model.owns).any():
            waits |= self.starts.is_asked(self.placement)
            # Who has come by every item waits for the centroids of the one who leads.
            walks = bool(owns[0]) or not self.starts.is_major_over
            waits |= self.starts.major is not None and walks
            # Rows of others may come last of all that the first clusters wait for.
            first = self.placer.is_first_due(self.placement, self.catalogue.settled)
            waits |= bool(owns[0]) and first
        expires = decides and self.clock.time != NEVER and self.expiry.is_behind
        return waits or expires or len(self.starts.behind) > 0

    def publish_all(self) -> None:
        """Write all rows, vectors, the placement and the graph again, with new versions, as commits
        have room for them."""
        self.write_all()
        self._placement_changed = self.placement.epoch > 0
        self.graph.changed[self.graph.last_seen != NEVER] |= TOPIC

    def write_all(self) -> None:
        """Write all rows again, with versions that are above all that there are."""
        newest = max(self.versions.values(), default=0)
        self.versions = dict.fromkeys(range(self.partitions), newest)
        self.publish_from = newest + 1
        self.ownership.mark_stale(np.flatnonzero(self.model.columns.alive))

    def table_bytes(self) -> dict[str, int]:
        """Bytes of memory of each table: vectors, graph, sessions, the ids that are counted, and
        ids (a close estimate)."""
        models = filter(None, (self.model, self.catalogue.beside))
        tables = [table for model in models for table in (model.rows, model.columns)]
        return {
            "vectors": sum(int(getattr(t, f.name).nbytes) for t in tables for f in fields(t)),
            "graph": self.graph.nbytes,
            "sessions": self.sessions.nbytes,
            "admission": self.catalogue.admission.nbytes,
            "ids": ID_BYTES * (self.vocabulary.known + len(self.sessions.users)),
        }

    # -- restore ---------------------------------------------------------------------------------

    def fold_again(self, evidence: Evidence, commit: int) -> None:
        """As `core.restoring.fold_again`."""
        restoring.fold_again(self, evidence, commit)

    def load_rows(
        self, parts: Iterable[Packed], attributes: Callable[[str], Sequence[str]] = lambda item: (),
    ) -> None:  # fmt: skip
        """As `core.restoring.load_rows`."""
        restoring.load_rows(self, parts, attributes)
