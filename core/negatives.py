"""What negatives are drawn from: the known items, by a power of their decayed counts."""

import numpy as np
from numpy.typing import NDArray


def table(
    items: NDArray[np.int32], counts: NDArray[np.float32], alpha: float
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Walker's alias table over `items` (slots) with probabilities proportional to counts^alpha.

    counts float32 [len(items)] on any common scale. Returns (items, accept float32 [n], alias
    int32 [n] of slots). alpha = 0 is uniform, the choice that served next-item quality best.
    Source of the method: A. J. Walker, "An efficient method for generating discrete random
    variables with general distributions", ACM TOMS 3 (1977), in Vose's linear form.
    """
    n = len(items)
    accept = np.ones(n, np.float32)
    alias = items.copy()
    if alpha == 0.0 or n == 0:
        return items, accept, alias
    p = np.maximum(counts.astype(np.float64), 0.0)
    top = p.max()
    p = np.maximum(p / top, 1e-6) ** alpha if top > 0 else np.ones(n)
    p *= n / p.sum()
    small = [i for i in range(n) if p[i] < 1.0]
    large = [i for i in range(n) if p[i] >= 1.0]
    while small and large:
        s, g = small.pop(), large[-1]
        accept[s] = p[s]
        alias[s] = items[g]
        p[g] -= 1.0 - p[s]
        if p[g] < 1.0:
            small.append(large.pop())
    return items, accept, alias
