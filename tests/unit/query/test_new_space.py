"""What is found in a state folder while its model is published again in a new vector space."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.users import Profiles
from streamer.errors import Refused, WalkstreamError
from streamer.export.published import from_folder
from streamer.query.choice import ALL
from streamer.query.cluster import hottest
from streamer.query.index import Index, Mode
from streamer.query.run import Options
from streamer.query.users import offer
from streamer.state import records, users
from streamer.state.store import Store
from streamer.state.users import Known
from tests.unit.query.test_index import catalogue

N, NEW = 600, 200
"""Items, and how many of them are out in the new space."""


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[tuple[Store, list[str]]]:
    store, items = catalogue(tmp_path / "state", N, count=8)
    out = items[::3]
    space = store.space
    assert space is not None
    header = msgspec.structs.replace(space, since=2)
    store.set_meta({records.SPACE: msgspec.msgpack.encode(header)})
    publish(store, out)
    yield store, out
    store.close()


def publish(store: Store, items: list[str]) -> None:
    """Let these be out in the new space, where they were before."""
    keys, rows = store.all_rows()
    at = [keys.index(item.encode()) for item in items]
    rows = rows[at].copy()
    rows["version"] = rows["published"] = 2
    store.write(keys=[keys[n] for n in at], rows=rows)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("mode", ["similar", "next"])
def test_an_answer_is_of_one_space(
    halfway: tuple[Store, list[str]], mode: Mode, resident: bool
) -> None:
    store, out = halfway
    index = Index(store, resident)
    for item in out[:10]:
        found = index.neighbours([item], 20, mode).neighbours
        assert len(found) == 20
        assert {one.item for one in found} <= {*out}
    everything = index.neighbours([out[0]], N, mode).neighbours
    assert len(everything) == NEW - 1
    with pytest.raises(WalkstreamError, match="'item 1' has no vector of the new space yet"):
        index.neighbours(["item 1"], 5, mode)
    assert index.neighbours(["item 1", out[0]], 5, mode).unknown == ["item 1"]


def test_a_cluster_has_those_that_are_out(halfway: tuple[Store, list[str]]) -> None:
    store, out = halfway
    found = [one.item for n in range(8) for one in hottest(store, n, N, ALL).items]
    assert 0 < len(found) == len({*found} & {*out})


def test_a_user_of_the_space_before_waits(halfway: tuple[Store, list[str]]) -> None:
    store, _ = halfway
    space = store.space
    assert space is not None
    row = np.ones((1, 32), np.float32)
    profiles = Profiles(np.array([0, 1]), np.zeros(1, np.int64), np.ones(1), row, row)
    for name in ("before", space.name):
        (value,) = users.packed([Known("u", 1, 0, [])], profiles, [None], name, "msgpack")
        store.write_entries({users.FAMILY: users.entries(store, {b"u": value})})
        if name == "before":
            with pytest.raises(WalkstreamError, match="'u' has no vector of the new space yet"):
                offer(Index(store), "u", Options(5))
    assert len(offer(Index(store), "u", Options(5)).items) == 5


def test_export_waits_until_all_are_out(halfway: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, out = halfway
    with pytest.raises(Refused, match=f"has {N - NEW} vectors of the space before"):
        from_folder(store.path, None)
    publish(store, [f"item {n}" for n in range(N) if n % 3])
    found = from_folder(store.path, None)
    assert len(found.items) == N > len(out)
    assert store.space is not None
    assert found.space == store.space.name
