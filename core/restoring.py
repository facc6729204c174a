"""Packed rows are taken into a catalogue whose graph and sessions are restored already."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import NEVER
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode, encode, is_attribute

Packed = tuple[Sequence[bytes], NDArray[np.void]]
"""Keys and their packed rows (`core.rows`)."""


def take_rows(
    catalogue: Catalogue, parts: Iterable[Packed]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give all nodes and all packed rows a row, and let the rest leave.

    Returns the living slots in the order of birth, and the time of the last click that the row of
    each knows of (ms).
    """
    g, vocabulary = catalogue.graph, catalogue.vocabulary
    nodes = np.flatnonzero(g.last_seen != NEVER).astype(np.int32)
    _first_rows(catalogue, nodes[nodes < len(vocabulary)])
    heard = np.full(len(g.degree), NEVER)
    for keys, rows in parts:
        slots = vocabulary.intern([decode(key) for key in keys])
        catalogue.reserve()
        if len(g.degree) > len(heard):
            heard = np.concatenate([heard, np.full(len(g.degree) - len(heard), NEVER)])
        _first_rows(catalogue, slots[~catalogue.model.columns.alive[slots]])
        catalogue.model.unpack(slots, rows)
        heard[slots] = rows["last_seen"]
        g.last_seen[slots] = np.maximum(g.last_seen[slots], rows["last_seen"])
    c = catalogue.model.columns
    dead = ~c.alive[: len(g.degree)]
    catalogue.sessions.end_with(dead)
    g.evicted[dead] = 1  # who holds arcs to them is not known
    g.drop(np.flatnonzero(dead))
    g.find_one_sided()
    born = np.flatnonzero(c.alive[: len(vocabulary)])
    order = born[np.lexsort((c.born_rank[born], c.born_round[born]))]
    return order, heard[order]


def _first_rows(catalogue: Catalogue, slots: NDArray[np.int32]) -> None:
    """Give slots that have none a first row. Where they were born is known already."""
    model = catalogue.model
    born = model.columns.born_round[slots].copy(), model.columns.born_rank[slots].copy()
    names = catalogue.vocabulary.names(slots)
    keys = [encode(name) for name in names]
    model.first_rows(slots, *hash_keys(keys, catalogue.partitions))
    model.rows.dirty[slots] = False
    model.columns.born_round[slots], model.columns.born_rank[slots] = born
    model.columns.is_item[slots] = [not is_attribute(name) for name in names]
