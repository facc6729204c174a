"""Which rows are changed here, and how the others come in.

Every row has one owner, who moves, places and writes it; all others read it as it was written
last. Who owns an item partition may change between two commits. What a new owner has to do follows
from the rows and the graph: items that were clicked after their rows were written start walks once
more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue, hash_tokens
from core.clock import Clock
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode, encode
from core.placing.clusters import NONE
from core.placing.leaving import Leaving, ready
from core.placing.placement import SETTLED
from core.rounds import Gone
from core.rows import Packed
from core.settings import Settings
from core.starts import Starts

KEPT = "is_item", "born_round", "born_rank", "users", "sent"
"""Columns that do not follow from what was written of a row."""


class Ownership:
    """What of a catalogue is owned. `model.owns` bool [partitions] has it by item partition, and
    `model.rows.owned` by row."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, leaving: Leaving, starts: Starts,
        clock: Clock,
    ) -> None:  # fmt: skip
        self.horizon, self.clock = settings.graph.horizon_ms, clock
        self.catalogue, self.leaving, self.starts = catalogue, leaving, starts
        self.owed: dict[str, Gone] = {}
        """Rows whose items do not live here: they left, and their owner has not written so yet, or
        they were not heard of yet. Who comes to own them has read all there is, and writes it."""
        self.due: dict[str, Gone] = {}
        """Those of `owed` that have come to be owned."""
        self.dropped: dict[str, int] = {}
        """While evidence is folded again: the items that left, and in which round; 0 if that is
        not known."""

    def change(
        self, partitions: Iterable[int], written: Callable[[Sequence[bytes]], Packed]
    ) -> NDArray[np.int32]:
        """Own these item partitions alone from now on. Returns the items that are gained.

        Rows of a partition that is lost become again what was last written of them, which `written`
        gives for keys, as far as there is something.
        """
        model = self.catalogue.model
        c, owns = model.columns, model.owns
        before = owns.copy()
        owns[:] = np.isin(np.arange(len(owns)), list(partitions))
        alive = np.flatnonzero(c.alive).astype(np.int32)
        model.rows.owned[alive] = owns[c.partition[alive]]
        lost = alive[(before & ~owns)[c.partition[alive]]]
        if len(lost):
            self._forget(lost)
            self.read(*written([encode(name) for name in self.catalogue.vocabulary.names(lost)]))
        self.due = {name: one for name, one in self.due.items() if owns[one.partition]}
        for name, one in list(self.owed.items()):
            if owns[one.partition]:
                self.due[name] = self.owed.pop(name)
        return alive[(~before & owns)[c.partition[alive]] & c.is_item[alive]]

    def _forget(self, slots: NDArray[np.int32]) -> None:
        """Give rows the first vectors of their keys."""
        catalogue, model = self.catalogue, self.catalogue.model
        c, r = model.columns, model.rows
        catalogue.settled -= int((c.updates[slots[c.is_item[slots]]] >= SETTLED).sum())
        attrs = r.attrs[slots]
        keys = [encode(name) for name in catalogue.vocabulary.names(slots)]
        placed = hash_keys(keys, catalogue.partitions)
        model.first_rows(slots, *placed, KEPT, c.is_item[slots])
        r.attrs[slots] = attrs

    def read(self, keys: Sequence[bytes], rows: NDArray[np.void]) -> None:
        """Take rows that their owners have written, as far as their items live here: what is not
        known of yet takes its row when it is born (`Catalogue.written`), with the next round if it
        was only described."""
        catalogue = self.catalogue
        names = [decode(key) for key in keys]
        found = [catalogue.vocabulary.get(name) for name in names]
        there = np.array([slot is not None for slot in found], np.bool_)
        for at in np.flatnonzero(there).tolist() if self.owed else ():
            self.owed.pop(names[at], None)
        slots = [slot for slot in found if slot is not None]
        catalogue.take(np.array(slots, np.int32), rows[there])
        unknown = [keys[at] for at in np.flatnonzero(~there).tolist()]
        places = hash_keys(unknown, catalogue.partitions)[0].tolist()
        others = rows[~there]
        published, described = (others["published"] > 0).tolist(), others["described"].tolist()
        is_young = (others["last_seen"] > self.clock.time - self.horizon).tolist()
        for n, (key, place) in enumerate(zip(unknown, places, strict=True)):
            name = decode(key)
            self.owed[name] = Gone(key, place, 0, published[n])
            # What the catalogue says of it by now is what its owner knew.
            if described[n] and is_young[n]:
                tokens = list(self.catalogue.attributes(name)[: self.catalogue.width])
                if hash_tokens(tokens) == described[n]:
                    self.catalogue.heard.append(name)

    def left(self, most: int) -> list[Gone]:
        """What left since the last commit, and some of what earlier owners have left undone: the
        tombstones to write, without versions."""
        catalogue, c = self.catalogue, self.catalogue.model.columns
        out = {}
        for name, at in catalogue.gone.items():
            one = Gone(
                encode(name), int(c.partition[at]), 0, bool(c.published[at] > 0),
                bool(c.version[at] > 0),
            )  # fmt: skip
            if catalogue.model.owns[one.partition]:
                out[name] = one
            elif one.had_row:
                self.owed[name] = one
        catalogue.gone = {}
        for name in list(self.due)[:most]:
            one, slot = self.due.pop(name), catalogue.vocabulary.get(name)
            # What was born again since then may have no row of its own yet.
            if slot is None or c.version[slot] == 0:
                out[name] = one
        return list(out.values())

    def drop_again(self) -> None:
        """Let those leave once more whose rows are still there, though evidence says that they
        left, and that nobody clicked them since: their owner ended before it wrote that."""
        vocabulary, c = self.catalogue.vocabulary, self.catalogue.model.columns
        found = [(vocabulary.get(name), number) for name, number in self.dropped.items()]
        there = np.array([slot for slot, _ in found if slot is not None], np.int32)
        since = np.array([number for slot, number in found if slot is not None], np.int64)
        unborn = np.where(since > 0, c.born_round[there] < since, c.described[there] == 0)
        unborn &= c.alive[there] & (self.catalogue.graph.clicks[there] == 0)
        self.catalogue.leave(there[unborn])
        self.dropped.clear()

    def unpublish(self, keys: Sequence[bytes]) -> None:
        """Notice that the owners of these rows have written tombstones of them. What is clicked
        here since then has a row once more, as nothing is known of."""
        for key in keys:
            self.owed.pop(decode(key), None)
        slots = [self.catalogue.vocabulary.get(decode(key)) for key in keys]
        there = np.array([slot for slot in slots if slot is not None], np.int32)
        self._forget(there[~self.catalogue.model.rows.owned[there]])

    def is_of_another_space(self, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of these items are as they were in the vector space before, bool [n]: their owner
        has not written them in this one, or what was learned is lost and not learned again yet."""
        model = self.catalogue.model
        published, owned = model.columns.published[slots], model.rows.owned[slots]
        is_old = (published > 0) & (published < self.leaving.space_from)
        if is_old.any():
            is_old &= ~owned | np.isin(slots, self.starts.behind)
        return is_old

    def oldest_epoch(self, newest: int) -> int:
        """The oldest epoch that a vector of any owner names, or may name yet: `newest` at most, and
        0 where that cannot be told. After `left`, and when the rows of a commit are placed.

        Of an item partition the epochs never go back: an owner goes by no older centroids than it
        did before, and who comes to own it has read all that was written until then. So it is those
        that are known to be published, unless a partition has none of them, or some have left and
        their tombstones have not.
        """
        model = self.catalogue.model
        c, known = model.columns, model.owns.copy()
        there = np.flatnonzero(c.alive & c.is_item & (c.published > 0))
        known[c.partition[there]] = True
        if not known.all() or any(o.was_published for o in (self.owed | self.due).values()):
            return 0
        return int(c.epoch[there].min(initial=newest))

    def mark_stale(self, slots: NDArray[np.integer]) -> None:
        """Let owned rows leave with one of the next commits, however little they moved."""
        model = self.catalogue.model
        slots = slots[model.rows.owned[slots]]
        model.columns.stale[slots] = True
        self.leaving.any_stale = self.leaving.any_stale or len(slots) > 0

    def find_what_waits(
        self, items: NDArray[np.int32], epoch: int, publish_from: int, outdated: Mapping[int, int],
    ) -> None:  # fmt: skip
        """What was to be written, and was not, by whoever owned these items before: it follows from
        their rows. `epoch` is that of the centroids, `publish_from` and `outdated` as of the
        engine."""
        model, graph = self.catalogue.model, self.catalogue.graph
        c, owned = model.columns, model.rows.owned
        items = items[owned[items]]
        alive = np.flatnonzero(c.alive & owned)
        # One that came back, and is not learned yet, has only the vector that it had.
        known, is_old = c.published[items] > 0, c.epoch[items] != epoch
        c.stale[items] |= ready(model, items) & (is_old | ~known)
        c.stale[alive] |= c.version[alive] < publish_from
        if outdated:
            until = np.array([outdated.get(p, 0) for p in range(len(model.owns))], np.int64)
            old = items[(c.version[items] > 0) & (c.version[items] <= until[c.partition[items]])]
            # They know of nothing until walks start from them: one that is written before that has
            # a new version, and a restart still finds it behind.
            c.stale[old], c.heard[old] = True, 0
            # Of another space they are no more than a beginning, and learn as what is new does.
            lost = old[c.version[old] < self.leaving.space_from]
            model.rows.acc_v[lost] = model.rows.acc_u[lost] = 0.0
            c.cluster[lost] = NONE
        self.leaving.any_stale = bool(c.stale.any())
        clicks = graph.clicks[items]
        behind = items[(clicks != c.heard[items]) & (clicks > 0)]
        self.starts.behind = np.union1d(self.starts.behind, behind).astype(np.int32)
