"""What a state folder keeps of the records of `model-state`."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from core.rows import version_of
from streamer.state import packing, records, users
from streamer.state.commits import Mark
from streamer.state.store import POINTER, Store
from streamer.worker.sequence import Commits


class Read(NamedTuple):
    """What came from `model-state`, and the folder did not have."""

    keys: list[bytes]
    rows: NDArray[np.void] | None
    gone: list[bytes]
    meta: Mapping[bytes, bytes | None]


def cut_in(message: Message, value: bytes | None, mark: Mark | None) -> int | None:
    """As of which commit a row of the graph, or its deletion, is; None if no worker wrote that."""
    if mark is None:
        return None
    try:
        if value is None:
            return version_in(message) or mark.number
        return packing.unpack_node(value).cut
    except (msgspec.MsgspecError, ValueError):
        return None


def is_newer(store: Store, item: bytes, cut: int) -> bool:
    """Whether the folder lacks a row of the graph, or its deletion, as of this commit: of another
    worker, or of a time before a start. It takes that in then.

    It may have a newer state, of its own sweeps. By what partition a record comes from says nothing
    of what came from the others.
    """
    stored = store.entry("graph", item)
    if stored is None:  # what is older than a sweep of the folder, and is not there, has left
        swept = store.meta(POINTER)
        return swept is None or msgspec.msgpack.decode(swept, type=records.Swept).commit <= cut
    return packing.cut_of(stored).cut < cut


def is_of_user(
    apps: Collection[str], commits: Commits, mark: Mark | None, value: bytes | None
) -> bool:
    """Whether the folder takes in what `user-vectors` has: a record, or a deletion, of a commit of
    this app's that it lacks. `apps` are the names that it has and had. What is none is told by who
    reads commits back."""
    if mark is None or commits.has_applied(mark) or commits.is_doubtful(mark):
        return False
    return mark.app in apps and (value is None or users.is_record(value))


def version_in(message: Message) -> int:
    """The version of a row or of its deletion."""
    value = message.value()
    if value is None:
        return int(dict(message.headers() or []).get(records.VERSION_HEADER) or 0)
    return version_of(value)
