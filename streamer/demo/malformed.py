"""Clicks that are spoilt on purpose, one way for each thing that goes wrong with producers."""

from collections.abc import Callable
from typing import Any

import msgspec

Click = dict[str, Any]

_encode = msgspec.json.Encoder().encode


def _with(**fields: object) -> Callable[[Click], bytes]:
    return lambda click: _encode(click | fields)


def _with_weight(number: bytes) -> Callable[[Click], bytes]:
    """Numbers that JSON does not have, as many an encoder writes them all the same."""
    return lambda click: _encode(click)[:-1] + b',"weight":' + number + b"}"


MALFORMED: dict[str, Callable[[Click], bytes | None]] = {
    "no value": lambda click: None,
    "an empty value": lambda click: b"",
    "JSON that breaks off": lambda click: _encode(click)[:-9],
    "bytes that are no UTF-8": lambda click: b"\xff\xfe" + _encode(click),
    "text instead of an object": lambda click: _encode(click["item_id"]),
    "no item_id": lambda click: _encode({k: v for k, v in click.items() if k != "item_id"}),
    "no ts": lambda click: _encode({k: v for k, v in click.items() if k != "ts"}),
    "a user_id that is an object": _with(user_id={"id": 7}),
    "an empty user_id": _with(user_id=""),
    "an item_id of 600 bytes": _with(item_id="x" * 600),
    "ts as a date": _with(ts="yesterday"),
    "ts in microseconds": lambda click: _encode(click | {"ts": click["ts"] * 1000}),
    "ts in the year 9999": _with(ts=253_402_300_000_000),
    "a weight that is not a number": _with_weight(b"NaN"),
    "an infinite weight": _with_weight(b"Infinity"),
    "a negative weight": _with(weight=-1.0),
    "an unknown type": _with(event_type="hovered"),
}
"""Ways to spoil a click, by what is wrong then. Each is a dead letter with the default settings."""
