"""What records of `items` say."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from confluent_kafka import Message

from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Bad, Invalid, attribute_tokens, decode_item
from streamer.kafka.clients import Partition, partition_of
from streamer.state.store import Store


class News(NamedTuple):
    """What a record of `items` says of one item, or that it says nothing."""

    partition: Partition
    offset: int
    stamp: int
    """Record timestamp, ms."""
    item: str = ""
    value: bytes | None = None
    """JSON of the attributes; None if it is retired."""
    tokens: Sequence[str] | None = None
    letter: DeadLetter | None = None
    """Of a record that could not be used."""


def news_of(message: Message, use: Sequence[str]) -> News:
    offset, partition, at = message.offset() or 0, partition_of(message), stamp(message)
    try:
        item = decode_item(message.key(), message.value(), use)
    except Invalid as error:
        bad = Bad(0, None, message.value(), error.reason, error.message)
        return News(partition, offset, at, letter=DeadLetter.of(message, bad))
    if item.attributes is None:
        return News(partition, offset, at, item.id)
    tokens = attribute_tokens(item.attributes, use)
    value = msgspec.json.encode(item.attributes)
    return News(partition, offset, at, item.id, value, tokens)


def stamp(message: Message) -> int:
    return message.timestamp()[1]


def tokens_of(
    store: Store, item: str, use: Sequence[str], recent: Mapping[bytes, bytes | None]
) -> list[str]:
    """Attribute tokens of an item, as taken in last, of the attributes in `use`.

    `recent` are those that the store does not have yet, as JSON, or None for one that is retired.
    """
    key = item.encode()
    if key in recent:
        value = recent[key]
        return [] if value is None else attribute_tokens(msgspec.json.decode(value), use)
    return attribute_tokens(store.attributes(key), use)
