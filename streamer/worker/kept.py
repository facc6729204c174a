"""What a state folder keeps of the records of `model-state`."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.rows import version_of
from streamer.state import packing, records, users
from streamer.state.commits import Mark, mark_of
from streamer.state.store import POINTER, Store
from streamer.worker.sequence import Commits


class Read(NamedTuple):
    """What came from `model-state`, and the folder did not have."""

    keys: list[bytes]
    rows: NDArray[np.void] | None
    gone: list[bytes]
    meta: Mapping[bytes, bytes | None]


def is_newer(store: Store, message: Message, family: str, own: bytes) -> bool:
    """Whether the folder lacks this record of the graph's, of another worker's commit or of one
    before a start, and takes it in.

    It may have a newer state, of its own sweeps. By what partition a record comes from says nothing
    of what came from the others.
    """
    if family == "sessions":
        return True
    mark, value = mark_of(message), message.value()
    assert mark is not None, "workers write the graph with their commits"
    stored = store.entry(family, own)
    deleted = version_in(message) or mark.number
    cut = deleted if value is None else packing.unpack_node(value).cut
    if stored is None:  # what is older than a sweep of the folder, and is not there, has left
        swept = store.meta(POINTER)
        return swept is None or msgspec.msgpack.decode(swept, type=records.Swept).commit <= cut
    return packing.unpack_node(stored).cut < cut


def is_of_user(
    apps: Collection[str], commits: Commits, mark: Mark | None, value: bytes | None
) -> bool:
    """Whether the folder takes in what `user-vectors` has: a record, or a deletion, of a commit of
    this app's that it lacks. `apps` are the names that it has and had. What is none is told by who
    reads commits back."""
    if mark is None or commits.has_applied(mark) or commits.is_doubtful(mark):
        return False
    return mark.app in apps and (value is None or users.is_record(value))


def own_key(key: bytes) -> tuple[str, bytes]:
    """The family in which a folder has a record of the graph's, and its key there."""
    if key.startswith(records.GRAPH):
        return "graph", key.removeprefix(records.GRAPH)
    return "sessions", records.SWEPT + key


def version_in(message: Message) -> int:
    """The version of a row or of its deletion."""
    value = message.value()
    if value is None:
        return int(dict(message.headers() or []).get(records.VERSION_HEADER) or 0)
    return version_of(value)
