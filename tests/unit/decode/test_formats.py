"""Clicks in each format, and many clicks in one record."""

import json
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest

from streamer.decode.events import Decoded, Decoder, Reason
from streamer.decode.formats import MAX_PARTS
from streamer.settings.sections import ClickSettings, EventSettings

NOW = 1_700_000_000_000
Format = Literal["json", "msgpack"]


def click(user: object = "u", **fields: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": "i", "ts": NOW} | fields


def decode(*values: bytes | None, format: Format = "json") -> Decoded:
    decoder = Decoder(ClickSettings(format=format), EventSettings())
    return decoder([None] * len(values), values, [-1] * len(values))


def lines(*documents: Any) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    "value",
    [
        lines([click("a"), click("b")]),
        lines(click("a"), click("b")),
        lines(click("a"), click("b")) + b"\n",
        b"\r\n\n" + lines(click("a")) + b"\r\n\r\n  \n" + lines(click("b")) + b"\r\n",
        json.dumps([click("a"), click("b")], indent=2).encode(),
        b" \n" + lines([click("a"), click("b")]),
    ],
)
def test_a_record_of_json_may_carry_many_clicks(value: bytes) -> None:
    decoded = decode(lines(click("z")), value, lines(click("c")))
    assert decoded.bad == []
    assert list(decoded.clicks.users) == ["z", "a", "b", "c"]


def test_a_record_of_messagepack_may_carry_many_clicks() -> None:
    values = [pack(click("z")), pack([click("a"), click("b")]), pack(click("c"))]
    decoded = decode(*values, format="msgpack")
    assert decoded.bad == []
    assert list(decoded.clicks.users) == ["z", "a", "b", "c"]


TOO_MANY = MAX_PARTS + 1
GOOD = json.dumps(click(1)).encode()


@pytest.mark.parametrize(
    ("format", "value"),
    [
        ("json", b"[" + b",".join([GOOD] * TOO_MANY) + b"]"),
        ("json", b"\n".join([GOOD] * TOO_MANY)),
        ("json", b"\n".join([GOOD] * MAX_PARTS + [b"{}"])),
        ("json", b"[" + b",".join([b"1"] * TOO_MANY) + b"]"),
        ("json", b"{}\n" * TOO_MANY),
        ("msgpack", pack([click(1)] * TOO_MANY)),
        ("msgpack", pack([click(1)] * MAX_PARTS + [1])),
        ("msgpack", pack([1] * TOO_MANY)),
    ],
)
def test_a_record_of_too_many_clicks_is_one_dead_letter(format: Format, value: bytes) -> None:
    single = GOOD if format == "json" else pack(click(1))
    decoded = decode(single, value, single, format=format)
    assert (list(decoded.clicks.users), decoded.records.tolist()) == (["1", "1"], [0, 2])
    (bad,) = decoded.bad
    assert (bad.record, bad.part, bad.value, bad.reason) == (1, None, value, Reason.OVERSIZED)
    assert f"has {TOO_MANY} " in bad.message
    assert "good or bad" in bad.message


@pytest.mark.parametrize(
    ("format", "value"),
    [
        ("json", b"[" + b",".join([GOOD] * MAX_PARTS) + b"]"),
        ("json", b"\n".join([GOOD] * MAX_PARTS) + b"\n\n"),
        ("msgpack", pack([click(1)] * MAX_PARTS)),
    ],
)
def test_a_record_of_as_many_clicks_as_may_be_is_taken(format: Format, value: bytes) -> None:
    decoded = decode(value, format=format)
    assert (len(decoded.clicks), decoded.bad) == (MAX_PARTS, [])


@pytest.mark.parametrize(
    ("format", "value"),
    [
        ("json", b"[" + b",".join([b"0.25"] * 768) + b"]"),
        ("json", b"[{},{},null]"),
        ("msgpack", pack([0.25] * 768)),
        ("msgpack", pack([{}, {}, None])),
    ],
)
def test_an_array_without_an_object_is_one_dead_letter(format: Format, value: bytes) -> None:
    (bad,) = decode(value, format=format).bad
    assert (bad.part, bad.value, bad.reason) == (None, value, Reason.UNDECODABLE)
    assert "no click in it" in bad.message


@pytest.mark.parametrize("end", [b"", b"\n{}"])
def test_two_clicks_on_a_line_are_one_bad_line(end: bytes) -> None:
    """Whatever else is in the record."""
    a, b = lines(click("a")), lines(click("b"))
    double = a + b" " + a
    decoded = decode(double + b"\n\n" + b + end)
    assert list(decoded.clicks.users) == ["b"]
    first = decoded.bad[0]
    assert (first.part, first.value, first.reason) == (0, double, Reason.UNDECODABLE)
    assert len(decoded.bad) == (2 if end else 1)


@pytest.mark.parametrize("behind", [b"x", b",", b"}", b'"', b"\x00"])
def test_what_stands_behind_a_click_on_its_line_makes_it_bad(behind: bytes) -> None:
    a, b = lines(click("a")), lines(click("b"))
    decoded = decode(a + behind + b"\n" + b, a + behind, b)
    assert list(decoded.clicks.users) == ["b", "b"]
    assert [(bad.part, bad.value) for bad in decoded.bad] == [(0, a + behind), (None, a + behind)]


def test_a_click_over_two_lines_is_none_beside_others() -> None:
    a, b = lines(click("a")), lines(click("b"))
    decoded = decode(a.replace(b", ", b",\n", 1) + b"\n" + b)
    assert list(decoded.clicks.users) == ["b"]
    assert [bad.part for bad in decoded.bad] == [0, 1]


def test_a_click_over_two_lines_does_not_hide_two_on_one() -> None:
    a, b = lines(click("a")), lines(click("b"))
    decoded = decode(a + b" " + a + b"\n" + b.replace(b", ", b",\n", 1))
    assert len(decoded.clicks) == 0
    assert [bad.part for bad in decoded.bad] == [None]


def test_a_click_over_two_lines_does_not_hide_two_on_one_of_another_record() -> None:
    a, b = lines(click("a")), lines(click("b"))
    double, broken = a + a, b.replace(b", ", b",\n", 1)
    for values in ([double, broken], [broken, double], [b"", double], [double, b"\n"]):
        decoded = decode(*values)
        assert list(decoded.clicks.users) == ["b"] * (broken in values)
        assert double in [bad.value for bad in decoded.bad]


def test_lines_of_records_keep_the_numbers_of_their_records() -> None:
    a, b = lines(click("a")), lines(click("b"))
    for end in (b"", b"\n", b"\r\n"):
        decoded = decode(a + b"\r\n" + b + end, b + end, a + b"\n" + a + end)
        assert list(decoded.clicks.users) == ["a", "b", "b", "a", "a"]
        assert decoded.records.tolist() == [0, 0, 1, 2, 2]


def test_each_click_has_the_number_of_its_record() -> None:
    values = [lines(click("a"), click("b")), b"?", GOOD, lines({}, click("c")), lines([click("d")])]
    decoded = decode(*values)
    assert list(decoded.clicks.users) == ["a", "b", "1", "c", "d"]
    assert decoded.records.tolist() == [0, 0, 2, 3, 4]
    assert decode(b"?").records.tolist() == []


def test_a_click_printed_over_many_lines_is_one_click() -> None:
    value = json.dumps(click("a", context={"page": "x"}), indent=2).encode()
    decoded = decode(value)
    assert (list(decoded.clicks.users), decoded.bad) == (["a"], [])


def test_a_bad_click_printed_over_many_lines_is_one_dead_letter() -> None:
    value = json.dumps(click("a", weight=-1, context={"page": "x"}), indent=2).encode()
    (bad,) = decode(value).bad
    assert (bad.part, bad.value, bad.reason) == (None, value, Reason.BAD_WEIGHT)


def test_bad_elements_of_an_array_are_told_singly() -> None:
    spaced = b' [ {"user_id":1 } ,' + lines(click("a")) + b", 7,\n" + lines(click("", s="\u00fc]"))
    value = spaced + b',{"user_id":"b","item_id":"i","ts":1,"weight":NaN}] '
    decoded = decode(value, lines(click("z")))
    assert list(decoded.clicks.users) == ["a", "z"]
    assert [(b.record, b.part, b.value, b.reason) for b in decoded.bad] == [
        (0, 0, b'{"user_id":1 }', Reason.BAD_FIELD),
        (0, 2, b"7", Reason.UNDECODABLE),
        (0, 3, lines(click("", s="\u00fc]")), Reason.BAD_ID),
        (0, 4, b'{"user_id":"b","item_id":"i","ts":1,"weight":NaN}', Reason.BAD_WEIGHT),
    ]


def test_bad_lines_are_told_singly() -> None:
    broken, foreign = b'{"user_id":"x', b'{"user_id":"\xff"}'
    value = b"\n".join([broken, lines(click("a")), b"", b"[]", foreign, lines(click("b", ts=-1))])
    decoded = decode(lines(click("z")), value)
    assert list(decoded.clicks.users) == ["z", "a"]
    assert [(b.record, b.part, b.value, b.reason) for b in decoded.bad] == [
        (1, 0, broken, Reason.UNDECODABLE),
        (1, 2, b"[]", Reason.UNDECODABLE),
        (1, 3, foreign, Reason.UNDECODABLE),
        (1, 4, lines(click("b", ts=-1)), Reason.BAD_TIME),
    ]


@pytest.mark.parametrize(
    "identifier",
    [
        *(7, -1, 2**63, 2**64 - 1, -(2**63), "", "é" * 256, "é" * 257, "x" * 513, "a\x00b"),
        *(True, None, 1.0, 1.5, [1], ["a"], {"id": 1}, [[[[[[[[[1]]]]]]]]]),
    ],
)
def test_an_id_of_messagepack_is_judged_as_one_of_json(identifier: object) -> None:
    packed = decode(pack(click(identifier)), format="msgpack")
    written = decode(lines(click(identifier)))
    assert list(packed.clicks.users) == list(written.clicks.users)
    assert [bad[3:] for bad in packed.bad] == [bad[3:] for bad in written.bad]
    assert len(packed.clicks) + len(packed.bad) == 1


@pytest.mark.parametrize(
    ("identifier", "shown"),
    [
        (b"u", "b'u'"),
        (b"x" * 600, "b'xxx"),
        (msgspec.msgpack.Ext(5, b"data"), "(5, b'data')"),
        (datetime(2026, 1, 31, tzinfo=UTC), "datetime.datetime(2026, 1, 31"),
        ([b"u"], "[b'u']"),
    ],
)
@pytest.mark.parametrize("name", ["user_id", "item_id", "event_id"])
def test_what_only_messagepack_can_spell_is_no_id(
    name: str, identifier: object, shown: str
) -> None:
    value = pack(click() | {name: identifier})
    (bad,) = decode(value, format="msgpack").bad
    assert (bad.part, bad.value, bad.reason) == (None, value, Reason.BAD_FIELD)
    assert f"{name} must be a string or an integer, not {shown}" in bad.message


@pytest.mark.parametrize("name", [b"other", 7, -(2**63), (1, "a"), None])
def test_a_field_of_messagepack_that_is_not_used_may_have_any_name(name: object) -> None:
    decoded = decode(pack(click("a") | {name: [b"\xff", 2**64 - 1]}), format="msgpack")
    assert (list(decoded.clicks.users), decoded.bad) == (["a"], [])


def test_a_name_of_bytes_is_not_the_name_of_a_field() -> None:
    value = pack({b"user_id": "u", "item_id": "i", "ts": NOW})
    (bad,) = decode(value, format="msgpack").bad
    assert bad.message == "user_id is missing"


def test_bad_elements_of_messagepack_are_told_singly() -> None:
    bad_text = pack({"user_id": "x"}).replace(b"x", b"\xff")
    value = b"\x94" + bad_text + pack(click("a")) + pack(7) + pack(click("b", weight=float("inf")))
    decoded = decode(value, format="msgpack")
    assert list(decoded.clicks.users) == ["a"]
    assert [(b.record, b.part, b.value, b.reason) for b in decoded.bad] == [
        (0, 0, bad_text, Reason.UNDECODABLE),
        (0, 2, pack(7), Reason.UNDECODABLE),
        (0, 3, pack(click("b", weight=float("inf"))), Reason.BAD_WEIGHT),
    ]


@pytest.mark.parametrize(
    "value",
    [
        lines([click("a"), click("b")])[:-1],
        b"[" + lines(click("a")) + b",\n" + lines(click("b")),
        b'{\n "user_id": "a",\n "context":\n {"a": 1}\n "item_id": "i"\n}',
        b"{\n{\n",
        lines(click("a")) + lines(click("b"))[:-1],
        b"\xff" + lines(click("a")),
    ],
)
def test_a_broken_document_is_one_dead_letter(value: bytes) -> None:
    decoded = decode(value)
    (bad,) = decoded.bad
    assert len(decoded.clicks) == 0
    assert (bad.part, bad.value, bad.reason) == (None, value, Reason.UNDECODABLE)


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        (None, Reason.UNDECODABLE, "no value"),
        (b"", Reason.UNDECODABLE, "not MessagePack"),
        (b"\xc1", Reason.UNDECODABLE, "not MessagePack"),
        (pack(click()) + b"\x00", Reason.UNDECODABLE, "not MessagePack"),
        (pack([click(), click()])[:-1], Reason.UNDECODABLE, "not MessagePack"),
        (b"\xdd\xff\xff\xff\xff", Reason.UNDECODABLE, "not MessagePack"),
        (b"\x81" * 100_000, Reason.UNDECODABLE, "not MessagePack"),
        (b"\x91" * 100_000, Reason.UNDECODABLE, "not MessagePack: it is nested too deeply"),
        (pack([]), Reason.UNDECODABLE, "no click in it"),
        (pack("click"), Reason.UNDECODABLE, "must be an object"),
        (pack({1: 2}), Reason.BAD_FIELD, "user_id is missing"),
        (pack(click(b"u")), Reason.BAD_FIELD, "user_id must be"),
        (pack(click(ts=float("nan"))), Reason.BAD_FIELD, "ts must be a whole number"),
        (pack(click(weight=float("nan"))), Reason.BAD_WEIGHT, "weight is nan"),
        (
            pack(click(weight=1.7e308, event_type="purchase")),
            Reason.BAD_WEIGHT,
            "clicks.max_weight",
        ),
        (b"\x00\x00\x00\x00\x07\x80", Reason.UNDECODABLE, "looks like Confluent wire format"),
    ],
)
def test_each_bad_record_of_messagepack_says_why(
    value: bytes | None, reason: Reason, message: str
) -> None:
    decoded = decode(value, format="msgpack")
    bad = decoded.bad[0]
    assert len(decoded.clicks) == 0
    assert bad.reason is reason
    assert message in bad.message
