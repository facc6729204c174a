"""A bound on how far a click may run ahead of the clicks around it in the log.

The clock of an engine is the greatest time that it has met: weights are relative to it, and items
leave by it. A single record dated years ahead, its timestamp included, would end them all. So what
is further ahead than `clicks.max_ahead` of what its neighbours say is a dead letter. This is a
function of the records of one partition in their order, so that a log that is folded again has the
same dead letters, wherever its batches end: but for the first records of a new model.

What the neighbours say comes from the times of the last WINDOW records, of each its newest, and the
refused ones too. From their median upward, times count as reached until one lies more than the
bound ahead of the one below it: what is behind such a step are outliers, as long as they are fewer
than half. Once they are more, the log has truly moved on, and is followed. What a whole window's
median has reached stays reached, so that clicks that come late change nothing. And the bound is
wider by SPREAD times the distance from the lower quartile to the median, for logs that have a click
every ten days; clicks dated ahead do not touch that.

The first records of a partition have no neighbours before them. Where the model has learned before,
the window begins with the time that it has reached. Of a new model the first WINDOW records of the
log are asked until so many came, as far as they are in the batch.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER

WINDOW = 33
"""Records whose times are remembered: after a true jump, so many dead letters less half are made
before it is followed."""
SPREAD = 4
_MIDDLE, _QUARTILE = (WINDOW - 1) // 2, (WINDOW - 1) // 4
_DAY_MS = 86_400_000


class Window(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a partition."""

    times: bytes = b""
    """Of the last WINDOW records, or of all so far: int64, ms, the newest last."""
    reached: int = NEVER
    """The greatest median of a block of WINDOW records, ms."""
    block: int = 0
    """Records since the last block ended."""

    @classmethod
    def at(cls, time: int) -> "Window":
        """As if a whole window of records had this time: of a log of which no more is known."""
        return cls(np.full(WINDOW, time, "<i8").tobytes(), time)


class Bound(NamedTuple):
    """How far ahead the clicks of a record may be."""

    latest: int
    """Time of a click, ms."""
    reached: int
    """What the log has reached, ms."""
    setting: int
    """`clicks.max_ahead`, ms."""

    def refusal(self, time: int) -> str:
        days = (time - self.reached) / _DAY_MS
        return (
            f"its time, {_iso(time)}, is {days:,.1f} days ahead of {_iso(self.reached)}, which the "
            f"clicks around it in the log have reached; clicks.max_ahead is "
            f"{self.setting / _DAY_MS:g} days"
        )


def _iso(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Guard:
    """Remembers the partitions of a log. `most` is `clicks.max_ahead` in ms; 0 refuses nothing."""

    most: int
    windows: dict[int, Window] = field(default_factory=dict)
    """By partition. What is in it never changes, so a copy of the dict is one of the state."""

    def refused(
        self, times: NDArray[np.int64], records: NDArray[np.intp], partitions: NDArray[np.int64]
    ) -> dict[int, Bound]:
        """Take clicks in: their times int64 [n], the numbers of their records [n], ascending, and
        of each record its partition. Returns the records with clicks past the bound."""
        if not self.most or not len(times):
            return {}
        begins = np.flatnonzero(np.diff(records, prepend=-1))
        newest = np.maximum.reduceat(times, begins)
        number = records[begins]
        where = partitions[number]
        if where[0] == where[-1] and (where == where[0]).all():
            return self._partition(int(where[0]), newest, number)
        out: dict[int, Bound] = {}
        for partition in np.unique(where).tolist():
            at = np.flatnonzero(where == partition)
            out |= self._partition(partition, newest[at], number[at])
        return out

    def _partition(
        self, partition: int, times: NDArray[np.int64], records: NDArray[np.intp]
    ) -> dict[int, Bound]:
        window = self.windows.get(partition, Window())
        known = np.concatenate([np.frombuffer(window.times, "<i8"), times])
        before = len(known) - len(times)
        # What the log had reached before each record: blocks end every WINDOW records.
        ends = np.arange(WINDOW - window.block, len(times) + 1, WINDOW)
        blocks = known[(before + ends - WINDOW)[:, None] + np.arange(WINDOW)]
        medians = np.partition(blocks, _MIDDLE, axis=1)[:, _MIDDLE]
        reached = np.maximum.accumulate(np.concatenate([[window.reached], medians]))
        self.windows[partition] = Window(
            known[-WINDOW:].astype("<i8").tobytes(),
            int(reached[-1]),
            (window.block + len(times)) % WINDOW,
        )
        if times.max() <= window.reached + self.most:
            return {}
        out: dict[int, Bound] = {}
        so_far = reached[np.searchsorted(ends, np.arange(len(times)), side="right")]
        for i in np.flatnonzero(times > so_far + self.most).tolist():
            end = before + i
            seen = known[end - WINDOW : end] if end >= WINDOW else known[:WINDOW]
            bound = self._bound(np.sort(seen), int(so_far[i]))
            if times[i] > bound.latest:
                out[int(records[i])] = bound
        return out

    def _bound(self, seen: NDArray[np.int64], reached: int) -> Bound:
        """The bound after these times, ascending, in a log that had reached so far."""
        middle, quartile = (len(seen) - 1) // 2, (len(seen) - 1) // 4
        most = self.most + SPREAD * int(seen[middle] - seen[quartile])
        steps = np.flatnonzero(np.diff(seen[middle:]) > most)
        near = int(seen[middle + steps[0]] if len(steps) else seen[-1])
        reached = max(reached, near)
        return Bound(reached + most, reached, self.most)
