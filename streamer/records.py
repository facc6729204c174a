"""What the topics and the state folder hold, byte for byte.

Keys of `model-state` that start with 0xFF are reserved: `space` (the header: the vector space, the
app whose model it is, and its topics), `manifest` (what the newest commit consists of), `placement`
(centre and centroids), `progress/<topic>/<partition>` (how far clicks were processed),
`items/<topic>/<partition>` (the offset up to which attributes were taken in), `forgotten/<hash>`
(a user whose clicks do not count), `forgotten/app/<hex>` (a name that the app had when users
were hashed) and `version/<partition>` (the version counter of an item partition). All other keys
are items, and attributes under `core.ids.vocabulary.ATTRIBUTE`; their values are packed rows
(`core.rows`). Header, manifest, placement and forgotten users stand in partition 0.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Self
from zlib import crc32

import msgspec
import numpy as np
import orjson
from confluent_kafka import Message
from numpy.typing import NDArray

from core.ids.vocabulary import ATTRIBUTE
from core.placing.placement import Placement
from core.rounds import Changes
from core.rows import FORMAT
from core.settings import Settings
from streamer.decode.ahead import Window
from streamer.errors import Refused

SPACE = b"\xffspace"
PLACEMENT = b"\xffplacement"
PROGRESS = b"\xffprogress/"
ITEMS = b"\xffitems/"
VERSION = b"\xffversion/"
FORGOTTEN = b"\xffforgotten/"
FORMER_APP = FORGOTTEN + b"app/"
MANIFEST = b"\xffmanifest"

VERSION_HEADER = "version"
"""Header of a tombstone in `model-state`: the version that the deletion has."""

COMMIT_HEADER = "commit"
"""Header of each record of a commit, in all topics: `commit_mark`."""

REPLAYED_FROM = "replayed.from"
"""Header of a record that `dlq replay` sent again: where its dead letter is."""
SOURCE = ("source.partition", "source.offset", "source.timestamp")
"""Headers of a dead letter, and of its copy: which record of that topic it was, and its time."""

_to_msgpack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode


def is_item(key: bytes) -> bool:
    return not key.startswith(b"\xff")


def is_row(key: bytes) -> bool:
    """Whether it is the key of an item or of an attribute, and not a reserved one."""
    return is_item(key) or key.startswith(ATTRIBUTE)


_NUMBER = rb"(?:0|[1-9][0-9]{0,8})"
_SHAPES = [
    (PROGRESS, re.compile(rb"[!-~]{1,249}/" + _NUMBER)),
    (ITEMS, re.compile(rb"[!-~]{1,249}/" + _NUMBER)),
    (VERSION, re.compile(_NUMBER)),
    (FORMER_APP, re.compile(rb"(?:[0-9a-f]{2})+")),
    (FORGOTTEN, re.compile(rb"[0-9a-f]{32}")),
]
"""What follows the first part of a reserved key; of two that fit the longer one is first."""


def is_malformed(key: bytes) -> bool:
    """Whether it begins as a reserved key and goes on as none that is ever written."""
    for prefix, shape in _SHAPES:
        if key.startswith(prefix):
            rest = key.removeprefix(prefix)
            return not shape.fullmatch(rest) or (prefix == FORMER_APP and not _is_text(rest))
    return False


def _is_text(hexed: bytes) -> bool:
    try:
        bytes.fromhex(hexed.decode()).decode()
    except UnicodeDecodeError:
        return False
    return True


def well_formed(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a folder whose keys can be read: older versions took in any."""
    return ((key, value) for key, value in entries if not is_malformed(key))


class Layout(msgspec.Struct, frozen=True):
    """A topic as the model knows it."""

    id: str
    """Another one once the topic was deleted and created again; empty where nobody asked."""
    partitions: int
    """By so many its keys are placed. The topic may have got more since."""


class Space(msgspec.Struct, frozen=True):
    """Header of a model: its vector space, whose it is, and what every worker must agree about."""

    format: int
    dim: int
    attribute_slots: int
    seed: int
    lsh_family: str
    lsh_tables: int
    lsh_bits: int
    lsh_width: float
    partitions: int
    """Of the items, which are those of `model-state`."""
    app: str = ""
    """The app that writes this model; no other may. Empty in headers of older versions."""
    cluster: str = ""
    """The id of the Kafka cluster; empty where nobody asked."""
    topics: dict[str, Layout] = {}
    """By their roles, as in `TopicSettings`. Empty in headers of older versions."""
    former: list[str] = []
    """The apps that handed this model over: their records are of this model too."""

    @classmethod
    def of(cls, settings: Settings, partitions: int) -> Self:
        """The vector space that these settings make, without an app."""
        return cls(
            FORMAT,
            settings.model.dim,
            settings.model.attribute_slots,
            settings.model.seed,
            settings.lsh.family,
            settings.lsh.tables,
            settings.lsh.bits,
            settings.lsh.width,
            partitions,
        )

    @property
    def name(self) -> str:
        """What `space` says in public records: equal names, comparable vectors and buckets."""
        packed = _to_msgpack([getattr(self, f) for f in _COMPARED])
        return f"d{self.dim}-{hashlib.blake2b(packed, digest_size=4).hexdigest()}"

    def check(self, wanted: "Space", where: str) -> None:
        """Refused if `wanted`, which follows from the configuration, has other vectors."""
        differs = [
            f"{name} is {getattr(self, f)} there and {getattr(wanted, f)} here"
            for f, name in _COMPARED.items()
            if getattr(self, f) != getattr(wanted, f)
        ]
        if differs:
            raise Refused(
                f"the vector space of {where} does not fit the configuration: "
                f"{'; '.join(differs)}. Go back to the old settings, or start a new "
                "space: another app.name with topics and a state folder of its own"
            )


_COMPARED = {
    "format": "format of rows",
    "dim": "model.dim",
    "attribute_slots": "model.attribute_slots",
    "seed": "model.seed",
    "lsh_family": "lsh.family",
    "lsh_tables": "lsh.tables",
    "lsh_bits": "lsh.bits",
    "lsh_width": "lsh.width",
}
"""Fields of a `Space` on which vectors depend, and how people know them."""


class Progress(msgspec.Struct, frozen=True):
    """How far the clicks of one partition were processed: the truth, where group offsets expire."""

    offset: int
    """The next offset."""
    time: int
    """Greatest event time of the engine, ms."""
    commit: int
    round: int
    window: Window | None = None
    """What is remembered of the times of its clicks (`decode.ahead`)."""
    use: tuple[str, ...] | None = None
    """`items.use` of the commit; None of older versions, which did not say."""


class Part(msgspec.Struct, array_like=True):
    """What a commit put into one partition. Its records lie at `begin` or behind, in this order."""

    begin: int
    records: int = 0
    checksum: int = 0
    """CRC-32 of keys and values of the records."""
    tombstones: int = 0
    tombstones_checksum: int = 0
    """CRC-32 of their keys. Apart, as retention takes tombstones and nothing else."""

    @property
    def size(self) -> int:
        return self.records + self.tombstones

    def add(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            self.tombstones += 1
            self.tombstones_checksum = crc32(key or b"", self.tombstones_checksum)
        else:
            self.records += 1
            self.checksum = crc32(value, crc32(key or b"", self.checksum))


class Parts(msgspec.Struct, array_like=True):
    """What a commit put into one topic."""

    id: str
    """Of the topic, as in `Layout`."""
    partitions: list[Part]


class Manifest(msgspec.Struct, frozen=True):
    """What one commit consists of, itself apart: the last record of its transaction."""

    commit: int
    """One more than that of the commit before."""
    app: str
    instance: str
    """Together they are the transactional id that wrote it."""
    topics: dict[str, Parts]
    """By name: all partitions of all topics that commits write to."""

    @property
    def mark(self) -> bytes:
        return commit_mark(self.app, self.commit)


def commit_mark(app: str, commit: int) -> bytes:
    """What the header `commit` of a record says."""
    return f"{app}/{commit}".encode()


def commit_of(message: Message) -> tuple[str, int] | None:
    """App and number of the commit that a record is part of; None if it is part of none."""
    value = dict(message.headers() or ()).get(COMMIT_HEADER)
    if not isinstance(value, bytes):
        return None
    app, _, number = value.decode(errors="replace").rpartition("/")
    # Anybody may write dead letters, and such a header.
    is_number = number.isascii() and number.isdecimal() and len(number) <= 18
    return (app, int(number)) if is_number else None


def is_of_another(manifest: bytes | None, app: str) -> bool:
    """Whether another app made the last commit, whose manifest this is, and handed the model over.

    What the group of `app` has committed is of a time before that one had the model.
    """
    return manifest is not None and msgspec.msgpack.decode(manifest, type=Manifest).app != app


class Original(NamedTuple):
    """The record of the same topic that a copy was sent again for."""

    partition: int
    offset: int
    timestamp: int
    """Of the record, in ms; -1 for none."""


def original(message: Message) -> Original | None:
    """What a record is a copy of; None if `dlq replay` did not send it, or did not know."""
    headers = dict(message.headers() or [])
    if REPLAYED_FROM not in headers:
        return None
    try:
        return Original(*(int(headers[name] or "") for name in SOURCE))
    except (KeyError, ValueError):  # anybody may write to the topic
        return None


class _Placement(msgspec.Struct):
    epoch: int
    fitted_at: int
    centre: bytes
    centroids: bytes


class _Vector(msgspec.Struct):
    """A record of `item-vectors`."""

    item_id: str
    version: int
    space: str
    vector: msgspec.Raw | bytes
    context: msgspec.Raw | bytes
    cluster: int | None
    buckets: list[str]
    updates: int
    ts: int


def progress_key(topic: str, partition: int) -> bytes:
    return PROGRESS + f"{topic}/{partition}".encode()


def items_key(topic: str, partition: int) -> bytes:
    return ITEMS + f"{topic}/{partition}".encode()


def progress_partition(key: bytes) -> tuple[str, int]:
    """The partition that a progress key, or an items key, is of."""
    topic, _, partition = key.removeprefix(PROGRESS).removeprefix(ITEMS).decode().rpartition("/")
    return topic, int(partition)


def version_key(partition: int) -> bytes:
    return VERSION + str(partition).encode()


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


def _json_rows(xs: NDArray[np.float32]) -> list[msgspec.Raw | bytes]:
    """Each row of xs as a JSON array; all are written in one call, which is twice as fast."""
    if len(xs) == 0:
        return []
    # Six decimals of a unit vector's entries lose less than float32's own rounding of a cosine.
    text = orjson.dumps(xs.round(6), option=orjson.OPT_SERIALIZE_NUMPY)
    return [msgspec.Raw(b"[%b]" % row) for row in text[2:-2].split(b"],[")]


def vectors(
    changes: Changes, space: str, fmt: Literal["json", "msgpack"]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of each record of `item-vectors`, tombstones last."""
    chosen = changes.rows[changes.published]
    if fmt == "json":
        encode = _to_json
        spread = [_json_rows(xs) for xs in (changes.vectors, changes.contexts)]
    else:
        encode = _to_msgpack
        spread = [
            [x.tobytes() for x in xs.astype("<f4")] for xs in (changes.vectors, changes.contexts)
        ]
    columns = zip(
        changes.published.tolist(),
        chosen["version"].tolist(),
        *spread,
        chosen["cluster"].tolist(),
        chosen["buckets"].tolist(),
        chosen["updates"].tolist(),
        strict=True,
    )
    for at, version, vector, context, cluster, buckets, updates in columns:
        key = changes.keys[at]
        yield (
            key,
            encode(
                _Vector(
                    key.decode(),
                    version,
                    space,
                    vector,
                    context,
                    cluster if cluster >= 0 else None,
                    [f"{bucket:x}" for bucket in buckets],
                    updates,
                    max(changes.time, 0),
                )
            ),
        )
    for gone in changes.gone:
        if gone.was_published:
            yield gone.key, None
