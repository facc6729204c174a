"""Where the walks of a round start."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import NEVER
from core.placing.placement import NOBODY, Placement, Placer
from core.settings import Settings, WalkSettings

SLICE = 2000
"""Items that a round starts from beside those that changed: of a major update, or of those whose
rows are older than what is known of them."""


class Birth(NamedTuple):
    """The place of an item in the order of birth."""

    round_number: int
    rank: int


class Begun(NamedTuple):
    """What the walks of a round are to come by: slots."""

    touched: NDArray[np.int32]
    behind: NDArray[np.int32]
    major: NDArray[np.int32]


class Starts:
    """What changed, a slice of what an update has to come by, and a share of everything else."""

    def __init__(self, settings: Settings, catalogue: Catalogue, placer: Placer) -> None:
        self.settings, self.catalogue, self.placer = settings, catalogue, placer
        self.major: Birth | None = None
        """In a major update: the item that it starts from next."""
        self.asked = NOBODY
        """The newest epoch that somebody asked to be followed by another (`walkstream major`)."""
        self.behind: NDArray[np.int32] = np.zeros(0, np.int32)
        """After a restart: items whose rows are older than what is known of them, ascending."""
        none = np.zeros(0, np.int32)
        self.begun = Begun(none, none, none)
        """Of this round."""

    def of(
        self, touched: NDArray[np.int32], placement: Placement, round_number: int, before: int,
        now: int, has_walks: bool = True,
    ) -> NDArray[np.int32]:  # fmt: skip
        """Where walks start: the touched items, a slice of those that an update has to come by, and
        a share of replay so that none goes stale. A corpus without walks has those of items whose
        rows are behind: their sessions do not come again. Event time, ms, was `before` and is
        `now`."""
        self.begun = Begun(
            touched, self._next_behind(), self._next_of_major(placement, before, now)
        )
        s = self.settings
        return self.spread(s.walks, s.model.seed, round_number, has_walks)

    def spread(
        self, walks: WalkSettings, seed: int, round_number: int, has_walks: bool
    ) -> NDArray[np.int32]:
        """Where walks of these settings start that come by what this round has begun with."""
        items = self.catalogue.items
        if not has_walks:
            return np.tile(self.begun.behind, walks.per_node)
        own = np.tile(np.concatenate(self.begun), walks.per_node)
        if len(items) == 0:
            return own
        rng = np.random.default_rng([seed, round_number])
        replay = rng.integers(len(items), size=int(walks.replay * len(own)))
        return np.concatenate([own, items[replay]])

    def _next_behind(self) -> NDArray[np.int32]:
        here, self.behind = self.behind[:SLICE], self.behind[SLICE:]
        model = self.catalogue.model
        here = here[model.columns.alive[here] & model.rows.owned[here]]
        model.rows.dirty[here] = True
        return here

    def _next_of_major(
        self, placement: Placement, before: int, now: int
    ) -> NDArray[np.int32]:  # fmt: skip
        """The next items of a major update. It begins when one is due, and where it is at its end
        the next commit moves the centroids."""
        c, settled = self.catalogue.model.columns, self.catalogue.settled
        if self.major is None:
            leads = bool(self.catalogue.model.owns[0])
            if not self.placer.due(placement, settled, before, now, self.asked, leads):
                return np.zeros(0, np.int32)
            self.major = Birth(NEVER, 0)
        begin = self.since(self.major)
        here = self.catalogue.items[begin : begin + SLICE]
        if len(here):
            last = here[-1]
            self.major = Birth(int(c.born_round[last]), int(c.born_rank[last]) + 1)
        return here

    def since(self, birth: Birth) -> int:
        """How many living items were born before this."""
        c = self.catalogue.model.columns
        low, high = 0, len(self.catalogue.items)
        while low < high:
            middle = (low + high) // 2
            slot = self.catalogue.items[middle]
            if (c.born_round[slot], c.born_rank[slot]) < birth:
                low = middle + 1
            else:
                high = middle
        return low

    def is_asked(self, placement: Placement) -> bool:
        """Whether somebody asked for a major update that has not begun."""
        return self.major is None and 0 < placement.epoch == self.asked

    @property
    def is_major_over(self) -> bool:
        """Whether a major update has come by every item."""
        return self.major is not None and self.since(self.major) == len(self.catalogue.items)

    def relabel(self, new: NDArray[np.int32]) -> None:
        """`new[old slot]` is the new slot, or -1."""
        moved = new[self.behind]
        self.behind = moved[moved >= 0]
