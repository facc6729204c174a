from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.quality import (
    CANDIDATES,
    DEPTH,
    RANKERS,
    SCORES,
    Quality,
    next_scores,
    ranks,
    samples,
)
from core.rounds import Inputs
from core.settings import Duration, ModelSettings, QualitySettings, SessionSettings, Settings
from core.transitions import transitions

START, GAP = 1_700_000_000_000, 1000
NOTHING = dict.fromkeys(RANKERS, 0)
NO_RANKS = dict.fromkeys(RANKERS, 0.0)

Row = tuple[str, str, int, int]


def chosen(*, size: int = 32, max_events: int = 500, **model: Any) -> Settings:
    return Settings(
        session=SessionSettings(Duration(GAP), 3, max_events, 2),
        model=ModelSettings(**{"dim": 16} | model),
        quality=QualitySettings(size),
    )


def clicks(rows: list[Row]) -> Clicks:
    """Rows are user, item, time and event id."""
    return Clicks(
        [user for user, _, _, _ in rows],
        [item for _, item, _, _ in rows],
        np.array([START + time for _, _, time, _ in rows], np.int64),
        np.ones(len(rows), np.float32),
        np.array([event_id for _, _, _, event_id in rows], np.uint64),
    )


def visits(seed: int, at: int, users: int = 40, items: int = 60) -> list[Row]:
    """Clicks of users who go round a ring of items, by one step or two."""
    rng = np.random.default_rng(seed)
    starts, steps = rng.integers(items, size=users), rng.integers(1, 3, size=(users, 4))
    return [
        (f"u{user}", f"i{(starts[user] + steps[user, :k].sum()) % items}", at + k, 0)
        for user in range(users)
        for k in range(4)
    ]


def trained(settings: Settings, rounds: int = 6) -> Engine:
    engine = Engine(settings)
    for number in range(rounds):
        described = [(f"i{n}", [f"third={n // 20}"]) for n in range(60)] if number == 0 else []
        engine.step(Inputs(clicks(visits(number, at=10 * number)), described))
    return engine


def found(engine: Engine, rows: list[Row]) -> list[tuple[str, str]]:
    """The transitions of these clicks: from and to."""
    made = transitions(clicks(rows), engine.sessions, engine.vocabulary, engine.settings.session)
    return [(history[0], goal) for history, goal, _ in made]


# -- what is ranked ------------------------------------------------------------------------------


def engine_with_sessions(settings: Settings) -> Engine:
    engine = Engine(settings)
    engine.step(Inputs(clicks([("u", "a", 0, 1), ("u", "b", 0, 2), ("v", "c", 0, 3)])))
    return engine


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([("u", "c", GAP, 0)], [("b", "c")], id="goes on"),
        pytest.param([("u", "c", GAP + 1, 0)], [], id="another session"),
        pytest.param([("u", "b", 1, 0)], [], id="the same item"),
        pytest.param([("w", "c", 1, 0)], [], id="a new user"),
        pytest.param([("u", "c", 1, 1)], [], id="a repeat of an event id"),
        pytest.param([("u", "c", 1, 1), ("u", "a", 2, 0)], [("b", "a")], id="after a repeat"),
        pytest.param([("v", "a", 1, 1)], [("c", "a")], id="the event id of another user"),
        pytest.param([("u", "new", 1, 0)], [("b", "new")], id="to an item that is not known"),
        pytest.param(
            [("u", "a", GAP, 0), ("u", "c", 2 * GAP, 0), ("u", "b", 3 * GAP + 1, 0)],
            [("b", "a"), ("a", "c")],
            id="from the click before, while its gap lasts",
        ),
        pytest.param(
            [("u", "a", GAP + 1, 0), ("u", "c", GAP + 2, 0)], [("a", "c")], id="in a session begun"
        ),
        pytest.param(
            [("w", "a", 1, 0), ("v", "b", 1, 0), ("w", "b", 1, 0), ("w", "b", 1, 0)],
            [("a", "b"), ("c", "b")],
            id="of each user apart",
        ),
        pytest.param(
            [("w", "a", 1, 7), ("w", "c", 1, 7), ("w", "b", 1, 8)],
            [("a", "b")],
            id="a repeat of the click before",
        ),
        pytest.param(
            [("w", "a", 1, 7), ("v", "b", 1, 7)], [("c", "b")], id="an event id of two users"
        ),
        pytest.param([], [], id="no clicks"),
    ],
)
def test_each_click_that_continues_a_session_with_another_item_is_a_transition(
    rows: list[Row], expected: list[tuple[str, str]]
) -> None:
    assert found(engine_with_sessions(chosen()), rows) == expected


def test_a_transition_knows_its_session_so_far_the_newest_item_first() -> None:
    engine = engine_with_sessions(chosen())
    rows = [("u", "c", 1, 0), ("v", "a", 1, 0), ("u", "d", 2, 0), ("v", "e", 2 * GAP, 0)]
    made = transitions(clicks(rows), engine.sessions, engine.vocabulary, engine.settings.session)
    assert list(made) == [
        (["b", "a"], "c", START + 1),
        (["c", "b", "a"], "d", START + 2),
        (["c"], "a", START + 1),
    ]


def test_no_transition_goes_on_from_what_is_held_back_but_from_what_came_before() -> None:
    """As in the graph, which learns of none."""
    engine = engine_with_sessions(chosen(max_events=4))
    rows = [("u", "x", 1, 0), ("u", "c", 2, 0), ("u", "y", 3, 0), ("u", "y", 4, 0),
            ("u", "a", 5, 0), ("u", "z", 6, 0), ("w", "x", 0, 0), ("w", "a", 0, 0)]  # fmt: skip
    admitted = np.array([item in "abc" for _, item, _, _ in rows])
    made = transitions(
        clicks(rows), engine.sessions, engine.vocabulary, engine.settings.session, admitted
    )
    assert list(made) == [
        (["b", "a"], "x", START + 1),
        (["b", "a"], "c", START + 2),
        (["c", "b", "a"], "y", START + 3),
        (["c", "b", "a"], "y", START + 4),
        (["c", "b", "a"], "a", START + 5),
    ]
    assert len(set(made.session.tolist())) == 1


def test_clicks_of_a_session_that_has_too_many_are_no_transitions() -> None:
    engine = engine_with_sessions(chosen(max_events=3))
    rows = [("u", "c", 1, 0), ("u", "a", 1, 0), ("u", "b", 1, 0), ("v", "a", 1, 0)]
    assert found(engine, rows) == [("b", "c"), ("c", "a")]
    # A session that begins in the round has clicks of its own.
    rows = [("u", item, 2 * GAP, 0) for item in "abcab"]
    assert found(engine, rows) == [("a", "b"), ("b", "c")]


def test_transitions_are_those_that_the_fold_finds() -> None:
    engine = trained(chosen(max_events=6))
    rng = np.random.default_rng(1)
    rows = [
        (f"u{rng.integers(30)}", f"i{rng.integers(60)}", 50 + 20 * n, int(rng.integers(2)) * n)
        for n in range(600)
    ]
    ranked = found(engine, rows)
    folded = engine.fold(clicks(rows))
    names = engine.vocabulary.keys
    pairs = zip(folded.history[:, 0].tolist(), folded.target.tolist(), strict=True)
    learned = [(names[a], names[b]) for a, b in pairs if b >= 0]
    assert len(learned) > 200
    assert sorted(ranked) == sorted(learned)


def test_samples_are_as_large_as_settings_and_items_allow_and_differ_between_rounds() -> None:
    def sample(n: int, items: int, settings: Settings, number: int) -> NDArray[np.int64]:
        return samples(np.arange(n), items, settings, number)[0]

    settings = chosen(size=32)
    assert len(sample(1000, 5_000, settings, 1)) == 32
    assert sample(5, 5_000, settings, 1).tolist() == [0, 1, 2, 3, 4]
    assert len(sample(1000, 100_000, chosen(size=1000), 1)) == SCORES // CANDIDATES
    assert len(sample(1000, 5_000, chosen(size=0), 1)) == 0
    assert len(sample(0, 0, settings, 1)) == 0
    one, again, other = (sample(1000, 100, settings, n).tolist() for n in (1, 1, 2))
    assert one == again != other
    assert one == sorted(set(one))


def test_what_teaches_besides_is_of_each_session_once() -> None:
    settings = chosen(size=32)
    every = samples(np.arange(1000), 5_000, settings, 1)
    assert [len(part) for part in every] == [32] * 6
    assert len(np.unique(np.concatenate(every))) == 6 * 32
    session = np.repeat([0, *range(1, 61)], [500] + [4] * 60)
    first, *further = samples(session, 5_000, settings, 1)
    assert len(first) == 32
    besides = np.concatenate(further)
    assert len(besides) == len(np.unique(session[besides])) == 61
    assert not set(first.tolist()) & set(besides.tolist())


# -- ranks ---------------------------------------------------------------------------------------


def expected_ranks(engine: Engine, a: int, b: int) -> dict[str, int]:
    """The ranks of one pair by plain float64 sums over all items."""
    rows, items = engine.model.rows, engine.items
    v, u = unit_rows(hidden(rows, items)).astype(float), unit_rows(rows.u[items]).astype(float)
    own = int(np.searchsorted(items, a))
    score = v @ v[own] + u @ v[own] + v @ u[own]
    weight = np.zeros(len(rows.v))
    nbr, wgt = engine.graph.row(a)
    weight[nbr] = wgt
    weight = weight[items]
    by = {
        "next": score,
        "popularity": engine.graph.clicked[items].astype(float),
        "covisitation": weight,
    }
    place = int(np.searchsorted(items, b))
    out = {}
    for name, scores in by.items():
        order = [at for at in np.argsort(-scores, kind="stable") if at != own]
        out[name] = order.index(place)
    if weight[place] == 0:
        out["covisitation"] = len(items)
    return out


@pytest.mark.parametrize("slots", [0, 2])
def test_ranks_are_those_of_plain_sums_over_all_items(slots: int) -> None:
    engine = trained(chosen(attribute_slots=slots))
    rng = np.random.default_rng(1)
    # Half of the pairs are arcs.
    query = rng.choice(engine.items, 60)
    target = rng.choice(engine.items, 60)
    for i in range(0, 60, 2):
        target[i] = rng.choice(engine.graph.row(int(query[i]))[0])
    differs = query != target
    query, target = query[differs], target[differs]
    scores = next_scores(engine.model.rows, engine.items, query)
    got = ranks(scores, engine.graph, engine.items, query, target)
    expected = [expected_ranks(engine, a, b) for a, b in zip(query, target, strict=True)]
    for name in ("popularity", "covisitation"):
        assert got[name].tolist() == [one[name] for one in expected]
    # float32 may turn two that are all but equal
    assert np.abs(got["next"] - [one["next"] for one in expected]).max() <= 1


def test_equals_rank_in_the_order_of_birth_and_the_query_is_left_out() -> None:
    engine = Engine(chosen())
    engine.step(Inputs(clicks([(f"u{n}", f"i{n}", 0, 0) for n in range(30)])))
    engine.model.rows.v[:] = 0.0
    n = np.full(3, 5, np.int32)
    scores = next_scores(engine.model.rows, engine.items, n)
    got = ranks(scores, engine.graph, engine.items, n, np.array([4, 6, 29], np.int32))
    for name in ("next", "popularity"):
        assert got[name].tolist() == [4, 5, 28]
    assert got["covisitation"].tolist() == [30, 30, 30]


def test_a_target_that_is_not_known_is_a_trial_and_a_miss_even_among_few_items() -> None:
    engine = engine_with_sessions(chosen())
    out = engine.step(Inputs(clicks([("u", "new", 1, 0)])))
    assert out.quality == Quality(1, NOTHING, NO_RANKS, 3)
    unseen = np.array([-1], np.int32)
    scores = next_scores(engine.model.rows, engine.items, engine.items[:1])
    got = ranks(scores, engine.graph, engine.items, engine.items[:1], unseen)
    assert {int(r[0]) for r in got.values()} == {DEPTH}


def test_a_transition_from_an_item_that_is_not_known_is_no_trial() -> None:
    engine = engine_with_sessions(chosen())
    out = engine.step(Inputs(clicks([("u", "new", 1, 0), ("u", "c", 1, 0)])))
    assert out.quality == Quality(1, NOTHING, NO_RANKS, 3)
    assert Engine(chosen()).step(Inputs(clicks(visits(1, at=0)))).quality == Quality(
        0, NOTHING, NO_RANKS
    )


# -- in a round ----------------------------------------------------------------------------------


def test_a_round_counts_trials_and_hits_before_it_learns() -> None:
    engine = engine_with_sessions(chosen())
    assert engine.step(Inputs(Clicks.empty())).quality == Quality(0, NOTHING, NO_RANKS, 3)
    out = engine.step(Inputs(clicks([("u", "c", 1, 0)])))
    # Of three items all are among the first; but b -> c was no arc before this round.
    assert out.quality.hits == dict.fromkeys(RANKERS, 1) | {"covisitation": 0}
    assert (out.quality.trials, out.quality.candidates) == (1, 3)
    engine.step(Inputs(clicks([("u", "b", 2, 0)])))
    out = engine.step(Inputs(clicks([("u", "c", 3, 0)])))
    assert out.quality.hits == dict.fromkeys(RANKERS, 1)
    ranks = {name: 1 / sum_of for name, sum_of in out.quality.reciprocal.items()}
    assert set(ranks.values()) <= {1.0, 2.0}, "of two others it is the first or the second"


def test_a_model_that_learned_a_pattern_beats_popularity() -> None:
    engine, trials, hits = Engine(chosen(size=1000)), 0, dict(NOTHING)
    for number in range(30):
        rows = visits(number, at=10_000 * number, users=100, items=200)
        for part in (rows[0::4], rows[1::4], rows[2::4], rows[3::4]):
            out = engine.step(Inputs(clicks(part)))
            if number >= 20:
                trials += out.quality.trials
                hits = {name: hits[name] + out.quality.hits[name] for name in RANKERS}
    assert trials == 10 * 3 * 100
    assert hits["next"] > 2 * hits["popularity"]
    assert hits["hybrid"] > 2 * hits["popularity"]


def test_measuring_does_not_change_what_is_learned() -> None:
    def state(size: int) -> list[NDArray[Any]]:
        settings = chosen(attribute_slots=2)
        engine = trained(replace(settings, quality=QualitySettings(size)))
        rows, graph = engine.model.rows, engine.graph
        return [rows.v, rows.u, rows.acc_v, rows.mix, engine.model.columns.pub_v, graph.wgt]

    for without, with_sample in zip(state(0), state(32), strict=True):
        assert without.tobytes() == with_sample.tobytes()
