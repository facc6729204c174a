"""How a process ends that cannot end by itself: by a second signal, or when its time is over.

Python runs its signal handlers between two steps of the main thread, and a call to Kafka may block
that for half a minute. A thread of its own hears of every signal from the handler in C.
"""

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import cache, partial
from threading import Thread
from typing import NoReturn

log = logging.getLogger(__name__)

SAYING_SECONDS = 0.5
"""How long a last line may take: a terminal that was stopped takes none."""


class Ending:
    """Watches over SIGINT and SIGTERM, wherever they have a handler in Python.

    The first signal is for that handler, and calls `on_first` in a thread; a second one ends the
    process within a second, with 128 and its number.
    """

    def __init__(self) -> None:
        self.on_first: Callable[[], None] = lambda: None
        self._deadline: float | None = None
        self._end: Callable[[], int] = lambda: 1
        self._signals = 0
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        Thread(target=self._watch, name="ending", daemon=True).start()

    def within(self, seconds: float, end: Callable[[], int]) -> None:
        """If the process is still there after so long, `end` says why, and returns the exit code.

        An earlier deadline stays, with the new `end`.
        """
        self._end, deadline = end, time.monotonic() + seconds
        self._deadline = min(deadline, self._deadline or deadline)
        self._writer.send(b"\0")

    def _watch(self) -> None:
        while True:
            left = self._deadline and max(0.0, self._deadline - time.monotonic())
            if not select.select([self._reader], [], [], left)[0]:
                _exit(self._end)
            for number in self._reader.recv(64):
                if number not in (signal.SIGINT, signal.SIGTERM):
                    continue
                self._signals += 1
                if self._signals == 1:
                    self.on_first()
                else:
                    _exit(partial(_interrupted, number), 128 + number)


@cache
def watch() -> Ending:
    """The one watch of this process; the first call must come from the main thread."""
    return Ending()


def _interrupted(number: int) -> int:
    log.warning("ended by a second signal")
    return 128 + number


def _exit(say: Callable[[], int], code: int = 1) -> NoReturn:
    """End the process now, with what `say` returns, or with `code` if it cannot be said."""
    codes = [code]
    saying = Thread(target=lambda: codes.append(say()), daemon=True)
    saying.start()
    saying.join(SAYING_SECONDS)
    os._exit(codes[-1])
