"""Quiet hours: the part of each day, in UTC, in which a major update may begin.

By event time, which nobody moves where nobody clicks: it may step over all of a night. Then the
first clicks after it begin what was to begin in it.
"""

import re
from typing import NamedTuple

from core.settings import DAY_MS

_TIME = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(f"{_TIME}-{_TIME}")
_HOUR, _MINUTE = 3_600_000, 60_000


class Quiet(NamedTuple):
    """From `begin` until `end`, both in ms of the day; past midnight where the end comes first."""

    begin: int
    end: int

    def holds(self, time: int) -> bool:
        """Whether a time, ms since the epoch, is in it."""
        at = time % DAY_MS
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end

    def lies_between(self, before: int, now: int) -> bool:
        """Whether all of it, of some day, is between two times, ms since the epoch."""
        begin = before + (self.begin - before) % DAY_MS
        return begin + (self.end - self.begin) % DAY_MS <= now


ALWAYS = Quiet(0, DAY_MS)


def parsed(window: str) -> Quiet:
    """What `major.window` says: "02:00-05:00", or nothing for the whole day. ValueError for
    anything else."""
    if not window:
        return ALWAYS
    found = _WINDOW.fullmatch(window)
    if found is None:
        raise ValueError(f"is {window!r}, and must be two times of the day (UTC): 02:00-05:00")
    hour, minute, hour_after, minute_after = map(int, found.groups())
    quiet = Quiet(hour * _HOUR + minute * _MINUTE, hour_after * _HOUR + minute_after * _MINUTE)
    if quiet.begin == quiet.end:
        raise ValueError(f"is {window!r}, in which no time is: leave it empty for any time")
    return quiet
