"""Ranks of the next item among all living ones, by the model and by the rankers that it must beat.

Every ranker is asked the same. Of equals the older item comes first, as in `core.quality`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.slabs import UNIT
from core.kernels.lanes import SOURCES
from core.kernels.scan import rank
from core.learning.skipgram import Rows, hidden
from core.placing.clusters import unit_rows
from core.quality import DEPTH, ask
from core.ranking.experts import ASKED, Questions
from streamer.evaluate.past import Past, Positions
from streamer.evaluate.tables import Table

Mode = Literal["similar", "next", "hybrid"]
Ranks = dict[str, NDArray[np.int32]]
"""By ranker and position, int32 [q]: how many items come before the target."""

CHUNK = 64
"""Queries whose scores of all items are held at a time."""


class Asked:
    """Positions of a round whose query is a living item, and the n items that are ranked.

    An item's column is its index in `engine.items`, which is the order of birth: -1 for one that
    does not live, among the targets too. The items `further`, int32 numbers in `past`, are ranked
    too where they do not live, and have the columns after those. The query is left out of its
    ranking; where `unseen`, all items that the session has are, and positions whose target is one
    of them.
    """

    def __init__(
        self, engine: Engine, past: Past, positions: Positions, unseen: bool,
        further: NDArray[np.int32] | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.numbers = past.vocabulary.intern(engine.vocabulary.names(engine.items))
        """int32 [n]: what is ranked, by its number in `past`."""
        living = len(self.numbers)
        if further is not None:
            self.numbers = np.concatenate([self.numbers, np.setdiff1d(further, self.numbers)])
        self.column = np.full(len(past.vocabulary), -1, np.int32)
        self.column[self.numbers] = np.arange(len(self.numbers), dtype=np.int32)
        query = self.column[positions.history[:, 0]]
        known = (query >= 0) & (query < living)
        self.positions = positions.at(known & ~positions.repeated if unseen else known)
        history = self.positions.history
        self.history = np.where(history >= 0, self.column[history], -1)
        """int32 [q, length]: columns of the last items of each session."""
        self.query, self.target = self.history[:, 0], self.column[self.positions.target]
        self.left_out = [session[-1:] for session in self.positions.sessions]
        """By position, the items that are not ranked: numbers, each once, the query first."""
        if unseen:
            self.left_out = [_each(session[::-1]) for session in self.positions.sessions]
        columns = [self.column[items] for items in self.left_out]
        ranked = [column[column >= 0] for column in columns]
        self.left_out_columns = np.concatenate([np.zeros(0, np.int32), *ranked])
        """The same as columns, one position after the other."""
        self.left_out_begin = np.cumsum([0, *map(len, ranked)])
        """int64 [q + 1]: where each position's begin."""

    def __len__(self) -> int:
        return len(self.query)

    @property
    def last(self) -> int:
        """The rank of what is not found."""
        return max(len(self.numbers), DEPTH)


Ranker = Callable[[Asked], Ranks]


def _each(items: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each item once, in the order in which they come first."""
    return items[np.sort(np.unique(items, return_index=True)[1])]


def rank_rows(
    asked: Asked, at: slice, target: NDArray[np.int32], scores: NDArray[np.float32],
    out: NDArray[np.int32],
) -> None:  # fmt: skip
    """Ranks of the targets (columns, -1 if not found) of the positions `at` into `out` [at]."""
    begin = asked.left_out_begin[at.start : at.stop + 1]
    _rank_rows(scores, begin, asked.left_out_columns, target[at], asked.last, out[at])


@nb.njit(cache=True, nogil=True)
def _rank_rows(scores, begin, left_out, target, last, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    for i in range(len(target)):
        b = target[i]
        if b < 0:
            out[i] = last
            continue
        row = scores[i]
        out[i] = rank(row, left_out[begin[i]], b)
        for j in range(begin[i] + 1, begin[i + 1]):
            c = left_out[j]
            out[i] -= row[c] > row[b] or (row[c] == row[b] and c < b)


def chunks(q: int) -> Iterator[slice]:
    """The positions 0 to q, CHUNK at a time."""
    return (slice(begin, min(begin + CHUNK, q)) for begin in range(0, q, CHUNK))


# -- vectors -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """The engine's rankers: V^a.V^b ("similar"); E = V^a.V^b + V^a.U^b + U^a.V^b ("next"); and the
    fused one ("hybrid", `core.ranking.fusion`).

    With `decay` g, also by the last items of a session: vectors are then the means over them with
    weights 1, g, g^2 and so on.
    """

    modes: tuple[Mode, ...]
    decay: float | None = None

    def vectors(
        self, asked: Asked, rows: Rows | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The unit rows V^ and U^ of all that is ranked, float32 [n, dim] each: by the engine's
        rows, or by others of the same slots."""
        e = asked.engine
        rows = e.model.rows if rows is None else rows
        return unit_rows(hidden(rows, e.items)), unit_rows(rows.u[e.items])

    def __call__(self, asked: Asked, rows: Rows | None = None) -> Ranks:
        """By the engine's rows, or by others of the same slots."""
        v, u = self.vectors(asked, rows)
        queries = {"": (asked.history[:, :1], 1.0)}
        if self.decay is not None:
            queries[", session"] = (asked.history, self.decay)
        names = [mode + by for by in queries for mode in self.modes]
        out = {name: np.full(len(asked), asked.last, np.int32) for name in names}
        for at in chunks(len(asked)):
            for by, (history, decay) in queries.items():
                weights = _weights(history[at], decay)
                for mode, scores in self._scores(v, u, history[at], weights):
                    rank_rows(asked, at, asked.target, scores, out[mode + by])
            if "hybrid" in self.modes:
                for by, ranks in zip(queries, _fused(asked, at), strict=False):
                    out["hybrid" + by][at] = np.where(ranks < 0, asked.last, ranks)
        return out

    def _scores(
        self, v: NDArray[np.float32], u: NDArray[np.float32], history: NDArray[np.int32],
        weights: NDArray[np.float32],
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:  # fmt: skip
        """Scores of all items by mode, float32 [len(history), n], each used before the next."""
        query = np.einsum("qk,qkd->qd", weights, v[history])
        scores = query @ v.T
        if "similar" in self.modes:
            yield "similar", scores
        if "next" in self.modes:
            scores += np.einsum("qk,qkd->qd", weights, u[history]) @ v.T
            scores += query @ u.T
            yield "next", scores


def _weights(history: NDArray[np.int32], decay: float) -> NDArray[np.float32]:
    """decay^i for the item that lies i back, 0 for none; each row sums to 1."""
    weights = np.where(history >= 0, decay ** np.arange(history.shape[1]), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _fused(asked: Asked, at: slice) -> NDArray[np.int64]:
    """Ranks of the targets of positions `at` by the fused ranker, int64 [heads, positions]; -1 for
    one that is no candidate."""
    e = asked.engine
    n = at.stop - at.start
    session = np.full((n, ASKED), -1, np.int32)
    for row, numbers in zip(session, asked.positions.sessions[at], strict=True):
        columns = asked.column[numbers[::-1]]
        last = list(dict.fromkeys(columns[columns >= 0].tolist()))[:ASKED]
        row[: len(last)] = e.items[last]
    begin = asked.left_out_begin[at.start : at.stop + 1]
    never = e.items[asked.left_out_columns[begin[0] : begin[-1]]]
    questions = Questions(session, asked.positions.time[at], never, begin - begin[0])
    found, _ = ask(e.catalogue, e.settings, questions, e.items, 1.0)
    target = asked.target[at]
    slots = np.where(target >= 0, e.items[np.maximum(target, 0)], -1).astype(np.int32)
    return e.fusion.ranks(found, slots, learns=False)


# -- counts --------------------------------------------------------------------------------------


def popularity(asked: Asked) -> Ranks:
    """By the decayed count."""
    out = np.empty(len(asked), np.int32)
    counts: NDArray[np.float32] = asked.engine.graph.clicked[asked.engine.items]
    scores = np.broadcast_to(counts, (len(asked), len(counts)))
    rank_rows(asked, slice(0, len(asked)), asked.target, scores, out)
    return {"popularity": out}


@dataclass(frozen=True)
class Counts:
    """By one row of a table: how much of each item there was beside, or after, the query. An item
    without any is not found."""

    name: str
    table: Table

    def __call__(self, asked: Asked) -> Ranks:
        out = np.full(len(asked), asked.last, np.int32)
        at = asked.positions
        _rank_counts(
            at.history[:, 0], at.target, asked.left_out_begin, asked.left_out_columns,
            asked.column, self.table.slabs(), out,
        )  # fmt: skip
        return {self.name: out}


@nb.njit(cache=True, nogil=True)
def _rank_counts(query, target, begin, left_out, column, graph, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Ranks of the items `target` int32 [q] in the rows of `query` int32 [q], both numbers of
    `past`, into out [q], which stays as it is where one is not found."""
    nbr, wgt = graph.nbr, graph.wgt
    for i in range(len(query)):
        a, goal = query[i], column[target[i]]
        if goal < 0 or a >= len(graph.degree):
            continue
        row = graph.start[a] * UNIT
        end = row + graph.degree[a]
        found = row
        while found < end and nbr[found] != target[i]:
            found += 1
        if found == end:
            continue
        before = 0
        for j in range(row, end):
            c = column[nbr[j]]
            if c >= 0 and (wgt[j] > wgt[found] or (wgt[j] == wgt[found] and c < goal)):
                before += 1
                for k in range(begin[i], begin[i + 1]):
                    before -= left_out[k] == c
        out[i] = before
