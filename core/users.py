"""Vectors of users from the vectors of the items that they clicked last.

A mean says what a user likes on the whole. One who buys shoes and lamps is near neither in it, so
interests are kept apart as well: PinnerSage (Pal et al., "PinnerSage: multi-modal user embedding
framework for recommendations at Pinterest", KDD 2020) clusters a user's own items by Ward's method,
however many clusters that makes, and stands for each by its medoid, the item at its centre, which
is a vector of an item as it is. A cluster weighs what its clicks do, which decay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import unit_rows

SPREAD = 2.0
"""Two clusters are one while that adds at most so much to the sum of squared distances of their
items to their centres. It is 1 for items that have nothing in common (unit vectors at right
angles), however many: with 1 half of a user's clusters were chance, and with 3 hardly anybody had
two (4.5 and 1.2 a user on online-retail, where fewer recommended better)."""


@dataclass(frozen=True)
class Profiles:
    """The vectors of m users, one after the other: those of user i are begin[i] to begin[i + 1]."""

    begin: NDArray[np.int64]
    """Shape (m + 1,)."""
    medoid: NDArray[np.int64]
    """Shape (n,): the entry of the history that each is the vector of; -1 for a mean."""
    share: NDArray[np.float64]
    """Shape (n,): the weight of each in all of its user's clicks. Greatest first."""
    vectors: NDArray[np.float32]
    """Shape (n, d): unit rows; zeros where the mean is none."""
    contexts: NDArray[np.float32]
    """As `vectors`, of the items' context vectors."""

    @classmethod
    def none(cls, m: int, d: int) -> Self:
        """Of m users who have no vector."""
        rows = np.zeros((0, d), np.float32)
        return cls(np.zeros(m + 1, np.int64), np.zeros(0, np.int64), np.zeros(0), rows, rows)


def means(
    v: NDArray[np.float32], u: NDArray[np.float32], at: NDArray[np.int64],
    weights: NDArray[np.float64], begin: NDArray[np.int64],
) -> Profiles:  # fmt: skip
    """The weighted mean of each user's items, as a unit vector; nothing for a user without one.

    v, u float32 [items, d] are unit rows; the entries begin[i] to begin[i + 1] of at, rows of these
    two, and of weights, more than 0, are those of user i of m.
    """
    some = np.flatnonzero(begin[1:] > begin[:-1])
    out = np.concatenate([[0], np.cumsum(begin[1:] > begin[:-1])]).astype(np.int64)
    scaled = weights.astype(np.float32)[:, None]
    sums = [
        np.add.reduceat(rows[at] * scaled, begin[some], axis=0) if len(some) else rows[:0]
        for rows in (v, u)
    ]
    vectors, contexts = map(unit_rows, sums)
    return Profiles(out, np.full(len(some), -1), np.ones(len(some)), vectors, contexts)


def interests(
    v: NDArray[np.float32], u: NDArray[np.float32], at: NDArray[np.int64],
    weights: NDArray[np.float64], begin: NDArray[np.int64], most: int,
) -> Profiles:  # fmt: skip
    """The medoids of the clusters of each user's items, the `most` that weigh most; of equal ones
    the one with the first item is first. Arguments are as those of `means`."""
    users = len(begin) - 1
    medoid, share = np.full((users, most), -1), np.zeros((users, most))
    _interests(v, at, weights, begin, medoid, share)
    there = medoid >= 0
    out = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64)
    chosen = medoid[there]
    return Profiles(out, chosen, share[there], v[at[chosen]], u[at[chosen]])


def in_turn(lengths: Sequence[int], weights: Sequence[float]) -> list[tuple[int, int]]:
    """The order in which lists of these lengths are shown as one: the number of a list, and the
    place in it, from 0.

    The r-th of a list with weight w, more than 0, comes at (r - 1/2) / w, which is the
    apportionment of Webster and Sainte-Laguë: each has its share of however many are shown.
    """
    places = sorted(
        ((rank + 0.5) / weight, number, rank)
        for number, (length, weight) in enumerate(zip(lengths, weights, strict=True))
        for rank in range(length)
    )
    return [(number, rank) for _, number, rank in places]


@nb.njit(cache=True, nogil=True)
def _interests(v, at, weights, begin, medoid, share):  # type: ignore[no-untyped-def]
    """Entries of the medoids of user i into medoid[i], -1 behind them, and their shares."""
    for i in range(len(begin) - 1):
        first, n = begin[i], begin[i + 1] - begin[i]
        if n == 0:
            continue
        cosine = np.empty((n, n))
        for a in range(n):
            for b in range(a, n):
                inner = 0.0
                for x in range(v.shape[1]):
                    inner += v[at[first + a], x] * v[at[first + b], x]
                cosine[a, b] = cosine[b, a] = inner
        label = _ward(cosine)
        total, weight = 0.0, np.zeros(n)
        for a in range(n):
            total += weights[first + a]
            weight[label[a]] += weights[first + a]
        for rank in range(min(medoid.shape[1], n)):
            heaviest = np.argmax(weight)
            if weight[heaviest] <= 0.0:
                break
            best, nearest = -np.inf, -1
            for a in range(n):
                if label[a] == heaviest:
                    near = 0.0
                    for b in range(n):
                        if label[b] == heaviest:
                            near += cosine[a, b]
                    if near > best:
                        best, nearest = near, a
            medoid[i, rank] = first + nearest
            share[i, rank] = weight[heaviest] / total
            weight[heaviest] = 0.0


@nb.njit(cache=True, nogil=True)
def _ward(cosine):  # type: ignore[no-untyped-def]
    """Agglomerative clustering by Ward's method: of each item the first item of its cluster.

    What joining two clusters costs, the rise of the sum of squares, follows from the costs before
    (Lance and Williams 1967): d(k, ij) = ((n_i + n_k) d_ik + (n_j + n_k) d_jk - n_k d_ij) /
    (n_i + n_j + n_k). Of two unit vectors it is 1 - cosine. Of equal pairs the first is joined.
    """
    n = len(cosine)
    cost, size, label = 1.0 - cosine, np.ones(n), np.arange(n)
    near = np.full(n, -1)  # of each cluster the nearest of those behind it, the first of equal ones
    for a in range(n):
        near[a] = _nearest(cost, size, a)
    while True:
        least, i = np.inf, -1
        for a in range(n):
            if near[a] >= 0 and cost[a, near[a]] < least:
                least, i = cost[a, near[a]], a
        if least > SPREAD:
            return label
        j = near[i]
        for k in range(n):
            if size[k] > 0.0 and k != i and k != j:
                joined = (size[i] + size[k]) * cost[i, k] + (size[j] + size[k]) * cost[j, k]
                joined = (joined - size[k] * least) / (size[i] + size[j] + size[k])
                cost[i, k] = cost[k, i] = joined
        size[i] += size[j]
        size[j], near[j] = 0.0, -1
        for a in range(n):
            if label[a] == j:
                label[a] = i
            if near[a] == i or near[a] == j or a == i:
                near[a] = _nearest(cost, size, a)
            elif a < i and near[a] >= 0:
                other = near[a]
                if cost[a, i] < cost[a, other] or (cost[a, i] == cost[a, other] and i < other):
                    near[a] = i


@nb.njit(cache=True, nogil=True)
def _nearest(cost, size, a):  # type: ignore[no-untyped-def]
    """The first of the clusters behind a that are nearest to it, -1 if there is none."""
    least, nearest = np.inf, -1
    for b in range(a + 1, len(cost)):
        if size[b] > 0.0 and cost[a, b] < least:
            least, nearest = cost[a, b], b
    return nearest
