"""How an engine comes back: evidence is folded into its graph, and then rows are taken in."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import NEVER
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode, encode, is_attribute
from core.rounds import Evidence
from core.rows import Packed

if TYPE_CHECKING:
    from core.engine import Engine


def fold_again(engine: "Engine", evidence: Evidence, commit: int) -> None:
    """Fold what a round of this commit did, into the rows of the graph that do not have it.

    Between `core.graph.written.load_nodes` and `load_rows`, in the order of the rounds.
    `Catalogue.count_by` says by which settings ids were counted then.
    """
    g = engine.graph
    g.catch_up(commit, engine.clock.landmark, int(engine.settings.graph.half_life))
    engine.round_number = max(engine.round_number, evidence.round_number)
    engine.sessions.forget(evidence.forgotten)
    engine.ownership.dropped |= dict.fromkeys(evidence.gone, evidence.round_number)
    if evidence.gone:
        slots = engine.vocabulary.intern(list(evidence.gone))
        engine.catalogue.reserve()
        # A row of a later commit does not say when it was clicked before this one.
        since = np.array(list(evidence.gone.values()), np.int64)
        slots = slots[(g.cut[slots] >= commit) | (g.last_seen[slots] < since)]
        # What comes back as it is described, its row alone knows the birth of.
        engine.model.columns.born_round[slots[g.cut[slots] < commit]] = 0
        dead = np.zeros(len(g.degree), np.bool_)
        dead[slots] = True
        engine.sessions.end_with(dead)
        g.drop(slots, commit)
        engine.catalogue.admission.leave(evidence.gone)
    engine.intake.fold(evidence.clicks, commit)
    c = engine.model.columns
    for name, rank in evidence.births.items():
        slot = engine.vocabulary.get(name)
        if slot is not None and g.cut[slot] < commit:
            c.born_round[slot], c.born_rank[slot] = evidence.round_number, rank


def load_rows(
    engine: "Engine", parts: Iterable[Packed],
    attributes: Callable[[str], Sequence[str]] = lambda item: (),
) -> None:  # fmt: skip
    """Take all packed rows into an engine whose graph and sessions are already restored.

    `attributes` gives the tokens of an item; it is asked now, and again when an item that left
    is clicked once more. A node without a row gets its first one. Afterwards slots are in the
    order of birth, and the engine goes on as the one that packed the rows would have: bit for
    bit, if `publish.min_drift` is 0.
    """
    engine.catalogue.attributes = attributes
    g = engine.graph
    half_life = int(engine.settings.graph.half_life)
    engine.clock.landmark = g.end_again(engine.clock.landmark, half_life)
    engine.model.age(engine.clock.time)
    engine._relabel(take_rows(engine.catalogue, parts))
    if engine.clock.time != NEVER:
        # Items that came with attributes before any click have aged since the first one.
        unseen = g.last_seen[engine.items] == NEVER
        g.last_seen[engine.items[unseen]] = engine.clock.time
    engine.catalogue.count_by(engine.settings.admission_ms)
    engine.tell_centroids()
    engine.catalogue.recall_all()
    engine.ownership.drop_again()
    engine.ownership.find_what_waits(
        engine.items, engine.placement.epoch, engine.publish_from, engine.outdated
    )


def take_rows(catalogue: Catalogue, parts: Iterable[Packed]) -> NDArray[np.int64]:
    """Give all nodes and all packed rows a row, and let the rest leave.

    Returns the living slots in the order of birth.
    """
    g, vocabulary = catalogue.graph, catalogue.vocabulary
    nodes = np.flatnonzero(g.last_seen != NEVER).astype(np.int32)
    _first_rows(catalogue, nodes[nodes < len(vocabulary)])
    for keys, rows in parts:
        slots = vocabulary.intern([decode(key) for key in keys])
        catalogue.reserve()
        _first_rows(catalogue, slots[~catalogue.model.columns.alive[slots]])
        catalogue.model.unpack(slots, rows)
        # A row may be of an earlier life of its item, and evidence is not.
        seen = g.last_seen[slots]
        g.last_seen[slots] = np.where(seen == NEVER, rows["last_seen"], seen)
    c = catalogue.model.columns
    dead = ~c.alive[: len(g.degree)]
    catalogue.sessions.end_with(dead)
    g.evicted[dead] = 1  # who holds arcs to them is not known
    g.drop(np.flatnonzero(dead))
    g.find_one_sided()
    born = np.flatnonzero(c.alive[: len(vocabulary)])
    return born[np.lexsort((c.born_rank[born], c.born_round[born]))]


def _first_rows(catalogue: Catalogue, slots: NDArray[np.int32]) -> None:
    """Give slots that have none a first row. Where they were born is known already."""
    model = catalogue.model
    names = catalogue.vocabulary.names(slots)
    keys = [encode(name) for name in names]
    is_item = np.array([not is_attribute(name) for name in names], np.bool_)
    placed = hash_keys(keys, catalogue.partitions)
    model.first_rows(slots, *placed, ("born_round", "born_rank"), is_item)
    model.rows.dirty[slots] = False
    model.columns.is_item[slots] = is_item
