"""Describes a record that is not used, as a Kafka record or as a line of JSON."""

import base64
from dataclasses import dataclass
from typing import Self

import msgspec
from confluent_kafka import Message

from streamer.decode.events import Bad
from streamer.decode.formats import MAX_ID_BYTES

Headers = list[tuple[str, str | bytes | None]]
"""Headers of a record, as confluent-kafka takes and gives them."""

MAX_BYTES = 900_000
"""Key and value of a dead letter together: brokers take a million bytes with headers by default."""


@dataclass
class DeadLetter:
    """A record that could not be used, as it came, with headers that say why."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    bad: Bad

    @classmethod
    def of(cls, message: Message, bad: Bad) -> Self:
        """What is bad of the message. What is too long for a record of its own is cut.

        So is a key that is too long for an id, if many dead letters may have to repeat it.
        """
        topic, partition = message.topic() or "", message.partition() or 0
        _, timestamp = message.timestamp()
        described = headers(topic, partition, message.offset() or 0, timestamp, bad)
        key, value = message.key(), bad.value
        size = len(key or b"") + len(value or b"")
        most = MAX_BYTES // 2 if bad.part is None else MAX_ID_BYTES
        if size > MAX_BYTES or (bad.part is not None and key and len(key) > most):
            described.append(("source.bytes", str(size).encode()))
            key = key and key[:most]
            value = value and value[: MAX_BYTES // 2]
        return cls(key, value, described, bad)


def headers(topic: str, partition: int, offset: int, timestamp: int, bad: Bad) -> Headers:
    """Headers of a dead letter. `timestamp` is the record's in ms, -1 for none."""
    fields = _fields(topic, partition, offset, timestamp, bad)
    return [(name, str(value).encode(errors="backslashreplace")) for name, value in fields.items()]


def as_json_line(
    topic: str, partition: int, offset: int, timestamp: int, key: bytes | None, bad: Bad
) -> bytes:
    """A dead letter as one line, with its newline: the fields of `headers`, `key` and `value`.

    Bytes that are not UTF-8 are under `key.base64` or `value.base64` instead.
    """
    line: dict[str, object] = {
        **_fields(topic, partition, offset, timestamp, bad),
        **readable("key", key),
        **readable("value", bad.value),
    }
    return msgspec.json.encode(line) + b"\n"


def _fields(
    topic: str, partition: int, offset: int, timestamp: int, bad: Bad
) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "source.topic": topic,
        "source.partition": partition,
        "source.offset": offset,
        "source.timestamp": timestamp,
        "error.class": bad.reason.value,
        "error.message": bad.message,
    }
    if bad.part is not None:
        fields["source.part"] = bad.part
    return fields


def readable(name: str, data: bytes | None) -> dict[str, str | None]:
    """Bytes under a name, as text if they are UTF-8, else in base 64."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}.base64": base64.b64encode(data).decode()}
