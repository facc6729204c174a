"""How good the model is right now: transitions that it has not learned yet, ranked among all items.

Prequential (Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
Learning 90, 2013): each transition is first used to test and then to learn. The query is the item
that a session was at, the target the one it went to, and every living item but the query is ranked.
Three rankers are the model's; the two others are the obvious ones that it has to beat. What the
fused ranker learns, it learns here, of each transition after it was ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.graph.graph import Graph
from core.graph.sessions import Sessions
from core.graph.slabs import UNIT
from core.ids.vocabulary import Vocabulary
from core.kernels.lanes import PASS, SOURCES, address, pointer, pointers, prefetch
from core.kernels.scan import rank
from core.learning.dense import F32, inner
from core.learning.skipgram import KERNEL, Rows, hidden
from core.placing.clusters import unit_rows
from core.ranking.candidates import Arcs, gather_all
from core.ranking.experts import ASKED, HALF, Questions, Table, fill
from core.ranking.fusion import Fusion
from core.settings import SessionSettings, Settings

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
LOOKED_BACK = 64
"""Clicks of a session, those of one round, that are looked through for its last items."""
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
    clicks: Clicks, catalogue: Catalogue, fusion: Fusion, settings: Settings, round_number: int
) -> Quality:
    """Rank a sample of the transitions of a round's clicks, by all of this as it stands before it,
    and let `fusion` learn from them.

    A fused ranker that is eager learns from more. Of very many items a sample is ranked. A
    transition from an item that is not known is none: it has no vector to ask by. One to such an
    item is a miss.
    """
    made = transitions(clicks, catalogue.sessions, catalogue.vocabulary, settings.session)
    first, *further = samples(made.session, len(catalogue.items), settings, round_number)
    quality = _measure(made, first, catalogue, fusion, settings, round_number)
    # More teach a fused ranker that is eager. They are of the same time, and no trials.
    for chosen in further:
        if fusion.eager:
            _measure(made, chosen, catalogue, fusion, settings, round_number)
    return quality


def _measure(
    made: "Transitions", chosen: NDArray[np.int64], catalogue: Catalogue, fusion: Fusion,
    settings: Settings, round_number: int,
) -> Quality:  # fmt: skip
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
        return Quality(0, dict.fromkeys(RANKERS, 0), min(len(items), CANDIDATES))
    session, target, time = session[known], target[known], time[known]
    query = np.ascontiguousarray(session[:, 0])
    ranked = candidates(items, query, target, settings, round_number)
    questions = Questions(session, time, query, np.arange(len(query) + 1))
    each = len(items) / max(len(ranked), 1)
    table, scores = ask(catalogue, settings, questions, ranked, each)
    fused = fusion.ranks(table, target, learns=True)
    found = ranks(scores[0], catalogue.graph, ranked, query, target)
    found |= {name: np.where(row < 0, DEPTH, row) for name, row in zip(FUSED, fused, strict=True)}
    hits = {name: int((found[name] < DEPTH).sum()) for name in RANKERS}
    return Quality(len(query), hits, len(ranked))


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
        hidden(rows, slots) if mixed else rows.v, at, rows.u, found.slot, found.begin, by,
        rows.tables().wide, out,
    )  # fmt: skip
    return fill(found, out, catalogue.visits), scores


def transitions(
    clicks: Clicks, sessions: Sessions, vocabulary: Vocabulary, settings: SessionSettings
) -> "Transitions":
    """The transitions of these clicks, from one item to another.

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
    ends = 1 + np.flatnonzero(goes_on)
    differs = [items[order[end - 1]] != items[order[end]] for end in ends.tolist()]
    return Transitions(items, sessions, vocabulary, row, order, begin, time, ends[differs])


@dataclass(frozen=True)
class Transitions(Sequence["tuple[list[str], str, int]"]):
    """By number: the items of the session so far, the newest first, the one that came next, and the
    time, ms."""

    items: list[str]
    """Of all clicks, the last ones of the open sessions first."""
    sessions: Sessions
    vocabulary: Vocabulary
    rows: NDArray[np.int64]
    """Rows of the open sessions, in the order of their last clicks."""
    order: NDArray[np.int64]
    """The clicks by user, in their order."""
    begin: NDArray[np.int64]
    """By place in the order but the first: the place before it at which the session begins."""
    time: NDArray[np.int64]
    """By place in the order, ms."""
    ends: NDArray[np.int64]
    """Places in the order to which the transitions go."""

    @property
    def session(self) -> NDArray[np.int64]:
        """By number: the place in the order at which the session of each begins."""
        return self.begin[self.ends - 1]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> tuple[list[str], str, int]:  # type: ignore[override]
        end = int(self.ends[number])
        begin = int(self.begin[end - 1])
        clicks = self.order[max(begin, end - LOOKED_BACK) : end][::-1].tolist()
        history = [self.items[click] for click in clicks]
        if self.order[begin] < len(self.rows):
            row = self.rows[self.order[begin]]
            had = self.sessions.items[row, 1 : self.sessions.size[row]]
            history += self.vocabulary.names(had)
        return history, self.items[self.order[end]], int(self.time[end])


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


PLAIN = "next", "popularity", "covisitation"
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
    ranks = np.full((len(PLAIN), len(query)), max(len(items), DEPTH), np.int64)
    if (known := np.flatnonzero(target >= 0)).size:
        _ranks(scores, graph.clicked[items], items, known, query, target, graph.slabs(), ranks)
    return dict(zip(PLAIN, ranks, strict=True))


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
    vectors = hidden(rows, items) if mixed else rows.v
    at = np.arange(len(items), dtype=np.int32) if mixed else items
    _scores(vectors, at, rows.u, items, by, out)
    return out


@PASS
def _pairs(vectors, at, u, slots, begin, queries, wide, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """out[k, i] = queries[k, q] . [unit row of vectors[at[i]]; unit row of u[slots[i]]], where i is
    a candidate of question q: begin[q] <= i < begin[q + 1]."""
    d, n = 16 * len(wide), len(slots)
    one_of = queries.shape[1] * 2 * d
    vectors, u, by, found = pointer(vectors), pointer(u), pointer(queries), pointer(out)
    for q in range(len(begin) - 1):
        one, other = q * 2 * d, one_of + q * 2 * d
        for i in range(begin[q], begin[q + 1]):
            v, w = np.int64(at[i]) * d, np.int64(slots[i]) * d
            if i + AHEAD < n:
                for line in range(len(wide)):
                    prefetch(address(vectors, np.int64(at[i + AHEAD]) * d + 16 * line))
                    prefetch(address(u, np.int64(slots[i + AHEAD]) * d + 16 * line))
            square, further = inner(vectors, v, vectors, v, wide), inner(u, w, u, w, wide)
            scale = F32(1.0) / np.sqrt(square) if square > F32(0.0) else F32(0.0)
            further = F32(1.0) / np.sqrt(further) if further > F32(0.0) else F32(0.0)
            by_v, by_u = inner(by, one, vectors, v, wide), inner(by, one + d, u, w, wide)
            found[i] = scale * by_v + further * by_u
            by_v, by_u = inner(by, other, vectors, v, wide), inner(by, other + d, u, w, wide)
            found[n + i] = scale * by_v + further * by_u


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
    """The ranks of trials `known` into out[ranker, trial]; `scores` [q, n] are by `next`."""
    graph = pointers(graph)
    nbr, wgt = graph.nbr, graph.wgt
    for i in known:
        a, b = query[i], target[i]
        own, at = np.searchsorted(items, a), np.searchsorted(items, b)
        out[0, i] = rank(scores[i], own, at)
        out[1, i] = rank(count, own, at)
        arcs = range(graph.start[a] * UNIT, graph.start[a] * UNIT + graph.degree[a])
        for goal in arcs:
            if nbr[goal] == b:
                before = 0
                for arc in arcs:
                    tied = wgt[arc] == wgt[goal] and nbr[arc] < b
                    before += wgt[arc] > wgt[goal] or tied
                out[2, i] = before
