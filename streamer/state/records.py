"""What the topics and the state folder hold, byte for byte.

Keys of `model-state` that start with 0xFF are reserved: `space` (the header: the vector space, the
app whose model it is, and its topics), `manifest/<instance>` (what the newest commit of a worker
consists of; `manifest` alone in models of older versions), `placement`
(centre and centroids), `promoted` (a challenger took over),
`progress/<topic>/<partition>` (how far clicks were processed),
`items/<topic>/<partition>` (the offset up to which attributes were taken in), `marks` (what is
under way), `graph/<item>` (a row of the graph), `sessions/<turn>/<number>` (some of the sessions
that were open when a sweep began), `swept` (where evidence is read from again), `forgotten/<hash>`
(a user whose clicks do not count), `forgotten/app/<hex>` (a name that the app had when users
were hashed), `major` (the epoch of the placement when somebody asked for a major update) and
`version/<partition>` (the version counter of an item partition). All other keys are items, and
attributes under `core.ids.vocabulary.ATTRIBUTE`; their values are packed rows (`core.rows`). Rows
of the graph stand in the partitions of their items; header, manifest, placement, marks, sessions,
`promoted`, `swept`, `major` and forgotten users in partition 0.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import msgspec

from core.ids.hashing import hash_keys
from core.ids.vocabulary import ATTRIBUTE
from core.rows import FORMAT
from core.settings import Settings
from streamer.decode.ahead import Window
from streamer.errors import Refused

SPACE = b"\xffspace"
PLACEMENT = b"\xffplacement"
FUSION = b"\xfffusion"
PROMOTED = b"\xffpromoted"
PROGRESS = b"\xffprogress/"
ITEMS = b"\xffitems/"
VERSION = b"\xffversion/"
FORGOTTEN = b"\xffforgotten/"
FORMER_APP = FORGOTTEN + b"app/"
MAJOR = b"\xffmajor"
MANIFEST = b"\xffmanifest"
MARKS = b"\xffmarks"
GRAPH = b"\xffgraph/"
SESSIONS = b"\xffsessions/"
SWEPT = b"\xffswept"

NEWER = FORMAT + 1
"""The format of a header that says what older versions pass over: the vector space is not the
first, or rows are narrow. They refuse it, and would mix spaces else."""

VERSION_HEADER = "version"
"""Header of a tombstone in `model-state`: the version that the deletion has; of a row of the graph,
the number of the evidence as of which it is deleted."""

COMMIT_HEADER = "commit"
"""Header of each record of a commit, in all topics: a `commits.Mark`."""

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
    (SESSIONS, re.compile(rb"[01]/" + _NUMBER)),
    (MANIFEST, re.compile(rb"(?:/[^/]+)?")),
    (MAJOR, re.compile(rb"")),
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
    unused: dict[str, Layout] = {}
    """Of topics that were written, and are not by the settings as they are: where their keys lie,
    and which topics they are, counts again once they are."""
    since: int = 0
    """The first version of this space, of any item partition: what was published with a lower one
    is of the space before, and is published again. 0 in the first space of a model."""

    @classmethod
    def of(cls, settings: Settings, partitions: int) -> Self:
        """The vector space that these settings make, without an app."""
        return cls(
            NEWER if settings.size.tiers else FORMAT,
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
        compared = [getattr(self, f) for f in _COMPARED]
        packed = _to_msgpack([FORMAT, *compared, *([self.since] if self.since else [])])
        return f"d{self.dim}-{hashlib.blake2b(packed, digest_size=4).hexdigest()}"

    @property
    def least(self) -> int:
        """What was published with this version or a later one has a vector of this space."""
        return max(1, self.since)

    def check_format(self, where: str | Path) -> None:
        """Refused if the rows there cannot be read."""
        if self.format not in (FORMAT, NEWER):
            age = "an older" if self.format < FORMAT else "a newer"
            raise Refused(
                f"{where}: its rows are of format {self.format}, of {age} walkstream: this one "
                f"reads formats {FORMAT} and {NEWER}. See 'A model of an older version' in the "
                "README"
            )

    def check(self, wanted: "Space", where: str) -> None:
        """Refused if `wanted`, which follows from the configuration, has other vectors."""
        self.check_format(where)
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


def has_learned(progress: "Mapping[tuple[str, int], Progress]") -> bool:
    """Whether a round is in the model, and not only where the first one begins."""
    return any(one.round for one in progress.values())


class Marks(msgspec.Struct, frozen=True):
    """What the engine has under way, and goes on with after a restart."""

    commit: int
    publish_from: int
    """Rows with a version below it are still to be written again."""
    major: tuple[int, int] | None = None
    """Birth of the item that a major update starts from next; None if none is under way."""
    evidence: int = 0
    """The newest commit that has evidence."""
    needs_folder: bool = False
    """Whether the state folder has what Kafka has not yet: then it can not be made anew."""
    folds_by: dict[str, int] | None = None
    """The settings by which clicks are folded, as all workers must have them
    (`streamer.state.folded_by`); None in records of older versions."""
    centroids_from: int = 1
    """The first epoch whose centroids `item-vectors` may have."""
    folds_next: dict[str, int] | None = None
    """Those by which they will be, once all that these have folded is in `model-state`: evidence
    does not say by which it was. None where `folds_by` stays."""


class Promoted(msgspec.Struct, frozen=True):
    """A challenger took over with this commit. It holds as long as the configuration names these
    two (`streamer.worker.challenging.digest`). Where both are the same, an earlier one is void."""

    commit: int
    champion: str
    challenger: str
    time: int
    """Greatest event time of the engine, ms."""
    wins: int
    """Trials that the challenger alone, and that the champion alone had hit."""
    losses: int
    agreement: float
    """Mean cosine of its vectors, turned, with the champion's."""
    versions: dict[int, int] = {}
    """By item partition the last version before it: rows that have none since then are still the
    champion's."""
    is_new_space: bool = False
    """Whether that was too little for vectors before and after to be compared."""


def promoted(value: bytes | None) -> Promoted | None:
    """What a record under PROMOTED says, if there is one that is not void."""
    found = None if value is None else msgspec.msgpack.decode(value, type=Promoted)
    return None if found is None or found.champion == found.challenger else found


class Swept(msgspec.Struct, frozen=True, omit_defaults=True):
    """The moment at which a sweep began: rows of the graph that are older did not change before it.
    From here on evidence is folded again."""

    commit: int
    """The number of the newest evidence that was folded then."""
    offset: int
    """Of `transitions`: all later evidence is there or behind."""
    time: int
    """Greatest event time of the engine, ms."""
    landmark: int
    half_life: int
    clocks: list[int]
    """Greatest event time of each clicks partition, ms."""
    round: int
    turn: int
    """0 or 1: which records hold the sessions that were open."""
    parts: int
    """How many of them, those of the ids that are counted included."""
    counted: int | None = None
    """How many of them, the last ones, have the ids that are counted (`core.graph.admission`); None
    where none was."""


def manifest_key(instance: str) -> bytes:
    return MANIFEST + b"/" + instance.encode()


def is_manifest(key: bytes) -> bool:
    return key == MANIFEST or key.startswith(MANIFEST + b"/")


def progress_key(topic: str, partition: int) -> bytes:
    return PROGRESS + f"{topic}/{partition}".encode()


def items_key(topic: str, partition: int) -> bytes:
    return ITEMS + f"{topic}/{partition}".encode()


def partition_of_key(key: bytes) -> int:
    """The partition that a progress or items key is of; 0 for others, which stand there."""
    return progress_partition(key)[1] if key.startswith((PROGRESS, ITEMS)) else 0


def place(key: bytes, partitions: int) -> int:
    """The partition of `model-state`, of so many, where workers write this key."""
    if is_row(key) or key.startswith(GRAPH):
        return int(hash_keys([key.removeprefix(GRAPH)], partitions)[0][0])
    if key.startswith(VERSION):
        return int(key.removeprefix(VERSION))
    return partition_of_key(key) % partitions


def progress_partition(key: bytes) -> tuple[str, int]:
    """The partition that a progress key, or an items key, is of."""
    topic, _, partition = key.removeprefix(PROGRESS).removeprefix(ITEMS).decode().rpartition("/")
    return topic, int(partition)


def version_key(partition: int) -> bytes:
    return VERSION + str(partition).encode()


def graph_key(item: bytes) -> bytes:
    return GRAPH + item


def sessions_key(turn: int, number: int) -> bytes:
    return SESSIONS + f"{turn}/{number}".encode()
