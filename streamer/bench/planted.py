"""A graph with planted communities, and how well vectors show them.

The planted-partition model (Condon and Karp, "Algorithms for graph partitioning on the planted
partition model", Random Structures and Algorithms 18, 2001), with some of the edges held out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.walks import walk
from core.placing.clusters import unit_rows

DEGREE = 20
INSIDE = 0.6
"""Share of a node's edges that stay in its community."""
HELD_OUT = 0.05
MEMBERS = 200
"""Nodes of a community."""
NEAREST, ASKED = 10, 4000
"""Neighbours whose community is looked at, and the nodes whose neighbours are."""


@dataclass(frozen=True)
class Planted:
    """n nodes: their communities, int64 [n]; the graph; and its held-out edges, int64 [m, 2]."""

    community: NDArray[np.int64]
    graph: Graph
    held: NDArray[np.int64]

    def walks(self, per_node: int, length: int) -> NDArray[np.int32]:
        """Walks from every node in random order, int32 [per_node n, length]."""
        rng, n = np.random.default_rng(1), len(self.community)
        starts = np.concatenate([rng.permutation(n) for _ in range(per_node)])
        return walk(self.graph, starts.astype(np.int32), length, seed=1, round_number=1)

    def purity(self, vectors: NDArray[np.float32]) -> float:
        """Share of a node's nearest nodes by cosine that are of its community, over a sample."""
        unit, rng = unit_rows(vectors), np.random.default_rng(2)
        asked = rng.choice(len(unit), min(ASKED, len(unit)), replace=False)
        hits = 0
        for part in np.array_split(asked, 1 + len(asked) // 500):
            cosine = unit[part] @ unit.T
            cosine[np.arange(len(part)), part] = -np.inf
            nearest = np.argpartition(-cosine, NEAREST, axis=1)[:, :NEAREST]
            hits += (self.community[nearest] == self.community[part, None]).sum()
        return float(hits / (NEAREST * len(asked)))

    def links(self, vectors: NDArray[np.float32]) -> float:
        """Area under the ROC curve of held-out edges among random pairs of nodes, by cosine."""
        unit, rng = unit_rows(vectors), np.random.default_rng(3)
        other = rng.integers(0, len(unit), self.held.shape)
        other = other[other[:, 0] != other[:, 1]]
        edges, pairs = (np.einsum("ij,ij->i", *unit[x.T]) for x in (self.held, other))
        return float(np.searchsorted(np.sort(pairs), edges).mean() / len(pairs))


def plant(n: int, seed: int = 1) -> Planted:
    """A graph of n nodes, a multiple of MEMBERS."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    community = np.empty(n, np.int64)
    community[order] = np.arange(n) // MEMBERS
    m = n * DEGREE // 2
    a, b = rng.integers(0, n, m), rng.integers(0, n, m)
    inside = order[community[a] * MEMBERS + rng.integers(0, MEMBERS, m)]
    b = np.where(rng.random(m) < INSIDE, inside, b)
    edges = np.unique(np.sort(np.stack([a, b], axis=1)[a != b], axis=1), axis=0)
    rng.shuffle(edges)
    held, kept = np.split(edges, [int(HELD_OUT * len(edges))])
    arcs = np.concatenate([kept, kept[:, ::-1]])
    arcs = arcs[np.argsort(arcs[:, 0], kind="stable")]
    rows = np.split(arcs[:, 1].astype(np.int32), np.searchsorted(arcs[:, 0], np.arange(1, n)))
    graph = Graph(max_degree=128)
    graph.reserve(n)
    for node, nbr in enumerate(rows):
        graph.put_row(node, nbr, np.ones(len(nbr), np.float32))
    return Planted(community, graph, held)
