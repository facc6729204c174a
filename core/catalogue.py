"""Which items and attributes have a slot, which is their row in every array of the engine.

An item is born with its first click that counts, which is the one that admits it
(`core.graph.admission`), or with its attributes; it leaves when it was retired, or when nobody
clicked it for the horizon.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from core.graph.admission import Admission
from core.graph.graph import NEVER, Graph
from core.graph.sessions import Sessions
from core.graph.slabs import UNWRITTEN
from core.ids.hashing import hash_keys
from core.ids.vocabulary import Vocabulary, attribute_key, decode, encode, is_attribute
from core.model import Model
from core.placing.placement import SETTLED
from core.ranking.visits import Visits
from core.rows import Packed
from core.settings import AdmissionSettings, Settings

TOGETHER = 500
"""Items that a round describes once more at most."""


class Living:
    """Slots of the living items, ascending, in memory that grows in steps."""

    def __init__(self) -> None:
        self._slots = np.zeros(1024, np.int32)
        self._n = 0

    @property
    def slots(self) -> NDArray[np.int32]:
        return self._slots[: self._n]

    def add(self, slots: NDArray[np.int32]) -> None:
        """Add slots, ascending, that are above all others."""
        n = self._n + len(slots)
        if n > len(self._slots):
            self._slots = np.concatenate([self.slots, np.zeros(n + n // 2, np.int32)])
        self._slots[self._n : n] = slots
        self._n = n

    def insert(self, slots: NDArray[np.int32]) -> None:
        """Add slots, ascending, wherever they belong; those that are there stay."""
        at = np.searchsorted(self.slots, slots)
        new = at == self._n
        new[~new] = self.slots[at[~new]] != slots[~new]
        if (at[new] == self._n).all():
            self.add(slots[new])
        else:
            self.replace(np.insert(self.slots, at[new], slots[new]))

    def remove(self, slots: NDArray[np.integer]) -> None:
        at = np.searchsorted(self.slots, np.sort(slots))
        left = np.delete(self.slots, at)
        self._n = len(left)
        self._slots[: self._n] = left

    def replace(self, slots: NDArray[np.int32]) -> None:
        self._n = 0
        self.add(slots)


class Catalogue:
    """Holds the living items and attributes, their rows in all tables, and keeps these in step."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.partitions, self.width = partitions, settings.model.attribute_slots
        self.vocabulary = Vocabulary()
        self.graph = Graph(settings.graph.max_degree)
        self.sessions = Sessions(settings.session.length, settings.session.event_ids)
        self.admission = Admission(settings.admission_ms)
        self.visits = Visits(settings.session.visits)
        self.model = Model(settings, partitions)
        self.beside: Model | None = None
        """A model of the same slots that learns beside it (`core.challenger`)."""
        self.living = Living()
        self._clicked = Living()
        """Those of them that were clicked; unused where items cannot be known before that."""
        self.settled = 0
        """Living items that were a centre SETTLED times."""
        self.gone: dict[str, int] = {}
        """The items that left since the last commit, and the slot that each had, whose columns are
        still to be read."""
        self.described: set[str] = set()
        """The items that were described since the last commit, whose rows leave with it."""
        self.attributes: Callable[[str], Sequence[str]] = lambda item: ()
        """Gives the attribute tokens that an item had before it left, or before a restart."""
        self.written: Callable[[Sequence[bytes]], Packed] | None = None
        """Gives what was last written of rows, by key, where others write some."""
        self.heard: list[str] = []
        """Items that their owners have described, to be born here with the next rounds."""
        self.waiting: list[str] = []
        """Items to describe in the next rounds, as an attribute of theirs has no row."""
        self.round_number = 0
        self._born = 0
        self._unused: set[int] = set()
        """Attributes that lost their last item, and have not left yet."""

    def begin_round(self, number: int) -> None:
        self.round_number, self._born = number, 0

    @property
    def items(self) -> NDArray[np.int32]:
        """Slots of the living items, ascending."""
        return self.living.slots

    @property
    def clicked(self) -> NDArray[np.int32]:
        """Slots of the living items that were clicked, ascending. Of the others nobody has seen
        any, so they are no negatives: nothing says that they do not belong where they are."""
        return self._clicked.slots if self.width else self.items

    def notice(self, slots: NDArray[np.int32]) -> None:
        """Count living items among those that were clicked."""
        if self.width:
            self._clicked.insert(np.unique(slots))

    def reserve(self) -> None:
        """Make room for a row of each slot."""
        self.graph.reserve(len(self.vocabulary))
        n = len(self.graph.degree)
        if n > len(self.model.columns.alive):
            self.model.reserve(n)
            if self.beside is not None:
                self.beside.reserve(n)
                self.beside.share(self.model)
        self.visits.reserve(len(self.graph.degree))

    def leave(self, slots: NDArray[np.integer]) -> list[str]:
        """Let these items leave, with arcs and sessions. Returns their names."""
        if len(slots) == 0:
            return []
        names = self.vocabulary.names(slots)
        dead = np.zeros(len(self.graph.degree), np.bool_)
        dead[slots] = True
        self.sessions.end_with(dead)
        self.graph.drop(slots)
        self._remove(slots)
        return names

    def leave_if_unseen(self, gone: Mapping[str, int]) -> None:
        """Let these items leave, unless they were clicked at the time of each (ms) or later."""
        slots = [slot for slot in map(self.vocabulary.get, gone) if slot is not None]
        since = [gone[name] for name in self.vocabulary.names(np.array(slots, np.int64))]
        there = np.array(slots, np.int32)
        self.leave(there[self.graph.last_seen[there] < np.array(since, np.int64)])
        self.admission.leave(gone)

    def count_by(self, settings: AdmissionSettings) -> None:
        """Count ids by these settings from here on: what is counted stays, and what was clicked,
        and is in the graph, is admitted. `settings` are as of `Settings.admission_ms`."""
        before = self.admission
        if before.settings != settings:
            self.admission = Admission(settings)
            self.admission.load([before.entries()])
        if not settings.is_on:
            return
        slots = np.flatnonzero(self.graph.clicks[: len(self.vocabulary)] > 0)
        self.admission.admit(self.vocabulary.names(slots), self.graph.last_seen[slots])

    def retired(
        self, attributes: Sequence[tuple[str, Sequence[str] | None]]
    ) -> NDArray[np.integer]:
        """The slots of the items whose last word is that they are retired."""
        gone = [item for item, tokens in dict(attributes).items() if tokens is None]
        slots = [slot for slot in map(self.vocabulary.get, gone) if slot is not None]
        return np.array([slot for slot in slots if self.model.columns.alive[slot]], np.int32)

    def describe(self, attributes: Sequence[tuple[str, Sequence[str] | None]], now: int) -> None:
        """Give items their attributes; an unknown item is born with them."""
        width = self.width
        again, self.waiting = self.waiting[:TOGETHER], self.waiting[TOGETHER:]
        heard, self.heard = self.heard[:TOGETHER], self.heard[TOGETHER:]
        again = [*(item for item in again if item in self.vocabulary), *heard]
        latest = {item: self.attributes(item) for item in again} | dict(attributes)
        described = {item: list(t)[:width] for item, t in latest.items() if t is not None}
        told = {item for item, _ in attributes}
        if width == 0 or not described:
            return
        c, g, r = self.model.columns, self.graph, self.model.rows
        keys = [k for item, t in described.items() for k in (item, *map(attribute_key, t))]
        born = self.vocabulary.intern(keys)
        self.reserve()
        self.give_birth(born)
        numbers = iter(born.tolist())
        for item, tokens in described.items():
            slot = next(numbers)
            self._set_attributes(slot, tokens, list(islice(numbers, len(tokens))))
            c.stale[slot] = r.dirty[slot] = r.owned[slot]
            if g.last_seen[slot] == NEVER:
                g.last_seen[slot] = now
            if item in told:
                self.described.add(item)

    def _set_attributes(self, slot: int, tokens: Sequence[str], attributes: Sequence[int]) -> None:
        self._let_go(self.model.rows.attrs[slot])
        self.model.rows.attrs[slot] = -1
        self.model.rows.attrs[slot, : len(attributes)] = attributes
        self.model.columns.described[slot] = hash_tokens(tokens)
        np.add.at(self.model.columns.users, attributes, 1)

    def _let_go(self, attributes: NDArray[np.int32]) -> None:
        """Items do not have these any more; -1 is none."""
        users, old = self.model.columns.users, attributes[attributes >= 0]
        np.subtract.at(users, old, 1)
        self._unused.update(old[users[old] == 0].tolist())

    def drop_unused(self, most: int) -> None:
        """Let the attributes leave whose last item left, or has others by now; at most so many."""
        c = self.model.columns
        left = [slot for slot in sorted(self._unused) if c.alive[slot] and c.users[slot] == 0]
        left, self._unused = left[: max(most, 0)], set(left[max(most, 0) :])
        if left:
            self._remove(np.array(left))

    def give_birth(self, slots: NDArray[np.int32]) -> dict[str, int]:
        """Give first rows to those of the slots that have none; the items among them, and the rank
        of each in the round."""
        c = self.model.columns
        new = np.unique(slots[~c.alive[slots]])
        if len(new) == 0:
            return {}
        names = self.vocabulary.names(new)
        placed = hash_keys([encode(k) for k in names], self.partitions)
        is_item = np.array([not is_attribute(k) for k in names])
        for model in filter(None, (self.model, self.beside)):
            model.first_rows(new, *placed, is_item=is_item)
        c.is_item[new] = is_item
        c.born_round[new] = self.round_number
        c.born_rank[new] = np.arange(self._born, self._born + len(new))
        for slot, name in zip(new.tolist(), names, strict=True):
            if (old := self.gone.pop(name, None)) is not None:
                self.model.keep_published(old, slot)
                # No tombstone leaves: the rows that it had are written over.
                self.graph.changed[slot] |= UNWRITTEN
        self._born += len(new)
        self._read_written(new, names)
        self.living.add(new[is_item])
        born = {
            name: rank
            for name, rank, item in zip(names, c.born_rank[new].tolist(), is_item, strict=True)
            if item
        }
        if self.width and is_item.any():
            self._recall(new[is_item])
        return born

    def _read_written(self, slots: NDArray[np.int32], names: Sequence[str]) -> None:
        """Of rows that are not owned, take what their owners have written of them before they were
        heard of here."""
        model = self.model
        keys = [
            encode(name)
            for name, owned in zip(names, model.rows.owned[slots].tolist(), strict=True)
            if not owned
        ]
        if keys and self.written is not None:
            found, rows = self.written(keys)
            at = [self.vocabulary.get(decode(key)) for key in found]
            self.take(np.array(at, np.int32), rows)

    def take(self, slots: NDArray[np.int32], rows: NDArray[np.void]) -> None:
        """Take packed rows into these slots."""
        c = self.model.columns
        items = slots[c.is_item[slots]]
        before = c.updates[items] >= SETTLED
        self.model.unpack(slots, rows)
        self.settled += int((c.updates[items] >= SETTLED).sum() - before.sum())

    def _recall(self, items: NDArray[np.integer]) -> None:
        """Give items that came back the attributes that they had, which may come back with them."""
        names = self.vocabulary.names(items)
        tokens = [list(self.attributes(name)[: self.width]) for name in names]
        slots = self.vocabulary.intern([attribute_key(t) for each in tokens for t in each])
        self.reserve()
        self.give_birth(slots)
        numbers = iter(slots.tolist())
        for slot, each in zip(items.tolist(), tokens, strict=True):
            self._set_attributes(slot, each, list(islice(numbers, len(each))))

    def recall_all(self) -> None:
        """Give all items of a restored engine their attributes, as the settings of today have them.

        An item with an attribute that has no row yet is described in the next round. One whose row
        was written with others than these is written again.
        """
        c, rows = self.model.columns, self.model.rows
        if self.width == 0:
            return
        c.users[:] = 0
        rows.attrs[self.items] = -1
        for slot, name in zip(self.items.tolist(), self.vocabulary.names(self.items), strict=True):
            tokens = list(self.attributes(name)[: self.width])
            known = [self.vocabulary.get(attribute_key(token)) for token in tokens]
            before = int(c.described[slot])
            self._set_attributes(slot, tokens, [a for a in known if a is not None])
            if None in known:
                self.waiting.append(name)
            c.stale[slot] |= rows.owned[slot] and before != int(c.described[slot])
        self._unused = set(np.flatnonzero(c.alive & ~c.is_item & (c.users == 0)).tolist())

    def _remove(self, slots: NDArray[np.integer]) -> None:
        c = self.model.columns
        self._let_go(self.model.rows.attrs[slots].reshape(-1))
        self.model.rows.attrs[slots] = -1
        names = self.vocabulary.names(slots)
        self.gone |= zip(names, slots.tolist(), strict=True)
        items = slots[c.is_item[slots]]
        self.settled -= int((c.updates[items] >= SETTLED).sum())
        self.living.remove(items)
        self._clicked.remove(np.intersect1d(items, self._clicked.slots))
        c.alive[slots] = False
        self.model.rows.dirty[slots] = False
        self.vocabulary.forget(slots.tolist())

    def list_items(self) -> None:
        """Look through all slots for the living items: when they were numbered anew."""
        c = self.model.columns
        self.living.replace(np.flatnonzero(c.alive & c.is_item).astype(np.int32))
        if self.width:
            self._clicked.replace(self.items[self.graph.clicks[self.items] > 0])
        self.settled = int((c.updates[self.items] >= SETTLED).sum())

    def relabel(self, order: NDArray[np.int64]) -> NDArray[np.int32]:
        """Renumber all slots: old slot `order[i]` becomes i, the others are dropped. Returns the
        new number of each old slot, -1 for one that is dropped."""
        new = np.full(len(self.graph.degree), -1, np.int32)
        new[order] = np.arange(len(order), dtype=np.int32)
        self.sessions.relabel(new)
        self.graph.relabel(order, new)
        if self.beside is not None:
            self.beside.relabel(order, new)
        self.model.relabel(order, new)
        if self.beside is not None:
            self.beside.share(self.model)
        self.visits.relabel(order, new)
        self.vocabulary.reorder(order)
        self._unused = {int(new[slot]) for slot in self._unused if new[slot] >= 0}
        self.list_items()
        return new


def hash_tokens(tokens: Sequence[str]) -> int:
    """What the attributes of an item are told apart by, 0 for none."""
    if not tokens:
        return 0
    joined = "\0".join(tokens).encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little") or 1
