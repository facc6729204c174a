import numpy as np

from core.graph import Graph
from core.walks import walk


def small_graph() -> Graph:
    """0 -> 1, 2, 3 with weights 1, 2, 5; 1, 2 and 3 -> 0; 4 is alone."""
    graph = Graph(8)
    graph.reserve(5)
    graph.put_row(0, np.array([1, 2, 3], np.int32), np.array([1, 2, 5], np.float32), 0)
    for slot in (1, 2, 3):
        graph.put_row(slot, np.array([0], np.int32), np.array([0.1], np.float32), 0)
    return graph


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


def test_a_walk_ends_where_no_arc_leads_on() -> None:
    walks = walk(small_graph(), np.array([4, 0], np.int32), 5, seed=1, round_number=1)
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


def test_walks_do_not_depend_on_the_scale_of_the_weights() -> None:
    one, other = small_graph(), small_graph()
    other.shift(40)
    starts = np.zeros(200, np.int32)
    assert np.array_equal(walk(one, starts, 10, 1, 1), walk(other, starts, 10, 1, 1))
