"""Commits in a thread, one at a time, while the next rounds are learned."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

CLOSE_SECONDS = 120.0
"""How long a commit that is under way is waited for when something else ended the worker."""


class Behind:
    """The commit that is under way. What it raises comes out of the next call here."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "commit")
        self._running: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a commit is under way. Raises what ended the last one."""
        if self._running is not None and self._running.done():
            done, self._running = self._running, None
            done.result()
        return self._running is not None

    def start(self, commit: Callable[[], None]) -> None:
        """Let the thread make a commit. Only when none is under way."""
        assert not self.is_busy, "one commit at a time"
        self._running = self._thread.submit(commit)

    def join(self, meanwhile: Callable[[], None]) -> None:
        """Return when no commit is under way; `meanwhile` is called now and then."""
        while self.is_busy:
            meanwhile()
            if self._running is not None:
                wait([self._running], 0.02)

    def close(self) -> None:
        """Let a commit that is under way come to its end, so that nothing is closed under it."""
        if self._running is not None:
            wait([self._running], CLOSE_SECONDS)
        self._thread.shutdown(wait=False)
