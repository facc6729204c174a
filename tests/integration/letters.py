"""Dead letters as tests write, list and send them back."""

import json
from collections.abc import Mapping

from confluent_kafka import Message, Producer

from tests.support import START_MS, App, Process


def headers(
    app: App, reason: str = "unknown_type", source: str = "1@0", **more: object
) -> Mapping[str, object]:
    """As the README documents them; `source` is partition@offset."""
    partition, _, offset = source.partition("@")
    return {
        "source.topic": app.config.topics.clicks,
        "source.partition": partition,
        "source.offset": offset,
        "source.timestamp": START_MS,
        "error.class": reason,
        "error.message": f"this is {reason}",
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def bury(
    app: App, value: bytes | None, headers: Mapping[str, object], key: bytes | None = b"user",
    time: int = 0,
) -> None:  # fmt: skip
    """One dead letter, written at `time` (ms), or now."""
    producer = Producer({"bootstrap.servers": app.servers})
    encoded: list[tuple[str, str | bytes | None]] = [
        (name, str(text).encode()) for name, text in headers.items()
    ]
    topic = app.config.topics.dead_letters
    producer.produce(topic, value, key, headers=encoded, timestamp=time)
    assert producer.flush(30) == 0


def done(process: Process, code: int = 0) -> str:
    assert process.wait() == code, process.output
    assert "Traceback" not in process.output
    return process.output


def listed(app: App, *options: str) -> list[dict[str, object]]:
    output = done(app.command("dlq", "list", "--json", *options))
    return [json.loads(line) for line in output.splitlines()]


def sent(app: App) -> list[Message]:
    return app.read(app.config.topics.clicks)
