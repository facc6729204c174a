"""Items that nobody clicked for the horizon, a few at a time."""

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import NEVER
from core.settings import Settings

TICKS = 64
"""It is looked for them this many times in a horizon of event time."""


class Expiry:
    """Which items expire, and when. It follows from the state alone, so that a restart finds the
    same: at ticks of event time all are looked at, and what is left leaves with later commits."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.horizon, self.catalogue = settings.graph.horizon_ms, catalogue
        self._looked_at = NEVER
        """The tick whose expired items are in `left`."""
        self.left: NDArray[np.int32] = np.zeros(0, np.int32)
        """Slots, ascending."""

    def next(self, now: int, most: int) -> NDArray[np.int32]:
        """The items that leave now, by birth, at most so many; `now` is the greatest time, ms."""
        if now == NEVER:
            return self.left
        last_seen, tick = self.catalogue.graph.last_seen, max(self.horizon // TICKS, 1)
        tick_at = now // tick * tick
        if tick_at != self._looked_at:
            self._looked_at = tick_at
            items = self.catalogue.items
            self.left = items[last_seen[items] < tick_at - self.horizon]
        if len(self.left):
            alive = self.catalogue.model.columns.alive[self.left]
            self.left = self.left[alive & (last_seen[self.left] < tick_at - self.horizon)]
        leaving, self.left = self.left[: max(most, 0)], self.left[max(most, 0) :]
        return leaving

    def add_late(self, born: NDArray[np.int32]) -> None:
        """Items whose first clicks came later than the horizon leave with those of the last tick,
        so that what leaves follows from the state alone."""
        if self._looked_at != NEVER:
            last_seen = self.catalogue.graph.last_seen[born]
            late = born[last_seen < self._looked_at - self.horizon]
            self.left = np.concatenate([self.left, late])

    @property
    def since(self) -> int:
        """The time since which what expires was not clicked, ms."""
        return self._looked_at - self.horizon if self._looked_at != NEVER else NEVER

    @property
    def is_behind(self) -> bool:
        """Whether some are left, or nobody has looked since the start."""
        return len(self.left) > 0 or self._looked_at == NEVER

    def relabel(self, new: NDArray[np.int32]) -> None:
        """`new[old slot]` is the new slot, or -1."""
        moved = new[self.left]
        self.left = moved[moved >= 0]
