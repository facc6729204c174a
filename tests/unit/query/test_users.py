"""What a user is shown, from the records in a folder."""

import json
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.users import Profiles
from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from streamer.files import replay
from streamer.files.readers import Source
from streamer.query import users as module
from streamer.query.choice import Choice, parsed
from streamer.query.index import Index, Neighbour
from streamer.query.run import Options
from streamer.query.users import merged, offer
from streamer.settings import load as config
from streamer.state import users
from streamer.state.store import Store
from streamer.state.users import Clicked, Known
from tests.support import START_MS
from tests.unit.query.ranking import scores, tables


def neighbour(item: str) -> Neighbour:
    return Neighbour(item, 0.0, None, 1, {})


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 40))
def test_each_interest_has_its_share_of_however_many_are_shown(weights: list[int], k: int) -> None:
    lists = [[neighbour(f"{n}-{rank}") for rank in range(k)] for n in range(len(weights))]
    found = merged(lists, weights, k)
    assert len(found) == k
    for n, weight in enumerate(weights):
        own = [one.item for number, one in found if number == n]
        assert own == [f"{n}-{rank}" for rank in range(len(own))]
        assert abs(len(own) - k * weight / sum(weights)) < len(weights)


def test_an_item_of_two_lists_stands_once_where_it_comes_first() -> None:
    a, b, c = map(neighbour, "abc")
    assert [one.item for _, one in merged([[a, b], [b, c]], [0.6, 0.4], 9)] == ["a", "b", "c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a replayed shop with clusters."""
    path = tmp_path_factory.mktemp("learned")
    log = path / "clicks.jsonl"
    log.write_text("\n".join(map(json.dumps, islice(Shop(1, products=200).clicks(START_MS), 5000))))
    settings = ["model.dim=16", "clusters.count=8", "clusters.min_items=40", "engine.threads=1"]
    replay.run(config.load(None, settings, {}), Source([log]), None, path / "out", False)
    return path / "out" / replay.DIRECTORY


def put(store: Store, user: str, items: list[str], medoids: list[int], share: list[float]) -> None:
    """Give a user interests, the items of these entries, as a worker writes them."""
    names, v, u = tables(store)
    at = [names.index(items[n]) for n in medoids]
    profiles = Profiles(
        np.array([0, len(at)]), np.array(medoids), np.array(share), v[at], u[at]
    )  # fmt: skip
    named = [items[n] for n in medoids]
    history = [Clicked(item, 1.0, START_MS) for item in items]
    (value,) = users.packed([Known(user, START_MS, 0, history)], profiles, named, "s", "msgpack")
    store.write_entries({users.FAMILY: users.entries(store, {user.encode(): value})})


@pytest.mark.parametrize("mode", ["similar", "next"])
def test_a_user_is_shown_what_the_interests_find_but_not_the_history(
    folder: Path, mode: str
) -> None:
    with Store(folder) as store:
        names, _, _ = tables(store)
        items = Random(1).sample(names, 6)
        put(store, "u", items, [2, 5], [0.75, 0.25])
        index, options = Index(store), Options(8, mode)  # type: ignore[arg-type]
        found = offer(index, "u", options)
        assert [one.shown for one in found.interests] == [6, 2]
        assert not {one.item for one in found.items} & {*items}
        wanted: list[list[Neighbour]] = []
        for n in (2, 5):
            score = scores(store, {items[n]: 1.0}, mode)  # type: ignore[arg-type]
            ranked = sorted(score, key=lambda name: -score[name])
            wanted.append([neighbour(name) for name in ranked if name not in items])
        best = [one.item for _, one in merged(wanted, [0.75, 0.25], 8)]
        assert len({one.item for one in found.items} & {*best}) >= 7  # the index may miss one
        seen = offer(index, "u", options, with_seen=True)
        assert {one.item for one in seen.items} & {*items}
        assert seen.left_out == 0


def test_hybrid_and_clusters_show_a_user_something_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(folder) as store:
        names, _, _ = tables(store)
        items = Random(2).sample(names, 6)
        put(store, "u", items, [0, 3], [0.6, 0.4])
        index = Index(store)
        for found in (
            offer(index, "u", Options(8, "hybrid")),
            offer(index, "u", Options(8), by_cluster=True),
        ):
            assert len(found.items) == 8
            assert not {one.item for one in found.items} & {*items}
        centroids = index.placement().centroids
        for one in found.interests:
            v = index.shelf.vectors([index.shelf.handle(str(one.item).encode())])[0][:16]
            assert one.cluster == int(np.argmax(centroids @ v))
    module.run(folder, "u", Options(8), by_cluster=True)
    assert "without 6 items of the history" in capsys.readouterr().out


def test_who_is_not_known_is_told_so(folder: Path) -> None:
    with Store(folder) as store:
        put(store, "bare", [tables(store)[0][0]], [], [])
        with pytest.raises(WalkstreamError, match="there is no user 'nobody'"):
            offer(Index(store), "nobody", Options())
        with pytest.raises(WalkstreamError, match="there is no user"):
            offer(Index(store), "\udcff", Options())  # as a shell gives what is not UTF-8
        with pytest.raises(WalkstreamError, match="has no vector"):
            offer(Index(store), "bare", Options())


def test_items_are_named_as_they_are_and_one_is_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(folder) as store:
        names, v, u = tables(store)
        profiles = Profiles(np.array([0, 1]), np.array([0]), np.array([1.0]), v[:1], u[:1])
        known = Known("u", START_MS, 0, [Clicked(names[0], 1.0, START_MS)])
        (value,) = users.packed([known], profiles, ["[red]x[/red]"], "s", "msgpack")
        store.write_entries({users.FAMILY: users.entries(store, {b"u": value})})
    module.run(folder, "u", Options(3, choice=Choice(where=parsed(["category=none"]))))
    out = capsys.readouterr().out
    assert "100% interest in [red]x[/red]: 0 shown" in out
    assert "without 1 item of the history" in out
    assert "nothing passes --where" in out
