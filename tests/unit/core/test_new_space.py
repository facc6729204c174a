"""A new vector space of an engine: what leaves in it, and what a process leaves that ends."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.graph.written import Node, load_nodes, nodes
from core.placing.clusters import NONE
from core.placing.leaving import ready
from core.placing.placement import Placement, Placer
from core.placing.rules import Rules
from core.rounds import Changes, Inputs
from core.settings import ChallengerSettings, ClusterSettings, NegativeSettings, Settings
from tests.unit.core.groups import clicks, published, settings, step, trained, visits

FAR = ChallengerSettings(promote=True, min_agreement=1.0)
"""However far a challenger agrees, a new vector space begins."""
CHOSEN = settings(attribute_slots=2, major=10**9)
OTHER = replace(CHOSEN, negatives=NegativeSettings(kind="popularity"))
TAGS = [(f"i{j}", [f"tag{j % 4}"]) for j in range(50)]


def close(
    engine: Engine,
    budget: int = 20_000,
    room: int = 20_000,
    described: Sequence[tuple[str, Sequence[str] | None]] = (),
) -> Changes:
    inputs = Inputs(Clicks.empty(), attributes=described, budget=budget, room=room)
    changes = engine.step(inputs).changes
    assert changes is not None
    return changes


def taking_over() -> Engine:
    """An engine whose next commit begins a new space."""
    engine = Engine(CHOSEN, partitions=2)
    challenger = engine.challenge(OTHER, FAR)
    for i in range(12):
        step(engine, visits(i, at=100 * i, groups=5), TAGS if i == 0 else [])
    challenger.test.logs[:] = challenger.test.greatest = 1000.0
    return engine


def test_all_leave_once_in_it_as_there_is_room() -> None:
    engine = taking_over()
    before = set(map(bytes, (name.encode() for name in engine.vocabulary.names(engine.items))))
    out = [close(engine, budget=20)]
    assert out[0].promotion is not None
    assert out[0].promotion.is_new_space
    since = engine.leaving.space_from
    while out[-1].stale or out[-1].waiting:
        assert len(out[-1].published) == 20
        assert len(out) < 10
        out.append(close(engine, budget=20))
    left = [published(changes) for changes in out]
    assert set().union(*left) == before
    assert sum(map(len, left)) == len(before)
    for changes in out:
        assert changes.rows["version"].min() >= since
        assert set(changes.rows["epoch"][changes.published]) == {engine.placement.epoch}
    columns = engine.model.columns
    assert (columns.version[columns.alive] >= since).all()
    assert not engine.ownership.is_of_another_space(engine.items).any()


def test_no_later_version_of_any_partition_is_of_the_space_before() -> None:
    engine = taking_over()
    above = max(engine.versions.values())
    changes = close(engine, room=0)
    assert changes.promotion is not None
    assert changes.keys == []
    assert changes.versions == {0: above + 1, 1: above + 1}


def test_what_came_back_and_is_not_learned_leaves_with_the_rest() -> None:
    """Else it would stay with a vector of the space before."""
    engine = taking_over()
    alone = clicks([("late", "i0", 1300)])
    engine.step(Inputs(alone, attributes=[("i0", None)], closes_commit=False))
    slot = engine.vocabulary.get("i0")
    assert slot is not None
    columns = engine.model.columns
    assert columns.published[slot] > 0
    assert not ready(engine.model, np.array([slot], np.int32))[0]
    assert b"i0" in published(close(engine))
    assert columns.published[slot] >= engine.leaving.space_from > 0


def test_one_that_agrees_leaves_the_space_as_it_is() -> None:
    engine = taking_over()
    assert engine.challenger is not None
    engine.challenger.terms = ChallengerSettings(promote=True, min_agreement=0.0)
    epoch = engine.placement.epoch
    promotion = close(engine).promotion
    assert promotion is not None
    assert not promotion.is_new_space
    assert engine.leaving.space_from == 0
    assert engine.placement.epoch == epoch


def ended() -> tuple[Engine, list[Changes]]:
    """An engine that began a new space, and all that it has written: its first 20 vectors in it,
    after all of the champion's."""
    engine = taking_over()
    challenger, engine.challenger = engine.challenger, None
    engine.publish_all()
    before = close(engine)
    engine.challenger = challenger
    return engine, [before, close(engine, budget=20)]


def restarted(
    engine: Engine,
    written: list[Changes],
    kept: Sequence[tuple[bytes, Node]],
    owned: Sequence[int] = (0, 1),
) -> Engine:
    """What comes back of an engine that ended after these commits, of a part of the items."""
    again = Engine(OTHER, partitions=2)
    again.own(owned, lambda keys: ([], written[0].rows[:0]))
    vars(again.clock).update(vars(engine.clock))
    again.placement, again.versions = engine.placement, dict(engine.versions)
    again.publish_from, again.outdated = engine.publish_from, dict(engine.outdated)
    again.leaving.space_from = engine.leaving.space_from
    load_nodes(again.catalogue, kept, 1, engine.scale)
    rows = [(changes.keys, changes.rows) for changes in written]
    again.load_rows(rows, lambda item: dict(TAGS).get(item, []))
    return again


def test_what_was_lost_is_learned_before_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a process that ended on the way are the champion's."""
    monkeypatch.setattr("core.starts.SLICE", 15)
    engine, written = ended()
    assert written[-1].promotion is not None
    since = engine.leaving.space_from
    again = restarted(engine, written, nodes(engine.catalogue, engine.items, 1, engine.scale))
    columns = again.model.columns
    assert (columns.published[again.items] >= since).sum() == 20
    lost = again.items[columns.published[again.items] < since]
    assert set(lost) <= set(again.starts.behind.tolist())
    assert set(columns.cluster[lost]) == {NONE}
    assert (again.model.rows.acc_v[lost] == 0.0).all()
    assert set(lost) == set(again.items[again.ownership.is_of_another_space(again.items)])
    while len(again.starts.behind):
        waits = again.starts.behind.copy()
        held = again.vocabulary.names(waits[-1:])  # also where it is described meanwhile
        changes = close(again, described=[(held[0], ["another tag"])])
        untouched = set(again.vocabulary.names(np.intersect1d(waits[15:], lost)))
        assert published(changes).isdisjoint(name.encode() for name in untouched)
    close(again)
    assert (columns.published[again.items] >= since).all()
    assert not again.ownership.is_of_another_space(again.items).any()


def test_what_is_read_of_other_workers_is_of_it_once_they_wrote_it() -> None:
    engine, (old, new) = ended()
    again = restarted(engine, [old], [], owned=[])
    slots = [again.vocabulary.get(key.decode()) for key in published(new)]
    at = np.array(slots, np.int32)
    assert again.ownership.is_of_another_space(at).all()
    again.ownership.read(new.keys, new.rows)
    assert not again.ownership.is_of_another_space(at).any()
    others = np.setdiff1d(again.items, at)
    assert again.ownership.is_of_another_space(others).all()


# -- placement -----------------------------------------------------------------------------------


def anew(chosen: Settings, engine: Engine, before: Placement) -> Placement:
    placer = Placer(chosen, engine.vocabulary.names)
    return placer.anew(before, engine.model, engine.items, 5)


def test_a_placement_made_anew_is_a_first_one_with_a_later_epoch() -> None:
    engine = trained(settings())
    before = replace(engine.placement, epoch=7, founded=2)
    found = anew(settings(), engine, before)
    first = Placer(settings()).refresh(Placement.empty(), engine.model, engine.items, 5)
    assert (found.epoch, found.hashed_since, found.founded) == (8, 8, 0)
    assert np.array_equal(found.centroids, first.centroids)
    assert np.array_equal(found.centre, first.centre)


def test_where_few_items_are_settled_there_are_as_many_clusters() -> None:
    engine = trained(settings())
    many = replace(settings(), clusters=ClusterSettings(count=100, min_items=20))
    assert len(anew(many, engine, engine.placement).centroids) == len(engine.items) == 30


def test_clusters_by_rules_stay_what_they_are() -> None:
    chosen = replace(
        settings(attribute_slots=1),
        clusters=ClusterSettings(kind="rules", min_items=20, min_size=5),
    )
    engine = Engine(chosen, partitions=2)
    for i in range(12):
        step(engine, visits(i, at=100 * i), [(f"i{j}", [f"tag{j % 2}"]) for j in range(30)])
    before = engine.placement
    assert isinstance(before.rules, Rules)
    found = anew(chosen, engine, before)
    assert found.rules is not None
    assert found.rules.names == before.rules.names
    assert found.epoch == before.epoch + 1
