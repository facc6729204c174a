"""The newest records of a topic, for commands that look at a sample."""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, Message, TopicPartition

from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition


def newest(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int], n: int
) -> list[Message]:
    """About the last n records, as evenly over the partitions as they allow.

    Read without a group, and nothing is committed. Fewer where transactions left markers.
    """
    sizes = sorted((ends[partition] - begins[partition], partition) for partition in begins)
    starts, left = [], n
    for at, (size, partition) in enumerate(sizes):
        take = min(size, -(-left // (len(sizes) - at)))
        left -= take
        if take:
            starts.append(TopicPartition(*partition, ends[partition] - take))
    clients.look_up(consumer, {start.topic for start in starts})
    consumer.assign(starts)
    unread = {(start.topic, start.partition) for start in starts}
    out: list[Message] = []
    deadline = time.monotonic() + clients.CALL_SECONDS
    while unread:
        batch = [clients.checked(message) for message in consumer.consume(1000, 0.5)]
        if batch:
            deadline = time.monotonic() + clients.CALL_SECONDS
        elif time.monotonic() > deadline:
            raise WalkstreamError(
                f"no record came for {clients.CALL_SECONDS:g} s from {sorted(unread)}: is a leader "
                "of these partitions alive?"
            )
        for message in batch:
            partition = clients.partition_of(message)
            # The end is reported before `ends` where a transaction is open.
            if message.error() is not None or (message.offset() or 0) >= ends[partition] - 1:
                unread.discard(partition)
            if message.error() is None and (message.offset() or 0) < ends[partition]:
                out.append(message)
    return out
