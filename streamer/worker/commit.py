"""The commit: everything since the last one leaves in one Kafka transaction, then reaches RocksDB.

  1 read back    of the commit before: it is whole as its manifest says, or this one does not follow
                 (`streamer.worker.readback`). And the topics are still those that all of this was
                 read from (`kafka.identity`)
  2 begin        the transaction, once all outputs are ready; by a fresh producer, with an epoch of
                 its own, if the last transaction took long, saw a transport error or failed
                 (`streamer.kafka.transactions`: a late request could settle this one), and if the
                 group says that this process still has its place
  3 produce      the rows that leave, with their vectors; versions, placement, marks, where a vector
                 space begins its header; centroids, and tombstones of old ones; the evidence
                 of the rounds; some rows of the graph and sessions (`streamer.worker.sweeping`);
                 the progress of the clicks partitions; vectors of users; dead letters. Each has the
                 commit's number, and the manifest says how many are in each partition, and their
                 checksum
  4 offsets      of the group, always, so that a worker that froze and thawed is checked against
                 the group's generation
  5 commit       the transaction: from here on the outputs count
  6 apply        the same changes to RocksDB, in one batch, and what a sweep of the folder has

All of it happens in a thread (`streamer.worker.behind`), on copies, while the next rounds are
learned. Killed before 5 has reached the broker, the transaction is aborted and the rounds are taken
again. Killed later, the rows come back from `model-state` and the graph from the evidence. RocksDB
is ahead of Kafka in one case only: as 6 comes before the commit is read back, the folder has the
whole of a commit that was torn, and `--repair` publishes it from there. Only the newest commit can
be torn, as none follows before it was read back: a start reads that one back before it takes
anything from it, and refuses to go on from half of it.

Several workers commit side by side, each its own part (`streamer.worker.shares`): no record is
written by two of them, and each reads back its own. Numbers of commits are clocks (Lamport): each
is greater than all that its worker knew of, so that of two records under one key the later one has
the greater number, whoever wrote it. Partitions that the group takes away are committed before they
are given back; a commit that the group refuses meanwhile is made again, of the same copies.

What must be exact leaves with every commit: evidence, offsets, versions, what was published. How
far a vector moved since then may be forgotten, where that is less than `publish.min_drift`: its
item is learned again in kind. With 0 all that changed leaves, and nothing is forgotten.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streamer.errors import Refused, WalkstreamError
from streamer.kafka.failures import FORBIDDEN
from streamer.kafka.identity import Watch
from streamer.kafka.transactions import Send, Transactions
from streamer.settings.sections import Config
from streamer.state import records, traces, users
from streamer.state import store as stores
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.state.traces import Traces
from streamer.watch.metrics import Metrics
from streamer.worker.batch import Batch, progress, records_of
from streamer.worker.group import Group
from streamer.worker.readback import Readback
from streamer.worker.sweeping import as_entries

log = logging.getLogger(__name__)

REBALANCING = KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION
REBALANCE_SECONDS = 20.0
"""How long the group may take to share out anew."""
AGAIN_SECONDS = 0.5


class Committer:
    """The commit protocol of one worker."""

    def __init__(
        self, config: Config, space: Space, store: Store, transactions: Transactions,
        readback: Readback, watch: Watch, group: Group, metrics: Metrics, kept: Traces,
    ) -> None:  # fmt: skip
        self.config, self.space, self.metrics = config, space, metrics
        self.store, self.traces = store, kept
        self.transactions, self.readback, self.watch = transactions, readback, watch
        self.group = group

    @property
    def producer(self) -> Producer:
        """That of the transaction which is open, or was the last."""
        return self.transactions.producer

    def run(self, batch: Batch) -> None:
        """Steps 1 to 6. WalkstreamError, which ends the worker, when the outcome is not sure."""
        with self.metrics.commit_seconds.time():
            self.space = batch.space or self.space
            sends = list(records_of(self.config, self.space, batch))
            if not sends:
                return self._end(batch)  # it has no partition, and follows
            self.settle()
            sends.append(self.readback.manifest(batch.number, sends))
            batch.manifest = sends[-1].value
            self._insist(batch, sends)
            self.readback.expect(sends[-1])
        self.metrics.transactions_total.labels("committed").inc()
        self._end(batch)

    def _end(self, batch: Batch) -> None:
        """Step 6."""
        with self.metrics.timed("apply"):
            self.apply(batch)
        batch.told(batch)

    def _insist(self, batch: Batch, sends: list[Send]) -> None:
        """Steps 2 to 5, once more after an error that allows it, and as long as the group shares
        out anew."""
        until, tries = time.monotonic() + REBALANCE_SECONDS, 1
        while True:
            try:
                return self.transact(batch, sends)
            except KafkaException as error:
                code = error.args[0].code()
                if tries > 1 and (code not in REBALANCING or time.monotonic() > until):
                    raise self._failure(error.args[0], "commit, second try") from error
                self.recover(error.args[0])
                tries += 1

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
            time.sleep(AGAIN_SECONDS)
        else:
            raise self._failure(error, "commit")

    def abort(self) -> None:
        self.metrics.transactions_total.labels("aborted").inc()
        try:
            self.transactions.abort()
        except KafkaException as error:
            raise self._failure(error.args[0], "abort") from error

    def begin(self) -> None:
        self.transactions.begin()

    def produce(self, sends: list[Send]) -> None:
        for send in sends:
            self._send(send)

    def offsets(self, batch: Batch) -> None:
        self.transactions.offsets(
            [TopicPartition(t, p, offset) for (t, p), offset in batch.offsets.items()],
            self.group.metadata,
        )

    def commit(self) -> None:
        self.transactions.commit()

    def apply(self, batch: Batch) -> None:
        """Step 6. What the folder has of the topics stands as of this commit then."""
        meta: dict[bytes, bytes | None] = {**progress(batch)}
        if batch.manifest is not None:
            meta[records.manifest_key(self.config.app.instance)] = batch.manifest
        if batch.evidence and batch.is_decided:
            meta[stores.EVIDENCE] = msgspec.msgpack.encode(batch.evidence)
        meta |= {stores.TAIL + f"{t}/{p}".encode(): msgspec.msgpack.encode(o)
                 for (t, p), o in batch.items.items()}  # fmt: skip
        if batch.looked is not None:
            meta[users.LOOKED] = batch.looked
        families = defaultdict[str, list[stores.Entry]](list)
        families["attributes"] += batch.described.items()
        families[users.FAMILY] += users.entries(self.store, batch.users)
        families[traces.FAMILY] += self.traces.entries(batch.traced)
        families["graph"] += [(key, None) for key in {*batch.left, *batch.unwritten}]
        for written, pointer in (
            (batch.swept, records.SWEPT), (batch.checkpoint, stores.POINTER),
        ):  # fmt: skip
            for family, entries in as_entries(written, pointer).items():
                families[family] += entries
        self.store.write_changes(batch.changes, meta, families)

    def _send(self, send: Send) -> None:
        self.transactions.send(send)

    def _failure(self, error: KafkaError, where: str) -> WalkstreamError:
        """What to tell of a transaction that failed: first of all, whether its topics are there."""
        changed = self.watch.explain()
        return changed or self.transactions.failure(error, where)
