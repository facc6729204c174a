"""Writing the header of `model-state` at a start: in a commit of its own, and only by who was there
first. That of a new vector space leaves with the commit that begins it (`streamer.worker.loop`)."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer.decode.deadletter import Headers
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.failures import failure
from streamer.kafka.transactions import Send, Transactions
from streamer.kafka.waiting import between
from streamer.settings.sections import Config, KafkaValue
from streamer.state import records
from streamer.state.commits import Mark
from streamer.state.model_state import is_of_worker
from streamer.state.records import Progress, Space
from streamer.worker.readback import Readback

UNCOMMITTED: dict[str, KafkaValue] = {"isolation.level": "read_uncommitted"}


def claim(
    config: Config, space: Space, changes: Mapping[bytes, Progress | bytes | None],
    readback: Readback, transactions: Transactions, check: Callable[[], None] = lambda: None,
    member: Consumer | None = None, also: Iterable[tuple[int, bytes, bytes | None]] = (),
    misplaced: Iterable[tuple[int, bytes]] = (),
) -> None:  # fmt: skip
    """Write the header and other reserved records, in a commit of its own; `also` are more of them,
    each with its partition. Vectors that are `misplaced` are deleted where they lie.

    `check` is called before the commit; what it raises aborts it. The offsets of the group change
    with the progress: the old ones may be those of a topic that is no more.
    """
    topic, encode = config.topics.model_state, msgspec.msgpack.encode
    commit = 0 if readback.last is None else readback.last + 1
    own = Mark(config.app.name, commit, config.app.instance)
    mark: Headers = [(records.COMMIT_HEADER, own.packed)]
    sends = [Send(topic, 0, records.SPACE, encode(space), mark)]
    offsets = []
    for key, change in changes.items():
        partition = 0
        if key.startswith((records.PROGRESS, records.ITEMS)):
            where = records.progress_partition(key)
            partition = where[1] % space.partitions
        if isinstance(change, Progress):
            offsets.append(TopicPartition(*where, change.offset))
            change = encode(msgspec.structs.replace(change, commit=commit))
        sends.append(Send(topic, partition, key, change, mark))
    sends += [Send(topic, partition, key, value, mark) for partition, key, value in also]
    vectors = config.topics.item_vectors
    sends += [Send(vectors, partition, key, None, mark) for partition, key in misplaced]
    readback.settle()
    sends.append(readback.manifest(commit, sends))
    try:
        transactions.begin()
        for send in sends:
            transactions.send(send)
        transactions.producer.flush(clients.CALL_SECONDS)
        if member is not None and offsets:
            transactions.offsets(offsets, member.consumer_group_metadata())
        try:
            check()
        except Refused:
            transactions.abort()
            raise
        transactions.commit()
    except KafkaException as error:
        raise failure(error.args[0], "write the header") from error
    readback.expect(sends[-1])


def handed_over(
    config: Config, admin: AdminClient, header: Space | None, read: int
) -> Refused | None:
    """What to say if the model is another app's by now: as of the header that is known, and of
    those at or behind offset `read` of partition 0."""
    mine, where = config.app.name, (config.topics.model_state, 0)
    try:
        with closing(clients.tail_consumer(config)) as consumer:
            for message in between(consumer, {where: read}, clients.ends(admin, [where])):
                value = message.value()
                if message.key() == records.SPACE and value and is_of_worker(message):
                    header = msgspec.msgpack.decode(value, type=Space)
    except (KafkaException, WalkstreamError):
        pass  # the failure that is to be explained is told then
    if header is None or header.app in ("", mine):
        return None
    return Refused(
        f"{where[0]} was handed over to app {header.app!r} while this worker, of app {mine!r}, "
        "stood still or was cut off. Nothing was committed since, and it has no model any "
        "more: do not start it again"
    )


def check_first(config: Config, admin: AdminClient, read: int, beat: Callable[[], None]) -> None:
    """Refused if another app writes its header at the same time, and was first.

    Of several apps that find no header, the one whose record lies first in the log has the model:
    the others see that record, committed or not, before they commit theirs.
    """
    first = _first(config, admin, read, beat)
    if first != config.app.name:
        raise Refused(
            f"app {first!r} began to write its model to {config.topics.model_state} at the same "
            "moment: two apps cannot share a model. Give each its own topics (section [topics]), "
            "or start only one of them"
        )


def _first(config: Config, admin: AdminClient, read: int, beat: Callable[[], None]) -> str:
    """The app of the first header at or behind offset `read` of partition 0, committed or not."""
    where = config.topics.model_state, 0
    end = clients.ends(admin, [where])
    with closing(clients.reading_consumer(config, "header", UNCOMMITTED)) as consumer:
        for message in between(consumer, {where: read}, end, beat):
            value = message.value()
            if message.key() == records.SPACE and value and is_of_worker(message):
                return msgspec.msgpack.decode(value, type=Space).app
    return ""
