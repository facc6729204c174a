import json
from typing import Any

import numpy as np
import pytest

from core.ids.hashing import hash_keys
from core.settings import Duration
from streamer.decode.events import Decoded, Decoder, Reason
from streamer.settings.sections import ClickSettings, EventSettings

NOW = 1_700_000_000_000
DECODER = Decoder(ClickSettings(), EventSettings(max_ahead=Duration(1000), max_bytes=300_000))


def click(**fields: Any) -> bytes:
    return json.dumps({"user_id": "u", "item_id": "i", "ts": NOW} | fields).encode()


def decode(*values: bytes | None, timestamp: int = NOW) -> Decoded:
    return DECODER([None] * len(values), values, [timestamp] * len(values))


def verdict(value: bytes | None, timestamp: int = NOW) -> tuple[Reason, str]:
    decoded = decode(value, timestamp=timestamp)
    (bad,) = decoded.bad
    assert (len(decoded.clicks), bad.record, bad.part, bad.value) == (0, 0, None, value)
    return bad.reason, bad.message


def test_good_clicks_become_columns_in_their_order() -> None:
    values = [click(), click(user_id=7, item_id="7", event_type="purchase", weight=0.5)]
    decoded = DECODER([None] * 2, values, [NOW + 5, NOW + 6])
    clicks = decoded.clicks
    assert decoded.bad == []
    assert (list(clicks.users), list(clicks.items)) == (["u", "7"], ["i", "7"])
    assert clicks.times.dtype == np.int64
    assert clicks.weights.dtype == np.float32
    assert clicks.times.tolist() == [NOW, NOW]
    assert clicks.weights.tolist() == [1.0, 1.5]
    assert clicks.event_ids is None


def test_an_empty_batch_is_no_click() -> None:
    decoded = decode()
    assert (len(decoded.clicks), decoded.bad) == (0, [])


def test_decay_time_is_the_earlier_of_event_and_record() -> None:
    values = [click(ts=NOW + 900), click(ts=NOW - 900), click(ts=NOW + 10**9)]
    decoded = DECODER([None] * 3, values, [NOW, NOW, -1])
    assert decoded.bad == []
    assert decoded.clicks.times.tolist() == [NOW, NOW - 900, NOW + 10**9]


def test_bad_records_keep_their_place_among_good_ones() -> None:
    decoded = decode(b"{", click(user_id="a"), None, click(user_id="b", weight=0))
    assert list(decoded.clicks.users) == ["a"]
    assert [bad.record for bad in decoded.bad] == [0, 2, 3]


def test_clicks_that_take_the_slow_way_keep_their_place() -> None:
    """A surrogate in a field that is not used is read by the standard library only."""
    odd = click(user_id="b", name="\ud800", size="n").replace(b'"n"', b"9" * 5000)
    decoded = decode(click(user_id="a"), odd, None, click(user_id="c"))
    assert list(decoded.clicks.users) == ["a", "b", "c"]
    assert [bad.record for bad in decoded.bad] == [2]


def test_a_batch_of_many_blocks_keeps_its_order() -> None:
    values = [click(user_id=n) if n % 7 else b"?" for n in range(1000)]
    decoded = decode(*values)
    assert list(decoded.clicks.users) == [str(n) for n in range(1000) if n % 7]
    assert [bad.record for bad in decoded.bad] == [n for n in range(1000) if n % 7 == 0]


def test_whole_numbers_written_as_floats_are_times() -> None:
    decoded = decode(b'{"user_id":1,"item_id":2,"ts":1.7e12}', click(ts=NOW), timestamp=-1)
    assert decoded.bad == []
    assert decoded.clicks.times.tolist() == [NOW, NOW]


@pytest.mark.parametrize(
    "identifier", ["a\x00b", "\n", " ", "é" * 256, "x" * 512, 10**40, -1, 2**63, 2**64]
)
def test_unusual_ids_are_ids(identifier: str | int) -> None:
    decoded = decode(click(item_id=identifier))
    assert decoded.bad == []
    assert list(decoded.clicks.items) == [str(identifier)]


def test_unknown_types_have_the_weight_of_the_star() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights={"click": 1.0, "*": 0.25}))
    decoded = decoder([None] * 2, [click(event_type="zoom"), click()], [NOW] * 2)
    assert decoded.bad == []
    assert decoded.clicks.weights.tolist() == [0.25, 1.0]


UNWANTED = {"click": 1.0, "refund": 0.0}


def test_clicks_of_a_type_that_weighs_0_are_neither_clicks_nor_dead_letters() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights=UNWANTED))
    refund = click(event_type="refund")
    values = [refund, click(user_id="a"), b"{", refund, click(user_id="b"), refund]
    decoded = decoder([None] * 6, values, [NOW] * 6)
    assert list(decoded.clicks.users) == ["a", "b"]
    assert [bad.record for bad in decoded.bad] == [2]
    assert decoded.unwanted == 3


@pytest.mark.parametrize(
    "fields", [{"item_id": ""}, {"item_id": None}, {"ts": "soon"}, {"weight": 0}, {"event_id": []}]
)
def test_the_other_fields_of_an_unwanted_click_may_hold_anything(fields: dict[str, Any]) -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights=UNWANTED))
    decoded = decoder([None], [click(event_type="refund", **fields)], [NOW])
    assert (len(decoded.clicks), decoded.bad, decoded.unwanted) == (0, [], 1)


def test_unwanted_clicks_of_a_record_of_many_are_left_out_singly() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights=UNWANTED))
    good, refund, bad = click(), click(event_type="refund"), click(ts=-1)
    values = [b"\n".join([refund, good, refund]), b"\n".join([refund, good, bad, refund])]
    decoded = decoder([None] * 2, values, [NOW] * 2)
    assert (len(decoded.clicks), decoded.unwanted) == (2, 4)
    assert [(b.record, b.part) for b in decoded.bad] == [(1, 2)]


def test_a_star_that_weighs_0_leaves_every_other_type_out() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights={"click": 1.0, "*": 0.0}))
    decoded = decoder([None] * 3, [click(event_type="zoom"), click(), b"[7]"], [NOW] * 3)
    assert (len(decoded.clicks), decoded.unwanted) == (1, 1)
    assert [bad.reason for bad in decoded.bad] == [Reason.UNDECODABLE]


def test_clicks_without_a_type_are_unwanted_if_click_is() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(weights={"click": 0.0, "view": 1.0}))
    decoded = decoder([None] * 2, [click(), click(event_type="view")], [NOW] * 2)
    assert (len(decoded.clicks), decoded.bad, decoded.unwanted) == (1, [], 1)


def test_null_in_an_optional_field_is_absence() -> None:
    decoded = decode(click(event_type=None, weight=None, event_id=None))
    assert decoded.bad == []
    assert decoded.clicks.weights.tolist() == [1.0]
    assert decoded.clicks.event_ids is None


def test_event_ids_become_hashes_and_0_is_for_none() -> None:
    """7 and "7" are one id, as they are for users and items; an empty one tells nothing apart."""
    ids = ["a", None, 7, "7", "", 0, "\ud800"]
    decoded = decode(*(click(event_id=event_id) for event_id in ids))
    assert decoded.bad == []
    hashes = decoded.clicks.event_ids
    assert hashes is not None
    assert hashes.dtype == np.uint64
    names = [b"a", b"7", b"0"]
    a, seven, zero = hash_keys(names, 1)[1].tolist()
    assert hashes[:6].tolist() == [a, 0, seven, seven, 0, zero]
    assert hashes[6] not in (0, *hashes[:6])


def test_empty_event_ids_alone_are_none() -> None:
    assert decode(click(event_id=""), click()).clicks.event_ids is None


def test_a_record_that_is_too_long_is_not_decoded() -> None:
    decoder = Decoder(ClickSettings(), EventSettings(max_bytes=len(click())))
    long = click(user_id="u" * 100)
    many = b"\n".join([click()] * 2)
    decoded = decoder([None] * 4, [click(), long, b"\xff" * 1000, many], [NOW] * 4)
    assert len(decoded.clicks) == 1
    assert [(bad.record, bad.value) for bad in decoded.bad] == [
        (1, long),
        (2, b"\xff" * 1000),
        (3, many),
    ]
    assert {bad.reason for bad in decoded.bad} == {Reason.OVERSIZED}
    assert "events.max_bytes is" in decoded.bad[0].message


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        (None, Reason.UNDECODABLE, "no value"),
        (b"", Reason.UNDECODABLE, "not JSON"),
        (b"\xff\xfe", Reason.UNDECODABLE, "not JSON in UTF-8"),
        (click(name="x").replace(b"x", b"\xff"), Reason.UNDECODABLE, "not JSON in UTF-8"),
        (b'{"user_id":"u"', Reason.UNDECODABLE, "not JSON"),
        (b"7", Reason.UNDECODABLE, "must be an object"),
        (b"[]", Reason.UNDECODABLE, "no click in it"),
        (b"[1, 2", Reason.UNDECODABLE, "not JSON"),
        (b"[" * 100_000, Reason.UNDECODABLE, "not JSON"),
        (b'{"item_id":"i","ts":1}', Reason.BAD_FIELD, "user_id is missing"),
        (b'{"user_id":"u","ts":1}', Reason.BAD_FIELD, "item_id is missing"),
        (b'{"user_id":"u","item_id":"i"}', Reason.BAD_FIELD, "ts is missing"),
        (click(user_id=True), Reason.BAD_FIELD, "user_id must be"),
        (click(item_id=1.5), Reason.BAD_FIELD, "item_id must be"),
        (click(item_id=None), Reason.BAD_FIELD, "item_id must be"),
        (click(ts="2024-01-01"), Reason.BAD_FIELD, "ts must be"),
        (click(ts=1.5), Reason.BAD_FIELD, "ts must be a whole number"),
        (click(ts=True), Reason.BAD_FIELD, "ts must be"),
        (click(event_type=3), Reason.BAD_FIELD, "event_type must be"),
        (click(weight="2"), Reason.BAD_FIELD, "weight must be"),
        (click(user_id=""), Reason.BAD_ID, "user_id has 0 bytes"),
        (click(item_id="x" * 513), Reason.BAD_ID, "item_id has 513 bytes"),
        (click(item_id="é" * 257), Reason.BAD_ID, "item_id has 514 bytes"),
        (click(item_id=10**600), Reason.BAD_ID, "item_id has 601 bytes"),
        (click(item_id="\ud800"), Reason.BAD_ID, "item_id '\\ud800' is not encodable"),
        (click(weight=float("nan")), Reason.BAD_WEIGHT, "weight is nan"),
        (click(weight=float("inf")), Reason.BAD_WEIGHT, "weight inf"),
        (click(weight=-1), Reason.BAD_WEIGHT, "must be > 0"),
        (click(weight=0), Reason.BAD_WEIGHT, "must be > 0"),
        (click(weight=1e300), Reason.BAD_WEIGHT, "is more than clicks.max_weight, which is 100"),
        (click(weight=100.1), Reason.BAD_WEIGHT, "is more than clicks.max_weight"),
        (click(weight=1e-300), Reason.BAD_WEIGHT, "is not between"),
        (click(ts=-1), Reason.BAD_TIME, "between 1970 and 9999"),
        (click(ts=NOW * 1000), Reason.BAD_TIME, "between 1970 and 9999"),
        (click(ts="17e"), Reason.BAD_FIELD, "ts must be a number of ms, not '17e'"),
        (click(ts=float("inf")), Reason.BAD_FIELD, "ts must be a whole number"),
        (click(ts=10**30), Reason.BAD_TIME, "between 1970 and 9999"),
        (click(event_id=1.5), Reason.BAD_FIELD, "event_id must be a string or an integer"),
        (click(event_id=["a"]), Reason.BAD_FIELD, "event_id must be"),
        (b"\x00\x00\x00\x00\x07{}", Reason.UNDECODABLE, "looks like Confluent wire format"),
        (click().replace(b'"u"', b"9" * 5000), Reason.BAD_FIELD, "user_id must be"),
        (click(ts=NOW + 1001), Reason.BAD_TIME, "events.max_ahead is 1 s"),
        (click(event_type="zoom"), Reason.UNKNOWN_TYPE, "event_type 'zoom'"),
        (click(event_type="zoom", item_id=""), Reason.UNKNOWN_TYPE, "a weight of 0 leaves it out"),
    ],
)
def test_each_dead_letter_says_why(value: bytes | None, reason: Reason, message: str) -> None:
    found, text = verdict(value)
    assert found is reason
    assert message in text


def test_a_message_does_not_repeat_a_long_value() -> None:
    assert len(verdict(click(item_id=["x" * 10_000]))[1]) < 200


def test_a_message_survives_a_value_that_is_nested_deeply() -> None:
    value = click(user_id=7).replace(b"7", b"[" * 900 + b"]" * 900, 1)
    assert verdict(value)[0] in (Reason.BAD_FIELD, Reason.UNDECODABLE)


SHOWN = Decoder(
    ClickSettings(), EventSettings(weights={"click": 2.0}, impressions="shown", max_bytes=300_000)
)


@pytest.mark.parametrize("slow", [False, True])
def test_an_impression_weighs_less_than_nothing_whatever_it_says_it_weighs(slow: bool) -> None:
    values = [
        click(), click(event_type="shown"), click(event_type="shown", weight=-3.0),
        click(event_type="shown", weight=1e9), click(weight=0.5),
    ]  # fmt: skip
    # What has several clicks in a record is read one by one.
    values = [b"[" + value + b"]" for value in values] if slow else values
    decoded = SHOWN([None] * 5, values, [NOW] * 5)
    assert decoded.bad == []
    assert decoded.clicks.weights.tolist() == [2.0, -1.0, -1.0, -1.0, 1.0]
    assert len(decoded.clicks.without_impressions) == 2


def test_a_click_that_weighs_less_than_nothing_is_a_dead_letter_and_no_impression() -> None:
    decoded = SHOWN([None], [click(weight=-1.0)], [NOW])
    assert [bad.reason for bad in decoded.bad] == [Reason.BAD_WEIGHT]
    unknown = DECODER([None], [click(event_type="shown")], [NOW])
    assert [bad.reason for bad in unknown.bad] == [Reason.UNKNOWN_TYPE]
