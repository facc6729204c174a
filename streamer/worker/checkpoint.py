"""Checkpoints in the state folder: graph and sessions, and the offsets that they stand for.

They are a function of the log of clicks, so a restart may fold the clicks since the checkpoint, and
is where the worker was. Rows are not part of it: they come from `model-state`.
"""

import logging
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.graph import NEVER
from core.ids.vocabulary import decode, encode
from core.settings import Settings
from streamer.decode.ahead import Window
from streamer.errors import Refused
from streamer.kafka.clients import Partition, partition_name
from streamer.store import ORIGIN, Entry, Store, applied_now
from streamer.store import POINTER as POINTER

log = logging.getLogger(__name__)

FOLDED = ("graph", "sessions")

ARC_BYTES = 8
_SLOT = struct.Struct(">I")
_NODE = struct.Struct("<Hq")
"""Length of the id and time last seen, ahead of the id, the neighbours' slots and the weights."""
_SESSION = struct.Struct("<qiH")
"""Time, clicks and number of event ids, ahead of the hashes of those and the slots of the items."""
_ID_BYTES = 8


class Pointer(msgspec.Struct):
    """What graph and sessions of the folder stand for."""

    time: int
    landmark: int
    round_number: int
    offsets: dict[str, int]
    """Next offset to fold, by `topic/partition`, of every clicks partition ever held."""
    scale: dict[str, int]
    """The settings by which it was folded: with others its weights mean something else."""
    windows: dict[int, Window] = {}
    """By clicks partition, what is remembered of the times before those offsets."""


class Node(NamedTuple):
    """A row of the graph."""

    key: bytes
    seen: int
    """When the item was last clicked, ms."""
    nbr: NDArray[np.int32]
    """Slots of the neighbours, in this checkpoint."""
    wgt: NDArray[np.float32]
    """Their weights, on the scale of the checkpoint's landmark."""


def pointer(store: Store) -> Pointer | None:
    """The checkpoint of the folder, if it has one."""
    value = store.meta(POINTER)
    return msgspec.msgpack.decode(value, type=Pointer) if value else None


def windows(store: Store) -> Mapping[int, Window]:
    """What is remembered of the times before the offsets of the checkpoint, if there is one."""
    saved = pointer(store)
    return saved.windows if saved else {}


def scale(settings: Settings) -> dict[str, int]:
    """Settings that graph and sessions of a checkpoint depend on."""
    return {
        "graph.half_life": int(settings.graph.half_life),
        "graph.max_degree": settings.graph.max_degree,
        "session.gap": int(settings.session.gap),
        "session.length": settings.session.length,
        "session.max_events": settings.session.max_events,
        "session.event_ids": settings.session.event_ids,
    }


def check_scale(store: Store, settings: Settings) -> None:
    """Refused if the checkpoint was made with other settings than these."""
    saved, wanted = pointer(store), scale(settings)
    if saved is not None and saved.scale != wanted:
        differs = [
            f"{key} was {saved.scale.get(key)} and is {value}"
            for key, value in wanted.items()
            if saved.scale.get(key) != value
        ]
        raise Refused(
            f"{store.path}: its graph is that of a replay with other settings "
            f"({'; '.join(differs)}; durations in ms), and cannot be folded anew: its clicks "
            "were never in Kafka. Use the settings of the replay"
        )


def save(
    store: Store, engine: Engine, offsets: Mapping[Partition, int],
    windows: Mapping[int, Window] | None = None,
) -> int:  # fmt: skip
    """Write graph and sessions with the offsets they stand for; returns the rows written.

    Only what changed since the last checkpoint is written, in one batch with the pointer, so that
    there is no state between two checkpoints.
    """
    now = Pointer(
        engine.clock.time,
        engine.clock.landmark,
        engine.round_number,
        {partition_name(partition): offset for partition, offset in offsets.items()},
        scale(engine.settings),
        dict(windows or {}),
    )
    graph, sessions = _graph(store, engine), _sessions(engine)
    meta: list[Entry] = [(POINTER, msgspec.msgpack.encode(now)), applied_now()]
    store.write_entries({"graph": graph, "sessions": sessions, "meta": meta})
    engine.graph.changed[:] = False
    engine.sessions.changed[:] = False
    engine.sessions.ended.clear()
    return len(graph) + len(sessions)


def _graph(store: Store, engine: Engine) -> list[Entry]:
    graph, names = engine.graph, engine.vocabulary.keys
    out: list[Entry] = []
    for slot in np.flatnonzero(graph.changed).tolist():
        name = names[slot] if slot < len(names) else None
        if name is None or graph.last_seen[slot] == NEVER:
            out.append((_SLOT.pack(slot), None))
            continue
        key = encode(name)
        nbr, wgt = graph.row(slot)
        head = _NODE.pack(len(key), int(graph.last_seen[slot])) + key
        arcs = nbr.astype("<i4").tobytes() + wgt.astype("<f4").tobytes()
        out.append((_SLOT.pack(slot), head + arcs))
    # Slots are numbered anew after a restart, and there may be fewer of them.
    out += [(_SLOT.pack(slot), None) for slot in range(len(names), _stored_slots(store))]
    return out


def _sessions(engine: Engine) -> list[Entry]:
    sessions = engine.sessions
    # A user whose session ended may have begun another: that one is written after the deletion.
    out: list[Entry] = [(user.encode(), None) for user in sessions.ended]
    for row in np.flatnonzero(sessions.changed & (sessions.size > 0)).tolist():
        items = sessions.items[row, : sessions.size[row]]
        ids = sessions.event_ids[row]
        ids = ids[ids != 0]
        head = _SESSION.pack(int(sessions.time[row]), int(sessions.clicks[row]), len(ids))
        user = sessions.names[row] or ""
        value = head + ids.astype("<u8").tobytes() + items.astype("<i4").tobytes()
        out.append((user.encode(), value))
    return out


def _stored_slots(store: Store) -> int:
    last = store.last_key("graph")
    return 0 if last is None else int(_SLOT.unpack(last)[0]) + 1


def set_offsets(store: Store, offsets: Mapping[Partition, int]) -> None:
    """Say which offsets the graph that is in the folder stands for, of clicks of another topic."""
    now = pointer(store)
    if now is not None:
        now.offsets = {partition_name(partition): offset for partition, offset in offsets.items()}
        now.windows = {}
        store.set_meta({POINTER: msgspec.msgpack.encode(now)})


def nodes(store: Store) -> Iterator[tuple[int, Node]]:
    """The checkpoint's graph: slots, ascending, and what stands there."""
    for slot, value in store.scan("graph"):
        yield int(_SLOT.unpack(slot)[0]), _node(value)


def node(store: Store, slot: int) -> Node | None:
    """What stands in a slot of the checkpoint's graph."""
    value = store.entry("graph", _SLOT.pack(slot))
    return None if value is None else _node(value)


def _node(value: bytes) -> Node:
    length, seen = _NODE.unpack_from(value)
    end = _NODE.size + length
    degree = (len(value) - end) // ARC_BYTES
    nbr = np.frombuffer(value, "<i4", degree, end)
    wgt = np.frombuffer(value, "<f4", degree, end + 4 * degree)
    return Node(value[_NODE.size : end], seen, nbr, wgt)


def size(store: Store) -> tuple[int, int]:
    """Nodes and arcs of the checkpoint's graph."""
    count = arcs = 0
    for _, one in nodes(store):
        count += 1
        arcs += len(one.nbr)
    return count, arcs


def load(store: Store, engine: Engine) -> dict[str, int] | None:
    """Give graph and sessions to an empty engine; returns the offsets they stand for.

    None, and nothing given, if there is no checkpoint, or one that other settings made: that one is
    deleted.
    """
    saved = pointer(store)
    if saved is None:
        return None
    if saved.scale != scale(engine.settings):
        if store.meta(ORIGIN) is not None:
            check_scale(store, engine.settings)
        log.warning("graph.* or session.* has changed: the graph is folded from the clicks anew")
        old = {family: [(key, None) for key, _ in store.scan(family)] for family in FOLDED}
        store.write_entries(old | {"meta": [(POINTER, None)]})
        return None
    engine.clock.time, engine.clock.landmark = saved.time, saved.landmark
    engine.round_number = saved.round_number
    rows = list(nodes(store))
    slots = engine.vocabulary.intern([decode(row.key) for _, row in rows])
    new = np.zeros(_stored_slots(store), np.int32)
    new[[number for number, _ in rows]] = slots
    engine.graph.reserve(len(engine.vocabulary))
    for slot, (_, row) in zip(slots.tolist(), rows, strict=True):
        engine.graph.put_row(slot, new[row.nbr], row.wgt, row.seen)
    users, times, clicks, items, event_ids = [], [], [], [], []
    for user, value in store.scan("sessions"):
        time, count, ids = _SESSION.unpack_from(value)
        users.append(user.decode())
        times.append(time)
        clicks.append(count)
        event_ids.append(np.frombuffer(value, "<u8", ids, _SESSION.size))
        slots_at = _SESSION.size + ids * _ID_BYTES
        items.append(new[np.frombuffer(value, "<i4", offset=slots_at)].tolist())
    engine.sessions.load(
        users, np.array(times, np.int64), np.array(clicks, np.int32), items, event_ids
    )
    return saved.offsets
