"""Memory that a long process frees goes back to the system."""

import ctypes

LARGE = 1 << 20
"""Bytes from which on an array is mapped by itself, and given back as soon as it is freed."""
AT_END = 4 << 20
"""Free bytes at the end of the heap that stay there."""

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
