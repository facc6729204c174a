"""The fused ranker on a state folder: what `hybrid` makes of arcs, visits, vectors and heat."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import UNIT
from core.ids.vocabulary import encode
from core.ranking.candidates import ARCS, NEAREST, Arcs, gather_all
from core.ranking.experts import ASKED, HALF, Candidates, Questions, fill
from core.ranking.fusion import Fusion
from core.retracing import retrace
from core.settings import Settings
from streamer.query.arcs import Arcs as Stored
from streamer.query.shelves import Shelf
from streamer.state import packing, records, traces
from streamer.state.store import Store


class Ranker:
    """The ranker of a folder as it stands now. Slots are its own, by the order in which it met the
    items."""

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self.shelf, self.arcs = shelf, Stored(store)
        value = store.meta(records.FUSION)
        self.fusion, settings = (
            (Fusion.new(), Settings()) if value is None else packing.unpack_fusion(value)
        )
        past = retrace(settings, traces.rounds(store))
        self.half_life = int(settings.graph.half_life)
        self.vocabulary, self.visits = past.vocabulary, past.catalogue.visits
        self.now = int(self.visits.time.max(initial=0))

    def ask(
        self, session: Sequence[bytes], handles: Sequence[Any], scores: NDArray[np.float32], k: int
    ) -> tuple[list[Any], NDArray[np.float32]]:
        """Handles of what may come next, in the order of their keys, and the share of each: how
        likely it is to be the one.

        session are the keys of items that have a vector, the newest last; `handles` and `scores`
        what is near them, of which k at least are looked at.
        """
        recent = list(dict.fromkeys(reversed(session)))[:ASKED]
        near = [self.shelf.details(handle)[0] for handle in handles]
        rows = self._rows(recent)
        slots = self._slots([*recent, *near])
        self.visits.reserve(len(self.vocabulary))
        asked = np.full((1, ASKED), -1, np.int32)
        asked[0, : len(recent)] = slots[: len(recent)]
        questions = Questions(
            asked, np.array([self.now]), slots[: len(recent)], np.array([0, len(recent)])
        )
        alive = np.ones(len(self.vocabulary), np.bool_)
        found = gather_all(
            questions, self.half_life, self.visits, rows(), alive, slots[len(recent) :],
            np.broadcast_to(scores, (1, 1, len(scores))), 1.0, max(NEAREST, k),
        )  # fmt: skip
        names = self.vocabulary.names(found.slot)
        keyed = [(encode(name), at) for at, name in enumerate(names)]
        known = [(key, handle, at) for key, at in keyed
                 if (handle := self.shelf.handle(key)) is not None]  # fmt: skip
        known.sort()
        out = [handle for _, handle, _ in known]
        found = _chosen(found, np.array([at for _, _, at in known], np.int64))
        if not out:
            return [], np.zeros(0, np.float32)
        table = fill(found, self._inner(recent, out), self.visits)
        score = self.fusion.scores(table, "session" if len(recent) > 1 else "item")
        share = np.exp(score - score.max())
        return out, share / share.sum()

    def _slots(self, keys: Sequence[bytes]) -> NDArray[np.int32]:
        return self.vocabulary.intern([key.decode("utf-8", "surrogateescape") for key in keys])

    def _rows(self, recent: Sequence[bytes]) -> Callable[[], Arcs]:
        """The rows of the graph that are looked at: of the items, and of the nearest of the last.

        They come as a graph of their own once all slots are known.
        """
        found = {key: self.arcs.shares(key) for key in recent}
        first = found[recent[0]]
        for key in sorted(first, key=lambda key: -first[key])[:ARCS]:
            if key not in found:
                found[key] = self.arcs.shares(key)
        owners = self._slots(list(found))
        parts = [self._slots(list(row)) for row in found.values()]

        def rows() -> Arcs:
            start, degree = np.zeros((2, len(self.vocabulary)), np.int32)
            sizes = np.array([-(-len(part) // UNIT) for part in parts])
            start[owners], degree[owners] = np.cumsum(sizes) - sizes, [*map(len, parts)]
            nbr = np.zeros((int(sizes.sum()), UNIT), np.int32).reshape(-1)
            wgt = np.zeros(len(nbr), np.float32)
            for owner, part, row in zip(owners, parts, found.values(), strict=True):
                at = slice(start[owner] * UNIT, start[owner] * UNIT + len(part))
                nbr[at], wgt[at] = part, list(row.values())
            return Arcs(start, degree, nbr, wgt)

        return rows

    def _inner(self, recent: Sequence[bytes], handles: Sequence[Any]) -> NDArray[np.float32]:
        """The scores E of items for the last of a session and for all of it, float32 [2, n]."""
        asked = self.shelf.vectors([self.shelf.handle(key) for key in recent])
        weight = HALF ** np.arange(len(recent), dtype=np.float32)
        both = np.stack([asked[0], weight @ asked / weight.sum()])
        dim = both.shape[1] // 2
        queries = np.concatenate([both[:, :dim] + both[:, dim:], both[:, :dim]], axis=1)
        return np.ascontiguousarray(queries @ self.shelf.vectors(handles).T, np.float32)


def _chosen(found: Candidates, at: NDArray[np.int64]) -> Candidates:
    """Some of the candidates of the one question."""
    return Candidates(
        np.array([0, len(at)]), found.slot[at], found.counted[at], found.stands_for[at]
    )
