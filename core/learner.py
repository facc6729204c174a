"""A round of learning: skip-gram on sentences, then the softmax of what came next in sessions."""

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.walks import walk
from core.ids.hashing import hash_keys
from core.ids.vocabulary import encode
from core.learning import lending, residual, skipgram, tiers
from core.learning.corpus import Corpus
from core.learning.negatives import Pools
from core.model import Model
from core.placing.placement import SETTLED, Placement
from core.settings import Settings
from core.starts import Begun


class Learner:
    """Moves the rows of a model: that of the catalogue, or one beside it."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, model: Model | None = None
    ) -> None:
        self.settings, self.catalogue = settings, catalogue
        self.model = catalogue.model if model is None else model
        self.corpus = Corpus(settings)
        self._pools = Pools(settings.negatives)

    def begin(self, begun: Begun) -> None:
        """Prepare the rows of what a round comes by, before it is walked from and learned."""
        if self.model.has_narrow:
            self._widen(np.unique(np.concatenate(begun)))
        self._first_vectors(begun.touched)

    def _first_vectors(self, touched: NDArray[np.int32]) -> None:
        """Move both vectors of those items that were never learned to the weighted mean of their
        neighbours'."""
        r, c, graph = self.model.rows, self.model.columns, self.catalogue.graph
        for slot in touched[(c.updates[touched] == 0) & r.owned[touched]]:
            nbr, wgt = graph.row(int(slot))
            settled = c.updates[nbr] > 0
            total = wgt[settled].sum()
            if total > 0.0:
                share = (wgt[settled] / total)[:, None]
                has = slice(int(c.dims[slot]) or None)
                hidden = skipgram.hidden(r, nbr[settled])
                r.v[slot, has] += (share * hidden).sum(axis=0)[has]
                r.u[slot, has] = (share * r.u[nbr[settled]]).sum(axis=0)[has]

    def _widen(self, slots: NDArray[np.int32]) -> None:
        """Give those owned items that were clicked often enough the dims of their tier
        (`core.learning.tiers`)."""
        r, c, graph = self.model.rows, self.model.columns, self.catalogue.graph
        slots = slots[(c.dims[slots] != tiers.ALL) & r.owned[slots]]
        dim = r.v.shape[1]
        to = tiers.dims_for(graph.clicks[slots], self.settings.size.tiers, dim)
        grows = (to == tiers.ALL) | (to > c.dims[slots])
        slots, to = slots[grows], to[grows]
        for slot, end in zip(slots.tolist(), to.tolist(), strict=True):
            new = slice(int(c.dims[slot]), end or dim)
            nbr, wgt = graph.row(slot)
            first = self._first_values(np.append(slot, nbr).astype(np.int32))[:, new]
            if c.updates[slot] > 0:
                towards = tiers.towards(first[0], first[1:], wgt)
                for table in (r.v, r.u):
                    table[slot, new] = tiers.beginning(table[slot, : new.start], towards)
            else:
                r.v[slot, new] = first[0]
        c.dims[slots] = to
        r.dirty[slots] = True

    def _first_values(self, slots: NDArray[np.int32]) -> NDArray[np.float32]:
        catalogue = self.catalogue
        keys = [encode(name) for name in catalogue.vocabulary.names(slots)]
        return self.model.first_values(hash_keys(keys, catalogue.partitions)[1])

    def walks(self, starts: NDArray[np.int32], round_number: int) -> NDArray[np.int32]:
        """Walks from these slots, int32 [n, length]."""
        s = self.settings
        return walk(
            self.catalogue.graph, starts, s.walks.length,
            s.model.seed, round_number, s.walks.p, s.walks.q, s.engine.threads,
        )  # fmt: skip

    def learn(
        self, walks: NDArray[np.int32], history: NDArray[np.int32], target: NDArray[np.int32],
        time: int, round_number: int, placement: Placement,
    ) -> None:  # fmt: skip
        """Learn from walks int32 [n, length], and from sessions int32 [m, reach], newest item
        first, with what came next, int32 [m], at this time, ms. All are slots, -1 past the end.
        Items are similar, and residuals shrink (`residual.strength`), by `placement`."""
        m, catalogue, model = self.settings.model, self.catalogue, self.model
        items = catalogue.clicked
        pace = model.pace(time, m.rate)  # which a restart has by the time alone
        if len(items) == 0:
            return
        columns = catalogue.model.columns  # where items are placed, is by the catalogue's
        pool = self._pools.of(
            items,
            catalogue.graph,
            columns.cluster,
            columns.buckets[:, 0],
            columns.published,
            columns.epoch,
            placement.hashed_since,
        )
        corpus, clicked = self.corpus, catalogue.graph.clicked
        stars = np.zeros((0, 1), np.int32)
        if corpus.has_sessions:
            stars = corpus.stars(history[:, : Corpus.reach(self.settings)], target, round_number)
        if corpus.settings.subsample > 0.0:
            total = float(clicked[items].sum(dtype=np.float64))
            walks = corpus.sampled(walks, clicked, total, round_number, False)
            stars = corpus.sampled(stars, clicked, total, round_number, True)
        for sentences, are_stars in (walks, False), (stars, True):
            if len(sentences) == 0:
                continue
            skipgram.learn_walks(
                model.rows, sentences, pool, seed=m.seed, round_number=round_number,
                window=sentences.shape[1] if are_stars and not corpus.shrinks else m.window,
                shrink=m.shrink_windows and (corpus.shrinks or not are_stars),
                negatives=m.negatives, block=m.block, hardest_of=self.settings.negatives.hardest_of,
                pace=pace, are_stars=are_stars, threads=self.settings.engine.threads,
            )  # fmt: skip
        # Attribute weights have no accumulator, and go at one rate.
        further = model.pace(time, m.session_rate)._replace(rate=pace.rate)
        skipgram.learn_sessions(
            model.rows, history[:, : self.settings.session.length], target,
            catalogue.graph.slabs(), self._pools.uniform(items), m,
            round_number=round_number, pace=further, share=float(model.owns.mean()),
        )  # fmt: skip
        stood = [each[each[:, 1] >= 0] for each in (walks, stars) if each.shape[1] > 1]
        updates = model.columns.updates
        seen, times = _counted(
            np.concatenate([*(each[each >= 0] for each in stood), target]), len(updates)
        )
        owned = model.rows.owned[seen]
        seen, times = seen[owned], times[owned]
        before = updates[seen]
        updates[seen] = before + times
        if (strength := self.settings.residual.strength) > 0.0:
            residual.pull(
                model.rows, seen, times, updates[seen], columns.cluster[seen],
                placement.centroids, strength, m.rate,
            )  # fmt: skip
        self._lend(round_number)
        model.cut()
        if model is catalogue.model:
            catalogue.settled += int(((before < SETTLED) & (before + times >= SETTLED)).sum())

    def _lend(self, round_number: int) -> None:
        """Give owned items that nobody has clicked rows of items like them, some in each round."""
        catalogue, r = self.catalogue, self.model.rows
        if catalogue.width == 0:
            return
        # Each look is one at all items, so of many there are few.
        turn, is_off = divmod(round_number, 1 + len(catalogue.items) // lending.OFTEN)
        if is_off and not catalogue.described:
            return
        updates, c = self.model.columns.updates, catalogue.model.columns
        n = len(catalogue.vocabulary)
        is_bare = c.alive[:n] & c.is_item[:n] & r.owned[:n] & (r.attrs[:n, 0] >= 0)
        is_bare &= (catalogue.graph.clicks[:n] == 0) & (updates[:n] == 0)
        bare = np.flatnonzero(is_bare).astype(np.int32)
        waits = (c.version[bare] == 0) | c.stale[bare]
        learned = catalogue.clicked[updates[catalogue.clicked] > 0]
        lending.lend(r, learned, lending.turn(bare, waits, turn))


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
