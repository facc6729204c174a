"""Rows that have more dims the more often their items are clicked (`size.tiers`).

What a few clicks say of an item fits into few numbers, and most items have few clicks: that a
vector's length should follow from how often it is used is said of mixed dimension embeddings
(Ginart, Naumov, Mudigere, Yang and Zou, arXiv:1909.11810, 2019), of multi-size ones (Joglekar et
al., "Neural input search for large scale recommendation models", KDD 2020), and of streams, where
the length grows, by Zhao et al. ("AutoEmb", ICDM 2021) and Liu et al. ("Automated embedding size
search in deep recommender systems", SIGIR 2020). These bring vectors of unlike lengths to one by
matrices that are learned too. Here all are in one space, and a narrow row has the first of its
dims: an inner product is over those that both rows have.

So kernels know nothing of widths. They move all dims, and when the steps of a round are taken what
a row does not have is zero again: the projection of projected gradient, as rows of so many dims are
a subspace. It costs what the rows cost that
moved since the last commit.

How wide a row is, it says itself, and no row gets narrower: it grows in a round that comes by its
item, when that has the clicks for it, which are the same for everybody. In the new dims it begins
with a random projection of its row of the graph, itself included, as of FastRP (Chen, Sultan, Tian,
Chen and Skiena, "Fast and accurate network embeddings via very sparse random projection", CIKM
2019), by what the first rows of the keys have there: so items with the same neighbours agree at
once, and all follows from ids, seed and graph. A step is in proportion to what the other row has
there, so that of next to nothing nothing would come for long.
"""

import math

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows

ALL = 0
"""In place of a number of dims: all."""

START = 0.2
"""The length of what a row begins with in new dims, by the length that it would have if all dims
had the same part in it."""

Tiers = tuple[tuple[int, int], ...]
"""From how many clicks on a row has how many dims, both ascending; none where all have all."""


def dims_for(clicks: NDArray[np.integer], tiers: Tiers, dim: int) -> NDArray[np.int16]:
    """The dims that items with so many clicks are to have, int16 of their shape, ALL for `dim`.
    Before the first click it is those of the first."""
    if not tiers:
        return np.full(clicks.shape, ALL, np.int16)
    begins, dims = np.array(tiers, np.int64).T
    out = dims[np.maximum(np.searchsorted(begins, clicks, "right") - 1, 0)]
    return np.where(out < dim, out, ALL).astype(np.int16)


def cut(rows: Rows, dims: NDArray[np.int16]) -> None:
    """Set what rows do not have, as far as they changed since the last commit, to zero. dims int16
    [n], ALL for rows that have all."""
    changed = np.flatnonzero(rows.dirty & (dims != ALL))
    own = dims[changed]
    for dim in np.unique(own).tolist():
        at = changed[own == dim]
        rows.v[at, dim:] = 0.0
        rows.u[at, dim:] = 0.0


def towards(
    own: NDArray[np.float32], near: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Where a row points in m new dims, float32 [m] of length 1: as what first rows have there, its
    own [m] and its neighbours' [n, m], which weigh as much together, by their arcs' `weights` [n].
    """
    mean = (weights[:, None] * near).sum(axis=0)
    both: NDArray[np.float32] = unit_rows(unit_rows(np.stack([own, mean])).sum(axis=0)[None])[0]
    return both


def beginning(known: NDArray[np.float32], towards: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a row that has `known` [k] begins with in new dims, float32 [m]."""
    length = START * math.sqrt(len(towards) / len(known)) * float(np.linalg.norm(known))
    return towards * np.float32(length)
