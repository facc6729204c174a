"""Reads dead letters out of their topic, and selects those that a command is about."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import NamedTuple, Self

import msgspec
from confluent_kafka import KafkaException, Message, TopicPartition

from streamer.decode import deadletter
from streamer.decode.events import Reason
from streamer.errors import ConfigError
from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS, Partition, checked, partition_of
from streamer.kafka.failures import failure
from streamer.progress import Display
from streamer.settings.load import duration
from streamer.settings.sections import Config

ABSENT = "?"
"""Shown for a header that a letter lacks, as anybody may write to the topic."""

_NUMBERS = {f"source.{name}" for name in ("partition", "offset", "timestamp", "part", "bytes")}


class Letter(NamedTuple):
    """A dead letter: where it lies, when it came there (ms), and what it says of its record."""

    topic: str
    partition: int
    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @classmethod
    def of(cls, message: Message) -> Self:
        headers = {
            name: value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            for name, value in dict(message.headers() or []).items()
        }
        topic, partition = partition_of(message)
        offset, (_, ms) = message.offset() or 0, message.timestamp()
        return cls(topic, partition, offset, ms, message.key(), message.value(), headers)

    @property
    def position(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def reason(self) -> str:
        return self.headers.get("error.class", ABSENT)

    @property
    def message(self) -> str:
        return self.headers.get("error.message", ABSENT)

    @property
    def source_topic(self) -> str:
        return self.headers.get("source.topic", ABSENT)

    @property
    def source_partition(self) -> str:
        return self.headers.get("source.partition", ABSENT)

    @property
    def source(self) -> str:
        """The record, and the part of it if it carried many clicks."""
        offset = self.headers.get("source.offset", ABSENT)
        part = f" part {self.headers['source.part']}" if "source.part" in self.headers else ""
        return f"{self.source_topic}[{self.source_partition}]@{offset}{part}"

    @property
    def cut(self) -> bool:
        """Whether the record was too long to be kept whole."""
        return "source.bytes" in self.headers

    def age(self) -> tuple[int, int, int]:
        """Orders letters by time."""
        return self.time, self.partition, self.offset

    def as_json(self) -> bytes:
        """Its position, its time, its headers, and key and value as in `dead-letters.jsonl`."""
        line: dict[str, object] = {
            "place": self.position,
            "time": iso(self.time),
            **{
                name: int(value) if name in _NUMBERS and value.lstrip("-").isdecimal() else value
                for name, value in self.headers.items()
            },
            **deadletter.readable("key", self.key),
            **deadletter.readable("value", self.value),
        }
        return msgspec.json.encode(line)


@dataclass(frozen=True)
class Filter:
    """Selects the letters that meet every condition given."""

    reasons: frozenset[str] = frozenset()
    since: int | None = None
    """Of the time of the letter in ms, inclusive."""
    until: int | None = None
    """Of the time of the letter in ms, exclusive."""
    partition: int | None = None
    """Of the topic that the record came from."""
    match: str | None = None
    """Text that key, value or message hold."""

    @classmethod
    def of(
        cls, reasons: Sequence[str], since: str | None, until: str | None, partition: int | None,
        match: str | None,
    ) -> Self:  # fmt: skip
        """From what was typed. ConfigError for an unknown reason or a time that is none."""
        for reason in reasons:
            if reason not in list(Reason):
                raise ConfigError(f"--reason {reason}: the reasons are {', '.join(Reason)}")
        times = [
            None if text is None else _moment(name, text)
            for name, text in (("--since", since), ("--until", until))
        ]
        return cls(frozenset(reasons), times[0], times[1], partition, match)

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time < self.until)
            and (self.partition is None or letter.source_partition == str(self.partition))
            and (self.match is None or self._matches(letter, self.match))
        )

    def _matches(self, letter: Letter, text: str) -> bool:
        data = text.encode()
        return (
            text in letter.message or data in (letter.key or b"") or data in (letter.value or b"")
        )


class Log:
    """The dead-letter topic up to where it ended at first, so that every reading gives the same."""

    def __init__(self, config: Config, wanted: Filter) -> None:
        self.wanted, self.consumer = wanted, clients.tail_consumer(config)
        self.begins: dict[Partition, int] = {}
        self.ends: dict[Partition, int] = {}
        try:
            self._find(config.topics.dead_letters)
        except KafkaException as error:
            where = f"{config.topics.dead_letters}: cannot be read"
            raise failure(error.args[0], where) from error

    def _find(self, topic: str) -> None:
        """Where to begin and to end in each partition that has something."""
        partitions, since = [(topic, p) for p in clients.partitions(self.consumer, topic)], None
        if self.wanted.since is not None:
            since = clients.offsets_at(self.consumer, partitions, self.wanted.since)
        for partition in partitions:
            # The end for readers of committed records: a transaction that is open is left out.
            low, end = self.consumer.get_watermark_offsets(TopicPartition(*partition), CALL_SECONDS)
            begin = low if since is None else since.get(partition, end)
            if begin < end:
                self.begins[partition], self.ends[partition] = begin, end

    def close(self) -> None:
        self.consumer.close()

    def read(self, doing: str) -> Iterator[Letter]:
        """The letters that are wanted, in order within a partition, with progress told."""
        at, ends = dict(self.begins), self.ends
        first, total = sum(at.values()), sum(ends.values())
        with Display(doing, total - first) as display:
            self.consumer.assign(
                [TopicPartition(*partition, begin) for partition, begin in at.items()]
            )
            while any(at[partition] < end for partition, end in ends.items()):
                for message in map(checked, self.consumer.consume(1_000, 0.2)):
                    partition, offset = partition_of(message), message.offset() or 0
                    if message.error() is None:
                        letter = Letter.of(message)
                        if offset < ends[partition] and self.wanted.takes(letter):
                            yield letter
                        offset += 1
                    # The last offsets may be markers of transactions: then only the end tells.
                    at[partition] = max(at[partition], offset)
                display.show(sum(at.values()) - first)
            self.consumer.unassign()


def _moment(option: str, text: str) -> int:
    """Time in ms of ISO 8601, in UTC unless it says otherwise, or of a span back from now."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0, round(moment.timestamp() * 1000))
    try:
        return max(0, int(time() * 1000) - duration(text))
    except ValueError:
        raise ConfigError(
            f"{option} {text}: write a time as 2026-01-31T12:00:00Z, or a span back from now as 2h"
        ) from None


def iso(ms: int, precision: str = "milliseconds") -> str:
    """ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec=precision) + "Z"


def printable(text: str | bytes) -> str:
    """Text in which nothing can steer a terminal."""
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
