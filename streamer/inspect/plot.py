"""A picture of a state folder: the map of its items, and the sizes of clusters and buckets."""

import importlib
import importlib.util
import io
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import NONE
from streamer import counts, outputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.inspect import labels as labels_of
from streamer.inspect.folder import clusters_awaited, settled
from streamer.inspect.labels import Label, short
from streamer.query.names import name_of, text
from streamer.query.run import published
from streamer.state.folders import reading
from streamer.state.records import is_item
from streamer.state.store import Store
from streamer.terminal import one_line
from streamer.wording import counted

Projection = Literal["auto", "pca", "umap"]

MOST = 20_000
"""Items on a map at most; of a larger catalogue a sample is drawn."""

FEWEST_FOR_UMAP = 50
"""Its graph of nearest neighbours says nothing about fewer."""

PALETTE = (
    *("#4e79a7", "#e07b1a", "#4a9a3f", "#e15759", "#a5638f", "#3f9c9a", "#9c755f", "#b98e04"),
    *("#d0508a", "#1f7a6d", "#7b5bb0", "#5aa0d8", "#a8326e", "#74a03a", "#c1440e", "#2f6f9f"),
    *("#e8716b", "#6b705c", "#3d4f80", "#947d1f"),
)
"""Colours of the groups, from the first again after the last."""

NOWHERE = "#c4c4c4"
"""Colour of items that are in no group."""


@dataclass(frozen=True)
class Map:
    """n items with a vector, and the figures of the whole folder."""

    title: str
    ids: list[str]
    names: list[str]
    """The attribute `name` or `title`; the id where there is neither."""
    categories: list[str]
    """Values of the attribute that names the clusters; "" where an item has none."""
    xy: NDArray[np.float32]
    """Shape (n, 2)."""
    clusters: NDArray[np.int32]
    """Shape (n,): NONE before there are clusters."""
    updates: NDArray[np.int64]
    """Shape (n,)."""
    cluster_sizes: dict[int, int]
    bucket_sizes: list[int]

    def groups(self) -> NDArray[np.int32]:
        """What colours the items, shape (n,): their clusters, or before there are any, the numbers
        of their categories, as many of the most common ones as there are colours. Else NONE.
        """
        if self.cluster_sizes:
            return self.clusters
        counts = Counter(category for category in self.categories if category)
        numbers = {
            category: at for at, (category, _) in enumerate(counts.most_common(len(PALETTE)))
        }
        return np.array([numbers.get(category, NONE) for category in self.categories], np.int32)

    def group_labels(self) -> dict[int, tuple[str, NDArray[np.float32]]]:
        """Label of each group and where it stands on the map, the largest group first."""
        groups, found = self.groups(), {}
        for group, _ in Counter(groups[groups != NONE].tolist()).most_common():
            at = np.flatnonzero(groups == group)
            named = Counter(self.categories[i] for i in at if self.categories[i])
            label = named.most_common(1)[0][0] if named else ""
            if self.cluster_sizes:
                label = f"{group} {label}".rstrip()
            # Medians, or a few strays pull the label off its points. That of a group in two parts
            # may lie between them, where others are.
            off = self.xy[at] - np.median(self.xy[at], axis=0)
            found[group] = label, self.xy[at[np.argmin((off**2).sum(axis=1))]]
        return found

    def colours(self) -> list[str]:
        return [colour(group) for group in self.groups().tolist()]

    def areas(self, largest: float) -> NDArray[np.float64]:
        """Areas of the points, by the root of the updates: popularity spans powers of ten."""
        share = np.sqrt(self.updates / max(1, int(self.updates.max())))
        return largest * (0.04 + 0.96 * share)


def colour(group: int) -> str:
    return NOWHERE if group == NONE else PALETTE[group % len(PALETTE)]


def project(vectors: NDArray[np.float32], projection: Projection) -> tuple[NDArray[Any], str]:
    """Float32 [n, 2] of float32 [n, d], and the name of what was done. ConfigError without umap."""
    there = importlib.util.find_spec("umap") is not None
    if projection == "umap" and not there:
        raise ConfigError("--projection umap: install it with `pip install umap-learn`")
    if projection == "umap" or (projection == "auto" and there and len(vectors) >= FEWEST_FOR_UMAP):
        reducer = importlib.import_module("umap").UMAP(metric="cosine", random_state=0)
        return reducer.fit_transform(vectors), "UMAP"
    x = vectors - vectors.mean(axis=0)
    _, spread, axes = np.linalg.svd(x, full_matrices=False)
    # Rows of `axes` are known up to their sign.
    axes = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True) + 1e-12)
    share = float((spread[:2] ** 2).sum() / max(float((spread**2).sum()), 1e-12))
    xy = np.zeros((len(x), 2), np.float32)
    xy[:, : len(axes)] = x @ axes.T
    return xy, f"PCA, {share:.0%} of the variance"


def read(store: Store, by: str, projection: Projection, min_items: int) -> Map:
    """The map of an open folder. WalkstreamError if no item has a vector yet.

    `min_items` is `clusters.min_items`, which the folder does not tell.
    """
    keys, rows = store.all_rows()
    of_items = np.array([is_item(key) for key in keys], np.bool_)
    least = 1 if store.space is None else store.space.least
    at = np.flatnonzero(of_items & (rows["published"] >= least))
    items = len(at)
    if not items:
        raise WalkstreamError(f"{store.path}: nothing to draw yet: no item has a vector")
    enough = settled(rows["updates"][of_items])
    if items > MOST:
        at = np.sort(np.random.default_rng(0).choice(at, MOST, replace=False))
    rows, ids = rows[at], [keys[i] for i in at]
    xy, how = project(published(rows)[0], projection)
    attributes = [store.attributes(item) for item in ids]
    categories = [one_line(text(a, by)) for a in attributes]
    names = [name_of(a) or item.decode() for item, a in zip(ids, attributes, strict=True)]
    sizes = counts.cluster_sizes(store)
    clusters = counted(len(sizes), "cluster") if sizes else "no clusters yet"
    title = f"{counted(items, 'item')}, {clusters} ({how}"
    title += f"; a sample of {MOST:,} items)" if items > MOST else ")"
    if not sizes:
        title += f", coloured by {by}" if any(categories) else ""
        title += f"; {clusters_awaited(enough, min_items)}"
    return Map(
        title,
        [one_line(item.decode()) for item in ids],
        [one_line(name) for name in names],
        categories,
        xy,
        rows["cluster"],
        rows["updates"],
        sizes,
        counts.bucket_sizes(store),
    )


def run(
    state: Path, out: Path, by: str, labels: int, projection: Projection, min_items: int,
    force: bool = False,
) -> None:  # fmt: skip
    """Draw the folder into a file.

    ConfigError for another ending than .png and .html, if the extra `plot` is missing, and if the
    file is there and not `force`; WalkstreamError if there is no such folder, or nothing in it.
    """
    draw = _drawer(out)
    outputs.check("--out", out, force)
    with reading(state) as store:
        drawn = read(store, by, projection, min_items)
        if by != "category" and not any(drawn.categories):
            there = sorted({name for i in drawn.ids for name in store.attributes(i.encode())})
            raise ConfigError(f"--by {by}: no item has it; there are: {', '.join(there) or 'none'}")
    outputs.write("--out", out, draw(drawn, labels), force)
    print(f"{out}: {drawn.title}")


def _drawer(out: Path) -> "Callable[[Map, int], bytes]":
    drawers = {".png": ("matplotlib", png), ".html": ("plotly", html)}
    if out.suffix not in drawers:
        raise ConfigError(f"--out {out}: the name must end in .png or .html")
    library, draw = drawers[out.suffix]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f'{library} is missing: run `pip install ".[plot]"` in the folder of Walkstream'
        )
    return draw


def size_steps(sizes: list[int]) -> tuple[list[str], list[int]]:
    """Names and counts of a histogram whose steps double: 1, 2-3, 4-7 and so on."""
    if not sizes:
        return [], []
    counts = np.bincount(np.log2(sizes).astype(np.int64))
    names = ["1", *(f"{2**step}–{2 ** (step + 1) - 1}" for step in range(1, len(counts)))]
    return names, counts.tolist()


# -- PNG -----------------------------------------------------------------------------------------


def png(drawn: Map, labels: int) -> bytes:
    """Draw it with matplotlib."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; a line for each helps nobody.
        warnings.filterwarnings("ignore", "Glyph")
        picture(drawn, labels).savefig(out, format="png")
    return out.getvalue()


def picture(drawn: Map, labels: int) -> Any:
    """A figure of matplotlib, with the names of the `labels` most updated items."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 10), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[4, 1])
    plane = figure.add_subplot(grid[:, 0])
    order = np.argsort(-drawn.updates)  # small points over large ones
    colours = np.array(drawn.colours())
    plane.scatter(
        drawn.xy[order, 0], drawn.xy[order, 1], s=drawn.areas(260)[order], c=colours[order],
        alpha=0.65, linewidths=0.3, edgecolors="white",
    )  # fmt: skip
    plane.set_title(textwrap.fill(drawn.title, 110), loc="left", fontsize=14)
    plane.set_axis_off()
    plane.margins(0.03)

    sizes = sorted(drawn.cluster_sizes.items(), key=lambda entry: -entry[1])
    if sizes:
        bars = figure.add_subplot(grid[0, 1])
        bars.bar(range(len(sizes)), [n for _, n in sizes], 0.9, color=[colour(c) for c, _ in sizes])
        bars.set_xticks([])
        bars.set_xlabel("clusters, the largest first")
        bars.set_title("Items in each cluster", loc="left", fontsize=11)
    steps = figure.add_subplot(grid[1, 1])
    names, counts = size_steps(drawn.bucket_sizes)
    steps.barh(names, counts, 0.9, color="#8a8f98")
    steps.invert_yaxis()
    if max(counts, default=0) > 0:
        steps.set_xscale("log")
        steps.set_xlim(left=0.7)  # one bucket is seen too
    steps.set_xlabel("buckets")
    steps.set_ylabel("items in a bucket")
    steps.set_title("Buckets of all tables by size", loc="left", fontsize=11)
    for chart in figure.axes[1:]:
        chart.spines[["top", "right"]].set_visible(False)

    figure.draw_without_rendering()  # the layout must stand before labels are measured
    figure.set_layout_engine("none")
    write_labels(plane, drawn, labels)
    return figure


def write_labels(plane: Any, drawn: Map, labels: int) -> None:
    """Clusters first, then the most updated items; one that would cover another is left out."""
    from matplotlib.patheffects import withStroke

    placed: list[Any] = []

    def write(
        words: str, where: NDArray[np.float32], offsets: list[tuple[int, int]], **how: Any
    ) -> bool:
        note = plane.annotate(
            words, where, xytext=(0, 0), textcoords="offset points", va="center",
            parse_math=False, path_effects=[withStroke(linewidth=3, foreground="white")], **how,
        )  # fmt: skip
        for x, y in offsets:
            note.set_position((x, y))
            note.set_horizontalalignment("center" if x == 0 else "left" if x > 0 else "right")
            box = note.get_window_extent().padded(1.5)
            inside = plane.bbox.x0 <= box.x0 and box.x1 <= plane.bbox.x1
            if inside and not any(box.overlaps(other) for other in placed):
                placed.append(box)
                return True
        note.remove()
        return False

    for group, (label, where) in drawn.group_labels().items():
        near = [(0, 0), (0, 12), (0, -12)]
        write(short(label), where, near, fontsize=11, weight="bold", color=colour(group))
    left = labels
    for at in np.argsort(-drawn.updates)[: 10 * labels].tolist():
        if left == 0:
            break
        around = [(6, 0), (-6, 0), (0, 9), (0, -9)]
        left -= write(short(drawn.names[at]), drawn.xy[at], around, fontsize=8, color="#222222")


# -- HTML ----------------------------------------------------------------------------------------


def html(drawn: Map, labels: int) -> bytes:
    """Draw it with plotly: one file that needs no network, to zoom and hover in."""
    go = importlib.import_module("plotly.graph_objects")
    figure = importlib.import_module("plotly.subplots").make_subplots(
        rows=2, cols=2, column_widths=[0.8, 0.2],
        specs=[[{"rowspan": 2}, {} if drawn.cluster_sizes else None], [None, {}]],
        horizontal_spacing=0.04, vertical_spacing=0.12,
        subplot_titles=[
            "", *["Items in each cluster"] * bool(drawn.cluster_sizes),
            "Buckets of all tables by size",
        ],
    )  # fmt: skip
    about = [drawn.ids, drawn.names, drawn.categories]
    shown = [[escape(words) for words in column] for column in about]
    clusters = ["none" if c == NONE else c for c in drawn.clusters.tolist()]
    x, y = drawn.xy.T.tolist()
    points = go.Scattergl(
        x=x, y=y, mode="markers",
        marker={"size": 2 * np.sqrt(drawn.areas(60)), "color": drawn.colours(), "opacity": 0.7},
        customdata=list(zip(*shown, clusters, drawn.updates.tolist(), strict=True)),
        hovertemplate="<b>%{customdata[1]}</b><br>id %{customdata[0]}<br>%{customdata[2]}<br>"
        "cluster %{customdata[3]}<br>%{customdata[4]:,} updates<extra></extra>",
    )  # fmt: skip
    steps, counts = size_steps(drawn.bucket_sizes)
    histogram = go.Bar(
        y=steps, x=counts, orientation="h", marker={"color": "#8a8f98"},
        hovertemplate="%{x:,} buckets of %{y} items<extra></extra>",
    )  # fmt: skip
    figure.add_trace(points, 1, 1)
    if drawn.cluster_sizes:
        figure.add_trace(_bars(drawn, go), 1, 2)
        figure.update_xaxes(showticklabels=False, title="the largest first", row=1, col=2)
    figure.add_trace(histogram, 2, 2)
    shown_at = labels_of.shares(drawn.xy)
    figure.update_xaxes(visible=False, range=_range(drawn.xy[:, 0], shown_at[:, 0]), row=1, col=1)
    figure.update_yaxes(visible=False, range=_range(drawn.xy[:, 1], shown_at[:, 1]), row=1, col=1)
    figure.update_layout(annotations=[*figure.layout.annotations, *_notes(drawn, shown_at, labels)])
    figure.update_xaxes(type="log", title="buckets", row=2, col=2)
    figure.update_yaxes(type="category", autorange="reversed", row=2, col=2)
    figure.update_layout(title=drawn.title, showlegend=False, template="plotly_white",
                         margin={"l": 20, "r": 20, "t": 70, "b": 50})  # fmt: skip
    page: str = figure.to_html(include_plotlyjs=True, config={"scrollZoom": True})
    return page.encode()


def _range(values: NDArray[np.float32], shares: NDArray[np.float64]) -> list[float]:
    """Both ends of an axis on which values stand at these shares of it."""
    low, high = int(np.argmin(values)), int(np.argmax(values))
    step = float(values[high] - values[low]) or 1.0
    unit = step / max(float(shares[high] - shares[low]), 1e-9)
    begin = float(values[low]) - float(shares[low]) * unit
    return [begin, begin + unit]


def _notes(drawn: Map, shown_at: NDArray[np.float64], most: int) -> list[dict[str, Any]]:
    """Labels of the groups, then the names of the `most` most updated items, as plotly has notes:
    above all points, on a ground of their own, and none on another.
    """
    index = {tuple(xy): at for at, xy in enumerate(drawn.xy.tolist())}
    share: list[tuple[float, float]] = [(x, y) for x, y in shown_at.tolist()]
    near, around = [(0, 0), (0, 14), (0, -14)], [(8, 0), (-8, 0), (0, 12), (0, -12)]
    groups = []
    for group, (label, where) in drawn.group_labels().items():
        x, y = share[index[tuple(where.tolist())]]
        groups.append(Label(short(label), x, y, 13, near, colour(group)))
    items = []
    for at in np.argsort(-drawn.updates)[: 10 * most].tolist():
        x, y = share[at]
        items.append(Label(short(drawn.names[at]), x, y, 10, around, "#222222"))
    stand = labels_of.arranged(groups, len(groups))
    stand += labels_of.arranged(items, most, [*stand])
    (x0, x1), (y0, y1) = (_range(drawn.xy[:, i], shown_at[:, i]) for i in (0, 1))
    return [
        {
            "x": x0 + label.x * (x1 - x0), "y": y0 + label.y * (y1 - y0), "xref": "x", "yref": "y",
            "xshift": dx, "yshift": dy, "showarrow": False, "align": "left",
            "xanchor": "center" if dx == 0 else "left" if dx > 0 else "right",
            "text": f"<b>{escape(label.words)}</b>" if label.size > 10 else escape(label.words),
            "font": {"size": label.size, "color": label.colour},
            "bgcolor": "rgba(255,255,255,0.9)", "borderpad": 1,
        }
        for label, (dx, dy) in stand
    ]  # fmt: skip


def _bars(drawn: Map, go: Any) -> Any:
    """The sizes of the clusters; `go` is plotly's module of figures."""
    sizes = sorted(drawn.cluster_sizes.items(), key=lambda entry: -entry[1])
    words = {c: label for c, (label, _) in drawn.group_labels().items()}
    return go.Bar(
        x=list(range(len(sizes))), y=[n for _, n in sizes],
        marker={"color": [colour(c) for c, _ in sizes]},
        text=[escape(words.get(c, str(c))) for c, _ in sizes], textposition="none",
        hovertemplate="%{text}: %{y:,} items<extra></extra>",
    )  # fmt: skip
