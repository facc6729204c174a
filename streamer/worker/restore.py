"""How a worker comes back to where it committed.

  rows       from the state folder, and from `model-state` what the folder does not have yet
  graph      from the folder's checkpoint, and from the clicks since then, folded without learning
  offsets    from the progress records in `model-state`; the group's offsets must agree

With no folder all of it comes from Kafka: every row, and the clicks of one horizon.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.rows import from_values, version_of
from core.settings import DAY_MS
from streamer import kafka, records, topics
from streamer import store as stores
from streamer.config import start_time
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Bad, Invalid, attribute_tokens, decode_item
from streamer.errors import Refused
from streamer.kafka import CALL_SECONDS, Place, checked, place_name, place_of
from streamer.records import Space
from streamer.settings import Config
from streamer.store import Store
from streamer.worker import checkpoint
from streamer.worker.group import Group

log = logging.getLogger(__name__)

Attributes = list[tuple[str, Sequence[str] | None]]


def open_store(config: Config, admin: AdminClient) -> Store:
    """The state folder, if it belongs to these topics and is young enough to catch up.

    Refused if cluster or topics are not those that the folder was made with.
    """
    path = Path(config.state.dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store(path)
    now = topics.identity(admin, config.topics) if config.topics.check else {}
    before = store.meta(stores.IDENTITY)
    if before is None:
        entries = {stores.IDENTITY: msgspec.msgpack.encode(now)}
        if store.meta(stores.ORIGIN) == stores.REPLAY:
            try:
                _check_replay(config, store, admin)
            except Refused:
                store.close()
                raise
            entries[stores.ORIGIN] = stores.ADOPTED
        store.set_meta(entries)
        return store
    known = msgspec.msgpack.decode(before, type=dict[str, str])
    changed = [name for name in now if known.get(name, now[name]) != now[name]]
    if changed:
        what = "; ".join(f"{name} was {known[name]} and is {now[name]}" for name in changed)
        store.close()
        raise Refused(
            f"{path}: this state folder was made with another cluster or other topics ({what}). "
            "If a topic was deleted and created again, delete the others of this app too, or point "
            "state.dir to a new folder: it is rebuilt from Kafka"
        )
    limit = topics.DELETE_RETENTION_MS / 2000
    # A folder of `replay` is no cache as long as no worker has published it.
    if store.progress() and store.age() > limit:
        log.warning("%s: older than %.0f s, deletions may be missing: rebuilding", path, limit)
        store.close()
        shutil.rmtree(path)
        return open_store(config, admin)
    return store


def _check_replay(config: Config, store: Store, admin: AdminClient) -> None:
    """Refused if this folder of `replay` cannot become the state of this worker.

    Nothing is written before this is sure: the folder may be all there is of a backfill.
    """
    topic = config.topics.model_state
    where = [(topic, p) for p in admin.list_topics(topic, CALL_SECONDS).topics[topic].partitions]
    if kafka.begins(admin, where) != kafka.ends(admin, where):
        raise Refused(
            f"{store.path}: this folder comes from `walkstream replay`, and {topic} already has "
            "the model of a worker. Point state.dir to a new folder, or use new topics"
        )
    space = store.space
    assert space is not None, "replay writes the header first"
    space.check(Space.of(config.engine_settings, space.partitions), str(store.path))
    checkpoint.check_scale(store, config.engine_settings)


class Described(NamedTuple):
    """What a record of `items` says of one item: JSON of its attributes, None if it is retired."""

    value: bytes | None
    partition: int
    offset: int


class Tail:
    """Reads `items` and `model-state` to their ends and keeps the state folder level with them."""

    def __init__(self, config: Config, store: Store, consumer: Consumer) -> None:
        self.config, self.store, self.consumer = config, store, consumer
        watched = (config.topics.items, config.topics.model_state)
        self.places = [(t, p) for t in watched for p in kafka.partitions(consumer, t)]
        self.offsets = dict.fromkeys(self.places, 0)
        self.reached = dict.fromkeys(self.places, -1)
        self.forgotten: set[bytes] = set()
        """Keys of the users whose clicks do not count."""
        self.bad: list[tuple[Place, int, DeadLetter]] = []
        """Place and offset of records of `items` that could not be used."""

    @property
    def partitions(self) -> int:
        """Partitions of `model-state`, which are those of the items."""
        return sum(topic == self.config.topics.model_state for topic, _ in self.places)

    def start(self, admin: AdminClient) -> None:
        stored, begins = self.store.tail_offsets(), kafka.begins(admin, self.places)
        ends = kafka.ends(admin, self.places)
        taken, self.forgotten = self.store.items_taken(), self.store.forgotten()
        for place in self.places:
            self.offsets[place] = stored.get(place, begins[place])
            # What no commit has taken in may hold bad records; reading twice does no harm.
            self.offsets[place] = min(self.offsets[place], taken.get(place, self.offsets[place]))
            if self.offsets[place] > ends[place]:
                raise stores.Ahead(
                    f"it holds {place[0]}[{place[1]}] up to offset {self.offsets[place]}, and the "
                    f"log ends at {ends[place]}"
                )

    def catch_up(self, admin: AdminClient, told: Callable[[float], None]) -> Attributes:
        """Read to what is the end now, uncommitted records included; returns what items changed."""
        ends = kafka.ends(admin, self.places)
        begins = dict(self.offsets)
        total = max(1, sum(ends[place] - begins[place] for place in self.places))
        out: Attributes = []
        # Rows of any partition are readable only once the header, in partition 0, was read.
        header = [] if self.store.space else [(self.config.topics.model_state, 0)]
        for places in filter(None, (header, self.places)):
            self.consumer.assign([TopicPartition(t, p, self.offsets[t, p]) for t, p in places])
            while any(max(self.offsets[p], self.reached[p]) < ends[p] for p in places):
                out += self.poll(0.2)
                told(min(1.0, sum(self.offsets[p] - begins[p] for p in self.places) / total))
        return out

    def poll(self, timeout: float = 0.0) -> Attributes:
        """Apply what has arrived; returns the items whose attributes changed, with their tokens."""
        rows: dict[bytes, bytes] = {}
        gone: dict[bytes, int] = {}
        meta: dict[bytes, bytes | None] = {}
        described: dict[bytes, Described] = {}
        out: Attributes = []
        messages = self.consumer.consume(10_000, timeout)
        # A version record lies behind all rows of its commit, so what it covers was applied. But
        # for this, a row that has left would be back in the folder until its tombstone is read.
        applied = self.store.versions() if messages else {}
        for message in map(checked, messages):
            place = message.topic() or "", message.partition() or 0
            offset = message.offset() or 0
            if message.error() is not None:
                self.reached[place] = offset
                continue
            self.offsets[place] = offset + 1
            key, value = message.key(), message.value()
            if place[0] == self.config.topics.items:
                out += self._describe(message, described)
            elif key is None:
                continue
            elif key.startswith(records.FORGOTTEN):
                meta[key] = value
                (self.forgotten.add if value is not None else self.forgotten.discard)(key)
            elif not stores.is_row(key):
                if value is not None and not self._is_behind(key, value):
                    meta[key] = value
            elif _version(message) <= applied.get(place[1], 0):
                continue
            elif value is None:
                rows.pop(key, None)
                gone[key] = _version(message)
            else:
                gone.pop(key, None)
                rows[key] = value
        if messages:
            self._apply(rows, gone, described, meta)
        return out

    def _apply(
        self, rows: dict[bytes, bytes], gone: dict[bytes, int],
        described: dict[bytes, Described], meta: dict[bytes, bytes | None],
    ) -> None:  # fmt: skip
        if records.SPACE in meta:
            self.store.write(meta={records.SPACE: meta.pop(records.SPACE)})
        meta |= dict([stores.applied_now()])
        for (topic, partition), offset in self.offsets.items():
            key = stores.TAIL + f"{topic}/{partition}".encode()
            meta[key] = msgspec.msgpack.encode(offset)
        for item, news in described.items():
            meta[stores.DESCRIBED + item] = msgspec.msgpack.encode((news.partition, news.offset))
        packed = from_values(list(rows.values()), self.store.dtype) if rows else None
        self.store.write(
            keys=list(rows),
            rows=packed,
            gone=list(gone.items()),
            meta=meta,
            attributes={item: news.value for item, news in described.items()},
        )

    def _is_behind(self, key: bytes, value: bytes) -> bool:
        """Whether the folder already has a later commit's record under this reserved key."""
        stored = self.store.meta(key)
        return stored is not None and _order(key, value) <= _order(key, stored)

    def _describe(self, message: Message, described: dict[bytes, Described]) -> Attributes:
        offset, partition = message.offset() or 0, message.partition() or 0
        try:
            item = decode_item(message.key(), message.value())
        except Invalid as error:
            bad = Bad(0, None, message.value(), error.reason, error.message)
            self.bad.append((place_of(message), offset, DeadLetter.of(message, bad)))
            return []
        tokens, value = None, None
        if item.attributes is not None:
            tokens = attribute_tokens(item.attributes, self.config.items.use)
            value = msgspec.json.encode(item.attributes)
        described[item.id.encode()] = Described(value, partition, offset)
        return [(item.id, tokens)]

    def dead_letters(self) -> list[DeadLetter]:
        """Those of records that could not be used and that no commit has passed on; each once."""
        taken = self.store.items_taken() if self.bad else {}
        out = [letter for place, offset, letter in self.bad if offset >= taken.get(place, 0)]
        self.bad = []
        return out

    def items_offsets(self) -> dict[Place, int]:
        """Next offset of each partition of `items`: what is before it was returned by `poll`."""
        return {p: o for p, o in self.offsets.items() if p[0] == self.config.topics.items}

    def tokens(self, item: str) -> list[str]:
        """Attribute tokens of an item, as last read."""
        return attribute_tokens(self.store.attributes(item.encode()), self.config.items.use)

    def pending(self) -> Attributes:
        """Items whose attributes were read before a restart, and no commit has taken in."""
        taken, use = self.store.items_taken(), self.config.items.use
        return [
            (item, None if attributes is None else attribute_tokens(attributes, use))
            for item, attributes, partition, offset in self.store.described()
            if offset >= taken.get((self.config.topics.items, partition), 0)
        ]


def _version(message: Message) -> int:
    """The version of a row or of its deletion."""
    value = message.value()
    if value is None:
        return int(dict(message.headers() or []).get(records.VERSION_HEADER) or 0)
    return version_of(value)


def _order(key: bytes, value: bytes) -> int:
    """What increases from one record of a reserved key to the next."""
    if key.startswith(records.PROGRESS):
        return msgspec.msgpack.decode(value, type=records.Progress).commit
    if key == records.PLACEMENT:
        return records.unpack_placement(value, 1).epoch
    if key.startswith((records.VERSION, records.ITEMS)):
        return msgspec.msgpack.decode(value, type=int)
    return 0


def settle_space(config: Config, store: Store, producer: Producer, partitions: int) -> Space:
    """The vector space of the app: the one in `model-state`, or else a new one, written there.

    Refused if it does not fit the configuration.
    """
    wanted = Space.of(config.engine_settings, partitions)
    space = store.space
    adopts = store.meta(stores.ORIGIN) is not None and not store.progress()
    if space is not None and not adopts:
        space.check(wanted, "the model-state topic")
        return space
    if space is not None:
        # The worker spreads a replay's items over its own partitions; all else must fit.
        space.check(Space.of(config.engine_settings, space.partitions), str(store.path))
    encoded = msgspec.msgpack.encode(wanted)
    producer.begin_transaction()
    producer.produce(config.topics.model_state, encoded, records.SPACE, partition=0)
    producer.commit_transaction(CALL_SECONDS)
    store.set_meta({records.SPACE: encoded})
    return wanted


def adopt(store: Store, engine: Engine, first: dict[Place, int]) -> bool:
    """Make a folder that `replay` made the state of a worker, whose first commit publishes it all.

    Returns whether there is such a commit to make. `first` is where the worker begins in `clicks`.
    """
    if store.meta(stores.ORIGIN) is None or store.progress():
        return False
    checkpoint.set_offsets(store, first)
    engine.publish_all()
    return True


def starts(
    config: Config, store: Store, group: Group, admin: AdminClient, accept_loss: bool
) -> dict[Place, int]:
    """The next offset to learn from of each clicks partition.

    Refused where clicks that were not processed are gone, or where group and progress disagree.
    """
    places = sorted(place for place in group.assigned if place[0] == config.topics.clicks)
    begins, ends = kafka.begins(admin, places), kafka.ends(admin, places)
    asked = group.consumer.committed([TopicPartition(*place) for place in places], CALL_SECONDS)
    committed = {(tp.topic, tp.partition): tp.offset for tp in asked}
    progress = store.progress()
    first = first_offsets(config, group.consumer, begins, ends)
    out: dict[Place, int] = {}
    for place in places:
        name = f"{place[0]}[{place[1]}]"
        known, offset = progress.get(place), committed[place]
        if known is None:
            if offset >= 0:
                raise Refused(
                    f"{name}: group {config.app.name} has offset {offset}, and model-state has no "
                    "progress. Another program uses this group id, or model-state was emptied: "
                    "choose another app.name"
                )
            # A partition that was added to a running app is read whole.
            out[place] = begins[place] if progress else first[place]
            continue
        if offset >= 0 and offset != known.offset:
            raise Refused(
                f"{name}: group {config.app.name} is at offset {offset}, and model-state says that "
                f"clicks before {known.offset} are in the model. Somebody moved the group's "
                "offsets: delete them (kafka-consumer-groups --delete-offsets), and the worker "
                "takes those of model-state, or choose another app.name"
            )
        if known.offset > ends[place]:
            raise Refused(
                f"{name}: processed up to offset {known.offset}, and the log ends at "
                f"{ends[place]}: the topic was emptied or created again. Use a new app.name for it"
            )
        out[place] = _reachable(name, known.offset, begins[place], accept_loss)
    return out


def first_offsets(
    config: Config, consumer: Consumer, begins: dict[Place, int], ends: dict[Place, int]
) -> dict[Place, int]:
    """Where `start.position` lets each partition begin that was never read."""
    time = start_time(config.start.position)
    if time is None:
        return begins if config.start.position == "earliest" else ends
    return ends | kafka.offsets_at(consumer, begins, time)


def _reachable(name: str, offset: int, begin: int, accept_loss: bool) -> int:
    if offset >= begin:
        return offset
    if not accept_loss:
        raise Refused(
            f"{name}: clicks from offset {offset} to {begin} are below retention and were not "
            "processed. Start with --accept-loss to go on without them"
        )
    log.warning("%s: clicks from offset %d to %d are lost", name, offset, begin)
    return begin


def fold_from(
    config: Config, engine: Engine, store: Store, group: Group, admin: AdminClient,
    until: Mapping[Place, int], accept_loss: bool,
) -> dict[Place, int]:  # fmt: skip
    """Load the checkpoint; returns where folding has to begin so that it ends at `until`.

    Without a checkpoint that is one horizon, and a day, before the greatest event time.
    """
    begins, progress = kafka.begins(admin, until), store.progress()
    saved = checkpoint.load(store, engine)
    if not progress:
        return dict(until)
    newest = max(p.time for p in progress.values())
    since = max(0, newest - config.graph.horizon_ms - DAY_MS)
    by_time = kafka.offsets_at(group.consumer, until, since)
    out: dict[Place, int] = {}
    for place, end in until.items():
        folded = None if saved is None else saved.get(place_name(place))
        if folded is not None:
            begin = _reachable(f"{place[0]}[{place[1]}]", folded, begins[place], accept_loss)
        else:
            begin = max(by_time.get(place, end), begins[place])
        out[place] = min(begin, end)
    return out


def load_model(store: Store, engine: Engine, tokens: Callable[[str], Sequence[str]]) -> int:
    """Give rows, placement, versions and times to an engine whose graph is restored.

    Returns the number of the last commit.
    """
    engine.load_rows(*store.all_rows(), tokens)
    placement = store.meta(records.PLACEMENT)
    if placement:
        engine.placement = records.unpack_placement(placement, engine.settings.model.dim)
    engine.versions.update(store.versions())
    progress = store.progress().values()
    engine.round_number = max([engine.round_number, *(p.round for p in progress)])
    engine.clock.time = max([engine.clock.time, *(p.time for p in progress)])
    return max((p.commit for p in progress), default=0)
