"""Ranks by users' vectors against what the definitions say, worked out one position at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.quality import DEPTH
from core.rounds import Inputs
from core.settings import Duration
from core.users import interests
from streamer.evaluate.rankers import Asked
from streamer.evaluate.users import OfUsers
from streamer.settings import load
from streamer.settings.sections import Config, UserVectorSettings
from tests.unit.evaluate.ring import ALL, START, Learned, Row, clicks, visits

MODES: tuple[Any, ...] = ("similar", "next", "hybrid")
HALF_LIFE = 700


def config(**chosen: Any) -> Config:
    settings = UserVectorSettings(**{"half_life": Duration(HALF_LIFE)} | chosen)
    return replace(load.load(None, [], {}), user_vectors=settings)


def followed(settings: Config, unseen: bool = False) -> tuple[Learned, OfUsers, Asked, list[Row]]:
    """A ranker that took the rounds of an engine, and then the next one, which the engine did not,
    with the positions of that; and all rows, the last round's among them."""
    learned = Learned(rounds=0)
    ranker = OfUsers(learned.engine, learned.past, settings, MODES)
    every: list[Row] = []
    for number in range(7):
        rows = visits(number, at=400 * number)
        every += rows
        positions = learned.past.take(clicks(rows), ALL if number == 6 else 0)
        ranker.take(clicks(rows), positions)
        if number < 6:
            learned.past.learn()
            learned.engine.step(Inputs(clicks(rows)))
    return learned, ranker, Asked(learned.engine, learned.past, positions, unseen), every


def history(rows: list[Row], click: int, most: int) -> list[tuple[str, float]]:
    """The last items of whoever made a click, and their weights just before it, newest first: of
    all clicks since an item is among the last."""
    user = rows[click][0]
    before = [(item, time) for name, item, time in rows[:click] if name == user]
    last: dict[str, list[int]] = {}
    for item, time in before:
        last[item] = [*last.pop(item, []), time]
        last = dict([*last.items()][-most:])
    newest = max(time for _, time in before)
    return [
        (item, sum(2.0 ** ((time - newest) / HALF_LIFE) for time in times))
        for item, times in reversed(last.items())
    ]


def ranking(scores: NDArray[np.float64], never: NDArray[np.int32]) -> list[int]:
    return [b for b in np.argsort(-scores, kind="stable").tolist() if b not in never]


@pytest.mark.parametrize("unseen", [False, True])
def test_a_mean_ranks_as_the_users_clicks_until_then_say(unseen: bool) -> None:
    learned, ranker, asked, rows = followed(config(kind="mean", items=4), unseen)
    got = ranker(asked)
    assert set(got) == {"similar, user", "next, user"}
    engine = learned.engine
    v, u = unit_rows(hidden(engine.model.rows, engine.items)), engine.model.rows.u[engine.items]
    v, u = v.astype(float), unit_rows(u).astype(float)
    column = {name: n for n, name in enumerate(engine.vocabulary.names(engine.items))}
    apart, found = 0, 0
    for i, click in enumerate(asked.positions.click.tolist()):
        known = [(column[item], w) for item, w in history(rows, click, 4) if item in column]
        query, context = (sum(w * table[b] for b, w in known) for table in (v, u))
        query, context = query / np.linalg.norm(query), context / np.linalg.norm(context)
        never = asked.left_out_columns[asked.left_out_begin[i] : asked.left_out_begin[i + 1]]
        similar = v @ query
        for mode, scores in ("similar", similar), ("next", similar + v @ context + u @ query):
            place = ranking(scores, never).index(asked.target[i])
            rank = int(got[f"{mode}, user"][i])
            found += rank < DEPTH
            if min(place, rank) < DEPTH - 1:  # float32 sums may turn two that are all but equal
                apart = max(apart, abs(place - rank))
    assert len(asked) > 100
    assert found > 100
    assert apart <= 1


def test_interests_have_their_shares_of_what_is_shown() -> None:
    learned, ranker, asked, rows = followed(config(kind="interests", items=6, interests=2))
    got = ranker(asked)["similar, user"]
    engine = learned.engine
    v = unit_rows(hidden(engine.model.rows, engine.items))
    column = {name: n for n, name in enumerate(engine.vocabulary.names(engine.items))}
    several = 0
    for i, click in enumerate(asked.positions.click.tolist()):
        known = [(column[item], w) for item, w in history(rows, click, 6) if item in column]
        at, weights = np.array([b for b, _ in known]), np.array([w for _, w in known])
        one = interests(v, v, at, weights, np.array([0, len(at)]), 2)
        several += len(one.share) > 1
        lists = [ranking((v @ q).astype(float), asked.query[i : i + 1]) for q in one.vectors]
        place = {
            (rank + 0.5) / share: item
            for found, share in zip(lists, one.share.tolist(), strict=True)
            for rank, item in enumerate(found)
        }
        shown = list(dict.fromkeys(place[at] for at in sorted(place)))[:DEPTH]
        expected = shown.index(asked.target[i]) if asked.target[i] in shown else asked.last
        assert abs(int(got[i]) - expected) <= 1 or max(got[i], expected) >= DEPTH - 1
    assert several > 20
    assert (got < DEPTH).sum() > 50


def test_who_was_idle_is_known_by_what_came_since() -> None:
    def ranks(idle: int, early: str) -> int:
        learned = Learned()
        settings = config(kind="mean", idle=Duration(idle), half_life=Duration(10**6))
        ranker = OfUsers(learned.engine, learned.past, settings, ("similar",))
        rows = [*[("u", early, 2500)] * 3, ("u", "i8", 5000), ("u", "i9", 5010), ("u", "i10", 5020)]
        positions = learned.past.take(clicks(rows), ALL)
        ranker.take(clicks(rows), positions)
        asked = Asked(learned.engine, learned.past, positions, False)
        assert asked.positions.time.tolist() == [START + 5010, START + 5020]
        return int(ranker(asked)["similar, user"][-1])

    assert ranks(2000, "i30") == ranks(2000, "i40") == ranks(2000, "i9")
    assert ranks(3000, "i30") > ranks(2000, "i30"), "what lies elsewhere counts"
