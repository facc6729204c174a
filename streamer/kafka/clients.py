"""The Kafka clients of a worker, and the properties that exactly-once needs of them."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamer.errors import ConfigError, WalkstreamError
from streamer.kafka import fetching, reaching
from streamer.kafka.failures import FORBIDDEN, failure, gone
from streamer.settings.secrets import hidden
from streamer.settings.sections import Config, KafkaValue

log = logging.getLogger(__name__)

ANY = -1
"""The partition that the partitioner chooses."""
C = TypeVar("C")
Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""

PROBE_SECONDS = 10.0
"""How long the first call waits for a cluster at all."""

REFUSED_SECONDS = 2.5
"""The same where a broker refused the certificate or the login: another broker may take it."""

TRY_SECONDS = 1.0
"""How long a try of the first call waits, before it is looked at what the brokers said."""

CALL_SECONDS = 30.0
"""How long a call to the brokers may take before the worker gives up and is restarted."""

SESSION_MS = 20_000
"""How long the group keeps the place of a worker that died."""
NEWER_SESSION_MS = 45_000
"""The brokers' own where they share out partitions, unless group.consumer.session.timeout.ms says
otherwise there."""
GROUPS_OWN = "session.timeout.ms", "heartbeat.interval.ms"
"""Properties that are the brokers' then."""
HEARTBEAT_MS = 1000
"""How late a member may learn that the group shares out anew: nobody has what is on its way."""

TRANSACTION_MS = 10_000
"""How long a transaction may be open, unless `transaction.timeout.ms` says otherwise."""

POLL_SECONDS = 0.05
"""Who reads up to an end looks so often whether it is there."""
ASK_SECONDS = 1.0
"""How long it is asked where the leaders of a topic are: the consumer will look after that."""
READ_MS = 15_000
"""A reader asks again for what no answer came for in so long, well before anyone gives it up."""
RETRY_MS = 700
"""How long a producer waits, give or take a fifth, before it asks again. See `transactions`."""

SETTLING = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""What brokers say for a moment after they started, or after another one took over."""

_UNREADABLE = frozenset(
    {KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError.MSG_SIZE_TOO_LARGE}
)


def _log_error(error: KafkaError) -> None:
    """Report what a client complains of; it repeats itself several times a second."""
    global _last_error
    if error.str() != _last_error:
        _last_error = error.str()
        log.warning("kafka: %s", hidden(error.str(), {}))


_last_error = ""
COMMON: dict[str, Any] = {"log_level": 2, "error_cb": _log_error}
"""librdkafka's own lines are left out: what matters of them comes as an error."""

STEADY: dict[str, Any] = {"metadata.recovery.strategy": "none"}
"""For clients that ask the coordinator of a group. With the default, a client that lost its lines
to all brokers gives these up and learns of them anew, and waits for good for a coordinator that is
one of those that it gave up. Without, it connects to them again."""


def identity(config: Config) -> str:
    """`group.instance.id` and `transactional.id` of this worker."""
    return f"{config.app.name}-{config.app.instance}"


def is_newer_protocol(config: Config) -> bool:
    """Whether the brokers share out partitions (KIP-848), and not the members."""
    return config.kafka.get("group.protocol") == "consumer"


def session_seconds(config: Config) -> float:
    """How long the group keeps the place of a worker that is not heard of."""
    if is_newer_protocol(config):
        return NEWER_SESSION_MS / 1000
    return int(config.kafka.get("session.timeout.ms", SESSION_MS)) / 1000


def made(kind: Callable[[dict[str, Any]], C], properties: dict[str, Any]) -> C:
    """A client with these properties. ConfigError if there is none that has them."""
    try:
        return kind(properties)
    except KafkaException as error:
        raise ConfigError(f"kafka: {hidden(error.args[0].str(), properties)}") from None


def admin(config: Config) -> AdminClient:
    """A client of a cluster that answers; WalkstreamError soon if it does not."""
    seen: list[KafkaError] = []
    connecting = True

    def on_error(error: KafkaError) -> None:
        if connecting:
            seen.append(error)
        else:
            _log_error(error)

    client = made(AdminClient, COMMON | STEADY | {"error_cb": on_error} | config.kafka)
    began = time.monotonic()
    while connecting:
        try:
            client.list_topics(timeout=TRY_SECONDS)
            connecting = False
        except KafkaException as error:
            client.poll(0)  # hands over what was said meanwhile
            waited = time.monotonic() - began
            if waited > (REFUSED_SECONDS if reaching.is_refusal(seen) else PROBE_SECONDS):
                raise reaching.unreachable(config, seen, error.args[0], waited) from None
    return client


def producer(config: Config, on_error: Callable[[KafkaError], None] | None = None) -> Producer:
    """A transactional producer. It needs no delivery callbacks: a commit says it all.

    `on_error` is called beside the log with what the client complains of, when it is polled.
    """

    def told(error: KafkaError) -> None:
        _log_error(error)
        if on_error is not None:
            on_error(error)

    defaults: dict[str, KafkaValue] = {
        "client.id": f"{identity(config)}-producer",
        "linger.ms": 5,
        # Some clients read no lz4, snappy or zstd without more. Gzip takes 75 us for a vector and
        # its row, so that a commit of 100,000 would be late, and makes the row no shorter.
        "compression.type": "none",
        "transaction.timeout.ms": TRANSACTION_MS,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1_048_576,
    }
    return made(
        Producer,
        COMMON
        | STEADY
        | defaults
        | config.kafka
        | {
            "error_cb": told,
            "retry.backoff.ms": max(RETRY_MS, int(config.kafka.get("retry.backoff.ms", 0))),
            "retry.backoff.max.ms": max(1000, int(config.kafka.get("retry.backoff.max.ms", 0))),
            "transactional.id": identity(config),
            "partitioner": "murmur2_random",
        },
    )


def group_consumer(config: Config) -> Consumer:
    """The static member of the group. It reads nothing."""
    defaults: dict[str, KafkaValue] = {"client.id": f"{identity(config)}-group"}
    kafka = dict(config.kafka)
    if is_newer_protocol(config):
        for name in GROUPS_OWN:
            kafka.pop(name, None)
    else:
        defaults |= {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS}
        kafka |= {"partition.assignment.strategy": "cooperative-sticky"}
    return made(
        Consumer,
        COMMON
        | defaults
        | kafka
        | {
            "group.id": config.app.name,
            "group.instance.id": identity(config),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        },
    )


def reading_consumer(
    config: Config, role: str = "reader", more: Mapping[str, KafkaValue] | None = None
) -> Consumer:
    """Reads committed records where it is assigned to, and joins no group.

    `role` ends its client id. A batch that was damaged on its way is an error, as in other clients.
    """
    defaults: dict[str, KafkaValue] = {
        "client.id": f"{identity(config)}-{role}",
        "check.crcs": True,
        **fetching.defaults(config.kafka),
    }
    return made(
        Consumer,
        COMMON
        | defaults
        | config.kafka
        | {
            # A group id is asked for even where no group is joined; nothing is stored under it.
            "group.id": f"{config.app.name}-tail",
            "group.protocol": "classic",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "socket.timeout.ms": _read_ms(config),
            **(more or {}),
        },
    )


def _read_ms(config: Config) -> int:
    """An answer may take the client's time-out, READ_MS, or as long as the broker may hold it."""
    most = min(READ_MS, int(config.kafka.get("socket.timeout.ms", READ_MS)))
    return max(most, int(config.kafka.get("fetch.wait.max.ms", 0)) + 1000)


def tail_consumer(config: Config) -> Consumer:
    """Reads every partition of `items` and `model-state`; its offsets live in the state folder."""
    return reading_consumer(config, "tail")


def look_up(consumer: Consumer, topics: Iterable[str]) -> Consumer:
    """The consumer, which reads nothing yet, and knows where the leaders of these topics are.

    By itself it would look up to a second after it was assigned to one that is new to it. While it
    fetches something, an answer has to wait until that has come.
    """
    with suppress(KafkaException):  # who fetches from there learns what is wrong
        for topic in topics:
            consumer.list_topics(topic, timeout=ASK_SECONDS)
    return consumer


def anew(old: Consumer, new: Consumer) -> Consumer:
    """The new one, in place of the old, which is closed.

    Behind a batch whose checksum is wrong librdkafka reads on at a wrong byte: what else the old
    one has, records and errors, may be made of anything.
    """
    old.close()
    return new


def partition_of(message: Message) -> Partition:
    return message.topic() or "", message.partition() or 0


def partition_name(partition: Partition) -> str:
    """How a partition is named in stored offsets."""
    return f"{partition[0]}/{partition[1]}"


def label(partition: Partition) -> str:
    """How a partition is named to people: `clicks[3]`."""
    return f"{partition[0]}[{partition[1]}]"


def is_unreadable(error: KafkaError | None) -> bool:
    """Whether this error says of one batch in the log that it cannot be fetched."""
    return error is not None and error.code() in _UNREADABLE


def checked(message: Message) -> Message:
    """The message, if it is one. Errors end the worker; the end of a partition is no error."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        topic = message.topic()
        if is_unreadable(error):
            raise WalkstreamError(
                f"{topic}[{message.partition()}]: what is at offset {message.offset()} cannot be "
                f"fetched: {error.str()}. If it is sound, but inflates past "
                'kafka."receive.message.max.bytes", raise that; if not, it is damaged on the '
                "broker's disk, and another replica may have it whole"
            )
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise gone(label(partition_of(message)), message.offset() or 0)
        if error.code() == KafkaError._FATAL:
            # The one fatal error of a consumer is that another took its group.instance.id.
            error = KafkaError(KafkaError.FENCED_INSTANCE_ID, error.str())
        raise failure(error, f"{topic}[{message.partition()}]" if topic else "consumer")
    return message


def partitions(consumer: Consumer, topic: str) -> list[int]:
    """Partition numbers of a topic, ascending."""
    described = consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic]
    if described.error is not None:
        if described.error.code() in FORBIDDEN:
            raise failure(described.error, topic)
        raise WalkstreamError(
            f"{topic}: {described.error.str()}. `walkstream topics create` makes the topics"
        )
    return sorted(described.partitions)


def ends(
    client: AdminClient, where: Iterable[Partition], committed: bool = False
) -> dict[Partition, int]:
    """The end of each partition's log, open transactions included unless `committed`.

    The consumer's watermark call stops at the last stable offset, which a transaction that a killed
    worker left open holds back.
    """
    asked = {TopicPartition(t, p): OffsetSpec.latest() for t, p in where}  # type: ignore[no-untyped-call]
    return _offsets(client, asked, committed)


def begins(client: AdminClient, where: Iterable[Partition]) -> dict[Partition, int]:
    """The first offset that retention left in each partition."""
    asked = {TopicPartition(t, p): OffsetSpec.earliest() for t, p in where}  # type: ignore[no-untyped-call]
    return _offsets(client, asked)


def offsets_at(consumer: Consumer, where: Iterable[Partition], time: int) -> dict[Partition, int]:
    """The first offset of a record at or after `time` (ms) of each partition that has one."""
    asked = [TopicPartition(*partition, time) for partition in where]
    out = {}
    for found in consumer.offsets_for_times(asked, CALL_SECONDS) if asked else []:
        if found.error is not None:
            raise failure(found.error, f"{found.topic}[{found.partition}]")
        if found.offset >= 0:
            out[found.topic, found.partition] = found.offset
    return out


LEADERS_SECONDS = 5.0
"""How long the question may take who leads what, where an answer is asked for once more."""


def _offsets(
    client: AdminClient, asked: dict[TopicPartition, OffsetSpec], committed: bool = False
) -> dict[Partition, int]:
    if not asked:
        return {}
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    deadline = time.monotonic() + CALL_SECONDS
    while True:
        futures = client.list_offsets(asked, isolation_level=level, request_timeout=CALL_SECONDS)
        try:
            out = {(tp.topic, tp.partition): f.result().offset for tp, f in futures.items()}
        except KafkaException as error:
            # A lost answer to the question where the leaders are reads as if there were none.
            passes = error.args[0].code() in SETTLING | {KafkaError._NOENT}
            if not passes or time.monotonic() > deadline:
                raise failure(error.args[0], "list offsets") from None
            with suppress(KafkaException):  # or it would ask the leaders that it knew again
                client.list_topics(timeout=LEADERS_SECONDS)
        else:
            # Where the line breaks while the answer is on its way, librdkafka reports no error, and
            # an offset below 0.
            missing = [where for where, offset in out.items() if offset < 0]
            if not missing:
                return out
            if time.monotonic() > deadline:
                raise failure(KafkaError(KafkaError._TRANSPORT), f"offsets of {label(missing[0])}")
        time.sleep(0.2)
