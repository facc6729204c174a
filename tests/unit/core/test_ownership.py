"""Rows of others, and what a new owner makes of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Changes, Inputs
from core.rows import Packed
from core.settings import Settings

SETTINGS = replace(Settings(), model=replace(Settings().model, dim=16, attribute_slots=1))
TOKENS = {"sold": ["category=a"], "retired": ["category=b"]}
START_MS = 1_700_000_000_000


def clicks(*items: str) -> Clicks:
    n = len(items)
    times = START_MS + 1000 * np.arange(n, dtype=np.int64)
    return Clicks([f"u{k // 2}" for k in range(n)], list(items), times, np.ones(n, np.float32))


def closed(engine: Engine, inputs: Inputs) -> Changes:
    changes = engine.step(inputs).changes
    assert changes is not None
    return changes


def test_what_was_only_described_is_born_by_its_row_and_what_left_gets_its_tombstone() -> None:
    """A worker that reads rows later than the catalogue finds one of each kind in them."""
    owner, other = Engine(SETTINGS, 2), Engine(SETTINGS, 2)
    told = clicks("a", "b", "c", "a")
    described = list(TOKENS.items())
    written = closed(owner, Inputs(told, described))
    rows = dict(zip(written.keys, written.rows, strict=True))

    def known(keys: Sequence[bytes]) -> Packed:
        found = [key for key in keys if key in rows]
        return found, np.array([rows[key] for key in found], written.rows.dtype)

    other.own([], known)
    other.catalogue.written = known
    other.catalogue.attributes = lambda item: TOKENS[item] if item == "sold" else ()
    other.step(Inputs(told, is_told=True, closes_commit=False))
    other.ownership.read(written.keys, written.rows)
    other.step(Inputs(Clicks.empty(), is_told=True, closes_commit=False))
    other.own([0, 1], known)
    left = closed(other, Inputs(Clicks.empty(), is_told=True))
    assert other.vocabulary.get("sold") is not None
    assert other.vocabulary.get("retired") is None
    gone = {one.key for one in left.gone}
    assert b"retired" in gone
    assert b"sold" not in gone


def test_the_oldest_epoch_is_told_where_all_that_is_published_is_known() -> None:
    owner, other = Engine(SETTINGS, 2), Engine(SETTINGS, 2)
    told = clicks(*"abcdefgh", *"abcdefgh")
    written = closed(owner, Inputs(told))
    columns = owner.model.columns
    assert len(written.published) == 8
    assert set(columns.partition[owner.items].tolist()) == {0, 1}
    assert owner.ownership.oldest_epoch(0) == 0
    columns.epoch[owner.items] = [3, 4, 4, 4, 4, 4, 4, 5]
    assert owner.ownership.oldest_epoch(5) == 3
    columns.published[owner.items[0]] = 0
    assert owner.ownership.oldest_epoch(5) == 4
    columns.epoch[owner.items] = 6
    assert owner.ownership.oldest_epoch(5) == 5

    rows = owner.model.pack(owner.items, owner.graph.last_seen)
    rows["epoch"], rows["published"] = 4, 1
    keys = [name.encode() for name in owner.vocabulary.names(owner.items)]
    nothing: Packed = [], rows[:0]
    other.own([0], lambda keys: nothing)
    other.step(Inputs(told, is_told=True, closes_commit=False))
    assert other.ownership.oldest_epoch(5) == 0, "of a partition of the other's nothing is known"
    other.ownership.read(keys, rows)
    assert other.ownership.oldest_epoch(5) == 4
    other.ownership.read([b"left"], rows[:1])
    assert other.ownership.oldest_epoch(5) == 0, "it has no tombstone yet"
    other.ownership.unpublish([b"left"])
    assert other.ownership.oldest_epoch(5) == 4
