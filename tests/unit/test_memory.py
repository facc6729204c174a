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


CYCLES = """
import gc, time, weakref
from streamer import memory

class Pair:
    pass

def cycle():
    one = Pair()
    one.other = Pair()
    one.other.other = one
    return weakref.ref(one)

memory.COLLECT_SECONDS = 0.05
memory.collect_by_time()
print(gc.isenabled(), gc.get_freeze_count() > 1000)
found = cycle()
print(found() is None)
until = time.monotonic() + 30
while found() is not None and time.monotonic() < until:
    time.sleep(0.01)
print(found() is None)
"""


def test_cycles_are_freed_by_time_and_what_was_there_before_is_not_looked_at() -> None:
    command = [sys.executable, "-c", CYCLES]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["False", "True", "False", "True"]
