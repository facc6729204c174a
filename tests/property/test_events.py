"""Whatever is in the clicks topic, each click is either used or a dead letter with a reason."""

import json
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.decode.events import Decoded, Decoder, Invalid, Item, Reason, decode_item
from streamer.settings.sections import ClickSettings, EventSettings

Format = Literal["json", "msgpack"]
NESTED = {"user_id": "ctx.user", "item_id": "@key", "ts": "at", "event_id": "ctx.id"}
ARRAYS = {"item_id": "lines[].item_id | event_id[] | item_id", "weight": "lines[].weight"}
JSON = Decoder(ClickSettings(), EventSettings())
CART_0 = EventSettings(weights={"click": 1.0, "cart": 0.0})
UNWANTING: dict[Format, Decoder] = {
    "json": Decoder(ClickSettings(), CART_0),
    "msgpack": Decoder(ClickSettings(format="msgpack"), CART_0),
}
DECODERS = [
    JSON,
    Decoder(ClickSettings(format="msgpack"), EventSettings()),
    Decoder(ClickSettings(fields=NESTED, time_unit="s"), EventSettings()),
    Decoder(ClickSettings(format="msgpack", fields=NESTED, time_unit="ns"), EventSettings()),
    Decoder(ClickSettings(fields={"ts": "@timestamp", "weight": ""}), EventSettings()),
    Decoder(ClickSettings(time_unit="iso"), EventSettings()),
    Decoder(ClickSettings(time_unit="us", fields={"event_id": "user_id"}), EventSettings()),
    *UNWANTING.values(),
    Decoder(ClickSettings(fields=ARRAYS), CART_0),
    Decoder(ClickSettings(format="msgpack", fields=ARRAYS), CART_0),
    Decoder(ClickSettings(), EventSettings(weights={"click": 1.0, "*": 0.0})),
]

GOOD: dict[str, Any] = {"user_id": "z", "item_id": "z", "ts": 5}
numbers = st.integers() | st.floats() | st.integers(0, 2 * 10**12)
text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = st.none() | st.booleans() | numbers | text
structures = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
)
near_clicks = st.fixed_dictionaries(
    {"user_id": st.integers() | text, "item_id": st.integers() | text, "ts": numbers},
    optional={
        "event_type": st.sampled_from(["click", "cart"]) | text,
        "weight": numbers,
        "event_id": structures,
    },
)
damaged_clicks = st.builds(
    lambda click, name, value: click | {name: value},
    near_clicks,
    st.sampled_from(["user_id", "item_id", "ts", "event_type", "weight"]),
    structures,
)


def as_json(value: object, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")


def as_msgpack(value: object) -> bytes:
    """Of a value of JSON; what MessagePack cannot spell is null in it."""

    def spelt(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {str(spelt(name)): spelt(entry) for name, entry in inner.items()}
        if isinstance(inner, list):
            return [spelt(entry) for entry in inner]
        if isinstance(inner, str):
            return inner if inner.isprintable() else None
        if isinstance(inner, int) and not -(2**63) <= inner < 2**64:
            return None
        return inner

    return msgspec.msgpack.encode(spelt(value))


clicks = near_clicks | damaged_clicks
nested_clicks = st.fixed_dictionaries(
    {
        "ctx": structures | st.fixed_dictionaries({"user": scalars, "id": scalars}),
        "at": numbers | text,
    }
)
orders = st.builds(
    lambda click, lines: click | {"lines": lines},
    clicks,
    st.lists(clicks | scalars, max_size=3) | structures,
)
documents = structures | clicks | orders | nested_clicks | st.lists(clicks | structures, max_size=4)
in_json = st.builds(as_json, documents, st.booleans())
separators = st.sampled_from([b"\n", b"\n", b"\n\n", b" ", b"", b"\r\n", b"\n\x0b\n"])
in_lines = st.lists(st.tuples(in_json | st.binary(max_size=5), separators), max_size=4).map(
    lambda documents: b"".join(part for document in documents for part in document)
)
only_in_msgpack = st.binary(max_size=5) | st.builds(
    msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=5)
)
packed_clicks = st.builds(
    lambda click, name, value: click | {name: value},
    clicks,
    st.sampled_from(["user_id", "item_id", "ts", "event_type", "weight", "event_id", "other"]),
    only_in_msgpack | st.lists(only_in_msgpack, max_size=2),
)
in_msgpack = st.builds(as_msgpack, documents | packed_clicks)
broken = st.builds(lambda value, at: value[:at], in_json | in_msgpack, st.integers(0, 60))
values = st.none() | st.binary() | in_json | in_lines | in_msgpack | broken
keys = st.none() | st.binary(max_size=6) | st.binary(min_size=510, max_size=515)
timestamps = st.just(-1) | st.integers(0, 2 * 10**12)


def decode(decoder: Decoder, *records: tuple[bytes | None, bytes | None, int]) -> Decoded:
    return decoder([r[0] for r in records], [r[1] for r in records], [r[2] for r in records])


def assert_sound(decoded: Decoded, n: int) -> None:
    """What holds of every batch of n records, whatever is in them."""
    clicks, bad = decoded.clicks, decoded.bad
    assert len(clicks) == len(clicks.items) == len(clicks.times) == len(clicks.weights)
    assert clicks.event_ids is None or len(clicks.event_ids) == len(clicks)
    assert len(decoded.records) == len(clicks)
    assert bool(np.all((decoded.records >= 0) & (decoded.records < n)))
    assert bool(np.all(np.diff(decoded.records) >= 0))
    assert all(0 < len(name.encode()) <= 512 for name in [*clicks.users, *clicks.items])
    assert bool(np.all(np.isfinite(clicks.weights) & (clicks.weights > 0)))
    assert bool(np.all((clicks.times >= 0) & (clicks.times <= 253_402_300_799_999)))
    places = [(b.record, -1 if b.part is None else b.part) for b in bad]
    assert places == sorted(set(places))
    assert all(0 <= record < n for record, _ in places)
    assert all(isinstance(b.reason, Reason) and b.message for b in bad)


@pytest.mark.parametrize("decoder", DECODERS)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(records=st.lists(st.tuples(keys, values, timestamps), max_size=6))
def test_no_input_stops_a_decoder_or_makes_an_impossible_click(
    decoder: Decoder, records: list[tuple[bytes | None, bytes | None, int]]
) -> None:
    together = decode(decoder, *records)
    assert_sound(together, len(records))
    alone = [decode(decoder, record) for record in records]
    # The verdict on a record does not depend on the rest of its batch.
    assert list(together.clicks.users) == [user for one in alone for user in one.clicks.users]
    assert list(together.clicks.items) == [item for one in alone for item in one.clicks.items]
    assert together.clicks.times.tolist() == [t for one in alone for t in one.clicks.times.tolist()]
    assert together.bad == [
        b._replace(record=record) for record, one in enumerate(alone) for b in one.bad
    ]
    for one in alone:
        assert len(one.clicks) + one.unwanted + len(one.bad) >= 1
    assert together.unwanted == sum(one.unwanted for one in alone)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.builds(as_json, clicks, st.booleans()), timestamps), max_size=8))
def test_every_record_of_one_click_ends_once_as_that_click_or_as_a_dead_letter(
    records: list[tuple[bytes, int]],
) -> None:
    decoded = decode(JSON, *((None, value, timestamp) for value, timestamp in records))
    bad = {b.record for b in decoded.bad}
    assert len(decoded.clicks) + len(decoded.bad) == len(records)
    assert all((b.part, b.value) == (None, records[b.record][0]) for b in decoded.bad)
    used = [record for index, record in enumerate(records) if index not in bad]
    for user, item, time, (value, timestamp) in zip(
        decoded.clicks.users, decoded.clicks.items, decoded.clicks.times.tolist(), used, strict=True
    ):
        source = json.loads(value)
        assert (user, item) == (str(source["user_id"]), str(source["item_id"]))
        assert time == (min(source["ts"], timestamp) if timestamp >= 0 else source["ts"])


@pytest.mark.parametrize("form", ["array", "lines", "msgpack"])
@settings(derandomize=True, max_examples=100, deadline=None)
@given(parts=st.lists(clicks | st.just({}) | st.just({"item_id": 1}), min_size=1, max_size=6))
def test_each_click_of_a_record_of_many_meets_the_fate_it_meets_alone(
    form: str, parts: list[dict[str, Any]]
) -> None:
    decoder = UNWANTING["msgpack" if form == "msgpack" else "json"]
    encoded = [as_msgpack(part) if form == "msgpack" else as_json(part, True) for part in parts]
    last = as_msgpack(GOOD) if form == "msgpack" else as_json(GOOD, True)
    whole = {
        "array": b"[" + b", ".join([*encoded, last]) + b"]",
        "lines": b"\n".join([*encoded, last]),
        "msgpack": bytes([0x90 + len(parts) + 1]) + b"".join([*encoded, last]),
    }[form]
    together = decode(decoder, (None, whole, -1))
    alone = decode(decoder, *((None, value, -1) for value in [*encoded, last]))
    assert list(together.clicks.users) == list(alone.clicks.users)
    assert together.clicks.times.tolist() == alone.clicks.times.tolist()
    assert together.clicks.weights.tolist() == alone.clicks.weights.tolist()
    assert together.bad == [b._replace(record=0, part=b.record) for b in alone.bad]
    assert together.unwanted == alone.unwanted
    assert len(together.clicks) + together.unwanted + len(together.bad) == len(parts) + 1


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.just(GOOD) | clicks, separators), min_size=1, max_size=6))
def test_a_bad_line_changes_nothing_for_the_lines_before_it(
    documents: list[tuple[dict[str, Any], bytes]],
) -> None:
    text = b"".join(as_json(document, True) + between for document, between in documents)
    value = text + b"\n" + as_json(GOOD, True) + b"\n" + as_json(GOOD, True)
    without = decode(JSON, (None, value, -1))
    with_bad = decode(JSON, (None, value + b"\n{}", -1))
    assert list(with_bad.clicks.users) == list(without.clicks.users)
    assert with_bad.bad[:-1] == without.bad


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1) | text, min_size=1, max_size=6))
def test_equal_event_ids_and_only_they_have_equal_hashes(ids: list[int | str]) -> None:
    records = [(None, as_json(GOOD | {"event_id": event_id}, True), -1) for event_id in ids]
    hashes = decode(JSON, *records).clicks.event_ids
    if hashes is None:
        assert set(ids) == {""}
        return
    for name, value in zip(map(str, ids), hashes.tolist(), strict=True):
        assert (value == 0) == (name == "")
        assert [value == other for other in hashes.tolist()] == [name == str(o) for o in ids]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.none() | st.binary(max_size=8),
    values
    | st.builds(
        lambda attributes: json.dumps({"item_id": "a", "attributes": attributes}).encode(),
        structures,
    ),
)
def test_an_item_record_is_an_item_or_invalid_with_a_reason(
    key: bytes | None, value: bytes | None
) -> None:
    try:
        item = decode_item(key, value)
    except Invalid as invalid:
        assert invalid.message  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(item, Item)
        assert 0 < len(item.id.encode()) <= 512
        assert (item.attributes is None) == (value is None)
