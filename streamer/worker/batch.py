"""The batch of a commit: copies of all that leaves, and the records that they become."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from core.ids.hashing import hash_keys
from core.rounds import Changes, Evidence
from streamer import vectors as public
from streamer.decode.ahead import Window
from streamer.decode.deadletter import DeadLetter, Headers
from streamer.kafka.clients import Partition
from streamer.kafka.identity import USERS
from streamer.kafka.transactions import Send
from streamer.settings.sections import Config
from streamer.state import commits, packing, records
from streamer.state.records import Marks, Progress, Space
from streamer.worker.sweeping import Written


@dataclass
class Batch:
    """What a commit closes: copies of all that leaves, and where the clicks stand after it."""

    number: int
    cut: int
    """The number of the newest evidence that is in the engine."""
    changes: Changes
    offsets: dict[Partition, int]
    """Next offset of every clicks partition that is held."""
    round_number: int
    marks: Marks | None
    """Of who owns item partition 0."""
    evidence: list[bytes] = field(default_factory=list)
    """Records of `streamer.state.evidence`."""
    is_decided: bool = True
    """Whether the engine has what they say, as nobody else writes some."""
    traced: list[tuple[int, bytes]] = field(default_factory=list)
    """Records, each with its number, that came into the engine since the last commit."""
    left: list[bytes] = field(default_factory=list)
    """Items that left, whose rows of the graph the folder deletes."""
    unwritten: list[bytes] = field(default_factory=list)
    """Items that left, whose rows of the graph are deleted in the topic."""
    swept: Written = field(default_factory=Written)
    """What the sweep of `model-state` has for it."""
    checkpoint: Written = field(default_factory=Written)
    """What the sweep of the state folder has for that."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[bytes, bytes | None] = field(default_factory=dict)
    """Items whose attributes were taken in, as JSON, or None for those that were retired."""
    items: dict[Partition, int] = field(default_factory=dict)
    """Next offset of the items partitions, where attributes were taken in."""
    windows: Mapping[int, Window] = field(default_factory=dict)
    """By clicks partition, what is remembered of the times before its offset."""
    fusion: bytes | None = None
    """What `hybrid` ranks by, where it has learned."""
    users: dict[bytes, bytes | None] = field(default_factory=dict)
    """Records of `user-vectors`, by user."""
    looked: bytes | None = None
    """For whom all users are looked through with them, if they are."""
    promoted: bytes | None = None
    """That a challenger took over, where it did, or where all is written once more."""
    space: Space | None = None
    """The header, where a new vector space begins with this commit."""
    told: Callable[["Batch"], None] = lambda batch: None
    """Called when the commit is through."""
    old_epochs: Collection[int] = ()
    """Those whose centroids leave `item-vectors`."""
    manifest: bytes | None = None
    """What the commit consists of, once it is encoded."""

    def progress(self, partition: Partition) -> Progress:
        return Progress(
            self.offsets[partition], self.changes.time, self.number, self.round_number,
            self.windows.get(partition[1]),
        )  # fmt: skip


@dataclass
class Pending:
    """What happened since the last commit."""

    rounds: int = 0
    events: int = 0
    evidence: list[Evidence] = field(default_factory=list)
    """What happened, or where several workers write, what came to this one."""
    traced: list[tuple[int, bytes]] = field(default_factory=list)
    """Records that were folded, each with its number."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[bytes, bytes | None] = field(default_factory=dict)
    items: dict[Partition, int] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


def records_of(config: Config, space: Space, batch: Batch) -> Iterator[Send]:
    """All records of a commit but the manifest, encoded before its time begins to run."""
    topics, changes = config.topics, batch.changes
    state, encode = topics.model_state, msgspec.msgpack.encode
    own = commits.Mark(config.app.name, batch.number, config.app.instance)
    mark: Headers = [(records.COMMIT_HEADER, own.packed)]
    rows = zip(changes.keys, changes.values, changes.partitions.tolist(), strict=True)
    for key, row, partition in rows:
        yield Send(state, partition, key, row, mark)
    for gone in changes.gone:
        version = records.VERSION_HEADER, str(gone.version).encode()
        if gone.had_row:
            yield Send(state, gone.partition, gone.key, None, [*mark, version])
    # A version record stands behind all rows of its commit: readers rely on it.
    for partition, counter in changes.versions.items():
        yield Send(state, partition, records.version_key(partition), encode(counter), mark)
    if changes.placement is not None:
        packed = packing.pack_placement(changes.placement)
        yield Send(state, 0, records.PLACEMENT, packed, mark)
    yield from _swept(config, space, batch, mark)
    for key, value in progress(batch).items():
        where = records.partition_of_key(key)
        yield Send(state, where % space.partitions, key, value, mark)
    for record in batch.evidence:
        yield Send(topics.transitions, 0, None, record, mark)
    published = config.publish
    if published.form == "residual" and changes.placement is not None:
        key, value = public.centroids(changes.placement, space.name, published.format)
        yield Send(topics.item_vectors, 0, key, value, mark)
    for epoch in batch.old_epochs:
        yield Send(topics.item_vectors, 0, public.centroids_key(epoch), None, mark)
    vectors = list(public.records(changes, space.name, published.format, published.form))
    places = _places(space, "item_vectors", [key for key, _ in vectors])
    for (key, vector), partition in zip(vectors, places, strict=True):
        yield Send(topics.item_vectors, partition, key, vector, mark)
    places = _places(space, USERS, [*batch.users]) if batch.users else []
    for (key, vector), partition in zip(batch.users.items(), places, strict=True):
        yield Send(topics.user_vectors, partition, key, vector, mark)
    letters = batch.dead_letters
    places = _places(space, "dead_letters", [letter.key or b"" for letter in letters])
    for letter, partition in zip(letters, places, strict=True):
        headers = [*letter.headers, *mark]
        yield Send(topics.dead_letters, partition, letter.key, letter.value, headers)


def _swept(config: Config, space: Space, batch: Batch, mark: Headers) -> Iterator[Send]:
    """Rows of the graph and sessions, and behind them where a sweep began that is over."""
    state, written, left = config.topics.model_state, batch.swept, batch.unwritten
    # A deletion is as of the evidence that this commit knows, as rows are.
    cut = records.VERSION_HEADER, str(batch.cut).encode()
    partitions = hash_keys(left, space.partitions)[0].tolist()
    for item, partition in zip(left, partitions, strict=True):
        yield Send(state, partition, records.graph_key(item), None, [*mark, cut])
    partitions = hash_keys(list(written.graph), space.partitions)[0].tolist()
    for (item, row), partition in zip(written.graph.items(), partitions, strict=True):
        yield Send(state, partition, records.graph_key(item), row, mark)
    for key, value in written.sessions.items():
        yield Send(state, 0, key, value, mark)
    if written.swept is not None:
        yield Send(state, 0, records.SWEPT, written.swept, mark)


def _places(space: Space, role: str, keys: list[bytes]) -> list[int]:
    """The partition of each key: as a producer with murmur2 chooses, by what the header says.

    Partitions that were added since then change nothing.
    """
    return hash_keys(keys, space.topics[role].partitions)[0].tolist()


def progress(batch: Batch) -> dict[bytes, bytes]:
    """The records of the commit that say how far it got: of all clicks, of items that were taken
    in, of what the ranker learned, that a challenger took over, and the marks. Before that stands
    the header, if it is another: who reads that one took over knows the space."""
    encode = msgspec.msgpack.encode
    clicks = {records.progress_key(*p): encode(batch.progress(p)) for p in batch.offsets}
    fusion = {} if batch.fusion is None else {records.FUSION: batch.fusion}
    space = {} if batch.space is None else {records.SPACE: encode(batch.space)}
    promoted = {} if batch.promoted is None else {records.PROMOTED: batch.promoted}
    if batch.marks is None:
        return clicks
    items = {records.items_key(*p): encode(o) for p, o in batch.items.items()}
    return clicks | items | fusion | space | promoted | {records.MARKS: encode(batch.marks)}
