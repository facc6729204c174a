import json
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from core.placing.clusters import NONE
from core.rows import FORMAT, row_dtype
from core.settings import ModelSettings, Settings
from streamer.demo.shop import Shop
from streamer.errors import ConfigError, WalkstreamError
from streamer.files import replay
from streamer.files.readers import Source
from streamer.inspect import labels, plot
from streamer.settings import load as config
from streamer.state import records
from streamer.state.records import Space
from streamer.state.store import Store

START_MS = 1_700_000_000_000
SHOP = Shop(1, products=200)
CATEGORY = {item["item_id"]: item["attributes"]["category"] for item in SHOP.items()}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a replayed shop with attributes."""
    folder = tmp_path_factory.mktemp("learned")
    log, items = folder / "clicks.jsonl", folder / "items.jsonl"
    log.write_text("\n".join(json.dumps(c) for c in islice(SHOP.clicks(START_MS), 5000)))
    items.write_text("\n".join(json.dumps(item) for item in SHOP.items()))
    settings = ["model.dim=16", "clusters.count=8", "clusters.min_items=40", "engine.threads=1"]
    replay.run(config.load(None, settings, {}), Source([log]), items, folder / "out", False)
    return folder / "out" / replay.DIRECTORY


def drawn_from(state: Path, scratch: Path, by: str = "category") -> plot.Map:
    store = Store(state, scratch)
    try:
        return plot.read(store, by, "pca", 40)
    finally:
        store.close()


def catalogue(path: Path, n: int) -> None:
    """A folder of n items with random vectors, and no clusters."""
    rows = np.zeros(n, row_dtype(16, 0, 8))
    rows["format"], rows["version"], rows["published"], rows["cluster"] = FORMAT, 1, 1, NONE
    rows["pub_v"] = np.random.default_rng(3).standard_normal((n, 16))
    rows["updates"] = np.arange(n)
    space = Space.of(Settings(model=ModelSettings(dim=16)), 1)
    store = Store(path)
    store.write(
        keys=[f"item {i}".encode() for i in range(n)],
        rows=rows,
        families={"meta": [(records.SPACE, msgspec.msgpack.encode(space))]},
    )
    store.close()


def figure_of(page: str) -> list[dict[str, Any]]:
    """The traces in a page of plotly."""
    begin = re.search(r'Plotly\.newPlot\(\s*"[^"]+",\s*', page)
    assert begin is not None
    traces: list[dict[str, Any]] = json.JSONDecoder().raw_decode(page[begin.end() :])[0]
    return traces


# -- the map -------------------------------------------------------------------------------------


def test_every_item_is_on_the_map_with_its_name_category_and_updates(
    learned: Path, tmp_path: Path
) -> None:
    drawn = drawn_from(learned, tmp_path)
    assert len(drawn.ids) == len(drawn.xy) == sum(drawn.cluster_sizes.values()) > 150
    names = {item["item_id"]: item["attributes"]["name"] for item in SHOP.items()}
    assert drawn.names == [names[item] for item in drawn.ids]
    assert drawn.categories == [CATEGORY[item] for item in drawn.ids]
    assert drawn.updates.min() > 0
    assert np.isfinite(drawn.xy).all()
    assert len(drawn.title.splitlines()) == 1
    assert "PCA" in drawn.title


def test_pca_finds_the_two_directions_of_most_variance() -> None:
    rng = np.random.default_rng(5)
    spread = np.array([0.1, 5.0, 0.1, 2.0, 0.1])
    vectors = (rng.standard_normal((4000, 5)) * spread + 7).astype(np.float32)
    xy, how = plot.project(vectors, "pca")
    assert np.abs(np.corrcoef(xy[:, 0], vectors[:, 1])[0, 1]) > 0.99
    assert np.abs(np.corrcoef(xy[:, 1], vectors[:, 3])[0, 1]) > 0.99
    assert how == "PCA, 100% of the variance"


def test_a_cluster_is_named_by_its_most_common_attribute(learned: Path, tmp_path: Path) -> None:
    drawn = drawn_from(learned, tmp_path)
    for cluster, (label, where) in drawn.group_labels().items():
        inside = [
            c for c, own in zip(drawn.categories, drawn.clusters, strict=True) if own == cluster
        ]
        number, name = label.split()
        assert int(number) == cluster
        assert inside.count(name) == max(map(inside.count, inside))
        own = drawn.xy[drawn.clusters == cluster]
        assert (own == where).all(axis=1).any()
    without = drawn_from(learned, tmp_path / "again", by="brand")
    assert {label for label, _ in without.group_labels().values()} == {str(c) for c in range(8)}


def test_the_name_of_a_group_in_two_parts_stands_in_one_of_them() -> None:
    left = [[-10.0, 0.0], [-10.2, 0.1], [-9.9, 0.0]]
    right = [[10.0, 0.0], [10.2, 0.1], [9.9, 0.2]]
    between = [[0.1, 0.0]] * 3
    drawn = plot.Map(
        "", [""] * 9, [""] * 9, [""] * 9, np.array(left + right + between, np.float32),
        np.array([4] * 6 + [5] * 3, np.int32), np.ones(9, np.int64), {4: 6, 5: 3}, [],
    )  # fmt: skip
    (_, where), (_, other) = drawn.group_labels()[4], drawn.group_labels()[5]
    assert abs(where[0]) > 9
    assert other.tolist() == pytest.approx([0.1, 0.0])


def test_before_there_are_clusters_the_attribute_colours_and_names(tmp_path: Path) -> None:
    catalogue(tmp_path / "state", 30)
    store = Store(tmp_path / "state")
    kinds = {f"item {i}": "lamp" if i % 3 else "rug" for i in range(28)}
    attributes = [(i.encode(), msgspec.json.encode({"kind": kind})) for i, kind in kinds.items()]
    store.write_entries({"attributes": attributes})
    store.close()
    drawn = drawn_from(tmp_path / "state", tmp_path / "scratch", by="kind")
    assert [label for label, _ in drawn.group_labels().values()] == ["lamp", "rug"]
    colours = dict(zip(drawn.ids, drawn.colours(), strict=True))
    assert len({colours[i] for i, kind in kinds.items() if kind == "lamp"}) == 1
    assert colours["item 1"] != colours["item 3"]
    assert colours["item 28"] == colours["item 29"] == plot.NOWHERE
    assert "no clusters yet" in drawn.title
    assert "coloured by kind" in drawn.title
    # Updates are 0 to 29, and 10 are enough.
    assert "clusters.min_items = 40 settled items (10 updates or more); there are 20" in drawn.title
    assert "coloured by" not in drawn_from(tmp_path / "state", tmp_path / "again").title


def test_before_there_are_clusters_their_panel_is_left_out(learned: Path, tmp_path: Path) -> None:
    catalogue(tmp_path / "state", 30)
    buckets = "Buckets of all tables by size"
    for state, panels in (
        (tmp_path / "state", [buckets]),
        (learned, ["Items in each cluster", buckets]),
    ):
        drawn = drawn_from(state, tmp_path / f"{len(panels)}")
        axes = plot.picture(drawn, 3).axes
        assert [chart.get_title(loc="left") for chart in axes[1:]] == panels
        page = plot.html(drawn, 3).decode()
        assert [trace["type"] for trace in figure_of(page)].count("bar") == len(panels)
        assert ("Items in each cluster" in page) == (len(panels) == 2)


def test_a_large_catalogue_is_sampled_the_same_way_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "MOST", 300)
    catalogue(tmp_path / "state", 1000)
    first, second = (drawn_from(tmp_path / "state", tmp_path / n) for n in ("a", "b"))
    assert len(set(first.ids)) == 300
    assert first.ids == second.ids
    assert (first.xy == second.xy).all()
    assert first.title.startswith("1,000 items")
    assert "a sample of 300 items" in first.title


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_items_and_no_clusters_are_drawn_all_the_same(tmp_path: Path, n: int) -> None:
    catalogue(tmp_path / "state", n)
    for name in ("map.png", "map.html"):
        plot.run(tmp_path / "state", tmp_path / name, "category", 30, "pca", 40)
        assert (tmp_path / name).stat().st_size > 10_000


def test_steps_of_sizes_double() -> None:
    assert plot.size_steps([1, 1, 2, 3, 3, 9]) == (["1", "2–3", "4–7", "8–15"], [2, 3, 0, 1])
    assert plot.size_steps([]) == ([], [])


# -- files ---------------------------------------------------------------------------------------


def test_a_png_is_written_and_is_a_picture_with_colours(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    plot.run(learned, tmp_path / "map.png", "category", 30, "pca", 40)
    picture = imread(tmp_path / "map.png")
    assert picture.shape[:2] == (1200, 1920)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 1000
    assert "map.png: 199 items, 8 clusters" in capsys.readouterr().out


def test_labels_never_cover_each_other(learned: Path, tmp_path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    plane = figure.add_subplot()
    drawn = drawn_from(learned, tmp_path)
    plane.scatter(drawn.xy[:, 0], drawn.xy[:, 1])
    figure.draw_without_rendering()
    plot.write_labels(plane, drawn, 40)
    boxes = [note.get_window_extent() for note in plane.texts]
    assert len(boxes) > 20
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_page_needs_no_network_and_tells_about_each_item(learned: Path, tmp_path: Path) -> None:
    plot.run(learned, tmp_path / "map.html", "category", 5, "pca", 40)
    page = (tmp_path / "map.html").read_text()
    assert not re.search(r'<(script|link)[^>]+(src|href)="http', page)
    points, bars, histogram = figure_of(page)
    drawn = drawn_from(learned, tmp_path)
    at = drawn.ids.index("sku-0003")
    told = [drawn.ids[at], drawn.names[at], drawn.categories[at]]
    figures = [int(drawn.clusters[at]), int(drawn.updates[at])]
    assert points["customdata"][at] == told + figures
    assert len(points["customdata"]) == len(drawn.ids)
    assert len(bars["x"]) == 8
    assert histogram["y"][0] == "1"


def test_labels_of_a_page_stand_above_the_points_and_apart(learned: Path, tmp_path: Path) -> None:
    drawn = drawn_from(learned, tmp_path)
    shares = labels.shares(drawn.xy)
    assert 0 < shares.min() < shares.max() < 1
    notes = plot._notes(drawn, shares, 40)
    groups = [note for note in notes if note["font"]["size"] > 10]
    assert 4 <= len(groups) <= 8
    assert len(notes) > 20
    popular = {drawn.names[at] for at in np.argsort(-drawn.updates)[:10].tolist()}
    assert popular & {note["text"] for note in notes}
    many = [
        labels.Label(f"label {n}", x, y, 13, [(0, 0), (0, 14), (9, 0), (-9, 0)], "black")
        for n, (x, y) in enumerate(shares.tolist())
    ]
    stand = labels.arranged(many, 40)
    boxes = [labels.box_of(one) for one in stand]
    assert len(boxes) == 40
    for at, (left, low, right, high) in enumerate(boxes):
        assert not any(
            left < b[2] and b[0] < right and low < b[3] and b[1] < high for b in boxes[:at]
        )


def test_names_with_markup_and_dollars_are_shown_as_they_are(tmp_path: Path) -> None:
    catalogue(tmp_path / "state", 3)
    name = "</script><b>$x_{$ & more"
    store = Store(tmp_path / "state")
    store.write_entries({"attributes": [(b"item 2", msgspec.json.encode({"title": name}))]})
    store.close()
    plot.run(tmp_path / "state", tmp_path / "map.png", "category", 3, "pca", 40)
    plot.run(tmp_path / "state", tmp_path / "map.html", "category", 3, "pca", 40)
    page = (tmp_path / "map.html").read_text()
    assert "</script><b>$x" not in page
    shown = figure_of(page)[0]["customdata"][2][1]
    assert shown == "&lt;/script&gt;&lt;b&gt;$x_{$ &amp; more"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "message"), [
    ("map.jpg", r"map\.jpg: the name must end in \.png or \.html"),
    ("none/map.png", "there is no folder"),
])  # fmt: skip
def test_a_file_that_cannot_be_written_is_refused_before_reading(
    tmp_path: Path, out: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plot.run(tmp_path / "nowhere", tmp_path / out, "category", 30, "auto", 40)


@pytest.mark.parametrize(("out", "library"), [("map.png", "matplotlib"), ("map.html", "plotly")])
def test_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, library: str
) -> None:
    hidden = [name for name in sys.modules if name.partition(".")[0] == library]
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=rf'{library}.*pip install "\.\[plot\]"'):
        plot.run(tmp_path, tmp_path / out, "category", 30, "auto", 40)


def test_umap_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match="pip install umap-learn"):
        plot.project(np.eye(3, dtype=np.float32), "umap")


def test_a_folder_without_vectors_says_so(tmp_path: Path) -> None:
    catalogue(tmp_path / "state", 0)
    with pytest.raises(WalkstreamError, match="no item has a vector"):
        plot.run(tmp_path / "state", tmp_path / "map.png", "category", 30, "pca", 40)


def test_an_attribute_that_no_item_has_is_refused_with_those_that_there_are(
    learned: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="nosuch: no item has it; there are: category, kind, name"
    ):
        plot.run(learned, tmp_path / "map.html", "nosuch", 5, "pca", 40)
