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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from core.engine import Engine
from core.rounds import Changes
from core.rows import to_values
from streamer import records
from streamer.decode.ahead import Window
from streamer.decode.deadletter import DeadLetter, Headers
from streamer.errors import WalkstreamError
from streamer.kafka.clients import (
    ANY,
    CALL_SECONDS,
    FORBIDDEN,
    Partition,
    transaction_failure,
)
from streamer.records import Progress, Space
from streamer.settings.sections import Config
from streamer.store import Store
from streamer.watch.metrics import Metrics
from streamer.worker import checkpoint
from streamer.worker.group import Group

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """What a commit closes: the changes of its rounds and where the clicks stand after them."""

    changes: Changes
    offsets: dict[Partition, int]
    """Next offset of every clicks partition."""
    number: int
    round_number: int
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[str, bool] = field(default_factory=dict)
    """Items whose attributes were taken in, and whether they were retired."""
    items: dict[Partition, int] = field(default_factory=dict)
    """Next offset of the items partitions, where attributes were taken in."""
    windows: Mapping[int, Window] = field(default_factory=dict)
    """By clicks partition, what is remembered of the times before its offset."""

    def progress(self, partition: Partition) -> Progress:
        return Progress(
            self.offsets[partition], self.changes.time, self.number, self.round_number,
            self.windows.get(partition[1]),
        )  # fmt: skip


class Send(NamedTuple):
    """A record of the transaction."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = ANY
    headers: Headers | None = None


class Committer:
    """The commit protocol of one worker."""

    def __init__(
        self, config: Config, space: Space, store: Store, engine: Engine, producer: Producer,
        group: Group, metrics: Metrics,
    ) -> None:  # fmt: skip
        self.config, self.space, self.metrics = config, space, metrics
        self.store, self.engine = store, engine
        self.producer, self.group = producer, group
        self.checkpointed = self.began = time.monotonic()

    def run(self, batch: Batch) -> None:
        """Steps 1 to 6. WalkstreamError, which ends the worker, when the outcome is not sure."""
        with self.metrics.timed("commit"), self.metrics.commit_seconds.time():
            sends = list(self.sends(batch))
            try:
                self.transact(batch, sends)
            except KafkaException as error:
                # What is forbidden stays so.
                if not error.args[0].txn_requires_abort() or error.args[0].code() in FORBIDDEN:
                    raise self._failure(error.args[0], "commit") from error
                log.warning("transaction aborted (%s): trying once more", error.args[0].str())
                self.abort()
                self.group.serve_rebalance()
                try:
                    self.transact(batch, sends)
                except KafkaException as again:
                    raise self._failure(again.args[0], "commit, second try") from again
        self.metrics.transactions_total.labels("committed").inc()
        with self.metrics.timed("apply"):
            self.apply(batch)
        # The clicks alone do not tell of a retirement, so no checkpoint may lie before one.
        due = time.monotonic() - self.checkpointed >= self.config.checkpoint.seconds
        if due or any(batch.described.values()):
            with self.metrics.timed("checkpoint"):
                self.checkpoint(batch)

    def transact(self, batch: Batch, sends: list[Send]) -> None:
        self.begin()
        self.produce(sends)
        self.offsets(batch)
        self.commit()

    def abort(self) -> None:
        self.metrics.transactions_total.labels("aborted").inc()
        try:
            self.producer.abort_transaction(CALL_SECONDS)
        except KafkaException as error:
            raise self._failure(error.args[0], "abort") from error

    def sends(self, batch: Batch) -> Iterator[Send]:
        """All records of the commit, encoded before the transaction's time begins to run."""
        topics, changes = self.config.topics, batch.changes
        state, encode = topics.model_state, msgspec.msgpack.encode
        rows = zip(changes.keys, to_values(changes.rows), changes.partitions.tolist(), strict=True)
        for key, row, partition in rows:
            yield Send(state, key, row, partition)
        for gone in changes.gone:
            version: Headers = [(records.VERSION_HEADER, str(gone.version).encode())]
            yield Send(state, gone.key, None, gone.partition, version)
        # A version record stands behind all rows of its commit: readers rely on it.
        for partition, counter in changes.versions.items():
            yield Send(state, records.version_key(partition), encode(counter), partition)
        if changes.placement is not None:
            yield Send(state, records.PLACEMENT, records.pack_placement(changes.placement), 0)
        for key, value in self.progress(batch).items():
            yield Send(
                state, key, value, records.progress_partition(key)[1] % self.space.partitions
            )
        for key, vector in records.vectors(changes, self.space.name, self.config.publish.format):
            yield Send(topics.item_vectors, key, vector)
        for letter in batch.dead_letters:
            yield Send(topics.dead_letters, letter.key, letter.value, headers=letter.headers)

    def progress(self, batch: Batch) -> dict[bytes, bytes]:
        """The progress records of the commit: of all clicks, and of items that were taken in."""
        encode = msgspec.msgpack.encode
        clicks = {records.progress_key(*p): encode(batch.progress(p)) for p in batch.offsets}
        return clicks | {records.items_key(*p): encode(o) for p, o in batch.items.items()}

    def begin(self) -> None:
        self.began = time.monotonic()
        self.producer.begin_transaction()

    def produce(self, sends: list[Send]) -> None:
        for send in sends:
            self._send(send)

    def offsets(self, batch: Batch) -> None:
        self.producer.send_offsets_to_transaction(
            [TopicPartition(t, p, offset) for (t, p), offset in batch.offsets.items()],
            self.group.consumer.consumer_group_metadata(),
            CALL_SECONDS,
        )

    def commit(self) -> None:
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
        self.store.write_changes(batch.changes, self.progress(batch), batch.described, batch.items)

    def checkpoint(self, batch: Batch) -> None:
        written = checkpoint.save(self.store, self.engine, batch.offsets, batch.windows)
        self.checkpointed = time.monotonic()
        log.debug("checkpoint of %d rows", written)

    def _failure(self, error: KafkaError, where: str) -> WalkstreamError:
        return transaction_failure(error, where, time.monotonic() - self.began, self.config)

    def _send(self, send: Send) -> None:
        while True:
            try:
                self.producer.produce(
                    send.topic, send.value, send.key, send.partition, headers=send.headers or []
                )
                return
            except BufferError:
                self.producer.poll(0.1)
