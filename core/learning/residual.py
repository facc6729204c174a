"""Residual embeddings: a vector is its cluster's centre and a residual, small for rare items.

What a few updates say of an item is mostly chance, and what its cluster says of it is not: so the
residual is shrunk towards zero, as a group's mean is towards that of all (James and Stein,
"Estimation with quadratic loss", Berkeley Symposium 1961; embeddings of the Alibaba group are made
so of a cluster's part and an item's own).

How strongly. Let an item have met n updates, each of which moves V by `rate` towards what it says,
x on the mean: V <- V + rate (x - V). With a pull p towards the centre c besides, V comes to rest
where rate (x - V) + p (c - V) = 0. Of n observations and a prior of `strength` more at c the mean
is (n x + strength c) / (n + strength): that is this point for p = rate strength / n. So this is
pulled, for each update of the item's own, and 1 at most: an item that is not met stays where it is,
the pull ends as n grows, and at no rate of updates does it add up to more than the prior.

c is the centroid, a unit row, times the length of V: the directions are what count. Where an item
has attributes, it is its own row that is pulled, as those are shared.
"""

import numpy as np
from numpy.typing import NDArray

from core.learning.skipgram import Rows


def pull(
    rows: Rows, items: NDArray[np.integer], times: NDArray[np.integer], updates: NDArray[np.int64],
    cluster: NDArray[np.int32], centroids: NDArray[np.float32], strength: float, rate: float,
) -> None:  # fmt: skip
    """Pull the rows of V of these owned items towards the centroids of their clusters.

    Of each item, each there once: how many updates it met just now, and how many in all, int [n]
    both, the first at least 1; and its cluster, int32 [n], -1 for none. centroids float32 [c, d].
    """
    there = (cluster >= 0) & (cluster < len(centroids))
    if not there.any():
        return
    items, times, updates = items[there], times[there], updates[there]
    once = np.minimum(rate * strength / updates, 1.0)
    share = (1.0 - (1.0 - once) ** times).astype(np.float32)[:, None]
    v = rows.v[items]
    length = np.sqrt((v * v).sum(axis=1, keepdims=True))
    rows.v[items] = v + share * (length * centroids[cluster[there]] - v)
    rows.dirty[items] = True
