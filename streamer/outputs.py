"""Output files of commands: none overwrites by chance what is there."""

import os
from pathlib import Path

from streamer.errors import ConfigError


def check(option: str, out: Path, force: bool) -> None:
    """ConfigError if a file could not be written at `out`: before the work, not after it."""
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{option} {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise ConfigError(f"{option} {out}: is a folder; name a file in it")
    if not force and os.path.lexists(out):
        what = "is a link" if out.is_symlink() else "is there already"
        raise ConfigError(f"{option} {out}: {what}; --force writes over it")


def write(option: str, out: Path, data: bytes, force: bool) -> None:
    """Write a file that is not there; with `force`, over one that is, and through a link.

    ConfigError if it cannot be.
    """
    # O_EXCL creates, or fails: nobody puts a link there between a look and an open.
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(out, flags, 0o666), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise ConfigError(f"{option} {out}: is there already; --force writes over it") from None
    except OSError as error:
        raise ConfigError(f"{option} {out}: cannot be written: {error.strerror}") from None


def make_folder(option: str, out: Path, force: bool) -> None:
    """Make an empty folder, or take one; ConfigError if it holds something, or cannot be made.

    A link to one is taken with `force` only.
    """
    try:
        if out.is_symlink() and not force:
            raise ConfigError(f"{option} {out}: is a link; --force writes to where it leads")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"{option} {out}: is not empty. Name a new folder, or delete that one"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} {out}: cannot be made: {error.filename}: {error.strerror}"
        ) from None
