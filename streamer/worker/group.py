"""The worker's membership of the consumer group, which says what partitions of the clicks it has.

They come and go while it runs: what is taken away is committed first (`on_release`), and what is
handed over is taken up when the worker has read what its holder before left
(`streamer.worker.shares`). A member of the group is held to its generation when it commits; it
reads nothing, which is the business of `Reader`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
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
LOOK_SECONDS = 2.0
"""So often it is looked for partitions that nobody has."""
LOOKS = 2
"""After so many looks that found some in a row something is done."""
AGAIN_SECONDS = 3.0
"""How long a member waits for the rest of its partitions before it joins once more."""
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
        self.on_release: Callable[[set[Partition]], None] = lambda left: None
        """Called before partitions are given back, with those that are left."""
        self.partitions: set[Partition] = set()
        """All that there are."""
        self.ended: WalkstreamError | None = None
        """Why the membership is over, if a callback of the client learned that."""
        self.id = ""
        """What the group calls this process, and no other, since it joined."""
        self.gave_back = False
        """Whether some of it was taken away since this member joined."""
        self.metadata: Any = None
        """What a commit shows the group: the member and its generation."""
        self._looked, self._unheld = 0.0, 0
        """When it was looked for partitions that nobody has, and how often some were found."""
        self._is_told = False
        """Whether the group has said what this member has, if only that it has nothing yet."""

    def close(self) -> None:
        """Leave. Closing revokes all partitions, and no other worker is to blame for that."""
        self.joined = False
        self.on_release = lambda left: None
        self.consumer.close()

    @property
    def has_all(self) -> bool:
        """Whether all partitions were handed to this member."""
        return self.assigned == self.partitions

    def leave(self) -> None:
        """Leave at once, where a static member that closes stays until its session has ended.

        Whoever does what a refusal says would have to wait for that.
        """
        self.joined = False
        self.on_release = lambda left: None
        me, deadline = self.id or self.consumer.memberid(), time.monotonic() + LEAVE_SECONDS
        with suppress(WalkstreamError, KafkaException):
            self.consumer.unsubscribe()
            while any(member.member_id == me for member in members(self.admin, self.config)):
                if time.monotonic() > deadline:
                    return
                self.poll(0.1)

    @property
    def others(self) -> list[str]:
        """Members that have another name than this worker."""
        return other_members(self.admin, self.config)

    def wait_for_others(self, why: str) -> None:
        """Wait until nobody else is in the group. Refused if somebody stays; `why` is told."""
        name, deadline = self.config.app.name, time.monotonic() + JOIN_SECONDS
        named = ""
        while others := self.others:
            if time.monotonic() > deadline:
                raise Refused(
                    f"group {name} has another member ({', '.join(others)}), and {why}: stop the "
                    "others, start this worker alone, and then the others again"
                )
            if named != (named := ", ".join(others)):
                log.info(
                    "waiting for %s to leave group %s, %g s at most, as %s",
                    named, name, JOIN_SECONDS, why,
                )  # fmt: skip
            for _ in range(20):
                self.on_progress(0.0)
                time.sleep(0.1)

    def join(self) -> None:
        """Subscribe, and wait until the group has handed over what it has for this worker: all
        partitions of the clicks, unless there are others. Nothing is read yet."""
        topics = [self.config.topics.clicks]
        self.partitions = {(t, p) for t in topics for p in clients.partitions(self.consumer, t)}
        self._subscribe(topics)
        deadline = time.monotonic() + JOIN_SECONDS
        had, since = set(self.assigned), time.monotonic()
        while not self.has_all and not (self._is_told and self.others):
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
                missing = [TopicPartition(*one) for one in sorted(self.partitions - self.assigned)]
                raise Refused(
                    f"group {self.config.app.name} did not hand over {_named(missing)}, and has no "
                    "other member that could have it: look at the group's coordinator, then start "
                    "again"
                )
        self.id = self.consumer.memberid() or ""
        self.joined = True
        self.note()

    def _subscribe(self, topics: list[str]) -> None:
        self._is_told = self.gave_back = False
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
        given = {(tp.topic, tp.partition) for tp in partitions}
        if self.joined and given and (self.assigned >= given or not given <= self.partitions):
            raise KafkaTrouble(self._handed_over(partitions))
        # An offset of its own keeps the client from asking the broker where to begin, and what is
        # paused before it is assigned is never fetched.
        self._is_told = True
        self.id = consumer.memberid() or self.id
        self.assigned |= given
        consumer.pause(partitions)
        consumer.incremental_assign(
            [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]
        )

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        left = self.assigned - {(tp.topic, tp.partition) for tp in partitions}
        if self.joined:
            self.note()
            self.gave_back = True
            self.on_release(left)
        self.assigned = left
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
        if self.joined:
            self.note()

    def look(self) -> None:
        """Let the group share out anew where nobody has some of the partitions.

        A static member that dies between two steps of a cooperative rebalance comes back to what
        the first one gave it, and the second, which would hand on what it had to give up, never
        comes. The one with the fewest partitions joins once more.
        """
        now = time.monotonic()
        if not self.joined or self.has_all or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        name = self.config.app.name
        try:
            asked = self.admin.describe_consumer_groups([name], request_timeout=LOOK_SECONDS)
            group = asked[name].result()
        except KafkaException:
            return  # what is wrong shows elsewhere, if it lasts
        held = {
            member.member_id: len(member.assignment.topic_partitions) for member in group.members
        }
        is_whole = sum(held.values()) >= len(self.partitions)
        if is_whole or group.state != ConsumerGroupState.STABLE:
            self._unheld = 0
            return
        self._unheld += 1
        if self._unheld >= LOOKS and self.id == min(held, key=lambda one: (held[one], one)):
            log.warning("nobody has %d partitions: joining once more", self._missing(held))
            self._unheld = 0
            self.consumer.unsubscribe()
            self._subscribe([self.config.topics.clicks])

    def _missing(self, held: Mapping[str, int]) -> int:
        return len(self.partitions) - sum(held.values())

    def note(self) -> None:
        """Notice the generation, for the thread that commits: while the client is in a callback it
        would answer no other thread. An old one is refused, and the commit is tried again."""
        self.metadata = self.consumer.consumer_group_metadata()


def _named(partitions: list[TopicPartition]) -> str:
    first = f"{partitions[0].topic}[{partitions[0].partition}]"
    return first if len(partitions) == 1 else f"{first} and {len(partitions) - 1} more"
