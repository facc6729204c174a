"""A challenger learns beside the champion, changes nothing of it, and takes over as itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.challenger import Challenger
from core.clicks import Clicks
from core.engine import Engine
from core.learning.skipgram import hidden
from core.learning.tiers import ALL, Tiers
from core.model import Model
from core.placing.clusters import unit_rows
from core.quality import Duel
from core.rounds import Changes, Inputs
from core.rows import from_values
from core.settings import (
    ChallengerSettings,
    CorpusSettings,
    NegativeSettings,
    SessionSettings,
    SizeSettings,
    WalkSettings,
)
from tests.unit.core.groups import GROUP, clicks, published, settings, step, visits

OTHER: dict[str, Any] = {
    "corpus": CorpusSettings(kind="both", session="set"),
    "negatives": NegativeSettings(kind="popularity"),
    "walks": WalkSettings(per_node=3, p=0.5, q=2.0),
}
"""What a challenger may have otherwise."""


def learned(model: Model, n: int) -> list[NDArray[Any]]:
    r = model.rows
    own = r.v, r.u, r.acc_v, r.acc_u, r.mix, r.attrs, r.owned
    return [table[:n].copy() for table in (*own, model.columns.updates, model.columns.dims)]


def assert_equal(engine: Engine) -> None:
    assert engine.catalogue.beside is not None
    n = len(engine.vocabulary)
    for own, theirs in zip(
        learned(engine.catalogue.beside, n), learned(engine.model, n), strict=True
    ):
        assert np.array_equal(own, theirs)


def stream(engine: Engine, rounds: range, groups: int = 3) -> list[Changes]:
    """Rounds in which items are born, described, and expire."""
    out = []
    for i in rounds:
        rows = visits(i, at=4000 * i, groups=groups)
        rows += [("w", f"new{i}", 4000 * i), ("w", "i1", 4000 * i)]
        described: list[tuple[str, list[str] | None]] = [
            (f"i{j}", [f"tag{j % 4 + i % 2}"]) for j in range(i, i + 5)
        ]
        described += [(f"new{i - 3}", None)]
        out.append(step(engine, rows, described))
    return out


@pytest.mark.parametrize("begins", [0, 5])
@pytest.mark.parametrize("own_walks", [False, True])
@pytest.mark.parametrize("tiers", [(), ((1, 16), (10, 64))])
def test_with_the_champions_settings_it_learns_the_champions_rows_to_the_bit(
    begins: int, own_walks: bool, tiers: Tiers
) -> None:
    """Whenever it begins: through births, expiry, retirement, attributes and new slot numbers."""
    chosen = settings(attribute_slots=2, forgetting=2.0, tiers=tiers)
    engine = Engine(chosen, partitions=2)
    stream(engine, range(begins))
    challenger = engine.challenge(chosen, ChallengerSettings())
    challenger._shares_walks = not own_walks
    assert_equal(engine)
    for i in range(begins, begins + 24):
        stream(engine, range(i, i + 1))
        if i % 7 == 6:
            alive = np.flatnonzero(engine.model.columns.alive[: len(engine.vocabulary)])
            engine._relabel(alive)
        assert_equal(engine)
    assert challenger.test.wins == challenger.test.losses == 0


def test_the_champion_is_what_it_would_be_alone() -> None:
    chosen = settings(attribute_slots=2)
    alone, beside = Engine(chosen, partitions=2), Engine(chosen, partitions=2)
    beside.challenge(replace(chosen, **OTHER), ChallengerSettings())
    for one, other in zip(stream(alone, range(20)), stream(beside, range(20)), strict=True):
        assert one.keys == other.keys
        assert one.values == other.values
        assert np.array_equal(one.vectors, other.vectors)
    assert beside.challenger is not None
    assert not np.array_equal(beside.challenger.model.rows.v, beside.model.rows.v)
    assert beside.table_bytes()["vectors"] > 1.3 * alone.table_bytes()["vectors"]


def test_another_half_life_of_accumulators_begins_with_what_they_come_to() -> None:
    chosen = settings(forgetting=1.0)
    engine = Engine(chosen, partitions=2)
    stream(engine, range(5))
    other = replace(chosen, model=replace(chosen.model, forgetting=0.3))
    model = engine.challenge(other, ChallengerSettings()).model
    n = len(engine.vocabulary)

    def now(one: Model) -> NDArray[np.float32]:
        since = (engine.clock.time - one.landmark) / one.settings.accumulator_half_life
        return one.rows.acc_v[:n] * np.float32(2.0**-since)

    assert now(model) == pytest.approx(now(engine.model), rel=1e-5)


@pytest.mark.parametrize(
    ("differs", "named"),
    [
        ({"session": SessionSettings(length=4)}, "session"),
        ({"size": SizeSettings(((1, 16),))}, "size"),
        ({"model": replace(settings().model, dim=32)}, "model.dim"),
        ({"model": replace(settings().model, attribute_slots=1)}, "model.attribute_slots"),
    ],
)
def test_what_rounds_and_rows_are_is_the_champions(differs: dict[str, Any], named: str) -> None:
    engine = Engine(settings())
    with pytest.raises(ValueError, match=named):
        engine.challenge(replace(settings(), **differs), ChallengerSettings())


# -- trials --------------------------------------------------------------------------------------


def test_a_trial_counts_for_who_alone_has_hit() -> None:
    challenger, champion = np.array([0, 19, 20, 5, 99]), np.array([0, 20, 19, 30, 20])
    assert Duel.of(challenger, champion) == Duel(trials=5, both=1, wins=2, losses=1)


def test_both_rank_the_same_trials_before_either_learns_them() -> None:
    engine = Engine(settings(rate=1e-6, session_rate=1e-6), partitions=2)
    challenger = engine.challenge(settings(), ChallengerSettings(error=0.3))
    duels = []
    for i in range(20):
        outputs = engine.step(Inputs(clicks(visits(i, at=100 * i, groups=8))))
        quality = outputs.quality
        assert quality.duel.trials == quality.trials
        assert quality.duel.both + quality.duel.losses == quality.hits["next"]
        duels.append(quality.duel)
    assert challenger.test.wins == sum(duel.wins for duel in duels)
    assert challenger.test.losses == sum(duel.losses for duel in duels)
    assert challenger.test.is_better
    assert engine.challenger is challenger  # nobody said that it should take over


# -- taking over ---------------------------------------------------------------------------------


def apart(
    terms: ChallengerSettings, rounds: int = 12, groups: int = 5, **given: Any
) -> tuple[Engine, Challenger]:
    """Two that learned, and no commit since then."""
    chosen = settings(**{"attribute_slots": 2, "major": 10**9} | given)
    engine = Engine(chosen, partitions=2)
    challenger = engine.challenge(replace(chosen, **OTHER), terms)
    for i in range(rounds):
        described: list[tuple[str, list[str] | None]] = (
            [(f"i{j}", [f"tag{j % 4}"]) for j in range(50)] if i == 0 else []
        )
        step(engine, visits(i, at=100 * i, groups=groups), described)
    engine.step(Inputs(clicks(visits(99, at=100 * rounds, groups=groups)), closes_commit=False))
    return engine, challenger


def win(challenger: Challenger) -> None:
    """Let it be better, and stay so."""
    challenger.test.logs[:] = challenger.test.greatest = 1000.0


def close(engine: Engine) -> Changes:
    changes = engine.step(Inputs(Clicks.empty())).changes
    assert changes is not None
    return changes


def products(model: Model, slots: NDArray[np.int32]) -> NDArray[np.float32]:
    both = np.concatenate([hidden(model.rows, slots), model.rows.u[slots]])
    return both @ both.T


def test_it_takes_over_with_all_its_inner_products_and_leaves_clusters_as_they_are() -> None:
    engine, challenger = apart(ChallengerSettings(promote=True, min_agreement=0.0))
    items = engine.items.copy()
    before, cluster = learned(engine.model, len(engine.vocabulary)), engine.model.columns.cluster
    labels, epoch = cluster[items].copy(), engine.placement.epoch
    assert epoch > 0
    assert close(engine).promotion is None
    win(challenger)
    wanted = products(challenger.model, items)
    changes = close(engine)
    assert changes.promotion is not None
    assert changes.promotion.agreement == challenger.agreement > 0.5
    assert products(engine.model, items) == pytest.approx(wanted, abs=1e-5)
    assert not np.array_equal(before[0], engine.model.rows.v[: len(before[0])])
    assert engine.settings == challenger.settings
    assert engine.challenger is None
    assert engine.catalogue.beside is None
    assert engine.placement.epoch == epoch
    assert (engine.model.columns.cluster[items] == labels).mean() > 0.9
    assert len(changes.published) > GROUP
    assert changes.rows["half_life"].tolist() == [challenger.settings.accumulator_half_life] * len(
        changes.rows
    )


def test_rows_that_have_fewer_dims_have_no_others_when_it_takes_over() -> None:
    """And no inner product is another one all the same."""
    terms = ChallengerSettings(promote=True, min_agreement=0.0)
    engine, challenger = apart(terms, 16, 15, attribute_slots=0, tiers=((1, 16), (20, 64)))
    items, dims = engine.items.copy(), challenger.model.columns.dims
    narrow, wide = items[dims[items] == 16], items[dims[items] == ALL]
    assert min(len(narrow), len(wide)) > 5
    win(challenger)
    wanted = products(challenger.model, items)
    changes = close(engine)
    assert changes.promotion is not None
    rows = engine.model.rows
    assert products(engine.model, items) == pytest.approx(wanted, abs=1e-4)
    assert (engine.model.columns.dims[narrow] == 16).all()
    assert not rows.v[narrow, 16:].any()
    assert not rows.u[narrow, 16:].any()
    assert rows.v[wide].all()
    assert from_values(changes.values, engine.model.dtype).tobytes() == changes.rows.tobytes()


def test_it_learns_on_as_it_would_have_learned_by_itself() -> None:
    """But for the rotation, by which no inner product is another one."""
    engine, challenger = apart(ChallengerSettings(promote=True, min_agreement=0.0))
    other, beside = apart(ChallengerSettings())
    win(challenger)
    assert close(engine).promotion is not None
    close(other)
    for i in range(20, 23):
        for one in (engine, other):
            step(one, visits(i, at=100 * i, groups=5))
    items = engine.items
    own, theirs = (unit_rows(hidden(m.rows, items)) for m in (engine.model, beside.model))
    assert own @ own.T == pytest.approx(theirs @ theirs.T, abs=0.02)
    assert np.array_equal(engine.model.columns.updates, beside.model.columns.updates)


def test_one_that_is_the_champion_turned_becomes_the_champion_again() -> None:
    chosen = settings()
    engine = Engine(chosen, partitions=2)
    for i in range(12):
        step(engine, visits(i, at=100 * i, groups=5))
    challenger = engine.challenge(chosen, ChallengerSettings(promote=True, min_agreement=0.99))
    rows, theirs = challenger.model.rows, engine.model.rows
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))[0].astype(np.float32)
    rows.v, rows.u = rows.v @ turn, rows.u @ turn
    v, u = theirs.v.copy(), theirs.u.copy()
    win(challenger)
    changes = close(engine)
    assert changes.promotion is not None
    assert engine.model.rows.v == pytest.approx(v, abs=1e-4)
    assert engine.model.rows.u == pytest.approx(u, abs=1e-4)
    assert len(changes.published) == 0
    assert changes.bucket_moves == changes.cluster_moves == 0


APART = ChallengerSettings(promote=True, min_agreement=1.0)
"""However far a challenger agrees, a new vector space begins."""


def test_one_that_agrees_too_little_begins_a_new_space() -> None:
    engine, challenger = apart(ChallengerSettings(promote=True, min_agreement=0.5))
    before, items = engine.placement, engine.items.copy()
    assert close(engine).promotion is None
    assert before.epoch > 0
    rng = np.random.default_rng(1)
    challenger.model.rows.v[:] = rng.standard_normal(challenger.model.rows.v.shape)
    win(challenger)
    wanted, above = products(challenger.model, items), max(engine.versions.values())
    changes = close(engine)
    told = changes.promotion
    assert told is not None
    assert told.is_new_space
    assert abs(told.agreement) < 0.4
    assert products(engine.model, items) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert engine.leaving.space_from == engine.publish_from == above + 1
    assert changes.versions == {0: above + 1, 1: above + 1}
    assert engine.outdated == {0: above, 1: above}
    assert published(changes) == {name.encode() for name in engine.vocabulary.names(items)}
    assert changes.placement is engine.placement
    assert changes.placement.epoch == before.epoch + 1 == changes.placement.hashed_since
    assert not np.allclose(changes.placement.centre, before.centre, atol=0.1)
    assert set(changes.rows["epoch"][changes.published].tolist()) == {before.epoch + 1}


def test_one_that_lost_all_that_it_had_won_waits() -> None:
    """It was better before enough items were settled, and has fallen behind since then."""
    engine, challenger = apart(ChallengerSettings(promote=True, min_agreement=0.0))
    for wins, losses in [(8, 0)] * 12 + [(0, 8)] * 40:
        challenger.test.add(16, wins, losses)
    assert challenger.test.is_better
    assert challenger.test.evidence < 1.0
    assert close(engine).promotion is None
    challenger.test.logs[:] = 1.0
    assert close(engine).promotion is not None


def test_while_too_few_items_are_settled_it_waits() -> None:
    engine, challenger = apart(ChallengerSettings(promote=True, min_agreement=0.0), rounds=1)
    challenger.model.columns.updates[engine.items[:30]] = 0
    win(challenger)
    assert close(engine).promotion is None
    for i in range(2, 12):
        step(engine, visits(i, at=100 * i, groups=5))
    assert engine.challenger is None


def test_of_a_stream_that_it_serves_better_it_takes_over_by_itself() -> None:
    poor = settings(rate=1e-6, session_rate=1e-6)
    engine = Engine(poor, partitions=2)
    terms = ChallengerSettings(promote=True, error=0.2, min_agreement=-1.0)
    engine.challenge(replace(poor, model=settings().model), terms)
    hits = []
    for i in range(30):
        outputs = engine.step(Inputs(clicks(visits(i, at=100 * i, groups=8))))
        hits.append(outputs.quality.hits["next"] / max(outputs.quality.trials, 1))
    assert engine.challenger is None
    assert engine.settings.model == settings().model
    assert np.mean(hits[-3:]) > np.mean(hits[1:3]) + 0.3
