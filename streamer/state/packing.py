"""Rows of the graph, sessions and centroids as bytes, in `model-state` and in the state folder."""

import zlib

import msgspec
import numpy as np

from core.graph.counting import Entries
from core.graph.written import Node, Opened
from core.placing.placement import Placement
from core.placing.rules import Rules
from core.ranking.experts import EXPERTS
from core.ranking.fusion import FEATURES, HEADS, Fusion
from core.settings import Duration, GraphSettings, SessionSettings, Settings

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


class _Counted(msgspec.Struct, array_like=True):
    """Some ids that are counted, or admitted; columns are little-endian."""

    commit: int
    ids: bytes
    time: bytes
    clicks: bytes
    event: bytes
    users: bytes


class _Rules(msgspec.Struct, array_like=True):
    depth: int
    order: list[str]
    names: list[tuple[str, ...]]
    sizes: list[int]


class _Placement(msgspec.Struct, omit_defaults=True):
    epoch: int
    fitted_at: int
    centre: bytes
    centroids: bytes
    founded: int = 0
    rules: bytes = b""
    """Compressed `_Rules`, if there are any."""
    bits: int = 0
    bits_since: int = 0


class _Fusion(msgspec.Struct):
    """What `hybrid` ranks by, and what it takes to go through the newest clicks once more; arrays
    are little-endian float64, by head."""

    experts: list[str]
    features: list[str]
    shares: bytes
    weights: bytes
    squares: bytes
    losses: bytes
    trials: int
    gap: int
    """`session.gap`, `graph.half_life` in ms, and `session.visits`."""
    half_life: int
    visits: int


def pack_fusion(fusion: Fusion, settings: Settings) -> bytes:
    shares, weights, squares, losses = (
        column.astype("<f8").tobytes()
        for column in (fusion.shares, fusion.weights, fusion.squares, fusion.losses)
    )
    return _to_msgpack(
        _Fusion(
            list(EXPERTS), list(FEATURES), shares, weights, squares, losses, fusion.trials,
            int(settings.session.gap), int(settings.graph.half_life), settings.session.visits,
        )
    )  # fmt: skip


def unpack_fusion(value: bytes) -> tuple[Fusion, Settings]:
    """The ranker, a new one if it was of other experts or is no numbers, and what visits follow
    from. ValueError if it is none."""
    p = msgspec.msgpack.decode(value, type=_Fusion)
    settings = Settings(
        session=SessionSettings(gap=Duration(p.gap), visits=p.visits),
        graph=GraphSettings(half_life=Duration(p.half_life)),
    )
    if (p.experts, p.features) != (list(EXPERTS), list(FEATURES)):
        return Fusion.new(), settings
    shares, weights, squares, losses = (
        np.frombuffer(column, "<f8").reshape(len(HEADS), -1).copy()
        for column in (p.shares, p.weights, p.squares, p.losses)
    )
    learned, new = Fusion(shares, weights, squares, losses, p.trials), Fusion.new()
    for name in ("shares", "weights", "squares", "losses"):
        if getattr(learned, name).shape != getattr(new, name).shape:
            raise ValueError(f"{name} of shape {getattr(learned, name).shape}")
    if not 0 <= p.trials < 2**63:
        raise ValueError(f"{p.trials} trials")
    sound = all(np.isfinite(column).all() for column in (shares, weights, squares, losses))
    return learned if sound else new, settings


def pack_node(node: Node) -> bytes:
    # An item without impressions is written as before there were any.
    return _to_msgpack(node if node.shown else node[:-1])


def unpack_node(value: bytes) -> Node:
    return msgspec.msgpack.decode(value, type=Node)


class _Cut(msgspec.Struct, array_like=True):
    """The first field of a `Node`; what follows is passed over."""

    cut: int


cut_of = msgspec.msgpack.Decoder(_Cut).decode
"""Of a packed node only what says as of which commit it was folded: most are looked at for that."""


def pack_sessions(commit: int, some: Opened) -> bytes:
    packed = _Sessions(
        commit, some.users, some.time.astype("<i8").tobytes(), some.clicks.astype("<i4").tobytes(),
        some.partition.astype("<i4").tobytes(), some.event_ids.astype("<u8").tobytes(), some.ids,
        some.items.astype("<i4").tobytes(),
    )  # fmt: skip
    return zlib.compress(_to_msgpack(packed), 1)


def unpack_sessions(value: bytes) -> tuple[int, Opened]:
    """The commit at which the sessions were open, and these."""
    return _opened(zlib.decompress(value))


def _opened(inflated: bytes) -> tuple[int, Opened]:
    p = msgspec.msgpack.decode(inflated, type=_Sessions)
    n = len(p.users)
    return p.commit, Opened(
        p.users, np.frombuffer(p.time, "<i8"), np.frombuffer(p.clicks, "<i4"),
        np.frombuffer(p.partition, "<i4"), np.frombuffer(p.event_ids, "<u8").reshape(n, -1),
        p.ids, np.frombuffer(p.items, "<i4").reshape(n, -1),
    )  # fmt: skip


def pack_counted(commit: int, some: Entries) -> bytes:
    packed = _Counted(
        commit, some.ids.astype("<u8").tobytes(), some.time.astype("<i8").tobytes(),
        some.clicks.astype("<i4").tobytes(), some.event.astype("<u4").tobytes(),
        some.users.astype("<u4").tobytes(),
    )  # fmt: skip
    return zlib.compress(_to_msgpack(packed), 1)


def unpack_counted(value: bytes) -> tuple[int, Entries]:
    """The commit at which the ids were so, and these."""
    return _entries(zlib.decompress(value))


def _entries(inflated: bytes) -> tuple[int, Entries]:
    p = msgspec.msgpack.decode(inflated, type=_Counted)
    ids = np.frombuffer(p.ids, "<u8")
    event, users = np.frombuffer(p.event, "<u4"), np.frombuffer(p.users, "<u4")
    events, width = (len(one) // max(1, len(ids)) for one in (event, users))
    return p.commit, Entries(
        ids, np.frombuffer(p.time, "<i8"), np.frombuffer(p.clicks, "<i4"),
        event.reshape(len(ids), events), users.reshape(len(ids), width),
    )  # fmt: skip


def unpack_either(value: bytes) -> tuple[int, Opened | Entries]:
    """What `pack_sessions` or `pack_counted` made, told apart by the number of fields."""
    inflated = zlib.decompress(value)
    fields = msgspec.msgpack.decode(inflated, type=list[msgspec.Raw])
    is_counted = len(fields) == len(_Counted.__struct_fields__)
    return _entries(inflated) if is_counted else _opened(inflated)


def pack_placement(placement: Placement) -> bytes:
    return _to_msgpack(
        _Placement(
            placement.epoch,
            placement.fitted_at,
            placement.centre.tobytes(),
            placement.centroids.tobytes(),
            placement.founded,
            b"" if placement.rules is None else _pack_rules(placement.rules),
            placement.bits,
            placement.bits_since,
        )
    )


def _pack_rules(rules: Rules) -> bytes:
    packed = _Rules(rules.depth, rules.order, rules.names, rules.sizes)
    return zlib.compress(_to_msgpack(packed), 1)


def _unpack_rules(value: bytes) -> Rules:
    p = msgspec.msgpack.decode(zlib.decompress(value), type=_Rules)
    return Rules(p.depth, p.order, p.names, p.sizes)


def unpack_placement(value: bytes | None, dim: int) -> Placement:
    """An empty one, if there is no record."""
    if value is None:
        return Placement.empty()
    p = msgspec.msgpack.decode(value, type=_Placement)
    centroids = np.frombuffer(p.centroids, np.float32).reshape(-1, dim)
    rules = _unpack_rules(p.rules) if p.rules else None
    centre = np.frombuffer(p.centre, np.float32)
    return Placement(
        p.epoch, p.fitted_at, centre, centroids, p.founded, rules, p.bits, p.bits_since
    )  # fmt: skip
