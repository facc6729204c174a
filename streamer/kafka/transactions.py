"""The transactional producer, and when it has to be another one.

librdkafka asks again when a broker's answer to EndTxn is late, and it asks with the same epoch. The
first question may still be under way then, and settle a *later* transaction of that epoch in the
middle: its first records are committed and the others are not, or the other way round. So a
producer that may have such a question under way makes no other transaction. A fresh one of the same
`transactional.id` gets a new epoch, by which brokers refuse what the old one still has to say. The
same holds for the offsets of the group, which an old request could set back.

A line that breaks and comes back is told to nobody, so time has to tell: whatever is asked again
waits for `clients.RETRY_MS` first, and each call that took longer than `SLOW_SECONDS`, which is
less, may have been asked twice.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streamer.decode.deadletter import Headers
from streamer.errors import KafkaTrouble, WalkstreamError
from streamer.kafka import bounded, clients
from streamer.kafka.clients import CALL_SECONDS
from streamer.kafka.failures import FORBIDDEN, failure, is_fatal, said
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

SLOW_SECONDS = 0.5
"""A call that took longer may have been asked twice."""

OFFSETS_SECONDS = 5.0
"""How long the group's offsets may take. A fresh producer then does the transaction again, before
the broker has ended this one."""
STILL_SECONDS = 2.0
"""Records that do not move for so long are not waited for before the offsets are sent."""
STUCK_SECONDS = CALL_SECONDS + 5.0
"""How long any other call may take, each of which has a time-out of its own."""


_TOLD = KafkaError.FENCED_INSTANCE_ID, KafkaError.MSG_SIZE_TOO_LARGE
"""What ends a transaction for a reason of its own, however long it took."""


class Send(NamedTuple):
    """A record of a transaction. No partition is left to chance: a manifest counts them."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Transactions:
    """One transaction after the other, under the `transactional.id` of this worker."""

    def __init__(self, config: Config, check: Callable[[], None] = lambda: None) -> None:
        """`check` raises where another process has this worker's name by now."""
        self.config, self.check = config, check
        self.renewed = 0
        """How many times the producer was replaced."""
        self._doubt = ""
        self._late: tuple[list[TopicPartition], Any] | None = None
        """The offsets, where they were sent before all records had arrived."""
        self.began = time.monotonic()
        self.asked = False
        """Whether the end of the last transaction was asked for: its outcome may be any."""
        self.producer = self._fresh()

    def begin(self) -> None:
        """Begin a transaction, with a fresh producer if the last one may still be asked about."""
        self.producer.poll(0)  # for complaints of the time between
        if self._doubt:
            self.renew()
        self.began, self.asked = time.monotonic(), False
        self.producer.begin_transaction()

    def send(self, send: Send) -> None:
        """Add a record to the open transaction."""
        while True:
            try:
                self.producer.produce(
                    send.topic, send.value, send.key, send.partition, headers=send.headers
                )
                return
            except BufferError:
                self.producer.poll(0.1)

    def offsets(self, offsets: list[TopicPartition], group: Any) -> None:
        """Add offsets of a consumer group, given its metadata, to the open transaction."""
        # The broker takes them once the transaction before is settled everywhere, and so it does
        # records. Waiting for those first tells a late answer from a broker that is still at it.
        # Records that do not move may be of a transaction that failed already, as it will say.
        left = len(self.producer) + 1
        while 0 < (now := self.producer.flush(STILL_SECONDS)) < left:
            left = now
        self._late = (offsets, group) if now else None
        self._send(offsets, group)

    def _send(self, offsets: list[TopicPartition], group: Any) -> None:
        send = partial(self.producer.send_offsets_to_transaction, offsets, group, CALL_SECONDS)
        with self._timed("offsets"):
            bounded.within(OFFSETS_SECONDS, "the group's offsets", send)

    def commit(self) -> None:
        """Commit. KafkaException where that failed, or where its outcome is not known in time."""
        # However long the records take, nothing is asked twice by that.
        self.producer.flush(CALL_SECONDS)
        if self._late is not None:
            # Records that came later than the offsets may lie behind what the next owner of a
            # partition has read: the group is asked once more whether this worker has it.
            self._send(*self._late)
        deadline, self.asked = time.monotonic() + CALL_SECONDS, True
        commit = partial(self.producer.commit_transaction, CALL_SECONDS)
        with self._timed("a commit"):
            while True:
                try:
                    return bounded.within(STUCK_SECONDS, "a commit", commit)
                except KafkaException as error:
                    # A time-out says nothing about the outcome: only asking again does.
                    if not error.args[0].retriable() or time.monotonic() > deadline:
                        raise

    def abort(self) -> None:
        """Abort. What comes next is done by a fresh producer: something went wrong already."""
        self.asked = True
        with self._timed("an abort"):
            self._doubt = self._doubt or "a transaction was aborted"
            abort = partial(self.producer.abort_transaction, CALL_SECONDS)
            bounded.within(STUCK_SECONDS, "an abort", abort)

    @property
    def seconds(self) -> float:
        """How long ago the last transaction began."""
        return time.monotonic() - self.began

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        asked = time.monotonic()
        try:
            yield
        except KafkaException:
            self._doubt = self._doubt or f"{what} failed"
            raise
        self.producer.poll(0)
        if (took := time.monotonic() - asked) > SLOW_SECONDS:
            self._doubt = self._doubt or f"{what} took {took:.1f} s"

    def _on_error(self, error: KafkaError) -> None:
        self._doubt = self._doubt or error.str()

    def may_go_on(self, error: KafkaError) -> bool:
        """Whether a fresh producer may do the transaction again that ended by this error.

        Another process, or a broker, fenced the old one before its end was asked for: so nothing of
        it counts.
        """
        return is_fatal(error) and not self.asked and self.seconds <= self._most

    def failure(self, error: KafkaError, where: str) -> WalkstreamError:
        """An error of the last transaction, for the person who reads the log at night.

        The broker ends one that is too old, and fences its producer as if another had its name. Of
        a topic that may not be written to, its records wait for as long as that.
        """
        is_told = error.code() in FORBIDDEN or error.code() in _TOLD
        if is_told or self.seconds <= self._most:
            return failure(error, where)
        return KafkaTrouble(
            f"{where}: {said(error)}. The transaction took {self.seconds:.0f} s, longer than "
            f'kafka."transaction.timeout.ms" ({self._most:g} s), so the broker ended it. Restart '
            'the worker; if it comes again, raise kafka."transaction.timeout.ms", or look why the '
            "brokers are slow. If a quota of theirs holds this producer back, a smaller "
            "commit.max_records makes commits that fit into it"
        )

    @property
    def _most(self) -> float:
        """How long a transaction may be open, in seconds."""
        return int(self.config.kafka.get("transaction.timeout.ms", clients.TRANSACTION_MS)) / 1000

    def renew(self) -> None:
        """Take a fresh producer, if the name is still this worker's: it fences whoever has it."""
        self.check()
        log.info("a fresh producer, as the old one may have been heard twice (%s)", self._doubt)
        # Its threads end here, and with them what it would ask once more. Those of one that is
        # stuck in a call live on: what it asks, if ever, has an old epoch.
        del self.producer
        self._doubt = ""
        self.producer = self._fresh()
        self.renewed += 1

    def _fresh(self) -> Producer:
        """A producer that has settled what was open under its id, and fenced whoever had it."""
        producer = clients.producer(self.config, self._on_error)
        try:
            init = partial(producer.init_transactions, CALL_SECONDS)
            bounded.within(STUCK_SECONDS, "init transactions", init)
        except KafkaException as error:
            raise failure(error.args[0], "init transactions") from error
        return producer
