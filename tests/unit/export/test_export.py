"""Files of vectors and of neighbours, from state folders."""

import io
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from core.placing.clusters import unit_rows
from streamer.errors import ConfigError, Refused
from streamer.export import formats, neighbours, run
from streamer.export.published import Published, from_folder
from streamer.query.index import Index
from streamer.settings.load import load
from streamer.state.store import Store
from tests.unit.query.test_index import catalogue


def made(n: int, *, names: list[str] | None = None, clusters: int = 0, seed: int = 1) -> Published:
    """n items in groups, whose clusters are the groups' if there are some."""
    rng = np.random.default_rng(seed)
    group = rng.integers(max(clusters, 8), size=n)
    middle = rng.standard_normal((max(clusters, 8), 16))
    v, u = (
        unit_rows((middle[group] + 0.6 * rng.standard_normal((n, 16))).astype(np.float32))
        for _ in range(2)
    )
    cluster = group.astype(np.int32) if clusters else np.full(n, -1, np.int32)
    cluster[: n // 20] = -1
    return Published(
        names or [f"item {i:05}" for i in range(n)], v, u,
        rng.random((n, 2)).astype(np.float32) + 1, cluster, np.arange(n), np.arange(n) + 1,
        "a-space", 17,
    )  # fmt: skip


def oracle(found: Published, k: int, mode: str) -> NDArray[np.int64]:
    v, u = found.vectors, found.contexts
    scores = v @ v.T
    if mode == "next":
        scores = scores + v @ u.T + u @ v.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("mode", ["similar", "next"])
def test_neighbours_of_all_are_those_that_score_best(mode: Literal["similar", "next"]) -> None:
    found = made(700)
    near = neighbours.nearest(found, 12, mode)
    assert near.is_exact
    assert (near.items == oracle(found, 12, mode)).mean() > 0.999  # but for equal scores
    assert not (near.items == np.arange(700)[:, None]).any()
    assert (np.diff(near.scores, axis=1) <= 0).all()


def test_neighbours_of_few_items_are_all_others() -> None:
    near = neighbours.nearest(made(4), 6, "similar")
    assert [sorted(row) for row in near.items.tolist()] == [
        sorted({0, 1, 2, 3} - {n}) and [-1, -1, -1, *sorted({0, 1, 2, 3} - {n})] for n in range(4)
    ]


def test_many_items_are_compared_with_the_nearest_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 100)
    found = made(3000, clusters=40)
    near = neighbours.nearest(found, 10, "next")
    assert not near.is_exact
    wanted = oracle(found, 10, "next")
    met = [len({*a} & {*b}) for a, b in zip(near.items.tolist(), wanted.tolist(), strict=True)]
    assert np.mean(met) > 9.5
    # Those of no cluster are compared with a share too, and everybody with them.
    assert np.mean(met[: 3000 // 20]) > 9.0
    assert not (near.items == np.arange(3000)[:, None]).any()


@pytest.mark.parametrize("mode", ["similar", "next"])
def test_a_file_of_neighbours_says_what_a_query_says(
    tmp_path: Path, mode: Literal["similar", "next"]
) -> None:
    store, items = catalogue(tmp_path / "state", 600)
    index = Index(store)
    answers = {
        item: [(one.item, one.score) for one in index.neighbours([item], 400, mode).neighbours]
        for item in items[:20]
    }
    store.close()
    out = tmp_path / "near.jsonl"
    config = load(None, [], {})
    run.run(config, out, None, tmp_path / "state", None, "vector", 8, mode, False)
    lines = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert [line["item"] for line in lines] == sorted(items)
    by_item = {line["item"]: line for line in lines}
    for item, answer in answers.items():
        np.testing.assert_allclose(
            by_item[item]["scores"], [score for _, score in answer[:8]], atol=2e-6
        )
        score_of = dict(answer)
        for other, score in zip(by_item[item]["neighbours"], by_item[item]["scores"], strict=True):
            assert score_of[other] == pytest.approx(score, abs=2e-6)
    table = tmp_path / "near.parquet"
    run.run(config, table, None, tmp_path / "state", None, "vector", 8, mode, False)
    rows = pyarrow.parquet.read_table(table).to_pylist()
    assert len(rows) == 8 * 600
    first = [row["neighbour"] for row in rows if row["item_id"] == items[0]]
    assert first == by_item[items[0]]["neighbours"]


def test_each_format_has_the_vectors(tmp_path: Path) -> None:
    found = made(50, clusters=8)
    arrays = np.load(io.BytesIO(formats.npz(found, "vector")))
    assert arrays["items"].tolist() == found.items
    assert (int(arrays["commit"]), str(arrays["space"])) == (17, "a-space")
    for name in ("vectors", "contexts", "norms", "clusters", "updates", "versions"):
        np.testing.assert_array_equal(arrays[name], getattr(found, name))
    table = pyarrow.parquet.read_table(io.BytesIO(formats.parquet(found, "vector")))
    assert table.schema.metadata[b"walkstream.commit"] == b"17"
    rows = table.to_pylist()
    assert [row["item_id"] for row in rows] == found.items
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows]), found.vectors)
    np.testing.assert_array_equal(np.array([row["context"] for row in rows]), found.contexts)
    assert [row["cluster"] for row in rows] == [None if c < 0 else c for c in found.clusters]


@pytest.mark.parametrize("which", ["vector", "context"])
def test_gensim_reads_word2vec_text(tmp_path: Path, which: formats.Which) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    names = ["plain", "with a space", "naïve 東京", "tab\there", '"quoted"', "7"]
    found = made(6, names=names)
    path = tmp_path / "vectors.txt"
    path.write_bytes(formats.word2vec(found, which))
    read = models.KeyedVectors.load_word2vec_format(str(path))
    assert read.index_to_key == ["plain", "with_a_space", "naïve_東京", "tab_here", '"quoted"', "7"]
    rows = found.vectors if which == "vector" else found.contexts
    np.testing.assert_allclose(read.vectors, rows, atol=1e-6)


def test_ids_that_word2vec_cannot_tell_apart_are_refused() -> None:
    found = made(2, names=["a b", "a_b"])
    with pytest.raises(ConfigError, match="'a b' and 'a_b' would both be 'a_b'"):
        formats.word2vec(found, "vector")


def test_a_folder_gives_what_was_published_in_the_order_of_ids(tmp_path: Path) -> None:
    store, items = catalogue(tmp_path / "state", 90)
    keys, rows = store.all_rows()
    row_of = dict(zip(keys, rows, strict=True))
    hidden = rows[:1].copy()
    hidden["published"] = 0
    hidden["version"] = 9
    store.write(keys=[b"never published"], rows=hidden)
    store.close()
    found = from_folder(tmp_path / "state", None)
    assert found.items == sorted(items)
    for n, item in enumerate(found.items):
        row = row_of[item.encode()]
        np.testing.assert_allclose(found.vectors[n], row["pub_v"].astype(np.float32), atol=1e-3)
        assert np.linalg.norm(found.contexts[n]) == pytest.approx(1.0)
        assert found.clusters[n] == row["cluster"]
    with pytest.raises(Refused, match="is as of commit 0, and commit 3 was asked for"):
        from_folder(tmp_path / "state", 3)


@pytest.mark.parametrize(
    ("out", "fmt", "i2i", "told"),
    [
        (
            "x.csv", None, None,
            r"no format of vectors; let the name end in \.npz, \.txt, \.vec or \.parquet, or give "
            "--format npz, word2vec or parquet",
        ),
        ("x.npz", None, 5, r"no format of neighbours; let the name end in \.jsonl or \.parquet"),
        ("x.npz", "csv", None, "--format csv: is no format of vectors; take npz, word2vec or"),
    ],
)  # fmt: skip
def test_a_format_that_is_none_is_told_before_the_work(
    tmp_path: Path, out: str, fmt: str | None, i2i: int | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run.run(
            load(None, [], {}), tmp_path / out, fmt, tmp_path / "none", None, "vector", i2i,
            "similar", False,
        )  # fmt: skip


def test_a_context_is_for_word2vec(tmp_path: Path) -> None:
    Store(tmp_path / "state").close()
    with pytest.raises(ConfigError, match="--vectors chooses for word2vec"):
        run.run(
            load(None, [], {}), tmp_path / "x.npz", None, tmp_path / "state", None, "context",
            None, "similar", False,
        )  # fmt: skip
