"""The commit: everything since the last one leaves in one Kafka transaction, then reaches RocksDB.

  1 read back    of the commit before: it is whole as its manifest says, or this one does not follow
                 (`streamer.worker.readback`). It was read while the next rounds were learned. And
                 the topics are still those that all of this was read from (`kafka.identity`)
  2 begin        the transaction, once all outputs are ready; by a fresh producer, with an epoch of
                 its own, if the last transaction took long, saw a transport error or failed
                 (`streamer.kafka.transactions`: a late request could settle this one), and if the
                 group says that this process still has its place
  3 produce      model rows, versions, placement, the progress of every clicks partition, public
                 vectors and dead letters, each with the commit's number, and the manifest: how many
                 there are in each partition, and their checksum
  4 offsets      of the group, always, so that a worker that froze and thawed is checked against
                 the group's generation; with the metadata taken at that moment
  5 commit       the transaction: from here on the outputs count
  6 apply        the same changes to RocksDB, in one batch
  7 checkpoint   graph and sessions, when it is time

Killed before 5 has reached the broker, the transaction is aborted and the rounds are taken again.
Killed later, the rows come back from `model-state` and the graph from the clicks. RocksDB is ahead
of Kafka in one case only: as 6 comes before the commit is read back, the folder has the whole of a
commit that was torn, and `--repair` publishes it from there. Only the newest commit can be torn, as
none follows before it was read back: a start reads that one back before it takes anything from it,
and refuses to go on from half of it.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from core.engine import Engine
from core.ids.hashing import hash_keys
from core.rounds import Changes, Gone
from core.rows import to_values
from streamer import records
from streamer.decode.ahead import Window
from streamer.decode.deadletter import DeadLetter, Headers
from streamer.errors import Refused, WalkstreamError
from streamer.kafka.clients import Partition
from streamer.kafka.failures import FORBIDDEN
from streamer.kafka.identity import Watch
from streamer.kafka.transactions import Send, Transactions
from streamer.records import Progress, Space
from streamer.settings.sections import Config
from streamer.store import Store
from streamer.watch.metrics import Metrics
from streamer.worker import checkpoint
from streamer.worker.group import Group
from streamer.worker.readback import Readback

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
    use: tuple[str, ...] = ()
    """`items.use`, by which attributes were taken in."""

    def progress(self, partition: Partition) -> Progress:
        return Progress(
            self.offsets[partition], self.changes.time, self.number, self.round_number,
            self.windows.get(partition[1]), self.use,
        )  # fmt: skip


@dataclass
class Pending:
    """What happened since the last commit."""

    rounds: int = 0
    events: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)
    described: dict[str, bool] = field(default_factory=dict)
    gone: list[Gone] = field(default_factory=list)
    """What else has to leave than what the engine says."""
    items: dict[Partition, int] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class Committer:
    """The commit protocol of one worker."""

    def __init__(
        self, config: Config, space: Space, store: Store, engine: Engine,
        transactions: Transactions, readback: Readback, watch: Watch, group: Group,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self.config, self.space, self.metrics = config, space, metrics
        self.store, self.engine = store, engine
        self.transactions, self.readback, self.watch = transactions, readback, watch
        self.group = group
        self.checkpointed = time.monotonic()

    @property
    def producer(self) -> Producer:
        """That of the transaction which is open, or was the last."""
        return self.transactions.producer

    def run(self, batch: Batch) -> None:
        """Steps 1 to 7. WalkstreamError, which ends the worker, when the outcome is not sure."""
        with self.metrics.timed("commit"), self.metrics.commit_seconds.time():
            sends = list(self.sends(batch))
            self.settle()
            sends.append(self.readback.manifest(batch.number, sends))
            try:
                self.transact(batch, sends)
            except KafkaException as error:
                self.recover(error.args[0])
                try:
                    self.transact(batch, sends)
                except KafkaException as again:
                    raise self._failure(again.args[0], "commit, second try") from again
            self.readback.expect(sends[-1])
        self.metrics.transactions_total.labels("committed").inc()
        with self.metrics.timed("apply"):
            self.apply(batch)
        # The clicks alone do not tell of a retirement, so no checkpoint may lie before one.
        due = time.monotonic() - self.checkpointed >= self.config.checkpoint.seconds
        if due or any(batch.described.values()):
            with self.metrics.timed("checkpoint"):
                self.checkpoint(batch)

    def settle(self) -> None:
        """Step 1."""
        with self._explained():
            self.readback.settle()
        self.watch.confirm()

    def look(self) -> None:
        """What has to be noticed also while there is nothing to commit."""
        with self._explained():
            self.readback.poll()
        self.watch.look()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What looks like a torn commit may be a topic that was made anew."""
        try:
            yield
        except Refused as torn:
            raise self.watch.explain() or torn from None

    def transact(self, batch: Batch, sends: list[Send]) -> None:
        self.begin()
        self.produce(sends)
        self.offsets(batch)
        self.commit()

    def recover(self, error: KafkaError) -> None:
        """Make ready for a second try. WalkstreamError where there may be none."""
        if error.code() in FORBIDDEN:  # it stays so
            raise self._failure(error, "commit")
        if self.transactions.may_go_on(error):
            log.warning("the producer was replaced (%s): trying once more", error.str())
            self.transactions.renew()
        elif error.txn_requires_abort():
            log.warning("transaction aborted (%s): trying once more", error.str())
            self.abort()
            self.group.serve_rebalance()
        else:
            raise self._failure(error, "commit")

    def abort(self) -> None:
        self.metrics.transactions_total.labels("aborted").inc()
        try:
            self.transactions.abort()
        except KafkaException as error:
            raise self._failure(error.args[0], "abort") from error

    def sends(self, batch: Batch) -> Iterator[Send]:
        """All records but the manifest, encoded before the transaction's time begins to run."""
        topics, changes = self.config.topics, batch.changes
        state, encode = topics.model_state, msgspec.msgpack.encode
        commit = records.commit_mark(self.config.app.name, batch.number)
        mark: Headers = [(records.COMMIT_HEADER, commit)]
        rows = zip(changes.keys, to_values(changes.rows), changes.partitions.tolist(), strict=True)
        for key, row, partition in rows:
            yield Send(state, partition, key, row, mark)
        for gone in changes.gone:
            version = records.VERSION_HEADER, str(gone.version).encode()
            yield Send(state, gone.partition, gone.key, None, [*mark, version])
        # A version record stands behind all rows of its commit: readers rely on it.
        for partition, counter in changes.versions.items():
            yield Send(state, partition, records.version_key(partition), encode(counter), mark)
        if changes.placement is not None:
            packed = records.pack_placement(changes.placement)
            yield Send(state, 0, records.PLACEMENT, packed, mark)
        for key, value in self.progress(batch).items():
            partition = records.progress_partition(key)[1] % self.space.partitions
            yield Send(state, partition, key, value, mark)
        vectors = list(records.vectors(changes, self.space.name, self.config.publish.format))
        places = self._places("item_vectors", [key for key, _ in vectors])
        for (key, vector), partition in zip(vectors, places, strict=True):
            yield Send(topics.item_vectors, partition, key, vector, mark)
        letters = batch.dead_letters
        places = self._places("dead_letters", [letter.key or b"" for letter in letters])
        for letter, partition in zip(letters, places, strict=True):
            headers = [*letter.headers, *mark]
            yield Send(topics.dead_letters, partition, letter.key, letter.value, headers)

    def _places(self, role: str, keys: list[bytes]) -> list[int]:
        """The partition of each key: as a producer with murmur2 chooses, by what the header says.

        Partitions that were added since then change nothing.
        """
        return hash_keys(keys, self.space.topics[role].partitions)[0].tolist()

    def progress(self, batch: Batch) -> dict[bytes, bytes]:
        """The progress records of the commit: of all clicks, and of items that were taken in."""
        encode = msgspec.msgpack.encode
        clicks = {records.progress_key(*p): encode(batch.progress(p)) for p in batch.offsets}
        return clicks | {records.items_key(*p): encode(o) for p, o in batch.items.items()}

    def begin(self) -> None:
        self.transactions.begin()

    def produce(self, sends: list[Send]) -> None:
        for send in sends:
            self._send(send)

    def offsets(self, batch: Batch) -> None:
        self.transactions.offsets(
            [TopicPartition(t, p, offset) for (t, p), offset in batch.offsets.items()],
            self.group.consumer.consumer_group_metadata(),
        )

    def commit(self) -> None:
        self.transactions.commit()

    def apply(self, batch: Batch) -> None:
        self.store.write_changes(batch.changes, self.progress(batch), batch.described, batch.items)

    def checkpoint(self, batch: Batch) -> None:
        written = checkpoint.save(self.store, self.engine, batch.offsets, batch.windows)
        self.checkpointed = time.monotonic()
        log.debug("checkpoint of %d rows", written)

    def _send(self, send: Send) -> None:
        self.transactions.send(send)

    def _failure(self, error: KafkaError, where: str) -> WalkstreamError:
        """What to tell of a transaction that failed: first of all, whether its topics are there."""
        changed = self.watch.explain()
        return changed or self.transactions.failure(error, where)
