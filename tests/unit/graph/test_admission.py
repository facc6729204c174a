"""Ids that are counted: what they take of memory, which of too many stay, and other settings."""

from dataclasses import replace

import numpy as np
import pytest

from core.engine import Engine
from core.graph.fold import DUPLICATE, HELD, KEPT, SHOWN
from core.graph.written import Snapshot
from core.rounds import Inputs
from core.settings import AdmissionSettings, Duration
from tests.unit.core.groups import START, clicks, settings, step, trained, visits

TWICE = AdmissionSettings(min_events=2)


def engine_of(admission: AdmissionSettings) -> Engine:
    return Engine(replace(settings(), admission=admission))


@pytest.mark.parametrize("users", [1, 2])
def test_an_id_that_comes_once_takes_under_a_hundred_bytes_and_has_no_row(users: int) -> None:
    n, size = 100_000, 5_000
    engine = engine_of(AdmissionSettings(2, users))
    before = sum(engine.table_bytes().values())
    for begin in range(0, n, size):
        rows = [(f"u{k}", f"{k:016x}", k) for k in range(begin, begin + size)]
        out = engine.step(Inputs(clicks(rows)))
        assert (out.events, out.held, out.admitted) == (0, size, 0)
        assert out.changes is not None
        assert not out.changes.keys
    assert len(engine.items) == len(engine.vocabulary) == engine.graph.arcs == 0
    assert len(engine.sessions.users) == engine.catalogue.visits.n == 0
    taken = sum(engine.table_bytes().values()) - before
    in_one_round = 1000 * size  # rows of sessions and items that a batch may need
    assert taken - in_one_round < 100 * n
    assert engine.table_bytes()["admission"] < 100 * n


@pytest.mark.parametrize(("users", "entry"), [(1, 24), (2, 32), (3, 40)])
def test_a_table_that_grows_is_about_as_large_as_what_is_in_it(users: int, entry: int) -> None:
    admission = engine_of(AdmissionSettings(2, users)).catalogue.admission
    for n in range(0, 60_000, 500):
        times = np.full(500, START)
        admission.admit([f"i{k}" for k in range(n, n + 500)], times)
        assert admission.nbytes <= max(1024, (n + 500) * 5 / 4 * 5 / 4) * entry
    assert admission.admitted == 60_000
    assert admission.has([f"i{k}" for k in range(60_000)]).all()


def test_the_click_that_admits_counts_as_any_other_does() -> None:
    chosen = settings(min_drift=0.0)
    counts, admits = (Engine(replace(chosen, admission=a)) for a in (TWICE, AdmissionSettings()))
    first = [(f"once-{item}", item, 0) for item in ("a", "b", "c")]
    out = counts.step(Inputs(clicks(first)))
    assert (out.held, out.admitted) == (3, 0)
    assert out.evidence.held is not None
    assert out.evidence.held.all()
    admits.step(Inputs(clicks([])))
    rows = [("u", "a", 1), ("u", "stranger", 2), ("u", "b", 3), ("v", "c", 4), ("v", "a", 5)]
    out = counts.step(Inputs(clicks(rows)))
    assert (out.events, out.held, out.admitted) == (4, 1, 3)
    known = [row for row in rows if row[1] != "stranger"]
    wanted, got = admits.step(Inputs(clicks(known))).changes, out.changes
    assert got is not None
    assert wanted is not None
    assert got.keys == wanted.keys == [b"a", b"b", b"c"]
    assert np.array_equal(got.vectors, wanted.vectors)


def test_a_described_item_has_its_row_and_is_counted_like_any_other() -> None:
    """Who hears of it when is no part of the log, and all must admit alike."""
    attributes = settings(attribute_slots=1)
    engine = Engine(replace(attributes, admission=TWICE))
    step(engine, [], [("a", ["c=x"])])
    out = engine.step(Inputs(clicks([("u", "a", 0)])))
    assert (len(engine.items), out.held) == (1, 1)
    assert engine.graph.clicks[engine.items].tolist() == [0]
    out = engine.step(Inputs(clicks([("v", "a", 0)])))
    assert (out.events, out.admitted) == (1, 1)
    assert engine.graph.clicks[engine.items].tolist() == [1]


def test_of_too_many_those_leave_that_were_not_clicked_for_longest() -> None:
    engine = engine_of(replace(TWICE, most=8))
    engine.fold(clicks([(f"u{n}", f"i{n}", n) for n in range(8)]))
    assert engine.catalogue.admission.counted == 8
    fate = engine.fold(clicks([("v", "i2", 9), ("v", "i1", 9), ("v", "i0", 9)])).fate
    assert fate.tolist() == [KEPT, HELD, HELD]  # i0 and i1 left, and are counted anew
    assert engine.catalogue.admission.admitted == 1


def test_an_id_that_left_the_graph_is_counted_anew() -> None:
    engine = engine_of(TWICE)
    engine.step(Inputs(clicks([("u", "a", 0), ("v", "a", 1), ("v", "b", 1)])))
    assert engine.graph.clicks[engine.items].tolist() == [1]
    out = engine.step(Inputs(clicks([("w", "a", 2)]), attributes=[("a", None)]))
    assert (out.held, len(engine.items)) == (1, 0)
    out = engine.step(Inputs(clicks([("x", "a", 3)])))
    assert (out.events, out.admitted) == (1, 1)


def test_an_id_is_forgotten_by_the_time_of_the_log() -> None:
    hour = Duration(3_600_000)
    engine = engine_of(replace(TWICE, forget=hour))
    late = [("u", "a", 0), ("u", "b", 0), ("v", "a", hour), ("v", "b", hour + 1)]
    assert engine.fold(clicks(late)).fate.tolist() == [HELD, HELD, KEPT, HELD]


def test_what_the_graph_has_is_admitted_when_ids_begin_to_be_counted() -> None:
    engine = trained(settings(), rounds=2)
    engine.catalogue.count_by(replace(TWICE, forget=Duration(1)))
    admission = engine.catalogue.admission
    assert (admission.admitted, admission.counted) == (len(engine.items), 0)
    rows = visits(9, at=300)
    assert (engine.fold(clicks([*rows, ("u", "new", 300)])).fate == HELD).sum() == 1


def test_other_settings_go_on_with_what_was_counted() -> None:
    engine = engine_of(AdmissionSettings(3, 3))
    engine.fold(clicks([("u", "a", 0), ("v", "a", 0)]))
    engine.catalogue.count_by(AdmissionSettings(3, 2, Duration(1000)))
    assert engine.fold(clicks([("u", "a", 0), ("w", "b", 0)])).fate.tolist() == [KEPT, HELD]
    engine.catalogue.count_by(AdmissionSettings())
    assert engine.catalogue.admission.nbytes == 0
    assert engine.fold(clicks([("w", "c", 0)])).fate.tolist() == [KEPT]


def test_what_is_sent_twice_counts_once() -> None:
    engine = engine_of(TWICE)
    twice = replace(clicks([("u", "a", 0)] * 2), event_ids=np.array([7, 7], np.uint64))
    assert engine.fold(twice).fate.tolist() == [HELD, DUPLICATE]
    assert engine.fold(replace(twice, event_ids=None)).fate.tolist() == [KEPT, KEPT]
    assert engine.clock.time == START


@pytest.mark.parametrize("events", [2, 3])
def test_what_is_sent_again_behind_others_counts_once(events: int) -> None:
    engine = engine_of(AdmissionSettings(events))
    rows = [(f"u{n}", "a", n) for n in range(events)]
    batch = replace(clicks(rows), event_ids=np.arange(1, events + 1, dtype=np.uint64))
    few = batch.at(np.arange(events - 1))
    assert engine.fold(few).fate.tolist() == [HELD] * (events - 1)
    assert engine.fold(few).fate.tolist() == [DUPLICATE] * (events - 1)
    assert engine.fold(batch).fate.tolist() == [DUPLICATE] * (events - 1) + [KEPT]
    assert engine.fold(batch).fate.tolist() == [DUPLICATE] * events
    assert engine.graph.clicks[:1].tolist() == [1]
    # Event ids are of each user's own.
    other = replace(clicks([("v", "a", 0)]), event_ids=np.ones(1, np.uint64))
    assert engine.fold(other).fate.tolist() == [KEPT]


def test_impressions_are_neither_counted_nor_held_back() -> None:
    engine = engine_of(TWICE)
    rows = [("u", "a", 0), ("v", "a", 1), ("v", "b", 2), ("v", "b", 3), ("w", "a", 4)]
    weights = np.array([-1.0, 1.0, -1.0, -1.0, -1.0], np.float32)
    out = engine.step(Inputs(replace(clicks(rows), weights=weights)))
    assert (out.held, out.admitted, engine.catalogue.admission.counted) == (1, 0, 1)
    assert out.evidence.held is not None
    told = out.evidence
    assert told.clicks.weights[told.held].tolist() == [1.0]
    again = engine_of(TWICE)
    again.fold(replace(clicks(rows), weights=weights))
    (fate,) = again.fold(replace(clicks(rows[:1]), weights=weights[:1])).fate.tolist()
    assert fate == SHOWN
    assert again.fold(clicks([("w", "a", 5)])).fate.tolist() == [KEPT]


def test_an_id_that_is_named_twice_is_admitted_once() -> None:
    admission = engine_of(TWICE).catalogue.admission
    admission.admit(["a", "b", "a"], np.array([1, 2, 3]))
    assert (admission.admitted, admission.counted) == (2, 0)


def test_a_snapshot_has_them_in_an_order_that_follows_from_the_log() -> None:
    engines = [engine_of(TWICE) for _ in range(2)]
    for engine in engines:
        engine.fold(clicks([(f"u{n}", f"i{n % 500}", n) for n in range(600)]))
    one, other = (Snapshot(engine.catalogue).counted for engine in engines)
    assert one is not None
    assert other is not None
    assert [np.asarray(a).tolist() for a in one] == [np.asarray(b).tolist() for b in other]


def test_of_many_that_are_admitted_an_eighth_may_be_counted() -> None:
    """So that looking for those that leave takes no longer where more are admitted."""
    engine = engine_of(replace(TWICE, most=8))
    engine.catalogue.admission.admit([f"i{n}" for n in range(8000)], np.full(8000, START))
    engine.fold(clicks([(f"u{n}", f"once-{n}", n) for n in range(1001)]))
    assert engine.catalogue.admission.counted == 751
    fate = engine.fold(clicks([("v", "once-250", 2000), ("v", "once-249", 2000)])).fate
    assert fate.tolist() == [KEPT, HELD]
