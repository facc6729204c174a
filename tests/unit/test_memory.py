"""What a process that gives memory back does with large arrays."""

import subprocess
import sys

import pytest

IN_HEAP = """
import numpy as np
from streamer import memory

memory.give_back()
np.ones(3 << 20)  # 24 MiB, which are freed at once
table = np.ones(1 << 20)
for line in open("/proc/self/maps"):
    begin, end = (int(at, 16) for at in line.split()[0].split("-"))
    if begin <= table.ctypes.data < end:
        print("[heap]" in line)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_large_arrays_are_mapped_by_themselves_after_others_were_freed() -> None:
    command = [sys.executable, "-c", IN_HEAP]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["False"]
