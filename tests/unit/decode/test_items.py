"""Records of the topic `items`, as the catalogues of other systems have them."""

import json
from pathlib import Path
from typing import Any

import pytest

from streamer.decode.events import Invalid, Item, Reason, attribute_tokens, decode_item


def test_an_item_has_text_attributes() -> None:
    value = b'{"item_id":7,"attributes":{"category":"garden","tags":["red",2],"price":9.5}}'
    assert decode_item(b"7", value) == Item(
        "7", {"category": "garden", "tags": ["red", "2"], "price": "9.5"}
    )


def test_an_item_may_have_no_attributes() -> None:
    assert decode_item(None, b'{"item_id":"a"}') == Item("a", {})


def test_a_tombstone_retires_the_item_of_its_key() -> None:
    assert decode_item(b"a", None) == Item("a", None)


def described(**attributes: Any) -> bytes:
    return json.dumps({"item_id": "a", "attributes": attributes}).encode()


def deep(levels: int) -> object:
    """Objects and lists in turns, so many inside each other."""
    inside: object = 1
    for level in range(levels):
        inside = [inside] if level % 2 else {"x": inside}
    return inside


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"category": None, "name": "Lamp"}, {"name": "Lamp"}),
        ({"new": True, "old": False}, {"new": "true", "old": "false"}),
        ({"size": {"h": 1, "of": {"box": "2 m"}}}, {"size.h": "1", "size.of.box": "2 m"}),
        ({"tags": ["red", None, 2, True]}, {"tags": ["red", "2", "true"]}),
        ({"tags": []}, {"tags": []}),
        ({"by": [{"id": 1}, {"id": 2, "n": "x"}]}, {"by.id": ["1", "2"], "by.n": ["x"]}),
        ({"rows": [["a", "b"], ["c"], "d"]}, {"rows": ["d", "a", "b", "c"]}),
        ({"a": {"b": "1"}, "a.b": "2"}, {"a.b": ["1", "2"]}),
        ({"a": {"b": "1"}, "a.b": "1"}, {"a.b": "1"}),
        ({"nothing": {}}, {}),
    ],
)  # fmt: skip
def test_attributes_of_other_systems_are_taken_as_text(
    given: dict[str, object], read: dict[str, object]
) -> None:
    assert decode_item(b"a", described(**given)) == Item("a", read)  # type: ignore[arg-type]
    beside = json.dumps({"item_id": "a"} | given).encode()
    assert decode_item(b"a", beside) == Item("a", read)  # type: ignore[arg-type]


def test_attributes_beside_the_id_are_taken_along_with_those_of_the_object() -> None:
    value = b'{"item_id":"a","name":"Lamp","tags":"x","attributes":{"tags":"y"}}'
    assert decode_item(b"a", value) == Item("a", {"tags": ["y", "x"], "name": "Lamp"})
    assert decode_item(b"a", b'{"item_id":"a","attributes":null,"n":1}') == Item("a", {"n": "1"})
    assert decode_item(b"a", b'{"item_id":"a","n":NaN}') == Item("a", {})


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("null", {"name": "Lamp"}),
        ("bool", {"name": "Lamp", "in_stock": "true"}),
        ("nested", {"name": "Lamp", "dim.h": "1"}),
        ("flat", {"name": "Lamp", "category": "light"}),
    ],
)
def test_small_catalogues_lose_nothing(
    shared_cases: Path, name: str, attributes: dict[str, str]
) -> None:
    (line,) = (shared_cases / f"items-{name}.jsonl").read_bytes().splitlines()
    assert decode_item(None, line).attributes == attributes


def test_many_values_of_one_name_are_gathered_in_one_pass() -> None:
    """Of a catalogue's line of a megabyte: with a copy for each value it would take minutes."""
    many = json.dumps({"item_id": "a", "x": [{"y": n} for n in range(100_000)]}).encode()
    attributes = decode_item(b"a", many).attributes
    assert attributes is not None
    assert len(attributes["x.y"]) == 100_000


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
        (b"a", described(x=deep(9)), Reason.BAD_FIELD, "attributes.x.* nests deeper than 8"),
        (b"a", b'{"item_id":"a","attributes":{"x":"\\ud800"}}', Reason.BAD_FIELD, "encodable"),
        (b"a", described(category="x" * 504), Reason.BAD_FIELD, "has 513 bytes and may have 512"),
        (b"a", described(category="é" * 252), Reason.BAD_FIELD, "has 513 bytes and may have 512"),
        (b"a", described(tags=["red", "x" * 999_700]), Reason.BAD_FIELD, "'tags=xxx"),
    ],
)
def test_each_invalid_item_says_why(
    key: bytes | None, value: bytes | None, reason: Reason, message: str
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        decode_item(key, value)
    assert caught.value.reason is reason


def test_what_is_nested_too_deeply_says_so() -> None:
    with pytest.raises(Invalid, match="nested too deeply"):
        decode_item(b"i", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ("category",))


def test_attributes_may_be_long_where_nothing_is_learned_from_them() -> None:
    long = described(category="x" * 503, text="y" * 10_000)
    item = decode_item(b"a", long)
    assert item.attributes == {"category": "x" * 503, "text": "y" * 10_000}
    with pytest.raises(Invalid, match="has 10005 bytes"):
        decode_item(b"a", long, ("text",))


def test_a_message_does_not_repeat_a_long_name_of_an_attribute() -> None:
    with pytest.raises(Invalid) as caught:
        decode_item(b"a", described(**{"x" * 900_000: "\ud800"}))
    assert len(caught.value.message) < 200


def test_an_attribute_that_is_too_long_for_a_key_is_no_token() -> None:
    """One that was stored before the model learned from it."""
    attributes: dict[str, str | list[str]] = {"text": "é" * 254, "tags": ["x" * 507, "y" * 508]}
    assert attribute_tokens(attributes, ("text", "tags")) == ["tags=" + "x" * 507]


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
