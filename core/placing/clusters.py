"""Stable clusters: spherical k-means, and assignments that move only past a margin.

Spherical k-means: Dhillon and Modha, "Concept decompositions for large sparse text data using
clustering", Machine Learning 42 (2001). Seeding: Arthur and Vassilvitskii, "k-means++", SODA 2007.
Centroids move in a major update only, and then from where they were, so that label j stays the
cluster that it was.
"""

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""The cluster of an item before there are clusters."""


def unit_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1, float32 of x's shape; rows of zeros stay zeros.

    A row's result follows from that row alone, to the bit: what was published is told by it.
    """
    wide = x.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axis=1))
    return (x / np.where(norm > 0.0, norm, 1.0)[:, None]).astype(np.float32)


def seed_centroids(
    x: NDArray[np.float32], count: int, seed: int | list[int],
    known: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """`count` rows of x (unit rows, [n, d], n >= count) by k-means++, far from each other, and from
    the centroids `known` [c, d]."""
    rng = np.random.default_rng(seed)
    distance = np.full(len(x), np.inf)
    chosen: list[int] = []
    if known is None:
        chosen = [int(rng.integers(len(x)))]
    else:
        distance = np.maximum(1.0 - (x @ known.T).max(axis=1), 0.0)
    while len(chosen) < count:
        if chosen:
            distance = np.minimum(distance, np.maximum(1.0 - x @ x[chosen[-1]], 0.0))
        total = distance.sum()
        if total > 0.0:
            at = np.searchsorted(np.cumsum(distance), rng.random() * total, side="right")
            chosen.append(min(int(at), len(x) - 1))
        else:
            chosen.append(int(rng.integers(len(x))))
    return x[chosen].copy()


def resized(
    x: NDArray[np.float32], centroids: NDArray[np.float32], count: int, seed: int
) -> NDArray[np.float32]:
    """`count` centroids to go on from with unit rows x [n, d], n >= count.

    Each of `centroids` [c, d] keeps its label. Where they become more, the new ones are far from
    those that are there; where they become fewer, the fullest stay, and those whose label is past
    the end take the labels that got free.
    """
    if count == len(centroids):
        return centroids
    if count > len(centroids):
        more = seed_centroids(x, count - len(centroids), seed, centroids)
        return np.concatenate([centroids, more])
    label = np.argmax(x @ centroids.T, axis=1)
    sizes = np.bincount(label, minlength=len(centroids))
    stay = np.sort(np.argsort(-sizes, kind="stable")[:count])
    out = centroids[:count].copy()
    free = np.setdiff1d(np.arange(count), stay)
    out[free] = centroids[stay[stay >= count]]
    return out


def refine(
    x: NDArray[np.float32], centroids: NDArray[np.float32], iterations: int = 20
) -> NDArray[np.float32]:
    """Lloyd's iterations on unit rows x [n, d] from `centroids` [c, d]; returns unit rows [c, d].

    A centroid that loses all of its items stays where it was.
    """
    for _ in range(iterations):
        label = np.argmax(x @ centroids.T, axis=1)
        moved = centroids.copy()
        filled, begin = np.unique(np.sort(label), return_index=True)
        moved[filled] = np.add.reduceat(x[np.argsort(label, kind="stable")], begin, axis=0)
        moved = unit_rows(moved)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def founded(
    x: NDArray[np.float32], centroids: NDArray[np.float32], least: float, most: int
) -> NDArray[np.float32]:
    """The unit rows of x [n, d] that found clusters, in their order, float32 [founded, d].

    Each is one whose cosine with all `centroids` [c, d], and with what was founded before it, is
    below `least`; together there are at most `most`.
    """
    nearest = (x @ centroids.T).max(axis=1, initial=-1.0)
    found: list[int] = []
    while len(centroids) + len(found) < most and (far := np.flatnonzero(nearest < least)).size:
        found.append(int(far[0]))
        nearest = np.maximum(nearest, x @ x[far[0]])
        nearest[far[0]] = 1.0  # whatever the rounding, and a row of zeros too
    return x[found]


def centroids_of(
    x: NDArray[np.float32], label: NDArray[np.int32], count: int
) -> NDArray[np.float32]:  # fmt: skip
    """The unit mean of the rows of x [n, d] with each label, float32 [count, d]; zeros for one that
    no row has."""
    out = np.zeros((count, x.shape[1]), np.float32)
    filled, begin = np.unique(np.sort(label), return_index=True)
    if len(filled):
        out[filled] = np.add.reduceat(x[np.argsort(label, kind="stable")], begin, axis=0)
    return unit_rows(out)


def assign(
    x: NDArray[np.float32], centroids: NDArray[np.float32], old: NDArray[np.int32], margin: float
) -> NDArray[np.int32]:
    """Clusters of unit rows x [n, d], int32 [n]; `old` int32 [n] is where they were, or NONE.

    A known item leaves its cluster only for a centroid whose cosine is better by over `margin`.
    """
    if len(centroids) == 0:
        return np.full(len(x), NONE, np.int32)
    cosine = x @ centroids.T
    best = np.argmax(cosine, axis=1).astype(np.int32)
    rows = np.arange(len(x))
    stays = (old >= 0) & (cosine[rows, best] <= cosine[rows, np.maximum(old, 0)] + margin)
    return np.where(stays, old, best)
