"""Vectors of users, as one worker publishes them: of those who clicked, with each commit.

Who holds a partition of the clicks writes the records of its users, in the transaction that has
these clicks and their offset. A record has the whole history of its user, so that it follows from
the one before and the clicks since: both count once, or not at all, and nothing has to be kept
beside them. What it costs follows from who clicked, and never from how many users there are.

Nobody who clicked waits: a commit closes when they fill a part of it, records of the log that would
have more of them are put back unread, and rows of items wait instead. (A single record may have
10,000 clicks, each of another user where the log is not keyed by user: `commit.max_records` is
twice that at least.)
Those who are idle, or forgotten, or published once more after a repair or in a new vector space,
follow from the folder, some with each commit, and are found again by a start. In a new space they
wait until all items are known in it, and whoever clicks until then has a record without vectors.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.users import Profiles
from streamer import histories
from streamer.admin import forget
from streamer.histories import Click
from streamer.settings.sections import Config
from streamer.state import users
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.state.users import FAMILY, RECORD, SEEN, Head, Known
from streamer.worker.tail import Tail

SHARE_OF_USERS = 4
"""A commit closes when users who clicked fill this part of it."""
SHARE_OF_OTHERS = 16
"""So much of it is for the tombstones of idle users, and as much for what is looked through."""
LOOKED = 1000
"""Users that are looked at in a commit, where all are looked through, or the idle ones."""
CHUNK = 100
"""Users whose vectors are made at a time: two seconds, where all is as large as it may be."""


class Leaving(NamedTuple):
    """What leaves with a commit."""

    records: dict[bytes, bytes | None]
    """By user; None for one that is deleted."""
    looked: bytes | None
    """Where all are looked through with this commit: for whom."""


class Users:
    """The users of the clicks partitions that one worker holds."""

    def __init__(
        self, config: Config, store: Store, engine: Engine, tail: Tail,
        held: Callable[[], Collection[tuple[str, int]]], count: int,
        space: Space, beat: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`held` tells the partitions of the clicks that this worker has, of `count`."""
        self.space = space
        self.config, self.store, self.engine, self.tail = config, store, engine, tail
        self.held, self.count, self.beat = held, count, beat
        most = config.commit.max_records
        self._share, self._others = most // SHARE_OF_USERS, most // SHARE_OF_OTHERS
        self._clicked: dict[str, list[Click]] = {}
        """What came since the last commit."""
        self._is_full = False
        """Whether records were put back that have more users than there is room for."""
        self._last: dict[bytes, bytes | None] = {}
        """What left with the last commit, until the folder has it."""
        looked = users.looked(store)
        digest = users.digest(tail.forgotten, space.since)
        is_same = looked is not None and looked.digest == digest
        self._forgotten = tail.forgotten if is_same else frozenset[bytes]()
        """The list by which users were looked through."""
        self._since = space.since if is_same else 0
        """Of the vector space in which they were."""
        self._looked_of = set(looked.partitions) if looked is not None and is_same else set()
        """The partitions whose users that were."""
        self._at: bytes | None = None
        """The key from which they are looked through on, if they are."""
        self._again = False
        """Whether that is to publish them once more."""
        self._idle_from, self._idle_of = 0, set[tuple[str, int]]()
        """Before event time has come so far, ms, nobody of these partitions is idle."""
        self._more_are_idle = False

    # -- what comes ------------------------------------------------------------------------------

    def add(self, clicks: Clicks) -> None:
        """Keep what came: good clicks, of users who are not forgotten. Impressions say nothing."""
        clicks = clicks.without_impressions
        n = len(clicks)
        event_ids = [0] * n if clicks.event_ids is None else clicks.event_ids.tolist()
        assert clicks.partitions is not None, "clicks of the log have their places"
        columns = zip(
            clicks.users, clicks.items, clicks.times.tolist(), clicks.weights.tolist(), event_ids,
            clicks.partitions.tolist(), strict=True,
        )  # fmt: skip
        for user, *click in columns:
            self._clicked.setdefault(user, []).append(Click(*click))

    def fitting(self, clicks: Clicks, records: NDArray[np.int64], n: int) -> int:
        """How many of n records have no more users than a commit has room for, beside those who
        clicked; where nobody has, one at least. `records` int64 [clicks], ascending, are the
        numbers of the clicks' records."""
        room = self._share - len(self._clicked)
        if len(clicks) <= room:
            return n
        are_clicks = np.flatnonzero(clicks.weights >= 0)
        clicks, records = clicks.at(are_clicks), records[are_clicks]
        new = set[str]()
        for user, record in zip(clicks.users, records.tolist(), strict=True):
            if user not in self._clicked:
                new.add(user)
            if len(new) > room:
                self._is_full = True
                return int(record) if record or self._clicked else 1
        return n

    def publish_all(self) -> None:
        """Publish all of the folder once more, as there is room."""
        self._at, self._again = RECORD, True

    @property
    def is_full(self) -> bool:
        """Whether a commit is to close for those who clicked."""
        return self._is_full or len(self._clicked) >= self._share

    @property
    def most(self) -> int:
        """Records that a commit keeps free for users."""
        return len(self._clicked) + 2 * self._others

    @property
    def publishes_all(self) -> bool:
        """Whether some have not left that are published once more."""
        return self._again

    @property
    def is_looking(self) -> bool:
        """Whether all users are looked through."""
        return self._at is not None or self._is_outdated

    @property
    def _is_outdated(self) -> bool:
        """Whether some may be forgotten, or of another vector space, who were not looked at by this
        list, and in this space: where it is another, or these partitions were somebody else's."""
        since = self._known_since
        if not self.tail.forgotten and not since:
            return False
        is_another = self._forgotten is not self.tail.forgotten or self._since != since
        return is_another or not self._looked_of.issuperset(self.held())

    @property
    def _known_since(self) -> int:
        """Of the newest vector space that all items are known in: what is made of the others would
        have vectors of fewer."""
        if self._since != self.space.since:
            engine = self.engine
            if engine.ownership.is_of_another_space(engine.items).any():
                return self._since
        return self.space.since

    @property
    def has_work(self) -> bool:
        """Whether commits are to be made without clicks."""
        return self.is_looking or self._more_are_idle

    # -- what leaves -----------------------------------------------------------------------------

    def leave(self, now: int, is_applied: bool) -> Leaving:
        """The records of a commit. `now` is event time, ms, and the engine is as it was after the
        commit's last round. `is_applied` tells whether the folder has all of the commit before."""
        if is_applied:  # others may have written to these users since
            self._last = {}
        clicked, self._clicked, self._is_full = self._clicked, {}, False
        for user in self._forgotten_of(clicked):
            del clicked[user]
        new = [self._followed(user, clicks) for user, clicks in clicked.items()]
        out: dict[bytes, bytes | None] = {}
        for first in range(0, len(new), CHUNK):
            self.beat()
            some = new[first : first + CHUNK]
            packed = self._packed(some)
            out |= {one.user_id.encode(): value for one, value in zip(some, packed, strict=True)}
        was_looking = self.is_looking
        for one in new:
            self._idle_from = min(self._idle_from, one.ts + int(self.config.user_vectors.idle))
        for more in (self._looked_through(), self._idle(now)):
            out |= {user: value for user, value in more.items() if user not in out}
        self._last = out
        if was_looking and not self.is_looking:
            digest = users.digest(self._forgotten, self._since)
            return Leaving(out, users.looked_of(digest, self._looked_of))
        return Leaving(out, None)

    def _stored(self, user: bytes) -> bytes | None:
        return self._last[user] if user in self._last else self.store.entry(FAMILY, RECORD + user)

    def _followed(self, user: str, clicks: list[Click]) -> Known:
        """What is known of a user after these clicks."""
        value = self._stored(user.encode())
        old = Known(user, 0, 0, []) if value is None else users.known(value)
        config = self.config
        return histories.after(old, clicks, config.user_vectors, config.session.event_ids)

    def _packed(self, new: list[Known]) -> list[bytes]:
        """Their records, with vectors from the items as the engine has them now; without, and in
        the space before, while not all items are known in the new one."""
        space = replace(self.space, since=self._known_since)
        items: list[str | None] = []
        if space.since == self.space.since:
            profiles, items = histories.profiles(new, self.engine, self.config.user_vectors)
        else:
            profiles = Profiles.none(len(new), space.dim)
        return users.packed(new, profiles, items, space.name, self.config.publish.format)

    # -- who did not click -----------------------------------------------------------------------

    def _is_mine(self, one: Head) -> bool:
        """Those of a partition that is no more are with those of the first."""
        partition = one.partition if one.partition < self.count else 0
        return (self.config.topics.clicks, partition) in self.held()

    def _idle(self, now: int) -> dict[bytes, bytes | None]:
        """Tombstones of users who are idle, those who are so for longest first."""
        out: dict[bytes, bytes | None] = {}
        if now < self._idle_from and self._idle_of == {*self.held()}:
            return out
        idle, held = int(self.config.user_vectors.idle), {*self.held()}
        self._idle_of, self._more_are_idle = held, False
        # Whoever comes late moves this back.
        self._idle_from, looked = now + idle, 0
        for key, _ in self.store.scan(FAMILY, SEEN):
            ts, user = users.seen_of(key)
            self._idle_from = ts + idle
            if ts + idle > now or looked == LOOKED:
                break
            if user in self._last:  # it may stand here as it was before
                continue
            looked += 1
            value = self._stored(user)
            if value is not None and self._is_mine(users.head(value)):
                self._more_are_idle = len(out) == self._others
                if self._more_are_idle:
                    break
                out[user] = None
        return out

    def _looked_through(self) -> dict[bytes, bytes | None]:
        """Of some users, those who are forgotten since, as tombstones, and of the others those who
        are of another vector space, or where they are published once more all."""
        out: dict[bytes, bytes | None] = {}
        looked: list[bytes] = []
        if self._is_outdated:
            self._looked_of, self._at = {*self.held()}, RECORD
            # The folder may not have these yet.
            has = partial(self.store.entry, FAMILY)
            looked += [user for user in self._last if has(RECORD + user) is None]
        self._forgotten, self._since = self.tail.forgotten, self._known_since
        self._looked_of.intersection_update(self.held())
        if self._at is None:
            return out
        most = min(LOOKED, self._others)
        found = [key for key, _ in islice(self.store.scan(FAMILY, RECORD, self._at), most)]
        self._at = found[-1] + b"\0" if len(found) == most else None
        again = [key.removeprefix(RECORD) for key in found]
        mine = {
            user: value
            for user in [*looked, *again]
            if (value := self._stored(user)) is not None and self._is_mine(users.head(value))
        }
        if self._again:
            # What left with the last commit need not leave with this one as well.
            out |= {user: mine[user] for user in again if user in mine and user not in self._last}
            self._again = self._at is not None
        if self._since == self.space.since > 0:
            out |= self._moved(mine)
        gone = self._forgotten_of(user.decode() for user in mine)
        return out | {user.encode(): None for user in gone}

    def _moved(self, mine: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """The records, made anew, of those of these users that are of another space."""
        name = self.space.name
        old = [user for user, value in mine.items() if users.read(value).space != name]
        new = [users.known(mine[user]) for user in old]
        out: dict[bytes, bytes] = {}
        for first in range(0, len(old), CHUNK):
            self.beat()
            packed = self._packed(new[first : first + CHUNK])
            out |= zip(old[first : first + CHUNK], packed, strict=True)
        return out

    def _forgotten_of(self, names: Iterable[str]) -> list[str]:
        """Those of these users who are on the list."""
        listed = self.tail.forgotten
        return forget.among(self.config.app.name, names, listed) if listed else []
