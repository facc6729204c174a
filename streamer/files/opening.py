"""The lines of a file in UTF-8: what the file is, its first bytes say, whatever its name says.

It is read once, from its beginning to its end, so that a pipe is as good as a file on disk.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from streamer.errors import ConfigError, WalkstreamError
from streamer.files.lines import STDIN, name_of
from streamer.wording import counted

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Blocks = Iterator[bytes]

BLOCK_BYTES = 1 << 18
"""Bytes that make one batch: some 5,000 clicks."""

LINE_BYTES = 1 << 23
"""A longer line is no record: brokers take a million bytes by default."""
KEPT_BYTES = 1000
"""So much of a longer line is kept, to look at."""

COMPRESSIONS = (".gz", ".bz2", ".zst", ".xz")

_OPENERS: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\x28\xb5\x2f\xfd": ("Zstandard", zstd.ZstdFile),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
_PARQUET = b"PAR1"
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_MAGIC_BYTES = 6

_FOREIGN: dict[bytes, tuple[str, str]] = {
    _PARQUET: ("Parquet inside of a compressed file", "decompress it first"),
    b"PK\x03\x04": ("a ZIP archive, as those of Excel are", "save it as CSV, or take `unzip -p`"),
    b"\xd0\xcf\x11\xe0": ("a file of an old Excel", "save it as CSV"),
    b"\x04\x22\x4d\x18": ("compressed by lz4", "send `lz4 -dc` of it through a pipe"),
    b"\x1f\x9d": ("compressed by compress (.Z)", "send `zcat` of it through a pipe"),
    b"LZIP": ("compressed by lzip", "send `lzip -dc` of it through a pipe"),
    b"\x89LZO": ("compressed by lzop", "send `lzop -dc` of it through a pipe"),
    b"\xff\x06\x00\x00sN": ("compressed by Snappy", "decompress it first"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"ORC": ("ORC", "write it as Parquet or CSV"),
    b"Obj\x01": ("Avro", "write it as JSON lines, or send its records to a topic"),
    b"ARROW1": ("Arrow", "write it as Parquet"),
    b"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    b"\x89HDF": ("HDF5", "write it as Parquet or CSV"),
    b"\x93NUMPY": ("an array of NumPy", "write it as CSV"),
    b"%PDF": ("a PDF", "export the table as CSV"),
    **{magic: (f"{name} in {name}", "decompress it once") for magic, (name, _) in _OPENERS.items()},
}
_WIDE = ((4, "UTF-32LE", 0), (4, "UTF-32BE", 3), (2, "UTF-16LE", 0), (2, "UTF-16BE", 1))
"""Bytes of a letter, and which of them is not zero in texts of ASCII."""
_CONTROLS = re.compile(rb"[\x02-\x08\x0e-\x19\x1c-\x1f\x7f]")
"""Those that are between no fields and end no file."""
_TAR_AT, _TAR = 257, b"ustar"

_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError, UnicodeError)


class CutLine(bytes):
    """The beginning of a line of more than LINE_BYTES."""


def check(path: Path) -> bool:
    """Whether it is a file on disk, which has a size. ConfigError if it can surely not be read."""
    if path == STDIN:
        if sys.stdin is None:
            raise ConfigError("standard input is closed: send a file into it, or name one")
        return False
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {_why(error)}") from None
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{path}: is a folder; name the files in it")
    return stat.S_ISREG(mode)


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


class Input:
    """The bytes of one file as they lie on disk, with the position in them."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_live = path, not check(path)
        self.position = 0
        try:
            # Unbuffered reads of a pipe return what is there: a slow one holds nothing back.
            file = sys.stdin.buffer if path == STDIN else path.open("rb")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {_why(error)}") from None
        self._file = cast(io.BufferedReader, file)
        self._head = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.path != STDIN:
            self._file.close()

    def peek(self) -> bytes:
        """The first _MAGIC_BYTES, or fewer of a shorter file."""
        while len(self._head) < _MAGIC_BYTES:
            more = self._file.read1(_MAGIC_BYTES - len(self._head))
            if not more:
                break
            self._head += more
        return self._head

    @property
    def is_parquet(self) -> bool:
        return self.peek().startswith(_PARQUET)

    def read(self, size: int = -1) -> bytes:
        data = self._from_head(size)
        if size < 0 or len(data) < size:
            data += self._file.read(size - len(data) if size >= 0 else -1)
        self.position += len(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        data = self._from_head(size) or self._file.read1(size)
        self.position += len(data)
        return data

    def _from_head(self, size: int) -> bytes:
        at = size if size >= 0 else len(self._head)
        data, self._head = self._head[:at], self._head[at:]
        return data

    def lines(self) -> Blocks:
        """The text cut at line ends, which become `\\n`; no byte order marks, no last line end.

        A line of more than LINE_BYTES is a CutLine. ConfigError if it is no text,
        WalkstreamError if it is damaged on the way.
        """
        kind, read = "text", 0
        try:
            stream: IO[bytes] | Input = self
            for magic, (name, opener) in _OPENERS.items():
                if self.peek().startswith(magic):
                    kind, stream = name, opener(self)
            for block in _whole_lines(_utf8(self.path, _blocks(stream, self.is_live))):
                read += block.count(b"\n") + 1
                yield block
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno:  # of the disk, not of what is on it
                raise WalkstreamError(
                    f"{name_of(self.path)}: cannot be read: {error.strerror}"
                ) from error
            is_cut = isinstance(error, EOFError)
            what = (
                f"ends too early: its {kind} data is cut off"
                if is_cut
                else (f"damaged {kind} data ({_why(error)})")
            )
            before = f"{counted(read, 'line')} before that" if read else "No line of it"
            raise WalkstreamError(
                f"{name_of(self.path)}: {what}. {before} could be read; fetch the file again"
            ) from error


def _blocks(stream: Any, is_live: bool) -> Blocks:
    read = stream.read1 if is_live else stream.read
    while block := read(BLOCK_BYTES):
        yield block


def _utf8(path: Path, blocks: Blocks) -> Blocks:
    """Text of UTF-16 as UTF-8, and UTF-8 as it is. ConfigError for what is no text."""
    first = next(blocks, b"")
    encoding = next((name for mark, name in _UTF16.items() if first.startswith(mark)), None)
    if encoding and not first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        decode = codecs.getincrementaldecoder(encoding)().decode
        yield decode(first).encode()
        for block in blocks:
            yield decode(block).encode()
        decode(b"", final=True)
        return
    _refuse_foreign(path, first)
    yield first
    yield from blocks


def _refuse_foreign(path: Path, first: bytes) -> None:
    """ConfigError that names what the file is, if it is no text in lines."""
    name = name_of(path)
    for magic, (what, cure) in _FOREIGN.items():
        if first.startswith(magic):
            raise ConfigError(f"{name}: is {what}, which is not read; {cure}")
    if first[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise ConfigError(f"{name}: is a tar archive; unpack it, or send `tar -xO` through a pipe")
    line = first[:KEPT_BYTES].partition(b"\n")[0]
    if (encoding := _wide(line)) is not None:
        raise ConfigError(
            f"{name}: is text in {encoding}; send `iconv -f {encoding} -t UTF-8` of it through a "
            "pipe"
        )
    if b"\0" in line or (_CONTROLS.search(line) and not _is_utf8(line)):
        raise ConfigError(
            f"{name}: is no text: its first line has bytes that no table and no JSON in UTF-8 "
            "has; write it as CSV or JSON lines"
        )
    if b"\n" not in first and b"\r" in first.rstrip(b"\r"):
        raise ConfigError(
            f"{name}: its lines end in carriage returns alone; send `tr '\\r' '\\n'` of it through "
            "a pipe"
        )


def _wide(line: bytes) -> str | None:
    """The encoding with two or four bytes a letter that a line without a mark seems to have."""
    for size, encoding, at in _WIDE:
        letters = len(line) // size
        if letters and all(
            (line[n : letters * size : size].count(0) * 5 > letters * 4) == (n != at)
            for n in range(size)
        ):
            return encoding
    return None


def _is_utf8(line: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line)  # it may end within a letter
    except UnicodeError:
        return False
    return True


def _whole_lines(blocks: Blocks) -> Blocks:
    held: list[bytes] = []
    size, is_skipping = 0, False
    for block in blocks:
        lines, end, rest = block.rpartition(b"\n")
        if end:
            if is_skipping:
                _, end, lines = lines.partition(b"\n")
            else:
                lines = b"".join([*held, lines])
            if end:
                yield _clean(lines)
            held, size, is_skipping = [], 0, False
        if is_skipping:
            continue
        held.append(rest)
        size += len(rest)
        if size > LINE_BYTES:
            yield CutLine(_clean(b"".join(held)[:KEPT_BYTES]))
            held, size, is_skipping = [], 0, True
    if size:
        yield _clean(b"".join(held))


def _clean(lines: bytes) -> bytes:
    # Where files were joined, the mark of the second is in the middle.
    lines = lines.replace(b"\r\n", b"\n").replace(b"\n" + codecs.BOM_UTF8, b"\n")
    return lines.removesuffix(b"\r").removeprefix(codecs.BOM_UTF8)
