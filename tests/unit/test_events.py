import json
from typing import Any

import numpy as np
import pytest

from core.settings import Duration
from streamer.deadletter import as_json_line, headers
from streamer.events import Invalid, Item, Reason, attribute_tokens, decode_batch, decode_item
from streamer.settings import EventSettings

NOW = 1_700_000_000_000
SETTINGS = EventSettings(max_ahead=Duration(1000))


def click(**fields: Any) -> bytes:
    return json.dumps({"user_id": "u", "item_id": "i", "ts": NOW} | fields).encode()


def verdict(value: bytes | None, timestamp: int = NOW) -> tuple[Reason, str]:
    clicks, [(index, reason, message)] = decode_batch([value], [timestamp], SETTINGS)
    assert (len(clicks), index) == (0, 0)
    return reason, message


def test_good_clicks_become_columns_in_their_order() -> None:
    values = [click(), click(user_id=7, item_id="7", event_type="purchase", weight=0.5)]
    clicks, bad = decode_batch(values, [NOW + 5, NOW + 6], SETTINGS)
    assert bad == []
    assert (clicks.users, clicks.items) == (["u", "7"], ["i", "7"])
    assert clicks.times.dtype == np.int64
    assert clicks.weights.dtype == np.float32
    assert clicks.times.tolist() == [NOW, NOW]
    assert clicks.weights.tolist() == [1.0, 1.5]


def test_an_empty_batch_is_no_click() -> None:
    clicks, bad = decode_batch([], [], SETTINGS)
    assert (len(clicks), bad) == (0, [])


def test_decay_time_is_the_earlier_of_event_and_record() -> None:
    values = [click(ts=NOW + 900), click(ts=NOW - 900), click(ts=NOW + 10**9)]
    clicks, bad = decode_batch(values, [NOW, NOW, -1], SETTINGS)
    assert bad == []
    assert clicks.times.tolist() == [NOW, NOW - 900, NOW + 10**9]


def test_bad_records_keep_their_place_among_good_ones() -> None:
    clicks, bad = decode_batch([b"{", click(user_id="a"), None], [NOW] * 3, SETTINGS)
    assert clicks.users == ["a"]
    assert [index for index, _, _ in bad] == [0, 2]


def test_whole_numbers_written_as_floats_are_times() -> None:
    clicks, bad = decode_batch([b'{"user_id":1,"item_id":2,"ts":1.7e12}'], [-1], SETTINGS)
    assert bad == []
    assert clicks.times.tolist() == [NOW]


@pytest.mark.parametrize("identifier", ["a\x00b", "\n", " ", "é" * 256, "x" * 512, 10**40, -1])
def test_unusual_ids_are_ids(identifier: str | int) -> None:
    clicks, bad = decode_batch([click(item_id=identifier)], [NOW], SETTINGS)
    assert bad == []
    assert clicks.items == [str(identifier)]


def test_unknown_types_have_the_weight_of_the_star() -> None:
    settings = EventSettings(weights={"click": 1.0, "*": 0.25})
    clicks, bad = decode_batch([click(event_type="zoom"), click()], [NOW, NOW], settings)
    assert bad == []
    assert clicks.weights.tolist() == [0.25, 1.0]


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        (None, Reason.UNDECODABLE, "no value"),
        (b"", Reason.UNDECODABLE, "not JSON"),
        (b"\xff\xfe", Reason.UNDECODABLE, "not JSON in UTF-8"),
        (b'{"user_id":"u"', Reason.UNDECODABLE, "not JSON"),
        (b"[1, 2]", Reason.UNDECODABLE, "must be a JSON object"),
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
        (click(weight=1e300), Reason.BAD_WEIGHT, "is not between"),
        (click(weight=10**400), Reason.BAD_WEIGHT, "is not between"),
        (click(weight=1e-300), Reason.BAD_WEIGHT, "is not between"),
        (click(ts=-1), Reason.BAD_TIME, "between 1970 and 9999"),
        (click(ts=NOW * 1000), Reason.BAD_TIME, "between 1970 and 9999"),
        (click(ts=NOW + 1001), Reason.BAD_TIME, "events.max_ahead is 1 s"),
        (click(event_type="zoom"), Reason.UNKNOWN_TYPE, "event_type 'zoom'"),
    ],
)
def test_each_dead_letter_says_why(value: bytes | None, reason: Reason, message: str) -> None:
    found, text = verdict(value)
    assert found is reason
    assert message in text


def test_a_message_does_not_repeat_a_long_value() -> None:
    assert len(verdict(click(item_id=["x" * 10_000]))[1]) < 200


def test_an_item_has_text_attributes() -> None:
    value = b'{"item_id":7,"attributes":{"category":"garden","tags":["red",2],"price":9.5}}'
    assert decode_item(b"7", value) == Item(
        "7", {"category": "garden", "tags": ["red", "2"], "price": "9.5"}
    )


def test_an_item_may_have_no_attributes() -> None:
    assert decode_item(None, b'{"item_id":"a"}') == Item("a", {})


def test_a_tombstone_retires_the_item_of_its_key() -> None:
    assert decode_item(b"a", None) == Item("a", None)


@pytest.mark.parametrize(
    ("key", "value", "reason", "message"),
    [
        (None, None, Reason.BAD_FIELD, "without a key"),
        (b"a", b"{", Reason.UNDECODABLE, "not JSON"),
        (b"a", b"{}", Reason.BAD_FIELD, "item_id is missing"),
        (b"a", b'{"item_id":"b"}', Reason.BAD_ID, "must agree"),
        (b"\xff", None, Reason.BAD_ID, "not UTF-8"),
        (b"", None, Reason.BAD_ID, "0 bytes"),
        (b"a", b'{"item_id":"a","attributes":[]}', Reason.BAD_FIELD, "attributes must be"),
        (b"a", b'{"item_id":"a","attributes":{"x":null}}', Reason.BAD_FIELD, "attributes.x must"),
        (b"a", b'{"item_id":"a","attributes":{"x":[[]]}}', Reason.BAD_FIELD, "attributes.x must"),
        (b"a", b'{"item_id":"a","attributes":{"x":"\\ud800"}}', Reason.BAD_FIELD, "encodable"),
    ],
)
def test_each_invalid_item_says_why(
    key: bytes | None, value: bytes | None, reason: Reason, message: str
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        decode_item(key, value)
    assert caught.value.reason is reason


def test_tokens_are_the_used_attributes_each_once() -> None:
    attributes: dict[str, str | list[str]] = {
        "tags": ["red", "big", "red"],
        "category": "garden",
        "price": "9.5",
    }
    assert attribute_tokens(attributes, ("category", "tags", "brand")) == [
        "category=garden",
        "tags=red",
        "tags=big",
    ]


def test_a_dead_letter_carries_where_it_came_from() -> None:
    assert headers("clicks", 3, 42, -1, Reason.BAD_ID, "item_id is é\ud800") == [
        ("source.topic", b"clicks"),
        ("source.partition", b"3"),
        ("source.offset", b"42"),
        ("source.timestamp", b"-1"),
        ("error.class", b"bad_id"),
        ("error.message", "item_id is é\\ud800".encode()),
    ]


def test_a_dead_letter_line_holds_any_bytes() -> None:
    line = as_json_line("f.jsonl", 0, 1, NOW, Reason.UNDECODABLE, "why", b"k\n", b"\xff")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "source.topic": "f.jsonl",
        "source.partition": 0,
        "source.offset": 1,
        "source.timestamp": NOW,
        "error.class": "undecodable",
        "error.message": "why",
        "key": "k\n",
        "value.base64": "/w==",
    }
