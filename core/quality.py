"""How good the model is right now: transitions that it has not learned yet, ranked among all items.

Prequential (Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
Learning 90, 2013): each transition is first used to test and then to learn. The query is the item
that a session was at, the target the one it went to, and every living item but the query is ranked.
Three rankers are the model's; the two others are the obvious ones that it has to beat. What the
fused ranker learns, it learns here, of each transition after it was ranked.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.graph.graph import Graph
from core.graph.slabs import UNIT
from core.kernels.lanes import PASS, SOURCES, address, pointer, pointers, prefetch
from core.kernels.scan import rank
from core.learning.dense import F32, inner
from core.learning.skipgram import KERNEL, Rows, hidden
from core.placing.clusters import unit_rows
from core.ranking.candidates import Arcs, gather_all
from core.ranking.experts import ASKED, HALF, Questions, Table, fill
from core.ranking.fusion import Fusion
from core.settings import Settings
from core.transitions import Transitions, transitions

RANKERS = ("next", "hybrid", "session", "popularity", "covisitation")
"""For query a and item b: V^a.V^b + V^a.U^b + U^a.V^b of unit rows; the fused ranker
(`core.ranking.fusion`), asked by a, and by the session; the decayed count of b; the weight of the
arc a -> b."""
DEPTH = 20
"""A target that ranks among the first so many is a hit."""
SCORES = 800_000
"""Transitions times items of a sample at most; they bound its time."""
CANDIDATES = 10_000
"""Where there are more items, so many of them, drawn anew in each round, stand for all: a rank is
among these, and hits are more than among all (Krichene and Rendle, "On sampled metrics for item
recommendation", KDD 2020). They tell better from worse all the same."""
AHEAD = 4
"""Candidates whose rows are asked for ahead of their turn."""
TILE = 32
"""Items whose unit rows stay in the first cache while all queries meet them; a multiple of 4."""
EAGER = 6
"""Times as many transitions teach where there is much to learn."""
SAMPLE = 5
"""Purpose number of this module's random stream."""


class Duel(NamedTuple):
    """Trials that were ranked by a challenger too, by `next`, and how many of them both models,
    the challenger alone, and the champion alone have hit."""

    trials: int = 0
    both: int = 0
    wins: int = 0
    losses: int = 0

    @classmethod
    def of(cls, challenger: NDArray[np.int64], champion: NDArray[np.int64]) -> "Duel":
        """Of the ranks of both, int64 [q]."""
        own, theirs = challenger < DEPTH, champion < DEPTH
        counted = own & theirs, own & ~theirs, theirs & ~own
        return cls(len(own), *(int(each.sum()) for each in counted))


@dataclass(frozen=True)
class Quality:
    """Outcome of a round's trials: how many there were, and by ranker (all of RANKERS) the hits and
    the sum of their reciprocal ranks."""

    trials: int
    hits: dict[str, int]
    reciprocal: dict[str, float]
    candidates: int = 0
    """Items that were ranked in each trial."""
    duel: Duel = Duel()  # noqa: RUF009
    """Where a challenger learns beside the model."""


NOTHING_RANKED = Quality(0, dict.fromkeys(RANKERS, 0), dict.fromkeys(RANKERS, 0.0))


def measure(
    clicks: Clicks, catalogue: Catalogue, fusion: Fusion, settings: Settings, round_number: int,
    learns: bool = True,
) -> Quality:  # fmt: skip
    """Rank a sample of the transitions of a round's clicks, by all of this as it stands before it,
    and let `fusion` learn from them, if it `learns` here.

    A model beside the catalogue's, if there is one, ranks the same trials by its own `next`.
    A fused ranker that is eager learns from more. Of very many items a sample is ranked. A
    transition from an item that is not known is none: it has no vector to ask by. One to such an
    item is a miss.
    """
    admitted = catalogue.admission.has(clicks.items) if catalogue.admission.is_on else None
    made = transitions(clicks, catalogue.sessions, catalogue.vocabulary, settings.session, admitted)
    first, *further = samples(made.session, len(catalogue.items), settings, round_number)
    trials = _trials(made, first, catalogue, settings, round_number)
    quality = replace(NOTHING_RANKED, candidates=min(len(catalogue.items), CANDIDATES))
    if trials is not None:
        fused = fusion.ranks(trials.table, trials.target, learns=learns)
        found = ranks(trials.scores[0], catalogue.graph, trials.ranked, trials.query, trials.target)
        for name, row in zip(FUSED, fused, strict=True):
            found[name] = np.where(row < 0, DEPTH, row)
        ranked = {name: found[name][found[name] < DEPTH] for name in RANKERS}
        hits = {name: len(row) for name, row in ranked.items()}
        reciprocal = {name: float((1.0 / (row + 1)).sum()) for name, row in ranked.items()}
        duel = Duel()
        if catalogue.beside is not None:
            scores = next_scores(catalogue.beside.rows, trials.ranked, trials.query)
            own = next_ranks(scores, trials.ranked, trials.query, trials.target)
            duel = Duel.of(own, found["next"])
        quality = Quality(len(trials.query), hits, reciprocal, len(trials.ranked), duel)
    # More teach a fused ranker that is eager. They are of the same time, and count for nothing.
    for chosen in further:
        if learns and fusion.eager:
            trials = _trials(made, chosen, catalogue, settings, round_number)
            if trials is not None:
                fusion.ranks(trials.table, trials.target, learns=True)
    return quality


class Trials(NamedTuple):
    """Transitions of a round, and what there is to rank their targets by."""

    query: NDArray[np.int32]
    """[q]: slots, as below."""
    target: NDArray[np.int32]
    """[q]: -1 for an item that is not known."""
    ranked: NDArray[np.int32]
    """[n]: what is ranked, ascending."""
    table: Table
    scores: NDArray[np.float32]
    """[2, q, n]"""


def _trials(
    made: Transitions, chosen: NDArray[np.int64], catalogue: Catalogue, settings: Settings,
    round_number: int,
) -> Trials | None:  # fmt: skip
    """Those of the chosen transitions that go on from a known item; None if there are none."""
    vocabulary, items = catalogue.vocabulary, catalogue.items
    session = np.full((len(chosen), ASKED), -1, np.int32)
    target, time = np.full(len(chosen), -1, np.int32), np.zeros(len(chosen), np.int64)
    for q, i in enumerate(chosen.tolist()):
        history, goal, time[q] = made[i]
        slots = [vocabulary.get(item) for item in history]
        if slots[0] is None or not catalogue.model.columns.alive[slots[0]]:
            continue
        last = list(dict.fromkeys(slot for slot in slots if slot is not None))[:ASKED]
        session[q, : len(last)] = last
        slot = vocabulary.get(goal)
        target[q] = -1 if slot is None else slot
    known = session[:, 0] >= 0
    if not known.any():
        return None
    session, target, time = session[known], target[known], time[known]
    query = np.ascontiguousarray(session[:, 0])
    ranked = candidates(items, query, target, settings, round_number)
    questions = Questions(session, time, query, np.arange(len(query) + 1))
    each = len(items) / max(len(ranked), 1)
    return Trials(query, target, ranked, *ask(catalogue, settings, questions, ranked, each))


def ask(
    catalogue: Catalogue, settings: Settings, questions: Questions, items: NDArray[np.int32],
    each: float,
) -> tuple[Table, NDArray[np.float32]]:  # fmt: skip
    """What all experts say of the candidates of these questions; and the scores of all `items`,
    float32 [2, q, n], by the last items and by the sessions (`next_scores`).

    The best of `items` by these scores are candidates too; `each` is how many living items one of
    them stands for.
    """
    columns, rows = catalogue.model.columns, catalogue.model.rows
    slabs, alive = catalogue.graph.slabs(), columns.alive & columns.is_item
    by = np.stack([queries(rows, questions.session[:, :1]), queries(rows, questions.session)])
    scores = _scores_of(rows, items, by.reshape(-1, by.shape[2])).reshape(2, -1, len(items))
    found = gather_all(
        questions, int(settings.graph.half_life), catalogue.visits,
        Arcs(slabs.start, slabs.degree, slabs.nbr, slabs.wgt), alive, items, scores, each,
    )  # fmt: skip
    out = np.empty((2, len(found.slot)), np.float32)
    mixed = rows.attrs.shape[1] > 0
    slots, at = np.unique(found.slot, return_inverse=True) if mixed else (found.slot, found.slot)
    _pairs(
        hidden(rows, slots) if mixed else rows.v, rows.u[slots] if mixed else rows.u, at,
        found.begin, by, rows.tables().wide, out,
    )  # fmt: skip
    return fill(found, out, catalogue.visits), scores


def samples(
    session: NDArray[np.int64], items: int, settings: Settings, round_number: int
) -> list[NDArray[np.int64]]:
    """Which of n transitions are ranked in this round, fewer where items are many; and which ones
    besides if need be, as many each time, of each session one at most: a single user who clicks a
    lot teaches little. Each is ascending, and none is in two.

    session int64 [n] says of which session each is.
    """
    size = min(settings.quality.sample, SCORES // min(max(items, 1), CANDIDATES))
    rng = np.random.default_rng([settings.model.seed, round_number, SAMPLE])
    drawn = rng.permutation(len(session))
    first, rest = drawn[:size], drawn[size:]
    rest = rest[np.sort(np.unique(session[rest], return_index=True)[1])]
    further = (rest[k * size : (k + 1) * size] for k in range(EAGER - 1))
    return [np.sort(part) for part in (first, *further)]


def candidates(
    items: NDArray[np.int32], query: NDArray[np.int32], target: NDArray[np.int32],
    settings: Settings, round_number: int,
) -> NDArray[np.int32]:  # fmt: skip
    """The items that are ranked, ascending: all, or a sample with queries and targets in it."""
    if len(items) <= CANDIDATES:
        return items
    rng = np.random.default_rng([settings.model.seed, round_number, SAMPLE, 1])
    drawn = items[rng.integers(len(items), size=CANDIDATES)]
    return np.unique(np.concatenate([drawn, query, target[target >= 0]]))


COUNTED = "popularity", "covisitation"
FUSED = "hybrid", "session"
"""The rankers by their heads (`core.ranking.fusion`)."""


def ranks(
    scores: NDArray[np.float32], graph: Graph, items: NDArray[np.int32], query: NDArray[np.int32],
    target: NDArray[np.int32],
) -> dict[str, NDArray[np.int64]]:  # fmt: skip
    """How many of `items`, without its query, each plain ranker puts before each target: int64 [q].

    scores float32 [q, n] are those of `next`; items int32 [n] are the slots of all living items,
    ascending; query and target int32 [q] are of them, and differ; a target that is not known is -1.
    Of equals the older item comes first, which is the lower slot. A target that is not known, or by
    `covisitation` has no arc, has n before it, or DEPTH if that is more.
    """
    counted = np.full((len(COUNTED), len(query)), max(len(items), DEPTH), np.int64)
    if (known := np.flatnonzero(target >= 0)).size:
        _count_ranks(graph.clicked[items], items, known, query, target, graph.slabs(), counted)
    found = dict(zip(COUNTED, counted, strict=True))
    return {"next": next_ranks(scores, items, query, target), **found}


def next_ranks(
    scores: NDArray[np.float32], items: NDArray[np.int32], query: NDArray[np.int32],
    target: NDArray[np.int32],
) -> NDArray[np.int64]:  # fmt: skip
    """As `ranks`, by `next` alone."""
    out = np.full(len(query), max(len(items), DEPTH), np.int64)
    if (known := np.flatnonzero(target >= 0)).size:
        _next_ranks(scores, items, known, query, target, out)
    return out


def both(rows: Rows, slots: NDArray[np.int32]) -> NDArray[np.float32]:
    """The unit rows V^ and U^ of slots side by side, float32 [n, 2 dim]."""
    v, u = unit_rows(hidden(rows, slots)), unit_rows(rows.u[slots])
    return np.concatenate([v, u], axis=1)


def queries(rows: Rows, asked: NDArray[np.int32]) -> NDArray[np.float32]:
    """What to multiply [V^b; U^b] with for the score E of b: [V^a + U^a; V^a], float32 [q, 2 dim].

    asked int32 [q, k] are slots, the newest first, -1 past the end: vectors are the means over
    them, with weights that halve from each to the next.
    """
    dim = rows.v.shape[1]
    weight = np.where(asked >= 0, HALF ** np.arange(asked.shape[1], dtype=np.float32), 0.0)
    weight = (weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)
    vectors = both(rows, np.maximum(asked, 0).reshape(-1)).reshape(*asked.shape, 2 * dim)
    mean = np.einsum("qk,qkd->qd", weight, vectors)
    return np.concatenate([mean[:, :dim] + mean[:, dim:], mean[:, :dim]], axis=1)


def next_scores(
    rows: Rows, items: NDArray[np.int32], asked: NDArray[np.int32]
) -> NDArray[np.float32]:
    """V^a.V^b + V^a.U^b + U^a.V^b for queries a and items b (slots), float32 [q, n].

    asked int32 [q], or [q, k] for sessions (`queries`).
    """
    return _scores_of(rows, items, queries(rows, asked[:, None] if asked.ndim == 1 else asked))


def _scores_of(
    rows: Rows, items: NDArray[np.int32], by: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The scores of items by queries, float32 [queries, n]."""
    out = np.empty((len(by), len(items)), np.float32)
    mixed = rows.attrs.shape[1] > 0
    vectors, u = (hidden(rows, items), rows.u[items]) if mixed else (rows.v, rows.u)
    at = np.arange(len(items), dtype=np.int32) if mixed else items
    _scores(vectors, u, at, by, out)
    return out


@PASS
def _pairs(vectors, u, at, begin, queries, wide, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """out[k, i] = queries[k, q] . [unit row of vectors[at[i]]; unit row of u[at[i]]], where i is a
    candidate of question q: begin[q] <= i < begin[q + 1]."""
    d, n = 16 * len(wide), len(at)
    one_of = queries.shape[1] * 2 * d
    vectors, u, by, found = pointer(vectors), pointer(u), pointer(queries), pointer(out)
    for q in range(len(begin) - 1):
        one, other = q * 2 * d, one_of + q * 2 * d
        for i in range(begin[q], begin[q + 1]):
            v = np.int64(at[i]) * d
            if i + AHEAD < n:
                for line in range(len(wide)):
                    prefetch(address(vectors, np.int64(at[i + AHEAD]) * d + 16 * line))
                    prefetch(address(u, np.int64(at[i + AHEAD]) * d + 16 * line))
            square, further = inner(vectors, v, vectors, v, wide), inner(u, v, u, v, wide)
            scale = F32(1.0) / np.sqrt(square) if square > F32(0.0) else F32(0.0)
            further = F32(1.0) / np.sqrt(further) if further > F32(0.0) else F32(0.0)
            by_v, by_u = inner(by, one, vectors, v, wide), inner(by, one + d, u, v, wide)
            found[i] = scale * by_v + further * by_u
            by_v, by_u = inner(by, other, vectors, v, wide), inner(by, other + d, u, v, wide)
            found[n + i] = scale * by_v + further * by_u


@KERNEL
def _scores(vectors, u, at, queries, out):  # type: ignore[no-untyped-def]
    """out[j, i] = queries[j] . [unit row of vectors[at[i]]; unit row of u[at[i]]]."""
    d = u.shape[1]
    pairs = np.zeros((TILE, 2 * d), np.float32)
    tile = np.empty(TILE, np.float32)
    for begin in range(0, len(at), TILE):
        used = min(TILE, len(at) - begin)
        for k in range(used):
            one, other = vectors[at[begin + k]], u[at[begin + k]]
            square = np.float32(0.0)
            for x in range(d):
                square += one[x] * one[x]
            scale = np.float32(1.0) / np.sqrt(square) if square > 0.0 else np.float32(0.0)
            for x in range(d):
                pairs[k, x] = scale * one[x]
            square = np.float32(0.0)
            for x in range(d):
                square += other[x] * other[x]
            scale = np.float32(1.0) / np.sqrt(square) if square > 0.0 else np.float32(0.0)
            for x in range(d):
                pairs[k, d + x] = scale * other[x]
        for j in range(len(queries)):
            # Four items at a time: one load of the query serves four sums.
            for k in range(0, TILE, 4):
                s0 = s1 = s2 = s3 = np.float32(0.0)
                for x in range(2 * d):
                    y = queries[j, x]
                    s0 += y * pairs[k, x]
                    s1 += y * pairs[k + 1, x]
                    s2 += y * pairs[k + 2, x]
                    s3 += y * pairs[k + 3, x]
                tile[k], tile[k + 1], tile[k + 2], tile[k + 3] = s0, s1, s2, s3
            for k in range(used):
                out[j, begin + k] = tile[k]


@nb.njit(cache=True, nogil=True)
def _next_ranks(scores, items, known, query, target, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The ranks of trials `known` by scores [q, n] into out[trial]."""
    for i in known:
        own, at = np.searchsorted(items, query[i]), np.searchsorted(items, target[i])
        out[i] = rank(scores[i], own, at)


@nb.njit(cache=True, nogil=True)
def _count_ranks(count, items, known, query, target, graph, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The ranks of trials `known` into out[ranker, trial], by the rankers COUNTED."""
    graph = pointers(graph)
    nbr, wgt = graph.nbr, graph.wgt
    for i in known:
        a, b = query[i], target[i]
        own, at = np.searchsorted(items, a), np.searchsorted(items, b)
        out[0, i] = rank(count, own, at)
        arcs = range(graph.start[a] * UNIT, graph.start[a] * UNIT + graph.degree[a])
        for goal in arcs:
            if nbr[goal] == b:
                before = 0
                for arc in arcs:
                    tied = wgt[arc] == wgt[goal] and nbr[arc] < b
                    before += wgt[arc] > wgt[goal] or tied
                out[1, i] = before
