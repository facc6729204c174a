"""Sweeps: graph, sessions and ids that are counted (`core.graph.admission`) are written a little
with each commit, so that restarts are short.

There are two, which differ in where they write and how fast: one keeps the state folder young, the
other `model-state`, from which a lost folder is made anew. Each row says as of which commit it is
folded (`core.graph.written`). A sweep that is over says where it began: evidence is folded again
from there on, into each row from where it stands.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from core.engine import Engine
from core.graph.graph import NEVER
from core.graph.sweep import Sweep
from core.graph.written import Snapshot, nodes
from streamer.state import packing, records
from streamer.state.records import Swept

SESSIONS = 500
"""Sessions of a record at most."""
COUNTED = 5000
"""Ids that are counted of a record at most, of up to 84 bytes each."""
PART_BYTES = 500_000
"""Bytes of such a record at most: brokers and clients refuse one of 1 MB."""


@dataclass
class Written:
    """What a sweep writes with one commit."""

    graph: dict[bytes, bytes] = field(default_factory=dict)
    """Rows of the graph by item."""
    sessions: dict[bytes, bytes | None] = field(default_factory=dict)
    """By their keys in `model-state`; None for parts of an earlier sweep, which had more."""
    swept: bytes | None = None
    """Where the sweep began, if it is over."""

    @property
    def records(self) -> int:
        return len(self.graph) + len(self.sessions) + (self.swept is not None)

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(len(value or b"") for value in (*self.graph.values(), *self.sessions.values()))


class Sweeping:
    """One sweep after the other. `bit` says what it writes to (`core.graph.slabs`)."""

    def __init__(
        self, engine: Engine, bit: int, last: Swept | None, stored: Mapping[int, int]
    ) -> None:
        """`stored` says of each turn how many records of sessions are there, of whatever sweep."""
        self.engine, self.bit = engine, bit
        self.last = last
        """Where the last one that is over began."""
        self._stored = {0: 0, 1: 0} | dict(stored)
        self.ended = time.monotonic()
        self.began = time.monotonic()
        self._sweep: Sweep | None = None
        self._begun: Swept | None = None
        self._snapshot: Snapshot | None = None
        self._taken = self._part = self._counted = 0
        """Sessions that were written, the records of them and of counted ids, and these ids."""
        self._ids: int | None = None
        """How many ids are counted in the snapshot; None where all are admitted."""

    @property
    def is_under_way(self) -> bool:
        return self._sweep is not None

    def lags(self, commit: int) -> bool:
        """Whether evidence of this commit, or of an earlier one, is in no sweep that is over."""
        return self.engine.clock.time != NEVER and (
            self.is_under_way or self.last is None or self.last.commit < commit
        )

    def lacks(self, commit: int) -> bool:
        """Whether a restart that has only what this writes would fold evidence of this commit, or
        of an earlier one, or would not know how often ids were counted."""
        return self.lags(commit) or self._lacks_counts

    @property
    def _lacks_counts(self) -> bool:
        """Whether the last one was written before ids were counted."""
        is_on = self.engine.catalogue.admission.is_on
        return self.last is not None and self.last.counted is None and is_on

    def begin(self, commit: int, offset: int, evidence: int | None = None) -> None:
        """Begin after this commit, of the engine as it is now; `offset` is that of the evidence of
        later ones, or before it. Nothing happens if one is under way, or nothing did since:
        `evidence` is the newest commit that has some.
        """
        clock = self.engine.clock
        if self.is_under_way or clock.time == NEVER:
            return
        last, round_number = self.last, self.engine.round_number
        is_still = last is not None and (
            last.round == round_number if evidence is None else last.commit >= evidence
        )
        has_all = len(self.engine.graph.unwritten(self.bit)) == 0
        if is_still and not self._lacks_counts and has_all:
            return
        self._snapshot = Snapshot(self.engine.catalogue)
        counted = self._snapshot.counted
        self._ids = None if counted is None else len(counted.ids)
        scale = self.engine.scale
        self._begun = Swept(
            commit, offset, clock.time, clock.landmark, scale.half_life, clock.partitions.tolist(),
            self.engine.round_number, 0 if self.last is None else 1 - self.last.turn, 0,
        )  # fmt: skip
        self._sweep = Sweep(self.bit)
        self._taken = self._part = self._counted = 0
        self.began = time.monotonic()
        self.engine.sweeps.append(self._sweep)

    def take(self, commit: int, rows: int, size: int) -> Written:
        """What to write with this commit, whose rounds are folded and nothing after them: at most
        so many records, and about so many bytes at most."""
        out = Written()
        sweep, begun, snapshot = self._sweep, self._begun, self._snapshot
        if sweep is None or begun is None or snapshot is None:
            return out
        while self._taken < len(snapshot) and rows > 0 and size > 0:
            value = self._next_sessions(snapshot, begun.commit)
            out.sessions[records.sessions_key(begun.turn, self._part)] = value
            self._part, rows, size = self._part + 1, rows - 1, size - len(value)
        ids = self._ids or 0
        while (counted := snapshot.counted) and self._counted < ids and rows > 0 and size > 0:
            some = counted.at(slice(self._counted, self._counted + COUNTED))
            value = packing.pack_counted(begun.commit, some)
            out.sessions[records.sessions_key(begun.turn, self._part)] = value
            self._counted += COUNTED
            self._part, rows, size = self._part + 1, rows - 1, size - len(value)
        if self._counted >= ids:
            snapshot.counted = None  # They are as large as the table, and the graph takes longer.
        self._stored[begun.turn] = max(self._stored[begun.turn], self._part)
        catalogue = self.engine.catalogue
        while rows > 0 and size > 0:
            slots = sweep.take(self.engine.graph, min(rows, 100))
            if len(slots) == 0:
                break
            found = nodes(catalogue, slots, commit, self.engine.scale, self.bit)
            out.graph |= {key: packing.pack_node(node) for key, node in found}
            rows -= len(slots)
            size -= sum(len(out.graph[key]) for key, _ in found)
        is_written = self._taken >= len(snapshot) and self._counted >= ids
        if not is_written or not sweep.is_over(self.engine.graph):
            return out
        # Of an earlier sweep of this turn, which had more, or of one that a stop cut short.
        while self._stored[begun.turn] > self._part and rows > 0:
            self._stored[begun.turn] -= 1
            out.sessions[records.sessions_key(begun.turn, self._stored[begun.turn])] = None
            rows -= 1
        if self._stored[begun.turn] == self._part:
            last = None if self._ids is None else -(-ids // COUNTED)
            self.last = msgspec.structs.replace(begun, parts=self._part, counted=last)
            out.swept = msgspec.msgpack.encode(self.last)
            self.engine.sweeps.remove(sweep)
            self.ended = time.monotonic()
            self._sweep = self._begun = self._snapshot = None
        return out

    def end(self) -> None:
        """Leave off: another worker goes on from the last one that is over."""
        if self._sweep is not None:
            self.engine.sweeps.remove(self._sweep)
        self._sweep = self._begun = self._snapshot = None

    def _next_sessions(self, snapshot: Snapshot, commit: int) -> bytes:
        """A record of the next sessions, fewer where their ids are long."""
        n = SESSIONS
        while True:
            value = packing.pack_sessions(commit, snapshot.part(self._taken, self._taken + n))
            if len(value) <= PART_BYTES or n == 1:
                self._taken += n
                return value
            n //= 2


def as_entries(written: Written, pointer: bytes) -> Mapping[str, list[tuple[bytes, bytes | None]]]:
    """What a state folder gets of it; `pointer` is the key of where the sweep began."""
    meta = [] if written.swept is None else [(pointer, written.swept)]
    return {
        "graph": list(written.graph.items()),
        "sessions": [(pointer + key, value) for key, value in written.sessions.items()],
        "meta": list[tuple[bytes, bytes | None]](meta),
    }
