from collections import Counter, defaultdict

import numpy as np
import pytest

from core.engine import Engine
from core.quality import ask, next_scores
from core.ranking.candidates import ARCS
from core.ranking.experts import (
    ASKED,
    COUNTED,
    EXPERTS,
    HEAT,
    STEPS,
    VISITS,
    Questions,
    Table,
)
from core.ranking.visits import HEATS
from core.rounds import Inputs
from tests.unit.ranking.logs import HALF_LIFE, START, Row, clicks, learned, log_of, settings
from tests.unit.ranking.test_visits import Visit, plain

Amounts = defaultdict[str, float]


def question(engine: Engine, session: list[str], time: int) -> Questions:
    """What comes after these items, the newest last."""
    slots = engine.vocabulary.intern(session[::-1])
    asked = np.full((1, ASKED), -1, np.int32)
    asked[0, : len(slots)] = slots
    return Questions(asked, np.array([time], np.int64), asked[0, :1], np.array([0, 1]))


def asked(engine: Engine, session: list[str], time: int) -> Table:
    questions = question(engine, session, time)
    return ask(engine.catalogue, engine.settings, questions, engine.items, 1.0)[0]


def counted(rows: list[Row], session: list[str], time: int, engine: Engine) -> dict[str, Amounts]:
    """By expert, how much there is of each item: word for word as it is defined."""
    visits = plain(rows)
    path = defaultdict[int, list[int]](list)
    for at, (_, _, number) in enumerate(visits):
        path[number].append(at)
    out = {name: Amounts(float) for name in COUNTED}
    newest = {
        item: _apart(visits, item)[: int(VISITS * 0.8**j)] for j, item in enumerate(session[::-1])
    }
    like = defaultdict[int, float](float)
    for j, item in enumerate(session[::-1]):
        for at in newest[item]:
            like[visits[at][2]] += 0.8**j
    for j, item in enumerate(session[::-1]):
        for at in newest[item]:
            weight = 2.0 ** -((time - visits[at][1]) / HALF_LIFE)
            along = path[visits[at][2]]
            place = along.index(at)
            for d in range(1, STEPS + 1):
                for to in (place + d, place - d):
                    if not 0 <= to < len(along):
                        continue
                    b = visits[along[to]][0]
                    alike = weight * 0.8**j * like[visits[at][2]] ** 2 * 0.7 ** (d - 1)
                    out["session beside"][b] += alike
                    if to > place:
                        out["session after"][b] += alike
                        out["session after, plain"][b] += weight * 0.8**j * 0.7 ** (d - 1)
                    if j == 0:
                        out["beside"][b] += weight / d
                        if to > place:
                            out["after"][b] += weight / d
                            out["next"][b] += weight * (d == 1)
    shares = {name: _shares(engine, name) for name in engine.vocabulary.names(engine.items)}
    last = session[-1]
    out["arcs"] |= shares[last]
    for c, share in sorted(shares[last].items(), key=lambda one: -one[1])[:ARCS]:
        for b, further in shares[c].items():
            out["two arcs"][b] += share * further
    for j, item in enumerate(session[::-1]):
        for b, share in shares[item].items():
            out["session arcs"][b] += 0.8**j * share
        if j:
            out["again"][item] += 0.8**j
    for name in out:
        out[name].pop(last, None)
    return out


def _apart(visits: list[Visit], item: str) -> list[int]:
    """Visits of an item, the newest first; of those of one session in a row, the newest."""
    out: list[int] = []
    for at in reversed(range(len(visits))):
        if visits[at][0] == item and not (out and visits[out[-1]][2] == visits[at][2]):
            out.append(at)
    return out


def _shares(engine: Engine, item: str) -> dict[str, float]:
    nbr, wgt = engine.graph.row(engine.vocabulary.get(item) or 0)
    names = engine.vocabulary.names(nbr)
    return dict(zip(names, (wgt / wgt.sum()).tolist(), strict=True)) if len(nbr) else {}


@pytest.mark.parametrize("seed", range(4))
def test_experts_that_count_say_what_their_definitions_say(seed: int) -> None:
    rows = log_of(seed, n=900)
    engine = learned(rows, settings())
    rng = np.random.default_rng(seed)
    for length in (1, 2, 5, ASKED):
        session = [f"i{n}" for n in rng.permutation(25)[:length]]
        table = asked(engine, session, _time(engine))
        names = engine.vocabulary.names(table.slot)
        assert session[-1] not in names
        wanted = counted(rows, session, rows[-1][2], engine)
        for name in COUNTED:
            total = sum(wanted[name].values()) or 1.0
            expected = [wanted[name][item] / total for item in names]
            assert table.share[EXPERTS.index(name)] == pytest.approx(expected, abs=1e-5), name
            assert table.root[COUNTED.index(name)] ** 2 == pytest.approx(expected, abs=1e-5)


def _time(engine: Engine) -> int:
    return engine.clock.time


def test_vectors_give_a_softmax_and_heat_the_share_of_the_newest_visits() -> None:
    rows = log_of(1, n=900)
    engine = learned(rows, settings())
    table = asked(engine, ["i3", "i8"], _time(engine))
    for by, name in enumerate(("vector", "session vector")):
        for sharp, end in ((4.0, ", smooth"), (8.0, "")):
            score = np.exp(sharp * table.score[by].astype(float))
            share = table.share[EXPERTS.index(name + end)]
            assert share == pytest.approx(score / score.sum(), rel=1e-3)
    visits = [item for item, _, _ in plain(rows)]
    for part, name in zip(HEATS, HEAT, strict=True):
        heat = Counter(visits[-max(int(part * 1000), 1) :])
        names = engine.vocabulary.names(table.slot)
        total = sum(heat[item] for item in names) or 1
        share = [heat[item] / total for item in names]
        assert table.share[EXPERTS.index(name)] == pytest.approx(share, abs=1e-6)


def test_scores_of_candidates_are_those_of_all_items() -> None:
    engine = learned(log_of(2), settings())
    questions = question(engine, ["i1", "i2"], _time(engine))
    table = asked(engine, ["i1", "i2"], _time(engine))
    found = np.searchsorted(engine.items, table.slot)
    _, scores = ask(engine.catalogue, engine.settings, questions, engine.items, 1.0)
    for head, asked_by in enumerate((questions.session[:, :1], questions.session)):
        every = next_scores(engine.model.rows, engine.items, asked_by)[0]
        assert table.score[head] == pytest.approx(every[found], abs=1e-5)
        assert scores[head, 0] == pytest.approx(every, abs=1e-6)


def test_what_left_and_what_is_never_to_be_found_are_no_candidates() -> None:
    engine = learned(log_of(2), settings())
    gone = engine.vocabulary.get("i5")
    engine.catalogue.leave(np.array([gone], np.int32))
    questions = question(engine, ["i4"], _time(engine))
    never = np.array([engine.vocabulary.get(item) for item in ("i4", "i6")], np.int32)
    questions = questions._replace(never=never, begin=np.array([0, 2]))
    table, _ = ask(engine.catalogue, engine.settings, questions, engine.items, 1.0)
    names = engine.vocabulary.names(table.slot)
    assert not {"i4", "i5", "i6"} & set(names)
    assert len(names) == len(set(names)) > 10


@pytest.mark.parametrize("gap", [130, 140, 200, 2000])
def test_what_has_decayed_to_nothing_says_nothing(gap: int) -> None:
    """Half-lives without a click: sums of what is left are next to 0, or 0."""
    rows = log_of(4)
    engine = learned(rows, settings(sample=100))
    again = rows[-1][2] + gap * HALF_LIFE
    later = [(f"w{n % 9}", f"i{(5 * n) % 25}", again + 20 * n) for n in range(1, 120)]
    for begin in range(0, len(later), 40):
        engine.step(Inputs(clicks(later[begin : begin + 40])))
    table = asked(engine, ["i1", "i2"], START + later[-1][2])
    assert np.isfinite(table.share).all()
    for learned_by in (engine.fusion.shares, engine.fusion.weights, engine.fusion.losses):
        assert np.isfinite(learned_by).all()
