"""How good the model is right now: transitions that it has not learned yet, ranked among all items.

Prequential (Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
Learning 90, 2013): each transition is first used to test and then to learn. The query is the item
that a session was at, the target the one it went to, and every living item but the query is ranked.
Two rankers are the model's; the two others are the obvious ones that it has to beat.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.graph.graph import Graph
from core.graph.sessions import Sessions
from core.graph.slabs import UNIT
from core.ids.vocabulary import Vocabulary
from core.kernels.lanes import SOURCES, pointers
from core.kernels.scan import rank
from core.learning.skipgram import KERNEL, Rows, hidden
from core.model import Model
from core.placing.clusters import unit_rows
from core.settings import SessionSettings, Settings

RANKERS = ("next", "hybrid", "popularity", "covisitation")
"""For query a and item b: V^a.V^b + V^a.U^b + U^a.V^b of unit rows; that and the share that b has
of a's arcs; the decayed count of b; the weight of the arc a -> b."""
DEPTH = 20
"""A target that ranks among the first so many is a hit."""
GRAPH_SHARE = np.float32(2.0)
"""`hybrid` adds this times the square root of the share that b has of a's arcs."""
SCORES = 800_000
"""Scores (transitions times items) that are computed in a round at most; they bound its time."""
CANDIDATES = 10_000
"""Where there are more items, so many of them, drawn anew in each round, stand for all: a rank is
among these, and hits are more than among all (Krichene and Rendle, "On sampled metrics for item
recommendation", KDD 2020). They tell better from worse all the same."""
TILE = 32
"""Items whose unit rows stay in the first cache while all queries meet them; a multiple of 4."""
SAMPLE = 5
"""Purpose number of this module's random stream."""


@dataclass(frozen=True)
class Quality:
    """Outcome of a round's trials: how many there were, and hits by ranker (all of RANKERS)."""

    trials: int
    hits: dict[str, int]
    candidates: int = 0
    """Items that were ranked in each trial."""


def measure(
    clicks: Clicks, sessions: Sessions, vocabulary: Vocabulary, model: Model, graph: Graph,
    items: NDArray[np.int32], settings: Settings, round_number: int,
) -> Quality:  # fmt: skip
    """Rank a sample of the transitions of a round's clicks, by all of this as it stands before it.

    items int32 [n] are the slots of all living items, ascending; of very many a sample is ranked. A
    transition from an item that is not known is none: it has no vector to ask by. One to such an
    item is a miss.
    """
    pairs = transitions(clicks, sessions, vocabulary, settings.session)
    chosen = sample(len(pairs), len(items), settings, round_number)
    slots = [(vocabulary.get(a), vocabulary.get(b)) for a, b in (pairs[i] for i in chosen)]
    known = [(a, -1 if b is None else b) for a, b in slots if a is not None]
    query = np.array([a for a, _ in known], np.int32)
    target = np.array([b for _, b in known], np.int32)
    items = candidates(items, query, target, settings, round_number)
    found = ranks(model, graph, items, query, target)
    hits = {name: int((found[name] < DEPTH).sum()) for name in RANKERS}
    return Quality(len(query), hits, len(items))


def transitions(
    clicks: Clicks, sessions: Sessions, vocabulary: Vocabulary, settings: SessionSettings
) -> list[tuple[str, str]]:
    """The transitions of these clicks: pairs of ids, from one item to another.

    A click that continues a session goes on from the click that its user made before it, among
    these clicks or in the session as it stands. Clicks that the fold will leave out make none:
    those past `max_events`, and repeats of an event id that the session holds or the click before
    has.
    """
    users = list(clicks.users)
    numbers = {user: n for n, user in enumerate(dict.fromkeys(users))}
    rows = np.fromiter((sessions.users.get(u, -1) for u in numbers), np.int64, len(numbers))
    known = np.flatnonzero(rows >= 0)
    known = known[sessions.size[rows[known]] > 0]
    row, n = rows[known], len(clicks)
    # The last clicks of the sessions stand before those of the round.
    numbered = np.fromiter(map(numbers.__getitem__, users), np.int64, n)
    user = np.concatenate([known, numbered])
    time = np.concatenate([sessions.time[row], clicks.times])
    count = np.concatenate([sessions.clicks[row], np.ones(n, np.int64)])
    items = [*vocabulary.names(sessions.items[row, 0]), *clicks.items]
    order = np.argsort(user, kind="stable")
    if clicks.event_ids is not None and settings.event_ids > 0:
        held = np.zeros((len(numbers), settings.event_ids), np.uint64)
        held[known] = sessions.event_ids[row]
        event_id = np.concatenate([np.zeros(len(known), np.uint64), clicks.event_ids])[order]
        who = user[order]
        repeat = (event_id[:, None] == held[who]).any(axis=1)
        repeat[1:] |= (event_id[1:] == event_id[:-1]) & (who[1:] == who[:-1])
        order = order[~repeat | (event_id == 0)]
    user, time = user[order], time[order]
    goes_on = (user[1:] == user[:-1]) & (np.abs(np.diff(time)) <= int(settings.gap))
    begin = np.maximum.accumulate(np.where(goes_on, 0, np.arange(1, 1 + len(goes_on))))
    before = np.cumsum(count[order]) - count[order]
    goes_on &= before[1:] - before[begin] < settings.max_events
    pairs = zip(order[:-1][goes_on].tolist(), order[1:][goes_on].tolist(), strict=True)
    return [(items[a], items[b]) for a, b in pairs if items[a] != items[b]]


def sample(n: int, items: int, settings: Settings, round_number: int) -> NDArray[np.int64]:
    """Which of n transitions are ranked in this round, ascending; fewer where items are many."""
    ranked = min(max(items, 1), CANDIDATES)
    size = min(n, settings.quality.sample, SCORES // ranked)
    rng = np.random.default_rng([settings.model.seed, round_number, SAMPLE])
    return np.sort(rng.choice(n, size, replace=False))


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


def ranks(
    model: Model, graph: Graph, items: NDArray[np.int32], query: NDArray[np.int32],
    target: NDArray[np.int32],
) -> dict[str, NDArray[np.int64]]:  # fmt: skip
    """How many of `items`, without its query, each ranker puts before each target: int64 [q].

    items int32 [n] are the slots of all living items, ascending; query and target int32 [q] are of
    them, and differ; a target that is not known is -1. Of equals the older item comes first, which
    is the lower slot. A target that is not known, or by `covisitation` has no arc, has n before it,
    or DEPTH if that is more.
    """
    ranks = np.full((len(RANKERS), len(query)), max(len(items), DEPTH), np.int64)
    if (known := np.flatnonzero(target >= 0)).size:
        _ranks(
            next_scores(model.rows, items, query[known]), graph.clicked[items], items, known,
            query, target, graph.slabs(), ranks,
        )  # fmt: skip
    return dict(zip(RANKERS, ranks, strict=True))


def next_scores(
    rows: Rows, items: NDArray[np.int32], query: NDArray[np.int32]
) -> NDArray[np.float32]:
    """V^a.V^b + V^a.U^b + U^a.V^b for queries a and items b (slots), float32 [q, n]."""
    v, u = unit_rows(hidden(rows, query)), unit_rows(rows.u[query])
    out = np.empty((len(query), len(items)), np.float32)
    mixed = rows.attrs.shape[1] > 0
    vectors = hidden(rows, items) if mixed else rows.v
    at = np.arange(len(items), dtype=np.int32) if mixed else items
    _scores(vectors, at, rows.u, items, np.concatenate([v + u, v], axis=1), out)
    return out


@KERNEL
def _scores(vectors, at, u, items, queries, out):  # type: ignore[no-untyped-def]
    """out[j, i] = queries[j] . [unit row of vectors[at[i]]; unit row of u[items[i]]]."""
    d = u.shape[1]
    pairs = np.zeros((TILE, 2 * d), np.float32)
    tile = np.empty(TILE, np.float32)
    for begin in range(0, len(items), TILE):
        used = min(TILE, len(items) - begin)
        for k in range(used):
            one, other = vectors[at[begin + k]], u[items[begin + k]]
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
def _ranks(scores, count, items, known, query, target, graph, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The ranks of trials `known` into out[ranker, trial]; `scores` [known, n] are by `next`."""
    graph = pointers(graph)
    nbr, wgt = graph.nbr, graph.wgt
    for trial in range(len(known)):
        i, row = known[trial], scores[trial]
        a, b = query[i], target[i]
        own, at = np.searchsorted(items, a), np.searchsorted(items, b)
        out[0, i] = rank(row, own, at)
        arcs = range(graph.start[a] * UNIT, graph.start[a] * UNIT + graph.degree[a])
        total = np.float32(0.0)
        for arc in arcs:
            total += wgt[arc]
        if total > 0.0:
            for arc in arcs:
                n = np.searchsorted(items, nbr[arc])
                if n < len(items) and items[n] == nbr[arc]:
                    row[n] += GRAPH_SHARE * np.sqrt(wgt[arc] / total)
        out[1, i] = rank(row, own, at)
        out[2, i] = rank(count, own, at)
        for goal in arcs:
            if nbr[goal] == b:
                before = 0
                for arc in arcs:
                    tied = wgt[arc] == wgt[goal] and nbr[arc] < b
                    before += wgt[arc] > wgt[goal] or tied
                out[3, i] = before
