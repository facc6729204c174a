"""Avro and JSON-Schema by confluent-kafka's own client, against a stand-in for a registry."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from random import Random
from typing import Any, Literal
from uuid import UUID

import fastavro
import pytest

from streamer.decode.events import Decoded, Decoder, Reason
from streamer.errors import ConfigError, WalkstreamError
from streamer.settings.sections import ClickSettings, EventSettings, KafkaValue

NOW = 1_700_000_000_000
AVRO, JSON, LOGICAL, OUTER, STRING, BROKEN, ORDERS = range(1, 8)

CLICK = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "user_id", "type": ["long", "string"]},
        {"name": "product", "type": {"type": "record", "name": "Product", "fields": [
            {"name": "sku", "type": "string"}]}},
        {"name": "at", "type": "long"},
        {"name": "action", "type": {"type": "enum", "name": "A", "symbols": ["cart", "zoom"]}},
        {"name": "event_id", "type": ["null", "string"], "default": None},
    ],
}  # fmt: skip
LOGICAL_CLICK = {
    "type": "record",
    "name": "Logical",
    "fields": [
        {"name": "user_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "item_id", "type": "int"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "weight", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5,
                                    "scale": 2}},
    ],
}  # fmt: skip
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}}},
    ],
}  # fmt: skip
REFERS = {"type": "record", "name": "Outer", "fields": [{"name": "click", "type": "Click"}]}
JSON_CLICK = {
    "title": "Click",
    "type": "object",
    "properties": {"user_id": {"type": "integer"}, "ts": {"type": "integer"}},
    "required": ["user_id"],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    f"ids/{AVRO}": {"schema": json.dumps(CLICK)},
    f"ids/{JSON}": {"schema": json.dumps(JSON_CLICK), "schemaType": "JSON"},
    f"ids/{LOGICAL}": {"schema": json.dumps(LOGICAL_CLICK)},
    f"ids/{OUTER}": {
        "schema": json.dumps(REFERS),
        "references": [{"name": "Click", "subject": "click", "version": 1}],
    },
    f"ids/{ORDERS}": {"schema": json.dumps(ORDER)},
    f"ids/{STRING}": {"schema": json.dumps("string")},
    f"ids/{BROKEN}": {"schema": "{"},
    "click/versions/1": {"schema": json.dumps(CLICK), "subject": "click", "version": 1, "id": AVRO},
}
FIELDS = {"item_id": "product.sku", "ts": "at", "event_type": "action"}


class StandIn:
    """The part of a registry that a reader asks; `status` other than 0 answers everything, with
    what `says`, if that is anything."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.says = 0, b""
        self.holds = threading.Event()
        """Cleared, nothing is answered."""
        self.holds.set()
        stand_in = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = (
                    self.path.partition("?")[0].removeprefix("/schemas/").removeprefix("/subjects/")
                )
                stand_in.asked.append(path)
                stand_in.holds.wait()
                unknown = {"error_code": 40403, "message": "Schema not found"}
                status = stand_in.status or (200 if path in SCHEMAS else 404)
                self.send_response(status)
                self.end_headers()
                answer = json.dumps(SCHEMAS.get(path, unknown)).encode()
                self.wfile.write(stand_in.says if stand_in.status and stand_in.says else answer)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the output of a test is for what went wrong."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def registry() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


def decoder(
    registry: StandIn,
    format: Literal["avro", "json-schema"] = "avro",
    fields: dict[str, str] | None = None,
) -> Decoder:
    config: dict[str, KafkaValue] = {"url": registry.url, "max.retries": 0}
    return Decoder(ClickSettings(format=format, fields=fields or {}), EventSettings(), config)


def decode(decoder: Decoder, *values: bytes | None) -> Decoded:
    return decoder([None] * len(values), values, [-1] * len(values))


def framed(schema_id: int, payload: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + payload


def avro(record: dict[str, Any], schema_id: int = AVRO, schema: Any = CLICK) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return framed(schema_id, out.getvalue())


def click(user: object = 7, **fields: Any) -> dict[str, Any]:
    return {"user_id": user, "product": {"sku": "a"}, "at": NOW, "action": "cart"} | fields


def test_avro_clicks_are_read_with_their_schema(registry: StandIn) -> None:
    decoded = decode(
        decoder(registry, fields=FIELDS), avro(click()), avro(click("u", event_id="e"))
    )
    assert decoded.bad == []
    assert (list(decoded.clicks.users), list(decoded.clicks.items)) == (["7", "u"], ["a", "a"])
    assert decoded.clicks.times.tolist() == [NOW, NOW]
    assert decoded.clicks.weights.tolist() == [2.0, 2.0]
    assert decoded.clicks.event_ids is not None
    assert registry.asked == [f"ids/{AVRO}"]


def test_logical_types_of_avro_are_what_they_mean(registry: StandIn) -> None:
    user = UUID(int=7)
    moment = datetime.fromtimestamp(NOW / 1000, UTC)
    record = {"user_id": user, "item_id": 3, "ts": moment, "weight": Decimal("1.25")}
    decoded = decode(decoder(registry), avro(record, LOGICAL, LOGICAL_CLICK))
    assert decoded.bad == []
    assert (list(decoded.clicks.users), list(decoded.clicks.items)) == ([str(user)], ["3"])
    assert decoded.clicks.times.tolist() == [NOW]
    assert decoded.clicks.weights.tolist() == [1.25]


def test_an_avro_record_may_hold_an_array_of_clicks_which_count_all_or_none(
    registry: StandIn,
) -> None:
    fields = {"item_id": "lines[].sku", "ts": "at", "weight": "", "event_type": ""}
    good = {"user_id": "u", "at": NOW, "lines": [{"sku": "a"}, {"sku": "b"}]}
    half = good | {"lines": [{"sku": "a"}, {"sku": ""}]}
    values = [avro(record, ORDERS, ORDER) for record in (good, half)]
    decoded = decode(decoder(registry, fields=fields), *values)
    assert list(decoded.clicks.items) == ["a", "b"]
    (bad,) = decoded.bad
    assert (bad.record, bad.value) == (1, values[1])
    assert bad.message.startswith("lines[1]: item_id has 0 bytes")
    assert "the others are not used either" in bad.message


def test_a_schema_may_refer_to_another(registry: StandIn) -> None:
    fields = {name: f"click.{path}" for name, path in {"user_id": "user_id", **FIELDS}.items()}
    outer = framed(OUTER, avro(click())[5:])
    decoded = decode(decoder(registry, fields=fields), outer, outer)
    assert decoded.bad == []
    assert list(decoded.clicks.users) == ["7", "7"]
    assert registry.asked == [f"ids/{OUTER}", "click/versions/1"]


def test_json_clicks_are_checked_against_their_schema(registry: StandIn) -> None:
    good = framed(JSON, b'{"user_id":7,"item_id":"i","ts":5}')
    unfit = framed(JSON, b'{"user_id":"u","item_id":"i","ts":5}')
    decoded = decode(decoder(registry, "json-schema"), good, unfit, good[:-1], good)
    assert list(decoded.clicks.users) == ["7", "7"]
    assert [(bad.record, bad.reason) for bad in decoded.bad] == [
        (1, Reason.UNDECODABLE),
        (2, Reason.UNDECODABLE),
    ]
    assert "is not of type 'integer'" in decoded.bad[0].message


def test_each_record_that_cannot_be_read_is_a_dead_letter_that_says_why(registry: StandIn) -> None:
    good = avro(click())
    values = {
        None: "no value",
        b"": "not in Confluent wire format",
        b"\0\0\0\0\1": "not in Confluent wire format",
        b'{"user_id":7}': "set clicks.format",
        good[:-3]: f"does not fit its schema {AVRO}",
        framed(AVRO, b"\xff" * 30): f"does not fit its schema {AVRO}",
        framed(JSON, good[5:]): f"does not fit its schema {JSON}",
        framed(BROKEN, good[5:]): f"does not fit its schema {BROKEN}",
        framed(STRING, b"\x02a"): "must be an object",
        framed(99, good[5:]): f"schema 99 is not in the registry at {registry.url}",
        framed(2**32 - 1, good[5:]): "is not in the registry",
    }
    decoded = decode(decoder(registry, fields=FIELDS), *values, good)
    assert len(decoded.clicks) == 1
    assert len(decoded.bad) == len(values)
    for bad, (value, message) in zip(decoded.bad, values.items(), strict=True):
        assert bad.reason is Reason.UNDECODABLE
        assert (bad.part, bad.value) == (None, value)
        assert message in bad.message


def test_values_of_avro_are_looked_at_as_any_others(registry: StandIn) -> None:
    values = [avro(click("")), avro(click(action="zoom")), avro(click(at=-1))]
    decoded = decode(decoder(registry, fields=FIELDS), *values)
    reasons = [bad.reason for bad in decoded.bad]
    assert reasons == [Reason.BAD_ID, Reason.UNKNOWN_TYPE, Reason.BAD_TIME]


def test_an_unknown_schema_is_asked_for_once_in_a_while(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, asked in ((60.0, 1), (0.0, 2)):
        monkeypatch.setattr("streamer.decode.registry.UNKNOWN_SECONDS", seconds)
        registry.asked.clear()
        read = decoder(registry, fields=FIELDS)
        for _ in range(2):
            assert len(decode(read, *[avro(click(), 99)] * (6 - asked)).bad) == 6 - asked
        assert registry.asked[:asked] == ["ids/99"] * asked
        assert seconds == 0.0 or len(registry.asked) == 1


def test_unknown_schemas_are_few_requests_however_many_records_name_them(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.decode.registry.MOST_UNKNOWN", 10)
    beats: list[int] = []
    config: dict[str, KafkaValue] = {"url": registry.url, "max.retries": 0}
    settings = ClickSettings(format="avro", fields=FIELDS)
    read = Decoder(settings, EventSettings(), config, lambda: beats.append(1))
    values = [avro(click(), 1000 + n) for n in range(500)]
    decode(read, avro(click()))
    for _ in range(2):
        decoded = decode(read, *values, avro(click()))
        assert (len(decoded.clicks), len(decoded.bad)) == (1, 500)
        assert (len(registry.asked), len(beats)) == (11, 11)
        assert "was not asked for" in decoded.bad[-1].message
    monkeypatch.setattr("streamer.decode.registry.MOST_UNKNOWN", 11)
    (bad,) = decode(read, avro(click(), LOGICAL)).bad
    assert "does not fit its schema 3" in bad.message, "one that is there is asked for"


def test_a_registry_that_hangs_is_waited_for_with_beats_and_not_for_ever(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.decode.registry.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("streamer.decode.registry._BEAT_SECONDS", 0.05)
    beats: list[int] = []
    config: dict[str, KafkaValue] = {"url": registry.url, "max.retries": 0}
    read = Decoder(ClickSettings(format="avro"), EventSettings(), config, lambda: beats.append(1))
    registry.holds.clear()
    with pytest.raises(WalkstreamError, match=r"did not give schema 1 within 0 s"):
        decode(read, avro(click()))
    registry.holds.set()
    assert len(beats) >= 3


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_registry_that_refuses_is_not_the_fault_of_the_record(
    registry: StandIn, status: int
) -> None:
    registry.status = status
    with pytest.raises(
        WalkstreamError, match=f"schema registry at {registry.url}.*HTTP.* {status}"
    ):
        decode(decoder(registry), avro(click()))


@pytest.mark.parametrize("status", [200, 400, 404, 405, 410])
@pytest.mark.parametrize(
    "says",
    [b"<html>nginx", b'{"error_code": 404, "message": "HTTP 404 Not Found"}', b"{}", b"[]", b"4"],
)
def test_what_is_no_registry_is_not_the_fault_of_the_record(
    registry: StandIn, status: int, says: bytes
) -> None:
    """As of a wrong path in registry.url: all clicks would be dead letters."""
    registry.status, registry.says = status, says
    with pytest.raises(WalkstreamError, match=r"did not give schema 1 .*check registry\.url"):
        decode(decoder(registry), avro(click()))


def test_a_registry_that_is_not_there_is_not_the_fault_of_the_record(registry: StandIn) -> None:
    config: dict[str, KafkaValue] = {"url": "http://me:secret@127.0.0.1:9", "max.retries": 0}
    read = Decoder(ClickSettings(format="avro"), EventSettings(), config)
    with pytest.raises(WalkstreamError, match=r"check registry\.url") as caught:
        decode(read, avro(click()))
    assert "secret" not in str(caught.value)


def test_a_password_in_the_address_is_shown_nowhere(
    registry: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = ClickSettings(format="avro", fields=FIELDS)
    config: dict[str, KafkaValue] = {"url": registry.url.replace("//", "//me:secret@")}
    read = Decoder(settings, EventSettings(), config)
    (bad,) = decode(read, avro(click()), avro(click(), 99)).bad
    assert "secret" not in bad.message + caplog.text
    with pytest.raises(ConfigError) as caught:
        Decoder(settings, EventSettings(), {"url": "me:secret@localhost:8081"})
    assert "secret" not in str(caught.value)


def test_no_bytes_stop_a_reader_of_avro(registry: StandIn) -> None:
    random, read = Random(0), decoder(registry, fields=FIELDS)
    values = []
    for _ in range(3000):
        value = bytearray(avro(click("user", event_id="some event")))
        for _ in range(random.randrange(4)):
            value[random.randrange(5, len(value))] = random.randrange(256)
        values.append(
            bytes(value[: random.randrange(len(value)) if random.random() < 0.3 else None])
        )
    decoded = decode(read, *values)
    assert len(decoded.clicks) + len(decoded.bad) == len(values)
    assert min(len(decoded.clicks), len(decoded.bad)) > 100


def test_what_the_registry_gave_is_kept_while_it_is_away(registry: StandIn) -> None:
    read = decoder(registry, fields=FIELDS)
    decode(read, avro(click()))
    registry.status = 503
    assert len(decode(read, avro(click())).clicks) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "set registry.url"),
        ({"url": "localhost:8081"}, "registry: Invalid url"),
        ({"url": "http://localhost:1", "unknown": 1}, "registry: Unrecognized properties: unknown"),
    ],
)
def test_a_registry_that_cannot_be_asked_is_a_wrong_setting(
    config: dict[str, KafkaValue], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoder(ClickSettings(format="avro"), EventSettings(), config)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry.avro", None)
    with pytest.raises(ConfigError, match=r'pip install "\.\[registry\]"'):
        Decoder(ClickSettings(format="avro"), EventSettings(), {"url": "http://localhost:1"})
