import numpy as np

from core.graph.walks import walk
from streamer.bench.walks import MAX_DEGREE, SMALL_NODES, deviation, random_graph, random_lines


def test_the_graph_has_the_asked_arcs_both_ways_and_no_row_past_the_cap() -> None:
    graph = random_graph(2000, 60_000)
    assert graph.arcs == 60_000
    assert 64 < graph.degree.max() <= MAX_DEGREE
    arcs = {(a, b): w for a in range(2000) for b, w in zip(*map(list, graph.row(a)), strict=True)}
    assert all(a != b and arcs[b, a] == w for (a, b), w in arcs.items())


def test_the_deviation_tells_walks_of_the_formula_from_others() -> None:
    graph = random_graph(SMALL_NODES, SMALL_NODES * 12)
    walks = walk(graph, np.arange(200_000, dtype=np.int32) % SMALL_NODES, 4, 1, 1, 0.5, 2.0)
    true, false = (float(deviation(graph, p, 2.0, walks).split()[1]) for p in (0.5, 1.0))
    assert 0.9 < true < 1.1
    assert false > 3


def test_random_lines_are_slower_to_read_from_more_memory() -> None:
    assert random_lines(1 << 14) > 1.5 * random_lines(1 << 27) > 1e6
