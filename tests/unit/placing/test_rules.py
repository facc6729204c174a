"""Rules beside an oracle that does what the definition says, item by item, with sets."""

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.ids.vocabulary import attribute_key
from core.placing import rules
from core.placing.rules import OTHER, Rules
from core.settings import RULE_BYTES, ClusterSettings

Catalogue = list[list[str]]

TOKENS = [f"{name}={value}" for name in "abc" for value in range(4)]
CATALOGUES = st.lists(st.lists(st.sampled_from(TOKENS), max_size=4, unique=True), max_size=60)


def slots(items: Catalogue, offset: int = 0) -> NDArray[np.int32]:
    """The attributes of items by their slots, which begin with `offset`."""
    out = np.full((len(items), 4), -1, np.int32)
    for row, item in zip(out, items, strict=True):
        row[: len(item)] = [offset + TOKENS.index(token) for token in item]
    return out


def names(offset: int = 0) -> rules.Names:
    return lambda at: [attribute_key(TOKENS[slot - offset]) for slot in at.tolist()]


def fitted(
    items: Catalogue, depth: int = 2, min_size: int = 3, most: int = 100, old: Rules | None = None
) -> Rules:  # fmt: skip
    settings = ClusterSettings(kind="rules", depth=depth, min_size=min_size, most=most)
    return rules.fit(slots(items), names(), settings, old)


def told(made: Rules, items: Catalogue) -> list[str]:
    return [made.name(n) for n in made.clusters(slots(items), names()).tolist()]


def by_the_book(items: Catalogue, depth: int, min_size: int) -> list[str]:
    """The cluster of each item, as the definition says."""
    counts = Counter(token for item in items for token in item)
    keys = [tuple(sorted(item, key=lambda t: (counts[t], t))[:depth]) for item in items]
    for length in range(depth, 0, -1):
        sizes = Counter(keys)
        keys = [k[1:] if len(k) == length and sizes[k] < min_size else k for k in keys]
    return [", ".join(sorted(key)) or OTHER for key in keys]


@given(items=CATALOGUES, depth=st.integers(1, 4), min_size=st.integers(1, 6))
def test_items_are_where_the_definition_says(items: Catalogue, depth: int, min_size: int) -> None:
    made = fitted(items, depth, min_size)
    found = told(made, items)
    assert found == by_the_book(items, depth, min_size)
    sizes = Counter(found)
    assert {made.name(n): size for n, size in enumerate(made.sizes) if size} == sizes
    assert all(size >= min_size for name, size in sizes.items() if name != OTHER)


@given(items=CATALOGUES, more=CATALOGUES, depth=st.integers(1, 3))
def test_names_keep_their_numbers_and_slots_mean_nothing(
    items: Catalogue, more: Catalogue, depth: int
) -> None:
    one = fitted(items, depth)
    two = fitted(more, depth, old=one)
    assert two.names[: len(one.names)] == one.names
    assert len(set(two.names)) == len(two.names)
    again = fitted(items, depth, old=two)
    assert again.names == two.names
    assert again.clusters(slots(items), names()).tolist() == (
        one.clusters(slots(items), names()).tolist()
    )
    moved = again.clusters(slots(items, 100), names(100))
    assert moved.tolist() == one.clusters(slots(items), names()).tolist()


def test_between_two_updates_items_go_by_the_rules_there_are() -> None:
    items = [["a=0", "b=0"]] * 5 + [["b=0"]] * 5 + [["b=1"]] * 5
    made = fitted(items)
    assert told(made, [["a=0", "b=0"], ["b=0"], ["c=3", "b=1"], ["c=3"], []]) == [
        "a=0, b=0", "b=0", "b=1", OTHER, OTHER,
    ]  # fmt: skip
    # What nobody had is the most specific of all, so it takes a place in the key.
    assert told(made, [["c=3", "a=0", "b=0"]]) == [OTHER]


def test_where_there_would_be_too_many_more_items_are_asked_for() -> None:
    items = [["a=0"]] * 3 + [["a=1"]] * 5 + [["a=2"]] * 9 + [["a=3"]] * 17
    assert set(told(fitted(items, most=5), items)) == {"a=0", "a=1", "a=2", "a=3"}
    assert set(told(fitted(items, most=4), items)) == {OTHER, "a=2", "a=3"}
    assert set(told(fitted(items, most=1), items)) == {OTHER}


def test_a_name_that_is_no_rule_any_more_gives_its_number_away_only_where_it_must() -> None:
    old = fitted([["a=0"]] * 3 + [["a=1"]] * 3, most=3)
    assert old.names == [(), ("a=0",), ("a=1",)]
    items = [["a=1"]] * 3 + [["a=2"]] * 3
    assert fitted(items, old=old).names == [(), ("a=0",), ("a=1",), ("a=2",)]
    made = fitted(items, most=3, old=old)
    assert made.names == [(), ("a=2",), ("a=1",)]
    assert told(made, [["a=0"], ["a=1"], ["a=2"]]) == [OTHER, "a=1", "a=2"]


def test_names_that_are_no_rules_go_where_there_is_no_room_for_their_text() -> None:
    old = fitted([["a=0"]] * 3 + [["a=1"]] * 3)
    long = replace(old, names=[(), ("x" * RULE_BYTES,), ("a=1",)])
    made = fitted([["a=1"]] * 3 + [["a=2"]] * 3, old=long)
    assert made.names == [(), (), ("a=1",), ("a=2",)]
    assert told(made, [["a=1"], ["a=2"], []]) == ["a=1", "a=2", OTHER]
