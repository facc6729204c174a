from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from core.engine import Engine
from core.ids.vocabulary import ATTRIBUTE
from core.rounds import Gone, Inputs
from core.rows import FORMAT, row_dtype, to_values
from streamer import counts
from streamer.errors import WalkstreamError
from streamer.state import records
from streamer.state.records import Progress, Space
from streamer.state.store import (
    POSTINGS,
    Store,
    bucket_prefix,
    cluster_prefix,
)
from tests.unit.state.made import SETTINGS, START_MS, batches

DTYPE = row_dtype(16, 0, 3)


def index_entries(
    keys: list[bytes], rows: NDArray[np.void]
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """What clusters and postings have to hold for these rows."""
    clusters, postings = {}, {}
    for key, row in zip(keys, rows, strict=True):
        if row["published"] > 0:
            packed = cluster_prefix(int(row["cluster"]))
            if row["cluster"] >= 0:
                clusters[packed + key] = b""
            for table, bucket in enumerate(row["buckets"].tolist()):
                postings[bucket_prefix(table, bucket) + key] = packed
    return clusters, postings


def members(store: Store, cluster: int) -> list[bytes]:
    prefix = cluster_prefix(cluster)
    return [key.removeprefix(prefix) for key, _ in store.scan("clusters", prefix)]


def assert_indices_follow_rows(store: Store) -> None:
    clusters, postings = index_entries(*store.all_rows())
    assert store.everything("clusters") == clusters
    assert store.everything("postings") == postings


def row(version: int, *, published: int = 1, cluster: int = 0, bucket: int = 0) -> NDArray[np.void]:
    out = np.zeros(1, DTYPE)
    out["format"], out["version"], out["published"] = FORMAT, version, published
    out["cluster"], out["buckets"] = cluster, bucket
    return out


# -- rows and indices ----------------------------------------------------------------------------


def test_a_row_applies_only_if_its_version_is_newer(store: Store) -> None:
    store.write(keys=[b"a"], rows=row(5, cluster=1))
    for version in (4, 5):
        store.write(keys=[b"a"], rows=row(version, cluster=2))
        assert store.row(b"a") == to_values(row(5, cluster=1))[0]
        assert (members(store, 1), members(store, 2)) == ([b"a"], [])
    store.write(keys=[b"a"], rows=row(6, cluster=2))
    assert store.row(b"a") == to_values(row(6, cluster=2))[0]
    assert (members(store, 1), members(store, 2)) == ([], [b"a"])


def test_a_deletion_applies_only_if_its_version_is_newer(store: Store) -> None:
    store.write(keys=[b"a"], rows=row(5, cluster=1, bucket=9))
    for version in (4, 5):
        store.write(gone=[(b"a", version), (b"never there", version)])
        assert store.row(b"a") is not None
    store.write(gone=[(b"a", 6)])
    assert store.row(b"a") is None
    assert members(store, 1) == []
    assert store.buckets([(0, 9), (1, 9), (2, 9)]) == ([], [])


def test_an_item_that_is_not_published_stands_in_no_index(store: Store) -> None:
    store.write(keys=[b"a"], rows=row(1, published=0))
    assert store.row(b"a") is not None
    assert (counts.with_vector(store), counts.cluster_sizes(store)) == (0, {})
    store.write(keys=[b"a"], rows=row(2, published=2, cluster=-1))
    assert (counts.with_vector(store), counts.cluster_sizes(store)) == (1, {})
    store.write(keys=[b"a"], rows=row(3, published=2, cluster=4))
    assert (counts.with_vector(store), counts.cluster_sizes(store)) == (1, {4: 1})
    # It left and came back, and both arrived as one row.
    store.write(keys=[b"a"], rows=row(5, published=0))
    assert (counts.with_vector(store), counts.cluster_sizes(store)) == (0, {})


def test_buckets_give_the_items_of_exactly_these_places(store: Store) -> None:
    keys = [b"a", b"b", b"ab", b"c"]
    rows = np.concatenate([row(1), row(1), row(1), row(1)])
    rows["buckets"] = [[0, 7, 2**63], [0, 8, 1], [1, 7, 1], [256, 255, 2**64 - 1]]
    rows["cluster"] = [3, -1, 0, 2**31 - 1]
    packed = dict(zip(keys, map(cluster_prefix, rows["cluster"].tolist()), strict=True))

    def told(*places: tuple[int, int]) -> list[bytes]:
        items, clusters = store.buckets(places)
        assert clusters == [packed[item] for item in items]
        return sorted(items)

    store.write(keys=keys, rows=rows)
    assert told() == []
    assert told((0, 0)) == [b"a", b"b"]
    assert told((1, 7), (0, 1)) == [b"a", b"ab", b"ab"], "as often as it was met"
    assert told((2, 2**64 - 1), (2, 2**63), (2, 5)) == [b"a", b"c"]
    assert told((2, 2), (2, 2**64 - 2), (7, 0)) == []
    assert sorted(counts.bucket_sizes(store)) == [1] * 6 + [2] * 3


@pytest.mark.parametrize("seed", range(5))
def test_indices_are_those_of_the_rows_after_any_writes(store: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"item/{n}".encode() for n in range(30)]
    newest: dict[bytes, np.void] = {}
    for _ in range(60):
        chosen = rng.permutation(30)
        keys = [names[i] for i in chosen[: rng.integers(0, 12)]]
        rows = np.zeros(len(keys), DTYPE)
        rows["format"] = FORMAT
        rows["version"] = rng.integers(1, 40, len(keys))
        rows["published"] = rng.integers(0, 3, len(keys))
        rows["cluster"] = rng.integers(-1, 3, len(keys))
        rows["buckets"] = rng.integers(0, 3, (len(keys), 3))
        gone = [(names[i], int(rng.integers(1, 40))) for i in chosen[12 : rng.integers(12, 16)]]
        store.write(keys=keys, rows=rows, gone=gone)
        for key, new in zip(keys, rows, strict=True):
            if key not in newest or new["version"] > newest[key]["version"]:
                newest[key] = new
        for key, version in gone:
            if key in newest and version > newest[key]["version"]:
                del newest[key]
        assert_indices_follow_rows(store)
        stored, table = store.all_rows()
        told = {key: value.tobytes() for key, value in zip(stored, table, strict=True)}
        assert told == {key: new.tobytes() for key, new in newest.items()}


def test_indices_follow_an_engine_through_moves_and_departures(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    moves = departures = 0
    for clicks in batches(24):
        changes = engine.step(Inputs(clicks)).changes
        assert changes is not None
        store.write_changes(changes, {})
        moves += changes.cluster_moves + changes.bucket_moves
        departures += len(changes.gone)
        assert_indices_follow_rows(store)
    assert moves > 100
    assert departures > 10
    c, names = engine.model.columns, engine.vocabulary.keys
    keys, rows = store.all_rows()
    assert {key.decode() for key in keys} == {names[slot] for slot in engine.items}
    for key, stored in zip(keys, rows, strict=True):
        slot = engine.vocabulary.get(key.decode())
        assert stored["cluster"] == c.cluster[slot]
        assert np.array_equal(stored["buckets"], c.buckets[slot])
    assert store.versions() == engine.versions


def test_a_commit_applied_twice_changes_nothing(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    for clicks in batches(6):
        changes = engine.step(Inputs(clicks)).changes
        assert changes is not None
        store.write_changes(changes, {})
        before = {name: store.everything(name) for name in ("rows", "clusters", "postings")}
        store.write_changes(changes, {})
        assert {name: store.everything(name) for name in before} == before


def test_two_rows_of_one_key_in_one_write_are_refused(store: Store) -> None:
    store.write(keys=[b"a"], rows=row(1))
    with pytest.raises(ValueError, match="same key"):
        store.write(keys=[b"b", b"a", b"b"], rows=np.concatenate([row(2), row(2), row(3)]))
    assert [key for key, _ in store.scan("rows")] == [b"a"]
    assert_indices_follow_rows(store)


def test_a_folder_that_is_opened_again_knows_where_its_rows_are_placed(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 1))})
    rows = np.concatenate([row(5, cluster=1, bucket=3), row(5, cluster=2, bucket=4)])
    store.write(keys=[b"a", b"b"], rows=rows)
    store.close()
    again = Store(store.path)
    again.write(keys=[b"a"], rows=row(4, cluster=7))
    assert again.row(b"a") == to_values(rows[:1])[0]
    again.write(keys=[b"a"], rows=row(6, cluster=7, bucket=9), gone=[(b"b", 6)])
    assert_indices_follow_rows(again)
    assert again.buckets([(0, 3), (0, 4), (0, 9)]) == ([b"a"], [cluster_prefix(7)])
    again.close()


def test_postings_that_told_no_clusters_do_so_from_the_first_write_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 1))})
    rows = np.concatenate([row(5, cluster=1, bucket=3), row(5, cluster=2, bucket=4)])
    store.write(keys=[b"a", b"b"], rows=rows)
    untold = [(key, b"") for key in store.everything("postings")]
    store.write_entries({"postings": untold, "meta": [(POSTINGS, None)]})
    store.close()
    again = Store(store.path)
    again.write(keys=[b"c"], rows=row(1))
    assert_indices_follow_rows(again)
    again.close()


def test_rows_of_items_and_of_attributes_are_counted_apart(store: Store) -> None:
    keys = [b"a", b"b", ATTRIBUTE + b"category=garden"]
    rows = np.concatenate([row(1), row(1), row(1, published=0)])
    store.write(keys=keys, rows=rows)
    assert counts.rows(store) == (2, 1)


def test_attributes_come_back_until_the_item_is_retired(store: Store) -> None:
    store.write(families={"attributes": [(b"a", b'{"name":"A","tags":["x","y"]}')]})
    assert store.attributes(b"a") == {"name": "A", "tags": ["x", "y"]}
    assert store.attributes(b"b") == {}
    store.write(families={"attributes": [(b"a", None)]})
    assert store.attributes(b"a") == {}


def test_what_a_commit_has_for_other_families_comes_with_its_rows(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    changes = engine.step(Inputs(clicks)).changes
    assert changes is not None
    left = Gone(b"left", 0, 2, was_published=False)
    changes.gone.append(left)
    store.write_entries({"graph": [(b"left", b"old"), (b"stays", b"old")]})
    families = {"attributes": [(b"a", b'{"name":"A"}')], "graph": [(b"a", b"row")]}
    store.write_changes(changes, {b"\xffmarks": b"m"}, families)
    assert store.attributes(b"a") == {"name": "A"}
    assert store.everything("graph") == {b"a": b"row", b"stays": b"old"}, "what left has no row"
    assert (store.meta(b"\xffmarks"), store.versions()) == (b"m", {0: 1})
    assert len(store.everything("rows")) == len(changes.keys) > 0


def test_offsets_come_back_by_topic_and_partition(store: Store) -> None:
    assert (store.progress(), store.tail_offsets(), store.age()) == ({}, {}, 0.0)
    done = Progress(7, START_MS, 2, 3)
    store.set_meta(
        {
            records.progress_key("a/b", 11): msgspec.msgpack.encode(done),
            b"tail/a/b/4": msgspec.msgpack.encode(9),
        }
    )
    assert store.progress() == {("a/b", 11): done}
    assert store.tail_offsets() == {("a/b", 4): 9}


# -- the folder ----------------------------------------------------------------------------------


def test_a_closed_folder_can_be_opened_again_at_once_and_has_kept_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 1))})
    store.write(keys=[b"a"], rows=row(1, cluster=3))
    store.close()
    again = Store(tmp_path / "state")
    assert again.row(b"a") == to_values(row(1, cluster=3))[0]
    assert members(again, 3) == [b"a"]
    again.close()


def test_rows_without_a_space_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with pytest.raises(WalkstreamError, match="no vector space yet"):
        store.all_rows()
    store.close()
