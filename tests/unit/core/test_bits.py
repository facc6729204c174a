"""Bits of LSH keys that follow the size of the catalogue."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.engine import Engine
from core.learner import Learner
from core.learning.skipgram import hidden
from core.placing import lsh
from core.placing.clusters import unit_rows
from core.placing.lsh import Lsh, bits_for
from core.placing.placement import features
from core.settings import LshSettings, NegativeSettings
from tests.unit.core.groups import restarted, settings, step, visits, written

MANY = st.integers(0, 10_000_000)


@given(items=MANY)
def test_there_are_no_more_items_to_a_key_than_asked_for_and_no_bit_too_many(items: int) -> None:
    bits = bits_for(items)
    assert bits == lsh.LEAST_BITS or items > lsh.ITEMS_A_BUCKET * 2 ** (bits - 1)
    assert items <= lsh.ITEMS_A_BUCKET * 2**bits


def test_twelve_bits_serve_fifty_thousand_items_and_fourteen_a_hundred_thousand() -> None:
    assert [bits_for(n) for n in (0, 49_000, 50_000, 100_000, 1_000_000)] == [12, 12, 13, 14, 17]


@given(items=MANY, before=st.integers(12, 20))
def test_bits_stay_until_there_are_too_many_items_or_far_too_few(items: int, before: int) -> None:
    bits = bits_for(items, before)
    too_many = items > lsh.ITEMS_A_BUCKET * 2**before
    far_too_few = items <= lsh.ITEMS_A_BUCKET * 2 ** (before - 2) and before >= 14
    assert (bits > before) == too_many
    assert (bits < before) == far_too_few
    # A few items more or less change nothing.
    assert bits_for(items, bits) == bits


def keys(engine: Engine, bits: int) -> NDArray[np.uint64]:
    """Those of all items, as if they were hashed for the first time."""
    rows, s = engine.model.rows, engine.settings
    x = features(unit_rows(hidden(rows, engine.items)), unit_rows(rows.u[engine.items]))
    hashing = Lsh.create(replace(s.lsh, bits=bits), s.model.dim, s.model.seed)
    return hashing.keys(x - engine.placement.centre)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that learned two groups, where four bits are for no more than 32 items."""
    monkeypatch.setattr("core.placing.lsh.LEAST_BITS", 2)
    monkeypatch.setattr("core.placing.placement.LEAST_BITS", 2)
    monkeypatch.setattr("core.placing.lsh.ITEMS_A_BUCKET", 2)
    engine = Engine(replace(settings(), lsh=LshSettings(tables=2, bits=0)), 2)
    for i in range(12):
        step(engine, visits(i, at=100 * i, groups=2))
    return engine


def test_all_items_get_other_buckets_when_a_major_update_finds_that_they_are_more(
    small: Engine,
) -> None:
    assert (small.placement.bits, small.placement.bits_since) == (4, 1)
    for i in range(12):
        step(small, visits(20 + i, at=1200 + 100 * i, groups=5))
    assert small.placement.bits == 4, "as long as there is no major update"
    written(small)
    assert small.model.columns.buckets[small.items].max() < 2**4
    small.starts.asked = 1
    changes = step(small, [])
    assert changes.placement is not None
    assert (changes.placement.bits, changes.placement.bits_since) == (5, 2)
    changes = written(small)
    found = small.model.columns.buckets[small.items]
    assert found.max() >= 2**4
    # Codes that were hashed a moment ago are on the same side, or within the margin of it.
    assert (found == keys(small, 5)).mean() > 0.9
    again = restarted(small, changes)
    assert np.array_equal(written(again).rows["buckets"], changes.rows["buckets"])


def test_items_are_similar_by_their_bucket_only_where_their_keys_have_the_new_bits(
    small: Engine,
) -> None:
    chosen = NegativeSettings("similar", similar_by="bucket")
    small.learner = Learner(replace(small.settings, negatives=chosen), small.catalogue)
    small.placement = replace(small.placement, bits=6, bits_since=2, epoch=2)
    moved = small.items[: len(small.items) // 2]
    small.model.columns.epoch[moved] = 2
    step(small, visits(30, at=1300, groups=2))
    grouped = small.learner._pools._labelled
    assert set(grouped.tolist()) == set(moved.tolist())


def test_keys_of_fewer_bits_are_no_codes_to_keep(small: Engine) -> None:
    """What was on one side of a plane of the old hashes says nothing of the new ones."""
    small.model.columns.buckets[small.items] = 2**4 - 1
    small.placement = replace(small.placement, bits=6, bits_since=2, epoch=2)
    written(small)
    assert np.array_equal(small.model.columns.buckets[small.items], keys(small, 6))
