"""How a worker comes back to where it committed.

  rows       from the state folder, and from `model-state` what the folder does not have yet
  graph      from the folder's checkpoint, and from the clicks since then, folded without learning
  offsets    from the progress records in `model-state`; the group's offsets must agree

With no folder all of it comes from Kafka: every row, and the clicks of one horizon.
"""

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.graph.graph import NEVER
from core.settings import DAY_MS
from streamer import folders, records
from streamer import store as stores
from streamer.admin import forget
from streamer.decode.ahead import Window
from streamer.decode.events import Decoder
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, topics
from streamer.kafka.clients import CALL_SECONDS, Partition, label, partition_name
from streamer.kafka.identity import Identity
from streamer.records import Original, Space
from streamer.settings.load import start_time
from streamer.settings.sections import Config
from streamer.store import Store
from streamer.worker import age, checkpoint, folder, header
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.tail import tokens_of

log = logging.getLogger(__name__)


def check_space(config: Config) -> None:
    """Refused, before anything takes long, if the state folder has another vector space.

    A folder that cannot be read is for `open_store` to judge, which may move it aside.
    """
    path = Path(config.state.dir)
    space = None
    with suppress(OSError, WalkstreamError), folders.reading(path) as store:
        space = store.space
    if space is not None:
        space.check(Space.of(config.engine_settings, space.partitions), str(path))


def open_store(config: Config, admin: AdminClient, now: Identity, accepted: Accepted) -> Store:
    """The state folder, if it belongs to these topics and is young enough to catch up.

    Refused if cluster or model are not those that the folder was made with, if a reset is only
    half done, or if another program's database is there.
    """
    path = Path(config.state.dir)
    forget.check_reset(path)
    folders.check_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store(path)
    if store.meta(stores.IDENTITY) is None:
        entries = {stores.IDENTITY: msgspec.msgpack.encode(now.ids)}
        if store.meta(stores.ORIGIN) == stores.REPLAY:
            try:
                _check_replay(config, store, admin)
            except Refused:
                store.close()
                raise
            entries[stores.ORIGIN] = stores.ADOPTED
        store.set_meta(entries)
        return store
    try:
        folder.check(config, store, now, accepted, admin)
    except Refused:
        store.close()
        raise
    limit = topics.DELETE_RETENTION_MS / 2000
    # A folder of `replay` is no cache at all as long as no worker has published it.
    if header.has_learned(store.progress()) and store.age() > limit:
        log.warning("%s: older than %.0f s, deletions may be missing: rebuilding", path, limit)
        if store.meta(stores.ORIGIN) is not None:
            # No Kafka has the clicks and the catalogue of a replay.
            store.forget_rows()
            return store
        store.close()
        folders.delete(path)
        return open_store(config, admin, now, accepted)
    return store


def _check_replay(config: Config, store: Store, admin: AdminClient) -> None:
    """Refused if this folder of `replay` cannot become the state of this worker.

    Nothing is written before this is sure: the folder may be all there is of a backfill.
    """
    topic = config.topics.model_state
    where = [(topic, p) for p in admin.list_topics(topic, CALL_SECONDS).topics[topic].partitions]
    if clients.begins(admin, where) != clients.ends(admin, where):
        raise Refused(
            f"{store.path}: this folder comes from `walkstream replay`, and {topic} already has "
            "the model of a worker. Point state.dir to a new folder, or use new topics"
        )
    space = store.space
    assert space is not None, "replay writes the header first"
    space.check(Space.of(config.engine_settings, space.partitions), str(store.path))
    checkpoint.check_scale(store, config.engine_settings)


def adopt(store: Store, engine: Engine, first: dict[Partition, int]) -> bool:
    """Make a folder that `replay` made the state of a worker, whose first commit publishes it all.

    Returns whether there is such a commit to make. `first` is where the worker begins in `clicks`.
    """
    if not header.is_replay(store):
        return False
    checkpoint.set_offsets(store, first)
    engine.publish_all()
    return True


def starts(
    config: Config, store: Store, group: Group, admin: AdminClient, accepted: Accepted
) -> dict[Partition, int]:
    """The next offset to learn from of each clicks partition that is ours. Refused as `unread`."""
    partitions = sorted(
        partition for partition in group.assigned if partition[0] == config.topics.clicks
    )
    return unread(
        config, partitions, store.progress(), group.consumer, admin, accepted,
        store.meta(records.MANIFEST),
    )  # fmt: skip


def unread(
    config: Config, partitions: Sequence[Partition], progress: Mapping[Partition, records.Progress],
    consumer: Consumer, admin: AdminClient, accepted: Accepted, manifest: bytes | None,
) -> dict[Partition, int]:  # fmt: skip
    """The next offset to learn from of these clicks partitions, with a consumer of the group's id.

    Refused where clicks that were not processed are gone, or where group and progress disagree.
    `manifest` is that of the last commit.
    """
    begins, ends = clients.begins(admin, partitions), clients.ends(admin, partitions)
    asked = consumer.committed(
        [TopicPartition(*partition) for partition in partitions], CALL_SECONDS
    )
    is_void = records.is_of_another(manifest, config.app.name)
    committed = {(tp.topic, tp.partition): -1 if is_void else tp.offset for tp in asked}
    first = first_offsets(config, consumer, begins, ends)
    out: dict[Partition, int] = {}
    for partition in partitions:
        name = label(partition)
        known, offset = progress.get(partition), committed[partition]
        if known is None:
            if offset >= 0:
                raise Refused(
                    f"{name}: group {config.app.name} has offset {offset}, and model-state has no "
                    "progress. Another program uses this group id: choose another app.name. Or "
                    "model-state was emptied or made anew: `walkstream reset --topics` deletes the "
                    "group's offsets too, and all is learned anew"
                )
            # A partition that was added to a running app is read whole.
            out[partition] = begins[partition] if progress else first[partition]
            continue
        if offset >= 0 and offset != known.offset and accepted.repair:
            log.warning("%s: the group is at %d, the model at %d", name, offset, known.offset)
        elif offset >= 0 and offset != known.offset:
            raise Refused(
                f"{name}: group {config.app.name} is at offset {offset}, and model-state says that "
                f"clicks before {known.offset} are in the model. Somebody moved the group's "
                "offsets: delete them (kafka-consumer-groups --delete-offsets), and the worker "
                "takes those of model-state, or choose another app.name"
            )
        if known.offset > ends[partition]:
            raise Refused(
                f"{name}: processed up to offset {known.offset}, and the log ends at "
                f"{ends[partition]}: the topic was emptied, or lost what it had acknowledged. Run "
                "`walkstream reset --topics`, and all is learned anew from the clicks that it has"
            )
        out[partition] = reachable(name, known.offset, begins[partition], accepted.loss)
    return out


def first_offsets(
    config: Config, consumer: Consumer, begins: dict[Partition, int], ends: dict[Partition, int]
) -> dict[Partition, int]:
    """Where `start.position` lets each partition begin that was never read."""
    time = start_time(config.start.position)
    if time is None:
        return begins if config.start.position == "earliest" else ends
    return ends | clients.offsets_at(consumer, begins, time)


def reachable(name: str, offset: int, begin: int, accept_loss: bool) -> int:
    """The offset, or where the log begins by now. Refused if that is a loss nobody accepted."""
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
    until: Mapping[Partition, int], accept_loss: bool,
) -> dict[Partition, int]:  # fmt: skip
    """Load the checkpoint; returns where folding has to begin so that it ends at `until`.

    Without a checkpoint that is one horizon, and a day, before the greatest event time.
    """
    begins, progress = clients.begins(admin, until), store.progress()
    saved = checkpoint.load(store, engine)
    if not header.has_learned(progress):
        return dict(until)
    newest = max(p.time for p in progress.values())
    since = max(0, newest - config.graph.horizon_ms - DAY_MS)
    by_time = clients.offsets_at(group.consumer, until, since)
    out: dict[Partition, int] = {}
    for partition, end in until.items():
        folded = None if saved is None else saved.get(partition_name(partition))
        if folded is not None:
            name = label(partition)
            begin = reachable(name, folded, begins[partition], accept_loss)
        else:
            begin = max(by_time.get(partition, end), begins[partition])
        out[partition] = min(begin, end)
    return out


def place_of(message: Message) -> tuple[int, int]:
    """Partition and offset of a record."""
    return message.partition() or 0, message.offset() or 0


def copies(
    messages: list[Message], begin: Mapping[Partition, int], decoder: Decoder,
    refused: Container[tuple[int, int]],
) -> list[int]:  # fmt: skip
    """Numbers of the old clicks, of those to fold from `begin` on, that would count twice.

    What `dlq replay` sent again is left out if its original is not before `begin` and is good by
    now: the settings that made the copy good have then made the original count as well. `refused`
    are places of originals that were too far ahead, which single records do not tell.
    """
    found: dict[int, Original] = {}
    for number, message in enumerate(messages):
        original = records.original(message)
        if original is not None and original[:2] not in refused:
            partition = message.topic() or "", original.partition
            if partition in begin and begin[partition] <= original.offset:
                found[number] = original
    if not found:
        return []
    decoded = decoder(
        [messages[number].key() for number in found],
        [messages[number].value() for number in found],
        [original.timestamp for original in found.values()],
    )
    numbers = list(found)
    return sorted({numbers[record] for record in decoded.records.tolist()})


def windows(store: Store, offsets: Iterable[Partition]) -> dict[int, Window]:
    """What is remembered of the times before the offsets from which clicks are folded again.

    Of a partition of a model that has learned, of which nothing is remembered, at least the time
    that the model has reached: a new one, one made anew, one of an older version.
    """
    progress = store.progress()
    newest = max((p.time for p in progress.values()), default=NEVER)
    out = {}
    if newest != NEVER:
        out = {number: Window.at(newest) for _, number in offsets}
    return out | dict(checkpoint.windows(store))


def load_model(config: Config, store: Store, engine: Engine) -> int:
    """Give rows, placement, versions and times to an engine whose graph is restored.

    Returns the number of the last commit.
    """
    use = config.items.use
    was = {p.use for p in store.progress().values() if p.use is not None} - {use}
    before = partial(tokens_of, store, use=was.pop()) if was else None
    engine.load_rows(*store.all_rows(), partial(tokens_of, store, use=use), before)
    placement = store.meta(records.PLACEMENT)
    if placement:
        engine.placement = records.unpack_placement(placement, engine.settings.model.dim)
    engine.versions.update(store.versions())
    progress = store.progress().values()
    engine.round_number = max([engine.round_number, *(p.round for p in progress)])
    engine.clock.time = max([engine.clock.time, *(p.time for p in progress)])
    old = age.warning(engine.clock.time, engine.settings.graph.horizon_ms)
    if len(engine.items) and old:
        log.warning(old)
    manifest = store.meta(records.MANIFEST)
    newest = msgspec.msgpack.decode(manifest, type=records.Manifest).commit if manifest else 0
    return max([newest, *(p.commit for p in progress)])
