"""Rows in a byte an entry, each with a scale of its own.

Symmetric linear quantisation: x is q scale, q from -127 to 127 and scale the greatest |x| / 127, so
that no entry is off by more than half a scale. Residuals are smaller than vectors, and lose less.
"""

import numpy as np
from numpy.typing import NDArray

STEPS = 127
DECIMALS = 9
"""A scale is rounded up to so many, so that it is the same wherever it is written."""


def quantised(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Rows x [n, d] as q int8 [n, d] and scale float64 [n], which is 0 for a row of zeros."""
    greatest = np.abs(x).max(axis=1, initial=0.0).astype(np.float64)
    scale = np.round(np.ceil(greatest / STEPS * 10**DECIMALS) / 10**DECIMALS, DECIMALS)
    q = np.rint(x / np.where(scale > 0.0, scale, 1.0)[:, None])
    return q.astype(np.int8), scale


def restored(q: NDArray[np.int8], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    """The rows again, float32 [n, d]."""
    return (q * scale[:, None]).astype(np.float32)


def centres(
    cluster: NDArray[np.int32], centroids: NDArray[np.float32], dim: int
) -> NDArray[np.float32]:
    """The centre of each item, float32 [n, dim]: zeros for one without a cluster (-1)."""
    out = np.zeros((len(cluster), dim), np.float32)
    there = cluster >= 0
    if there.any():  # before there are clusters, centroids have no dimension either
        out[there] = centroids[cluster[there]]
    return out
