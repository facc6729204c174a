"""The nearest items of all items at once (i2i), exactly or among the clusters that are near.

With so many queries the products of whole blocks are cheaper than the buckets of each.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import NONE, unit_rows
from streamer.export.published import Published

BLOCK = 256
"""Queries of a product with all items: their scores stay in the processor's cache."""
CHUNK = 8192
"""Queries that are shared out to clusters together."""
EXACT = 30_000
"""Up to so many items each is compared with all."""
NEAR = 0.25
"""Above that with those of the clusters that are nearest to it: this share of the clusters."""


class Neighbours(NamedTuple):
    """Of n items: int32 [n, k] which others score best, the best first, -1 where there are fewer;
    and float32 [n, k] their scores."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    is_exact: bool


def nearest(
    found: Published, k: int, mode: Literal["similar", "next"],
    tell: Callable[[float], None] = lambda share: None,
) -> Neighbours:  # fmt: skip
    """The k that score best for each item, of all others, as `walkstream query` scores them:
    V^a.V^b (similar), or V^a.V^b + V^a.U^b + U^a.V^b (next)."""
    v, u = found.vectors, found.contexts
    n, d = v.shape
    asked, rows = (v, v) if mode == "similar" else (np.hstack([v + u, v]), np.hstack([v, u]))
    out = Neighbours(
        np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32),
        n <= EXACT or bool((found.clusters == NONE).all()),
    )  # fmt: skip
    every = np.arange(n, dtype=np.int32)
    size = BLOCK if out.is_exact else CHUNK
    groups, middles = [every], np.zeros((1, d), np.float32)
    if not out.is_exact:
        groups, middles = _clusters(found)

    def work(queries: NDArray[np.int32]) -> int:
        for among, at in _shares(queries, asked[queries, :d], groups, middles):
            product = asked[at] @ (rows if among is every else rows[among]).T
            _best(product, at, among, out.items, out.scores)
        return len(queries)

    done = 0
    parts = (every[begin : begin + size] for begin in range(0, n, size))
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for part in executor.map(work, parts):
            done += part
            tell(done / n)
    return out


def _clusters(found: Published) -> tuple[list[NDArray[np.int32]], NDArray[np.float32]]:
    """The members of each cluster, and its middle, float32 [clusters, d]. First come those that are
    in none, which are near to all."""
    order = np.argsort(found.clusters, kind="stable").astype(np.int32)
    names, begins = np.unique(found.clusters[order], return_index=True)
    groups = np.split(order, begins[1:])
    if names[0] != NONE:
        groups = [order[:0], *groups]
    middles = [found.vectors[group].mean(axis=0) for group in groups[1:]]
    return groups, unit_rows(np.stack([np.zeros_like(middles[0]), *middles]))


def _shares(
    queries: NDArray[np.int32], asked: NDArray[np.float32], groups: list[NDArray[np.int32]],
    middles: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:  # fmt: skip
    """Each group, and those of the queries that are near to it. `asked` float32 [queries, d]."""
    if len(groups) == 1:
        yield groups[0], queries
        return
    near = asked @ middles.T
    near[:, 0] = np.inf
    count = 1 + max(1, round(NEAR * (len(groups) - 1)))
    least = np.partition(near, -count, axis=1)[:, -count]
    is_near = near >= least[:, None]
    for group, chosen in zip(groups, is_near.T, strict=True):
        at = queries[chosen]
        for begin in range(0, len(at) if len(group) else 0, BLOCK):
            yield group, at[begin : begin + BLOCK]


@nb.njit(cache=True, nogil=True)
def _best(product, queries, among, items, scores):  # type: ignore[no-untyped-def]
    """For each row i of the product put columns that score better than what is there into
    items[queries[i]], itself apart; of equals the first."""
    k = items.shape[1]
    for i in range(len(queries)):
        own = queries[i]
        best, score = items[own], scores[own]
        for j in range(len(among)):
            s = product[i, j]
            if s <= score[k - 1] or among[j] == own:
                continue
            at = k - 1
            while at > 0 and score[at - 1] < s:
                score[at], best[at] = score[at - 1], best[at - 1]
                at -= 1
            score[at], best[at] = s, among[j]
