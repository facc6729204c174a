"""`walkstream worker --dry-run`: what a worker would do, without joining, writing or learning.

It asks what a start asks, in the same order, and stops at the first thing that would stop a worker.
"""

import tempfile
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamer import kafka, topics
from streamer.decode.events import Decoder
from streamer.errors import Refused
from streamer.kafka import CALL_SECONDS, Place, place_name
from streamer.look.check_topic import newest
from streamer.records import Space
from streamer.settings import Config
from streamer.store import open_for_reading
from streamer.worker import checkpoint
from streamer.worker.restore import first_offsets

SAMPLE = 2000
"""How many of the newest clicks are decoded."""


def run(config: Config) -> None:
    """Print what a worker would begin with. Refused, as a worker would be, where it could not."""
    console = Console(soft_wrap=True)
    admin = kafka.admin(config)
    console.print(f"Kafka answers at {escape(str(config.kafka.get('bootstrap.servers')))}")
    specs = topics.specs(config.topics, config.graph.horizon_ms)
    if mismatches := topics.check(admin, specs):
        raise Refused("the topics do not fit:\n  " + "\n  ".join(mismatches))
    console.print(f"{len(specs)} topics, all fit")
    if others := kafka.other_members(admin, config):
        console.print(f"in group {config.app.name} now: {', '.join(others)}", style="yellow")
    folded = _folder(config, console)
    consumer = kafka.tail_consumer(config)
    try:
        _starts(config, admin, consumer, folded, console)
        _sample(config, admin, consumer, console)
    finally:
        consumer.close()
    console.print("dry run: nothing was written, joined or learned")


def _folder(config: Config, console: Console) -> dict[str, int]:
    """Says what the state folder is; returns the offsets that its checkpoint stands for."""
    path = Path(config.state.dir)
    if not (path / "CURRENT").exists():
        console.print(f"{escape(str(path))}: no state folder yet: rows come from Kafka")
        return {}
    with tempfile.TemporaryDirectory(prefix="walkstream-") as scratch:
        store = open_for_reading(path, Path(scratch))
        try:
            if (space := store.space) is not None:
                space.check(Space.of(config.engine_settings, space.partitions), str(path))
            saved, rows = checkpoint.pointer(store), store.count_rows()[0]
        finally:
            store.close()
    console.print(f"{escape(str(path))}: a state folder of {rows:,} items, and its space fits")
    return saved.offsets if saved else {}


def _starts(
    config: Config, admin: AdminClient, consumer: Consumer, folded: dict[str, int], console: Console
) -> None:
    """Where each partition of the clicks would begin."""
    where = _places(config, consumer)
    begins, ends = kafka.begins(admin, where), kafka.ends(admin, where)
    group = Consumer(kafka.COMMON | config.kafka | {"group.id": config.app.name})
    try:
        asked = group.committed([TopicPartition(*place) for place in where], CALL_SECONDS)
    finally:
        group.close()
    committed = {(tp.topic, tp.partition): tp.offset for tp in asked}
    first = first_offsets(config, consumer, begins, ends)
    table = Table("partition", "begins at", "to learn", "to fold again", title="Clicks")
    for place in where:
        known = committed[place] >= 0
        begin = committed[place] if known else first[place]
        again = begin - folded.get(place_name(place), begins[place]) if known else 0
        lost = f" ({begins[place] - begin:,} are gone)" if begin < begins[place] else ""
        table.add_row(
            escape(f"{place[0]}[{place[1]}]"), f"{begin:,}",
            f"{max(0, ends[place] - begin):,}{lost}", f"{max(0, again):,} at most",
        )  # fmt: skip
    console.print(table)


def _sample(config: Config, admin: AdminClient, consumer: Consumer, console: Console) -> None:
    """Decode the newest clicks of each partition, and say what would become of them."""
    where = _places(config, consumer)
    messages = newest(consumer, kafka.begins(admin, where), kafka.ends(admin, where), SAMPLE)
    decoder = Decoder(config.clicks, config.events, config.registry)
    decoded = decoder(
        [m.key() for m in messages], [m.value() for m in messages],
        [m.timestamp()[1] for m in messages],
    )  # fmt: skip
    console.print(
        f"of the newest {len(messages):,} records, {len(decoded.clicks):,} clicks of "
        f"{len(set(decoded.clicks.users)):,} users on {len(set(decoded.clicks.items)):,} items "
        f"would be learned, {decoded.unwanted:,} left out, and {len(decoded.bad):,} would be dead "
        "letters"
    )
    firsts = {bad.reason: bad.message for bad in reversed(decoded.bad)}
    for reason, count in Counter(bad.reason for bad in decoded.bad).items():
        console.print(f"  {count:,} {reason.value}, such as: {escape(firsts[reason])}")


def _places(config: Config, consumer: Consumer) -> list[Place]:
    clicks = config.topics.clicks
    return [(clicks, partition) for partition in kafka.partitions(consumer, clicks)]
