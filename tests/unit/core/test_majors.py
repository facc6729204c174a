"""When a major update begins: as it is due, in quiet hours, or as somebody asked. What it does."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from core.engine import Engine
from core.rounds import Inputs
from core.settings import Settings
from core.starts import Birth
from tests.unit.core.groups import (
    START,
    clicks,
    group,
    published,
    settings,
    step,
    trained,
    unwritten,
    visits,
)

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


# -- what one does ---------------------------------------------------------------------------------


def test_major_updates_begin_an_epoch_and_keep_labels() -> None:
    engine = Engine(settings(major=2000))
    labels: list[dict[str, int]] = []
    for i in range(60):
        epoch = engine.placement.epoch
        changes = step(engine, visits(i, at=100 * i))
        if changes.placement is not None:
            assert changes.placement.epoch == engine.placement.epoch == epoch + 1
            cluster = engine.model.columns.cluster[engine.items].tolist()
            names = [str(engine.vocabulary.keys[slot]) for slot in engine.items]
            labels.append(dict(zip(names, cluster, strict=True)))
            assert changes.rows["epoch"].tolist() == [epoch + 1] * len(engine.items)
            assert published(changes) == {name.encode() for name in names}
        else:
            assert engine.placement.epoch == epoch
    assert len(labels) == 3
    for before, after in pairwise(labels):
        assert np.mean([before[item] == after[item] for item in before]) > 0.9
    for number in range(3):
        assert len({labels[-1][item] for item in group(number)}) == 1


def test_a_major_update_takes_rounds_and_moves_centroids_with_the_commit_behind_them() -> None:
    engine = trained(settings(major=2000))
    late = clicks(visits(99, at=10_000))
    assert engine.step(Inputs(late, closes_commit=False)).changes is None
    assert engine.starts.major is not None, "all items were started from in one slice"
    changes = step(engine, [])
    assert changes.placement is not None
    assert engine.starts.major is None


def test_a_major_update_starts_from_every_item_in_slices_and_goes_on_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.starts.SLICE", 7)
    engine = trained(settings(major=2000))
    step(engine, [("u", "i0", 10_000)])
    seen = []
    for _ in range(3):
        assert engine.starts.major is not None
        begin = engine.starts.since(engine.starts.major)
        step(engine, [])
        seen.append(begin)
    assert seen == [7, 14, 21]
    again = Engine(engine.settings, 2)
    again.clock, again.placement, again.starts.major = (
        engine.clock,
        engine.placement,
        engine.starts.major,
    )
    engine.publish_all()
    changes = step(engine, [])
    again.load_rows([(changes.keys, changes.rows)])
    assert again.starts.since(again.starts.major or Birth(0, 0)) == 28
    assert step(again, []).placement is not None


def test_another_number_of_clusters_is_taken_with_a_major_update_at_the_next_round() -> None:
    before = trained(settings())
    assert len(before.placement.centroids) == 3
    for count in (2, 5):
        before.publish_all()
        changes = step(before, [])
        chosen = settings()
        after = Engine(replace(chosen, clusters=replace(chosen.clusters, count=count)), 2)
        after.clock.time, after.placement = before.clock.time, before.placement
        after.load_rows([(changes.keys, changes.rows)])
        changes = step(after, visits(50, at=2000))
        assert changes.placement is not None
        assert changes.placement.epoch == before.placement.epoch + 1
        assert len(changes.placement.centroids) == count
        assert after.model.columns.cluster[after.items].max() < count
        assert step(after, visits(51, at=2100)).placement is None


def test_moves_count_items_that_changed_cluster_and_buckets_that_they_changed() -> None:
    engine = trained(settings())
    c, rng = engine.model.columns, np.random.default_rng(1)
    items = engine.items
    before = c.cluster[items], c.buckets[items]
    engine.model.rows.v[:] = rng.standard_normal(engine.model.rows.v.shape)
    changes = step(engine, [*visits(99, at=1200), ("w", "new", 1200)])
    moved = before[1] != c.buckets[items]
    assert moved.all(axis=1).any()
    assert changes.bucket_moves == moved.sum()
    assert changes.cluster_moves == (before[0] != c.cluster[items]).sum() > 0
