"""First-order random walks on the live graph (DeepWalk: Perozzi, Al-Rfou, Skiena, KDD 2014)."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph import UNIT, Graph
from core.hashing import GOLDEN, stream, unit

WALKS = 1
"""Purpose number of this module's random streams."""


@nb.njit(cache=True, nogil=True)
def _walk(starts, seed, round_number, start, degree, nbr, wgt, out):  # type: ignore[no-untyped-def]
    length = out.shape[1]
    for i in range(len(starts)):
        state = stream(seed, round_number, WALKS, i)
        node = starts[i]
        out[i, 0] = node
        for step in range(1, length):
            base = start[node] * UNIT
            n = degree[node]
            total = np.float32(0.0)
            for j in range(base, base + n):
                total += wgt[j]
            if not total > 0.0:
                for rest in range(step, length):
                    out[i, rest] = -1
                break
            state += GOLDEN
            left = np.float32(unit(state)) * total
            j = base
            while j < base + n - 1 and left >= wgt[j]:
                left -= wgt[j]
                j += 1
            node = nbr[j]
            out[i, step] = node


def walk(
    graph: Graph, starts: NDArray[np.int32], length: int, seed: int, round_number: int
) -> NDArray[np.int32]:
    """One walk from each start, int32 [len(starts), length]; -1 after a node without arcs.

    The next node is drawn with probability weight / sum of the row's weights. Walk i depends on
    (seed, round_number, i) and the graph only.
    """
    out = np.empty((len(starts), length), np.int32)
    _walk(starts, seed, round_number, graph.start, graph.degree, graph.nbr, graph.wgt, out)
    return out
