"""Graph and sessions in the state folder: how an engine gets them back, and writes them at an end.

The folder holds rows of the graph by item, each as of the commit that it names, and the sessions
that were open when a sweep began. Where the newest sweep began that is over, of those that wrote to
the folder and of those that wrote to `model-state`, is from where evidence is folded again.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
import numpy as np

from core.engine import Engine
from core.graph.counting import Entries
from core.graph.slabs import LOCAL, TOPIC
from core.graph.written import Node, Opened, Scale, load_nodes, load_sessions
from streamer.errors import WalkstreamError
from streamer.state import packing, records
from streamer.state.records import Swept
from streamer.state.store import POINTER, Store
from streamer.worker.sweeping import Sweeping, as_entries

T = TypeVar("T")

ALL = 1 << 60
"""More records, or bytes, than there are."""


def swept(store: Store, key: bytes) -> Swept | None:
    """Where the last sweep of this kind began: POINTER for the folder's, or `records.SWEPT`."""
    value = store.meta(key)
    return None if value is None else msgspec.msgpack.decode(value, type=Swept)


def of(store: Store, engine: Engine, key: bytes) -> Sweeping:
    """Sweeps of this kind, which go on behind what the folder knows of earlier ones."""
    stored = {0: 0, 1: 0}
    prefix = key + records.SESSIONS
    for name, _ in store.scan("sessions", prefix):
        turn, number = map(int, name.removeprefix(prefix).split(b"/"))
        stored[turn] = max(stored[turn], number + 1)
    return Sweeping(engine, LOCAL if key == POINTER else TOPIC, swept(store, key), stored)


def all_swept(store: Store) -> dict[bytes, Swept]:
    """Where the last sweep of each kind began that is over."""
    found = {key: swept(store, key) for key in (POINTER, records.SWEPT)}
    return {key: at for key, at in found.items() if at is not None}


def newest(store: Store) -> tuple[bytes, Swept] | None:
    """From where evidence is folded again, and the kind of the sweep; None if no sweep is over.

    Of two that began at the same, the one since which ids are counted has what the other lacks.
    """
    found = all_swept(store).items()
    return max(found, key=lambda one: (one[1].commit, one[1].counted is not None), default=None)


def load(store: Store, engine: Engine) -> Swept | None:
    """Give graph and sessions to an empty engine; returns from where to fold evidence again.

    None, and an empty graph, if no sweep is over. WalkstreamError if sessions are missing.
    """
    found = newest(store)
    half_life = int(engine.settings.graph.half_life)
    if found is None:
        load_nodes(engine.catalogue, [], 0, Scale(0, half_life, 0))
        return None
    kind, at = found
    clock = engine.clock
    clock.time, clock.landmark = at.time, at.landmark
    if at.half_life != half_life:
        clock.landmark = at.time // half_life * half_life
    clock.partitions = np.array(at.clocks, np.int64)
    engine.round_number = at.round
    load_nodes(engine.catalogue, nodes(store), at.commit, engine.scale)
    load_sessions(engine.catalogue, _sessions(store, kind, at))
    if at.counted is not None:
        engine.catalogue.admission.load(_counted(store, kind, at))
    else:  # all that were in the graph then count as admitted
        engine.catalogue.count_by(engine.catalogue.admission.settings)
    return at


def nodes(store: Store) -> Iterator[tuple[bytes, Node]]:
    """All rows of the graph, by item."""
    for key, value in store.scan("graph"):
        yield key, packing.unpack_node(value)


def node(store: Store, item: bytes) -> Node | None:
    value = store.entry("graph", item)
    return None if value is None else packing.unpack_node(value)


def clicks_at(node: Node | None, now: int) -> float:
    """The decayed weight of an item's clicks at this time, ms; 0 without a row."""
    if node is None:
        return 0.0
    return float(node.clicked * 2.0 ** ((node.landmark - now) / node.half_life))


def shown_at(node: Node | None, now: int) -> float:
    """As `clicks_at`, of its impressions."""
    if node is None:
        return 0.0
    return float(node.shown * 2.0 ** ((node.landmark - now) / node.half_life))


def _sessions(store: Store, kind: bytes, at: Swept) -> Iterator[Opened]:
    numbers = range(at.parts - (at.counted or 0))
    return _parts(store, kind, at, numbers, packing.unpack_sessions)


def _counted(store: Store, kind: bytes, at: Swept) -> Iterator[Entries]:
    numbers = range(at.parts - (at.counted or 0), at.parts)
    return _parts(store, kind, at, numbers, packing.unpack_counted)


def _parts(
    store: Store, kind: bytes, at: Swept, numbers: range, unpack: Callable[[bytes], tuple[int, T]]
) -> Iterator[T]:
    for number in numbers:
        value = store.entry("sessions", kind + records.sessions_key(at.turn, number))
        commit, some = (None, None) if value is None else unpack(value)
        if some is None or commit != at.commit:
            what = "missing" if some is None else f"of commit {commit}"
            raise WalkstreamError(
                f"{store.path}: of the sessions that were open at commit {at.commit}, part "
                f"{number} of {at.parts} is {what}: the folder is damaged. Delete it, and the "
                "worker makes it anew from Kafka"
            )
        yield some


def sessions(store: Store) -> int:
    """How many sessions the folder has."""
    found = newest(store)
    return 0 if found is None else sum(len(part.users) for part in _sessions(store, *found))


def size(store: Store) -> tuple[int, int]:
    """Nodes and arcs of the folder's graph."""
    count = arcs = 0
    for _, one in nodes(store):
        count += 1
        arcs += len(one.neighbours)
    return count, arcs


def save(store: Store, engine: Engine, commit: int, offset: int) -> int:
    """Write all that is not written yet, as of this commit, in one go; returns the rows written.

    Only while the engine is as it was after that commit.
    """
    sweeping = of(store, engine, POINTER)
    sweeping.begin(commit, offset)
    written = sweeping.take(commit, ALL, ALL)
    store.write_entries(as_entries(written, POINTER))
    return written.records
