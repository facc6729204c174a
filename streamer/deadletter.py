"""What is told about a record that is not used: as Kafka headers, or as a line of JSON."""

import base64

import msgspec

from streamer.events import Reason

Headers = list[tuple[str, str | bytes | None]]
"""Headers of a record, as confluent-kafka takes and gives them."""


def headers(
    topic: str, partition: int, offset: int, timestamp: int, reason: Reason, message: str
) -> Headers:
    """Headers of a dead letter. `timestamp` is the record's in ms, -1 for none."""
    fields = _fields(topic, partition, offset, timestamp, reason, message)
    return [(name, str(value).encode(errors="backslashreplace")) for name, value in fields.items()]


def as_json_line(
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    reason: Reason,
    message: str,
    key: bytes | None,
    value: bytes | None,
) -> bytes:
    """A dead letter as one line, with its newline: the fields of `headers`, `key` and `value`.

    Bytes that are not UTF-8 are under `key.base64` or `value.base64` instead.
    """
    line: dict[str, object] = {
        **_fields(topic, partition, offset, timestamp, reason, message),
        **_readable("key", key),
        **_readable("value", value),
    }
    return msgspec.json.encode(line) + b"\n"


def _fields(
    topic: str, partition: int, offset: int, timestamp: int, reason: Reason, message: str
) -> dict[str, str | int]:
    return {
        "source.topic": topic,
        "source.partition": partition,
        "source.offset": offset,
        "source.timestamp": timestamp,
        "error.class": reason.value,
        "error.message": message,
    }


def _readable(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}.base64": base64.b64encode(data).decode()}
