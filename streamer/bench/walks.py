"""Walks on the live graph, beside PecanPy's on the same graph as sorted CSR arrays."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import UNIT
from core.graph.walks import walk
from streamer.bench.peers import Peer, python_with, running
from streamer.bench.results import Options, Result, in_turns

PECANPY = "2.0.9"
PEER = Path(__file__).with_name("peer_pecanpy.py")
NODES, ARCS, QUICK_NODES, QUICK_ARCS = 100_000, 3_300_000, 20_000, 660_000
MAX_DEGREE = 128
LENGTH = 40
WALKS, PEER_WALKS = 50_000, 10_000
"""Walks of a measurement, theirs fewer: both are measured in steps a second."""
SMALL_NODES, SMALL_WALKS, OFTEN = 40, 400_000, 1000
"""The graph whose transitions are counted, the walks they are counted on, and how many make shares
that chance moves by less than .05."""
SETTINGS = (
    ("first-order", "SparseOTF", 1.0, 1.0, 20),
    ("first-order", "PreCompFirstOrder", 1.0, 1.0, 4),
    ("node2vec p=.5 q=2", "SparseOTF", 0.5, 2.0, 8),
)
"""Setting, PecanPy's mode, p, q, and the multiple of its speed that is aimed at."""


def measure(options: Options) -> Iterator[Result]:
    """Steps a second of one thread, then of several; and how true the draws are to the formula.

    PreCompFirstOrder is the faster of PecanPy's two modes with alias tables. Making the tables,
    again whenever a weight changed, is not counted.
    """
    nodes, arcs = (QUICK_NODES, QUICK_ARCS) if options.quick else (NODES, ARCS)
    graph, small = random_graph(nodes, arcs), random_graph(SMALL_NODES, SMALL_NODES * 12)
    lines_a_second = random_lines(graph.nbr.nbytes + graph.wgt.nbytes)
    python = python_with("pecanpy", f"pecanpy=={PECANPY}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer, small_peer = (
            stack.enter_context(running(python, PEER, str(file)))
            for file in (save(graph, nodes, folder), save(small, SMALL_NODES, folder))
        )
        for setting, mode, p, q, target in SETTINGS:
            asked = {"mode": mode, "p": p, "q": q, "threads": 1, "length": LENGTH}
            ours, theirs = in_turns(
                partial(speed, graph, nodes, p, q), partial(peer_speed, peer, asked)
            )
            small_starts = np.arange(SMALL_WALKS, dtype=np.int32) % SMALL_NODES
            yield Result(
                bench="walks",
                setting=f"{setting}, 1 thread",
                ours=ours,
                unit="steps/s",
                peer=f"PecanPy {PECANPY} {mode}, 1 thread",
                peer_value=theirs,
                ratio=ours / theirs,
                quality=deviation(small, p, q, walk(small, small_starts, 4, 1, 1, p, q)),
                peer_quality=deviation(small, p, q, peer_walks(small_peer, asked, folder)),
                ceiling=ceiling(graph, nodes, p == q == 1.0, lines_a_second),
                target=f"{target} x",
            )
    yield from threads(graph, nodes, max(2, options.threads), lines_a_second)


def random_graph(nodes: int, arcs: int) -> Graph:
    """Popular and less popular nodes, arcs both ways, exponential weights, rows in no order."""
    rng = np.random.default_rng(1)
    share = (np.arange(nodes) + nodes / 100) ** -0.75
    ends = rng.permutation(nodes)[rng.choice(nodes, (2, arcs), p=share / share.sum())]
    low, high = ends.min(axis=0), ends.max(axis=0)
    pairs = rng.permutation(np.unique((low * nodes + high)[low != high]))
    low, high = pairs // nodes, pairs % nodes
    # Only the first pairs of a node, so that no row is past its cap.
    ends = np.concatenate([low, high])
    order = np.argsort(ends, kind="stable")
    rank = np.empty(len(ends), np.int64)
    rank[order] = np.arange(len(ends)) - np.searchsorted(ends[order], ends[order])
    kept = (rank.reshape(2, -1) < MAX_DEGREE).all(axis=0)
    low, high = low[kept][: arcs // 2], high[kept][: arcs // 2]
    weights = np.tile(rng.exponential(size=len(low)).astype(np.float32) + np.float32(0.01), 2)
    source, target = np.concatenate([low, high]), np.concatenate([high, low]).astype(np.int32)
    order = np.lexsort((rng.random(len(source)), source))
    edges = np.searchsorted(source[order], np.arange(nodes + 1))
    graph = Graph(MAX_DEGREE)
    graph.reserve(nodes)
    for slot in rng.permutation(nodes).tolist():
        row = order[edges[slot] : edges[slot + 1]]
        graph.put_row(slot, target[row], weights[row])
    return graph


def save(graph: Graph, nodes: int, folder: Path) -> Path:
    """The graph as the peer reads it: CSR with sorted rows."""
    path = folder / f"{nodes}.npz"
    rows = [graph.row(slot) for slot in range(nodes)]
    order = [np.argsort(nbr) for nbr, _ in rows]
    np.savez(
        path,
        indptr=np.concatenate([[0], np.cumsum([len(nbr) for nbr, _ in rows])]),
        indices=np.concatenate([nbr[o] for (nbr, _), o in zip(rows, order, strict=True)]),
        data=np.concatenate([wgt[o] for (_, wgt), o in zip(rows, order, strict=True)]),
    )
    return path


def speed(graph: Graph, nodes: int, p: float, q: float, threads: int = 1) -> float:
    starts = np.random.default_rng(1).integers(nodes, size=WALKS, dtype=np.int32)
    begin = time.perf_counter()
    walks = walk(graph, starts, LENGTH, 1, 1, p, q, threads)
    return int((walks[:, 1:] >= 0).sum()) / (time.perf_counter() - begin)


def peer_speed(peer: Peer, asked: dict[str, object]) -> float:
    answer = peer.ask({**asked, "walks": PEER_WALKS})
    return float(answer["steps"] / answer["seconds"])


def threads(graph: Graph, nodes: int, count: int, lines_a_second: float) -> Iterator[Result]:
    cores = len(os.sched_getaffinity(0))
    for setting, p, q in (("first-order", 1.0, 1.0), ("node2vec p=.5 q=2", 0.5, 2.0)):
        many, one = in_turns(
            partial(speed, graph, nodes, p, q, count), partial(speed, graph, nodes, p, q)
        )
        yield Result(
            bench="walks",
            setting=f"{setting}, {count} threads",
            ours=many,
            unit="steps/s",
            peer="1 thread",
            peer_value=one,
            ratio=many / one,
            ceiling=f"{min(count, cores)} x: {cores} cores for {count} threads, as far as they do "
            "not share what memory gives",
        )


# -- the formula ---------------------------------------------------------------------------------


def peer_walks(peer: Peer, asked: dict[str, object], folder: Path) -> NDArray[np.int64]:
    path = str(folder / "walks.npy")
    peer.ask({**asked, "length": 4, "walks": SMALL_WALKS, "save": path})
    found: NDArray[np.int64] = np.load(path)
    return found


def deviation(graph: Graph, p: float, q: float, walks: NDArray[np.integer]) -> str:
    """How far shares of transitions t, v -> x are from the formula's, given (t, v) seen often."""
    n = SMALL_NODES
    weights = np.zeros((n, n))
    for slot in range(n):
        nbr, wgt = graph.row(slot)
        weights[slot, nbr] = wgt
    bias = np.where(weights > 0, 1.0, 1.0 / q)[:, None, :].repeat(n, axis=1)
    bias[np.arange(n), :, np.arange(n)] = 1.0 / p
    formula = bias * weights
    formula /= formula.sum(axis=2, keepdims=True)
    seen = np.zeros((n, n, n))
    for step in (2, 3):
        np.add.at(seen, tuple(walks[:, step - 2 : step + 1].T), 1)
    total = seen.sum(axis=2, keepdims=True)
    expected = total * formula
    enough = expected >= 5
    chi_square = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    freedom = enough.sum() - (enough.sum(axis=2) > 0).sum()
    most = np.abs(seen / np.maximum(total, 1) - formula)[total[:, :, 0] >= OFTEN].max()
    return f"chi-square {chi_square / freedom:.3f} a degree of freedom, shares off by {most:.3f}"


# -- the limit -----------------------------------------------------------------------------------


@nb.njit(cache=True, nogil=True)
def _chase(table, at, steps):  # type: ignore[no-untyped-def]
    for _ in range(steps):
        for chain in range(len(at)):
            at[chain] = table[at[chain]]


def random_lines(nbytes: int) -> float:
    """Cache lines a second that one core reads, at best, in no order from so many bytes.

    Chains of pointers, where each read waits for the one before of the same chain only.
    """
    rng = np.random.default_rng(1)
    ring = rng.permutation(nbytes // 64)
    table = np.zeros(16 * len(ring), np.int64 if len(ring) > 2**27 else np.int32)
    table[16 * ring] = 16 * np.roll(ring, -1)
    best = 0.0
    for chains in (16, 32, 64):
        at = (16 * rng.choice(ring, chains)).astype(table.dtype)
        _chase(table, at, 1)
        for _ in range(3):
            steps = 2_000_000 // chains
            begin = time.perf_counter()
            _chase(table, at, steps)
            best = max(best, steps * chains / (time.perf_counter() - begin))
    return best


def ceiling(graph: Graph, nodes: int, first_order: bool, lines_a_second: float) -> str:
    """As if a step cost only the lines of the pool that it has to read."""
    starts = np.arange(min(nodes, 10_000), dtype=np.int32)
    visited = walk(graph, starts, LENGTH, 1, 1)[:, :-1].ravel()
    begin = 4 * UNIT * graph.start[visited].astype(np.int64)
    end = begin + 4 * graph.degree[visited] - 1

    def lines(array: NDArray[np.generic]) -> float:
        at = array.ctypes.data
        return float(((end + at) // 64 - (begin + at) // 64 + 1).mean())

    needed = lines(graph.wgt) + (1 if first_order else lines(graph.nbr))
    read = "weights and one neighbour" if first_order else "weights and neighbours"
    return (
        f"{lines_a_second / needed:,.0f} steps/s: {needed:.1f} cache lines a step ({read}) at the "
        f"{lines_a_second / 1e6:.0f} M lines/s that one core was measured to read at random from "
        f"{(graph.nbr.nbytes + graph.wgt.nbytes) / 1e6:.0f} MB"
    )
