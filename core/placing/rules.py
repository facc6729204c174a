"""Rule clusters: what an item has, and not where its vector is, says in which cluster it is.

The key of an item is its `clusters.depth` most specific attributes, those that the fewest items
have. Where fewer than `clusters.min_size` items have a key, they fall back to it without its most
specific attribute, and come together there with all that do the same, down to the cluster of what
has no key left. So each cluster is a set of attributes, which is its name.

Rules are made at a major update, and kept: between two of them an item goes by the rules that there
are, however many items have what by then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.ids.vocabulary import token_of
from core.settings import RULE_BYTES, ClusterSettings

OTHER = "other"
"""The name of the cluster of what has no key: number 0. No attribute is called so."""
RARE = np.int32(-1)
"""The rank of an attribute that too few items have for any rule."""
NO_RANK = np.int32(2**31 - 1)
"""In place of the rank of an attribute, where there is none."""

Names = Callable[[NDArray[np.integer]], list[str]]
"""Gives the keys of slots, as `core.ids.vocabulary` has them."""


@dataclass(frozen=True)
class Rules:
    """The rules of one placement. Cluster j is what has all of `names[j]`, and nothing more
    specific that is a rule."""

    depth: int
    order: list[str]
    """Attributes that enough items have for a rule, the most specific first."""
    names: list[tuple[str, ...]]
    """The attributes of each cluster, in the order of their text."""
    sizes: list[int]
    """Items of each when the rules were made; 0 for a number that is kept for a name which is no
    rule now, but for number 0, by which an item can always go."""

    def name(self, cluster: int) -> str:
        """What a cluster is called."""
        return ", ".join(self.names[cluster]) or OTHER

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {token: rank for rank, token in enumerate(self.order)}

    @cached_property
    def _numbers(self) -> dict[tuple[int, ...], int]:
        """The clusters that items can be in, by the ranks of their attributes, ascending."""
        found = {
            tuple(sorted(self._ranks[token] for token in name)): number
            for number, (name, size) in enumerate(zip(self.names, self.sizes, strict=True))
            if size
        }
        return found | {(): 0}

    def clusters(self, attrs: NDArray[np.int32], names: Names) -> NDArray[np.int32]:
        """The clusters of items, int32 [n]. `attrs` int32 [n, width] are the slots of their
        attributes, -1 for none."""
        keys, of = _unique(_keys(_ranked(attrs, names, self._ranks), self.depth))
        numbers = np.fromiter(map(self._number, keys), np.int32, len(keys))
        return numbers[of]

    def _number(self, key: tuple[int, ...]) -> int:
        while key not in self._numbers:
            key = key[1:]
        return self._numbers[key]


def fit(
    attrs: NDArray[np.int32], names: Names, settings: ClusterSettings, old: Rules | None
) -> Rules:  # fmt: skip
    """Rules for these items, of which `attrs` are as in `Rules.clusters`.

    A name that was a cluster of `old` keeps its number. One that is none any more gives it away
    where there are `clusters.most` already. Where that is too few for all keys that enough items
    have, or these are too long, more items have to have them, by powers of two.
    """
    slots, counts = np.unique(attrs[attrs >= 0], return_counts=True)
    tokens = [token_of(name) for name in names(slots)]
    by_size = sorted(zip(counts.tolist(), tokens, strict=True))
    least = settings.min_size
    while True:
        order = [token for size, token in by_size if size >= least]
        ranks = {token: rank for rank, token in enumerate(order)}
        keys, of = _unique(_keys(_ranked(attrs, names, ranks), settings.depth))
        sizes = np.bincount(of, minlength=len(keys)).tolist()
        found = _fallen_back(dict(zip(keys, sizes, strict=True)), settings.depth, least)
        sized = {
            tuple(sorted(order[rank] for rank in key)): size for key, size in found.items() if key
        }
        text = _bytes(order) + sum(map(_bytes, sized))
        if len(sized) < settings.most and text <= RULE_BYTES:
            break
        least *= 2
    numbered = _numbered(sized, [] if old is None else old.names, settings.most, RULE_BYTES - text)
    rest = found.get((), 0)
    return Rules(settings.depth, order, numbered, [rest, *(sized.get(n, 0) for n in numbered[1:])])


def _fallen_back(
    sizes: dict[tuple[int, ...], int], depth: int, least: int
) -> dict[tuple[int, ...], int]:
    """The keys that so many items have, once all others are shorter by what is too specific."""
    for length in range(depth, 0, -1):
        for key in [key for key in sizes if len(key) == length and sizes[key] < least]:
            sizes[key[1:]] = sizes.get(key[1:], 0) + sizes.pop(key)
    return sizes


def _numbered(
    sized: dict[tuple[str, ...], int], old: Sequence[tuple[str, ...]], most: int, room: int
) -> list[tuple[str, ...]]:
    """The names by their numbers, of which the first is that of no attributes. What was a name
    before keeps its number, as long as there is room for its text where it is no rule now."""
    out: list[tuple[str, ...]] = [(), *old[1:most]]
    gone = [number for number, name in enumerate(out) if number and name not in sized]
    if sum(_bytes(out[number]) for number in gone) > room:
        for number in gone:
            out[number] = ()
    known = set(out)
    for name in sorted(sized):
        if name in known:
            continue
        if len(out) < most:
            out.append(name)
        else:
            out[gone.pop(0)] = name
    return out


def _bytes(tokens: Sequence[str]) -> int:
    return sum(len(token.encode()) + 2 for token in tokens)


def _ranked(
    attrs: NDArray[np.int32], names: Names, ranks: dict[str, int]
) -> NDArray[np.int32]:  # fmt: skip
    """The ranks of attributes, int32 [n, width]: RARE for one that has none, NO_RANK for none."""
    slots, of = np.unique(attrs, return_inverse=True)
    there = slots >= 0
    rank = np.full(len(slots), NO_RANK, np.int32)
    rank[there] = [ranks.get(token_of(name), RARE) for name in names(slots[there])]
    return rank[of.reshape(attrs.shape)]


def _keys(ranks: NDArray[np.int32], depth: int) -> NDArray[np.int32]:
    """The ranks of the most specific attributes of each item, ascending, int32 [n, depth]. What is
    rare counts among them, though it is in no rule."""
    return np.sort(ranks, axis=1)[:, :depth]


def _unique(
    keys: NDArray[np.int32],
) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """The keys that there are, each without what is rare or none, and which of them each item
    has."""
    if keys.shape[1] == 0:
        return [()], np.zeros(len(keys), np.int64)
    rows, of = np.unique(keys, axis=0, return_inverse=True)
    told: dict[tuple[int, ...], int] = {}
    at = [
        told.setdefault(tuple(rank for rank in row if 0 <= rank < NO_RANK), len(told))
        for row in rows.tolist()
    ]
    return list(told), np.array(at, np.int64)[of.reshape(-1)]
