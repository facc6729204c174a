"""What goes into a round and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.placing.placement import Placement
from core.quality import Quality


@dataclass(frozen=True)
class Inputs:
    """What a round takes in."""

    clicks: Clicks
    attributes: Sequence[tuple[str, Sequence[str] | None]] = ()
    """Items with their attribute tokens, or None for an item that was retired."""
    closes_commit: bool = True
    """Whether the rows changed since the last commit leave with this round."""
    may_close: bool = True
    """Whether a major update that is due may close a commit of its own; if not, it waits."""


@dataclass(frozen=True)
class Gone:
    """An item that left: nobody clicked it for the horizon, or it was retired."""

    key: bytes
    partition: int
    version: int
    was_published: bool


@dataclass(frozen=True)
class Changes:
    """All that changed since the last commit, ready to be written."""

    keys: list[bytes]
    partitions: NDArray[np.int32]
    rows: NDArray[np.void]
    """Packed rows (`core.rows`), one for each key."""
    published: NDArray[np.int64]
    """Which of the rows have a vector to publish: indices into `keys`."""
    vectors: NDArray[np.float32]
    """[len(published), dim] unit rows of the items' hidden vectors V."""
    contexts: NDArray[np.float32]
    """[len(published), dim] unit rows of the context vectors U."""
    drift: NDArray[np.float32]
    """Of each item published again, shape (at most len(published),): the cosine distance from its
    last published vectors, of V or of U, whichever moved further."""
    gone: list[Gone]
    versions: dict[int, int]
    """The new version of each item partition that changed."""
    placement: Placement | None
    """Centroids and centre, if they changed."""
    time: int
    """Greatest event time so far, ms."""
    cluster_moves: int
    bucket_moves: int


@dataclass(frozen=True)
class Outputs:
    """What a round gives: `changes` if it closes a commit."""

    round_number: int
    events: int
    """Clicks that count."""
    duplicates: int
    """Clicks left out because the user's event id came before."""
    too_long: int
    """Clicks left out because their session has more than `session.max_events`."""
    quality: Quality
    changes: Changes | None
