"""What q of node2vec does: neighbours of the same community, or of the same role.

    .venv/bin/python ops/bench/roles.py [EDGES] --out roles.png

Walks of q < 1 go far, those of q > 1 stay near where they began (Grover and Leskovec, KDD 2016).
On a graph whose communities are all built alike, each of a hub, members and bridges to the next,
it is told how many of a node's nearest vectors are of its community, and how many of its role.
EDGES, a TSV of node pairs such as Zachary's karate club, is drawn beside that. Needs the extra
`plot`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from node_classification import PLAIN_GRAPH, rows, stream
from numpy.typing import NDArray

from core.engine import Engine
from core.placing.clusters import unit_rows
from streamer.inspect.plot import PALETTE

COMMUNITIES, MEMBERS, BRIDGES = 10, 20, 2
QS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
NEAREST = 5
SEEDS = 5


def built_alike() -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
    """Edges, and of each node its community and its role: 0 a hub, 1 a member, 2 a bridge."""
    size = 1 + MEMBERS + BRIDGES
    edges = []
    for c in range(COMMUNITIES):
        first = c * size
        members = range(first + 1, first + 1 + MEMBERS)
        bridges = range(first + 1 + MEMBERS, first + size)
        edges += [(first, m) for m in members]
        edges += [(m, members[(i + 1) % MEMBERS]) for i, m in enumerate(members)]
        following = (c + 1) % COMMUNITIES * size + 1 + MEMBERS
        for n, bridge in enumerate(bridges):
            edges += [(bridge, members[n * MEMBERS // BRIDGES]), (bridge, members[-1 - n])]
            edges.append((bridge, following + n))
    nodes = np.arange(COMMUNITIES * size)
    inside = nodes % size
    role = np.where(inside == 0, 0, np.where(inside <= MEMBERS, 1, 2))
    return np.array(sorted({(min(e), max(e)) for e in edges})).astype(str), nodes // size, role


def learned(edges: NDArray[np.str_], q: float, seed: int) -> tuple[Engine, NDArray[np.int64]]:
    """The engine, and the nodes of its items in their order."""
    model = replace(PLAIN_GRAPH, dim=32, window=5, seed=seed)
    engine, _ = stream(edges, q=q, model=model)
    return engine, np.array(engine.vocabulary.names(engine.items)).astype(np.int64)


def agreement(v: NDArray[np.float32], label: NDArray[np.int64]) -> float:
    """How many of the nearest of each node have its label, less what chance gives, over the same of
    all of them: 0 is chance and 1 is all."""
    unit = unit_rows(v)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    near = np.argsort(-cosine, axis=1)[:, :NEAREST]
    same = (label[near] == label[:, None]).mean(axis=1)
    chance = np.array([(label == one).sum() - 1 for one in label]) / (len(label) - 1)
    # Each label counts alike: most nodes are members.
    rows_of = [np.flatnonzero(label == one) for one in np.unique(label)]
    gains = [float(((same - chance)[at] / (1 - chance[at])).mean()) for at in rows_of]
    return float(np.mean(gains))


def plane(v: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first two principal components."""
    x = unit_rows(v) - unit_rows(v).mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    return np.asarray(x @ axes[:2].T)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("edges", nargs="?", type=Path, help="TSV or TSV.GZ of node pairs, to draw")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a PNG")
    asked = parser.parse_args()
    edges, community, role = built_alike()
    figures: dict[float, NDArray[np.float64]] = {}
    print("| q | same community | same role |\n|---|---|---|")
    for q in QS:
        found = []
        for seed in range(1, 1 + SEEDS):
            engine, nodes = learned(edges, q, seed)
            v = engine.model.rows.v[engine.items]
            found.append([agreement(v, community[nodes]), agreement(v, role[nodes])])
        figures[q] = np.array(found)
        mean, error = figures[q].mean(axis=0), figures[q].std(axis=0) / np.sqrt(SEEDS)
        print(f"| {q:g} | {mean[0]:.3f} ± {error[0]:.3f} | {mean[1]:.3f} ± {error[1]:.3f} |")
        sys.stdout.flush()
    draw(asked.out, figures, edges, community, role, asked.edges)


def draw(
    out: Path, figures: dict[float, NDArray[np.float64]], edges: NDArray[np.str_],
    community: NDArray[np.int64], role: NDArray[np.int64], more: Path | None,
) -> None:  # fmt: skip
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    planes = figure.subplots(2, 3)
    for column, q in enumerate((QS[0], QS[-1])):
        engine, nodes = learned(edges, q, 1)
        x = plane(engine.model.rows.v[engine.items])
        for one in np.unique(role):
            at = role[nodes] == one
            planes[0, column].scatter(
                x[at, 0], x[at, 1], c=[PALETTE[c % len(PALETTE)] for c in community[nodes][at]],
                marker="*os"[one], s=(220, 26, 60)[one], linewidths=0.4, edgecolors="white",
            )  # fmt: skip
        planes[0, column].set_title(f"q = {q:g}: colour is community, * hub, square bridge")
        if more is not None:
            _draw_graph(planes[1, column], rows(more), q)
    curve = planes[0, 2]
    for number, name in enumerate(("same community", "same role")):
        mean = [figures[q][:, number].mean() for q in QS]
        error = [figures[q][:, number].std() / np.sqrt(SEEDS) for q in QS]
        curve.errorbar(QS, mean, error, label=name, color=PALETTE[number], linewidth=2)
    curve.set_xscale("log")
    curve.set_xlabel("q")
    curve.set_ylabel(f"of the {NEAREST} nearest, over chance")
    curve.legend(frameon=False)
    curve.grid(alpha=0.25)
    planes[1, 2].axis("off")
    figure.savefig(out)
    print(f"wrote {out}", file=sys.stderr)


def _draw_graph(axes: object, edges: NDArray[np.str_], q: float) -> None:
    """Where the vectors of a graph stand, with its edges."""
    engine, nodes = learned(edges, q, 1)
    x = plane(engine.model.rows.v[engine.items])
    place = {str(node): at for node, at in zip(nodes, x, strict=True)}
    for a, b in edges:
        ends = np.stack([place[a], place[b]])
        axes.plot(*ends.T, color="#bbbbbb", linewidth=0.5, zorder=0)  # type: ignore[attr-defined]
    for name, at in place.items():
        axes.text(*at, name, fontsize=9, ha="center", va="center")  # type: ignore[attr-defined]
    axes.set_title(f"{len(nodes)} nodes, q = {q:g}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
