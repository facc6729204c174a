"""Rows of the graph that do not fit each other, as after a restart with another session gap."""

import numpy as np

from core.engine import Engine
from core.graph.written import load_nodes, nodes
from tests.unit.core.groups import HORIZON, settings, step, visits


def test_no_arc_to_an_item_that_left_stays_where_only_the_other_side_holds_it() -> None:
    engine = Engine(settings())
    for number in range(5):
        step(engine, visits(number, at=100 * number))
    kept = nodes(engine.catalogue, engine.items, 1, engine.scale)
    # Every second row lost its first half: those that others hold do not hold them.
    torn = [
        (key, node._replace(neighbours=node.neighbours[3:], weights=node.weights[12:]))
        if number % 2
        else (key, node)
        for number, (key, node) in enumerate(kept)
    ]
    again = Engine(settings())
    vars(again.clock).update(vars(engine.clock))
    load_nodes(again.catalogue, torn, 1, engine.scale)
    again.load_rows([])
    names = [key.decode() for key, _ in kept]
    for name in names[1::2]:
        step(again, [], [(name, None)])
        living = np.flatnonzero(again.model.columns.alive)
        for slot in living:
            assert again.model.columns.alive[again.graph.row(int(slot))[0]].all()
    step(again, [("u", "i0", HORIZON)])
