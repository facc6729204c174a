"""What came before in a log: the sessions, and how often one item came after another.

Items have numbers of their own here, which they keep for good; the engine's slots move.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.graph.fold import BEGINS, DUPLICATE, KEPT, SHOWN, Folded
from core.graph.graph import NEVER
from core.ids.vocabulary import Vocabulary
from core.settings import AdmissionSettings, Duration, Settings, SizeSettings
from streamer.evaluate.tables import Table

SAMPLE = 6
"""Purpose number of this module's random stream."""
WINDOW = 5
"""Steps back in its session over which a click counts for `Past.around`."""


@dataclass(frozen=True)
class Positions:
    """q clicks of a round that each go on from one item of a session to another one."""

    history: NDArray[np.int32]
    """[q, length]: last items of the session, newest first, -1 past the end. The first is asked
    by."""
    target: NDArray[np.int32]
    """[q]: the item clicked."""
    sessions: list[NDArray[np.int32]]
    """All items of each session before that click, in their order."""
    time: NDArray[np.int64]
    """[q]: ms."""
    click: NDArray[np.int64]
    """[q]: the click's number in the log."""

    def at(self, chosen: NDArray[np.bool_]) -> "Positions":
        """Those where `chosen`, bool [q], is true."""
        return Positions(
            self.history[chosen], self.target[chosen],
            [self.sessions[i] for i in np.flatnonzero(chosen)], self.time[chosen],
            self.click[chosen],
        )  # fmt: skip

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """[q]: whether the session had the target already."""
        pairs = zip(self.sessions, self.target, strict=True)
        return np.array([(session == item).any() for session, item in pairs], np.bool_)


class Closed(NamedTuple):
    """A session that is over, or a part of it."""

    items: NDArray[np.int32]
    """In their order, without repeats in a row."""
    time: int
    """Of the session's last click, ms."""


@dataclass
class Session:
    """A session so far."""

    time: int
    """Of its last click, ms."""
    items: list[int]
    """Without repeats in a row."""
    handed_out: int = 0
    """How many of them `Past.closed` has, because the session was still for a gap."""

    def rest(self) -> Closed:
        """What `Past.closed` does not have."""
        return Closed(np.array(self.items[self.handed_out :], np.int32), self.time)


@dataclass
class _Round:
    """What `learn` takes in."""

    history: NDArray[np.int32]
    """[n, WINDOW or more]"""
    target: NDArray[np.int32]
    added: NDArray[np.float32]
    amounts: NDArray[np.float32]
    clicked: NDArray[np.int32]
    """The items of all clicks that count."""
    closed: list[Closed] = field(default_factory=list)


class Past:
    """The clicks of a log, taken round by round: `take` first returns what there is to rank, and
    `learn` then adds the round to the tables. Sessions are those of an engine, which tells where
    each begins and which ones end, so that users whose clicks come late have the same here and
    there."""

    def __init__(self, settings: Settings) -> None:
        # An engine that folds and never learns: its sessions are those of the one that does. Of its
        # graph, which nobody looks at, it keeps little.
        horizon = Duration(settings.graph.horizon_ms)
        graph = replace(settings.graph, max_degree=16, horizon=horizon)
        model = replace(settings.model, dim=16, attribute_slots=0)
        self._length = settings.session.length
        session = replace(settings.session, length=max(self._length, WINDOW), visits=1)
        # It admits all: what is asked is the same whatever the one that learns holds back.
        everything = AdmissionSettings()
        folding = replace(settings, session=session, graph=graph, model=model, size=SizeSettings())
        self._engine = Engine(replace(folding, admission=everything))
        self._gap, self._seed = int(settings.session.gap), settings.model.seed
        self._landmark = self._engine.clock.landmark
        self._rounds = self.clicks = 0
        self._round: _Round | None = None
        self._open: dict[str, Session] = {}
        """By user, the one that was still for longest first."""
        self._still: dict[str, Session] = {}
        """Those that were still for a gap of the log's time. A user whose clicks come late may go
        on with one."""
        self.closed: list[Closed] = []
        """The sessions that are over, in the order of their ends. Of one that went on
        after all, what came later stands apart."""
        self.born: dict[int, int] = {}
        """Time of each item's first click, ms."""
        self.touched: set[int] = set()
        """Items clicked since this was last emptied, which its reader does."""
        self._seen = np.zeros(1024, np.int64)
        self.after = Table()
        """How often item b was the next after item a."""
        self.beside = Table()
        """Decayed weight of the clicks that went from a to b or from b to a."""
        self.around = Table()
        """Decayed weight of the clicks on b with a up to WINDOW steps before, or on a with b, each
        divided by the steps."""
        self.transitions: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        """Histories [n, length] and targets [n] of all rounds."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The numbers of the items."""
        return self._engine.vocabulary

    @property
    def time(self) -> int:
        """Greatest time so far, ms."""
        return self._engine.clock.time

    def sessions(self) -> Iterator[NDArray[np.int32]]:
        """The items of all sessions that `learn` knows of, and of those still open."""
        for session in self.closed:
            yield session.items
        for open_session in self._open.values():
            yield open_session.rest().items

    def seen(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often each was clicked in the rounds before."""
        return np.where(
            items < len(self._seen), self._seen[np.minimum(items, len(self._seen) - 1)], 0
        )

    def take(self, clicks: Clicks, size: int) -> Positions:
        """At most `size` of the clicks that go on from one item to another, drawn by the seed."""
        folded = self._engine.fold(clicks)
        goes_on = np.flatnonzero((folded.fate == KEPT) & (folded.target >= 0))
        rng = np.random.default_rng([self._seed, self._rounds, SAMPLE])
        chosen = np.sort(rng.choice(goes_on, min(size, len(goes_on)), replace=False))
        self._round = _Round(
            folded.history[goes_on], folded.target[goes_on], folded.added[goes_on],
            folded.amounts[goes_on], folded.slots[folded.fate == KEPT],
        )  # fmt: skip
        sessions = self._follow(clicks, folded, set(chosen.tolist()))
        history, number = folded.history[chosen, : self._length], self.clicks + chosen
        at = [session[-1] for session in sessions]
        assert at == history[:, 0].tolist(), "sessions differ from the engine's"
        self._rounds += 1
        self.clicks += len(clicks)
        return Positions(history, folded.target[chosen], sessions, clicks.times[chosen], number)

    def _follow(self, clicks: Clicks, folded: Folded, chosen: set[int]) -> list[NDArray[np.int32]]:
        """Bring sessions up to date; returns what they were just before each `chosen` click."""
        found, closed = [], self._round.closed if self._round else []
        columns = (
            clicks.users, folded.slots.tolist(), clicks.times.tolist(), folded.fate.tolist(),
            folded.target.tolist(),
        )  # fmt: skip
        for k, (user, item, time, what, target) in enumerate(zip(*columns, strict=True)):
            if what in (DUPLICATE, SHOWN):
                continue
            session = self._open.pop(user, None) or self._still.pop(user, None)
            if session is None or target == BEGINS:
                if session is not None:
                    closed.append(session.rest())
                session = Session(time, [])
            if k in chosen:
                found.append(np.array(session.items, np.int32))
            if what == KEPT:
                if not session.items or session.items[-1] != item:
                    session.items.append(item)
                self.born.setdefault(item, time)
                self.touched.add(item)
            session.time = time
            self._open[user] = session
        users = self._engine.sessions.users
        if len(self._open) + len(self._still) > len(users):
            for table in (self._still, self._open):
                over = [user for user in table if user not in users]
                closed += [table.pop(user).rest() for user in over]
        for user, session in list(self._open.items()):
            if session.time >= self.time - self._gap:
                break
            closed.append(session.rest())
            session.handed_out = len(session.items)
            self._still[user] = self._open.pop(user)
        return found

    def learn(self) -> None:
        """Add the round taken last to the tables."""
        if self._round is None:
            return
        new, self._round = self._round, None
        self._rescale()
        if len(self.vocabulary) > len(self._seen):
            more = np.zeros(2 * len(self.vocabulary) - len(self._seen), np.int64)
            self._seen = np.concatenate([self._seen, more])
        np.add.at(self._seen, new.clicked, 1)
        self.transitions.append((new.history[:, : self._length], new.target))
        a, b = new.history[:, 0], new.target
        self.after.add(a, b, np.ones(len(b), np.float32))
        _add_both(self.beside, a, b, new.added)
        back = np.arange(1, WINDOW + 1)
        a, b = new.history[:, :WINDOW], np.broadcast_to(b[:, None], (len(b), WINDOW))
        shares = (new.amounts[:, None] / back).astype(np.float32)
        there = (a >= 0) & (a != b)
        _add_both(self.around, a[there], b[there], shares[there])
        self.closed += [session for session in new.closed if len(session.items)]

    def _rescale(self) -> None:
        """Follow the landmark: decayed weights are relative to it (`core.graph.graph`)."""
        landmark = self._engine.clock.landmark
        if self._landmark not in (NEVER, landmark):
            half_life = int(self._engine.settings.graph.half_life)
            for table in (self.beside, self.around):
                table.shift((landmark - self._landmark) // half_life)
        self._landmark = landmark


def _add_both(
    table: Table, a: NDArray[np.int32], b: NDArray[np.int32], amounts: NDArray[np.float32]
) -> None:
    """Add amounts to b in the rows of a, and to a in those of b."""
    pairs = np.stack([a, b], axis=1)
    table.add(pairs.ravel(), pairs[:, ::-1].ravel(), np.repeat(amounts, 2))
