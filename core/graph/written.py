"""Graph and sessions as they are written: by ids in place of slots, each row by itself.

A row says as of which commit it is folded. So rows may be of different moments, and the evidence
since then is folded into each of them from where it stands (`core.engine.Engine.fold_again`).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.graph.graph import AHEAD, NEVER
from core.graph.slabs import TOPIC, UNWRITTEN
from core.ids.vocabulary import decode, encode

PART = 5000
"""Rows that are loaded at a time."""


class Node(NamedTuple):
    """A row of the graph, folded as of commit `cut`."""

    cut: int
    born_round: int
    born_rank: int
    seen: int
    """When the item was last clicked, ms."""
    clicked: float
    """The decayed weight of its clicks, on the scale of the weights."""
    landmark: int
    half_life: int
    """By which the weights were scaled, ms: w * 2^((t - landmark) / half_life)."""
    evicted: bool
    neighbours: list[bytes]
    """Keys, in the order of the row."""
    weights: bytes
    """float32, little-endian, one for each neighbour."""
    is_swept: bool = True
    """Whether the topic has this state."""
    clicks: int = 0
    """How many clicks of the item count."""
    shown: float = 0.0
    """The decayed weight of its impressions, as `clicked`."""


class Scale(NamedTuple):
    """By which weights are scaled."""

    landmark: int
    half_life: int
    now: int
    """The greatest time of the clicks, ms."""


class Opened(NamedTuple):
    """Some open sessions, n of them. Items are numbered in `ids`."""

    users: list[str]
    time: NDArray[np.int64]
    clicks: NDArray[np.int32]
    partition: NDArray[np.int32]
    event_ids: NDArray[np.uint64]
    """[n, width], 0 past the end."""
    ids: list[str]
    items: NDArray[np.int32]
    """[n, kept], the newest first, -1 past the end."""


def nodes(
    catalogue: Catalogue, slots: NDArray[np.int32], cut: int, scale: Scale, bit: int = TOPIC
) -> list[tuple[bytes, Node]]:
    """The rows of these slots as they are now, by key; nothing for a slot that is no node.

    `bit` says what they are written to (`core.graph.slabs`).
    """
    g, c, keys = catalogue.graph, catalogue.model.columns, catalogue.vocabulary.keys
    out = []
    for slot in slots.tolist():
        if g.last_seen[slot] == NEVER:
            continue
        nbr, wgt = g.row(slot)
        out.append(
            (
                encode(keys[slot] or ""),
                Node(
                    cut, int(c.born_round[slot]), int(c.born_rank[slot]), int(g.last_seen[slot]),
                    float(g.clicked[slot]), scale.landmark, scale.half_life, bool(g.evicted[slot]),
                    [encode(keys[b] or "") for b in nbr.tolist()], wgt.astype("<f4").tobytes(),
                    bit == TOPIC or not g.changed[slot] & TOPIC, int(g.clicks[slot]),
                    float(g.shown[slot]),
                ),
            )
        )  # fmt: skip
    return out


def load_nodes(
    catalogue: Catalogue, found: Iterable[tuple[bytes, Node]], begin: int, scale: Scale
) -> None:
    """Take rows into an empty catalogue, each as of its cut, and at least as of commit `begin`:
    what is older did not change until then.

    A row of a later commit stays on the scale that it was written on until evidence comes there
    (`Graph.catch_up`). One that was written with another half-life is converted through the time
    `scale.now`, or that of its last click if it came later, and is to be written anew.
    """
    g = catalogue.graph
    g.begin_again(begin)
    ahead = [g.ahead]
    for part in _parts(found):
        names = [decode(key) for key, _ in part]
        neighbours = [decode(key) for _, node in part for key in node.neighbours]
        slots = catalogue.vocabulary.intern(names + neighbours)
        catalogue.reserve()
        own, others = slots[: len(part)], slots[len(part) :]
        c = catalogue.model.columns
        degree = np.array([len(node.neighbours) for _, node in part])
        weights = np.frombuffer(b"".join(node.weights for _, node in part), "<f4")
        cut = np.array([node.cut for _, node in part])
        landmark = np.array([node.landmark for _, node in part])
        is_foreign = np.array([node.half_life != scale.half_life for _, node in part])
        is_ahead = (cut > begin) & ~is_foreign
        power = np.array([_power(node, scale) for _, node in part]) * ~is_ahead
        weights = _times(weights, np.repeat(power, degree))
        g.evicted[own] = [node.evicted for _, node in part]
        g.put_rows(own, degree, others, weights)
        g.last_seen[own] = [node.seen for _, node in part]
        g.clicks[own] = [node.clicks for _, node in part]
        for name in ("clicked", "shown"):
            weights = np.array([getattr(node, name) for _, node in part], np.float32)
            getattr(g, name)[own] = _times(weights, power)
        g.cut[own] = np.maximum(cut, begin)
        later = np.zeros(int(is_ahead.sum()), AHEAD)
        later["cut"], later["landmark"], later["slot"] = (
            cut[is_ahead], landmark[is_ahead], own[is_ahead],
        )  # fmt: skip
        ahead.append(later)
        g.changed[own] = [0 if node.is_swept else TOPIC for _, node in part]
        g.changed[own[is_foreign]] |= UNWRITTEN
        c.born_round[own] = [node.born_round for _, node in part]
        c.born_rank[own] = [node.born_rank for _, node in part]
    g.ahead = np.sort(np.concatenate(ahead), order=("cut", "slot"))
    # What others name and has no row may be held by others without a trace here.
    n = len(catalogue.vocabulary)
    g.evicted[:n][g.last_seen[:n] == NEVER] = 1


def _power(node: Node, scale: Scale) -> float:
    """By what power of two weights of a row are multiplied, so that they are on this scale: a whole
    one, that loses nothing, where the half-life is the same."""
    if node.half_life == scale.half_life:
        return float((node.landmark - scale.landmark) // scale.half_life)
    at = max(scale.now, node.seen)  # it may have clicks that came later
    return (at - scale.landmark) / scale.half_life - (at - node.landmark) / node.half_life


def _times(weights: NDArray[np.float32], power: NDArray[np.float64]) -> NDArray[np.float32]:
    """weights * 2^power: exact where the power is whole, and 0 or infinite where it is out of
    reach."""
    whole = np.floor(power)
    with np.errstate(over="ignore", under="ignore"):
        rest = weights * np.exp2(power - whole)
        return np.ldexp(rest, np.clip(whole, -2000, 2000).astype(np.int32)).astype(np.float32)


def _parts(found: Iterable[tuple[bytes, Node]]) -> Iterator[list[tuple[bytes, Node]]]:
    part: list[tuple[bytes, Node]] = []
    for one in found:
        part.append(one)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


class Snapshot:
    """All open sessions of one moment, and all ids that are counted, which are handed out in parts
    later on."""

    def __init__(self, catalogue: Catalogue) -> None:
        s, self._keys = catalogue.sessions, list(catalogue.vocabulary.keys)
        rows = s.open
        names = s.names
        self._users = [names[row] or "" for row in rows.tolist()]
        self._time, self._clicks = s.time[rows], s.clicks[rows]
        self._partition, self._event_ids = s.partition[rows], s.event_ids[rows]
        kept = np.arange(s.items.shape[1])[None, :] < s.size[rows, None]
        self._items = np.where(kept, s.items[rows], -1)
        admission = catalogue.admission
        self.counted = admission.entries() if admission.is_on else None
        """By their hashes; None where all are admitted. Who has them all may let go of them."""

    def __len__(self) -> int:
        return len(self._users)

    def part(self, begin: int, end: int) -> Opened:
        """The sessions from number `begin` up to `end`."""
        at = slice(begin, end)
        slots, numbers = np.unique(self._items[at], return_inverse=True)
        ids = [self._keys[slot] or "" for slot in slots.tolist() if slot >= 0]
        items = numbers.reshape(self._items[at].shape) - (len(slots) - len(ids))
        return Opened(
            self._users[at], self._time[at], self._clicks[at], self._partition[at],
            self._event_ids[at], ids, items.astype(np.int32),
        )  # fmt: skip


def load_sessions(catalogue: Catalogue, parts: Iterable[Opened]) -> None:
    """Take sessions into a catalogue that has none."""
    s = catalogue.sessions
    for part in parts:
        rows = s.intern(part.users)
        slots = catalogue.vocabulary.intern(part.ids)
        catalogue.reserve()
        kept, width = (min(a, b) for a, b in zip(
            (part.items.shape[1], part.event_ids.shape[1]),
            (s.items.shape[1], s.event_ids.shape[1]), strict=True,
        ))  # fmt: skip
        s.time[rows], s.clicks[rows], s.partition[rows] = part.time, part.clicks, part.partition
        items = part.items[:, :kept]
        s.size[rows] = (items >= 0).sum(axis=1)
        named = np.append(slots, 0).astype(np.int32)  # -1 is the last of them: no item
        s.items[rows, :kept] = named[items]
        s.event_ids[rows] = 0
        s.event_ids[rows, :width] = part.event_ids[:, :width]
