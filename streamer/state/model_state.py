"""What `model-state` says under its reserved keys, and what is no worker's there."""

import zlib
from collections.abc import Callable, Collection, Mapping

import msgspec
from confluent_kafka import Consumer, KafkaError, Message, Producer

from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, label, partition_of
from streamer.kafka.failures import FORBIDDEN, Forbidden
from streamer.kafka.waiting import between
from streamer.settings.sections import Config
from streamer.state import commits, packing, records
from streamer.wording import counted


def reserved(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    skips_strange: bool = False,
) -> dict[bytes, bytes]:  # fmt: skip
    """The newest value under each reserved key, between two offsets of each partition, but of graph
    and sessions.

    Keys that were deleted are left out. `consumer` reads what is committed, and is of no group.
    Refused if the newest is nothing that a worker writes, unless such records are to be skipped.
    """
    found = reserved_records(consumer, begins, ends, skips_strange)
    return {key: message.value() or b"" for key, message in found.items()}


def reserved_records(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    skips_strange: bool = False,
) -> dict[bytes, Message]:  # fmt: skip
    """As `reserved`, with all that a record says beside its value, such as when it was written."""
    out: dict[bytes, Message] = {}
    strange: dict[bytes, Message] = {}
    for message in between(consumer, begins, ends):
        key = message.key()
        if key is None or records.is_row(key) or key.startswith((records.GRAPH, records.SESSIONS)):
            continue
        if not is_of_worker(message):
            strange[key] = message
            continue
        strange.pop(key, None)
        out[key] = message
    if strange and not skips_strange:
        raise Refused(no_workers(next(iter(strange.values()))) + STOP_IT)
    return {key: message for key, message in out.items() if message.value() is not None}


def row_keys(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int],
    beat: Callable[[], None],
) -> dict[Partition, set[bytes]]:  # fmt: skip
    """Keys of items and attributes whose newest record in a partition is no tombstone."""
    living: dict[Partition, set[bytes]] = {partition: set() for partition in begins}
    for message in between(consumer, begins, ends, beat):
        key, keys = message.key(), living[partition_of(message)]
        if key is not None and records.is_row(key):
            (keys.discard if message.value() is None else keys.add)(key)
    return living


STOP_IT = (
    ". Some other program writes to this topic: find and stop it. Then start once with "
    "`walkstream worker --repair`, which publishes all rows and vectors again and deletes what "
    "such a record stands for"
)


def no_workers(message: Message) -> str:
    """Where a record is that no worker wrote."""
    key = message.key() or b""
    name = key.decode(errors="replace") if records.is_row(key) else key
    return (
        f"{label(partition_of(message))}: the record at offset {message.offset()} with key "
        f"{name!r} is nothing that a worker writes ({len(message.value() or b'')} bytes)"
    )


def is_of_worker(message: Message) -> bool:
    """Whether a record is one that workers write: part of a commit, and of the form that its key
    says. What commands write is of no commit: users that are forgotten, and that a major update is
    asked for. Nor are the headers of older versions, which name no app, and deletions of keys that
    have no right form."""
    key, value = message.key() or b"", message.value()
    if value is not None and not (records.is_row(key) or is_ours(key, value)):
        return False
    if commits.mark_of(message) is not None or key.startswith(records.FORGOTTEN):
        return True
    if value is None:
        return records.is_malformed(key)
    if key == records.MAJOR:
        return True
    return key == records.SPACE and not msgspec.msgpack.decode(value, type=records.Space).app


def is_ours(key: bytes, value: bytes) -> bool:
    """Whether this is what workers write under a reserved key."""
    if records.is_malformed(key):
        return False
    try:
        order(key, value)
    except (msgspec.MsgspecError, ValueError, zlib.error):
        return False
    return True


def order(key: bytes, value: bytes) -> int:
    """What increases from one record of a well-formed reserved key to the next.

    Raises if the value is not ours.
    """
    if key.startswith(records.PROGRESS):
        return msgspec.msgpack.decode(value, type=records.Progress).commit
    if records.is_manifest(key):
        return msgspec.msgpack.decode(value, type=commits.Manifest).commit
    if key == records.PLACEMENT:
        placement = packing.unpack_placement(value, 1)
        return (placement.epoch << 32) + placement.founded
    if key == records.FUSION:
        return packing.unpack_fusion(value)[0].trials
    if key.startswith((records.VERSION, records.ITEMS)):
        return msgspec.msgpack.decode(value, type=int)
    if key == records.MARKS:
        return msgspec.msgpack.decode(value, type=records.Marks).commit
    if key == records.PROMOTED:
        return msgspec.msgpack.decode(value, type=records.Promoted).commit
    if key == records.SWEPT:
        return msgspec.msgpack.decode(value, type=records.Swept).commit
    if key == records.SPACE:
        msgspec.msgpack.decode(value, type=records.Space)
    if key == records.MAJOR:
        msgspec.msgpack.decode(value, type=int)
    if key.startswith(records.GRAPH):
        packing.unpack_node(value)
    if key.startswith(records.SESSIONS):
        packing.unpack_either(value)
    return 0


def put(config: Config, entries: Collection[tuple[int, bytes, bytes | None]]) -> None:
    """Write a partition's records, which are of no commit. WalkstreamError unless all are taken."""
    failed: list[KafkaError] = []

    def collect(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    if not entries:
        return
    topic = config.topics.model_state
    producer = clients.made(Producer, clients.COMMON | config.kafka | {"enable.idempotence": True})
    for partition, key, value in entries:
        producer.produce(topic, value, key, partition=partition, on_delivery=collect)
    left = producer.flush(clients.CALL_SECONDS)
    if failed and failed[0].code() in FORBIDDEN:
        raise Forbidden(failed[0], topic)
    if failed or left:
        why = failed[0].str() if failed else "no answer in time"
        raise WalkstreamError(
            f"{topic} has not taken {len(failed) + left:,} of {counted(len(entries), 'record')} "
            f"({why}). "
            "Nothing is wrong with doing it again"
        )
