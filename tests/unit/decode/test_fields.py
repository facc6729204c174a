"""Topics whose clicks have other names, other units, and fields that are not in the value."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest

from streamer.decode.events import Decoded, Decoder, Reason
from streamer.settings.sections import ClickSettings, EventSettings

NOW = 1_700_000_000_000
FIELDS = {
    "user_id": "ctx.user.id",
    "item_id": "product.sku",
    "ts": "at",
    "event_type": "action",
    "weight": "product.score",
    "event_id": "meta.id",
}
Unit = Literal["ms", "s", "us", "ns", "iso"]


def foreign(**changes: Any) -> dict[str, Any]:
    click = {
        "ctx": {"user": {"id": 7, "country": "pt"}},
        "product": {"sku": "a"},
        "at": NOW,
        "noise": [1, {"sku": "b"}],
    }
    return click | changes


def decode(
    *documents: dict[str, Any],
    fields: dict[str, str] | None = None,
    unit: Unit = "ms",
    timestamp: int = -1,
    key: bytes | None = None,
) -> Decoded:
    settings = ClickSettings(fields=FIELDS if fields is None else fields, time_unit=unit)
    n = len(documents)
    values = [json.dumps(document).encode() for document in documents]
    return Decoder(settings, EventSettings())([key] * n, values, [timestamp] * n)


def verdict(document: dict[str, Any], **how: Any) -> tuple[Reason, str]:
    decoded = decode(document, **how)
    assert len(decoded.clicks) == 0
    (bad,) = decoded.bad
    return bad.reason, bad.message


def ms_of(ts: Any, unit: Unit) -> int:
    decoded = decode({"user_id": 1, "item_id": 2, "ts": ts}, fields={}, unit=unit)
    assert decoded.bad == []
    return int(decoded.clicks.times[0])


def test_fields_are_taken_from_their_paths() -> None:
    full = foreign(
        action="purchase",
        product={"sku": "b", "score": 0.5},
        meta={"id": "e"},
        ctx={"user": {"id": "u"}},
    )
    decoded = decode(foreign(), full)
    assert decoded.bad == []
    assert list(decoded.clicks.users) == ["7", "u"]
    assert list(decoded.clicks.items) == ["a", "b"]
    assert decoded.clicks.weights.tolist() == [1.0, 1.5]
    assert decoded.clicks.event_ids is not None
    assert [bool(event_id) for event_id in decoded.clicks.event_ids] == [False, True]


def test_a_key_that_has_the_dots_goes_before_the_path() -> None:
    flat = {"ctx.user.id": "u", "product.sku": "b", "at": NOW}
    both = foreign(**{"product.sku": "b"})
    decoded = decode(flat, both, foreign())
    assert decoded.bad == []
    assert list(decoded.clicks.users) == ["u", "7", "7"]
    assert list(decoded.clicks.items) == ["b", "b", "a"]


def test_a_null_on_the_way_to_an_optional_field_is_absence() -> None:
    decoded = decode(foreign(meta=None), foreign(meta=3), foreign(meta={"id": None}))
    assert decoded.bad == []
    assert decoded.clicks.event_ids is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"product": {}}, "item_id ('product.sku') is missing"),
        ({"product": None}, "item_id ('product.sku') is missing"),
        ({"product": [{"sku": "a"}]}, "item_id ('product.sku') is missing"),
        ({"ctx": {"user": {"id": None}}}, "user_id ('ctx.user.id') must be a string or an integer"),
        ({"at": "soon"}, "ts ('at') must be a number of ms"),
        ({"action": 1}, "event_type ('action') must be a string"),
        ({"product": {"sku": "a", "score": "2"}}, "weight ('product.score') must be a number"),
        ({"meta": {"id": False}}, "event_id ('meta.id') must be a string or an integer"),
    ],
)
def test_a_bad_field_is_named_with_its_path(changes: dict[str, Any], message: str) -> None:
    reason, text = verdict(foreign(**changes))
    assert reason is Reason.BAD_FIELD
    assert message in text


def test_an_unused_field_may_hold_anything() -> None:
    """A `weight` that is the weight of the product in kilograms."""
    fields = {"weight": "", "event_type": "", "event_id": ""}
    click = {"user_id": 1, "item_id": 2, "ts": NOW, "weight": "-1.5 kg", "event_type": "zoom"}
    decoded = decode(click | {"event_id": []}, fields=fields)
    assert decoded.bad == []
    assert decoded.clicks.weights.tolist() == [1.0]
    assert decoded.clicks.event_ids is None


def test_two_fields_may_be_one() -> None:
    fields = {"user_id": "id", "item_id": "id", "event_id": "id"}
    decoded = decode({"id": "a", "ts": NOW}, fields=fields)
    assert (list(decoded.clicks.users), list(decoded.clicks.items)) == (["a"], ["a"])
    assert decoded.clicks.event_ids is not None


def test_one_field_may_lie_behind_another() -> None:
    fields = {"user_id": "a", "item_id": "a.b"}
    decoded = decode({"a": "u", "a.b": "i", "ts": NOW}, fields=fields)
    assert (list(decoded.clicks.users), list(decoded.clicks.items)) == (["u"], ["i"])


@pytest.mark.parametrize("name", ['sk"u', "sk\\u", "sk\nu", "", "größe", "group_0", "user_id"])
def test_any_name_can_be_configured(name: str) -> None:
    fields = {"user_id": "u", "item_id": f"product.{name}"}
    decoded = decode({"u": 1, "product": {name: "a"}, "ts": NOW}, fields=fields)
    assert decoded.bad == []
    assert list(decoded.clicks.items) == ["a"]


def test_the_key_can_be_an_id() -> None:
    decoded = decode({"item_id": 2, "ts": NOW}, fields={"user_id": "@key"}, key="ü".encode())
    assert (list(decoded.clicks.users), list(decoded.clicks.items)) == (["ü"], ["2"])
    decoded = decode({"user_id": 2, "ts": NOW}, fields={"item_id": "@key"}, key=b"x" * 512)
    assert list(decoded.clicks.items) == ["x" * 512]


def test_each_key_belongs_to_all_clicks_of_its_record() -> None:
    settings = ClickSettings(fields={"user_id": "@key"})
    values = [b'[{"item_id":1,"ts":5},{"item_id":2,"ts":5}]', b"?", b'{"item_id":3,"ts":5}']
    decoded = Decoder(settings, EventSettings())([b"u", b"v", b"w"], values, [-1] * 3)
    assert list(decoded.clicks.users) == ["u", "u", "w"]


@pytest.mark.parametrize(
    ("key", "reason", "message"),
    [
        (None, Reason.BAD_FIELD, "it has none"),
        (b"\xff", Reason.BAD_ID, "not UTF-8"),
        (b"", Reason.BAD_ID, "0 bytes"),
        (b"x" * 513, Reason.BAD_ID, "513 bytes"),
        ("é".encode() * 257, Reason.BAD_ID, "514 bytes"),
    ],
)
def test_each_key_that_is_no_id_says_why(key: bytes | None, reason: Reason, message: str) -> None:
    found, text = verdict({"item_id": 2, "ts": NOW}, fields={"user_id": "@key"}, key=key)
    assert found is reason
    assert message in text


def test_the_record_timestamp_can_be_the_time() -> None:
    fields = {"ts": "@timestamp"}
    click = {"user_id": 1, "item_id": 2, "ts": "any"}
    assert decode(click, fields=fields, timestamp=NOW, unit="iso").clicks.times.tolist() == [NOW]
    reason, message = verdict(click, fields=fields, timestamp=-1)
    assert reason is Reason.BAD_TIME
    assert "timestamp" in message


@pytest.mark.parametrize(
    ("unit", "ts", "ms"),
    [
        ("ms", NOW, NOW),
        ("ms", float(NOW), NOW),
        ("s", 1_700_000_000, NOW),
        ("s", 1_700_000_000.0004, NOW),
        ("s", 1_700_000_000.0006, NOW + 1),
        ("s", 1_700_000_000.123, NOW + 123),
        ("us", NOW * 1000 + 999, NOW),
        ("us", (NOW + 1) * 1000.0, NOW + 1),
        ("ns", NOW * 10**6 + 999_999, NOW),
        ("ns", 0, 0),
        ("iso", "2023-11-14T22:13:20Z", NOW),
        ("iso", "2023-11-14T22:13:20", NOW),
        ("iso", "2023-11-15 00:13:20.0019+02:00", NOW + 1),
        ("iso", "2023-11-14", NOW - 80_000_000),
        ("iso", "2023-11-14 22:13:20 UTC", NOW),
        ("iso", "2023-11-14 22:13:20.5 +0000", NOW + 500),
        ("iso", "2023-11-14 23:13:20 +0100", NOW),
        ("iso", " 20231114T221320Z", NOW),
        ("ms", str(NOW), NOW),
        ("s", "1700000000.123", NOW + 123),
        ("us", f"{NOW}999", NOW),
        ("auto", NOW, NOW),
        ("auto", NOW // 1000, NOW),
        ("auto", f"{NOW}123", NOW),
        ("auto", NOW * 10**6 + 7, NOW),
        ("auto", "2023-11-14 22:13:20 GMT", NOW),
    ],
)
def test_times_of_each_unit_become_ms(unit: Unit, ts: float | str, ms: int) -> None:
    assert ms_of(ts, unit) == ms


def test_whole_and_fractional_seconds_may_be_mixed() -> None:
    clicks = [{"user_id": 1, "item_id": 2, "ts": ts} for ts in (1_700_000_000, 1_700_000_000.5)]
    decoded = decode(*clicks, fields={}, unit="s")
    assert decoded.clicks.times.tolist() == [NOW, NOW + 500]


@pytest.mark.parametrize(
    ("unit", "ts", "reason", "message"),
    [
        ("s", NOW, Reason.BAD_TIME, "between 1970 and 9999 in s"),
        ("s", -1, Reason.BAD_TIME, "between 1970 and 9999"),
        ("s", 1e300, Reason.BAD_TIME, "between 1970 and 9999"),
        ("s", -1e300, Reason.BAD_TIME, "between 1970 and 9999"),
        ("s", 10**400, Reason.BAD_TIME, "between 1970 and 9999"),
        ("s", float("nan"), Reason.BAD_FIELD, "finite"),
        ("s", "1700000000_", Reason.BAD_FIELD, "ts must be a number of s"),
        ("auto", 17, Reason.BAD_FIELD, "ts must be a time between 1990 and 2100 in s, ms, us or"),
        ("auto", "17", Reason.BAD_FIELD, "ts must be a time between 1990 and 2100 in s, ms, us or"),
        ("auto", "soon", Reason.BAD_FIELD, "ts must be a time such as 2026-01-31T12:00:00Z"),
        ("us", float("inf"), Reason.BAD_FIELD, "finite"),
        ("us", -1, Reason.BAD_TIME, "between 1970 and 9999"),
        ("ns", 10**30, Reason.BAD_TIME, "between 1970 and 9999 in ns"),
        ("iso", NOW, Reason.BAD_FIELD, "ts must be text"),
        ("iso", "yesterday", Reason.BAD_FIELD, "ts must be a time such as"),
        ("iso", "", Reason.BAD_FIELD, "ts must be a time such as"),
        ("iso", "1969-12-31T23:59:59Z", Reason.BAD_TIME, "between 1970 and 9999"),
        ("iso", "0001-01-01T00:00:00+23:59", Reason.BAD_TIME, "between 1970 and 9999"),
    ],
)
def test_each_time_that_is_none_says_why(
    unit: Unit, ts: float | str, reason: Reason, message: str
) -> None:
    found, text = verdict({"user_id": 1, "item_id": 2, "ts": ts}, fields={}, unit=unit)
    assert found is reason
    assert message in text


@pytest.mark.parametrize("unit", ["ms", "s", "us", "ns"])
def test_every_unit_has_the_bounds_of_the_record_timestamp(unit: Unit) -> None:
    per_ms = {"ms": 1, "s": 0.001, "us": 1000, "ns": 10**6}[unit]
    click = {"user_id": 1, "item_id": 2, "ts": (NOW + 86_400_000) * per_ms}
    assert decode(click, fields={}, unit=unit, timestamp=NOW).clicks.times.tolist() == [NOW]
    click["ts"] = (NOW + 86_401_000) * per_ms
    reason, message = verdict(click, fields={}, unit=unit, timestamp=NOW)
    assert reason is Reason.BAD_TIME
    assert "86401 s ahead" in message


@pytest.mark.parametrize("unit", ["ms", "iso"])
def test_a_timestamp_of_messagepack_is_a_time_whatever_the_unit(unit: Unit) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=NOW)
    value = msgspec.msgpack.encode({"user_id": 1, "item_id": 2, "ts": moment})
    settings = ClickSettings(format="msgpack", time_unit=unit)
    decoded = Decoder(settings, EventSettings())([None], [value], [-1])
    assert decoded.clicks.times.tolist() == [NOW]
