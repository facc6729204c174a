"""What an engine finds out at a start: rows that were to be written, and items to learn again."""

from dataclasses import replace

import numpy as np
import pytest

from core.engine import Engine
from core.graph.written import load_nodes, nodes
from core.rounds import Inputs
from tests.unit.core.groups import GROUP, clicks, group, settings, step, trained, visits


def test_what_waits_when_a_process_ends_is_found_in_the_rows() -> None:
    engine = trained(settings())
    step(engine, [])
    engine.publish_all()
    changes = step(engine, [])
    again = Engine(settings(), 2)
    again.clock, again.placement = engine.clock, engine.placement
    again.publish_from = engine.publish_from + 1  # nothing was written since it was raised
    again.versions = dict(engine.versions)
    again.load_rows([(changes.keys, changes.rows)])
    assert set(step(again, []).keys) == set(changes.keys)
    assert step(again, []).keys == []


@pytest.mark.parametrize("is_late", [False, True])
def test_items_clicked_after_their_rows_were_written_are_learned_once_more(is_late: bool) -> None:
    """Also where another partition of the log is ahead of the one that the clicks are from."""
    engine = trained(settings())
    if is_late:
        engine.step(Inputs(clicks([("far", "ahead", 20_000)])))
    engine.publish_all()
    changes = step(engine, [])
    kept = nodes(engine.catalogue, engine.items, 1, engine.scale)
    out = engine.step(Inputs(clicks(visits(50, at=2000, groups=1)), closes_commit=False))
    again = Engine(settings(), 2)
    vars(again.clock).update(vars(replace(engine.clock, time=changes.time)))
    load_nodes(again.catalogue, kept, 1, engine.scale)
    again.placement = engine.placement
    again.fold_again(out.evidence, 2)
    again.load_rows([(changes.keys, changes.rows)])
    assert {again.vocabulary.keys[slot] for slot in again.starts.behind} == set(group(0))
    before = again.model.rows.v[again.items].copy()
    step(again, [])
    moved = np.abs(again.model.rows.v[again.items] - before).max(axis=1) > 0
    assert moved[:GROUP].all()
    assert len(again.starts.behind) == 0


def test_what_came_back_and_is_not_learned_yet_does_not_leave_with_new_centroids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its row cannot tell a restart that it would have to."""
    chosen = settings(major=2000, min_drift=0.0)
    chosen = replace(chosen, walks=replace(chosen.walks, replay=0.0))  # which touch any item
    monkeypatch.setattr("core.starts.SLICE", 3 * GROUP - 1)
    engine = trained(chosen)
    alone = Inputs(clicks([("late", "i0", 10_000)]), attributes=[("i0", None)])
    engine.publish_all()
    changes = engine.step(alone).changes
    assert changes is not None
    again = Engine(engine.settings, 2)
    again.clock, again.placement, again.versions = engine.clock, engine.placement, engine.versions
    again.starts.major = engine.starts.major
    again.load_rows([(changes.keys, changes.rows)])
    moved, same = step(engine, []), step(again, [])
    assert moved.placement is not None
    assert same.placement is not None
    assert len(changes.keys) == 3 * GROUP
    assert same.keys == moved.keys
    assert set(moved.keys) == set(changes.keys) - {b"i0"}
