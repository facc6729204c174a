"""The rotation that brings one model's vectors closest to another's.

Orthogonal Procrustes (P. H. Schoenemann, "A generalized solution of the orthogonal Procrustes
problem", Psychometrika 31, 1966): of all orthogonal R the one with the least |A R - B|, for rows of
A and B that belong together, is W Z' where A' B = W S Z' is a singular value decomposition. Inner
products do not change by it: (a R) . (b R) = a . b.

Where some rows have the first dims only, a rotation may not mix these with the others, or such rows
would have all: of orthogonal R in blocks along the diagonal the best has in each block that of its
dims, as |A R - B|^2 is the sum over blocks.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]


def rotation(of: Floats, onto: Floats, ends: Sequence[int] = ()) -> NDArray[np.float64]:
    """R, orthogonal, [d, d], for unit rows [n, d] that belong together; with blocks that end behind
    so many dims, ascending and below d, and at d."""
    product = of.T.astype(np.float64) @ onto.astype(np.float64)
    out = np.zeros_like(product)
    for begin, end in pairwise([0, *ends, len(product)]):
        w, _, z = np.linalg.svd(product[begin:end, begin:end])
        out[begin:end, begin:end] = w @ z
    return out


def agreement(of: Floats, onto: Floats, ends: Sequence[int] = ()) -> float:
    """The mean cosine, after the rotation, of rows to which it was not fitted: half of them are
    fitted, and the other half judged. NaN where that half is fewer than dims, which any rotation
    fits."""
    fitted, judged = slice(0, None, 2), slice(1, None, 2)
    if len(of[judged]) < of.shape[1]:
        return float("nan")
    turned = of[judged] @ rotation(of[fitted], onto[fitted], ends)
    return float((turned * onto[judged]).sum(axis=1).mean())
