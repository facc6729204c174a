"""What goes into a round and what comes out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.challenger import Promotion
from core.clicks import Clicks
from core.placing.placement import Placement
from core.quality import Quality
from core.rows import to_values

ROOM = 20_000
"""Records of a commit at most, where nobody says otherwise."""


ANY_TIME = 2**62
"""In place of a time: whenever it was clicked last."""


@dataclass(frozen=True)
class Inputs:
    """What a round takes in."""

    clicks: Clicks
    attributes: Sequence[tuple[str, Sequence[str] | None]] = ()
    """Items with their attribute tokens, or None for an item that was retired. Where the log tells
    what leaves, only those are retired by this that nobody clicked."""
    forgotten: Sequence[str] = ()
    """Users whose sessions end before the clicks."""
    closes_commit: bool = True
    """Whether rows leave with this round."""
    room: int = ROOM
    """Records that a commit may have. Of a closing round: how many are left for rows, their
    vectors and tombstones."""
    budget: int = ROOM
    """Vectors that may be published with this round."""
    now: int | None = None
    """What `publish.min_interval` goes by, ms; by default the engine's clock."""
    is_told: bool = False
    """Whether the clicks come from the log of evidence. Then all that is decided of sessions, graph
    and counts follows from the log, and is the same for whoever is at this place of it: what leaves
    is `gone`, and nothing else."""
    gone: Mapping[str, int] = field(default_factory=dict)
    """As in `Evidence`, where the log says so."""
    ranks: bool = True
    """Whether the clicks are ranked: one worker does for each."""


class Gone(NamedTuple):
    """An item that left: nobody clicked it for the horizon, or it was retired."""

    key: bytes
    partition: int
    version: int
    """That of its tombstones."""
    was_published: bool
    had_row: bool = True
    """Whether a model row of it was ever written."""


@dataclass(frozen=True)
class Evidence:
    """What a round did to sessions, graph and counts, so that it can be done again bit for bit.

    In this order: sessions ended, items left, clicks were folded. Who reads it decides nothing
    again but what `session.*` says of clicks since the sweep from which it reads on.
    """

    round_number: int
    gone: Mapping[str, int]
    """The items that left before the clicks: they were retired, or expired. Each with a time, ms:
    it stays if it was clicked since then."""
    forgotten: Sequence[str]
    """The users whose sessions were ended before the clicks."""
    clicks: Clicks
    """All that changed something: those that count, the ones past `session.max_events`, those that
    were held back, and impressions."""
    births: Mapping[str, int]
    """The items that got a slot with these clicks, and the rank of each in the round."""
    held: NDArray[np.bool_] | None = None
    """Of the clicks: those of ids that were not admitted, or None if there is none. Who folds them
    finds it out again; who has no table goes by this."""

    def __bool__(self) -> bool:
        return bool(len(self.clicks) or self.gone or self.forgotten)


@dataclass(frozen=True)
class Changes:
    """All that leaves with a commit, ready to be written. Nothing in it changes any more."""

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
    lengths: NDArray[np.float32]
    """[len(published), 2]: how long the two were before."""
    drift: NDArray[np.float32]
    """Of each item published again, shape (at most len(published),): the cosine distance from its
    last published vectors, of V or of U, whichever moved further."""
    gone: list[Gone]
    versions: dict[int, int]
    """The new version of each item partition that changed."""
    placed_by: Placement
    """Centroids, or rules, by which the published were placed."""
    placement: Placement | None
    """The same, if it changed and is to be written."""
    oldest_epoch: int
    """The oldest one that vectors may name from here on, where residuals are published and the
    placement is written; 0 elsewhere, and where that is not known."""
    time: int
    """Greatest event time so far, ms."""
    cluster_moves: int
    bucket_moves: int
    waiting: int = 0
    """Rows that moved far enough to leave, and wait."""
    stale: int = 0
    """Rows that must be written again, and wait."""
    furthest: float = 0.0
    """How far the one that moved furthest of `waiting` did, in multiples of the drift."""
    promotion: Promotion | None = None
    """Where the challenger took over before the rows were chosen."""

    @cached_property
    def values(self) -> list[bytes]:
        """The packed rows as they are written, to the topic and to the state folder."""
        return to_values(self.rows)


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
    held: int
    """Clicks held back because their ids are not admitted."""
    admitted: int
    """Ids that were admitted."""
    quality: Quality
    evidence: Evidence
    changes: Changes | None = None
