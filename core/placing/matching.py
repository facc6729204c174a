"""Labels of clusters that were found anew: those of the old ones that hold the same items.

Which new cluster gets which label is an assignment problem, solved by shortest augmenting paths:
Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
problems", Computing 38 (1987), after Kuhn's Hungarian method (1955). In whole numbers, so exact.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray


def labels_of(
    old: NDArray[np.int32], new: NDArray[np.int32], count: int
) -> NDArray[np.int64]:  # fmt: skip
    """The label of each of `count` new clusters, a permutation, int64 [count].

    `old` int32 [n] is where items were, and `new` int32 [n] in which new cluster they are. As many
    items as possible keep their label; those that had none, or one past `count`, say nothing.
    """
    had = (old >= 0) & (old < count)
    pairs = new[had].astype(np.int64) * count + old[had]
    kept = np.bincount(pairs, minlength=count * count).reshape(count, count)
    return best_pairs(kept)


def best_pairs(gain: NDArray[np.int64]) -> NDArray[np.int64]:
    """The column of each row of gain int64 [n, n], each column once, with the greatest sum of
    gains. It takes O(n^3) at most, and far less where rows want different columns."""
    return _best_pairs(np.ascontiguousarray(gain, np.int64))


@nb.njit(cache=True, nogil=True)
def _best_pairs(gain):  # type: ignore[no-untyped-def]
    """Row after row gets a column, along the shortest path that alternates between columns that are
    taken and the rows that took them. Of columns that are equally far a free one is the end of it:
    many pairs gain nothing. Rows and columns count from 1; column 0 begins each path."""
    n = len(gain)
    far = np.iinfo(np.int64).max
    of_row, of_column = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)  # potentials
    taken = np.zeros(n + 1, np.int64)  # by which row each column is, 0 if it is free
    before = np.zeros(n + 1, np.int64)
    for row in range(1, n + 1):
        distance, is_done = np.full(n + 1, far), np.zeros(n + 1, np.bool_)
        column, here, length = 0, row, 0
        taken[0], distance[0] = row, 0
        while True:
            is_done[column] = True
            nearest, least = 0, far
            for j in range(1, n + 1):
                if is_done[j]:
                    continue
                to = length - gain[here - 1, j - 1] - of_row[here] - of_column[j]
                if to < distance[j]:
                    distance[j], before[j] = to, column
                is_end = taken[j] == 0 and taken[nearest] != 0
                if distance[j] < least or (distance[j] == least and is_end):
                    least, nearest = distance[j], j
            column, length = nearest, least
            here = taken[column]
            if here == 0:
                break
        for j in range(n + 1):
            if is_done[j]:
                of_row[taken[j]] += length - distance[j]
                of_column[j] -= length - distance[j]
        while column != 0:
            taken[column] = taken[before[column]]
            column = before[column]
    out = np.empty(n, np.int64)
    for j in range(1, n + 1):
        out[taken[j] - 1] = j - 1
    return out
