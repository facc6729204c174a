"""What an engine finds out at a start: rows that were to be written, and items to learn again."""

from dataclasses import replace

import numpy as np
import pytest

from core.engine import Engine
from core.graph.written import load_nodes, nodes
from core.rounds import Changes, Inputs
from core.settings import AdmissionSettings, ChallengerSettings
from tests.unit.core.groups import GROUP, clicks, group, settings, step, trained, visits


def test_what_learned_nothing_yet_is_packed_as_a_restart_packs_it() -> None:
    """Where all that was clicked is held back, and the only item was described."""
    held = settings(min_drift=0.0, attribute_slots=1, forgetting=0.0)
    held = replace(held, admission=AdmissionSettings(min_events=4))
    engine, again = Engine(held), Engine(held)
    first = engine.step(Inputs(clicks([("u", "a", 0), ("v", "b", 70)])))
    load_nodes(again.catalogue, [], 0, engine.scale)
    vars(again.clock).update(vars(engine.clock))
    again.fold_again(first.evidence, 1)
    again.load_rows([])
    packed = [step(one, [], [("known", ["red"])]).rows for one in (engine, again)]
    assert len(packed[0]) == 2
    assert packed[0].tobytes() == packed[1].tobytes()


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


def test_what_had_not_left_when_a_challenger_took_over_is_learned_and_written_again() -> None:
    """However often the process ends before that, and no longer than until then."""
    engine = Engine(settings(), 2)
    for i in range(12):
        step(engine, visits(i, at=100 * i, groups=5))
    engine.publish_all()
    full = step(engine, [])
    rows = dict(zip(full.keys, full.rows, strict=True))

    def close(one: Engine, room: int) -> Changes:
        changes = one.step(Inputs(clicks([]), room=room)).changes
        assert changes is not None
        rows.update(zip(changes.keys, changes.rows, strict=True))
        return changes

    other = replace(settings(), model=replace(settings().model, rate=0.3))
    test = engine.challenge(other, ChallengerSettings(promote=True, min_agreement=-1.0)).test
    for i in range(20, 26):
        engine.step(Inputs(clicks(visits(i, at=100 * i, groups=5)), closes_commit=False))
    test.logs[:] = test.greatest = 1000.0
    kept = nodes(engine.catalogue, engine.items, 1, engine.scale)
    first = close(engine, room=8)
    assert first.promotion is not None
    left = set(first.keys)
    assert 0 < len(left) < len(rows)

    def restarted(outdated: dict[int, int]) -> Engine:
        again = Engine(engine.settings, 2, outdated=outdated)
        vars(again.clock).update(vars(engine.clock))
        load_nodes(again.catalogue, kept, 1, engine.scale)
        again.placement, again.versions = engine.placement, dict(engine.versions)
        # All clicks are known to the rows, which are nothing to learn again for by themselves.
        at = engine.vocabulary.intern([key.decode() for key in rows])
        packed = np.array(list(rows.values()), engine.model.dtype)
        packed["heard"] = np.where(packed["heard"] > 0, engine.graph.clicks[at], 0)
        again.load_rows([(list(rows), packed)])
        return again

    def behind(one: Engine) -> set[bytes]:
        return {str(one.vocabulary.keys[slot]).encode() for slot in one.starts.behind}

    assert behind(restarted({})) == set()
    again = restarted(engine.outdated)
    assert behind(again) == set(rows) - left
    # Written before walks came by: the version is new, and it is still behind.
    changes = again._close(Inputs(clicks([]), room=1000))
    assert set(changes.keys) >= set(rows) - left
    rows.update(zip(changes.keys, changes.rows, strict=True))
    engine.versions = dict(again.versions)
    last = restarted(engine.outdated)
    assert behind(last) == behind(again)
    close(last, room=1000)  # walks start from them
    assert len(last.starts.behind) == 0
    last.publish_all()
    close(last, room=1000)
    engine.versions = dict(last.versions)
    assert behind(restarted(engine.outdated)) == set()
