import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core import quality
from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.quality import DEPTH
from core.ranking import experts
from core.ranking.fusion import Fusion
from core.rounds import Inputs
from core.settings import Duration, GraphSettings, ModelSettings, QualitySettings
from core.transitions import transitions
from streamer.evaluate import knn
from streamer.evaluate.past import WINDOW, Past
from streamer.evaluate.rankers import Asked, Counts, Model, popularity
from streamer.evaluate.tables import Table
from tests.unit.evaluate.ring import (
    ALL,
    GAP,
    SETTINGS,
    START,
    Learned,
    clicks,
    names,
    visits,
    weights,
)

# -- what is ranked ------------------------------------------------------------------------------


def test_positions_are_the_transitions_that_the_worker_ranks() -> None:
    learned = Learned()
    rng = np.random.default_rng(1)
    rows = [(f"u0-{rng.integers(12)}", f"i{rng.integers(60)}", 2500 + 10 * n) for n in range(900)]
    taken = clicks(rows, (rng.integers(2, size=900) * np.arange(900)).astype(np.uint64))
    engine = learned.engine
    made = transitions(taken, engine.sessions, engine.vocabulary, engine.settings.session)
    expected = [(history[0], goal) for history, goal, _ in made]
    positions = learned.past.take(taken, ALL)
    asked = names(learned.past, positions.history[:, 0])
    pairs = list(zip(asked, names(learned.past, positions.target), strict=True))
    assert len(pairs) > 300
    assert sorted(pairs) == sorted(expected)
    for session, history in zip(positions.sessions, positions.history, strict=True):
        known = history[history >= 0]
        assert session[::-1][: len(known)].tolist() == known.tolist()


def test_a_position_tells_its_session_so_far_and_whether_it_had_the_target() -> None:
    past = Past(SETTINGS)
    past.take(clicks([("u", "a", 0), ("v", "x", 0), ("u", "b", 10)]), ALL)
    past.learn()
    positions = past.take(clicks([("u", "a", 20), ("v", "x", 20), ("u", "c", 5000)]), ALL)
    assert [names(past, session) for session in positions.sessions] == [["a", "b"]]
    assert positions.repeated.tolist() == [True]
    assert positions.click.tolist() == [3]
    # The click after the gap began a session, and ended the one before it and the other user's.
    past.learn()
    assert [names(past, session.items) for session in past.closed] == [["a", "b", "a"], ["x"]]
    assert [session.time - START for session in past.closed] == [20, 20]
    assert [names(past, session) for session in past.sessions()][-1] == ["c"]


def test_a_sample_is_part_of_all_positions_and_the_same_each_time() -> None:
    rows = visits(9, at=2500)
    every = Learned().past.take(clicks(rows), ALL)
    one, again = (Learned().past.take(clicks(rows), 20) for _ in range(2))
    assert one.click.tolist() == again.click.tolist()
    assert len(one.click) == 20
    assert set(one.click.tolist()) <= set(every.click.tolist())
    place = {click: n for n, click in enumerate(every.click.tolist())}
    for n, click in enumerate(one.click.tolist()):
        assert one.sessions[n].tolist() == every.sessions[place[click]].tolist()


# -- counts --------------------------------------------------------------------------------------


def test_tables_count_transitions_and_weigh_neighbours_as_a_graph_without_a_bound() -> None:
    settings = replace(SETTINGS, graph=GraphSettings(half_life=Duration(25), max_degree=1024))
    settings = replace(settings, graph=replace(settings.graph, horizon=Duration(10**9)))
    learned = Learned(settings)  # 80 half-lives: the landmark moves
    past, counted = learned.past, Counter[tuple[int, int]]()
    for history, target in past.transitions:
        counted.update(zip(history[:, 0].tolist(), target.tolist(), strict=True))
    items = range(len(past.vocabulary))
    assert {(a, b): n for a in items for b, n in weights(past.after, a).items()} == counted
    for slot in learned.engine.items.tolist():
        nbr, wgt = learned.engine.graph.row(slot)
        name = learned.engine.vocabulary.keys[slot]
        row = weights(past.beside, past.vocabulary.get(name or "") or 0)
        at = past.vocabulary.intern(learned.engine.vocabulary.names(nbr))
        assert np.allclose([row[b] for b in at.tolist()], wgt, rtol=1e-5)
        assert len(row) == len(nbr)


def test_a_click_counts_for_the_five_items_before_it_by_their_distance() -> None:
    settings = replace(SETTINGS, graph=GraphSettings(half_life=Duration(25)))
    settings = replace(settings, graph=replace(settings.graph, horizon=Duration(10**9)))
    learned = Learned(settings)
    walk = [("w", f"i{n % 7}", 2900 + 10 * n) for n in (*range(12), 3, 3, 5, 4, 6, 20)]
    learned.round(walk)
    rows = [row for number in range(6) for row in visits(number, at=400 * number)] + walk
    expected, sessions = Counter[tuple[str, str]](), dict[str, tuple[int, list[str]]]()
    for user, item, time in rows:
        last, session = sessions.get(user, (time, []))
        if abs(time - last) > settings.session.gap:
            session = []
        if session[-1:] != [item]:
            for steps, other in enumerate(session[: -WINDOW - 1 : -1], 1):
                if other != item:
                    amount = 2.0 ** ((time - rows[-1][2]) / 25) / steps
                    expected[item, other] += amount
                    expected[other, item] += amount
            session = [*session, item]
        sessions[user] = time, session
    past = learned.past
    items = past.vocabulary.names(np.arange(len(past.vocabulary)))
    got = {(items[a], items[b]): weight for a in range(len(items))
           for b, weight in weights(past.around, a).items()}  # fmt: skip
    assert got.keys() == expected.keys()
    most, pairs = max(got.values()) / max(expected.values()), list(expected)
    assert np.allclose([got[pair] for pair in pairs], [most * expected[pair] for pair in pairs],
                       rtol=1e-5, atol=most * 1e-20)  # fmt: skip


def test_a_table_has_room_for_whatever_comes() -> None:
    table, rng = Table(), np.random.default_rng(1)
    a, b = rng.integers(3, size=200_000), rng.integers(20_000, size=200_000)
    amounts = rng.integers(1, 9, size=200_000).astype(np.float32)
    for at in (slice(0, 90_000), slice(90_000, None)):
        table.add(a[at].astype(np.int32), b[at].astype(np.int32), amounts[at])
    table.shift(1)
    for item in range(3):
        expected = np.bincount(b[a == item], amounts[a == item]) / 2
        row = weights(table, item)
        assert row == {n: expected[n] for n in np.flatnonzero(expected).tolist()}
    assert weights(table, 20_001) == {}


@pytest.mark.parametrize("unseen", [False, True])
def test_counts_rank_as_a_sort_does_and_what_has_no_count_is_not_found(unseen: bool) -> None:
    learned = Learned()
    table = learned.past.after
    asked = learned.ask(visits(8, at=2500), unseen)
    ranks = Counts("transitions", table)(asked)["transitions"]
    for i, rank in enumerate(ranks.tolist()):
        row = weights(table, int(asked.positions.history[i, 0]))
        target = int(asked.positions.target[i])
        if target not in row:
            assert rank == asked.last
        else:
            session = asked.positions.sessions[i].tolist()
            others = [b for b in row if not unseen or b not in session]
            order = sorted(others, key=lambda b: (-row[b], int(asked.column[b])))
            assert rank == order.index(target)
    assert (ranks == asked.last).any()
    assert (ranks < asked.last).sum() > 50


# -- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [0, 2])
def test_the_last_item_asks_as_in_the_metrics_of_the_worker(slots: int) -> None:
    learned = Learned(replace(SETTINGS, model=ModelSettings(dim=16, attribute_slots=slots)))
    engine = learned.engine
    asked = learned.ask(visits(7, at=2500))
    got = Model(("next",))(asked) | popularity(asked)
    query, target = engine.items[asked.query], engine.items[asked.target]
    scores = quality.next_scores(engine.model.rows, engine.items, query)
    expected = quality.ranks(scores, engine.graph, engine.items, query, target)
    assert len(query) > 100
    for name, ranks in got.items():  # float32 sums may turn two that are all but equal
        assert np.abs(ranks - expected[name]).max() <= 1, name


def test_a_session_asks_by_the_decayed_means_of_vectors() -> None:
    learned = Learned()
    engine, g = learned.engine, 0.5
    asked = learned.ask(visits(7, at=2500), unseen=True)
    got = Model(("similar", "next"), g)(asked)
    rows, items = engine.model.rows, engine.items
    v, u = unit_rows(hidden(rows, items)).astype(float), unit_rows(rows.u[items]).astype(float)
    worst = 0
    for i in range(len(asked)):
        history = asked.history[i][asked.history[i] >= 0]
        w = g ** np.arange(len(history))
        w /= w.sum()
        similar = w @ v[history] @ v.T
        following = similar + w @ u[history] @ v.T + w @ v[history] @ u.T
        scores = {"similar": similar, "next": following}
        left_out = asked.column[asked.positions.sessions[i]]
        for mode, score in scores.items():
            order = [b for b in np.argsort(-score, kind="stable") if b not in left_out]
            found = got[f"{mode}, session"][i]
            worst = max(worst, abs(int(found) - order.index(asked.target[i])))
    assert worst <= 1
    assert len(asked) > 100


def test_the_fused_ranker_asks_by_item_and_by_session_as_the_worker_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = visits(7, at=2500)
    learned = Learned(replace(SETTINGS, quality=QualitySettings(10_000)))
    asked = learned.ask(rows)
    got = Model(("hybrid",), 0.5)(asked)
    fused = learned.engine.fusion

    def unmoved(self: Fusion, found: experts.Table, target: NDArray[np.int32], learns: bool) -> Any:
        return ranks(self, found, target, learns=False)  # the worker learns from each

    ranks = Fusion.ranks
    monkeypatch.setattr(type(fused), "ranks", unmoved)
    measured = learned.engine.step(Inputs(clicks(rows))).quality
    assert measured.trials == len(asked)
    assert measured.hits["hybrid"] == (got["hybrid"] < DEPTH).sum()
    assert measured.hits["session"] == (got["hybrid, session"] < DEPTH).sum()


def test_only_clicks_on_items_that_the_session_has_not_are_ranked_as_unseen() -> None:
    rows = visits(7, at=2500)
    everything, unseen = Learned().ask(rows), Learned().ask(rows, unseen=True)
    repeated = everything.positions.repeated
    assert 0 < repeated.sum() < len(repeated)
    assert unseen.positions.click.tolist() == everything.positions.click[~repeated].tolist()
    before = Model(("next",))(everything)["next"][~repeated]
    after = Model(("next",))(unseen)["next"]
    assert (after <= before).all()
    assert (after < before).any()


def test_equals_rank_in_the_order_of_birth_without_the_query() -> None:
    engine, past = Engine(SETTINGS), Past(SETTINGS)
    rows = [(f"u{n}", f"i{n}", 0) for n in range(30)]
    past.take(clicks(rows), ALL)
    engine.step(Inputs(clicks(rows)))
    engine.model.rows.v[:] = 0.0
    asked = Asked(engine, past, past.take(clicks([("u5", "i4", 9), ("u3", "i6", 9)]), ALL), False)
    for ranks in (Model(("next",))(asked)["next"], popularity(asked)["popularity"]):
        assert ranks.tolist() == [4, 5]


# -- session neighbours --------------------------------------------------------------------------


def likeness(
    ranker: str, session: list[str], other: list[str], age: float
) -> tuple[float, dict[str, float]]:
    """How like another session is to the one at hand, and what it gives to each of its items."""
    shared = [item for item in dict.fromkeys(reversed(session)) if item in other]
    place = {item: p for p, item in enumerate(session, 1)}
    steps = len(session) - max(place[item] for item in shared)
    if ranker == knn.KNN:
        like = len(shared) / math.sqrt(len(set(session)) * len(set(other)))
        return like, dict.fromkeys(other, like)
    if ranker == knn.VSKNN:
        like = sum((place[item] / len(session)) ** 2 for item in shared)
        return like, dict.fromkeys(other, like / (steps + 1))
    like = sum(math.exp((place[item] - len(session)) / knn.BACK) for item in shared)
    like = like / math.sqrt(len(set(other))) * math.exp(-age / knn.AGE)
    where = {item: p for p, item in enumerate(other)}
    last = max(where[item] for item in shared)
    return like, {b: like * math.exp(-abs(p - last) / knn.APART) for b, p in where.items()}


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("recent", [None, (40, 60, 70)])
def test_session_neighbours_rank_as_the_papers_say(
    unseen: bool, recent: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recent is not None:  # the kernels as plain Python, which sees these
        monkeypatch.setattr(knn, "RECENT", recent)
        monkeypatch.setattr(knn, "NEAREST", (10, 30, 20))
        for kernel in ("_look", "_ranks"):
            monkeypatch.setattr(knn, kernel, getattr(knn, kernel).py_func)
    learned = Learned(rounds=12)
    past = learned.past
    asked = learned.ask(visits(13, at=4800), unseen, 60 if recent else ALL)
    closed = [names(past, session.items) for session in past.closed]
    assert len(closed) > 150
    newest = max(session.time for session in past.closed)
    neighbours = knn.SessionNeighbours(past, GAP)
    neighbours._take_in()  # some sessions at a time are as good as all at once
    ranks = neighbours(asked)
    assert tuple(ranks) == knn.NAMES
    found = dict.fromkeys(knn.NAMES, 0)
    sessions = [names(past, session) for session in asked.positions.sessions]
    targets = names(past, asked.positions.target)
    column = {name: int(asked.column[n]) for n, name in enumerate(
        past.vocabulary.names(np.arange(len(past.vocabulary))))}  # fmt: skip
    for r, ranker in enumerate(knn.NAMES):
        for i, (session, target) in enumerate(zip(sessions, targets, strict=True)):
            sharing = [n for n in reversed(range(len(closed))) if set(closed[n]) & set(session)]
            given = [
                likeness(ranker, session, closed[n], (newest - past.closed[n].time) / GAP)
                for n in sharing[: knn.RECENT[r]]
            ]
            score = defaultdict[str, float](float)
            for _, parts in sorted(given, key=lambda one: -one[0])[: knn.NEAREST[r]]:
                for item, part in parts.items():
                    score[item] += part
            if ranker == knn.VSKNN:
                for item in score:
                    having = sum(item in other for other in closed)
                    score[item] *= 1 + knn.RARE * math.log(len(closed) / having)
            rank = int(ranks[ranker][i])
            if target not in score:
                assert rank == asked.last
                continue
            found[ranker] += 1
            left_out = {*session} if unseen else {session[-1]}
            others = [b for b in score if b not in left_out and column[b] >= 0 and b != target]
            close = [b for b in others if math.isclose(score[b], score[target], rel_tol=1e-9)]
            before = sum(score[b] > score[target] for b in others if b not in close)
            # What differs by rounding only may come before or after.
            assert before <= rank <= before + len(close)
    assert min(found.values()) > (20 if recent else 50)


def test_session_neighbours_forget_all_but_the_most_recent_sessions() -> None:
    past, engine = Past(SETTINGS), Engine(SETTINGS)
    # Of those with item a, the session u0 is one too many. Of the others u1 is most alike.
    rows = [("u0", "near0", 0), ("u0", "goal0", 0), ("u1", "near1", 1), ("u1", "goal1", 1)]
    recent = knn.RECENT[0]
    rows += [(f"u{n}", "b", n) for n in range(2, recent + 1)]
    rows += [(f"u{n}", "a", n) for n in range(recent + 1)]
    known = [("x", item, 0) for item in ("a", "b", "near0", "goal0", "near1", "goal1")]
    engine.step(Inputs(clicks(known)))
    past.take(clicks(rows), 0)
    past.learn()
    past.take(clicks([("w", "a", 9000)]), 0)
    past.learn()
    late = [(f"y{n}", item, 9010) for n in range(2) for item in ("a", f"near{n}", f"goal{n}")]
    asked = Asked(engine, past, past.take(clicks(late), ALL), False)
    ranks = knn.SessionNeighbours(past, GAP)(asked)
    goals = [name.startswith("goal") for name in names(past, asked.positions.target)]
    # Items a and b, which the others have, come before it.
    assert ranks[knn.KNN][goals].tolist() == [asked.last, 2]
    # These look further back.
    assert (ranks[knn.VSKNN][goals] < asked.last).all()
