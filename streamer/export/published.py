"""All published vectors as of one commit, from a state folder or from `item-vectors` alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.placing.clusters import NONE, unit_rows
from core.placing.quantised import restored
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, rights
from streamer.kafka.waiting import between
from streamer.query.shelves import published
from streamer.settings.sections import Config
from streamer.state import commits
from streamer.state.folders import reading
from streamer.state.records import is_item
from streamer.vectors import CENTROIDS, Centroids
from streamer.wording import counted

_T = TypeVar("_T")


class Published(NamedTuple):
    """n items that have a vector, in the order of their ids."""

    items: list[str]
    vectors: NDArray[np.float32]
    """V^, float32 [n, d], rows of length 1, as are those of U^."""
    contexts: NDArray[np.float32]
    norms: NDArray[np.float32]
    """[n, 2]: how long both were before they were scaled to 1."""
    clusters: NDArray[np.int32]
    """-1 where an item has none."""
    updates: NDArray[np.int64]
    versions: NDArray[np.int64]
    space: str
    commit: int
    """All that this commit and those before it have published is there, and nothing later: the
    newest commit that published something."""
    later: int = 0
    """Items left out whose only records are later ones: some may have had a vector at the commit,
    which compaction has taken since."""


class _Record(msgspec.Struct):
    item_id: str
    version: int
    space: str
    norms: tuple[float, float]
    cluster: int | None
    updates: int
    vector: list[float] | bytes | None = None
    context: list[float] | bytes | None = None
    epoch: int = 0
    residual: bytes | None = None
    context_int8: bytes | None = None
    scales: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        full = self.vector is not None and self.context is not None
        if not full and (self.residual is None or self.context_int8 is None):
            raise ValueError("it has neither `vector` and `context` nor `residual`")


def from_folder(path: Path, commit: int | None) -> Published:
    """The vectors of a state folder, also while its worker runs. Refused if they are as of another
    commit than this one; WalkstreamError if there are none."""
    with reading(path) as store:
        space, newest = store.space, commits.newest_of(store)
        if space is None:
            raise WalkstreamError(f"{path}: nothing was learned yet, so there is no vector")
        now = 0 if newest is None else newest.commit
        if commit not in (None, now):
            raise Refused(
                f"{path} is as of commit {now}, and commit {commit} was asked for: --from-topic "
                "tells of every commit whose records are still there"
            )
        keys, rows = store.all_rows()
    there = np.fromiter(map(is_item, keys), np.bool_, len(keys)) & (rows["published"] > 0)
    if (waits := int((there & (rows["published"] < space.since)).sum())) > 0:
        raise Refused(
            f"{path} has {counted(waits, 'vector')} of the space before {space.name}, with which "
            "the others may not be compared: the model is being published anew. Wait until the "
            "worker is done"
        )
    at = np.flatnonzero(there)
    if len(at) == 0:
        raise WalkstreamError(f"{path}: no item has a vector yet")
    names = [keys[i].decode() for i in at.tolist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    rows, at = rows[at[order]], at[order]
    vectors, contexts = published(rows)
    return Published(
        [names[i] for i in order], vectors, contexts, rows["norms"].astype(np.float32),
        rows["cluster"].astype(np.int32), rows["updates"].astype(np.int64),
        rows["published"].astype(np.int64), space.name, now,
    )  # fmt: skip


def from_topic(
    config: Config, commit: int | None, tell: Callable[[float], None] = lambda share: None
) -> Published:
    """The vectors that `item-vectors` has. Refused where a record is no vector, or of no commit."""
    topic, app = config.topics.item_vectors, config.app.name
    apps = set[str]()
    newest: dict[str, Message] = {}
    centroids: dict[int, Message] = {}
    later = set[str]()
    last = 0
    with rights.allowed(config, "export") as admin:
        consumer = clients.reading_consumer(config, "export")
        where = [(topic, p) for p in clients.partitions(consumer, topic)]
        begins, ends = clients.begins(admin, where), clients.ends(admin, where, committed=True)
        total, read = max(1, sum(ends[p] - begins[p] for p in where)), 0
        for message in between(consumer, begins, ends):
            read += 1
            tell(read / total)
            mark, key = commits.mark_of(message), message.key() or b""
            if mark is None:
                raise Refused(commits.no_commits(message))
            apps.add(mark.app)
            of_centroids, name = key.startswith(CENTROIDS), key.decode(errors="replace")
            if commit is not None and mark.number > commit:
                later |= set() if of_centroids else {name}
                continue
            last = max(last, mark.number)
            if of_centroids:
                centroids[int(key.removeprefix(CENTROIDS))] = message
                continue
            newest[name] = message
        consumer.close()
    if apps and app not in apps:
        raise Refused(
            f"{topic} has records of app {', '.join(map(repr, sorted(apps)))}, and app.name is "
            f"{app!r}: set it to that one's"
        )
    living = {key: message for key, message in newest.items() if message.value() is not None}
    if not living:
        raise WalkstreamError(f"{topic} has no vector" + _as_of(commit))
    there = {epoch: m for epoch, m in centroids.items() if m.value() is not None}
    of_epoch = {epoch: _centroids(topic, message) for epoch, message in there.items()}
    return _decoded(topic, living, of_epoch, last, len(later - newest.keys()))


def _as_of(commit: int | None) -> str:
    return "" if commit is None else f" as of commit {commit}: that is before all that is there"


def _decode(value: bytes, kind: type[_T]) -> _T:
    if value[:1] == b"{":
        return msgspec.json.decode(value, type=kind)
    return msgspec.msgpack.decode(value, type=kind)


def _centroids(topic: str, message: Message) -> NDArray[np.float32]:
    try:
        found = _decode(message.value() or b"", Centroids)
        return np.frombuffer(found.centroids, "<f4").reshape(found.count, -1)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(
            f"{topic}: the record of {message.key()!r} is no centroids: {error}"
        ) from None


def _decoded(
    topic: str, living: Mapping[str, Message], centroids: Mapping[int, NDArray[np.float32]],
    commit: int, later: int,
) -> Published:  # fmt: skip
    names = sorted(living)
    found: list[_Record] = []
    for name in names:
        value = living[name].value() or b""
        try:
            found.append(_decode(value, _Record))
        except msgspec.MsgspecError as error:
            raise Refused(f"{topic}: the record of {name!r} is no vector: {error}") from None
    spaces = sorted({one.space for one in found})
    if len(spaces) > 1:
        raise Refused(
            f"{topic} has vectors of {len(spaces)} spaces, which may not be compared "
            f"({', '.join(spaces[:3])}): the model is being published anew. Wait until the worker "
            "is done, or name a commit before it began"
        )
    return Published(
        [one.item_id for one in found],
        np.stack([_vector(topic, one, centroids) for one in found]),
        np.stack([_context(one) for one in found]),
        np.array([one.norms for one in found], np.float32),
        np.array([NONE if one.cluster is None else one.cluster for one in found], np.int32),
        np.array([one.updates for one in found], np.int64),
        np.array([one.version for one in found], np.int64),
        spaces[0], commit, later,
    )  # fmt: skip


def _vector(
    topic: str, one: _Record, centroids: Mapping[int, NDArray[np.float32]]
) -> NDArray[np.float32]:
    if one.residual is None:
        return _floats(one.vector or [])
    own = _unpacked(one.residual, one.scales[0])
    if one.cluster is None:
        return unit_rows(own)[0]
    known = centroids.get(one.epoch)
    if known is None or one.cluster >= len(known):
        raise Refused(
            f"{topic}: the record of {one.item_id!r} is a residual of cluster {one.cluster} in "
            f"epoch {one.epoch}, whose centroids are not there: start a worker, which writes them; "
            "with --commit, name a later one"
        )
    return unit_rows(known[one.cluster] + own)[0]


def _context(one: _Record) -> NDArray[np.float32]:
    if one.context_int8 is None:
        return _floats(one.context or [])
    return unit_rows(_unpacked(one.context_int8, one.scales[1]))[0]


def _unpacked(entries: bytes, scale: float) -> NDArray[np.float32]:
    """float32 [1, d]"""
    return restored(np.frombuffer(entries, np.int8)[None, :], np.array([scale]))


def _floats(vector: list[float] | bytes) -> NDArray[np.float32]:
    if isinstance(vector, bytes):
        return np.frombuffer(vector, "<f4")
    return np.array(vector, np.float32)
