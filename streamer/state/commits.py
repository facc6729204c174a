"""Of which commit a record is, and what a commit consists of."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import msgspec
from confluent_kafka import Message

from streamer.state import records
from streamer.state.store import Store

LONGEST_MARK = 1000
"""Bytes that a mark may have: names of apps and workers are far shorter."""


class Mark(NamedTuple):
    """The commit that a record is part of."""

    app: str
    number: int
    """Greater than that of every commit that its worker knew of."""
    instance: str
    """The worker of the app; empty in records of older versions, where an app had only one."""

    @property
    def packed(self) -> bytes:
        """What the header `commit` says."""
        return f"{self.app}/{self.number}@{self.instance}".encode()


class Part(msgspec.Struct, array_like=True):
    """What a commit put into one partition. Its records lie at `begin` or behind, in this order."""

    begin: int
    records: int = 0
    checksum: int = 0
    """CRC-32 of keys and values of the records."""
    tombstones: int = 0
    tombstones_checksum: int = 0
    """CRC-32 of their keys. Apart, as retention takes tombstones and nothing else."""

    @property
    def size(self) -> int:
        return self.records + self.tombstones

    def add(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            self.tombstones += 1
            self.tombstones_checksum = crc32(key or b"", self.tombstones_checksum)
        else:
            self.records += 1
            self.checksum = crc32(value, crc32(key or b"", self.checksum))


class Parts(msgspec.Struct, array_like=True):
    """What a commit put into one topic."""

    id: str
    """Of the topic, as in `Layout`."""
    partitions: list[Part]


class Manifest(msgspec.Struct, frozen=True):
    """What one commit consists of, itself apart: the last record of its transaction."""

    commit: int
    app: str
    instance: str
    """Together they are the transactional id that wrote it."""
    topics: dict[str, Parts]
    """By name: all partitions of all topics that commits write to."""
    before: int | None = None
    """The commit of this worker before this one; older versions wrote consecutive numbers."""

    @property
    def mark(self) -> Mark:
        return Mark(self.app, self.commit, self.instance)


def mark_of(message: Message) -> Mark | None:
    """The commit that a record is part of; None if it is part of none."""
    for name, value in reversed(message.headers() or ()):
        if name == records.COMMIT_HEADER:
            may_be = isinstance(value, bytes) and len(value) <= LONGEST_MARK
            return _mark(value) if may_be else None
    return None


@lru_cache(256)  # thousands of records are of one commit
def _mark(value: bytes) -> Mark | None:
    app, _, rest = value.decode(errors="replace").rpartition("/")
    number, _, instance = rest.partition("@")
    # Anybody may write dead letters, and such a header.
    is_number = number.isascii() and number.isdecimal() and len(number) <= 18
    return Mark(app, int(number), instance) if is_number else None


def no_commits(message: Message) -> str:
    """What to tell of a record of `transitions` or `item-vectors` that no worker wrote."""
    if message.key() is not None:
        return (
            f"{message.topic()}[{message.partition()}]: the record at offset {message.offset()} is "
            "of no commit: some other program writes to this topic, and its readers take that for "
            "vectors of this model. Find and stop it, then start once with `walkstream worker "
            "--repair`, which publishes all vectors again"
        )
    return (
        f"{message.topic()}[{message.partition()}]: the record at offset {message.offset()} is of "
        "no commit, and is passed over, as are others of its kind: some other program writes to "
        "this topic. Find and stop it"
    )


def newest_manifest(entries: Iterable[tuple[bytes, bytes]]) -> Manifest | None:
    """That of the newest commit, among these reserved keys and their values."""
    decode = msgspec.msgpack.Decoder(Manifest).decode
    found = [decode(value) for key, value in entries if records.is_manifest(key)]
    return max(found, key=lambda one: one.commit, default=None)


def newest_of(store: Store) -> Manifest | None:
    """That of the newest commit which a folder knows."""
    return newest_manifest(store.scan("meta", records.MANIFEST))


def is_of_another(manifest: Manifest | None, app: str) -> bool:
    """Whether another app made the last commit, whose manifest this is, and handed the model over.

    What the group of `app` has committed is of a time before that one had the model.
    """
    return manifest is not None and manifest.app != app
