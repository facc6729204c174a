"""Queries of made catalogues, larger or odder than a shop that was learned."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest

from core.placing import clusters
from core.placing.clusters import unit_rows
from core.placing.placement import Placement, Placer, features
from core.rows import FORMAT, row_dtype
from core.settings import LshSettings, ModelSettings, Settings
from streamer.query.index import Answer, Index, Mode
from streamer.query.shelves import Resident
from streamer.state import packing, records
from streamer.state.records import Space
from streamer.state.store import Store
from tests.unit.query.ranking import recall

START_MS = 1_700_000_000_000


def catalogue(
    path: Path, n: int, family: Literal["sign", "p-stable"] = "sign", fitted: bool = True,
    count: int = 0, follows: int = 0,
) -> tuple[Store, list[str]]:  # fmt: skip
    """A folder of n items in groups of about 30, whose context vectors lean towards the group.

    With `count` clusters, which one in ten is not in yet; with keys of bits that `follows` the
    catalogue.
    """
    rng = np.random.default_rng(7)
    settings = Settings(
        model=ModelSettings(dim=32),
        # A cell as wide as the projections spread, or the codes of neighbours share nothing.
        lsh=LshSettings(family=family, bits=12 if family == "sign" else 6, width=1.0),
    )
    group = rng.integers(n // 30, size=n)
    middle = rng.standard_normal((n // 30, 32)) + 1.0
    noisy = (middle[group] + 0.7 * rng.standard_normal((n, 32)) for _ in range(2))
    v, u = (unit_rows(x.astype(np.float32)) for x in noisy)
    centre = features(v, u).mean(axis=0) if fitted else np.zeros(0, np.float32)
    rows = np.zeros(n, row_dtype(32, 0, settings.lsh.tables))
    rows["format"], rows["version"], rows["published"], rows["cluster"] = FORMAT, 1, 1, -1
    rows["pub_v"], rows["pub_u"] = v, u
    x = features(v, u) - centre if fitted else features(v, u)
    placement = Placement(1, START_MS, centre, v[:0], bits=follows)
    if follows:
        settings = replace(settings, lsh=replace(settings.lsh, bits=0))
    rows["buckets"] = Placer(settings).hashing(placement).keys(x)
    meta = {records.SPACE: msgspec.msgpack.encode(Space.of(settings, 1))}
    if fitted:
        centroids = clusters.refine(v, clusters.seed_centroids(v, count, 1)) if count else v[:0]
        if count:
            rows["cluster"] = np.where(rng.random(n) < 0.9, (v @ centroids.T).argmax(axis=1), -1)
        placement = replace(placement, centroids=centroids)
        meta[records.PLACEMENT] = packing.pack_placement(placement)
    store = Store(path)
    items = [f"item {i}" for i in range(n)]
    store.write(keys=[item.encode() for item in items], rows=rows, families={"meta": meta.items()})
    return store, items


@pytest.mark.parametrize("mode", ["similar", "next"])
@pytest.mark.parametrize("family", ["sign", "p-stable"])
def test_a_large_catalogue_is_searched_through_few_candidates(
    tmp_path: Path, mode: Mode, family: Literal["sign", "p-stable"]
) -> None:
    store, items = catalogue(tmp_path / "state", 12_000, family)
    found, looked = recall(store, items[:40], mode, False)
    store.close()
    assert found > 0.9
    assert looked < 12_000 / 4


def test_bits_that_follow_the_catalogue_are_those_of_the_placement(tmp_path: Path) -> None:
    store, items = catalogue(tmp_path / "state", 6000, follows=10)
    assert store.all_rows()[1]["buckets"].max() < 2**10
    found, looked = recall(store, items[:40], "similar", False)
    placed = packing.unpack_placement(store.meta(records.PLACEMENT) or b"", 32)
    other = packing.pack_placement(replace(placed, bits=12))
    store.set_meta({records.PLACEMENT: other})
    missed, _ = recall(store, items[:40], "similar", False)
    store.close()
    assert found > 0.9
    assert looked < 6000 / 3
    assert missed < found, "keys of other bits are none of theirs"


def test_a_placement_is_unpacked_once_and_followed(tmp_path: Path) -> None:
    store, _ = catalogue(tmp_path / "state", 600)
    index = Index(store)
    first = index.placement()
    assert index.placement() is first
    store.set_meta({records.PLACEMENT: packing.pack_placement(replace(first, epoch=9))})
    assert index.placement().epoch == 9
    store.close()


@pytest.mark.parametrize("mode", ["similar", "next"])
def test_clusters_tell_which_of_those_met_are_compared(tmp_path: Path, mode: Mode) -> None:
    store, items = catalogue(tmp_path / "state", 12_000, count=32)
    stored, resident = Index(store), Index(store, resident=True)
    for index in (stored, resident):
        found, looked = recall(store, items[:40], mode, isinstance(index.shelf, Resident))
        assert found > 0.9
        # Who ranks like the last of them is compared too.
        assert 400 <= looked < 600
    for item in items[:40]:
        one, other = (index.neighbours([item], 10, mode) for index in (stored, resident))
        assert one.candidates == other.candidates
        assert [n.item for n in one.neighbours] == [n.item for n in other.neighbours]
    # Where more are asked for, more are compared.
    assert stored.neighbours([items[0]], 300, mode).candidates >= 1200
    store.close()


def test_before_the_first_placement_vectors_are_hashed_as_they_are(tmp_path: Path) -> None:
    store, items = catalogue(tmp_path / "state", 6000, fitted=False)
    found, _ = recall(store, items[:40], "similar", True)
    answer = Index(store).neighbours([items[0]], 1, "similar")
    store.close()
    assert found > 0.9
    assert answer.neighbours[0].cluster is None


def test_an_item_far_from_all_others_still_gets_k_neighbours(tmp_path: Path) -> None:
    store, items = catalogue(tmp_path / "state", 600)
    keys, rows = store.all_rows()
    at = keys.index(items[0].encode())
    rows = rows[at : at + 1].copy()
    # Opposite to the others, so that no bucket near it holds enough of them.
    rows["version"] = 2
    rows["pub_v"], rows["pub_u"] = -rows["pub_v"], -rows["pub_u"]
    store.write(keys=[keys[at]], rows=rows)
    index = Index(store)
    for k in (10, 500, 599):
        answer = index.neighbours([items[0]], k, "similar")
        assert len(answer.neighbours) == k
    store.close()
    assert answer.candidates == 599


def test_the_only_item_has_no_neighbours(tmp_path: Path) -> None:
    store, items = catalogue(tmp_path / "state", 30)
    store.write(gone=[(item.encode(), 2) for item in items[1:]])
    assert Index(store).neighbours([items[0]], 10, "next") == Answer(items[0], "next", 0, [])
    store.close()
