"""Packed rows are taken into a catalogue whose graph and sessions are restored already."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import NEVER
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode, encode, is_attribute
from core.rows import Packed


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
    model.first_rows(slots, *hash_keys(keys, catalogue.partitions), ("born_round", "born_rank"))
    model.rows.dirty[slots] = False
    model.columns.is_item[slots] = [not is_attribute(name) for name in names]
