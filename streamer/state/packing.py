"""Rows of the graph, sessions and centroids as bytes, in `model-state` and in the state folder."""

import zlib

import msgspec
import numpy as np

from core.graph.written import Node, Opened
from core.placing.placement import Placement

_to_msgpack = msgspec.msgpack.Encoder().encode


class _Sessions(msgspec.Struct, array_like=True):
    """Some open sessions; columns are little-endian."""

    commit: int
    users: list[str]
    time: bytes
    clicks: bytes
    partition: bytes
    event_ids: bytes
    ids: list[str]
    items: bytes


class _Placement(msgspec.Struct):
    epoch: int
    fitted_at: int
    centre: bytes
    centroids: bytes


def pack_node(node: Node) -> bytes:
    return _to_msgpack(node)


def unpack_node(value: bytes) -> Node:
    return msgspec.msgpack.decode(value, type=Node)


def pack_sessions(commit: int, some: Opened) -> bytes:
    packed = _Sessions(
        commit, some.users, some.time.astype("<i8").tobytes(), some.clicks.astype("<i4").tobytes(),
        some.partition.astype("<i4").tobytes(), some.event_ids.astype("<u8").tobytes(), some.ids,
        some.items.astype("<i4").tobytes(),
    )  # fmt: skip
    return zlib.compress(_to_msgpack(packed), 1)


def unpack_sessions(value: bytes) -> tuple[int, Opened]:
    """The commit at which the sessions were open, and these."""
    p = msgspec.msgpack.decode(zlib.decompress(value), type=_Sessions)
    n = len(p.users)
    return p.commit, Opened(
        p.users, np.frombuffer(p.time, "<i8"), np.frombuffer(p.clicks, "<i4"),
        np.frombuffer(p.partition, "<i4"), np.frombuffer(p.event_ids, "<u8").reshape(n, -1),
        p.ids, np.frombuffer(p.items, "<i4").reshape(n, -1),
    )  # fmt: skip


def pack_placement(placement: Placement) -> bytes:
    return _to_msgpack(
        _Placement(
            placement.epoch,
            placement.fitted_at,
            placement.centre.tobytes(),
            placement.centroids.tobytes(),
        )
    )


def unpack_placement(value: bytes, dim: int) -> Placement:
    p = msgspec.msgpack.decode(value, type=_Placement)
    centroids = np.frombuffer(p.centroids, np.float32).reshape(-1, dim)
    return Placement(p.epoch, p.fitted_at, np.frombuffer(p.centre, np.float32), centroids)
