"""However a click is spelled, it is what the slow way of reading makes of it."""

import contextlib
import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.decode.columns import as_event_ids, hashes_of
from streamer.decode.events import Decoder, Invalid
from streamer.decode.fields import Reader, Row
from streamer.decode.formats import json_parts
from streamer.settings.sections import ClickSettings, EventSettings

EVENTS = EventSettings(weights={"click": 1.0, "cart": 0.0, "\u00fc": 2.0})
NESTED = {"user_id": "ctx.user", "item_id": "@key", "ts": "at", "event_id": "ctx.id"}
MAPPINGS = [
    ClickSettings(),
    ClickSettings(fields=NESTED, time_unit="s"),
    ClickSettings(fields={"ts": "@timestamp", "weight": ""}),
    ClickSettings(time_unit="iso"),
    ClickSettings(fields={"user_id": "ctx.far.item", "item_id": "ctx.user", "ts": "at"}),
    ClickSettings(fields={"weight": "ctx.far.weight"}, time_unit="us"),
    ClickSettings(fields={"item_id": "p.sku"}, time_unit="ns"),
    ClickSettings(fields={"user_id": "@key", "item_id": "@key", "ts": "@timestamp"}),
]

NUMBERS = [
    *("0", "-0", "7", "-7", "01", "-01", "1.5", "1.", ".5", "-", "-.5", "+1", "1e3", "2E-1", "0.1"),
    *("1e", "1e+", "1E+5", "-1.5e-3", "1e400", "17.1234567890123456", "1700000000.1234567", "-0.0"),
    *("9" * 15, "9" * 16, "9" * 18, "9" * 19, "-" + "9" * 18, "123456789012.345", "0x1", "1 2"),
    *(
        "9007199254740993",
        "1.9007199254740993",
        "18446744073709551621",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "1700000000000000000",
        "NaN",
        "Infinity",
        "1_0",
        "\uff11",
    ),
]
TEXTS = [
    *('"u"', '""', '"\\u0061"', '"a\\"b"', '"\u00fc"', '"\x7f"', '"a\tb"', '"cart"', '"a', '"\\n"'),
    *('"\\u12g4"', '"\\u12', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\\"', '"\\\\"', '"\\/"'),
    *('"2026-01-31T12:00:00Z"', '"7"', "'u'", '"' + "x" * 512 + '"', '"' + "x" * 513 + '"', '"\0"'),
]
OTHERS = [
    *("null", "true", "false", "nul", "nulls", "True", "", "{}", "[]", '{"user":1}', "[1,2]"),
    *(
        '{"a\\"b":[1,{"b":null}]}',
        "[[], {} ,[1.5,2]]",
        '{"a":"x\\n"}',
        '{"a":1,"a":2}',
        '{"a": "b"}',
    ),
    *(
        "[1,]",
        "[,]",
        '{"a"}',
        "[}",
        "{]",
        '{"a":1,}',
        '{"a":1 "b":2}',
        "{1:2}",
        "{,}",
        "[1 2]",
        "[01]",
        "[1}",
        '{"a":1]',
    ),
    *(
        "[" * 70 + "]" * 70,
        "[" * 60 + "]" * 60,
        "[" * 9 + "]" * 8,
        "[" * 8 + "]" * 9,
        "[nul]",
        "//",
    ),
]
VALUES = [*(value.encode() for value in [*NUMBERS, *TEXTS, *OTHERS]), b'"\xff"', b"[1,\n2]", b"7\n"]
NAMES = [
    *("user_id", "item_id", "ts", "event_type", "weight", "event_id", "other", "ctx", "at", "id"),
    *(
        "p",
        "p.sku",
        "ctx.user",
        "ctx.far.item",
        "ctx.far.weight",
        "user_i",
        "user_idd",
        "",
        "\\u0061t",
        "t\\s",
    ),
]
USUAL = {
    "user_id": b'"u"', "item_id": b"7", "ts": b"5", "event_type": b'"click"', "weight": b"1.5",
    "event_id": b'"e"', "at": b"1.5", "p": b'{"sku":"a"}',
    "ctx": b'{"user":"a b","far":{"item":3,"weight":0.25},"id":9}',
}  # fmt: skip
ISO = b'"2026-01-31T12:00:00Z"'


@pytest.mark.parametrize("clicks", MAPPINGS)
def test_each_value_of_each_field(clicks: ClickSettings) -> None:
    decoder, usual = Decoder(clicks, EVENTS), USUAL
    if clicks.time_unit == "iso":
        usual = USUAL | {"ts": ISO}
    doubled = b'{"user_id":1,"item_id":2,"ts":3,"weight":2,"weight":null}'
    for whole in (doubled, b"{}", b"[{}]", b"[{},{}]", b"{}\n{}", b"7", b"[1]", b"[]", b""):
        check(decoder, clicks, whole, 5)
    for name, value in product(NAMES, VALUES):
        check(decoder, clicks, document({**usual, name: value}), -1)
    for name, value in product(("user", "far", "id", "else"), VALUES):
        ctx = document({"user": b"7", "far": b'{"item":3,"weight":2}', name: value})
        check(decoder, clicks, document({**usual, "ctx": ctx}), -1)


def document(fields: dict[str, bytes]) -> bytes:
    return b"{" + b", ".join(f'"{n}":'.encode() + value for n, value in fields.items()) + b"}"


def check(decoder: Decoder, clicks: ClickSettings, value: bytes, timestamp: int) -> None:
    decoded = decoder([b"key"], [value], [timestamp]).clicks
    rows = [row for row in read_slowly(clicks, value, timestamp) if row is not None]
    assert list(decoded.users) == [row.user for row in rows], value
    assert list(decoded.items) == [row.item for row in rows], value
    times = [row.time if timestamp < 0 else min(row.time, timestamp) for row in rows]
    assert decoded.times.tolist() == times, value
    weights = np.array([row.weight for row in rows], np.float32)
    assert decoded.weights.tolist() == weights.tolist(), value
    hashes = hashes_of(as_event_ids([row.event_id for row in rows]))
    assert str(decoded.event_ids) == str(hashes), value


def read_slowly(clicks: ClickSettings, value: bytes, timestamp: int) -> list[Row | None]:
    """The good clicks of a record by the standard library and a reader of one field at a time."""
    fields = ClickSettings().fields | clicks.fields
    reader = Reader(fields, clicks.time_unit, EVENTS, clicks.max_weight)
    rows = []
    try:
        for part in json_parts(value):
            if not part.problem:
                with contextlib.suppress(Invalid):
                    rows.append(reader.click(part.document, 0, b"key", timestamp))
    except ValueError:
        pass
    return rows


blanks = st.sampled_from([*[b""] * 9, b" ", b"\t", b" \r", b"\n"])
members = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))


@st.composite
def spelled(draw: st.DrawFn) -> bytes:
    """A document of the usual fields in any order, at most two of them odd or twice; blanks."""
    fields = [*USUAL.items(), *draw(st.lists(members, max_size=2))]
    fields = draw(st.permutations(fields))[: draw(st.integers(3, len(fields)))]
    parts = [
        b"".join([draw(blanks), json.dumps(n).encode(), draw(blanks), b":", draw(blanks), v])
        for n, v in fields
    ]
    return b"{" + (draw(blanks) + b",").join(parts) + draw(blanks) + b"}"


ends = st.sampled_from([b"\n", b"\n", b"\n\n", b" ", b"", b"\r\n", b"\n \n", b",", b"\n\x0b\n"])
records = st.lists(st.tuples(spelled(), ends), min_size=1, max_size=3).map(
    lambda lines: b"".join(part for line in lines for part in line)
)


@pytest.mark.parametrize("clicks", MAPPINGS)
@settings(derandomize=True, max_examples=80, deadline=None)
@given(value=spelled() | records, timestamp=st.just(-1) | st.integers(0, 10))
def test_a_record_of_many_spellings(clicks: ClickSettings, value: bytes, timestamp: int) -> None:
    check(Decoder(clicks, EVENTS), clicks, value, timestamp)
