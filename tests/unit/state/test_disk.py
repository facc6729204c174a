"""State folders on a disk that is full or can only be read."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.errors import WalkstreamError
from streamer.state.folders import guarded
from streamer.state.store import Store
from tests.support import ROOT
from tests.unit.state.made import SMALL


def test_a_replay_on_a_full_disk_says_so_and_takes_back_what_it_wrote(
    log: Path, tmp_path: Path
) -> None:
    """RocksDB, which fails to close then too, must not have the last word."""
    out = tmp_path / "out"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "streamer.cli", "replay", str(log), "--out", str(out), *settings],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "there is no room left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(out.iterdir())


@pytest.fixture
def fixed(tmp_path: Path, learned: Path) -> Iterator[Path]:
    """A state folder on a file system that can only be read."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount")
    try:
        shutil.copytree(learned, disk / "state")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk / "state"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_can_only_be_read_is_told(fixed: Path) -> None:
    told = r"the system refuses \(Read-only .* start again"
    with pytest.raises(WalkstreamError, match=told), guarded(fixed):
        Store(fixed)
    # Damage cannot go aside there either.
    told = "cannot be moved aside: Read-only file system"
    with pytest.raises(WalkstreamError, match=told), guarded(fixed):
        raise Exception("Corruption: as RocksDB says it")


def test_what_has_nothing_to_do_with_the_folder_stays_what_it_is(made: Path) -> None:
    for error in (TimeoutError("no answer"), PermissionError(13, "no", "/etc/key.pem")):
        with pytest.raises(type(error), match="no"), guarded(made):
            raise error
