"""`walkstream worker --dry-run`: what a worker would do, without joining, writing or learning.

It asks what a start asks, in the same order, and stops at the first thing that would stop a worker.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from rich.markup import escape
from rich.table import Table

from streamer import counts
from streamer.admin import forget
from streamer.decode.guarded import GuardedDecoder
from streamer.errors import Refused
from streamer.kafka import clients, rights, topics
from streamer.kafka.clients import Partition, label
from streamer.kafka.identity import Identity, identity
from streamer.kafka.members import members, other_members
from streamer.kafka.newest import newest
from streamer.settings.sections import Config
from streamer.state import commits, records
from streamer.state import store as stores
from streamer.state.folders import files, reading
from streamer.state.model_state import reserved
from streamer.state.records import Progress, Space
from streamer.terminal import Console
from streamer.wording import counted
from streamer.worker import age, folder, header, publishers, restore
from streamer.worker.header import Accepted, Difference

SAMPLE = 2000
"""How many of the newest clicks are decoded."""


class Known(NamedTuple):
    """What the state folder has; nothing, if there is none."""

    space: Space | None
    progress: dict[Partition, Progress]
    read: dict[Partition, int]
    """Next offset to read of each partition of `model-state`."""
    ids: dict[str, str]
    """Of the topics it was made with."""
    manifest: commits.Manifest | None
    """Of the newest commit."""


def run(config: Config, accepted: Accepted) -> None:
    """Print what a worker would begin with. Refused, as a worker would be, where it could not."""
    with rights.allowed(config, "worker --dry-run") as admin:
        _run(config, admin, accepted)


def _run(config: Config, admin: AdminClient, accepted: Accepted) -> None:
    console = Console()
    console.soft_wrap = not console.is_terminal
    console.print(f"Kafka answers at {escape(str(config.kafka.get('bootstrap.servers')))}")
    specs = topics.specs(config)
    if mismatches := topics.check(admin, specs):
        raise Refused("the topics do not fit:\n  " + "\n  ".join(mismatches))
    console.print(f"{len(specs)} topics, all fit")
    if others := other_members(admin, config):
        console.print(f"in group {config.app.name} now: {', '.join(others)}", style="yellow")
    now = identity(admin, config)
    known = _folder(config, admin, now, accepted, console)
    consumer = clients.tail_consumer(config)
    try:
        progress, manifest = _progress(config, admin, consumer, known, now, accepted, console)
        newest_ms = max((one.time for one in (progress or {}).values()), default=0)
        if old := age.warning(newest_ms, config.graph.horizon_ms):
            console.print(f"! {old}", style="yellow")
        _starts(config, admin, consumer, progress, manifest, accepted, console)
        _sample(config, admin, consumer, console)
    finally:
        consumer.close()
    console.print("dry run: nothing was written, joined or learned")


def _folder(
    config: Config, admin: AdminClient, now: Identity, accepted: Accepted, console: Console
) -> Known:
    """Says what the state folder is."""
    path = Path(config.state.dir)
    forget.check_reset(path)
    if not files(path):
        console.print(f"{escape(str(path))}: no state folder yet: rows come from Kafka")
        return Known(None, {}, {}, {}, None)
    with reading(path) as store:
        if store.meta(stores.ORIGIN) == stores.REPLAY:
            restore.check_replay(config, store, admin)
        else:
            folder.check(config, store, now, accepted, admin)
        if (space := store.space) is not None:
            space.check(Space.of(config.engine_settings, space.partitions), str(path))
        rows = counts.rows(store)[0]
        ids = header.folder_ids(store)
        known = Known(
            space, store.progress(), store.tail_offsets(), ids,
            commits.newest_of(store),
        )  # fmt: skip
    console.print(
        f"{escape(str(path))}: a state folder of {counted(rows, 'item')}, and its space fits"
    )
    return known


def _progress(
    config: Config, admin: AdminClient, consumer: Consumer, known: Known, now: Identity,
    accepted: Accepted, console: Console,
) -> tuple[dict[Partition, Progress] | None, commits.Manifest | None]:  # fmt: skip
    """How far the clicks were processed: what the folder knows, and `model-state` since then.

    None where that is void, and a worker reads the new topic from its beginning. And the manifest
    of the newest commit.
    """
    topic = config.topics.model_state
    where = [(topic, partition) for partition in clients.partitions(consumer, topic)]
    begins, ends = clients.begins(admin, where), clients.ends(admin, where)
    begins = {
        partition: min(known.read.get(partition, begins[partition]), ends[partition])
        for partition in where
    }
    if left := sum(ends[partition] - begins[partition] for partition in where):
        console.print(f"reading up to {counted(left, 'record')} of {topic} ...")
    found = reserved(consumer, begins, ends, skips_strange=accepted.repair)
    value = found.get(records.SPACE)
    space = known.space if value is None else msgspec.msgpack.decode(value, type=Space)
    others: list[Difference] = []
    if space is not None:
        space.check(Space.of(config.engine_settings, len(where)), topic)
        others += header.differences(config.app.name, config.topics, space, known.ids, now)
        header.refuse(others, accepted)
        if any(key.startswith(records.PROGRESS) for key in found) or known.progress:
            header.check_nameless(config, space, admin)
    if told := publishers.of_another(config, admin, space, now):
        raise Refused(told)
    if any((one.role, one.is_harmless) == ("clicks", False) for one in others):
        return None, None
    progress = {
        records.progress_partition(key): msgspec.msgpack.decode(value, type=Progress)
        for key, value in found.items()
        if key.startswith(records.PROGRESS)
    }
    return known.progress | progress, commits.newest_manifest(found.items()) or known.manifest


def _starts(
    config: Config, admin: AdminClient, consumer: Consumer,
    progress: Mapping[Partition, Progress] | None, manifest: commits.Manifest | None,
    accepted: Accepted, console: Console,
) -> None:  # fmt: skip
    """Where each partition of the clicks would begin."""
    where = _partitions(config, consumer)
    begins, ends = clients.begins(admin, where), clients.ends(admin, where)
    starts = begins
    if progress is not None:
        group = clients.made(
            Consumer, clients.COMMON | config.kafka | {"group.id": config.app.name}
        )
        try:
            # A worker that runs may commit between the two looks that are compared.
            is_live = bool(members(admin, config))
            given = accepted._replace(repair=accepted.repair or is_live)
            starts = restore.unread(config, where, progress, group, admin, given, manifest)
        finally:
            group.close()
    table = Table("partition", "begins at", "to learn", title="Clicks")
    for partition, begin in starts.items():
        left = max(0, ends[partition] - begin)
        table.add_row(escape(label(partition)), f"{begin:,}", f"{left:,}")
    console.print(table)


def _sample(config: Config, admin: AdminClient, consumer: Consumer, console: Console) -> None:
    """Decode the newest clicks of each partition, and say what would become of them."""
    where = _partitions(config, consumer)
    messages = newest(consumer, clients.begins(admin, where), clients.ends(admin, where), SAMPLE)
    decoder = GuardedDecoder(config.clicks, config.events, config.registry)
    decoded = decoder(
        [m.key() for m in messages], [m.value() for m in messages],
        [m.timestamp()[1] for m in messages],
        np.array([m.partition() for m in messages], np.int64),
    )  # fmt: skip
    clicks = decoded.clicks
    console.print(
        f"of the newest {counted(len(messages), 'record')}, {counted(len(clicks), 'click')} of "
        f"{counted(len(set(clicks.users)), 'user')} on {counted(len(set(clicks.items)), 'item')} "
        f"would count, {decoded.unwanted:,} be left out, and {len(decoded.bad):,} would be dead "
        "letters"
    )
    firsts = {bad.reason: bad.message for bad in reversed(decoded.bad)}
    for reason, count in Counter(bad.reason for bad in decoded.bad).items():
        console.print(f"  {count:,} {reason.value}, such as: {escape(firsts[reason])}")


def _partitions(config: Config, consumer: Consumer) -> list[Partition]:
    clicks = config.topics.clicks
    return [(clicks, partition) for partition in clients.partitions(consumer, clicks)]
