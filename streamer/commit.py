"""The commit: everything since the last one leaves in one Kafka transaction, then reaches RocksDB.

  1 begin        the transaction, once all outputs are ready
  2 produce      model rows, versions, placement, public vectors, dead letters, and the progress
                 of every clicks partition
  3 offsets      of the group, always, so that a worker that froze and thawed is checked against
                 the group's generation; with the metadata taken at that moment
  4 commit       the transaction: from here on the outputs count
  5 apply        the same changes to RocksDB, in one batch
  6 checkpoint   graph and sessions, when it is time

Killed before 4 has reached the broker, the transaction is aborted and the rounds are taken again.
Killed later, the rows come back from `model-state` and the graph from the clicks. RocksDB is never
ahead of Kafka.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from core.engine import Engine
from core.rounds import Changes
from core.rows import to_values
from streamer import checkpoint, records
from streamer.config import Config
from streamer.deadletter import Headers
from streamer.kafka import CALL_SECONDS, failure
from streamer.metrics import Metrics
from streamer.records import Progress, Space
from streamer.store import Store

log = logging.getLogger(__name__)

Place = tuple[str, int]

ANY = -1
"""The partition that the partitioner chooses."""


@dataclass
class DeadLetter:
    """A record that could not be folded, as it came, with headers that say why."""

    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Batch:
    """What a commit closes: the changes of its rounds and where the clicks stand after them."""

    changes: Changes
    offsets: dict[Place, int]
    """Next offset of every clicks partition."""
    number: int
    round_number: int
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[str, bool] = field(default_factory=dict)
    """Items whose attributes were taken in, and whether they were retired."""

    def progress(self, place: Place) -> Progress:
        return Progress(self.offsets[place], self.changes.time, self.number, self.round_number)


class Committer:
    """The commit protocol of one worker."""

    def __init__(
        self, config: Config, space: Space, store: Store, engine: Engine, producer: Producer,
        consumer: Consumer, metrics: Metrics, serve_rebalance: Callable[[], None],
    ) -> None:  # fmt: skip
        self.serve_rebalance = serve_rebalance
        self.config, self.space, self.metrics = config, space, metrics
        self.store, self.engine = store, engine
        self.producer, self.consumer = producer, consumer
        self.checkpointed = time.monotonic()

    def run(self, batch: Batch) -> None:
        """Steps 1 to 6. WalkstreamError, which ends the worker, when the outcome is not sure."""
        with self.metrics.timed("commit"), self.metrics.commit_seconds.time():
            try:
                self.transact(batch)
            except KafkaException as error:
                if not error.args[0].txn_requires_abort():
                    raise failure(error.args[0], "commit") from error
                log.warning("transaction aborted (%s): trying once more", error.args[0].str())
                self.abort()
                self.serve_rebalance()
                try:
                    self.transact(batch)
                except KafkaException as again:
                    raise failure(again.args[0], "commit, second try") from again
        self.metrics.transactions_total.labels("committed").inc()
        with self.metrics.timed("apply"):
            self.apply(batch)
        # The clicks alone do not tell of a retirement, so no checkpoint may lie before one.
        due = time.monotonic() - self.checkpointed >= self.config.checkpoint.seconds
        if due or any(batch.described.values()):
            with self.metrics.timed("checkpoint"):
                self.checkpoint(batch)

    def transact(self, batch: Batch) -> None:
        self.begin(batch)
        self.produce(batch)
        self.offsets(batch)
        self.commit(batch)

    def abort(self) -> None:
        self.metrics.transactions_total.labels("aborted").inc()
        try:
            self.producer.abort_transaction(CALL_SECONDS)
        except KafkaException as error:
            raise failure(error.args[0], "abort") from error

    def begin(self, batch: Batch) -> None:
        self.producer.begin_transaction()

    def produce(self, batch: Batch) -> None:
        topics, changes = self.config.topics, batch.changes
        state, encode = topics.model_state, msgspec.msgpack.encode
        for key, partition, row in zip(
            changes.keys, changes.partitions.tolist(), to_values(changes.rows), strict=True
        ):
            self._send(state, key, row, partition)
        for gone in changes.gone:
            version: Headers = [(records.VERSION_HEADER, str(gone.version).encode())]
            self._send(state, gone.key, None, gone.partition, version)
        for key, vector in records.vectors(changes, self.space.name, self.config.publish.format):
            self._send(topics.item_vectors, key, vector)
        for letter in batch.dead_letters:
            self._send(topics.dead_letters, letter.key, letter.value, headers=letter.headers)
        for partition, counter in changes.versions.items():
            self._send(state, records.version_key(partition), encode(counter), partition)
        if changes.placement is not None:
            self._send(state, records.PLACEMENT, records.pack_placement(changes.placement), 0)
        for place in batch.offsets:
            key = records.progress_key(*place)
            self._send(state, key, encode(batch.progress(place)), place[1] % self.space.partitions)

    def offsets(self, batch: Batch) -> None:
        self.producer.send_offsets_to_transaction(
            [TopicPartition(t, p, offset) for (t, p), offset in batch.offsets.items()],
            self.consumer.consumer_group_metadata(),
            CALL_SECONDS,
        )

    def commit(self, batch: Batch) -> None:
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                self.producer.commit_transaction(CALL_SECONDS)
                return
            except KafkaException as error:
                # A time-out says nothing about the outcome: only asking again does.
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def apply(self, batch: Batch) -> None:
        encode = msgspec.msgpack.encode
        meta = {
            records.progress_key(*place): encode(batch.progress(place)) for place in batch.offsets
        }
        self.store.write_changes(batch.changes, meta, batch.described)

    def checkpoint(self, batch: Batch) -> None:
        offsets = {f"{t}/{p}": offset for (t, p), offset in batch.offsets.items()}
        written = checkpoint.save(self.store, self.engine, offsets)
        self.checkpointed = time.monotonic()
        log.debug("checkpoint of %d rows", written)

    def _send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:  # fmt: skip
        to = ANY if partition is None else partition
        while True:
            try:
                self.producer.produce(topic, value, key, to, headers=headers or [])
                return
            except BufferError:
                self.producer.poll(0.1)
