"""What of the items that were found is shown, and in which order: filters and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.query.shelves import Scored, Shelf
from streamer.state.store import Store
from streamer.worker import checkpoint

PRIOR = 20.0
"""Impressions at the mean rate that each item has besides its own: one click at the second
impression is no rate of a half."""


@dataclass(frozen=True)
class Choice:
    """Items that pass the filters, by score * heat^w * freshness^w' * ctr^w".

    Heat is an item's decayed clicks, 1 more, as a share of the hottest one's found; freshness is
    2^(-age / graph.half_life), the age being the time since its last click, as of the newest click
    of those found. The click-through rate is (clicks + PRIOR m) / (impressions + PRIOR), both
    decayed alike, as a multiple of m, the rate of all found that were shown; of an item that was
    not, 1. All are as of the folder's last sweep.
    """

    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """An attribute must have one of these values; one with several needs one of them."""
    min_score: float | None = None
    """Cosine, or share, from which on an item is shown, before heat and freshness."""
    heat: float = 0.0
    freshness: float = 0.0
    ctr: float = 0.0

    @property
    def filters(self) -> bool:
        """Whether an item's attributes matter."""
        return bool(self.where)

    def of(self, found: Scored, shelf: Shelf, store: Store) -> Scored:
        """Those of the scored that pass, with the scores that they are ordered by."""
        handles, score = self.passing(found, shelf, store)
        if self.min_score is not None:
            at = np.flatnonzero(score >= self.min_score)
            handles, score = [handles[i] for i in at.tolist()], score[at]
        if self.heat or self.freshness or self.ctr:
            weights = self._weights([shelf.details(handle)[0] for handle in handles], store)
            # What is cold is further down, below 0 too.
            score = np.where(score > 0.0, score * weights, score / weights).astype(np.float32)
        return handles, score

    def passing(self, found: Scored, shelf: Shelf, store: Store) -> Scored:
        """Those of the scored whose attributes pass."""
        if not self.where:
            return found
        handles, score = found
        keys = (shelf.details(handle)[0] for handle in handles)
        fits = np.array([self.fits(store.attributes(key)) for key in keys], np.bool_)
        at = np.flatnonzero(fits)
        return [handles[i] for i in at.tolist()], score[at]

    def fits(self, attributes: Mapping[str, Any]) -> bool:
        """Whether an item with these attributes passes the filter."""
        for name, wanted in self.where.items():
            value = attributes.get(name, [])
            if not wanted.intersection([value] if isinstance(value, str) else value):
                return False
        return True

    def _weights(self, keys: Sequence[bytes], store: Store) -> NDArray[np.float64]:
        nodes = [checkpoint.node(store, key) for key in keys]
        now = max((node.seen for node in nodes if node is not None), default=0)
        clicks = np.array([checkpoint.clicks_at(node, now) for node in nodes])
        heat = (1.0 + clicks) / (1.0 + clicks.max(initial=0.0))
        # A node that no sweep has written yet is as young as can be, and as cold.
        fresh = np.array(
            [1.0 if node is None else 2.0 ** ((node.seen - now) / node.half_life) for node in nodes]
        )
        shown = np.array([checkpoint.shown_at(node, now) for node in nodes])
        weights = heat**self.heat * fresh**self.freshness * rates(clicks, shown) ** self.ctr
        return np.asarray(weights)


def rates(clicks: NDArray[np.float64], shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """Click-through rates of n items, smoothed, as multiples of the mean one: float64 [n]."""
    there = shown > 0.0
    if not clicks[there].any():
        return np.ones(len(shown))
    mean = clicks[there].sum() / shown[there].sum()
    smooth = (clicks + PRIOR * mean) / (shown + PRIOR) / mean
    return np.where(there, smooth, 1.0)


ALL = Choice()


def parsed(where: Sequence[str]) -> dict[str, frozenset[str]]:
    """`NAME=VALUE` as `--where` has them: of one name any of the values, of several names all.

    ValueError for one without an equals sign.
    """
    out: dict[str, frozenset[str]] = {}
    for text in where:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{text!r}: write NAME=VALUE")
        out[name] = out.get(name, frozenset()) | {value}
    return out
