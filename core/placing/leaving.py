"""Which rows leave with a commit: the ones that moved, the furthest first, and the ones that must.

A row leaves when its vector is worth publishing, and with it. What moved less stays behind in
memory, and is learned again in kind by whoever has to go on from what was written. Nothing here
costs more than the rows that were touched, and the ones that wait, but a look at one
flag of each row.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.model import Model
from core.placing.clusters import unit_rows
from core.placing.drift import drift
from core.placing.placement import Placement, Placer
from core.settings import Settings

LENGTH = 0.05
"""A row leaves when its vector's length is off by this share from what was published."""
NUDGE = 0.25
"""Where a vector belongs is judged anew when it moved by this share of `publish.min_drift`."""
FAR = 5.0
"""What moved so many times the drift does not wait for `publish.min_interval`."""
FAR_AWAY = np.iinfo(np.int64).max
"""The time of what waits for nothing."""
AT_ONCE = np.float32(np.inf)
"""How far a vector moved that nobody knows yet."""


@dataclass(frozen=True)
class Left:
    """The rows that leave with a commit. All arrays but `slots` are of the published ones."""

    slots: NDArray[np.int32]
    """The rows that leave, ascending."""
    published: NDArray[np.int64]
    """Which of them have a vector to publish: indices into `slots`."""
    vectors: NDArray[np.float32]
    contexts: NDArray[np.float32]
    lengths: NDArray[np.float32]
    """Those of hidden and context vector, shape (n, 2)."""
    drift: NDArray[np.float32]
    """Of those that were published before."""
    cluster_moves: int
    """Items published before whose cluster is another."""
    bucket_moves: int
    """Buckets that items published before left for others, one for each table."""


@dataclass
class Leaving:
    """The rows of one model that wait to leave."""

    settings: Settings
    placer: Placer
    waiting: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Slots of rows that moved far enough, in no order."""
    any_stale: bool = False
    """Whether rows may be marked as stale."""
    due_at: int = FAR_AWAY
    """When the next of those that wait may leave, ms."""
    stale: int = 0
    """How many were left so after the last commit."""
    space_from: int = 0
    """The first version of the vector space: what was published with a lower one is of another."""

    def relabel(self, new: NDArray[np.int32]) -> None:
        """`new[old slot]` is the new slot, or -1."""
        moved = new[self.waiting]
        self.waiting = moved[moved >= 0]

    def judge(self, model: Model, placement: Placement) -> NDArray[np.int32]:
        """Look at all rows that were touched since the last look, and return them, ascending.

        Those that moved far enough wait from now on.
        """
        c, r = model.columns, model.rows
        dirty = np.flatnonzero(r.dirty).astype(np.int32)
        r.dirty[dirty] = False
        slots = dirty[c.alive[dirty]]
        waited = c.moved[slots] > 0
        c.moved[slots] = moved = self._moved(model, placement, slots)
        stays = self.waiting[c.moved[self.waiting] > 0]
        self.waiting = np.concatenate([stays, slots[(moved > 0) & ~waited]])
        return slots

    def _moved(
        self, model: Model, placement: Placement, slots: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """How far rows moved, as a multiple of what makes them leave; 0 for those that stay."""
        c, least = model.columns, self.settings.publish.min_drift
        is_item = c.is_item[slots]
        known = np.where(is_item, c.published[slots], c.version[slots]) > 0
        if least == 0:
            return np.where(known, np.float32(1), AT_ONCE)
        far, lengths = drift(model, slots)
        # An attribute moves many items at a time.
        share = far / np.where(is_item, least, least / 2).astype(np.float32)
        was = c.norms[slots]
        longer = (np.abs(lengths - was) > LENGTH * was).any(axis=1)
        out = np.where(share >= 1, share, longer.astype(np.float32))
        nudged = np.flatnonzero(is_item & known & (share >= NUDGE) & (out == 0))
        rows = slots[nudged]
        placed = self.placer.place(placement, model, rows)
        elsewhere = (placed.cluster != c.cluster[rows]) | (placed.buckets != c.buckets[rows]).any(1)
        out[nudged[elsewhere]] = 1
        out[~known] = AT_ONCE
        out[is_item & ~ready(model, slots)] = 0
        return out

    def choose(
        self, model: Model, must: NDArray[np.int32], held: NDArray[np.int32], room: int,
        budget: int, now: int,
    ) -> NDArray[np.int32]:  # fmt: skip
        """The slots whose rows leave now, ascending.

        `must` leave in any case, and of the others none that is `held`. Of these what moved
        furthest comes first, then the stale ones by birth, as far as `room` for records and the
        `budget` of vectors go. `now` (ms) is what `publish.min_interval` goes by.
        """
        c, interval = model.columns, int(self.settings.publish.min_interval)
        self.waiting = self.waiting[c.alive[self.waiting]]
        leaves = np.zeros(len(c.alive), np.bool_)
        leaves[held] = True
        moved = self.waiting[~leaves[self.waiting]]
        if interval:
            moved = moved[(c.sent[moved] <= now - interval) | (c.moved[moved] >= FAR)]
        most = min(room, budget + int((~c.is_item[moved]).sum()))
        if len(moved) > most:
            most = max(most, 1)
            moved = moved[np.argpartition(-c.moved[moved], most - 1)[:most]]
        moved = moved[np.lexsort((moved, -c.moved[moved]))]
        out = must
        room -= int(_records(model, must).sum())
        budget -= int(c.is_item[must].sum())
        stale = self._stale(model)
        for queue in (moved, stale):
            leaves[out] = True
            queue = queue[~leaves[queue]]
            records, items = np.cumsum(_records(model, queue)), np.cumsum(c.is_item[queue])
            within = int(min((records <= room).sum(), (items <= budget).sum()))
            if within:
                room, budget = room - int(records[within - 1]), budget - int(items[within - 1])
                out = np.concatenate([out, queue[:within]])
        leaves[out], leaves[held] = True, False
        self.stale = int((~leaves[stale]).sum())
        return np.sort(out)

    def _stale(self, model: Model) -> NDArray[np.int32]:
        if not self.any_stale:
            return np.zeros(0, np.int32)
        stale = np.flatnonzero(model.columns.stale & model.columns.alive).astype(np.int32)
        self.any_stale = len(stale) > 0
        return stale

    def leave(self, model: Model, placement: Placement, slots: NDArray[np.int32], now: int) -> Left:
        """Place these rows, whose `version` is the new one, and note that they are published."""
        c, r = model.columns, model.rows
        # What came back, and is not learned yet, must not stay with a vector of another space.
        is_of_another = (c.published[slots] > 0) & (c.published[slots] < self.space_from)
        published = np.flatnonzero(ready(model, slots) | is_of_another)
        rows = slots[published]
        placed = self.placer.place(placement, model, rows)
        known = c.published[rows] > 0
        moved_cluster = known & (placed.cluster != c.cluster[rows])
        moved_buckets = known[:, None] & (placed.buckets != c.buckets[rows])
        far, lengths = drift(model, rows)
        attributes = slots[~c.is_item[slots]]
        c.cluster[rows], c.buckets[rows], c.epoch[rows] = (
            placed.cluster, placed.buckets, placement.epoch,
        )  # fmt: skip
        c.pub_v[rows], c.pub_u[rows], c.norms[rows] = placed.vectors, placed.contexts, lengths
        c.pub_v[attributes] = unit_rows(r.v[attributes])
        c.pub_u[attributes] = unit_rows(r.u[attributes])
        c.norms[attributes] = drift(model, attributes)[1]
        c.published[rows] = c.version[rows]
        c.sent[rows] = now
        c.stale[slots], c.moved[slots], r.dirty[slots] = False, 0, False
        self.waiting = self.waiting[c.moved[self.waiting] > 0]
        interval = int(self.settings.publish.min_interval)
        held = c.sent[self.waiting] + interval * (c.moved[self.waiting] < FAR)
        self.due_at = int(held.min(initial=FAR_AWAY))
        return Left(
            slots, published, placed.vectors, placed.contexts, lengths, far[known],
            int(moved_cluster.sum()), int(moved_buckets.sum()),
        )  # fmt: skip


def ready(model: Model, slots: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of these rows have a vector to publish: items that were learned or described."""
    c, attrs = model.columns, model.rows.attrs[slots]
    return c.is_item[slots] & ((c.updates[slots] > 0) | (attrs >= 0).any(axis=1))


def _records(model: Model, slots: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many records each of these rows takes: itself, and an item's vector."""
    return np.int64(1) + model.columns.is_item[slots]
