"""The visits of a restored engine, from the evidence of the newest clicks.

They are a function of these alone: an engine that folds, and never learns, goes through them once
more, and what it remembers then is taken over. Which clicks were held back (`core.graph.admission`)
follows from older ones: evidence says it, but not where several workers wrote. There the clicks of
what is no item by now are left out, and those that an item was admitted with are visits, too.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.graph.admission import Admission
from core.graph.written import Scale, load_nodes
from core.ids.vocabulary import Vocabulary
from core.ranking.visits import Visits
from core.rounds import Evidence
from core.settings import AdmissionSettings, Duration, Settings, SizeSettings

NEVER_ADMITTED = 2**31 - 1
NOBODY = "\udcff"
"""In place of an id that is held back: like ids of attributes it is no UTF-8."""


def retrace(
    settings: Settings, rounds: Iterable[Evidence],
    is_known: Callable[[str], bool] | None = None,
) -> Engine:  # fmt: skip
    """An engine that has the sessions and visits of these rounds, and little else. `is_known` says
    what is an item by now, where ids are counted."""
    graph = replace(settings.graph, max_degree=4, horizon=Duration(1 << 60))
    model = replace(settings.model, dim=16, attribute_slots=0)
    folding = replace(settings, graph=graph, model=model, size=SizeSettings())
    engine = Engine(replace(folding, admission=AdmissionSettings()))
    catalogue, admits = engine.catalogue, engine.catalogue.admission
    holds = Admission(AdmissionSettings(min_events=NEVER_ADMITTED))
    load_nodes(catalogue, [], 0, Scale(0, int(graph.half_life), 0))
    for one in rounds:
        engine.fold_again(replace(one, clicks=Clicks.empty(), births={}, held=None), 1)
        # An item that comes back is another one: its visits are no longer told.
        left = map(engine.vocabulary.get, one.gone)
        engine.vocabulary.forget([slot for slot in left if slot is not None])
        clicks, held = one.clicks, one.held
        if is_known is not None and one.round_number == 0:
            held = np.array([not is_known(item) for item in clicks.items], np.bool_)
        catalogue.admission = admits
        if held is not None and held.any():
            items = np.where(held, NOBODY, np.array(list(clicks.items), object)).tolist()
            clicks, catalogue.admission = replace(clicks, items=items), holds
            holds.admit([item for item in items if item != NOBODY], clicks.times[~held])
        engine.fold_again(replace(one, clicks=clicks, gone={}, forgotten=(), held=None), 1)
    return engine


def remember(engine: Engine, rounds: Iterable[Evidence]) -> None:
    """Give a restored engine the visits that these rounds, the newest of all, have made.

    Its open sessions go on with theirs.
    """
    counts, is_known = engine.settings.admission.is_on, engine.vocabulary.__contains__
    past = retrace(engine.settings, rounds, is_known if counts else None)
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
