"""What `model-state` says under its reserved keys, for commands that read it without a folder."""

from collections.abc import Callable, Mapping

from confluent_kafka import Consumer

from streamer import records
from streamer.kafka.clients import Partition
from streamer.kafka.waiting import between


def reserved(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> dict[bytes, bytes]:
    """The newest value under each reserved key, between two offsets of each partition.

    Keys that were deleted are left out. `consumer` reads what is committed, and is of no group.
    """
    out: dict[bytes, bytes | None] = {}
    for message in between(consumer, begins, ends):
        key = message.key()
        if key is not None and not records.is_row(key):
            out[key] = message.value()
    return {key: value for key, value in out.items() if value is not None}


def row_keys(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    beat: Callable[[], None],
) -> set[bytes]:  # fmt: skip
    """Keys of items and attributes whose newest record is no tombstone, in any of the topics."""
    living: dict[str, set[bytes]] = {topic: set() for topic, _ in begins}
    for message in between(consumer, begins, ends, beat):
        key, keys = message.key(), living[message.topic() or ""]
        if key is not None and records.is_row(key):
            (keys.discard if message.value() is None else keys.add)(key)
    return set().union(*living.values())
