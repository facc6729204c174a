"""State folders as files on a disk: whose they are, what an error of RocksDB means, what goes.

Nothing is deleted or moved but what RocksDB wrote, and that only in a folder of Walkstream.
"""

import errno
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import AccessType, Cache, Options, Rdict

from streamer.errors import CorruptState, Refused, WalkstreamError
from streamer.state.rocks import (
    CACHE,
    FILES,
    FIRST_FAMILIES,
    Ahead,
    families_of,
    family_options,
)
from streamer.state.store import Store

KEPT, MOVING, DROPPED = "kept", "moving", "dropped"
"""Folders within a state folder: the files of one that was too old, until it is made anew; files on
the way to there or back; and files that are not needed any more."""
ATTEMPTS = 3
"""How often a reader opens a folder whose files its worker replaces meanwhile."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM = ("No space left", "Disk quota exceeded", "File too large")
_REFUSALS = (
    *("Permission denied", "Operation not permitted", "Read-only file system"),
    *("Input/output error", "Too many open files"),
)
_LOG_BLOCK, _LOG_HEAD, _LOG_NUMBER, _RECYCLED = 32768, 7, 4, range(5, 9)
"""An entry of a log of RocksDB lies within a block, behind checksum, size and kind; entries of
these kinds have a number too."""
_CURE = (
    "Stop its worker, if one runs, and `walkstream reset`: the next start of the worker makes the "
    "folder anew from Kafka. What `walkstream replay` made has to be replayed again"
)


def files(path: Path) -> list[Path]:
    """What RocksDB wrote into this folder, links to elsewhere left out."""
    found = path.iterdir() if path.is_dir() else iter(())
    return sorted(f for f in found if FILES.fullmatch(f.name) and not f.is_symlink())


def is_ours(path: Path) -> bool:
    """Whether a worker or a replay made the database in this folder.

    RocksDB writes the families down in plain text, which can also be read where the rest is
    damaged, and without opening what may belong to another program.
    """
    for options in path.glob("OPTIONS-*"):
        text = options.read_text(errors="replace")
        if all(f'[CFOptions "{name}"]' in text for name in FIRST_FAMILIES):
            return True
    return False


def check_ours(path: Path) -> None:
    """Refused if the folder has the database of another program, or is that around a replay's."""
    if files(path / "state") and not files(path):
        raise Refused(
            f"{path}: this folder is no state folder, it has one: let state.dir be {path / 'state'}"
        )
    if (path / "CURRENT").exists() and not is_ours(path):
        raise Refused(
            f"{path}: there is a database in this folder that is not Walkstream's. Let state.dir "
            "name another folder"
        )


def delete(path: Path) -> list[str]:
    """Delete the files of RocksDB, and the folder if it is empty then and no mount.

    Returns the names of what is not RocksDB's and stays. Raises what RocksDB says, such as that a
    process has the folder open.
    """
    Rdict.destroy(str(path), Options(raw_mode=True))
    return remove(path)


def remove(path: Path) -> list[str]:
    """The same for a folder that this process made itself, and may have failed to close."""
    drop_kept(path)
    _empty(path / MOVING)
    for file in files(path):
        file.unlink()
    left = sorted(file.name for file in path.iterdir()) if path.exists() else []
    if path.exists() and not left and not path.is_symlink() and not path.is_mount():
        path.rmdir()
    return left


def set_aside(path: Path) -> Path:
    """Move the files of RocksDB into a folder within this one; returns it.

    A folder beside would be elsewhere where this one is a link or a mount.
    """
    aside = path / f"corrupt-{time.strftime('%Y%m%d-%H%M%S')}"
    aside.mkdir(0o700, exist_ok=True)
    for file in files(path):
        file.rename(aside / file.name)
    return aside


def keep(path: Path) -> None:
    """Move the files of RocksDB into a folder within this one, to make the state anew without them.

    They come back with the next `put_back`, unless `drop_kept` says that they are not needed.
    """
    moving = path / MOVING
    moving.mkdir(0o700, exist_ok=True)
    for file in files(path):
        file.rename(moving / file.name)
    moving.rename(path / KEPT)


def put_back(path: Path) -> bool:
    """Put back what was kept, in place of what was made since. Returns whether there was any.

    It may be killed anywhere, and so may `keep`: what is in MOVING belongs to what is beside it,
    and what is in KEPT stands for all of it.
    """
    kept, moving = path / KEPT, path / MOVING
    if kept.is_dir():
        Rdict.destroy(str(path), Options(raw_mode=True))  # raises if a process has it open
        for file in files(path):
            file.unlink()
        kept.rename(moving)
    if not moving.is_dir():
        return False
    for file in files(moving):
        file.rename(path / file.name)
    moving.rmdir()
    return True


def drop_kept(path: Path) -> None:
    """The state was made anew: what was kept of the old one goes."""
    kept, dropped = path / KEPT, path / DROPPED
    if kept.is_dir():
        _empty(dropped)
        kept.rename(dropped)  # at once: half of what was kept must never come back
    _empty(dropped)


def _empty(folder: Path) -> None:
    for file in files(folder):
        file.unlink()
    if folder.is_dir():
        folder.rmdir()


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Say what an error of RocksDB means; where the folder is unusable, its files go aside.

    The folder must be closed again when an error leaves this context.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, Ahead):
            _explain(path, error)
        if not is_ours(path):
            raise WalkstreamError(
                f"{path}: cannot be used ({error}), and it does not look like a state folder of "
                "Walkstream, so nothing in it was touched. Let state.dir name another folder"
            ) from error
        try:
            aside = set_aside(path)
        except OSError as refused:
            raise WalkstreamError(
                f"{path}: cannot be used ({error}), and its files cannot be moved aside: "
                f"{refused.strerror}. Look at the disk and at the rights to the folder, and start "
                "again: the state is rebuilt from Kafka"
            ) from error
        raise CorruptState(
            f"{path}: cannot be used ({error}). Its files were moved to {aside}; start again, and "
            "the state is rebuilt from Kafka"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[Store]:
    """A view of a state folder beside the process that writes it.

    WalkstreamError if there is none, or if it is damaged.
    """
    if not files(path):
        raise WalkstreamError(f"{path}: there is no state folder here. Name one with --state DIR")
    with tempfile.TemporaryDirectory(prefix="walkstream-") as scratch:
        store = None
        try:
            _open_all(path)
            store = Store(path, Path(scratch))
            yield store
        except OSError as error:
            if error.filename is not None:  # a file of somebody else: rocksdict names none
                raise
            raise WalkstreamError(
                f"{path}: cannot be opened ({error}). Who reads a state folder must be allowed to "
                "write to it, too: RocksDB notes its format there"
            ) from error
        except Exception as error:
            _explain(path, error)
            raise WalkstreamError(
                f"{path}: this state folder is damaged ({error}). {_CURE}"
            ) from error
        finally:
            if store is not None:
                store.close()


def _open_all(path: Path) -> None:
    """Raises what RocksDB says if one of the files is gone or is none of its own any more.

    A view beside the writer would do with an older state instead, and say nothing of it.
    """
    cache = Cache(CACHE)
    for attempt in range(ATTEMPTS):
        try:
            names = families_of(path)
            families = {name: family_options(name, cache, writes=False) for name in names}
            access = AccessType.read_only()
            Rdict(str(path), families["meta"], families, access_type=access).close()
            manifest = path / (path / "CURRENT").read_text().strip()
            if not _is_cut(manifest.read_bytes()):
                return
            error = Exception(f"{manifest.name} ends within an entry")
        except Exception as raised:
            error = raised
            # The writer may just have replaced a file.
            if "No such file" not in str(error):
                raise
        # Or it is in the middle of an entry.
        if attempt == ATTEMPTS - 1:
            raise error
        time.sleep(0.05)


def _is_cut(log: bytes) -> bool:
    """Whether a file in RocksDB's log format ends within an entry.

    RocksDB takes that for the end of what a crash left, and such a MANIFEST for an older folder, or
    for an empty one.
    """
    at = 0
    while at < len(log):
        left = _LOG_BLOCK - at % _LOG_BLOCK
        if left < _LOG_HEAD:
            at += left
        elif at + _LOG_HEAD > len(log):
            return True
        else:
            size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
            at += size + _LOG_HEAD + (_LOG_NUMBER if kind in _RECYCLED else 0)
    return at > len(log)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what an error of RocksDB means where nothing can be rebuilt, and nothing goes aside."""
    try:
        yield
    except Exception as error:
        _explain(path, error)
        raise WalkstreamError(f"{path}: cannot be used: {error}") from error


def _is_of(path: Path, error: OSError) -> bool:
    """Whether the system refused something in the folder.

    Where rocksdict met it, no file is named, and the number is in the text only.
    """
    if error.filename is None:
        return error.errno is None and "(os error " in str(error)
    return Path(str(error.filename)).is_relative_to(path)


def _explain(path: Path, error: Exception) -> None:
    """Raise a WalkstreamError, or the error itself, unless it is RocksDB's word for damage."""
    text = str(error)
    is_system = isinstance(error, OSError) and _is_of(path, error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        text = f"No space left: {text}"
    elif not is_system and type(error) is not Exception:  # those of RocksDB are of no other class
        raise error
    if "/LOCK:" in text and "ermission denied" not in text:
        # Started again, it would fail again for as long as the other one runs.
        raise Refused(
            f"{path}: another process has this state folder open: does a worker with these "
            "settings run already? Give each worker a state.dir and an app.instance of its own"
        ) from error
    if any(words in text for words in _NO_ROOM):
        raise WalkstreamError(
            f"{path}: there is no room left on the disk ({text}). Nothing is lost or damaged: make "
            "room, and start again"
        ) from error
    if is_system or any(words in text for words in _REFUSALS):
        raise WalkstreamError(
            f"{path}: the system refuses ({text}). Look at the disk and at the rights to the "
            "folder, and start again: nothing is lost"
        ) from error
    if text.startswith("Invalid argument: Column famil"):
        raise WalkstreamError(
            f"{path}: made by another version of Walkstream ({text}). Start a worker of this "
            "version with a new state.dir: it is filled from Kafka"
        ) from error
