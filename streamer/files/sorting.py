"""Clicks of any number in the order of their times: an external merge sort, stable.

Runs that fit in memory are sorted and written; whenever there are FAN_IN of a level, they are
merged into one of the next level, so that neither memory nor open files grow with the input.
"""

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from streamer.errors import WalkstreamError
from streamer.files.lines import Record
from streamer.files.readers import Reader, Source, read_clicks
from streamer.files.times import Flaw

RUN_BYTES = 1 << 26
"""Bytes of the values in a run; with what Python adds, some three times as much memory."""
OVERHEAD_BYTES = 200
FAN_IN = 64
BATCH = 5000
"""Records of a batch that comes out."""

_SIZE_BYTES = 4
_BLOCK_BYTES = 1 << 16


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """A record in a run, with the time by which it is sorted."""

    order: int
    key: bytes | None
    value: bytes
    time: int | None
    path: str
    line: int
    flaw: tuple[str, str] | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


Times = Callable[[list[Record]], list[int | None]]


class Sorted:
    """The records of a reader by their times, those without one behind their forerunner's.

    While it reads, empty batches come out, so that whoever waits sees that it goes on; half of the
    way is reading. WalkstreamError if the disk is full. Else like `streamer.files.readers.Reader`.
    """

    def __init__(self, reader: Reader[list[Record]], times: Times) -> None:
        self._reader, self._times = reader, times
        self._taken = self._given = 0
        self.total_bytes, self.findings = reader.total_bytes, reader.findings

    @property
    def bytes_read(self) -> int:
        given = self._given / self._taken if self._given else 0.0
        return int(self._reader.bytes_read * (1 + given) / 2)

    def __iter__(self) -> Iterator[list[Record]]:
        with tempfile.TemporaryDirectory(prefix="walkstream-sort-") as folder:
            try:
                yield from self._sorted(_Runs(Path(folder)))
            except OSError as error:
                raise WalkstreamError(
                    f"{folder}: cannot sort there: {error.strerror}. Let the environment variable "
                    "TMPDIR name a folder with room for all clicks, twice"
                ) from error

    def _sorted(self, runs: "_Runs") -> Iterator[list[Record]]:
        held: list[_Stored] = []
        size, last = 0, 0
        for batch in self._reader:
            for record, time in zip(batch, self._times(batch), strict=True):
                last = last if time is None else time
                held.append(_stored(record, last))
                size += len(record.value) + OVERHEAD_BYTES
            self._taken += len(batch)
            if size >= RUN_BYTES:
                runs.add(held)
                held, size = [], 0
            yield []
        paths: dict[str, Path] = {}
        merged = runs.merged(held)
        while stored := list(islice(merged, BATCH)):
            self._given += len(stored)
            yield [_record(one, paths) for one in stored]


def open_clicks(source: Source, times: Times | None = None) -> "Reader[list[Record]] | Sorted":
    """The clicks of a source, sorted if it says so.

    `times` finds the times of records where the reader does not know them.
    """
    reader = read_clicks(source)
    return Sorted(reader, times or _known_times) if source.sort else reader


def _known_times(records: list[Record]) -> list[int | None]:
    return [record.time for record in records]


def _stored(record: Record, order: int) -> _Stored:
    flaw = (record.flaw.kind, record.flaw.message) if record.flaw else None
    return _Stored(
        order, record.key, record.value, record.time, str(record.path), record.line, flaw
    )


def _record(stored: _Stored, paths: dict[str, Path]) -> Record:
    path = paths.get(stored.path)
    if path is None:
        path = paths[stored.path] = Path(stored.path)
    flaw = Flaw(*stored.flaw) if stored.flaw else None
    return Record(stored.key, stored.value, stored.time, path, stored.line, flaw)


_order: Callable[[_Stored], int] = lambda stored: stored.order  # noqa: E731


class _Runs:
    """Sorted runs in a folder, in the order in which their records came."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._levels: list[list[Path]] = [[]]

    def add(self, records: list[_Stored]) -> None:
        self._levels[0].append(self._write(sorted(records, key=_order)))
        for level, runs in enumerate(self._levels):
            if len(runs) < FAN_IN:
                return
            if level + 1 == len(self._levels):
                self._levels.append([])
            # What came before is on the levels above, so runs stay in their order.
            self._levels[level + 1].append(self._write(heapq.merge(*map(_read, runs), key=_order)))
            for run in runs:
                run.unlink()
            self._levels[level] = []

    def merged(self, newest: list[_Stored]) -> Iterator[_Stored]:
        """All of them, and those that are still in memory."""
        runs = [run for level in reversed(self._levels) for run in level]
        return heapq.merge(*map(_read, runs), sorted(newest, key=_order), key=_order)

    def _write(self, records: Iterable[_Stored]) -> Path:
        self._number += 1
        path = self._folder / str(self._number)
        with path.open("wb") as file:
            for record in records:
                packed = _encode(record)
                file.write(len(packed).to_bytes(_SIZE_BYTES, "little"))
                file.write(packed)
        return path


def _read(run: Path) -> Iterator[_Stored]:
    with run.open("rb", buffering=_BLOCK_BYTES) as file:
        yield from _each(file)


def _each(file: BinaryIO) -> Iterator[_Stored]:
    while size := file.read(_SIZE_BYTES):
        yield _decode(file.read(int.from_bytes(size, "little")))
