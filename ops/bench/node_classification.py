"""Node classification as in the DeepWalk and node2vec papers, beside gensim on the same walks.

    .venv/bin/python ops/bench/node_classification.py EDGES LABELS [--json]
    .venv/bin/python ops/bench/node_classification.py --made blog [--json]

EDGES has two columns, the nodes of an undirected edge; LABELS a node and one of its labels. Both
are tab-separated and may be gzipped. `--made` makes a graph in their place, whose communities
overlap (`Made`). The engine takes each edge, in shuffled order, as a user of its own who clicks one
node and then the other, and walks from every node that a round touched. A click on the same item
again is no transition, so edges from a node to itself are left out; no other edge is, and none
decays.

What is learned: d = 128, window 10, 80 walks of 40 nodes from each node, once. gensim's word2vec
(5 negatives, its own defaults otherwise) learns once from the same walks. The engine has
`PLAIN_GRAPH`. The vectors are rows of V; those of both sides are scaled to one root mean square
length, as the penalty of the regression tells long vectors from short ones.

How it is scored (Perozzi, Al-Rfou and Skiena, KDD 2014; Grover and Leskovec, KDD 2016): logistic
regressions, one for each label against the rest, L2-regularised with C = 1; as many labels are
guessed for a node as it has. Mean Micro and Macro-F1 in percent over 10 splits, which are the same
for both sides. Both learn on one thread, and times are of processor time. With
`pip install 'walkstream[bench]'`; takes some minutes, nearly all gensim's.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gensim
import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import expit

from core.clicks import Clicks
from core.engine import Engine
from core.learner import Learner
from core.rounds import Inputs
from core.settings import (
    DAY_MS,
    Duration,
    GraphSettings,
    ModelSettings,
    NegativeSettings,
    QualitySettings,
    SessionSettings,
    Settings,
    WalkSettings,
)

PER_NODE, LENGTH = 80, 40
PLAIN_GRAPH = ModelSettings(
    dim=128, window=10, shrink_windows=True, block=32, rate=0.05, initial_accumulator=1.0,
    session_passes=0,
)  # fmt: skip
BY_CLICKS = NegativeSettings(kind="popularity")
"""For a graph that stands still, walked as DeepWalk walks: what word2vec does, learned faster.

What is not the worker's, by what it is worth: near contexts weigh more, which in walks of 40 tell
more; 32 nodes of a walk share their negatives, as a few that are shared by 8 are pushed too far at
once; hubs are more often negatives, as they are nodes of walks; and rows begin slower, as they do
not have to follow anything. Sessions are of two nodes, and walks have them already.
"""
NORM = 3.0
"""Root mean square length of the vectors that are scored, about that of gensim's."""
SPLITS = 10
SHARES = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True)
class Made:
    """A graph of overlapping communities, which are its labels; no two edges are the same.

    An edge begins at a node drawn by reach. With probability `signal` it ends in a community of
    that node, else anywhere, at a node drawn by reach again. Reaches are Pareto's with density
    x^-tail, up to nodes^most; the n-th community is 1 / n of the first, and a node has
    1 + Poisson(.4) of them.
    """

    nodes: int
    edges: int
    signal: float
    tail: float
    most: float
    seed: int
    communities: int = 39
    more: float = 0.4

    def make(self) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
        """Rows of edges and of labels, as those of files."""
        rng = np.random.default_rng(self.seed)
        reach = np.minimum(rng.random(self.nodes) ** (-1 / (self.tail - 1)), self.nodes**self.most)
        size = 1 / np.arange(1, self.communities + 1)
        has = np.zeros((self.nodes, self.communities), np.bool_)
        for node, many in enumerate(1 + rng.poisson(self.more, self.nodes)):
            chosen = rng.choice(self.communities, many, replace=False, p=size / size.sum())
            has[node, chosen] = True
        own = [np.flatnonzero(of) for of in has]
        members = [np.flatnonzero(of) for of in has.T]
        sums, all_sums = [np.cumsum(reach[of]) for of in members], np.cumsum(reach)
        edges: set[tuple[int, int]] = set()
        while (n := self.edges - len(edges)) > 0:
            begin, u = np.searchsorted(all_sums, rng.random(n) * all_sums[-1]), rng.random(n)
            end = np.searchsorted(all_sums, u * all_sums[-1])
            inside, which = rng.random(n) < self.signal, rng.random(n)
            for i in np.flatnonzero(inside):
                choices = own[begin[i]]
                c = choices[int(which[i] * len(choices))]
                end[i] = members[c][np.searchsorted(sums[c], u[i] * sums[c][-1])]
            pairs = zip(begin.tolist(), end.tolist(), strict=True)
            edges.update((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1])
        return np.array(sorted(edges)).astype(str), np.argwhere(has).astype(str)


MADE = {
    "blog": Made(nodes=5000, edges=150_000, signal=0.17, tail=2.3, most=0.5, seed=1),
    "hubs": Made(nodes=7000, edges=220_000, signal=0.14, tail=2.0, most=0.75, seed=2),
    "sparse": Made(nodes=6000, edges=60_000, signal=0.25, tail=2.5, most=0.5, seed=3),
    "dense": Made(nodes=5000, edges=330_000, signal=0.12, tail=2.3, most=0.5, seed=4),
}


class Recorder(Learner):
    """Keeps the walks that are learned from, and counts the seconds that learning takes."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine.catalogue)
        self.learned: list[NDArray[np.int32]] = []
        self.seconds = 0.0

    def learn(self, walks: NDArray[np.int32], *session: Any) -> None:
        self.learned.append(walks)
        begin = time.process_time()
        super().learn(walks, *session)
        self.seconds += time.process_time() - begin


def rows(path: Path) -> NDArray[np.str_]:
    return np.loadtxt(path, dtype=str, delimiter="\t", ndmin=2)[:, :2]


def stream(
    edges: NDArray[np.str_], rounds: int = 1, p: float = 1.0, q: float = 1.0,
    model: ModelSettings = PLAIN_GRAPH, against: NegativeSettings = BY_CLICKS,
) -> tuple[Engine, Recorder]:  # fmt: skip
    """An engine that took the edges in so many rounds, and walked as often in each."""
    most = int(np.unique(edges, return_counts=True)[1].max())
    settings = Settings(
        session=SessionSettings(event_ids=0),
        graph=GraphSettings(
            half_life=Duration(DAY_MS), max_degree=max(4, 1 << (most - 1).bit_length())
        ),
        walks=WalkSettings(per_node=PER_NODE // rounds, length=LENGTH, replay=0.0, p=p, q=q),
        model=model,
        negatives=against,
        quality=QualitySettings(sample=0),
    )
    engine = Engine(settings)
    engine.learner = recorder = Recorder(settings, engine)
    for part in np.array_split(np.random.default_rng(1).permutation(edges), rounds):
        n = 2 * len(part)
        users = [f"{engine.round_number} {i // 2}" for i in range(n)]
        clicks = Clicks(users, part.ravel().tolist(), np.ones(n, np.int64), np.ones(n, np.float32))
        engine.step(Inputs(clicks, closes_commit=False))
    return engine, recorder


def labels_of(
    pairs: NDArray[np.str_], names: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places in `names` of the nodes that have labels, and which ones, bool [nodes, labels]."""
    place = {name: i for i, name in enumerate(names)}
    pairs = np.array([row for row in pairs if row[0] in place])
    nodes, node = np.unique(pairs[:, 0], return_inverse=True)
    labels, label = np.unique(pairs[:, 1], return_inverse=True)
    has = np.zeros((len(nodes), len(labels)), np.bool_)
    has[node, label] = True
    return np.array([place[name] for name in nodes.tolist()]), has


def scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x * np.float32(NORM / np.sqrt(np.mean(np.sum(x * x, axis=1))))


def regress(x: NDArray[np.float32], has: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weights [d + 1, labels] of one logistic regression for each label, the last row the biases.

    The problems share nothing but the products with x, so they are solved as one.
    """
    x = np.hstack([x, np.ones((len(x), 1), np.float32)])
    sign = np.where(has, np.float32(-1), np.float32(1))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(x.shape[1], -1).astype(np.float32)
        z = sign * (x @ w)
        slope = x.T @ (sign * expit(z))
        slope[:-1] += w[:-1]
        value = np.logaddexp(0, z).sum(dtype=float) + 0.5 * (w[:-1] ** 2).sum(dtype=float)
        return value, slope.ravel().astype(float)

    start = np.zeros(x.shape[1] * has.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x.reshape(x.shape[1], -1), np.float32)


def f1(x: NDArray[np.float32], has: NDArray[np.bool_], share: float, seed: int) -> list[float]:
    """Micro and Macro-F1, in percent, of a split with that share of nodes to train on."""
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.split(order, [int(share * len(x))])
    w = regress(x[train], has[train])
    rank = np.argsort(np.argsort(-(x[test] @ w[:-1] + w[-1]), axis=1), axis=1)
    true = has[test]
    guess = rank < true.sum(axis=1, keepdims=True)
    hits, both = (guess & true).sum(axis=0), guess.sum(axis=0) + true.sum(axis=0)
    return [200 * hits.sum() / both.sum(), 100 * float((2 * hits / np.maximum(both, 1)).mean())]


def _changed(text: str) -> tuple[str, float | str]:
    name, _, value = text.partition("=")
    before = getattr(BY_CLICKS if hasattr(BY_CLICKS, name) else PLAIN_GRAPH, name)
    return name, value if isinstance(before, str) else type(before)(float(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("edges", nargs="?", type=Path, help="TSV or TSV.GZ: node, node; each once")
    parser.add_argument(
        "labels", nargs="?", type=Path, help="TSV or TSV.GZ: node, label; each pair"
    )
    parser.add_argument("--made", choices=list(MADE), help="a graph that is made, not read")
    parser.add_argument("--rounds", type=int, default=1, help="that the edges come in, %(default)s")
    parser.add_argument("--p", type=float, default=1.0, help="walks.p, %(default)s")
    parser.add_argument("--q", type=float, default=1.0, help="walks.q, %(default)s")
    parser.add_argument(
        "--share", type=float, action="append", help="of nodes to train on; .1, .2, ... .9"
    )
    parser.add_argument("--seed", type=int, default=1, help="of both sides and walks, %(default)s")
    parser.add_argument(
        "--set", action="append", default=[], type=_changed, metavar="NAME=VALUE",
        help="a setting of [model] or [negatives] that is not PLAIN_GRAPH's or BY_CLICKS's",
    )  # fmt: skip
    parser.add_argument("--alone", action="store_true", help="without gensim: some seconds")
    parser.add_argument("--json", action="store_true", help="one object in place of the table")
    asked = parser.parse_args()
    if (asked.labels is None) == (asked.made is None):
        parser.error("name EDGES and LABELS, or a graph to make")
    if asked.made:
        edges, labels = MADE[asked.made].make()
    else:
        for path in (asked.edges, asked.labels):
            if not path.is_file():
                parser.error(f"{path}: there is no such file")
        edges, labels = rows(asked.edges), rows(asked.labels)
    if not asked.alone:
        print("learning from walks; then gensim on the same: some minutes", file=sys.stderr)

    changed = dict(asked.set)
    against = {name: value for name, value in changed.items() if hasattr(BY_CLICKS, name)}
    others = {name: value for name, value in changed.items() if name not in against}
    model = replace(PLAIN_GRAPH, seed=asked.seed, **others)
    negatives = replace(BY_CLICKS, **against)
    stream(edges[:9], model=model, against=negatives)  # so that kernels are ready
    begin = time.process_time()
    engine, recorder = stream(edges, asked.rounds, asked.p, asked.q, model, negatives)
    seconds = {"all": time.process_time() - begin, "ours": recorder.seconds}
    walks, items = np.concatenate(recorder.learned), engine.items
    vectors = {"ours": scaled(engine.model.rows.v[items])}
    if not asked.alone:
        sentences = [[str(slot) for slot in walk if slot >= 0] for walk in walks.tolist()]
        begin = time.process_time()
        # gensim leaves nothing out, neither rare nodes (min_count) nor common ones (sample).
        word2vec = Word2Vec(
            sentences, vector_size=model.dim, window=model.window, negative=model.negatives, sg=1,
            min_count=0, sample=0, epochs=1, workers=1, seed=asked.seed,
        )  # fmt: skip
        seconds["gensim"] = time.process_time() - begin
        vectors["gensim"] = scaled(word2vec.wv[[str(slot) for slot in items]])
    place, has = labels_of(labels, engine.vocabulary.names(items))
    found: dict[str, Any] = {
        "nodes": len(items),
        "arcs": engine.graph.arcs,
        "labels": has.shape[1],
        "tokens": int((walks >= 0).sum()),
        "seconds": seconds,
        "gensim": gensim.__version__,
        "rounds": asked.rounds,
        "f1": [
            {
                "share": share,
                **{
                    name: np.mean([f1(x[place], has, share, s) for s in range(SPLITS)], 0).tolist()
                    for name, x in vectors.items()
                },
            }
            for share in asked.share or SHARES
        ],
    }
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{found['nodes']:,} nodes, {found['arcs']:,} arcs, {has.shape[1]} labels; "
        f"{found['tokens']:,} tokens; seconds of processor time: {seconds['ours']:.1f} (with edges "
        f"and walks {seconds['all']:.1f})"
        + ("" if asked.alone else f", gensim {gensim.__version__} {seconds['gensim']:.1f}")
    )
    kinds = [f"{kind}-F1, {name}" for kind in ("Micro", "Macro") for name in vectors]
    table = Table("train", *kinds)
    for line in found["f1"]:
        figures = [line[name][kind] for kind in range(2) for name in vectors]
        table.add_row(f"{line['share']:.0%}", *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
