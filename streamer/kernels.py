"""Loads or compiles the kernels before the first click, and logs a compilation."""

import logging
import time

import numpy as np

from core.settings import Settings
from core.users import interests
from core.warmup import listening, warm_up
from streamer.decode.events import Decoder
from streamer.settings.sections import ClickSettings, EventSettings

log = logging.getLogger(__name__)


def prepare(settings: Settings, has_interests: bool = False) -> None:
    """Load the kernels that these settings use, or compile them: once on a machine and a version.
    Those for the interests of users are among them only where there are any.

    Compiled kernels are kept beside the package, or where that is read-only in the user's cache
    folder; NUMBA_CACHE_DIR names another.
    """
    begin = time.monotonic()
    compiled = False

    def note() -> None:
        nonlocal compiled
        compiled = True
        log.info("compiling the kernels: half a minute or so, once for these settings")

    with listening(note):
        warm_up(settings)
        Decoder(ClickSettings(), EventSettings())([], [], [])
        if has_interests:
            rows = np.zeros((1, settings.model.dim), np.float32)
            interests(rows, rows, np.zeros(1, np.int64), np.ones(1), np.array([0, 1]), 1)
    if compiled:
        log.info("compiled in %.0f s; kept for later starts", time.monotonic() - begin)
