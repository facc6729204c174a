"""MessagePack means the same to the fast way, to the slow one, and to the lenient reader."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.decode import lenient
from streamer.decode.events import Decoded, Decoder, Reason
from streamer.settings.sections import ClickSettings, EventSettings

MANY = EventSettings(weights={"click": 1.0, "view": 0.0, "*": 2.0})
FIELDS = {"user_id": "u", "item_id": "p.i", "ts": "t", "event_type": "e", "weight": "w"}
FAST = Decoder(ClickSettings("msgpack", FIELDS | {"event_id": "d"}), MANY)
SLOW = Decoder(ClickSettings("msgpack", FIELDS | {"event_id": "d | no such"}), MANY)
"""A field with two places is for the slow way alone."""


def packed(code: int, body: bytes) -> bytes:
    return bytes([code]) + body


raw_text = st.binary(max_size=8).map(lambda b: packed(0xA0 + len(b), b)) | st.binary(
    max_size=8
).map(lambda b: packed(0xD9, bytes([len(b)]) + b))
names = st.sampled_from([b"\xa1u", b"\xa1p", b"\xa1t", b"\xa1e", b"\xa1d", b"\xa1i", b"\xd9\x01u"])
numbers = st.one_of(
    st.integers(0, 0x7F).map(lambda n: bytes([n])),
    st.integers(-(2**63), 2**64 - 1).map(msgspec.msgpack.encode),
    st.floats().map(msgspec.msgpack.encode),
)
odd = st.one_of(
    st.binary(max_size=16).map(lambda b: packed(0xC7, bytes([len(b), 0xFF]) + b)),
    st.binary(min_size=4, max_size=4).map(lambda b: packed(0xD6, b"\xff" + b)),
    st.binary(min_size=1, max_size=1).map(lambda b: packed(0xD4, b"\x05" + b)),
    st.binary(max_size=4).map(lambda b: packed(0xC4, bytes([len(b)]) + b)),
    st.sampled_from([b"\xc0", b"\xc2", b"\xc3", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xa5a"]),
)


def as_array(inside: list[bytes]) -> bytes:
    return packed(0x90 + len(inside), b"".join(inside))


def as_map(inside: list[tuple[bytes, bytes]]) -> bytes:
    return packed(0x80 + len(inside), b"".join(name + value for name, value in inside))


values = st.recursive(
    raw_text | numbers | odd,
    lambda inner: (
        st.lists(inner, max_size=3).map(as_array)
        | st.lists(st.tuples(names | raw_text | inner, inner), max_size=3).map(as_map)
    ),
    max_leaves=6,
)
pairs = st.lists(st.tuples(names | raw_text | numbers | odd, values), max_size=3)


def click(
    user: bytes, item: bytes, ts: bytes, more: list[tuple[bytes, bytes]], inner: list[Any]
) -> bytes:
    product = as_map([(b"\xa1i", item), *inner])
    return as_map([*more[:1], (b"\xa1u", user), (b"\xa1p", product), (b"\xa1t", ts), *more[1:]])


ids = st.just(b"\xa1z") | raw_text | numbers
clicks = st.builds(click, ids, ids, st.just(b"\x05") | numbers, pairs, pairs)


def same(one: Decoded, other: Decoded) -> None:
    assert list(one.clicks.users) == list(other.clicks.users)
    assert list(one.clicks.items) == list(other.clicks.items)
    assert one.clicks.times.tolist() == other.clicks.times.tolist()
    assert one.clicks.weights.tolist() == other.clicks.weights.tolist()
    assert str(one.clicks.event_ids) == str(other.clicks.event_ids)
    assert (one.unwanted, [b[:3] for b in one.bad]) == (other.unwanted, [b[:3] for b in other.bad])


@settings(derandomize=True, max_examples=200, deadline=None)
@given(clicks | values | st.lists(clicks, max_size=3).map(as_array))
def test_the_fast_way_and_the_slow_way_make_the_same_clicks(value: bytes) -> None:
    same(*(read([b"k"], [value], [-1]) for read in (FAST, SLOW)))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(clicks | values)
def test_what_a_strict_reader_reads_the_lenient_one_reads_alike(value: bytes) -> None:
    try:
        strict = msgspec.msgpack.decode(value)
    except (ValueError, TypeError, RecursionError):
        return
    # Times are extensions to it, NaN is not itself, and what no path can spell may be left out.
    if b"\xff" not in value and b"\x7f" not in value:
        assert comparable(lenient.decode(value)) == comparable(strict)


def comparable(value: Any) -> Any:
    if isinstance(value, msgspec.msgpack.Ext):
        return value.code, bytes(value.data)
    if isinstance(value, list | tuple):
        return [comparable(inner) for inner in value]
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items() if type(name) is not tuple}
    return value


GOOD = click(b"\xa1z", b"\xa1z", b"\x05", [], [])


@pytest.mark.parametrize(
    "more",
    [
        (b"\xa1\xff", b"\x01"),
        (b"\xa1x", b"\xa2\xc3\x28"),
        (b"\xa1x", b"\xd6\xff\xff\xff\xff\xff"),
        (b"\xa1x", b"\xc7\x0c\xff" + b"\xff" * 12),
        (b"\xa1x", b"\x81\x91\x01\x01"),
        (b"\x91\x01", b"\x01"),
    ],
    ids=["name", "text", "time", "long time", "a list as a name inside", "a list as a name"],
)
def test_what_no_field_is_in_loses_no_click(more: tuple[bytes, bytes]) -> None:
    value = click(b"\xa1z", b"\xa1z", b"\x05", [more], [])
    for read in (FAST, SLOW):
        decoded = read([None], [value], [-1])
        assert (list(decoded.clicks.users), decoded.bad) == (["z"], [])
    beside = as_array([value, GOOD])
    assert len(SLOW([None], [beside], [-1]).clicks) == 2


def test_a_field_that_is_not_utf8_is_a_dead_letter() -> None:
    for user, item in ((b"\xa2z\xff", b"\xa1z"), (b"\xa1z", b"\xa2z\xff")):
        (bad,) = FAST([None], [click(user, item, b"\x05", [], [])], [-1]).bad
        assert bad.reason is Reason.UNDECODABLE
        assert "is not MessagePack: " in bad.message


def test_any_depth_and_any_declared_length_is_read_in_one_pass() -> None:
    for value in (b"\x91" * 500_000, b"\xdd\xff\xff\xff\xff" * 100_000, b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(ValueError, match=r"cut short|deeper"):
            lenient.decode(value)
