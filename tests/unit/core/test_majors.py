"""When a major update begins: as it is due, in quiet hours, or as somebody asked."""

from dataclasses import replace
from typing import Any

import pytest

from core.engine import Engine
from core.rounds import Inputs
from core.settings import Settings
from tests.unit.core.groups import START, clicks, settings, step, trained, unwritten, visits

AT = START // 60_000 % (24 * 60)
"""The minute of the day at which the clicks of the groups begin."""


def quiet(begin: int, end: int, every: int = 2000) -> Settings:
    """A window from one minute to another after the first click."""
    times = [(AT + minute) % (24 * 60) for minute in (begin, end)]
    chosen = settings(major=every)
    window = "-".join(f"{time // 60:02}:{time % 60:02}" for time in times)
    return replace(chosen, major=replace(chosen.major, window=window))


def test_one_that_is_due_begins_in_quiet_hours_only() -> None:
    engine = trained(quiet(2, 4))
    epochs = {}
    for minute in range(1, 8):
        step(engine, visits(minute, at=60_000 * minute))
        epochs[minute] = engine.placement.epoch
    assert epochs[1] == 1, "it is due, and the hours are not quiet"
    assert epochs == {1: 1, 2: 2, 3: 3, 4: 3, 5: 3, 6: 3, 7: 3}


@pytest.mark.parametrize("changed", [False, True])
def test_where_nobody_clicks_in_quiet_hours_the_first_clicks_after_them_begin_it(
    changed: bool,
) -> None:
    engine = trained(quiet(3, 4, every=0 if changed else 2000))
    if changed:
        chosen = replace(engine.settings.clusters, count=2)
        engine.settings = engine.placer.settings = replace(engine.settings, clusters=chosen)
    epochs = {}
    for minute in (1, 2, 5, 6):
        step(engine, visits(minute, at=60_000 * minute))
        epochs[minute] = engine.placement.epoch
    assert epochs == {1: 1, 2: 1, 5: 2, 6: 2}


def test_what_is_asked_for_begins_at_once_and_is_done_once() -> None:
    engine = trained(quiet(600, 700, every=0))
    assert engine.placement.epoch == 1
    assert not engine.has_work(START)
    engine.starts.asked = 1
    assert engine.has_work(START), "no click is needed"
    assert step(engine, []).placement is not None
    assert engine.placement.epoch == 2
    for i in range(3):
        assert step(engine, visits(i, at=2000 + i)).placement is None


def test_a_worker_that_owns_nothing_does_not_wait_for_what_others_were_asked() -> None:
    engine = trained(settings())
    engine.own([], unwritten(engine))
    step(engine, [])
    engine.starts.asked = 1
    assert not engine.starts.is_major_over
    assert not engine.has_work(START)


@pytest.mark.parametrize("asked", [-1, 0, 2])
def test_another_epoch_than_the_one_asked_for_is_followed_by_nothing(asked: int) -> None:
    engine = trained(settings())
    engine.starts.asked = asked
    step(engine, visits(50, at=2000))
    assert engine.placement.epoch == 1


def test_before_there_are_clusters_nothing_is_asked_for() -> None:
    engine = Engine(settings())
    engine.starts.asked = 0
    assert step(engine, [("u", "a", 0)]).placement is None
    assert engine.starts.major is None


@pytest.mark.parametrize("theirs", [{"spawn": 0.2}, {"count": 2}, {"kind": "rules"}])
def test_only_the_leader_minds_that_clusters_are_others_than_its_settings_ask_for(
    theirs: dict[str, Any],
) -> None:
    engine = trained(settings(attribute_slots=1))
    chosen = replace(engine.settings.clusters, **theirs)
    engine.settings = engine.placer.settings = replace(engine.settings, clusters=chosen)
    engine.placement = replace(engine.placement, founded=1)
    engine.own([1], unwritten(engine))
    for i in range(3):
        step(engine, visits(20 + i, at=1300 + i))
        assert engine.starts.major is None
    engine.own([0, 1], unwritten(engine))
    step(engine, visits(30, at=1400))
    assert engine.placement.epoch == 2


def test_who_does_not_lead_waits_for_the_centroids_once_it_has_come_by_every_item() -> None:
    engine = trained(settings())
    engine.own([1], unwritten(engine))
    engine.starts.asked = 1
    assert engine.has_work(START), "it has the walks to do"
    for _ in range(5):
        step(engine, [])
    assert engine.placement.epoch == 1
    assert engine.starts.major is not None
    assert not engine.has_work(START)
    engine.own([0, 1], unwritten(engine))
    assert engine.has_work(START), "it is the one to make them now"
    step(engine, [])
    assert engine.placement.epoch == 2


def test_the_first_clusters_need_no_click_once_others_have_written_enough_settled_items() -> None:
    one, other = Engine(settings(), partitions=2), Engine(settings(), partitions=2)
    for number, engine in enumerate((one, other)):
        engine.own([number], unwritten(engine))
        for i in range(3):
            told = clicks(visits(i, at=100 * i))
            engine.step(Inputs(told, is_told=True, closes_commit=False))
    written = step(other, [])
    assert other.placement.epoch == 0
    assert not other.has_work(START), "it does not lead"
    step(one, [])
    assert one.placement.epoch == 0, "its own items are too few"
    assert not one.has_work(START)
    one.ownership.read(written.keys, written.rows)
    assert one.has_work(START)
    assert step(one, []).placement is not None
    assert one.placement.epoch == 1
    step(one, [])  # those that it moved
    assert not one.has_work(START)
