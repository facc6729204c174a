"""How a worker comes back to where it committed.

  rows       from the state folder, and from `model-state` what the folder does not have yet
  graph      from the folder, where every row says as of which commit it is, and from the evidence
             since then (`streamer.worker.refold`)
  offsets    from the progress records in `model-state`; the group's offsets must agree

With no folder all of it comes from Kafka: every row, the graph as the last sweep wrote it, and the
evidence since that began.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.graph.graph import NEVER
from core.retracing import remember
from core.starts import Birth
from streamer.admin import forget
from streamer.decode.ahead import Window
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, topics
from streamer.kafka.clients import CALL_SECONDS, Partition, label
from streamer.kafka.identity import Identity
from streamer.settings.load import start_time
from streamer.settings.sections import Config
from streamer.state import commits, folders, packing, records, traces
from streamer.state import store as stores
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.worker import age, folder, header
from streamer.worker.group import Group
from streamer.worker.header import Accepted
from streamer.worker.news import tokens_of

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


def check_topics(config: Config, admin: AdminClient) -> None:
    """Refused if the topics would lose clicks or vectors."""
    specs = topics.specs(config)
    if mismatches := topics.check(admin, specs):
        raise Refused("the topics do not fit:\n  " + "\n  ".join(mismatches))


def open_store(config: Config, admin: AdminClient, now: Identity, accepted: Accepted) -> Store:
    """The state folder, if it belongs to these topics and is young enough to catch up.

    Refused if cluster or model are not those that the folder was made with, if a reset is only
    half done, or if another program's database is there.
    """
    path = Path(config.state.dir)
    forget.check_reset(path)
    folders.check_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if folders.put_back(path):
        log.info("%s: an older state was to be made anew, and was not: it is back", path)
    store = Store(path)
    if store.meta(stores.IDENTITY) is None:
        entries = {stores.IDENTITY: msgspec.msgpack.encode(now.ids)}
        if store.meta(stores.ORIGIN) == stores.REPLAY:
            try:
                check_replay(config, store, admin)
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
    if store.age() <= limit:
        return store
    told = f"{path}: older than {limit:.0f} s, deletions may be missing"
    # What it has may be nowhere else, or be what is going to be published again.
    if accepted.repair or accepted.loss or store.holds_more or header.void(config, store, now):
        log.warning("%s", told)
        return store
    log.warning("%s: rebuilding", told)
    store.close()
    # Whether Kafka has all that is needed turns out on the way: it goes when the worker runs.
    folders.keep(path)
    store = Store(path)
    store.set_meta({stores.IDENTITY: msgspec.msgpack.encode(now.ids)})
    return store


def check_replay(config: Config, store: Store, admin: AdminClient) -> None:
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


def starts(
    config: Config, store: Store, group: Group, admin: AdminClient, accepted: Accepted
) -> dict[Partition, int]:
    """The next offset to learn from of each clicks partition that is ours. Refused as `unread`."""
    partitions = sorted(
        partition for partition in group.assigned if partition[0] == config.topics.clicks
    )
    return unread(
        config, partitions, store.progress(), group.consumer, admin, accepted,
        commits.newest_of(store),
    )  # fmt: skip


def unread(
    config: Config, partitions: Sequence[Partition], progress: Mapping[Partition, records.Progress],
    consumer: Consumer, admin: AdminClient, accepted: Accepted, manifest: commits.Manifest | None,
) -> dict[Partition, int]:  # fmt: skip
    """The next offset to learn from of these clicks partitions, with a consumer of the group's id.

    Refused where clicks that were not processed are gone, or where group and progress disagree.
    `manifest` is that of the last commit.
    """
    begins, ends = clients.begins(admin, partitions), clients.ends(admin, partitions)
    asked = consumer.committed(
        [TopicPartition(*partition) for partition in partitions], CALL_SECONDS
    )
    is_void = commits.is_of_another(manifest, config.app.name)
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


def windows(store: Store, partitions: Iterable[Partition]) -> dict[int, Window]:
    """What is remembered of the times before the offsets from which clicks are read on.

    Of a partition of a model that has learned, of which nothing is remembered, at least the time
    that the model has reached: a new one, or one made anew.
    """
    progress = store.progress()
    newest = max((p.time for p in progress.values()), default=NEVER)
    out = {}
    for where in partitions:
        known = progress.get(where)
        if known is not None and known.window is not None:
            out[where[1]] = known.window
        elif newest != NEVER:
            out[where[1]] = Window.at(newest)
    return out


def load_model(
    config: Config, store: Store, engine: Engine, recent: Callable[[], Mapping[bytes, bytes | None]]
) -> int:
    """Give rows, placement, versions, marks and times to an engine whose graph is restored.

    `recent` gives the attributes that the store does not have yet. Returns the number of the last
    commit.
    """
    marks, progress = store.marks, store.progress().values()
    placement = store.meta(records.PLACEMENT)
    if placement:
        engine.placement = packing.unpack_placement(placement, engine.settings.model.dim)
    fusion = store.meta(records.FUSION)
    if fusion:
        engine.fusion, _ = packing.unpack_fusion(fusion)
    engine.versions.update(store.versions())
    engine.publish_from = marks.publish_from
    engine.starts.major = None if marks.major is None else Birth(*marks.major)
    engine.round_number = max([engine.round_number, *(p.round for p in progress)])
    engine.clock.time = max([engine.clock.time, *(p.time for p in progress)])
    rows = store.rows_in_parts() if store.space is not None else iter(())
    use = config.items.use
    engine.load_rows(rows, lambda item: tokens_of(store, item, use, recent()))
    remember(engine, traces.rounds(store))
    old = age.warning(engine.clock.time, engine.settings.graph.horizon_ms)
    for told in (old, age.shortened(engine)):
        if len(engine.items) and told:
            log.warning(told)
    manifest = commits.newest_of(store)
    newest = 0 if manifest is None else manifest.commit
    return max([newest, *(p.commit for p in progress)])
