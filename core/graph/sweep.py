"""A sweep: all rows of the graph that are not written as they are, a few at a time, in their order.

A row that changes behind the place where the sweep is waits for the next sweep. So once a sweep is
at its end, each row is written as of some moment after the sweep began, or did not change since it
was written last.
"""

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph

BLOCK = 1 << 16
"""Slots that are looked through at a time."""


class Sweep:
    """Where one sweep is. `bit` (`core.graph.slabs`) says what it writes to."""

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.at = 0
        """The next slot to look at."""

    def take(self, graph: Graph, most: int) -> NDArray[np.int32]:
        """The next slots to write, at most so many, as int32; none at the end of the sweep."""
        found: list[NDArray[np.int32]] = []
        left, slots = most, len(graph.changed)
        while left > 0 and self.at < slots:
            block = graph.changed[self.at : self.at + BLOCK]
            here = np.flatnonzero(block & self.bit)[:left]
            left -= len(here)
            found.append((here + self.at).astype(np.int32))
            self.at += len(block) if left > 0 else int(here[-1]) + 1
        taken = np.concatenate([np.zeros(0, np.int32), *found])
        graph.written(taken, self.bit)
        return taken

    def is_over(self, graph: Graph) -> bool:
        """Whether nothing is left to take. It looks on for it."""
        slots = len(graph.changed)
        while self.at < slots:
            here = np.flatnonzero(graph.changed[self.at : self.at + BLOCK] & self.bit)
            if len(here):
                self.at += int(here[0])
                return False
            self.at = min(slots, self.at + BLOCK)
        return True

    def relabel(self, order: NDArray[np.int64]) -> None:
        """Follow the new numbers: old slot `order[i]`, ascending, becomes i."""
        self.at = int(np.searchsorted(order, self.at))
