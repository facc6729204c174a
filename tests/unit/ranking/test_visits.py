import numpy as np
import pytest

from core.engine import Engine
from core.ranking.visits import AFTER, BEFORE, HEATS, ITEM, SAME, SINCE
from core.retracing import remember
from core.rounds import Evidence, Inputs
from tests.unit.ranking.logs import GAP, START, Row, clicks, learned, log_of, settings

Visit = tuple[str, int, int]
"""Item, time, and the number of the session."""


def plain(rows: list[Row]) -> list[Visit]:
    """All visits, told apart by sessions."""
    last: dict[str, tuple[int, int, str]] = {}
    out: list[Visit] = []
    sessions = 0
    for user, item, time in rows:
        session, before, had = last.get(user, (0, -10 * GAP, ""))
        if time - before > GAP:
            sessions += 1
            session, had = sessions, ""
        if had != item:
            out.append((item, time, session))
        last[user] = session, time, item
    return out


@pytest.mark.parametrize("room", [1000, 60, 37])
def test_visits_are_linked_by_session_and_by_item_as_far_as_the_ring_goes(room: int) -> None:
    rows = log_of(1)
    engine, wanted = learned(rows, settings(visits=room)), plain(rows)
    visits, n = engine.catalogue.visits, len(wanted)
    assert visits.n == n > 250
    first = max(0, n - room)
    for e in range(first, n):
        item, time, session = wanted[e]
        row = visits.row[e % room]
        assert engine.vocabulary.keys[row[ITEM]] == item
        assert visits.time[e % room] == START + time
        mine = [at for at, one in enumerate(wanted) if one[2] == session]
        place = mine.index(e)
        after = mine[place + 1] if place + 1 < len(mine) else e
        assert row[AFTER] == after - e
        before = mine[place - 1] if place else e
        # A session that came out of the ring began with the first visit that is in it.
        if before > e - room and before >= first:
            assert row[BEFORE] == e - before
            if mine[0] >= first:
                assert row[SINCE] == e - mine[0]
        same = [at for at in range(e) if wanted[at][0] == item]
        if room == 1000:
            while same and wanted[same[-1]][2] == session:
                same.pop()
            assert row[SAME] == (e - same[-1] if same else 0)
        elif row[SAME]:  # links through a visit that is not there any more are lost with it
            assert e - row[SAME] in same
            assert row[SAME] < room
    for slot in engine.items.tolist():
        name = engine.vocabulary.keys[slot]
        own = [at for at in range(n) if wanted[at][0] == name]
        if own[-1] >= first:
            assert visits.head[slot] == own[-1] + 1
        for share, heat in zip(HEATS, visits.heat, strict=True):
            newest = max(int(share * room), 1)
            assert heat[slot] == sum(at >= n - newest for at in own)


def test_an_item_that_left_is_none_of_the_visits_any_more() -> None:
    engine = learned(log_of(2), settings())
    engine.step(Inputs(clicks([]), [("i3", None), ("i4", None)]))
    alive = np.flatnonzero(engine.model.columns.alive)
    engine._relabel(alive)
    visits = engine.catalogue.visits
    names = [engine.vocabulary.keys[slot] for slot in visits.row[: visits.n, ITEM] if slot >= 0]
    assert "i3" not in names
    assert "i5" in names
    assert visits.head[: len(alive)].min() > 0


def test_no_evidence_gives_no_visits() -> None:
    engine = learned(log_of(3), settings())
    remember(engine, [])
    assert engine.catalogue.visits.n == 0
    engine.step(Inputs(clicks(log_of(4))))
    assert engine.catalogue.visits.n > 0


@pytest.mark.parametrize("room", [1000, 60])
def test_the_evidence_of_the_newest_clicks_gives_the_visits_again(room: int) -> None:
    rows, chosen = log_of(3), settings(visits=room)
    engine, kept = Engine(chosen), list[Evidence]()
    again = Engine(chosen)
    for begin in range(0, len(rows), 40):
        retired = [(f"i{begin // 40 % 25}", None)] if begin % 80 == 0 else []
        some = Inputs(clicks(rows[begin : begin + 40]), retired)
        kept.append(engine.step(some).evidence)
        again.step(some)
    for each in (engine, again):
        each._relabel(np.flatnonzero(each.model.columns.alive))
    again.catalogue.visits.row[:] = -1
    again.sessions.newest[:] = -1
    remember(again, kept)
    before, after = engine.catalogue.visits, again.catalogue.visits
    assert (before.n, before.row.tolist()) == (after.n, after.row.tolist())
    slots = engine.items
    assert before.heat[:, slots].tolist() == after.heat[:, slots].tolist()
    for each in (engine, again):
        each.step(Inputs(clicks([(f"u{n}", "i1", rows[-1][2] + 1) for n in range(12)])))
    assert before.row.tolist() == after.row.tolist()
