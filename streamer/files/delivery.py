"""The producer of `publish`, which counts what became of each record, and its display."""

import sys
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamer import progress
from streamer.errors import ConfigError, WalkstreamError
from streamer.kafka import clients, rights
from streamer.kafka.failures import FORBIDDEN, Forbidden, is_fatal, kafka_error
from streamer.settings.secrets import hidden
from streamer.settings.sections import ClickSettings, Config
from streamer.wording import counted

METADATA_SECONDS = 15.0
INTERRUPT_SECONDS = 10.0
"""How long an interrupted publish waits for the broker's word on what is under way."""
STALL_SECONDS = 0.5
TELL_SECONDS = 5.0
"""How long nothing is delivered before a line says so."""
GIVE_UP_SECONDS = 120.0
"""And before `publish` ends: by then brokers that restart have come back."""
POLL_SECONDS = 0.5
NO_ANSWER = frozenset(
    (
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
    )
)
"""What librdkafka says of a record for which no broker had a word. The topic was there before."""


def refuse_foreign_clicks(settings: ClickSettings) -> None:
    """ConfigError if section [clicks] says anything else than what `publish` writes."""
    own = settings.in_own_form
    changed = [name for name in vars(own) if getattr(settings, name) != getattr(own, name)]
    if changed:
        keys = ", ".join(f"clicks.{name}" for name in changed)
        raise ConfigError(
            "publish writes clicks in Walkstream's own format: JSON with user_id, item_id, ts in "
            "ms, event_type, weight and event_id. The configuration says that the topic has "
            f"another ({keys}), so a worker could not read them. Let publish have a topic of its "
            "own, and a --config without section [clicks]"
        )


class Delivery:
    """Sends records to `topics` and counts them.

    A record is delivered when it was sent and neither failed nor awaits the broker's answer.
    Record timestamps are left to the broker: old ones would be deleted by retention at once.
    Raises `ConfigError` for settings that no producer takes and for topics that are not there,
    `WalkstreamError` if Kafka does not answer, also later on for `GIVE_UP_SECONDS`.
    """

    def __init__(self, config: Config, *topics: str) -> None:
        self.sent = 0
        self._name = " and ".join(topics)
        self._failed, self._first_failure = 0, ""
        self._forbidden: Forbidden | None = None
        self._producer = self._connect(config)
        self._require(config, topics)
        self._started = self._since = time.monotonic()
        self._servers = hidden(str(config.kafka["bootstrap.servers"]), config.kafka)
        self._seen = 0
        """Delivered when last looked at, which changed at `_since`."""
        self._is_told = self._gave_up = False

    def _connect(self, config: Config) -> Producer:
        if not config.kafka.get("bootstrap.servers"):
            raise ConfigError(
                'kafka."bootstrap.servers" is missing: name a broker as host:port in section '
                "[kafka]"
            )
        properties: dict[str, Any] = {
            **clients.COMMON,
            "compression.type": "gzip",  # every client reads it
            "linger.ms": 20,
            **config.kafka,
            # Repeats after a lost answer would count clicks twice.
            "enable.idempotence": True,
            # The partition of a user is the same for clients in every language.
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        try:
            return Producer(properties)
        except KafkaException as error:
            problem = hidden(error.args[0].str(), config.kafka)
            raise ConfigError(f"section [kafka]: {problem}") from error

    def _require(self, config: Config, topics: tuple[str, ...]) -> None:
        admin = clients.admin(config)
        writes = [rights.Right("Write", rights.TOPIC, topic) for topic in topics]
        rights.require(admin, "publish", writes)
        # Asked for by name, a missing topic would be created by brokers that allow it.
        there = admin.list_topics(timeout=METADATA_SECONDS).topics
        for topic in topics:
            if topic not in there:
                raise ConfigError(
                    f"topic {topic} does not exist: run `walkstream topics create`, or name the "
                    "right topic in section [topics]"
                )

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._fail(error)

    def _fail(self, error: KafkaError) -> None:
        self._failed += 1
        if error.code() in FORBIDDEN:
            self._forbidden = Forbidden(error, self._name)
        reason = error.str()
        if error.code() in NO_ANSWER:
            reason = f"no broker answered at {self._servers} ({error.name()})"
        self._first_failure = self._first_failure or reason

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Waits while the queue is full. Raises `WalkstreamError` when the producer is broken."""
        if not len(self._producer):
            self._since = time.monotonic()  # nothing was to be delivered until now
        # Counted afterwards: Ctrl-C in between leaves a record uncounted, never one too many.
        while True:
            try:
                self._producer.produce(topic, value, key)
                self.sent += 1
                return
            except BufferError:
                self.wait(0.05)
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                self.sent += 1
                self._fail(error)
                if is_fatal(error):
                    raise self._broken(error) from failure
                return

    def wait(self, seconds: float) -> None:
        """Takes the broker's answers for so long. WalkstreamError if there is none for long."""
        self._call(self._producer.poll, seconds)
        self._watch()

    def flush(self, seconds: float = float("inf")) -> None:
        """Waits for all answers, or for so long; for none where no broker answers."""
        until = time.monotonic() + seconds
        while not self._gave_up:
            left = until - time.monotonic()
            self._call(self._producer.flush, max(0.0, min(left, POLL_SECONDS)))
            if not len(self._producer) or left <= POLL_SECONDS:
                break
            self._watch()

    @property
    def delivered(self) -> int:
        """Records that the broker has."""
        return self.sent - self._failed - len(self._producer)

    def _watch(self) -> None:
        """Says when nothing is delivered. WalkstreamError after GIVE_UP_SECONDS of it."""
        now = time.monotonic()
        if self.delivered != self._seen or not len(self._producer):
            self._seen, self._since = self.delivered, now
            if self._is_told:
                print(f"{self._name}: records are delivered again", file=sys.stderr)
                self._is_told = False
        silent = now - self._since
        if silent >= TELL_SECONDS and not self._is_told:
            self._is_told = True
            print(
                f"{self._name}: nothing was delivered for {silent:.0f} s: no broker answers at "
                f"{self._servers}. Trying for {GIVE_UP_SECONDS:.0f} s in all",
                file=sys.stderr,
            )
        if silent >= GIVE_UP_SECONDS:
            self._gave_up = True
            why = self._first_failure or f"no broker answers at {self._servers}"
            raise WalkstreamError(
                f"gave up: nothing was delivered for {silent:.0f} s ({why}). Look whether the "
                "brokers run"
            )

    def _call(self, call: Callable[[float], int], seconds: float) -> None:
        try:
            call(seconds)
        except (KafkaException, SystemError) as broken:
            error = kafka_error(broken)
            if error is None:
                raise
            raise self._broken(error) from broken

    def _broken(self, error: KafkaError) -> WalkstreamError:
        if error.code() in FORBIDDEN:
            return Forbidden(error, self._name)
        return WalkstreamError(f"the producer cannot go on: {error.str()}")

    def summary(self) -> str:
        seconds = time.monotonic() - self._started
        unknown = len(self._producer)
        text = (
            f"{self._name}: {counted(self.delivered, 'record')} delivered in {seconds:.1f} s "
            f"({self.delivered / seconds:,.0f} a second), {self._failed:,} failed"
        )
        if unknown:
            text += f", {unknown:,} without an answer from the broker: they may have arrived or not"
        return text

    def require_all(self) -> None:
        """WalkstreamError if a record failed."""
        if self._forbidden is not None:
            raise self._forbidden
        if self._failed:
            raise WalkstreamError(
                f"not delivered to {self._name}: {self._failed:,} of "
                f"{counted(self.sent, 'record')}; the first because: {self._first_failure}"
            )


class Pace:
    """How many records are due, at `rate` a second.

    What is late by more than STALL_SECONDS is not made up for, so that a stall ends in no burst.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._owed, self._asked = 0.0, time.monotonic()

    def due(self) -> int:
        """Those since the last call."""
        now = time.monotonic()
        self._owed += min(now - self._asked, STALL_SECONDS) * self._rate
        self._asked = now
        count = int(self._owed)
        self._owed -= count
        return count


class Display(progress.Display):
    """Shows how much is delivered."""

    def __init__(self, topic: str, total: int | None) -> None:
        super().__init__(topic, total, stays=True)
        self._before, self._rate = 0, 0.0

    def deliver(self, position: int, delivered: int) -> None:
        """Show the position, and the records delivered so far, unless it is too early."""
        if seconds := self.silent:
            self._rate = (delivered - self._before) / seconds
            self._before = delivered
            self.show(position, self._text(delivered))

    def end(self, position: int, delivered: int) -> None:
        self.finish(position, self._text(delivered))

    def _text(self, delivered: int) -> str:
        return f"{counted(delivered, 'record')} delivered, {self._rate:,.0f} a second"
