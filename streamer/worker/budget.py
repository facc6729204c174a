"""How many vectors may leave: `publish.budget` a second."""

import time

from streamer.settings.sections import Config


class Budget:
    """What the budget let through, and no commit took yet."""

    def __init__(self, config: Config) -> None:
        self.most = config.commit.max_records
        """Of a commit, where there is no budget. Rounds by count have none: they know no clock."""
        self.per_second = config.publish.budget if config.round.max_seconds else 0
        # A commit that took long has more to give; what nobody used for long is gone.
        self._kept = self.per_second * max(5.0, 2 * config.commit.seconds)
        self._left, self._at = 0.0, time.monotonic()

    def take(self, vectors: int) -> None:
        """So many leave with a commit."""
        self._left -= vectors

    def __int__(self) -> int:
        """Vectors that may leave with the commit which is open."""
        if not self.per_second:
            return self.most
        now = time.monotonic()
        self._left = min(self._left + self.per_second * (now - self._at), self._kept)
        self._at = now
        return int(self._left)
