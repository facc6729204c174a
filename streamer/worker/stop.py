"""How a worker is asked to stop, and what ends it if it cannot."""

import logging
import signal
from functools import partial
from types import FrameType

from streamer import ending
from streamer.errors import WalkstreamError
from streamer.watch import log as logs

log = logging.getLogger(__name__)

STOP_SECONDS = 27.0
"""How long a stop may take, of the half minute that supervisors grant."""


class Stop:
    """Set by the first SIGTERM or SIGINT. A second one, or STOP_SECONDS, ends the process."""

    def __init__(self) -> None:
        self.asked = False
        self.ending = ending.watch()
        self.ending.on_first = partial(self.ending.within, STOP_SECONDS, _too_late)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            log.info("stopping: what is learned so far is committed first; once more to abort")
        self.asked = True


def _too_late() -> int:
    return logs.end(
        WalkstreamError(
            f"the stop took longer than {STOP_SECONDS:g} s, so it was cut short: do the brokers "
            "answer? Nothing is lost: the next start takes again what was not committed"
        )
    )
