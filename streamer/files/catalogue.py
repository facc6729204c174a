"""A file of items with their attributes, as `replay` and `evaluate` take it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from streamer.decode.fields import Invalid
from streamer.decode.items import Attributes, attribute_tokens, decode_item
from streamer.errors import WalkstreamError
from streamer.files.readers import Source, read_items


def described(
    catalogue: Path, nulls: Sequence[str], use: Sequence[str]
) -> Iterator[tuple[str, Attributes, list[str]]]:
    """Each item with its attributes, and the tokens of those in `use`, which the model learns from.

    WalkstreamError for a bad record.
    """
    for record in read_items(Source([catalogue], nulls=tuple(nulls))):
        try:
            item = decode_item(record.key, record.value, use)
        except Invalid as error:
            raise WalkstreamError(f"{record.where}: {error.reason}: {error}") from None
        attributes = item.attributes or {}
        yield item.id, attributes, attribute_tokens(attributes, use)
