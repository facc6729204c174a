"""Baselines for items that nobody, or hardly anybody, has clicked: vectors made of others'.

An item that was clicked fewer than FEW times has the mean of the unit rows V^, and of U^, of items
that were clicked more: of those of its category, or of the three that are most like it by their
attributes (Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at
Airbnb", KDD 2018, section 3.4, where the nearest are so by place, type and price). All others have
the model's own. Items of the catalogue that nobody has clicked are ranked too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Mode, Model

FEW = 5
"""Clicks from which on an item has its own vector, and lends it to others."""
NEAREST = 3
"""Items that one with few clicks has the mean of; and items with more clicks that a category must
have, to have a mean."""

Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]


class Tokens:
    """The attributes of the n items of a catalogue, as pairs of an item and one of t tokens."""

    def __init__(self, tokens: Mapping[str, Sequence[str]], past: Past) -> None:
        self.number = past.vocabulary.intern(list(tokens))
        """int32 [n]: the items by their number in `past`."""
        names = {token: None for of in tokens.values() for token in of}
        known = {token: t for t, token in enumerate(names)}
        pairs = [(known[token], i) for i, of in enumerate(tokens.values()) for token in of]
        ordered = np.array(sorted(pairs), np.int64).reshape(-1, 2)
        self.token, self.item = ordered[:, 0], ordered[:, 1]
        """int64 [pairs] each, by token and then by item."""
        self.begin = np.searchsorted(self.token, np.arange(len(known) + 1))
        """int64 [t + 1]: where the pairs of each token begin."""
        of_token = np.diff(self.begin)
        self.weight = np.log(len(tokens) / np.maximum(of_token, 1))
        """float64 [t]: log(n / items that have the token)."""
        square = np.zeros(len(tokens))
        np.add.at(square, self.item, self.weight[self.token] ** 2)
        self.length = np.sqrt(square)
        """float64 [n]: the length of each item's weights."""
        order = np.lexsort((self.token, self.item))
        self._of_item = self.token[order]
        self._first = np.searchsorted(self.item[order], np.arange(len(tokens) + 1))

    def of(self, item: int) -> NDArray[np.int64]:
        """The tokens of an item."""
        return self._of_item[self._first[item] : self._first[item + 1]]


class Means(Protocol):
    """Gives items the means of others."""

    def of(
        self, cold: NDArray[np.bool_], lends: NDArray[np.bool_], table: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The mean for each item of the catalogue, float32 [n, d], zeros where there is none and
        where it is not `cold`. bool [n] each; table float32 [n, d] has the rows of those that
        lend theirs."""


class OfCategory:
    """The mean of the items that have the same category: of an item's tokens the one that the
    fewest, but at least NEAREST, of those that lend have."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def of(
        self, cold: NDArray[np.bool_], lends: NDArray[np.bool_], table: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        t, out = self.tokens, np.zeros_like(table)
        amount = np.bincount(t.token[lends[t.item]], minlength=len(t.weight))
        good = cold[t.item] & (amount[t.token] >= NEAREST)
        token, item = t.token[good], t.item[good]
        order = np.lexsort((token, amount[token], item))
        items, first = np.unique(item[order], return_index=True)
        chosen = token[order][first]
        for category in np.unique(chosen).tolist():
            members = t.item[t.begin[category] : t.begin[category + 1]]
            out[items[chosen == category]] = table[members[lends[members]]].mean(axis=0)
        return out


class OfNearest:
    """The mean of the NEAREST items that are most alike: by the cosine of their tokens, each
    weighted with the log of how rare it is. Of equals those that were known first."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, n = tokens, len(tokens.number)
        self._known = np.zeros(n, np.bool_)
        self._near = np.full((n, NEAREST), -1, np.int64)
        self._alike = np.zeros((n, NEAREST))

    def of(
        self, cold: NDArray[np.bool_], lends: NDArray[np.bool_], table: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        for item in np.flatnonzero(lends & ~self._known).tolist():
            self._meet(item)
        self._known |= lends
        near = self._near[cold]
        there = (near >= 0) & lends[near]
        out = np.zeros_like(table)
        mean = (table[near] * there[:, :, None]).sum(axis=1)
        out[cold] = mean / np.maximum(there.sum(axis=1), 1)[:, None]
        return out

    def _meet(self, item: int) -> None:
        """Make it one of the nearest of those that it is more like than what they have."""
        t = self.tokens
        tokens = t.of(item)
        at = [t.item[t.begin[token] : t.begin[token + 1]] for token in tokens.tolist()]
        if not at or t.length[item] == 0.0:
            return
        dots = np.bincount(
            np.concatenate(at), np.repeat(t.weight[tokens] ** 2, [len(one) for one in at]),
            len(t.number),
        )  # fmt: skip
        # Equals are equal whatever order their tokens are in.
        alike = np.round(dots / (np.maximum(t.length, 1e-12) * t.length[item]), 9)
        better = np.flatnonzero(alike > self._alike[:, -1])
        all_alike = np.column_stack([self._alike[better], alike[better]])
        all_near = np.column_stack([self._near[better], np.full(len(better), item)])
        order = np.argsort(-all_alike, axis=1, kind="stable")[:, :NEAREST]
        self._alike[better] = np.take_along_axis(all_alike, order, axis=1)
        self._near[better] = np.take_along_axis(all_near, order, axis=1)


@dataclass(frozen=True, kw_only=True)
class StandIn(Model):
    """The engine's ranker, with the means of others for items with few clicks."""

    tokens: Tokens
    means: Means
    past: Past

    def asked(self, asked: Asked, unseen: bool) -> Asked:
        """The same positions, with all of the catalogue ranked."""
        return Asked(asked.engine, self.past, asked.positions, unseen, self.tokens.number)

    def vectors(self, asked: Asked, rows: Rows | None = None) -> Vectors:
        number = self.tokens.number
        column = asked.column[number]
        seen = self.past.seen(number)
        out = []
        for own in super().vectors(asked, rows):
            table = np.zeros((len(asked.numbers), own.shape[1]), np.float32)
            table[: len(own)] = own
            lends = (seen >= FEW) & (column < len(own))
            mean = self.means.of(seen < FEW, lends, table[column])
            there = mean.any(axis=1)
            table[column[there]] = unit_rows(mean[there])
            out.append(table)
        return out[0], out[1]


def stand_ins(
    tokens: Mapping[str, Sequence[str]], past: Past, modes: Iterable[Mode], decay: float | None
) -> dict[str, StandIn]:
    """By what they are called. None without attributes."""
    by_vectors = tuple(mode for mode in modes if mode != "hybrid")
    if not by_vectors or not any(tokens.values()):
        return {}
    of = Tokens(tokens, past)
    means: dict[str, Means] = {"category mean": OfCategory(of), "nearest three": OfNearest(of)}
    return {
        name: StandIn(by_vectors, decay, tokens=of, means=mean, past=past)
        for name, mean in means.items()
    }
