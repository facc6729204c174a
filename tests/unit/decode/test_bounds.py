"""Nothing that a record or a schema holds ends or stalls a process.

What took minutes, or ended the interpreter, takes a moment here; a test of this file that does not
end has failed.
"""

import json
from typing import Any, Literal

import msgspec
import pytest

from streamer.decode import avro, json_schema
from streamer.decode.events import Decoder, Reason
from streamer.settings.sections import ClickSettings, EventSettings

DEFINITIONS = {"d40": {"type": "string"}} | {
    f"d{n}": {"allOf": [{"$ref": f"#/definitions/d{n + 1}"}] * 2} for n in range(40)
}


def varint(n: int) -> bytes:
    out, n = b"", n << 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def record(**fields: Any) -> str:
    return json.dumps(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": name, "type": type_} for name, type_ in fields.items()],
        }
    )


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def doubled(levels: int) -> Any:
    """Records of two records each, without a byte."""
    inner: Any = "null"
    for n in range(levels):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"L{n - 1}" if n else "null"}]
        inner = {"type": "record", "name": f"L{n}", "fields": fields}
    return inner


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
MANY = varint(50_000_000) + b"\0"


@pytest.mark.parametrize(
    ("schema", "data", "message"),
    [
        (record(v="int", n=["null", "R"]), b"\2\2" * 300_000, "nests deeper than 64 values"),
        (record(n=array("R")), b"\2" * 300_000, "nests deeper than 64 values"),
        (record(a=array("null")), MANY, "declares more than 8 values for each"),
        (record(a=array(array("null"))), varint(9) + MANY * 9, "declares more than 8"),
        (record(a=array({"type": "fixed", "name": "F", "size": 0})), MANY, "declares more than 8"),
        (record(a=array(doubled(10))), MANY, "declares more than 8"),
        (record(a={"type": "map", "values": doubled(10)}), varint(9) + b"\0" * 9, "declares"),
        (record(d=DECIMAL), varint(1_000_000) + b"\x7f" * 1_000_000, "a decimal of 1000000 bytes"),
        (record(v="int", n=["null", "R"]), b"\2\2\2", "ends in the middle"),
        (record(v="int", n=["null", "R"]), b"\2\5", "branch"),
        (record(v="int", n=["null", "R"]), b"\xff" * 20, "more than 64 bits"),
    ],
)
def test_an_avro_record_is_read_in_bounds_or_refused(
    schema: str, data: bytes, message: str
) -> None:
    read = avro.reader(schema, [])
    with pytest.raises(ValueError, match=message):
        read(data)


def test_schemas_that_need_a_walk_are_read_all_the_same() -> None:
    tree = avro.reader(record(v="int", n=["null", "R"]), [])
    assert tree(b"\2\2\4\0") == {"v": 1, "n": {"v": 2, "n": None}}
    assert avro.reader(record(a=array("null")), [])(varint(3) + b"\0") == {"a": [None] * 3}
    blocks = b"\3\4" + b"\2a\0" + b"\2b\2" + b"\0"  # a block of -2: its size in bytes comes first
    entry = {"type": "record", "name": "E", "fields": [
        {"name": "s", "type": "string"}, {"name": "r", "type": ["null", "R"]}]}  # fmt: skip
    with pytest.raises(ValueError, match="ends in the middle"):
        avro.reader(record(a=array(entry)), [])(blocks[:-2])
    good = b"\3\6" + b"\2a\0" + b"\2b\0" + b"\0"
    assert avro.reader(record(a=array(entry)), [])(good) == {
        "a": [{"s": "a", "r": None}, {"s": "b", "r": None}]
    }


@pytest.mark.parametrize(
    "schema", [json.dumps(doubled(40)), "[" * 100_000 + "]" * 100_000, json.dumps(doubled(3))[:-1]]
)
def test_an_avro_schema_out_of_bounds_is_none(schema: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        avro.reader(schema, [])
    deep: Any = "int"
    for n in range(70):
        deep = {"type": "record", "name": f"D{n}", "fields": [{"name": "a", "type": deep}]}
    with pytest.raises(ValueError, match=r"nests deeper|inside each other"):
        avro.reader(json.dumps(deep), [])


def check(schema: object, document: object) -> None:
    json_schema.Checker(json.dumps(schema), {})(document, len(json.dumps(document)))


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 40 + "!"}),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 40: 1}),
        ({"propertyNames": {"pattern": "^(a+)+$"}}, {"a" * 40 + "!": 1}),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)]),
    ],
)
def test_what_may_take_for_ever_is_not_checked(schema: object, document: object) -> None:
    check(schema, document)


@pytest.mark.parametrize(
    ("schema", "document", "message"),
    [
        ({"definitions": DEFINITIONS, "$ref": "#/definitions/d0"}, "a", "too many steps"),
        ({"anyOf": [{"type": "string"}] * 2000}, [["x" * 100] * 2000], "too many steps"),
        ({"properties": {"pattern": {"type": "integer"}}}, {"pattern": "x"}, "not of type"),
        ({"additionalProperties": False}, {"a": 1}, "were? unexpected|was unexpected"),
        ({"items": {"required": ["a"]}}, [{"a": 1}, {}], "'a' is a required property"),
    ],
)
def test_what_is_checked_is_checked_in_so_many_steps(
    schema: object, document: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(schema, document)


def test_a_large_document_has_steps_enough() -> None:
    names = {name: {"type": ["string", "null"], "maxLength": 9} for name in "abcdefgh"}
    line = {"type": "object", "properties": names, "required": ["a"], "additionalProperties": False}
    schema = {"type": "object", "properties": {"lines": {"type": "array", "items": line}}}
    check(schema, {"lines": [dict.fromkeys("abcdefgh", "v")] * 3000})


def test_a_schema_leads_to_no_other_address() -> None:
    with pytest.raises(Exception, match="Unresolvable"):
        check({"$ref": "http://127.0.0.1:9/x.json"}, 1)
    checker = json_schema.Checker('{"$ref":"other.json"}', {"other.json": '{"type":"string"}'})
    checker("a", 3)


CLICK = b'{"user_id":"u","item_id":"i","ts":%s,"other":%s}'
PACKED = msgspec.msgpack.encode({"user_id": "u", "item_id": "i", "ts": 5})


def packed(other: bytes) -> bytes:
    return b"\x84" + PACKED[1:] + b"\xa5other" + other


@pytest.mark.parametrize(
    ("format", "value", "reason"),
    [
        ("json", CLICK % (b"1e400", b"1"), Reason.BAD_FIELD),
        ("json", CLICK % (b"9" * 100_000, b"1"), Reason.BAD_FIELD),
        ("json", CLICK % (b"5", b"9" * 900_000), None),
        ("json", CLICK % (b"5", b"[" + b",".join([b"9" * 4300] * 200) + b"]"), None),
        ("json", CLICK % (b"5", b"0." + b"9" * 900_000), None),
        ("json", CLICK % (b"5", b"[" * 400_000 + b"]" * 400_000), Reason.UNDECODABLE),
        ("json", b'{"a":' * 190_000, Reason.UNDECODABLE),
        ("json", b"[\n" * 400_000, Reason.OVERSIZED),
        ("msgpack", b"\xdd\xff\xff\xff\xff", Reason.UNDECODABLE),
        ("msgpack", b"\x91" * 900_000, Reason.UNDECODABLE),
        ("msgpack", packed(b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 1000), Reason.UNDECODABLE),
        ("msgpack", packed(b"\xdf\x7f\xff\xff\xff"), Reason.UNDECODABLE),
        ("msgpack", packed(b"\x91" * 800_000), Reason.UNDECODABLE),
        ("msgpack", packed(b"\x91" * 800_000 + b"\xc0"), Reason.UNDECODABLE),
        ("msgpack", packed(b"\x91" * 500 + b"\xc0"), None),
        ("msgpack", b"\xdd\x07\xff\xff\xff" * 60, Reason.UNDECODABLE),
    ],
)
def test_a_record_is_read_or_refused_at_once(
    format: Literal["json", "msgpack"], value: bytes, reason: Reason | None
) -> None:
    """Deep, of huge declared lengths, or of huge numbers."""
    decoded = Decoder(ClickSettings(format=format), EventSettings())([None], [value], [-1])
    assert [bad.reason for bad in decoded.bad] == ([reason] if reason else [])
