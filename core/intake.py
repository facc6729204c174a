"""Clicks come in: sessions and graph, and the slots of items that were not known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.clock import Clock
from core.graph import fold as graphs
from core.graph.fold import Batch, Folded, Rules
from core.graph.graph import LIVE, NEVER
from core.graph.slabs import UNWRITTEN
from core.learning.corpus import Corpus
from core.settings import Settings


class Intake:
    """Folds clicks into the sessions and the graph of a catalogue, and moves the clock on."""

    def __init__(self, settings: Settings, catalogue: Catalogue, clock: Clock) -> None:
        self.settings, self.catalogue, self.clock = settings, catalogue, clock
        self.reach = self.reach_of(settings)
        """How many items before a click are told of it."""

    @staticmethod
    def reach_of(settings: Settings) -> int:
        """How many of them learning with these settings asks for."""
        return max(settings.session.length, Corpus.reach(settings))

    def fold(self, clicks: Clicks, commit: int = LIVE) -> Folded:
        """Take clicks into sessions and graph.

        Folding in one batch or in many gives bitwise the same state: so a restart that folds what
        came after a sweep gets to where the worker was. An item whose clicks do not count gets no
        slot. With a `commit`, its clicks are folded again into the rows that do not have them.
        """
        s, names = self.settings, self.catalogue.vocabulary
        known, items, sessions = len(names), self.catalogue.items, self.catalogue.sessions
        admission = self.catalogue.admission
        slots = names.intern(clicks.items)
        finds_births = commit == LIVE or admission.is_on
        if not finds_births:
            known = len(names)  # what is born is told
        users = sessions.intern(clicks.users)
        self.catalogue.reserve()
        batch = Batch(
            users=users,
            event_ids=_column(clicks.event_ids, np.uint64),
            times=np.ascontiguousarray(clicks.times),
            weights=np.ascontiguousarray(clicks.weights),
            partitions=_column(clicks.partitions, np.int32),
            clocks=self.clock.of(clicks),
            rows=len(sessions.names),
            known=known,
        )
        folded = Folded.of(slots, self.reach, len(names) - known)
        half_life = int(s.graph.half_life)
        g, clock, n = self.catalogue.graph, self.clock, len(clicks)
        rules = Rules(half_life, int(s.session.gap), s.session.max_events, g.max_degree, commit)
        if n and clock.landmark == NEVER:
            clock.landmark = int(clicks.times[0]) // half_life * half_life
        if n and clock.time == NEVER:
            # Items that came with attributes before any click begin to age now.
            rows = self.catalogue.model.rows
            g.last_seen[items] = int(clicks.times[0])
            g.changed[items] |= UNWRITTEN
            rows.dirty[items] = rows.owned[items]
        at, counting = 0, admission.of(clicks)
        while at < n:
            at, why, clock.time = graphs.fold(
                at, batch, sessions.columns(), g.slabs(), counting, folded,
                (clock.time, clock.landmark), rules,
            )  # fmt: skip
            if why == graphs.FULL:
                g.grow_pool()
            elif why == graphs.CROWDED:
                counting = admission.make_room(counting)
            elif why == graphs.MOVE:
                moved = (int(clicks.times[at]) - clock.landmark) // half_life
                g.shift(moved)
                for scaled in (folded.amounts, folded.added):
                    np.ldexp(scaled, -moved, out=scaled)
                clock.landmark += moved * half_life
        if finds_births:
            self._number(known, folded.born)
        self.catalogue.visits.add(folded, users, batch.times, sessions.newest)
        sessions.collect()
        return folded

    def _number(self, known: int, born: NDArray[np.int32]) -> None:
        """Give the items after the first `known` the slots `born`, and forget those with -1."""
        vocabulary = self.catalogue.vocabulary
        if (born == np.arange(known, len(vocabulary))).all():
            return
        order = np.argsort(born)[(born < 0).sum() :]
        names = vocabulary.names(known + order)
        vocabulary.cut(known)
        vocabulary.intern(names)


def _column(given: NDArray[Any] | None, kind: type[np.generic]) -> NDArray[Any]:
    return np.zeros(0, kind) if given is None else np.ascontiguousarray(given, kind)
