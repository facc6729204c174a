"""Copies of the newest evidence in a state folder, from which visits follow (`core.retracing`).

A key is the number of the evidence and of the record in it; a value is how many clicks the record
has, and the record as it stands in `transitions`.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from core.rounds import Evidence
from streamer.state import evidence
from streamer.state.store import Entry, Store

PREFIX = b"visits/"
FAMILY = "sessions"


class Traces:
    """Those of one folder, which have `room` clicks between them and few more."""

    def __init__(self, store: Store, room: int) -> None:
        self.store, self.room = store, room
        self._kept: deque[tuple[bytes, int]] = deque()
        for key, value in store.scan(FAMILY, PREFIX):
            self._kept.append((key, int.from_bytes(value[:4], "big")))
        self._clicks = sum(clicks for _, clicks in self._kept)

    def _number(self, commit: int) -> int:
        """That of the next record of this commit."""
        if not self._kept or self.last != commit:
            return 0
        return int.from_bytes(self._kept[-1][0][-4:], "big") + 1

    @property
    def last(self) -> int:
        """The newest commit that they have, 0 for none."""
        return _commit(self._kept[-1][0]) if self._kept else 0

    def entries(self, packed: Iterable[tuple[int, bytes]]) -> list[Entry]:
        """What the folder gets with these records of `transitions`, each with its number, and what
        it loses."""
        out: list[Entry] = []
        for commit, record in packed:
            clicks = evidence.heading(record).clicks
            key = PREFIX + commit.to_bytes(8, "big") + self._number(commit).to_bytes(4, "big")
            out.append((key, clicks.to_bytes(4, "big") + record))
            self._kept.append((key, clicks))
            self._clicks += clicks
        while self._kept and self._clicks - self._kept[0][1] >= self.room:
            key, clicks = self._kept.popleft()
            self._clicks -= clicks
            out.append((key, None))
        return out


def rounds(store: Store) -> Iterator[Evidence]:
    """What happened with the newest clicks, the oldest first."""
    for _, value in store.scan(FAMILY, PREFIX):
        yield from evidence.unpack(value[4:]).rounds


def _commit(key: bytes) -> int:
    return int.from_bytes(key[len(PREFIX) : len(PREFIX) + 8], "big")
