"""Which items and attributes have a slot, which is their row in every array of the engine.

An item is born with its first click that counts, or with its attributes; it leaves when it was
retired, or when nobody clicked it for the horizon.
"""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER, Graph
from core.graph.sessions import Sessions
from core.ids.hashing import hash_keys
from core.ids.vocabulary import Vocabulary, attribute_key, encode, is_attribute
from core.model import Model
from core.settings import Settings


class Catalogue:
    """Holds the living items and attributes, their rows in all tables, and keeps these in step."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.partitions, self.width = partitions, settings.model.attribute_slots
        self.vocabulary = Vocabulary()
        self.graph = Graph(settings.graph.max_degree)
        self.sessions = Sessions(settings.session.length, settings.session.event_ids)
        self.model = Model(settings)
        self.items: NDArray[np.int32] = np.zeros(0, np.int32)
        """Slots of the living items, ascending."""
        self.gone: dict[str, int] = {}
        """The items that left since the last commit, and the slots that they had, whose columns are
        still to be read."""
        self.attributes: Callable[[str], Sequence[str]] = lambda item: ()
        """Gives the attribute tokens that an item had before it left, or before a restart."""
        self.waiting: list[str] = []
        """Items to describe in the next round, as an attribute of theirs has no row."""
        self.round_number = 0
        self._born = 0
        self._unused: set[int] = set()
        """Attributes that lost their last item in this round."""

    def begin_round(self, number: int) -> None:
        self.round_number, self._born = number, 0

    def reserve(self) -> None:
        """Make room for a row of each slot."""
        self.graph.reserve(len(self.vocabulary))
        self.model.reserve(len(self.graph.degree))

    def describe(self, attributes: Sequence[tuple[str, Sequence[str] | None]], now: int) -> None:
        """Give items their attributes; an unknown item is born with them, a retired one leaves."""
        width = self.width
        latest = {item: self.attributes(item) for item in self.waiting} | dict(attributes)
        self.waiting = []
        c, g, r = self.model.columns, self.graph, self.model.rows
        slots = [self.vocabulary.get(item) for item, tokens in latest.items() if tokens is None]
        retired = [slot for slot in slots if slot is not None]
        if retired:
            dead = np.zeros(len(g.degree), np.bool_)
            dead[retired] = True
            self.sessions.end(NEVER, dead)
            g.drop(dead)
            self._remove(np.array(retired))
        if width == 0:
            return
        described = {item: list(t)[:width] for item, t in latest.items() if t is not None}
        keys = [k for item, t in described.items() for k in (item, *map(attribute_key, t))]
        born = self.vocabulary.intern(keys)
        self.reserve()
        self.give_birth(born)
        numbers = iter(born.tolist())
        for tokens in described.values():
            slot = next(numbers)
            self._set_attributes(slot, list(islice(numbers, len(tokens))))
            c.stale[slot] = r.dirty[slot] = True
            if g.last_seen[slot] == NEVER:
                g.last_seen[slot] = now

    def _set_attributes(self, slot: int, attributes: Sequence[int]) -> None:
        self._let_go(self.model.rows.attrs[slot])
        self.model.rows.attrs[slot] = -1
        self.model.rows.attrs[slot, : len(attributes)] = attributes
        np.add.at(self.model.columns.users, attributes, 1)

    def _let_go(self, attributes: NDArray[np.int32]) -> None:
        """Items do not have these any more; -1 is none."""
        users, old = self.model.columns.users, attributes[attributes >= 0]
        np.subtract.at(users, old, 1)
        self._unused.update(old[users[old] == 0].tolist())

    def drop_unused(self) -> None:
        """Let the attributes leave whose last item left, or has others by now."""
        c = self.model.columns
        left = [slot for slot in sorted(self._unused) if c.alive[slot] and c.users[slot] == 0]
        self._unused.clear()
        if left:
            self._remove(np.array(left))

    def give_birth(self, slots: NDArray[np.int32]) -> None:
        """Give first rows to those of the slots that have none."""
        c = self.model.columns
        new = np.unique(slots[~c.alive[slots]])
        if len(new):
            names = self.vocabulary.names(new)
            self.model.first_rows(new, *hash_keys([encode(k) for k in names], self.partitions))
            c.is_item[new] = [not is_attribute(k) for k in names]
            c.born_round[new] = self.round_number
            c.born_rank[new] = np.arange(self._born, self._born + len(new))
            for slot, name in zip(new.tolist(), names, strict=True):
                if (old := self.gone.pop(name, None)) is not None:
                    self.model.keep_published(old, slot)
            self._born += len(new)
            self._list_items()
            if self.width and c.is_item[new].any():
                self._recall(new[c.is_item[new]])

    def _recall(self, items: NDArray[np.integer]) -> None:
        """Give items that came back the attributes that they had, which may come back with them."""
        names = self.vocabulary.names(items)
        tokens = [list(self.attributes(name)[: self.width]) for name in names]
        slots = self.vocabulary.intern([attribute_key(t) for each in tokens for t in each])
        self.reserve()
        self.give_birth(slots)
        numbers = iter(slots.tolist())
        for slot, each in zip(items.tolist(), tokens, strict=True):
            self._set_attributes(slot, list(islice(numbers, len(each))))

    def recall_all(self, before: Callable[[str], Sequence[str]] | None = None) -> None:
        """Give all items of a restored engine their attributes, as the settings of today have
        them. An item with one that has no row yet is described in the next round.

        `before` gives those that they were learned with, where the settings were others: the items
        that differ are looked at in the next commit.
        """
        c, rows = self.model.columns, self.model.rows
        if self.width == 0:
            return
        c.users[:] = 0
        rows.attrs[self.items] = -1
        for slot, name in zip(self.items.tolist(), self.vocabulary.names(self.items), strict=True):
            tokens = self.attributes(name)[: self.width]
            known = [self.vocabulary.get(attribute_key(token)) for token in tokens]
            self._set_attributes(slot, [a for a in known if a is not None])
            if None in known:
                self.waiting.append(name)
            if before is not None and list(before(name)[: self.width]) != list(tokens):
                rows.dirty[slot] = True
        self._unused = set(np.flatnonzero(c.alive & ~c.is_item & (c.users == 0)).tolist())

    def expire(self) -> None:
        """Let the items leave that are no node of the graph any more."""
        left = self.items[self.graph.last_seen[self.items] == NEVER]
        if len(left):
            self._remove(left)

    def _remove(self, slots: NDArray[np.integer]) -> None:
        c = self.model.columns
        self._let_go(self.model.rows.attrs[slots].reshape(-1))
        self.model.rows.attrs[slots] = -1
        self.gone.update(zip(self.vocabulary.names(slots), slots.tolist(), strict=True))
        c.alive[slots] = False
        self.model.rows.dirty[slots] = False
        self.vocabulary.forget(slots.tolist())
        self._list_items()

    def _list_items(self) -> None:
        c = self.model.columns
        self.items = np.flatnonzero(c.alive & c.is_item).astype(np.int32)

    def relabel(self, order: NDArray[np.int64]) -> None:
        """Renumber all slots: old slot `order[i]` becomes i, the others are dropped."""
        new = np.full(len(self.graph.degree), -1, np.int32)
        new[order] = np.arange(len(order), dtype=np.int32)
        self.sessions.relabel(new)
        self.graph.relabel(order, new)
        self.model.relabel(order, new)
        self.vocabulary.reorder(order)
        self._list_items()
