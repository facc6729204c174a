"""What `model-state` says under its reserved keys, for commands that read it without a folder."""

from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, Message, TopicPartition

from streamer import records
from streamer.kafka.clients import Partition, checked, partition_of


def reserved(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> dict[bytes, bytes]:
    """The newest value under each reserved key, between two offsets of each partition.

    Keys that were deleted are left out. `consumer` reads what is committed, and is of no group.
    """
    out: dict[bytes, bytes | None] = {}
    for message in _between(consumer, begins, ends):
        key = message.key()
        if key is not None and not records.is_row(key):
            out[key] = message.value()
    return {key: value for key, value in out.items() if value is not None}


def row_keys(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> set[bytes]:
    """Keys of items and attributes whose newest record is no tombstone, in any of the topics."""
    living: dict[str, set[bytes]] = {topic: set() for topic, _ in begins}
    for message in _between(consumer, begins, ends):
        key, keys = message.key(), living[message.topic() or ""]
        if key is not None and records.is_row(key):
            (keys.discard if message.value() is None else keys.add)(key)
    return set().union(*living.values())


def _between(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> Iterator[Message]:
    at = dict(begins)
    consumer.assign([TopicPartition(*partition, offset) for partition, offset in begins.items()])
    while any(at[partition] < end for partition, end in ends.items()):
        for message in map(checked, consumer.consume(10_000, 0.2)):
            partition, offset = partition_of(message), message.offset() or 0
            if message.error() is None:
                yield message
                offset += 1
            # The last offsets may be markers of transactions: then only the end tells.
            at[partition] = max(at[partition], offset)
    consumer.unassign()
