"""The transitions of a round's clicks, before they are folded: from where in a session to what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.graph.sessions import Sessions
from core.ids.vocabulary import Vocabulary
from core.settings import SessionSettings

LOOKED_BACK = 64
"""Clicks of a session, those of one round, that are looked through for its last items."""


@dataclass(frozen=True)
class Transitions(Sequence["tuple[list[str], str, int]"]):
    """By number: the items of the session so far, the newest first, the one that came next, and the
    time, ms."""

    items: list[str]
    """Of all clicks, the last ones of the open sessions first."""
    sessions: Sessions
    vocabulary: Vocabulary
    rows: NDArray[np.int64]
    """Rows of the open sessions, in the order of their last clicks."""
    order: NDArray[np.int64]
    """The clicks by user that sessions go on from, in their order."""
    begin: NDArray[np.int64]
    """By place in the order: the place at which its session begins."""
    time: NDArray[np.int64]
    """By click, ms."""
    last: NDArray[np.int64]
    """By number: the place in the order from which the transition goes."""
    ends: NDArray[np.int64]
    """By number: the click to which it goes."""

    @property
    def session(self) -> NDArray[np.int64]:
        """By number: the place in the order at which the session of each begins."""
        return self.begin[self.last]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> tuple[list[str], str, int]:  # type: ignore[override]
        end = int(self.last[number]) + 1
        begin, goal = int(self.begin[end - 1]), int(self.ends[number])
        clicks = self.order[max(begin, end - LOOKED_BACK) : end][::-1].tolist()
        history = [self.items[click] for click in clicks]
        if self.order[begin] < len(self.rows):
            row = self.rows[self.order[begin]]
            had = self.sessions.items[row, 1 : self.sessions.size[row]]
            history += self.vocabulary.names(had)
        return history, self.items[goal], int(self.time[goal])


def transitions(
    clicks: Clicks, sessions: Sessions, vocabulary: Vocabulary, settings: SessionSettings,
    admitted: NDArray[np.bool_] | None = None,
) -> Transitions:  # fmt: skip
    """The transitions of these clicks, from one item to another.

    `admitted` says of each click whether its id is, before any of them; None: all are.

    A click that continues a session goes on from the click that its user made before it, among
    these clicks or in the session as it stands. Clicks that the fold will leave out make none:
    those past `max_events`, and repeats of an event id that the session holds or the click before
    has. Those that will be held back are not known yet: none goes on from an id that is not
    admitted, as the graph learns of none, but from the click before it; one to it is a miss, as who
    went there could not have been told so.
    """
    users = list(clicks.users)
    numbers = {user: n for n, user in enumerate(dict.fromkeys(users))}
    rows = np.fromiter((sessions.users.get(u, -1) for u in numbers), np.int64, len(numbers))
    known = np.flatnonzero(rows >= 0)
    known = known[sessions.size[rows[known]] > 0]
    row, n = rows[known], len(clicks)
    # The last clicks of the sessions stand before those of the round.
    numbered = np.fromiter(map(numbers.__getitem__, users), np.int64, n)
    user = np.concatenate([known, numbered])
    time = np.concatenate([sessions.time[row], clicks.times])
    count = np.concatenate([sessions.clicks[row], np.ones(n, np.int64)])
    items = [*vocabulary.names(sessions.items[row, 0]), *clicks.items]
    order = np.argsort(user, kind="stable")
    if clicks.event_ids is not None and settings.event_ids > 0:
        held = np.zeros((len(numbers), settings.event_ids), np.uint64)
        held[known] = sessions.event_ids[row]
        event_id = np.concatenate([np.zeros(len(known), np.uint64), clicks.event_ids])[order]
        who = user[order]
        repeat = (event_id[:, None] == held[who]).any(axis=1)
        repeat[1:] |= (event_id[1:] == event_id[:-1]) & (who[1:] == who[:-1])
        order = order[~repeat | (event_id == 0)]
    counts_on = np.ones(len(order), np.bool_)
    if admitted is not None:
        counts_on = np.concatenate([np.ones(len(known), np.bool_), admitted])[order]
    by_user, order = order, order[counts_on]
    goes_on = _go_on(order[:-1], order[1:], user, time, settings)
    starts = np.arange(len(order))
    starts[1:][goes_on] = 0
    begin: NDArray[np.int64] = np.maximum.accumulate(starts)
    # Of each click by user, the last one before it that sessions go on from.
    last = np.cumsum(counts_on, dtype=np.int64) - counts_on - 1
    ends, last = by_user[last >= 0], last[last >= 0]
    clicked = np.concatenate([[0], np.cumsum(count[order])])
    so_far = clicked[last + 1] - clicked[begin[last]]
    goes_on = _go_on(order[last], ends, user, time, settings) & (so_far < settings.max_events)
    ends, last = ends[goes_on], last[goes_on]
    pairs = zip(order[last].tolist(), ends.tolist(), strict=True)
    differs = np.array([items[one] != items[other] for one, other in pairs], np.bool_)
    return Transitions(
        items, sessions, vocabulary, row, order, begin, time, last[differs], ends[differs]
    )


def _go_on(
    before: NDArray[np.int64], clicks: NDArray[np.int64], user: NDArray[np.int64],
    time: NDArray[np.int64], settings: SessionSettings,
) -> NDArray[np.bool_]:  # fmt: skip
    """Whether clicks are of the sessions of those before."""
    return (user[before] == user[clicks]) & (
        np.abs(time[clicks] - time[before]) <= int(settings.gap)
    )
