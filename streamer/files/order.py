"""Whether the clicks of a file come in the order of their times, as the engine takes them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from core.settings import Duration
from streamer.decode.fields import USUAL_SECONDS
from streamer.settings.load import spelled
from streamer.wording import counted

TOLD_SHARE = 0.001
"""Late clicks of less than this share are told by nobody."""

_FIRST_MS = USUAL_SECONDS[0] * 1000


class Order:
    """Counts clicks that come late: dated more than `gap` before one that came before them.

    The time of the graph does not go back: a late click weighs as little as its age says, and a
    session that goes back is cut. A file that is sorted by user has almost only such clicks. With
    `counts_years`, clicks of before 1990 are counted as well.
    """

    def __init__(self, gap: Duration, counts_years: bool = True) -> None:
        self._gap, self._counts_years = gap, counts_years
        self._newest = np.iinfo(np.int64).min + int(gap)
        self.clicks = self.late = self.old = 0

    def add(self, times: NDArray[np.int64]) -> None:
        """Times in ms of the next clicks, shape (n,)."""
        if not len(times):
            return
        newest = np.maximum.accumulate(np.concatenate(([self._newest], times)))
        self.clicks += len(times)
        self.late += int((times < newest[:-1] - int(self._gap)).sum())
        self._newest = newest[-1]
        if self._counts_years:
            self.old += int((times < _FIRST_MS).sum())

    @property
    def is_out_of_order(self) -> bool:
        return self.late > 0 and self.late >= TOLD_SHARE * self.clicks

    def lines(self) -> Iterator[str]:
        """What is to be told."""
        if self.is_out_of_order:
            yield (
                f"{self.late / self.clicks:.1%} of the clicks come late: {self.late:,} of "
                f"{self.clicks:,} are dated more than session.gap ({spelled(self._gap)}) before "
                "clicks that came before them, as in a file that is sorted by user or has the "
                "newest first. Sessions break there, and such clicks weigh next to nothing. --sort "
                "takes all clicks in the order of their times"
            )
        if self.old:
            yield (
                f"dated before 1990: {self.old:,} of {counted(self.clicks, 'click')}. If ts is a "
                "running number, give --time order; if not, look at the column and at --time"
            )


def day(ms: int) -> str:
    """A time as people write it."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
