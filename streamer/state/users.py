"""The records of `user-vectors`: what the world gets, and the state folder keeps as it is.

A record has the vectors of a user, and the history that they are made of: so who takes a partition
of the clicks over goes on from the topic alone. In the folder it stands under RECORD and the id;
and under SEEN, the time of the user's newest click and the id stands nothing, so that who is idle
for longest is first.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.users import Profiles
from streamer.state.store import Entry, Store
from streamer.vectors import json_rows

FAMILY = "users"
RECORD, SEEN = b"u", b"s"
LOOKED = b"looked-through"
"""Meta: by which list of the forgotten all users were looked through, in which vector space, and of
which partitions."""


class Clicked(msgspec.Struct, array_like=True):
    """An item of a user's history."""

    item: str
    weight: float
    """That of all clicks on it since it is in the history, decayed until `time`."""
    time: int
    """Of the newest of them, ms."""


class Known(msgspec.Struct):
    """What a record says of a user beside the vectors."""

    user_id: str
    ts: int
    """Time of the newest click, ms."""
    partition: int
    """Of the clicks: who holds it writes this record."""
    history: list[Clicked]
    """The newest last, by the order in which clicks came."""
    event_ids: list[str] = []
    """Hashes of the last event ids, in hex, the newest last."""


class Head(msgspec.Struct):
    """As `Known`, where its place and time are all that matters: that is read in a fraction of the
    time."""

    ts: int
    partition: int


class Looked(NamedTuple):
    """What stands under LOOKED."""

    digest: bytes
    """Of list and space."""
    partitions: list[tuple[str, int]]


class Interest(msgspec.Struct):
    """One vector of a user."""

    weight: float
    """Its share of the decayed clicks of the history."""
    vector: msgspec.Raw | bytes
    context: msgspec.Raw | bytes
    item: str | None = None
    """The item whose vector it is; None for a mean."""


class _Record(Known, kw_only=True):
    space: str
    vectors: list[Interest]


class Found(msgspec.Struct):
    """An interest as it is read."""

    weight: float
    vector: list[float] | bytes
    context: list[float] | bytes
    item: str | None = None

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit rows of `vector` and `context`, float32 [d]."""
        v, u = (
            np.frombuffer(x, "<f4") if isinstance(x, bytes) else np.array(x, np.float32)
            for x in (self.vector, self.context)
        )
        return v, u


class Read(Known, kw_only=True):
    """A whole record as it is read."""

    space: str
    vectors: list[Found]


_to_msgpack, _to_json = msgspec.msgpack.Encoder().encode, msgspec.json.Encoder().encode
_KNOWN = msgspec.json.Decoder(Known).decode, msgspec.msgpack.Decoder(Known).decode
_HEAD = msgspec.json.Decoder(Head).decode, msgspec.msgpack.Decoder(Head).decode
_READ = msgspec.json.Decoder(Read).decode, msgspec.msgpack.Decoder(Read).decode


def known(value: bytes) -> Known:
    """What a record says beside the vectors, in whichever format. msgspec.MsgspecError if it is
    none."""
    return _KNOWN[not value.startswith(b"{")](value)


def head(value: bytes) -> Head:
    """The head of what is a record."""
    return _HEAD[not value.startswith(b"{")](value)


def is_record(value: bytes) -> bool:
    """Whether this is a record of a user."""
    try:
        return known(value).ts >= 0
    except msgspec.MsgspecError:
        return False


def read(value: bytes) -> Read:
    """All that a record says."""
    return _READ[not value.startswith(b"{")](value)


def packed(
    users: Sequence[Known], profiles: Profiles, items: Sequence[str | None], space: str,
    fmt: Literal["json", "msgpack"],
) -> list[bytes]:  # fmt: skip
    """The records of these users. `items` has the item of each vector, None for a mean."""
    arrays = profiles.vectors, profiles.contexts
    rows = [json_rows(x) if fmt == "json" else [r.tobytes() for r in x.astype("<f4")]
            for x in arrays]  # fmt: skip
    found = [
        Interest(share, vector, context, item)
        for share, vector, context, item in zip(
            profiles.share.round(6).tolist(), *rows, items, strict=True
        )
    ]
    encode, begin = _to_json if fmt == "json" else _to_msgpack, profiles.begin.tolist()
    parts = (found[first:behind] for first, behind in pairwise(begin))
    return [
        encode(_Record(**msgspec.structs.asdict(one), space=space, vectors=part))
        for one, part in zip(users, parts, strict=True)
    ]


def digest(forgotten: Iterable[bytes], since: int = 0) -> bytes:
    """Tells lists of keys of forgotten users apart, and vector spaces by `Space.since`."""
    parts = sorted(forgotten) + [b"%d" % since] * (since > 0)
    return hashlib.blake2b(b"\n".join(parts), digest_size=16).digest()


def looked(store: Store) -> Looked | None:
    """For whom all users of a folder were looked through last."""
    value = store.meta(LOOKED)
    return None if value is None else msgspec.msgpack.decode(value, type=Looked)


def looked_of(digest: bytes, partitions: Iterable[tuple[str, int]]) -> bytes:
    return msgspec.msgpack.encode(Looked(digest, sorted(partitions)))


def seen_key(ts: int, user: bytes) -> bytes:
    return SEEN + ts.to_bytes(8, "big") + user


def seen_of(key: bytes) -> tuple[int, bytes]:
    """Time and user of a key under SEEN."""
    return int.from_bytes(key[1:9], "big"), key[9:]


def entries(store: Store, records: Mapping[bytes, bytes | None]) -> Iterator[Entry]:
    """What the folder gets with these records, by user; None for one that is deleted."""
    for user, value in records.items():
        old = store.entry(FAMILY, RECORD + user)
        if old is not None:
            yield seen_key(head(old).ts, user), None
        if value is not None:
            yield seen_key(head(value).ts, user), b""
        yield RECORD + user, value
