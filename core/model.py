"""All model rows, by slot: the learned vectors, and the columns beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER
from core.ids.hashing import mix
from core.learning.adagrad import Pace, decayed, landmark_of, rescaled
from core.learning.mixing import OWN
from core.learning.skipgram import Rows
from core.learning.tiers import ALL, cut, dims_for
from core.placing.clusters import NONE
from core.rows import dims_of, marks_of, row_dtype
from core.settings import Settings


@dataclass
class Columns:
    """One entry a slot, beside the learned `Rows`."""

    alive: NDArray[np.bool_]
    is_item: NDArray[np.bool_]  # False: the row of an attribute
    partition: NDArray[np.int32]  # item partition, as Kafka places the key
    born_round: NDArray[np.int64]
    born_rank: NDArray[np.int32]
    updates: NDArray[np.int64]  # times the item was a centre
    dims: NDArray[np.int16]  # that its row has, 0 for all (`core.learning.tiers`)
    epoch: NDArray[np.int32]
    cluster: NDArray[np.int32]
    buckets: NDArray[np.uint64]
    version: NDArray[np.int64]  # of the row as last written, 0 if never
    published: NDArray[np.int64]  # version last published, 0 if never
    norms: NDArray[np.float32]  # lengths of V and U as last published
    pub_v: NDArray[np.float16]  # unit rows as last published; of an attribute, as last written
    pub_u: NDArray[np.float16]
    described: NDArray[np.uint64]  # hash of the attributes, 0 for none
    stale: NDArray[np.bool_]  # to be written, and published, whatever the drift
    moved: NDArray[np.float32]  # drift when it was last looked at
    heard: NDArray[np.int32]  # how many clicks the row as written knows of
    sent: NDArray[np.int64]  # when it was last published, ms; not packed
    users: NDArray[np.int32]  # of an attribute: items that have it


class Model:
    """The arrays of `Rows` and `Columns`, grown together."""

    def __init__(
        self, settings: Settings, partitions: int = 1, beside: "Model | None" = None
    ) -> None:
        """With `beside`, a model of the same slots that learns beside that one, and begins as it
        is: it is never published, and of its columns only `updates` and `dims` mean something."""
        self.owns: NDArray[np.bool_] = (
            np.ones(partitions, np.bool_) if beside is None else beside.owns
        )
        """Of which item partitions the rows may be changed here (`core.ownership`)."""
        dim, extra = settings.model.dim, settings.model.attribute_slots
        told, tables = (dim, settings.lsh.tables) if beside is None else (0, 0)
        self.settings = settings
        self.has_narrow = False
        """Whether there may be rows that have fewer dims than the others."""
        self.landmark = NEVER
        """That of all that decays in `rows`, ms."""
        self.time = NEVER
        """The latest that it was told of, ms."""
        self.dtype = row_dtype(dim, extra, tables)
        self.rows = Rows(
            v=np.zeros((0, dim), np.float32),
            u=np.zeros((0, dim), np.float32),
            acc_v=np.zeros(0, np.float32),
            acc_u=np.zeros(0, np.float32),
            mix=np.zeros((0, 1 + extra), np.float32),
            attrs=np.zeros((0, extra), np.int32),
            dirty=np.zeros(0, np.bool_),
            owned=np.zeros(0, np.bool_),
        )
        self.columns = Columns(
            alive=np.zeros(0, np.bool_),
            is_item=np.zeros(0, np.bool_),
            partition=np.zeros(0, np.int32),
            born_round=np.zeros(0, np.int64),
            born_rank=np.zeros(0, np.int32),
            updates=np.zeros(0, np.int64),
            dims=np.zeros(0, np.int16),
            epoch=np.zeros(0, np.int32),
            cluster=np.zeros(0, np.int32),
            buckets=np.zeros((0, tables), np.uint64),
            version=np.zeros(0, np.int64),
            published=np.zeros(0, np.int64),
            norms=np.zeros((0, 2), np.float32),
            pub_v=np.zeros((0, told), np.float16),
            pub_u=np.zeros((0, told), np.float16),
            described=np.zeros(0, np.uint64),
            stale=np.zeros(0, np.bool_),
            moved=np.zeros(0, np.float32),
            heard=np.zeros(0, np.int32),
            sent=np.zeros(0, np.int64),
            users=np.zeros(0, np.int32),
        )
        if beside is not None:
            self._begin_as(beside)

    def _begin_as(self, other: "Model") -> None:
        """Have all that another model has learned, as copies."""
        self.reserve(len(other.columns.alive))
        self.age(other.time)
        n, half_lives = len(other.columns.alive), other.settings.accumulator_half_life
        landmark, written = np.full(n, other.landmark), np.full(n, half_lives)
        for name in _SCALED:
            getattr(self.rows, name)[:] = rescaled(
                getattr(other.rows, name), landmark, written, self.landmark,
                self.settings.accumulator_half_life, self.time,
            )  # fmt: skip
        for name in _LEARNED:
            getattr(self.rows, name)[:] = getattr(other.rows, name)
        self.columns.updates[:] = other.columns.updates
        self.columns.dims[:] = other.columns.dims
        self.has_narrow = other.has_narrow
        self.share(other)

    def share(self, other: "Model") -> None:
        """Have the other's attributes of items, and what is owned: not copies, the same arrays."""
        self.rows.attrs, self.rows.owned = other.rows.attrs, other.rows.owned

    def become(self, other: "Model", rotation: NDArray[np.float64]) -> None:
        """Have what a model beside this one has learned, turned by an orthogonal [dim, dim] so that
        no inner product is another one; it mixes no dims of which a row has some, and some not.
        Every row is to be looked at once more."""
        turn = rotation.astype(np.float32)
        self.settings, self.landmark, self.time = other.settings, other.landmark, other.time
        for name in (*_SCALED, "mix"):
            setattr(self.rows, name, getattr(other.rows, name))
        self.rows.v, self.rows.u = other.rows.v @ turn, other.rows.u @ turn
        self.columns.updates, self.columns.dims = other.columns.updates, other.columns.dims
        self.has_narrow = other.has_narrow
        self.rows.dirty[:] = self.columns.alive & self.rows.owned
        self.cut()

    def reserve(self, n: int) -> None:
        """Make room for slots below n, and no more: who asks has rounded it up."""
        have = len(self.columns.alive)
        if n > have:
            for table in (self.rows, self.columns):
                for f in fields(table):
                    old = getattr(table, f.name)
                    grown = np.zeros((n - have, *old.shape[1:]), old.dtype)
                    setattr(table, f.name, np.concatenate([old, grown]))

    def first_rows(
        self, slots: NDArray[np.int32], partitions: NDArray[np.int32], hashes: NDArray[np.uint64],
        kept: Sequence[str] = (), is_item: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Give slots the first row of their key: V uniform in +-0.5 / d by hash and seed, U zero.
        The columns that are `kept` stay as they are. Those of items, `is_item` bool [slots], have
        the dims of the first tier.

        partitions int32 and hashes uint64 are those of `core.ids.hashing.hash_keys` for the keys.
        """
        r, c = self.rows, self.columns
        r.v[slots] = self.first_values(hashes)
        r.u[slots] = 0.0
        for name in _SCALED:
            getattr(r, name)[slots] = 0.0
        r.mix[slots] = 0.0
        r.mix[slots, 0] = OWN
        r.attrs[slots] = -1
        r.dirty[slots] = r.owned[slots] = self.owns[partitions]
        for f in fields(c):
            if f.name not in kept:
                getattr(c, f.name)[slots] = 0
        c.alive[slots] = True
        c.cluster[slots] = NONE
        c.partition[slots] = partitions
        first = int(dims_for(np.zeros(1, np.int32), self.settings.size.tiers, r.v.shape[1])[0])
        if first != ALL and is_item is not None:
            c.dims[slots[is_item]] = first
            r.v[slots[is_item], first:] = 0.0
            self.has_narrow = True

    def first_values(self, hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
        """V of the first rows of keys with these hashes, in all dims, float32 [n, d]."""
        dim = self.rows.v.shape[1]
        seed = np.uint64(mix(np.uint64(self.settings.model.seed)))
        state = np.add.outer(hashes, seed * np.arange(1, dim + 1, dtype=np.uint64))
        uniform = (_mix_array(state) >> np.uint64(11)) / 2.0**53
        values: NDArray[np.float32] = ((uniform - 0.5) / dim).astype(np.float32)
        return values

    def cut(self) -> None:
        """Set what rows that changed do not have to zero."""
        if self.has_narrow:
            cut(self.rows, self.columns.dims)

    def age(self, time: int) -> None:
        """Put all that decays on the scale of the landmark of this time, ms."""
        r, half_life = self.rows, self.settings.accumulator_half_life
        self.time = max(self.time, time)
        landmark = landmark_of(time, half_life)
        if landmark <= self.landmark:
            return
        if half_life > 0:
            for name in _SCALED:
                stored = getattr(r, name)
                stored[:] = decayed(stored, np.array(self.landmark), landmark, half_life)
        self.landmark = landmark

    def pace(self, time: int, rate: float) -> Pace:
        """How far rows move at this time, ms, to which they age."""
        m, half_life = self.settings.model, self.settings.accumulator_half_life
        self.age(time)
        since = (time - self.landmark) / half_life if half_life and time != NEVER else 0.0
        return Pace.of(rate, m.initial_accumulator, since)

    def keep_published(self, old: int, slot: int) -> None:
        """Note that an item that was born again is published with the vector of its old slot."""
        for name in (
            "epoch", "cluster", "buckets", "version", "published", "norms", "pub_v", "pub_u",
        ):  # fmt: skip
            column = getattr(self.columns, name)
            column[slot] = column[old]

    def pack(self, slots: NDArray[np.int32], last_seen: NDArray[np.int64]) -> NDArray[np.void]:
        """The packed rows of `slots`; last_seen int64 [slots] is the graph's."""
        r, c = self.rows, self.columns
        out = np.zeros(len(slots), self.dtype)
        out["format"] = marks_of(c.dims[slots])
        out["last_seen"], out["heard"] = last_seen[slots], c.heard[slots]
        out["landmark"] = self.landmark
        out["half_life"] = self.settings.accumulator_half_life
        for name in (*_SCALED, *_LEARNED):
            out[name] = getattr(r, name)[slots]
        for name in _PACKED:
            out[name] = getattr(c, name)[slots]
        return out

    def unpack(self, slots: NDArray[np.int32], rows: NDArray[np.void]) -> None:
        """Take packed rows into `slots`. What was born here before keeps its birth."""
        r, c, half_life = self.rows, self.columns, self.settings.accumulator_half_life
        kept = slots[c.born_round[slots] > 0]
        births = c.born_round[kept], c.born_rank[kept]
        for name in _SCALED:
            getattr(r, name)[slots] = rescaled(
                rows[name], rows["landmark"], rows["half_life"], self.landmark, half_life, self.time
            )
        for name in _LEARNED:
            getattr(r, name)[slots] = rows[name]
        for name in _PACKED:
            getattr(c, name)[slots] = rows[name]
        c.born_round[kept], c.born_rank[kept] = births
        c.heard[slots] = rows["heard"]
        c.dims[slots] = dims_of(rows["format"])
        self.has_narrow |= bool(c.dims[slots].any())
        c.alive[slots] = True
        r.owned[slots] = self.owns[c.partition[slots]]
        r.dirty[slots] = c.stale[slots] = False
        c.moved[slots] = 0

    def relabel(self, order: NDArray[np.int64], new: NDArray[np.int32]) -> None:
        """Make slot `order[i]` slot i; `new[old slot]` is the new slot or -1."""
        for table in (self.rows, self.columns):
            for f in fields(table):
                setattr(table, f.name, np.ascontiguousarray(getattr(table, f.name)[order]))
        attrs = self.rows.attrs
        self.rows.attrs = np.where(attrs >= 0, new[attrs], -1).astype(np.int32)


_SCALED = ("acc_v", "acc_u")
"""Those of `Rows` that decay."""
_LEARNED = ("mix", "v", "u")
_PACKED = (
    "version", "born_round", "born_rank", "updates", "epoch", "cluster", "published", "norms",
    "buckets", "pub_v", "pub_u", "described",
)  # fmt: skip


def _mix_array(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`core.ids.hashing.mix` on an array."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
