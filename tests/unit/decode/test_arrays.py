"""Events that carry several items: one click for each element of an array."""

import json
from typing import Any, Literal

import msgspec
import pytest

from streamer.decode.events import MANY_BAD, Decoded, Decoder, Reason
from streamer.errors import ConfigError
from streamer.settings import load
from streamer.settings.sections import ClickSettings, EventSettings

NOW = 1_700_000_000_000
FIELDS = {
    "user_id": "user",
    "item_id": "properties.products[].id",
    "ts": "ts",
    "event_type": "event",
    "event_id": "message",
}
EVENTS = EventSettings(weights={"click": 1.0, "order": 3.0, "ping": 0.0})


def order(*products: Any, **fields: Any) -> dict[str, Any]:
    event = {"user": "u", "ts": NOW, "event": "order", "message": "m"}
    return event | {"properties": {"products": list(products)}} | fields


def decode(
    *documents: object,
    fields: dict[str, str] | None = None,
    format: Literal["json", "msgpack"] = "json",
) -> Decoded:
    encode = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}[format]
    values = [d if isinstance(d, bytes) else encode(d) for d in documents]
    read = Decoder(ClickSettings(format=format, fields=FIELDS | (fields or {})), EVENTS)
    return read([None] * len(values), values, [-1] * len(values))


def items(decoded: Decoded) -> list[str]:
    return list(decoded.clicks.items)


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_each_element_is_a_click_with_what_is_around_it(format: Literal["json", "msgpack"]) -> None:
    decoded = decode(order({"id": "a"}, {"id": 7}), order({"id": "c"}, user="v"), format=format)
    assert decoded.bad == []
    assert items(decoded) == ["a", "7", "c"]
    assert list(decoded.clicks.users) == ["u", "u", "v"]
    assert decoded.clicks.times.tolist() == [NOW] * 3
    assert decoded.clicks.weights.tolist() == [3.0] * 3
    assert decoded.records.tolist() == [0, 0, 1]


def test_an_event_id_tells_the_clicks_of_an_event_apart_and_is_the_same_when_sent_twice() -> None:
    sent = order({"id": "a"}, {"id": "b"}, {"id": "a"})
    decoded = decode(sent, sent, order({"id": "a"}, message=None))
    ids = decoded.clicks.event_ids
    assert ids is not None
    assert len(set(ids[:3].tolist())) == 3
    assert ids[:3].tolist() == ids[3:6].tolist()
    assert ids[6] == 0
    own = decode(sent, fields={"event_id": "properties.products[].id"}).clicks.event_ids
    assert own is not None
    assert len(set(own.tolist())) == 2, "an id of the element's own needs no place behind it"


def test_fields_may_be_inside_the_element_or_outside() -> None:
    fields = {
        "ts": "properties.products[].seen.at",
        "weight": "properties.products[].n",
        "event_type": "properties.products[].as",
    }
    product = {"id": "a", "seen": {"at": 5}, "n": 2}
    decoded = decode(
        order(product, product | {"as": "order"}, product | {"as": "ping"}), fields=fields
    )
    assert decoded.clicks.times.tolist() == [5, 5]
    assert decoded.clicks.weights.tolist() == [2.0, 6.0]
    assert decoded.unwanted == 1


def test_elements_may_be_ids_and_arrays_may_be_inside_each_other() -> None:
    assert items(decode(order("a", 7), fields={"item_id": "properties.products[]"})) == ["a", "7"]
    nested = {
        "user": "u", "message": "m",
        "orders": [
            {"at": 1, "lines": [{"id": "a"}, {"id": "b"}]}, {"at": 2, "lines": [{"id": "a"}]},
        ],
    }  # fmt: skip
    decoded = decode(nested, fields={"item_id": "orders[].lines[].id", "ts": "orders[].at"})
    assert items(decoded) == ["a", "b", "a"]
    assert decoded.clicks.times.tolist() == [1, 1, 2]
    assert decoded.clicks.event_ids is not None
    assert len(set(decoded.clicks.event_ids.tolist())) == 3


def test_the_first_place_that_is_there_counts() -> None:
    """As of Segment, whose events have one product or many."""
    either = {"item_id": "properties.products[].id | properties.id", "user_id": "user | anonymous"}
    viewed = order() | {"properties": {"id": "v"}, "user": None, "anonymous": "x"}
    decoded = decode(order({"id": "a"}, {"id": "b"}), viewed, fields=either)
    assert decoded.bad == []
    assert (items(decoded), list(decoded.clicks.users)) == (["a", "b", "v"], ["u", "u", "x"])
    both = order({"id": "a"}) | {"properties": {"id": "v", "products": [{"id": "a"}]}}
    assert items(decode(both, fields=either)) == ["a"]
    turned = {"item_id": "properties.id | properties.products[].id"}
    assert items(decode(both, fields=turned)) == ["v"]


def test_an_element_without_an_item_does_not_take_the_one_around_it() -> None:
    either = {"item_id": "properties.products[].id | properties.id"}
    event = order(properties={"id": "v", "products": [{"id": "a"}, {}, {"id": None}]})
    decoded = decode(event, fields=either)
    assert items(decoded) == ["a"]
    assert "properties.products[1]: item_id" in decoded.bad[0].message


def test_what_the_clicks_of_an_event_share_is_not_printed_for_each() -> None:
    """With a look at all of it for each of the clicks this would take minutes."""
    huge = {str(n): n for n in range(50_000)}
    event = order(*[{"id": n} for n in range(3_000)], weight=huge, message=None)
    (bad,) = decode(event, fields={"weight": "weight"}).bad
    assert "weight must be a number, not {'0': 0, " in bad.message
    assert "(bad: 3,000 of its 3,000 clicks)" in bad.message
    packed = order(*[{"id": n} for n in range(3_000)], weight=b"x" * 500_000)
    assert len(decode(packed, fields={"weight": "weight"}, format="msgpack").bad) == 1


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_bad_click_is_a_dead_letter_that_counts_once_when_it_is_sent_back(
    format: Literal["json", "msgpack"],
) -> None:
    """Under the event id that it has in the whole event, whatever was good beside it."""
    event = order({"id": "a"}, {"id": None}, None, {"id": "d"}, {"id": ""})
    decoded = decode(event, format=format)
    assert items(decoded) == ["a", "d"]
    (bad,) = decoded.bad
    assert (bad.part, bad.reason) == (1, Reason.BAD_FIELD)
    assert bad.message.startswith("properties.products[1]: item_id")
    assert "(bad: 2 of its 4 clicks)" in bad.message
    assert bad.value is not None
    decoder = msgspec.json.decode if format == "json" else msgspec.msgpack.decode
    letter = decoder(bad.value)
    assert letter == order(None, {"id": None}, None, None, {"id": ""})
    letter["properties"]["products"][1]["id"] = letter["properties"]["products"][4]["id"] = "x"
    mended = order({"id": "a"}, {"id": "x"}, None, {"id": "d"}, {"id": "x"})
    ids, whole = decode(letter, format=format).clicks.event_ids, decode(mended).clicks.event_ids
    assert ids is not None
    assert whole is not None
    assert ids.tolist() == whole[[1, 3]].tolist()


def test_what_all_clicks_share_is_looked_at_once_and_buries_the_event_as_it_came() -> None:
    value = msgspec.json.encode(order({"id": "a"}, {"id": "b"}, user="x" * 600))
    (bad,) = decode(value).bad
    assert (bad.part, bad.value, bad.reason) == (None, value, Reason.BAD_ID)
    (bad,) = decode(order({"id": "a"}, {"id": "b"}, message="x" * 600)).bad
    assert "too long to be that of several clicks" in bad.message


@pytest.mark.parametrize(
    ("event", "reason", "message"),
    [
        (order(), Reason.BAD_FIELD, "is missing, or its array is empty"),
        (order(None), Reason.BAD_FIELD, "is missing, or its array is empty"),
        (order(properties=None), Reason.BAD_FIELD, "is missing, or its array is empty"),
        (order(properties={"products": {"id": 1}}), Reason.BAD_FIELD, "products must be an array"),
        (order("sku", 7), Reason.BAD_FIELD, "properties.products[0]: item_id"),
        (order(*[{"id": 1}] * 10_001), Reason.OVERSIZED, "more than 10000 clicks in arrays"),
        ([1, order()], Reason.UNDECODABLE, "must be an object"),
    ],
)
def test_an_event_without_a_click_is_a_dead_letter(
    event: object, reason: Reason, message: str
) -> None:
    decoded = decode(event)
    assert len(decoded.clicks) == 0
    assert decoded.bad[0].reason is reason
    assert message in decoded.bad[0].message


def test_an_event_of_a_type_that_weighs_nothing_is_left_out_whatever_its_array_is() -> None:
    decoded = decode(order(event="ping"), order(event="ping", properties={"products": 7}))
    assert (decoded.bad, decoded.unwanted) == ([], 2)


def test_the_limit_of_clicks_holds_for_all_events_of_a_record() -> None:
    event = order(*[{"id": 1}] * 5001)
    decoded = decode([event, event], order({"id": "z"}))
    assert items(decoded) == ["z"]
    (bad,) = decoded.bad
    assert (bad.part, bad.reason) == (None, Reason.OVERSIZED)


def test_events_of_a_record_are_told_apart_in_their_dead_letters() -> None:
    events = order({"id": "a"}), order({"id": {}}, {"id": "b"}), order(user=None)
    value = b"\n".join(json.dumps(event).encode() for event in events)
    decoded = decode(value)
    assert items(decoded) == ["a", "b"]
    assert [(bad.part, bad.message.partition(":")[0]) for bad in decoded.bad] == [
        (1, "properties.products[0]"),
        (2, "user_id ('user') must be a string or an integer, not null"),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"item_id": "[].id"}, "must be a name"),
        ({"item_id": "a[]..id"}, "must be a name"),
        ({"item_id": "a |  | b"}, "must be a name"),
        ({"item_id": "a[]b"}, "must be a name"),
        ({"user_id": "@key | user"}, "with @ there are only"),
        ({"user_id": "user | @key"}, "must be a name"),
        ({"item_id": "a[].id", "ts": "b[].ts"}, r"is in b\[\], and clicks.fields.item_id is not"),
        ({"item_id": "a[].id", "ts": "a[].b[].ts"}, "each element is one click"),
    ],
)
def test_paths_that_lead_nowhere_are_wrong_settings(
    fields: dict[str, str], message: str, tmp_path: Any
) -> None:
    overrides = [f"clicks.fields.{name}={path}" for name, path in fields.items()]
    (tmp_path / "none.toml").write_text("")
    with pytest.raises(ConfigError, match=message):
        load.load(tmp_path / "none.toml", overrides, {})


@pytest.mark.parametrize(("good", "letters"), [(MANY_BAD, 1), (MANY_BAD + 1, None)])
def test_a_record_of_little_else_than_bad_clicks_is_one_dead_letter(
    good: int, letters: int | None
) -> None:
    """A few bytes would ask for ten thousand otherwise, all in one transaction."""
    bad = MANY_BAD + 1
    value = msgspec.json.encode([{"user": "u"}] * bad + [order({"id": "a"})] * good)
    (other, decoded) = decode(order({"id": "b"})), decode(value, order({"id": "b"}))
    if letters is None:
        assert [one.part for one in decoded.bad] == list(range(bad))
        assert len(decoded.clicks) == good + 1
        return
    (letter,) = decoded.bad
    assert (letter.record, letter.part, letter.value) == (0, None, value)
    assert letter.message.startswith(f"{bad} of its {bad + good} clicks are bad")
    assert items(decoded) == items(other)
    assert decoded.records.tolist() == [1]
