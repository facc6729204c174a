"""All published vectors as of one commit, from a state folder or from `item-vectors` alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.placing.clusters import NONE
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, rights
from streamer.kafka.waiting import between
from streamer.query.shelves import published
from streamer.settings.sections import Config
from streamer.state import commits
from streamer.state.folders import reading
from streamer.state.records import is_item


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
    vector: list[float] | bytes
    context: list[float] | bytes
    norms: tuple[float, float]
    cluster: int | None
    updates: int


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
            mark, key = commits.mark_of(message), (message.key() or b"").decode(errors="replace")
            if mark is None:
                raise Refused(commits.no_commits(message))
            apps.add(mark.app)
            if commit is not None and mark.number > commit:
                later.add(key)
                continue
            last = max(last, mark.number)
            newest[key] = message
        consumer.close()
    if apps and app not in apps:
        raise Refused(
            f"{topic} has records of app {', '.join(map(repr, sorted(apps)))}, and app.name is "
            f"{app!r}: set it to that one's"
        )
    living = {key: message for key, message in newest.items() if message.value() is not None}
    if not living:
        raise WalkstreamError(f"{topic} has no vector" + _as_of(commit))
    return _decoded(topic, living, last, len(later - newest.keys()))


def _as_of(commit: int | None) -> str:
    return "" if commit is None else f" as of commit {commit}: that is before all that is there"


def _decoded(topic: str, living: Mapping[str, Message], commit: int, later: int) -> Published:
    names = sorted(living)
    decode_json = msgspec.json.Decoder(_Record).decode
    decode_msgpack = msgspec.msgpack.Decoder(_Record).decode
    found: list[_Record] = []
    for name in names:
        value = living[name].value() or b""
        try:
            found.append((decode_json if value[:1] == b"{" else decode_msgpack)(value))
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
        np.stack([_floats(one.vector) for one in found]),
        np.stack([_floats(one.context) for one in found]),
        np.array([one.norms for one in found], np.float32),
        np.array([NONE if one.cluster is None else one.cluster for one in found], np.int32),
        np.array([one.updates for one in found], np.int64),
        np.array([one.version for one in found], np.int64),
        spaces[0], commit, later,
    )  # fmt: skip


def _floats(vector: list[float] | bytes) -> NDArray[np.float32]:
    if isinstance(vector, bytes):
        return np.frombuffer(vector, "<f4")
    return np.array(vector, np.float32)
