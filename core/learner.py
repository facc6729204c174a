"""A round of learning: skip-gram on walks, then the softmax of what came next in sessions."""

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.learning import skipgram
from core.learning.negatives import Pools
from core.placing.placement import SETTLED
from core.settings import Settings


class Learner:
    """Moves the rows of a catalogue."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.settings, self.catalogue = settings, catalogue
        self._pools = Pools(settings.model.alpha)

    def first_vectors(self, new: NDArray[np.int32]) -> None:
        """Move both vectors of items never learned to the weighted mean of their neighbours'."""
        r, c, graph = self.catalogue.model.rows, self.catalogue.model.columns, self.catalogue.graph
        for slot in new:
            nbr, wgt = graph.row(int(slot))
            settled = c.updates[nbr] > 0
            total = wgt[settled].sum()
            if total > 0.0:
                share = (wgt[settled] / total)[:, None]
                r.v[slot] += (share * skipgram.hidden(r, nbr[settled])).sum(axis=0)
                r.u[slot] = (share * r.u[nbr[settled]]).sum(axis=0)

    def learn(
        self, walks: NDArray[np.int32], history: NDArray[np.int32], target: NDArray[np.int32],
        time: int, round_number: int,
    ) -> None:  # fmt: skip
        """Learn from walks int32 [n, length], and from sessions int32 [m, length], newest item
        first, with what came next, int32 [m], at this time, ms. All are slots, -1 past the end."""
        m, catalogue, model = self.settings.model, self.catalogue, self.catalogue.model
        if len(catalogue.items) == 0:
            return
        pool = self._pools.of(catalogue.items, catalogue.graph.clicked)
        pace = model.pace(time, m.rate)
        skipgram.learn_walks(
            model.rows, walks, pool, seed=m.seed, round_number=round_number, window=m.window,
            shrink=m.shrink_windows, negatives=m.negatives, block=m.block,
            hardest_of=m.hardest_of, pace=pace, threads=self.settings.engine.threads,
        )  # fmt: skip
        # Attribute weights have no accumulator, and go at one rate.
        further = model.pace(time, m.session_rate)._replace(rate=pace.rate)
        skipgram.learn_sessions(
            model.rows, history, target, catalogue.graph.slabs(), pool, m,
            round_number=round_number, pace=further, share=float(model.owns.mean()),
        )  # fmt: skip
        centres = walks[walks[:, 1] >= 0] if walks.shape[1] > 1 else walks[:0]
        updates = model.columns.updates
        seen, times = _counted(np.concatenate([centres[centres >= 0], target]), len(updates))
        owned = model.rows.owned[seen]
        seen, times = seen[owned], times[owned]
        before = updates[seen]
        updates[seen] = before + times
        catalogue.settled += int(((before < SETTLED) & (before + times >= SETTLED)).sum())


def _counted(slots: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the slots 0 to n there are, ascending, and how often each."""
    if len(slots) < n:
        seen, times = np.unique(slots, return_counts=True)
    else:
        # Quicker than to sort them, but it reads as many numbers as there are slots.
        every = np.bincount(slots, minlength=n)
        seen = np.flatnonzero(every).astype(np.int32)
        times = every[seen]
    return seen.astype(np.int64), times.astype(np.int64)
