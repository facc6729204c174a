"""What came in a record commands no terminal, by whatever command it is looked at."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.support import App
from tests.unit.conftest import Run, run  # noqa: F401 - a fixture

EVIL = "\x1b[8mhid\x1b]0;owned\x07\x9b31m\x7f\u202egnp.\u2028[bold]red"
COMMANDS = ["\x1b[8m", "\x1b]0", "\x07", "\x9b", "\x7f", "\u202e", "\u2028"]


def test_no_record_commands_the_terminal_of_who_looks_at_it(
    kafka: str,
    tmp_path: Path,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with App(kafka, tmp_path, {"topics.partitions": 1, "commit.seconds": 0.2}) as app:
        named, raw = app.config.topics, EVIL.encode()
        click = {"user_id": EVIL, "item_id": EVIL, "ts": 1_700_000_000_000}
        producer = Producer({"bootstrap.servers": kafka})
        for record in (
            click,
            click | {"item_id": "other"},
            click | {"event_type": EVIL},
            click | {EVIL: EVIL},
            click | {"weight": EVIL},
            EVIL,
        ):
            # JSON escapes what is below a space, and a producer need not escape the rest.
            value = json.dumps(record, ensure_ascii=False).encode()
            producer.produce(named.clicks, value, raw)
        producer.produce(named.clicks, raw, raw)
        letter = {
            "source.topic": EVIL, "source.partition": "0", "source.offset": "0",
            "source.timestamp": "1700000000000", "error.class": EVIL, "error.message": EVIL,
        }  # fmt: skip
        headers: list[tuple[str, str | bytes | None]] = [
            (name, text.encode()) for name, text in {**letter, EVIL: EVIL}.items()
        ]
        producer.produce(named.dead_letters, raw, raw, headers=headers)
        assert producer.flush(30) == 0
        worker = app.worker().running()
        ends = TopicPartition(named.dead_letters, 0)
        reader = Consumer({"bootstrap.servers": kafka, "group.id": "none"})
        worker.until(lambda: reader.get_watermark_offsets(ends)[1] > 3, "dead letters")
        reader.close()
        worker.stop()
        texts = {"worker": worker.output}
        bad = tmp_path / "bad.csv"
        bad.write_text(f"user_id,item_id,ts\nu,i,{EVIL}\nu,{EVIL},1700000000000\n")
        settings = [part for o in app._overrides({}) for part in ("--set", o)]
        for line in (
            ["check-topic", named.clicks],
            ["check-topic", named.clicks, "--json"],
            ["dlq", "list"],
            ["dlq", "list", "--json"],
            ["dlq", "list", "--summary"],
            ["dlq", "replay", "--dry-run"],
            ["worker", "--dry-run"],
            ["publish", str(bad)],
            ["forget", EVIL],
            ["query", EVIL],
            ["inspect"],
            ["topics", "check"],
        ):
            _, out, err = run(*line, *settings)
            texts[" ".join(line)] = out + err
    for name, text in texts.items():
        assert not [command for command in COMMANDS if command in text], (name, text)
        assert "Traceback" not in text, (name, text)
    assert "\\u001b[8mhid" in texts["dlq list"]
    assert "[bold]red" in texts["dlq list"]
