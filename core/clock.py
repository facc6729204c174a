"""Times that follow the log."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.graph.graph import NEVER


@dataclass
class Clock:
    """Times that follow the log: the greatest decay time, and the landmark of all weights."""

    time: int = NEVER
    landmark: int = NEVER
    partitions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The greatest decay time of each partition of the clicks, int64 [partitions]."""

    def of(self, clicks: Clicks) -> NDArray[np.int64]:
        """`partitions`, with an entry for each one that these clicks are from."""
        of = clicks.partitions
        most = 0 if of is None or len(of) == 0 else int(of.max())
        if most >= len(self.partitions):
            more = np.full(most + 1 - len(self.partitions), NEVER, np.int64)
            self.partitions = np.concatenate([self.partitions, more])
        return self.partitions
