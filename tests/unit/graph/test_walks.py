import numpy as np
import pytest
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.walks import walk


def small_graph() -> Graph:
    """0 -> 1, 2, 3 with weights 1, 2, 5; 1, 2 and 3 -> 0; 4 is alone."""
    graph = Graph(8)
    graph.reserve(5)
    graph.put_row(0, np.array([1, 2, 3], np.int32), np.array([1, 2, 5], np.float32))
    for slot in (1, 2, 3):
        graph.put_row(slot, np.array([0], np.int32), np.array([0.1], np.float32))
    return graph


def dense_graph(nodes: int, share: float, max_degree: int) -> tuple[Graph, NDArray[np.float64]]:
    """A random graph, rows in no order and not all arcs both ways, and its matrix of weights."""
    rng = np.random.default_rng(5)
    weights = rng.exponential(size=(nodes, nodes)) * (rng.random((nodes, nodes)) < share)
    weights = weights.astype(np.float32).astype(np.float64)
    np.fill_diagonal(weights, 0)
    graph = Graph(max_degree)
    graph.reserve(nodes)
    for slot in rng.permutation(nodes).tolist():
        nbr = rng.permutation(np.flatnonzero(weights[slot])).astype(np.int32)
        graph.put_row(slot, nbr, weights[slot, nbr].astype(np.float32))
    return graph, weights


def standard_score(seen: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """How many standard deviations chi-square is above what the shares (rows sum to 1) explain."""
    total = seen.sum(axis=-1, keepdims=True)
    expected = total * shares
    assert (seen[expected == 0] == 0).all()
    enough = expected >= 5
    chi_square = float(((seen - expected)[enough] ** 2 / expected[enough]).sum())
    freedom = int(enough.sum() - (enough.sum(axis=-1) > 0).sum())
    return float((chi_square - freedom) / np.sqrt(2 * freedom))


def test_the_next_node_is_drawn_by_weight() -> None:
    starts = np.zeros(8000, np.int32)
    walks = walk(small_graph(), starts, 4, seed=1, round_number=1)
    assert (walks[:, [0, 2]] == 0).all()
    for column in (1, 3):
        seen = np.bincount(walks[:, column], minlength=4)[1:]
        expected = np.array([1000, 2000, 5000])
        chi_square = float(((seen - expected) ** 2 / expected).sum())
        assert chi_square < 13.8  # the 0.1% point with two degrees of freedom
    both = np.bincount(4 * walks[:, 1] + walks[:, 3], minlength=16).reshape(4, 4)[1:, 1:]
    expected = np.outer([1, 2, 5], [1, 2, 5]) * 125
    assert float(((both - expected) ** 2 / expected).sum()) < 26.1  # eight: steps are independent


def test_rows_of_every_length_are_drawn_from_by_weight() -> None:
    graph, weights = dense_graph(150, 0.3, 128)
    # Rows of 1 to 60 entries: one, some and all lanes, once and several times.
    for slot in range(60):
        graph.degree[slot] = min(slot + 1, graph.degree[slot])
        weights[slot] = 0
        nbr, wgt = graph.row(slot)
        weights[slot, nbr] = wgt
    walks = walk(graph, np.repeat(np.arange(150, dtype=np.int32), 2000), 3, 1, 1)
    for step in (0, 1):
        seen = np.zeros((150, 150), np.int64)
        np.add.at(seen, (walks[:, step], walks[:, step + 1]), 1)
        assert abs(standard_score(seen, weights / weights.sum(axis=1, keepdims=True))) < 4


@pytest.mark.parametrize(
    ("p", "q"), [(0.5, 2.0), (4.0, 0.25), (1.0, 3.0), (0.3, 1.0), (0.01, 0.5), (500.0, 900.0)]
)
def test_second_order_steps_have_the_bias_of_node2vec(p: float, q: float) -> None:
    graph, weights = dense_graph(24, 0.4, 32)
    walks = walk(graph, np.tile(np.arange(24, dtype=np.int32), 4000), 5, 1, 1, p, q)
    arcs = weights > 0
    # bias[t, v, x]: for x after v after t
    bias = np.where(arcs, 1.0, 1.0 / q)[:, None, :].repeat(24, axis=1)
    nodes = np.arange(24)
    bias[nodes, :, nodes] = 1.0 / p
    shares = bias * weights
    shares /= shares.sum(axis=2, keepdims=True)
    seen = np.zeros((24, 24, 24), np.int64)
    for step in (1, 2, 3):
        np.add.at(seen, (walks[:, step - 1], walks[:, step], walks[:, step + 1]), 1)
    assert seen.sum() == 3 * len(walks)
    assert abs(standard_score(seen, shares)) < 4
    first = np.zeros((24, 24), np.int64)
    np.add.at(first, (walks[:, 0], walks[:, 1]), 1)
    assert abs(standard_score(first, weights / weights.sum(axis=1, keepdims=True))) < 4


def test_a_way_back_that_is_hardly_ever_taken_is_taken_where_there_is_no_other() -> None:
    walks = walk(small_graph(), np.zeros(100, np.int32), 9, 1, 1, p=1000.0, q=1.0)
    assert (walks[:, ::2] == 0).all()
    assert (walks[:, 1::2] > 0).all()


def test_a_walk_ends_where_no_arc_leads_on() -> None:
    for p in (1.0, 2.0):
        walks = walk(small_graph(), np.array([4, 0], np.int32), 5, seed=1, round_number=1, p=p)
        assert walks[0].tolist() == [4, -1, -1, -1, -1]
        assert (walks[1] >= 0).all()


def test_a_walk_depends_on_seed_round_and_its_own_number_only() -> None:
    graph, zeros = small_graph(), np.zeros(50, np.int32)
    walks = walk(graph, zeros, 10, seed=1, round_number=7)
    others = np.where(np.arange(50) == 20, 0, 3).astype(np.int32)
    assert np.array_equal(walk(graph, others, 10, seed=1, round_number=7)[20], walks[20])
    assert np.array_equal(walk(graph, zeros[:20], 10, seed=1, round_number=7), walks[:20])
    assert not np.array_equal(walk(graph, zeros, 10, seed=2, round_number=7), walks)
    assert not np.array_equal(walk(graph, zeros, 10, seed=1, round_number=8), walks)
    assert len(np.unique(walks, axis=0)) > 20


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.5, 2.0)])
def test_walks_are_the_same_however_many_are_made_at_once(p: float, q: float) -> None:
    graph, _ = dense_graph(24, 0.4, 32)
    starts = np.arange(101, dtype=np.int32) % 24
    walks = walk(graph, starts, 7, 1, 1, p, q)
    assert np.array_equal(walk(graph, starts, 7, 1, 1, p, q, threads=3), walks)
    for n in (0, 1, 31, 33):
        assert np.array_equal(walk(graph, starts[:n], 7, 1, 1, p, q), walks[:n])


def test_walks_do_not_depend_on_the_scale_of_the_weights() -> None:
    one, other = small_graph(), small_graph()
    other.shift(40)
    starts = np.zeros(200, np.int32)
    assert np.array_equal(walk(one, starts, 10, 1, 1), walk(other, starts, 10, 1, 1))
