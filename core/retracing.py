"""The visits of a restored engine, from the evidence of the newest clicks.

They are a function of these alone: an engine that folds, and never learns, goes through them once
more, and what it remembers then is taken over.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.graph.written import Scale, load_nodes
from core.ids.vocabulary import Vocabulary
from core.ranking.visits import Visits
from core.rounds import Evidence
from core.settings import Duration, Settings


def retrace(settings: Settings, rounds: Iterable[Evidence]) -> Engine:
    """An engine that has the sessions and visits of these rounds, and little else."""
    graph = replace(settings.graph, max_degree=4, horizon=Duration(1 << 60))
    model = replace(settings.model, dim=16, attribute_slots=0)
    engine = Engine(replace(settings, graph=graph, model=model))
    load_nodes(engine.catalogue, [], 0, Scale(0, int(graph.half_life), 0))
    for one in rounds:
        engine.fold_again(replace(one, clicks=Clicks.empty(), births={}), 1)
        # An item that comes back is another one: its visits are no longer told.
        left = map(engine.vocabulary.get, one.gone)
        engine.vocabulary.forget([slot for slot in left if slot is not None])
        engine.fold_again(replace(one, gone={}, forgotten=()), 1)
    return engine


def remember(engine: Engine, rounds: Iterable[Evidence]) -> None:
    """Give a restored engine the visits that these rounds, the newest of all, have made.

    Its open sessions go on with theirs.
    """
    past = retrace(engine.settings, rounds)
    visits = past.catalogue.visits
    engine.catalogue.visits = moved(visits, past.vocabulary, engine.vocabulary)
    engine.catalogue.reserve()
    ours, theirs = engine.sessions, past.sessions
    ours.newest[:] = 0
    for row in ours.open.tolist():
        other = theirs.users.get(str(ours.names[row]))
        if other is not None:
            ours.newest[row] = theirs.newest[other]


def moved(visits: Visits, before: Vocabulary, after: Vocabulary) -> Visits:
    """The visits by the slots of another vocabulary; of what it does not have nothing is said."""
    names = before.names(np.arange(len(before)))
    slots = [after.get(name) for name in names]
    new = np.array([-1 if slot is None else slot for slot in slots], np.int32)
    order = np.full(len(after), -1)
    order[new[new >= 0]] = np.flatnonzero(new >= 0)
    visits.relabel(order, new)
    return visits
