"""What numba keeps of kernels on disk is run for as long as it is what the source says."""

import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

import core
import streamer

ROOT = Path(__file__).parents[3]
PEERS = ("streamer.bench.peer_", "streamer.evaluate.picture", "streamer.inspect.plot")
"""Modules that need what is not installed everywhere; none has kernels."""

MIX = """
import numpy as np
from core.learning.skipgram import Rows, _hidden, hidden
one, two = np.ones((2, 16), np.float32), np.zeros((2, 16), np.float32)
rows = Rows(np.concatenate([one, two]), one, one[0], one[0], np.ones((4, 2), np.float32),
            np.full((4, 1), 2, np.int32), np.zeros(4, np.bool_), np.ones(4, np.bool_))
rows.mix[:, 1] = 0
mixed = hidden(rows, np.zeros(1, np.int32))
print(float(mixed[0, 0]), sum(_hidden.stats.cache_misses.values()))
"""


class Copy:
    """A copy of `core` with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "core", folder / "core", ignore=ignored)
        cache = str(folder / "cache")
        self.environ = os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": cache}

    def run(self) -> tuple[float, int]:
        """What a kernel gives in a process of its own, and how often it was compiled."""
        done = subprocess.run(
            [sys.executable, "-c", MIX], cwd=self.folder, env=self.environ, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        learned, compiled = done.stdout.split()
        return float(learned), int(compiled)

    def edit(self, old: str, new: str) -> None:
        for module in self.folder.glob("core/*/*.py"):
            module.write_text(module.read_text().replace(old, new))


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_an_edit_of_what_is_put_into_kernels_is_never_run_stale(copied: Copy) -> None:
    first, again = copied.run(), copied.run()
    assert (first[1], again) == (1, (first[0], 0))
    copied.edit("CLIP = F32(12.0)", "CLIP = F32(0.01)")
    edited = copied.run()
    assert edited[0] != first[0]
    assert edited[1] == 1


def test_a_kernel_whose_argument_got_another_name_is_compiled_anew(copied: Copy) -> None:
    first = copied.run()
    copied.edit("Tables", "Tabulated")
    assert (copied.run(), copied.run()) == (first, (first[0], 0))


def compiled() -> Iterator[tuple[str, str, Any]]:
    """Every function that numba compiles: its module, its name there, and itself."""
    for package in (core, streamer):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(PEERS) and not found.name.endswith("__main__"):
                module = import_module(found.name)
                for name, value in vars(module).items():
                    if isinstance(value, Dispatcher):
                        yield found.name, name, value


def foreign_parts(kernel: Any, seen: set[Any]) -> set[str]:
    """The other modules of which something is compiled into a kernel."""
    seen.add(kernel)
    code, found = kernel.py_func.__code__, set[str]()
    for name in code.co_names:
        value = kernel.py_func.__globals__.get(name)
        if isinstance(value, _Intrinsic):
            found.add("core.kernels.lanes")
        elif isinstance(value, Dispatcher) and value not in seen:
            if value.py_func.__module__ != kernel.py_func.__module__:
                found.add(value.py_func.__module__)
            found |= foreign_parts(value, seen)
    return found - {kernel.py_func.__module__}


def test_every_kernel_with_parts_of_other_modules_is_keyed_by_their_source() -> None:
    kernels = list(compiled())
    assert len(kernels) > 40
    for module, name, kernel in kernels:
        parts = foreign_parts(kernel, set())
        # What `SOURCES` is a digest of: the modules in the wings of core.
        assert all(part.startswith("core.") and part.count(".") == 2 for part in parts), name
        inlined = kernel.targetoptions.get("forceinline")
        if parts and not inlined and kernel.py_func.__module__ == module:
            assert "sources" in kernel.py_func.__code__.co_varnames, f"{module}.{name}"
