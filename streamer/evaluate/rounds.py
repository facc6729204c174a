"""The clicks of a log, in the rounds and commits in which `walkstream replay` takes them."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.clicks import Clicks
from streamer.files.log import ClickLog
from streamer.files.readers import Source
from streamer.files.replay import ROUNDS_PER_COMMIT
from streamer.settings.sections import Config


@dataclass(frozen=True)
class Round:
    """What the engine takes in one step."""

    clicks: Clicks
    closes_commit: bool


class Log:
    """One pass over the clicks of a source. Errors are those of `streamer.files.readers`."""

    def __init__(self, config: Config, source: Source) -> None:
        self._config = config
        self.log = ClickLog(config, source)
        self.reader = self.log.reader
        self.records = 0
        """Taken so far."""
        self.left_out = 0
        """Those that were no good click, and those of types that weigh 0."""

    def __iter__(self) -> Iterator[Round | None]:
        """None for a while in which the clicks are sorted."""
        size = self._config.round.max_events
        per_commit = self._config.commit.rounds or ROUNDS_PER_COMMIT
        number = 0
        for records, is_last in self.log.chunks(size):
            if not records and not is_last:
                yield None
                continue
            number += 1
            decoded, _ = self.log.decoded(records)
            self.records += len(records)
            self.left_out += len(decoded.bad) + decoded.unwanted
            closes = is_last or number % per_commit == 0
            parts = decoded.clicks.parts(size)
            for at, clicks in enumerate(parts, 1):
                last = at == len(parts)
                yield Round(clicks, closes and last)
