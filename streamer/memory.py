"""Memory that a long process frees goes back to the system."""

import ctypes
import gc
import time
from threading import Thread

LARGE = 1 << 20
"""Bytes from which on an array is mapped by itself, and given back as soon as it is freed."""
AT_END = 4 << 20
"""Free bytes at the end of the heap that stay there."""

COLLECT_SECONDS = 10.0
"""Least time between looks for cycles, of which there are few."""
COLLECT_SHARE = 1 / 500
"""Of all time, what looks may take at most: each stops the process, a tenth of a second where there
are a million items."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h has them


def give_back() -> None:
    """Keep large arrays out of malloc's heap from here on; nothing where malloc is not glibc's.

    With each that is freed glibc maps only larger ones by themselves, up to 32 MB. The others lie
    in the heap, where tables that grow by a copy leave holes that are never given back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_TRIM_THRESHOLD, AT_END)


def collect_by_time() -> None:
    """Look for cycles now and then from here on, and not among what there is by now.

    Records come by the thousand, and none of them is part of a cycle: by number each thousand would
    be searched, and the whole model with every few hundred thousand. A larger number would let what
    a cycle holds stay for hours.
    """

    def collect() -> None:
        took = 0.0
        while True:
            time.sleep(max(COLLECT_SECONDS, took / COLLECT_SHARE))
            began = time.monotonic()
            gc.collect()
            took = time.monotonic() - began

    gc.collect()
    gc.freeze()
    gc.disable()
    Thread(target=collect, name="garbage", daemon=True).start()
