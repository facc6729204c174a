"""Records of the topic `items`, and lines of a catalogue, into items with attributes.

Catalogues come out of many systems. An attribute is text, a number, a boolean, a list or an object
of those; what is in an object goes by the names on the way to it, with dots between: `size.height`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamer.decode.fields import Invalid, Reason, id_of, key_id
from streamer.decode.formats import MAX_ID_BYTES, UNREADABLE, cut, short, why
from streamer.settings.sections import ItemSettings

Attributes = dict[str, str | list[str]]

DEEPEST = 8
"""Objects and lists inside each other at most: names get longer with each."""


@dataclass(frozen=True)
class Item:
    """An item's attributes; None when the item is retired (a tombstone)."""

    id: str
    attributes: Attributes | None


def decode_item(
    key: bytes | None, value: bytes | None, use: Iterable[str] = ItemSettings().use
) -> Item:
    """The item of a record of the topic `items`. Raises `Invalid`.

    Its attributes are what the object `attributes` holds, and all that stands beside `item_id`.
    Null is no attribute. Attributes of any length are kept, but not those that the model learns
    from: `use`.
    """
    item_key = None if key is None else key_id(key)
    if value is None:
        if item_key is None:
            raise Invalid(Reason.BAD_FIELD, "a tombstone without a key retires nothing")
        return Item(item_key, None)
    try:
        record = json.loads(value.decode())
    except UNREADABLE as error:
        raise Invalid(Reason.UNDECODABLE, f"is not JSON in UTF-8: {why(error)}") from None
    if not isinstance(record, dict):
        raise Invalid(Reason.UNDECODABLE, f"must be a JSON object, not {short(record)}")
    item_id = id_of(record, "item_id", "item_id")
    if item_key is not None and item_key != item_id:
        message = f"the key is {short(item_key)} but item_id is {short(item_id)}; they must agree"
        raise Invalid(Reason.BAD_ID, message)
    attributes = _attributes(record)
    for token in _tokens(attributes, use):
        if (size := len(token.encode())) > MAX_ID_BYTES:
            message = f"attribute {short(token)} has {size} bytes and may have {MAX_ID_BYTES}"
            raise Invalid(Reason.BAD_FIELD, f"{message}, its name included (it is in items.use)")
    return Item(item_id, attributes)


def attribute_tokens(attributes: Attributes, use: Iterable[str]) -> list[str]:
    """Each value of each used attribute once, as "name=value", in the order of `use`.

    Those that are too long to be a key, as only an attribute that was not in `use` before can be,
    are left out.
    """
    tokens = dict.fromkeys(_tokens(attributes, use))
    return [token for token in tokens if len(token.encode()) <= MAX_ID_BYTES]


def _tokens(attributes: Attributes, use: Iterable[str]) -> Iterator[str]:
    for name in use:
        entry = attributes.get(name, [])
        for value in [entry] if isinstance(entry, str) else entry:
            yield f"{name}={value}"


def _attributes(record: Mapping[str, Any]) -> Attributes:
    own = record.get("attributes")
    if own is not None and not isinstance(own, dict):
        raise Invalid(Reason.BAD_FIELD, f"attributes must be an object, not {short(own)}")
    beside = {n: v for n, v in record.items() if n not in ("item_id", "attributes")}
    found: dict[str, list[str]] = {}
    lists: set[str] = set()
    for name, entry in (*(own or {}).items(), *beside.items()):
        for full_name, texts, is_list in _flat(name, entry, DEEPEST):
            there = found.setdefault(full_name, texts)
            if is_list:
                lists.add(full_name)
            if there is not texts and there != texts:
                # Two ways to one name, such as a list of objects: all values are kept.
                there += texts
                lists.add(full_name)
    return {name: texts if name in lists else texts[0] for name, texts in found.items()}


def _flat(name: str, entry: object, levels: int) -> Iterator[tuple[str, list[str], bool]]:
    """Names and values of an attribute, which may have so many levels; whether it is a list."""
    if isinstance(entry, dict | list) and not levels:
        message = f"attributes.{cut(name, 80)} nests deeper than {DEEPEST} objects and lists"
        raise Invalid(Reason.BAD_FIELD, message)
    if isinstance(entry, dict):
        for inner, value in entry.items():
            yield from _flat(f"{name}.{inner}", value, levels - 1)
    elif isinstance(entry, list):
        scalars = [value for value in entry if not isinstance(value, dict | list)]
        texts = [text for value in scalars if (text := _text(name, value)) is not None]
        if texts or len(scalars) == len(entry):
            yield name, texts, True
        for value in entry:
            if isinstance(value, dict | list):
                for full_name, inside, _ in _flat(name, value, levels - 1):
                    yield full_name, inside, True
    elif (text := _text(name, entry)) is not None:
        yield name, [text], False


def _text(name: str, value: object) -> str | None:
    """What a value is as text, None for one that says nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    try:
        f"{name}{text}".encode()
    except UnicodeEncodeError:
        message = f"attributes.{short(name)} {short(text)} is not encodable as UTF-8"
        raise Invalid(Reason.BAD_FIELD, message) from None
    return text
