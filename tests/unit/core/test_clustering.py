"""Clusters of an engine: found anew, founded by items, and by rules."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.engine import Engine
from core.placing.clusters import unit_rows
from core.placing.placement import SETTLED
from core.rounds import Changes
from core.settings import Settings
from tests.unit.core.groups import (
    GROUP,
    group,
    restarted,
    settings,
    step,
    trained,
    vectors,
    visits,
    written,
)


def clustered(major: int = 0, slots: int = 0, **chosen: Any) -> Settings:
    out = settings(major=major, attribute_slots=slots)
    return replace(out, clusters=replace(out.clusters, **chosen))


def labels(engine: Engine, items: Sequence[str]) -> list[int]:
    slots = [engine.vocabulary.get(item) for item in items]
    return engine.model.columns.cluster[np.array(slots, np.int64)].tolist()


# -- found anew ----------------------------------------------------------------------------------


def test_clusters_that_are_found_anew_keep_their_labels() -> None:
    engine = trained(clustered(update="anew"), 20)
    before = labels(engine, group(0) + group(1) + group(2))
    for epoch in (1, 2, 3):
        engine.starts.asked = epoch
        assert step(engine, visits(50 + epoch, at=2000 + epoch)).placement is not None
        written(engine)
        assert labels(engine, group(0) + group(1) + group(2)) == before
    assert len(set(before)) == 3


@pytest.mark.parametrize("update", ["continue", "anew"])
def test_only_clusters_found_anew_get_out_of_where_k_means_is_stuck(update: str) -> None:
    engine = trained(clustered(update=update), 20)
    unit = vectors(engine, group(0) + group(1) + group(2))
    # Two centroids share the first group, and one has the two others.
    means = [unit[:5].mean(0), unit[5:10].mean(0), unit[10:].mean(0)]
    stuck = unit_rows(np.array(means, np.float32))
    engine.placement = replace(engine.placement, centroids=stuck)
    engine.starts.asked = 1
    step(engine, [])
    written(engine)
    found = [set(labels(engine, group(number))) for number in range(3)]
    assert (len(set.union(*found)) == sum(map(len, found)) == 3) == (update == "anew")


# -- founded by items ----------------------------------------------------------------------------


def with_a_new_group(**chosen: Any) -> tuple[Engine, list[Changes]]:
    """An engine that knew two groups, and what left while a third came up."""
    engine = Engine(clustered(count=2, min_items=15, spawn=0.75, **chosen), 2)
    for i in range(12):
        step(engine, visits(i, at=100 * i, groups=2))
    assert engine.placement.epoch == 1
    assert engine.placement.founded == 0
    return engine, [step(engine, visits(20 + i, at=1200 + 100 * i)) for i in range(12)]


def test_what_is_far_from_every_centroid_founds_a_cluster_and_nothing_else_moves() -> None:
    engine, changes = with_a_new_group()
    before = 2
    assert engine.placement.epoch == 1
    assert engine.placement.founded > 0
    for one in changes:
        if one.placement is None:
            continue
        assert one.placement.epoch == 1, "nothing is judged anew"
        assert len(one.placement.centroids) == 2 + one.placement.founded > before
        before = len(one.placement.centroids)
    new, known = labels(engine, group(2)), labels(engine, group(0) + group(1))
    assert min(new) >= 2 > max(known)
    assert step(engine, []).keys == [], "nothing waits"


def test_there_are_no_more_of_them_than_may_be() -> None:
    engine, _ = with_a_new_group(most=2)
    assert len(engine.placement.centroids) == 2
    engine, _ = with_a_new_group(most=3)
    assert len(engine.placement.centroids) == 3


def test_what_is_hardly_learned_yet_founds_none() -> None:
    engine, _ = with_a_new_group(most=2)
    chosen = replace(engine.settings, clusters=replace(engine.settings.clusters, most=99))
    engine.placer.settings = chosen
    rows = np.array([engine.vocabulary.get(item) for item in group(2)], np.int32)
    engine.model.columns.updates[rows] = SETTLED - 1
    found = engine.placer.spawned(engine.placement, engine.model, rows)
    assert found is engine.placement
    engine.model.columns.updates[rows[3]] = SETTLED
    found = engine.placer.spawned(engine.placement, engine.model, rows)
    assert found.founded == 1
    assert np.array_equal(found.centroids[2:], vectors(engine, ["i23"]))


def test_founded_clusters_are_taken_up_by_other_workers_and_after_a_restart() -> None:
    engine, _ = with_a_new_group()
    other = Engine(engine.settings, 2)
    other.placement = replace(engine.placement, centroids=engine.placement.centroids[:2], founded=0)
    other.starts.major = (0, 0)  # type: ignore[assignment]
    other.take_placement(engine.placement)
    assert other.placement is engine.placement
    assert other.starts.major is not None, "what is under way goes on"
    assert not other.leaving.any_stale
    again = restarted(engine, written(engine))
    assert again.placement.founded == engine.placement.founded
    assert labels(again, group(2)) == labels(engine, group(2))
    assert step(again, visits(80, at=2500)).placement is None, "the number of clusters is right"


def test_who_does_not_lead_founds_none_until_the_one_who_does_makes_a_major_update() -> None:
    engine, _ = with_a_new_group()
    follower = Engine(engine.settings, 2)
    nothing = (list[bytes](), engine.model.pack(engine.items[:0], engine.graph.last_seen))
    follower.placement = replace(
        engine.placement, centroids=engine.placement.centroids[:2], founded=0
    )
    follower.own([1], lambda keys: nothing)
    for i in range(12):
        step(follower, visits(20 + i, at=1200 + 100 * i))
    assert follower.placement.founded == 0
    follower.own([0, 1], lambda keys: nothing)
    follower.starts.asked = 1
    step(follower, [])
    assert follower.placement.founded > 0
    assert follower.placement.epoch == 2


def test_a_major_update_keeps_what_was_founded_and_without_spawn_it_goes() -> None:
    engine, _ = with_a_new_group()
    founded, before = engine.placement.founded, labels(engine, group(2))
    engine.starts.asked = 1
    assert step(engine, []).placement is not None
    written(engine)
    assert engine.placement.founded >= founded
    assert np.mean(np.array(labels(engine, group(2))) == before) > 0.8
    chosen = replace(engine.settings, clusters=replace(engine.settings.clusters, spawn=0.0))
    engine.settings = engine.placer.settings = chosen
    step(engine, visits(90, at=2600))
    assert (engine.placement.epoch, len(engine.placement.centroids)) == (3, 2)
    assert engine.placement.founded == 0


# -- by rules ------------------------------------------------------------------------------------

TOLD = {
    item: [f"kind={number}", f"shade={n % 2}"]
    for number in range(3)
    for n, item in enumerate(group(number))
}


def ruled(depth: int = 1, **chosen: Any) -> Engine:
    engine = Engine(
        clustered(slots=2, kind="rules", depth=depth, min_size=4, **chosen), partitions=2
    )
    step(engine, [], list(TOLD.items()))
    for i in range(12):
        step(engine, visits(i, at=100 * i))
    return engine


def named(engine: Engine, items: Sequence[str]) -> list[str]:
    rules = engine.placement.rules
    assert rules is not None
    return [rules.name(label) for label in labels(engine, items)]


def test_items_with_the_same_attributes_are_a_cluster_with_a_name() -> None:
    engine = ruled()
    for number in range(3):
        assert named(engine, group(number)) == [f"kind={number}"] * GROUP
    assert engine.placement.epoch == 1
    finer = ruled(depth=2)
    assert named(finer, ["i0", "i1", "i12"]) == [
        "kind=0, shade=0", "kind=0, shade=1", "kind=1, shade=0",
    ]  # fmt: skip
    rules = finer.placement.rules
    assert rules is not None
    means = finer.placement.centroids
    assert len(means) == len(rules.names) == 7
    rank = np.argsort(-(vectors(finer, ["i0"]) @ means.T)[0])[:2]
    assert {rules.name(int(n)) for n in rank} == {"kind=0, shade=0", "kind=0, shade=1"}


def test_what_is_described_goes_by_the_rules_that_there_are_and_moves_with_its_attributes() -> None:
    engine = ruled()
    changes = step(engine, [], [("fresh", ["kind=1", "shade=0"]), ("i0", ["kind=2"])])
    assert named(engine, ["fresh", "i0"]) == ["kind=1", "kind=2"]
    assert changes.placed_by.rules is engine.placement.rules
    assert step(engine, [], [("i0", ["kind=9"])]).placement is None
    assert named(engine, ["i0"]) == ["other"]


def test_numbers_stay_over_major_updates_and_restarts() -> None:
    engine = ruled()
    before = dict(zip(TOLD, labels(engine, list(TOLD)), strict=True))
    told = TOLD | {item: ["kind=new"] for item in group(0)}
    step(engine, [], [(item, told[item]) for item in group(0)])
    engine.starts.asked = 1
    assert step(engine, []).placement is not None
    again = restarted(engine, written(engine), attributes=lambda item: told.get(item, []))
    for one in (engine, again):
        assert named(one, group(0)) == ["kind=new"] * GROUP
        assert set(labels(one, group(0))).isdisjoint(before.values()), "a number of its own"
        assert labels(one, group(1) + group(2)) == [before[i] for i in group(1) + group(2)]
    step(again, [], [(item, TOLD[item]) for item in group(0)])
    again.starts.asked = 2
    assert step(again, []).placement is not None
    assert labels(again, list(TOLD)) == list(before.values()), "what comes back has its number"


def test_rules_stay_as_they_are_where_items_are_too_few_for_the_vectors_that_are_to_follow() -> (
    None
):
    engine = ruled()
    rules = engine.placement.rules
    chosen = clustered(slots=2, count=31, min_size=4)
    engine.settings = engine.placer.settings = chosen
    step(engine, [], [(item, ["kind=new"]) for item in group(0)])
    engine.starts.asked = 1
    assert step(engine, []).placement is not None
    assert engine.placement.epoch == 2
    assert engine.placement.rules is rules, "no others are fitted"
    assert len(engine.placement.centroids) == 4
    written(engine)
    assert named(engine, ["i0", "i10"]) == ["other", "kind=1"]


@pytest.mark.parametrize("kinds", [("vectors", "rules"), ("rules", "vectors")])
def test_another_kind_is_taken_with_a_major_update_at_the_next_round(
    kinds: tuple[str, str],
) -> None:
    engine = ruled() if kinds[0] == "rules" else None
    if engine is None:
        engine = Engine(clustered(slots=2), partitions=2)
        step(engine, [], list(TOLD.items()))
        for i in range(12):
            step(engine, visits(i, at=100 * i))
    changes = written(engine)
    chosen = clustered(slots=2, kind=kinds[1], depth=1, min_size=4)
    engine.settings = chosen
    again = restarted(engine, changes, attributes=lambda item: TOLD.get(item, []))
    assert step(again, visits(50, at=2000)).placement is not None
    assert (again.placement.rules is not None) == (kinds[1] == "rules")
    assert again.placement.epoch == 2
    written(again)
    assert len({tuple(set(labels(again, group(n)))) for n in range(3)}) == 3
    assert step(again, visits(51, at=2100)).placement is None
