"""Ids to slots. A slot is the row of an item, or of an attribute, in every array of the engine."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.ids.numbers import Numbers

ATTRIBUTE = b"\xffattr/"
"""Keys that start with 0xFF are no UTF-8, so no item id can be one of them."""

ID_BYTES = 200
"""Bytes of memory of an id of some ten characters: its text, its number, and its entries in a dict,
in a list, and in the table of `Numbers`."""

_ATTRIBUTE_TEXT = ATTRIBUTE.decode("utf-8", "surrogateescape")


def encode(key: str) -> bytes:
    """A key of the vocabulary as bytes: the id in UTF-8, or a reserved key."""
    return key.encode("utf-8", "surrogateescape")


def decode(key: bytes) -> str:
    """The inverse of `encode`."""
    return key.decode("utf-8", "surrogateescape")


def attribute_key(token: str) -> str:
    """The key of an attribute's row; `token` is text such as `category=garden`."""
    return _ATTRIBUTE_TEXT + token


def token_of(key: str) -> str:
    """The inverse of `attribute_key`."""
    return key.removeprefix(_ATTRIBUTE_TEXT)


def is_attribute(key: str) -> bool:
    return key.startswith(_ATTRIBUTE_TEXT)


class Vocabulary:
    """Ids in the order in which they got their slots; a slot that lost its id stays empty."""

    def __init__(self) -> None:
        self._slots = Numbers()
        self.keys = self._slots.names

    def __len__(self) -> int:
        """Slots handed out, empty ones included."""
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    @property
    def known(self) -> int:
        return len(self._slots)

    def get(self, key: str) -> int | None:
        return self._slots.get(key)

    def names(self, slots: NDArray[np.integer]) -> list[str]:
        """The ids of slots, "" for an empty one."""
        keys = self.keys
        return [keys[slot] or "" for slot in slots.tolist()]

    def intern(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """The slot of each key, int32 [len(keys)]; a key not seen before gets the next free one."""
        return self._slots.of(keys)

    def forget(self, slots: Iterable[int]) -> None:
        """Empty these slots; their ids get new ones if they come back."""
        self._slots.forget(list(slots))

    def cut(self, n: int) -> None:
        """Take back the slots from n on; their ids get new ones if they come back."""
        self._slots.cut(n)

    def reorder(self, order: NDArray[np.int64]) -> None:
        """Make slot `order[i]` slot i; slots not in `order` are dropped."""
        self._slots.replace([self.keys[slot] for slot in order])
