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
    """The clicks by user, in their order."""
    begin: NDArray[np.int64]
    """By place in the order but the first: the place before it at which the session begins."""
    time: NDArray[np.int64]
    """By place in the order, ms."""
    ends: NDArray[np.int64]
    """Places in the order to which the transitions go."""

    @property
    def session(self) -> NDArray[np.int64]:
        """By number: the place in the order at which the session of each begins."""
        return self.begin[self.ends - 1]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> tuple[list[str], str, int]:  # type: ignore[override]
        end = int(self.ends[number])
        begin = int(self.begin[end - 1])
        clicks = self.order[max(begin, end - LOOKED_BACK) : end][::-1].tolist()
        history = [self.items[click] for click in clicks]
        if self.order[begin] < len(self.rows):
            row = self.rows[self.order[begin]]
            had = self.sessions.items[row, 1 : self.sessions.size[row]]
            history += self.vocabulary.names(had)
        return history, self.items[self.order[end]], int(self.time[end])


def transitions(
    clicks: Clicks, sessions: Sessions, vocabulary: Vocabulary, settings: SessionSettings
) -> Transitions:
    """The transitions of these clicks, from one item to another.

    A click that continues a session goes on from the click that its user made before it, among
    these clicks or in the session as it stands. Clicks that the fold will leave out make none:
    those past `max_events`, and repeats of an event id that the session holds or the click before
    has. Those that will be held back are not known yet: an id that is not admitted is an item that
    nobody knows, and who goes on to it could not have been told so.
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
    user, time = user[order], time[order]
    goes_on = (user[1:] == user[:-1]) & (np.abs(np.diff(time)) <= int(settings.gap))
    begin = np.maximum.accumulate(np.where(goes_on, 0, np.arange(1, 1 + len(goes_on))))
    before = np.cumsum(count[order]) - count[order]
    goes_on &= before[1:] - before[begin] < settings.max_events
    ends = 1 + np.flatnonzero(goes_on)
    differs = [items[order[end - 1]] != items[order[end]] for end in ends.tolist()]
    return Transitions(items, sessions, vocabulary, row, order, begin, time, ends[differs])
