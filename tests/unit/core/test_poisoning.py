"""What a few made-up clicks do to what is recommended: ranks of an item beside another one."""

import json
from copy import deepcopy
from functools import cache
from itertools import cycle, islice

import numpy as np
import pytest

from core import quality
from core.engine import Engine
from core.ranking.experts import ASKED, Questions
from core.rounds import Inputs
from core.settings import Duration, GraphSettings, ModelSettings, SessionSettings, Settings
from streamer.decode.guarded import GuardedDecoder
from streamer.settings.sections import ClickSettings, EventSettings
from tests.unit.core.groups import GAP, GROUP, START, Rows, clicks, visits

GROUPS, AT = 30, 3000
QUERY, PUSHED = "i0", "i295"
"""An item of the first group, and one of the last, which nobody clicked beside it."""
SETTINGS = Settings(
    session=SessionSettings(gap=Duration(GAP)),
    graph=GraphSettings(half_life=Duration(10**7)),
    model=ModelSettings(dim=16),
)


@cache
def calm() -> Engine:
    """300 items in groups."""
    engine = Engine(SETTINGS)
    for number in range(12):
        engine.step(Inputs(clicks(visits(number, 100 * number, sessions=200, groups=GROUPS))))
    return engine


def learned(attack: Rows = ()) -> Engine:
    """One of its own, with the clicks of an attack as its last ones."""
    engine = deepcopy(calm())
    if attack:
        engine.step(Inputs(clicks(attack)))
    return engine


def rank(engine: Engine) -> int:
    """The rank of PUSHED for those who look at QUERY, by the default way of recommending."""
    query, pushed = engine.vocabulary.intern([QUERY, PUSHED])[:, None]
    session = np.full((1, ASKED), -1, np.int32)
    session[0, 0] = query[0]
    questions = Questions(session, np.array([engine.clock.time]), query, np.array([0, 1]))
    found, _ = quality.ask(engine.catalogue, engine.settings, questions, engine.items, 1.0)
    rank = int(engine.fusion.ranks(found, pushed, learns=False)[0, 0])
    return rank if rank >= 0 else len(engine.items)


def weight(engine: Engine) -> float:
    nbr, wgt = engine.graph.row(engine.vocabulary.get(QUERY) or 0)
    return float(wgt[nbr == engine.vocabulary.get(PUSHED)].sum())


@pytest.fixture(scope="module")
def one_pair() -> Engine:
    return learned([("x", QUERY, AT), ("x", PUSHED, AT)])


def test_two_clicks_of_an_enormous_weight_are_dead_letters() -> None:
    rows = [("x", QUERY), ("x", PUSHED)]
    values = [
        json.dumps({"user_id": user, "item_id": item, "ts": START + AT, "weight": 1e9}).encode()
        for user, item in rows
    ]
    decoded = GuardedDecoder(ClickSettings(), EventSettings())([None] * 2, values, [-1] * 2)
    assert [bad.reason.value for bad in decoded.bad] == ["bad_weight"] * 2
    before, engine = rank(learned()), learned()
    engine.step(Inputs(decoded.clicks))
    assert rank(engine) == before > 100


@pytest.mark.parametrize("others", [0, 1, 4, 10])
def test_one_user_adds_to_an_arc_once_however_often(one_pair: Engine, others: int) -> None:
    """To and fro between two items, and round and round with others between."""
    items = [QUERY, PUSHED, *(f"i{20 * n + 5}" for n in range(1, others + 1))]
    engine = learned([("x", item, AT) for item in islice(cycle(items), 500)])
    assert weight(engine) == weight(one_pair) > 0
    # Behind the group of QUERY, where the pair of one customer puts it; it would be the first.
    assert GROUP - 1 <= rank(one_pair) <= rank(engine) + 2
    assert rank(engine) >= GROUP - 1


def test_ten_users_with_a_pair_each_are_ten_users(one_pair: Engine) -> None:
    """Nobody can tell them from customers: the bound is what each of them adds."""
    engine = learned([(f"x{n}", item, AT) for n in range(10) for item in (QUERY, PUSHED)])
    assert weight(engine) == pytest.approx(10 * weight(one_pair))
    assert rank(engine) >= GROUP - 2
