"""Only the user of a worker reads what it keeps on disk."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.admin import forget
from streamer.errors import CorruptState
from streamer.state import records
from streamer.state.folders import guarded
from streamer.state.store import Ahead, Store


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """As most users have it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_all_that_is_written_later_are_private(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = Store(path)
    for _ in range(3):
        store.write_entries({"attributes": [(os.urandom(8), os.urandom(1000)) for _ in range(100)]})
        store._cf["attributes"].flush()  # makes a table, and another log
    kinds = {file.suffix for file in path.iterdir()}
    store.close()
    assert {".sst", ".log"} <= kinds
    assert (mode(path), modes(path)) == (0o700, {0o600})


def test_an_open_folder_is_made_private_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    Store(path).close()
    path.chmod(0o755)
    for file in path.iterdir():
        file.chmod(0o644)
    own = path / "tool.sh"
    own.touch()
    own.chmod(0o755)
    with caplog.at_level(logging.INFO):
        Store(path).close()
    assert "was open to other users (mode 755)" in caplog.text
    assert mode(own) == 0o755  # not RocksDB's, and of no concern in a folder that is closed
    own.unlink()
    assert (mode(path), modes(path)) == (0o700, {0o600})
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Store(path).close()
    assert "other users" not in caplog.text


def test_what_was_moved_aside_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "state"
    Store(path).close()
    with pytest.raises(CorruptState), guarded(path):
        raise Ahead("the log ends before it")
    (aside,) = path.glob("corrupt-*")
    assert (mode(aside), modes(aside)) == (0o700, {0o600})


def test_the_list_of_forgotten_users_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state"
    (tmp_path / "state.forgotten.new").touch(0o644)
    forget.put_aside(path, {records.FORGOTTEN + b"0123"})
    assert mode(tmp_path / "state.forgotten") == 0o600
