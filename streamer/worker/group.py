"""The worker's membership of the consumer group: all partitions of `clicks` and `transitions`.

What is owned is fixed from the moment the group handed everything over: whatever it takes away or
adds later ends the process, and the restart begins from what was committed. A member of the group
is held to its generation when it commits; it reads nothing, which is the business of `Reader`.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streamer.errors import Fenced, KafkaTrouble, Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import Partition, checked
from streamer.kafka.failures import failure, kafka_error
from streamer.kafka.members import members, other_members
from streamer.settings.sections import Config

log = logging.getLogger(__name__)

JOIN_SECONDS = 60.0
"""How long another worker may take to leave; one that died stays for a session time-out."""


AGAIN_SECONDS = 3.0
"""How long a member waits for the rest of its partitions before it joins once more."""
REBALANCE_SECONDS = 5.0
LEAVE_SECONDS = 3.0
"""How long the group may take to let a member go that was refused."""


class Group:
    """A member of the group `app.name`."""

    def __init__(
        self, config: Config, admin: AdminClient, on_progress: Callable[[float], None]
    ) -> None:
        self.config, self.admin, self.on_progress = config, admin, on_progress
        self.consumer = clients.group_consumer(config)
        self.assigned: set[Partition] = set()
        self.joined = False
        self.ended: WalkstreamError | None = None
        """Why the membership is over, if a callback of the client learned that."""
        self.id = ""
        """What the group calls this process, and no other, since it joined."""

    def close(self) -> None:
        """Leave. Closing revokes all partitions, and no other worker is to blame for that."""
        self.joined = False
        self.consumer.close()

    def leave(self) -> None:
        """Leave at once, where a static member that closes stays until its session has ended.

        Whoever does what a refusal says would have to wait for that.
        """
        self.joined = False
        me, deadline = self.id or self.consumer.memberid(), time.monotonic() + LEAVE_SECONDS
        with suppress(WalkstreamError, KafkaException):
            self.consumer.unsubscribe()
            while any(member.member_id == me for member in members(self.admin, self.config)):
                if time.monotonic() > deadline:
                    return
                self.poll(0.1)

    def wait_for_others(self) -> None:
        """Join no group that another worker is in: it would lose its partitions and end."""
        name, deadline = self.config.app.name, time.monotonic() + JOIN_SECONDS
        named = ""
        while others := other_members(self.admin, self.config):
            if time.monotonic() > deadline:
                raise Refused(
                    f"group {name} has another member ({', '.join(others)}). This version runs one "
                    "worker per app: stop that one, or use another app.name"
                )
            if named != (named := ", ".join(others)):
                log.info(
                    "waiting for %s to leave group %s, %g s at most",
                    named,
                    name,
                    JOIN_SECONDS,
                )
            for _ in range(20):
                self.on_progress(0.0)
                time.sleep(0.1)

    def join(self) -> None:
        """Subscribe, and wait until every partition of the clicks is ours. Nothing is read yet."""
        topics = [self.config.topics.clicks]
        wanted = {(t, p) for t in topics for p in clients.partitions(self.consumer, t)}
        self._subscribe(topics)
        deadline = time.monotonic() + JOIN_SECONDS
        had, since = set(self.assigned), time.monotonic()
        while self.assigned != wanted:
            self.on_progress(0.0)
            self.poll(0.1)
            if self.assigned != had:
                had, since = set(self.assigned), time.monotonic()
            elif had and time.monotonic() - since > AGAIN_SECONDS:
                # A group gives a member that comes back what it had, and not the partitions that
                # were added since then. It shares out anew when the member joins once more.
                self.consumer.unsubscribe()
                self._subscribe(topics)
                since = time.monotonic()
            if time.monotonic() > deadline:
                missing = [TopicPartition(*one) for one in sorted(wanted - self.assigned)]
                raise Refused(
                    f"group {self.config.app.name} has another member, and did not hand over "
                    f"{_named(missing)}. This version runs one worker per app: "
                    "stop the other one, or wait until its session has ended"
                )
        self.id = self.consumer.memberid() or ""
        self.joined = True

    def _subscribe(self, topics: list[str]) -> None:
        self.consumer.subscribe(
            topics,
            on_assign=self._noting(self._on_assign),
            on_revoke=self._noting(self._on_revoke),
            on_lost=self._noting(self._on_lost),
        )

    def check(self) -> None:
        """Fenced unless the group knows this very process. Its name alone would fit another too."""
        name = clients.identity(self.config)
        there = members(self.admin, self.config)
        ours = [member for member in there if member.group_instance_id == name]
        if any(member.member_id == self.id for member in ours):
            return
        if ours:
            raise Fenced(
                f"the group {self.config.app.name} gave the place of {name} to another member, on "
                f"{ours[0].host}"
            )
        raise KafkaTrouble(f"group {self.config.app.name} knows nothing of {name} any more")

    def _noting(
        self, act: Callable[[Consumer, list[TopicPartition]], None]
    ) -> Callable[[Consumer, list[TopicPartition]], None]:
        """A callback for the client. What it raises is kept, for `poll` to raise.

        Handed on by the client, an error of Kafka arrives as something that is no exception.
        """

        def noting(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                act(consumer, partitions)
            except WalkstreamError as error:
                self.ended = self.ended or error
            except KafkaException as error:
                self.ended = self.ended or self._failure(error.args[0])

        return noting

    def _failure(self, error: KafkaError) -> WalkstreamError:
        where = f"group {self.config.app.name}"
        if error.code() == KafkaError._FATAL:  # as in `checked`
            error = KafkaError(KafkaError.FENCED_INSTANCE_ID, error.str())
        return failure(error, where)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.joined and partitions:
            raise KafkaTrouble(self._handed_over(partitions))
        # An offset of its own keeps the client from asking the broker where to begin, and what is
        # paused before it is assigned is never fetched.
        self.assigned |= {(tp.topic, tp.partition) for tp in partitions}
        consumer.pause(partitions)
        consumer.incremental_assign(
            [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]
        )

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.joined:
            raise KafkaTrouble(f"group {self.config.app.name} took away {_named(partitions)}")
        self.assigned -= {(tp.topic, tp.partition) for tp in partitions}
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self.joined:
            # The client would join again at once, and push out who may have this place by now.
            consumer.unsubscribe()
            raise KafkaTrouble(self._session_ended(partitions))

    def _session_ended(self, partitions: list[TopicPartition]) -> str:
        seconds = clients.session_seconds(self.config)
        return (
            f"{_named(partitions)} was lost: group {self.config.app.name} heard nothing of this "
            f"worker for {seconds:g} s (session.timeout.ms), as it or a broker stood still or the "
            "way between them was cut. Restart the worker"
        )

    def _handed_over(self, partitions: list[TopicPartition]) -> str:
        if self.assigned >= {(tp.topic, tp.partition) for tp in partitions}:
            return self._session_ended(partitions)
        return (
            f"the group handed over {_named(partitions)}, which was not there at the start: "
            "restart the worker, and it reads that too"
        )

    def poll(self, timeout: float = 0.0) -> None:
        """Take part in the group's life; the worker ends here if it is no longer a member."""
        try:
            messages = self.consumer.consume(1, timeout)
        except (KafkaException, SystemError) as error:
            if (kafka := kafka_error(error)) is None:
                raise
            raise self._failure(kafka) from None
        for message in messages:
            checked(message)
        if self.ended is not None:
            raise self.ended

    def serve_rebalance(self) -> None:
        """Let the group finish a rebalance, before a commit is tried again."""
        deadline = time.monotonic() + REBALANCE_SECONDS
        while time.monotonic() < deadline:
            self.poll(0.1)


def _named(partitions: list[TopicPartition]) -> str:
    first = f"{partitions[0].topic}[{partitions[0].partition}]"
    return first if len(partitions) == 1 else f"{first} and {len(partitions) - 1} more"
