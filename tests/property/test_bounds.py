import os
import subprocess
import sys
from pathlib import Path

CHECKED = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0"}
"""Without optimisation they are compiled in two thirds of the time."""


def test_no_kernel_reads_or_writes_past_an_array(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.property.bounds"],
        env=os.environ | CHECKED | {"NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("checked\n")
