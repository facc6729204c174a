"""What `check-topic` makes of records, and that its settings, once applied, read them."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from streamer.decode.events import Decoded, Decoder
from streamer.inspect import check_topic
from streamer.inspect.topic_report import Report, examine
from streamer.settings import load
from streamer.settings.sections import Config

NOW = 1_795_850_000_000


def examined(values: Sequence[bytes | None], config: Config | None = None) -> Report:
    messages = [
        Message(
            topic="t", partition=0, offset=at, value=value, timestamp=(TIMESTAMP_CREATE_TIME, NOW)
        )
        for at, value in enumerate(values)
    ]
    return examine(config or Config(), "t", 1, messages, NOW)


def applied(found: Report, values: Sequence[bytes | None], folder: Path) -> Decoded:
    """What a worker with the proposed settings makes of the records."""
    (folder / "walkstream.toml").write_text(found.settings)
    config = load.load(folder / "walkstream.toml", [], {})
    n = len(values)
    return Decoder(config.clicks, config.events)([None] * n, values, [NOW] * n)


def lines(file: Path) -> list[bytes | None]:
    return [line for line in file.read_bytes().split(b"\n") if line.strip()]


FOUND: dict[str, tuple[int, int, str, dict[str, str]]] = {
    "tsstr": (40, 0, "ms", {}),
    "isolocal": (40, 0, "iso", {}),
    "bom-middle": (2, 0, "ms", {}),
    "ga4": (16, 26, "us", {
        "user_id": "user_pseudo_id", "item_id": "items[].item_id", "ts": "event_timestamp",
        "event_type": "event_name"}),
    "segment": (49, 0, "iso", {
        "user_id": "anonymousId", "ts": "timestamp", "event_type": "event",
        "event_id": "messageId",
        "item_id": "properties.products[].product_id | properties.product_id"}),
    "debezium": (40, 0, "us", {
        "user_id": "payload.after.user_id", "item_id": "payload.after.product_id",
        "ts": "payload.after.created_at", "event_type": "payload.op",
        "event_id": "payload.after.id"}),
}  # fmt: skip
"""Of each case its clicks, those left out, its unit of time, and where the fields are."""


@pytest.mark.parametrize("name", FOUND)
def test_what_is_proposed_reads_every_good_record(
    shared_cases: Path, tmp_path: Path, name: str
) -> None:
    values = lines(shared_cases / f"{name}.jsonl")
    clicks, unwanted, unit, fields = FOUND[name]
    found = examined(values)
    assert (found.clicks, found.bad, found.unwanted) == (clicks, 0, unwanted)
    assert found.time_unit == unit
    proposed = tomllib.loads(found.settings).get("clicks", {})
    assert proposed.get("fields", {}) == fields
    decoded = applied(found, values, tmp_path)
    assert (len(decoded.clicks), decoded.bad, decoded.unwanted) == (clicks, [], unwanted)
    assert decoded.clicks.times.max() < NOW
    assert decoded.clicks.times.min() > NOW - 90 * 86_400_000


def test_every_case_is_read_or_what_to_do_is_said(shared_cases: Path) -> None:
    for file in sorted(shared_cases.iterdir()):
        if file.name == "README.md" or file.stem in FOUND:
            continue
        found = examined(lines(file))
        assert found.clicks == 0, file.name
        assert found.warnings, file.name
        assert "@timestamp" not in found.settings or found.fields, file.name
        assert any("cannot be read" in one or "user_id" in one for one in found.warnings), file.name


def test_a_table_in_a_topic_is_called_one() -> None:
    found = examined([b"user_id;item_id;ts", b"u;i;5"])
    assert "a line of a table: `walkstream publish`" in found.warnings[0]
    assert "a table" not in examined([b"\xff\xfe\x00"]).warnings[0]


def change(op: str, at: int, **row: Any) -> dict[str, Any]:
    made = {"id": at, "user_id": f"u{at % 7}", "sku": f"s{at % 9}", "created_at": NOW - 1000 * at}
    return {
        "before": made if op in "ud" else None,
        "after": None if op == "d" else made | row,
        "source": {"table": "orders", "type": "row", "ts_ms": NOW},
        "op": op,
        "ts_ms": NOW,
    }


@pytest.mark.parametrize("wrapped", [True, False])
def test_rows_that_were_made_or_read_are_clicks_and_those_changed_or_deleted_are_not(
    wrapped: bool, tmp_path: Path
) -> None:
    changes = [change("crcud"[at % 5], at) for at in range(100)]
    schema = {"type": "struct", "fields": [{"type": "int64", "field": "id"}]}
    values: list[bytes | None] = [
        json.dumps({"schema": schema, "payload": one} if wrapped else one).encode()
        for one in changes
    ]
    found = examined(values)
    assert (found.clicks, found.unwanted, found.bad) == (60, 40, 0)
    prefix = "payload." if wrapped else ""
    assert found.sources["user_id"].path == f"{prefix}after.user_id"
    assert found.sources["ts"].path == f"{prefix}after.created_at"
    decoded = applied(found, values, tmp_path)
    assert (len(decoded.clicks), decoded.bad) == (60, [])
    tombstones = examined([*values, None])
    assert any("tombstones.on.delete = false" in one for one in tombstones.warnings)


def test_a_row_with_a_type_of_its_own_is_told_from_one_that_is_gone(tmp_path: Path) -> None:
    kinds = ("view", "purchase")
    changes = [change("ccd"[at % 3], at, event_type=kinds[at % 2]) for at in range(90)]
    values: list[bytes | None] = [json.dumps(one).encode() for one in changes]
    found = examined(values)
    assert found.sources["event_type"].path == "after.event_type | op"
    assert found.event_types["purchase"].weight == 3.0
    decoded = applied(found, values, tmp_path)
    assert (len(decoded.clicks), decoded.unwanted, decoded.bad) == (60, 30, [])
    assert any("each change of it is one more click" in one for one in found.warnings)


def test_a_row_without_a_time_has_that_of_its_change(tmp_path: Path) -> None:
    changes = [change("c", at) for at in range(60)]
    for one in changes:
        del one["after"]["created_at"]
    found = examined([json.dumps(one).encode() for one in changes])
    assert found.sources["ts"].path == "source.ts_ms"
    assert found.clicks == 60


def test_a_time_that_cannot_be_read_is_named_with_the_way_out() -> None:
    clicks = [
        {"user_id": f"u{at % 7}", "item_id": f"i{at % 9}", "time": "27/Nov/2026:17:36:44 +0000"}
        for at in range(60)
    ]
    found = examined([json.dumps(one).encode() for one in clicks])
    assert (found.clicks, "@timestamp" in found.settings) == (0, False)
    (warning,) = [one for one in found.warnings if "looks like the time of a click" in one]
    assert "such as 2026-01-31T12:00:00Z, not '27/Nov/2026:17:36:44 +0000'" in warning
    assert 'clicks.fields.ts = "@timestamp"' in warning


def test_paths_and_samples_can_be_copied_at_80_columns(
    shared_cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    values = [*lines(shared_cases / "ga4.jsonl"), b'{"event_name": 3}']
    check_topic.show(examined(values))
    err = capsys.readouterr().err
    for path in ("event_timestamp", "user_pseudo_id", "items[].item_id", "event_params[].key"):
        assert re.search(rf"^{re.escape(path)} ", err, re.M), err
    assert max(map(len, err.partition("Event types")[0].splitlines())) <= 80
    assert '{"event_name": 3}' in err
    assert "b'" not in err
