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
a subspace. It costs what the rows that moved cost.

How wide a row is, it says itself, and no row gets narrower: it grows in a round that comes by its
item, when that has the clicks for it, which are the same for everybody.
"""

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import Rows

ALL = 0
"""In place of a number of dims: all."""

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
