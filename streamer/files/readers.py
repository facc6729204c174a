"""Clicks and item records out of files: JSONL, CSV and TSV, also gzipped, also standard input.

What comes out is ready for the topics `clicks` and `items`; `publish` sends it to Kafka, `replay`
folds it without. Whether a click is a good one is not judged here: a line that cannot be made into
one leaves as it came, so that there is one dead-letter path.
"""

import codecs
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from streamer.errors import ConfigError, WalkstreamError
from streamer.files.lines import (
    STDIN,
    TO_MS,
    UNREADABLE,
    Flaw,
    Record,
    Unit,
    key_of,
    text_of,
    time_flaw,
)
from streamer.files.tables import ClickTable, columns_of, item, item_key, split_csv, split_tsv

Format = Literal["jsonl", "csv", "tsv"]
Blocks = Iterator[bytes]
T = TypeVar("T")

BLOCK_BYTES = 1 << 18
"""Bytes that make one batch: some 5,000 clicks."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}


@dataclass(frozen=True)
class Source:
    """Where records come from.

    `columns` names the columns of CSV and TSV without a header line, `_` skips one. `time` is the
    unit of `ts`: milliseconds, seconds, ISO-8601 (UTC unless it says otherwise), or `order`: a
    running number n that becomes n seconds since the epoch, so that durations such as `session.gap`
    count in steps of one second.
    """

    files: list[Path]
    columns: list[str] | None = None
    time: Unit = "ms"
    foreign: bool = False
    """JSON lines are not in Walkstream's own format: they pass as they are."""

    @property
    def is_json(self) -> bool:
        """Whether all of it is JSON lines, as far as names tell."""
        return all(path == STDIN or _FORMATS.get(_suffix(path)) == "jsonl" for path in self.files)


class Reader(Generic[T]):
    """One pass over the files of a source, in their order.

    `bytes_read` is the position in the files as they lie on disk (compressed, if they are);
    `total_bytes` is None when standard input is among them. Raises `ConfigError` for files that are
    not there or whose columns do not fit, `WalkstreamError` for damaged compression.
    """

    def __init__(
        self, source: Source, parse: Callable[[Blocks, Path, Source], Iterator[T]]
    ) -> None:
        for path in source.files:
            if path != STDIN and not path.is_file():
                raise ConfigError(f"{path}: there is no such file")
        self._source = source
        self._parse = parse
        self.bytes_read = 0
        self.total_bytes = (
            None if STDIN in source.files else sum(path.stat().st_size for path in source.files)
        )

    def __iter__(self) -> Iterator[T]:
        for path in self._source.files:
            try:
                yield from self._parse(_whole_lines(self._blocks(path)), path, self._source)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise WalkstreamError(
                    f"{path}: damaged gzip data ({error}). What came before it was read; "
                    "fetch the file again"
                ) from error

    def _blocks(self, path: Path) -> Blocks:
        before = self.bytes_read
        if path == STDIN:
            stdin = cast(io.BufferedReader, sys.stdin.buffer)
            # read1 returns what is there: a slow pipe is not held back until a block is full.
            while block := stdin.read1(BLOCK_BYTES):
                self.bytes_read += len(block)
                yield block
            return
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            while block := stream.read(BLOCK_BYTES):
                self.bytes_read = before + file.tell()
                yield block


def read_clicks(source: Source) -> Reader[list[Record]]:
    """Batches of some 5,000 records for the topic `clicks`.

    Columns `user_id`, `item_id` and `ts` are needed, `event_type`, `weight` and `event_id` are
    taken if there, others are ignored. A line of CSV is one record: no newlines inside quotes.
    JSONL passes as it is, except that `ts` becomes milliseconds. An unreadable line is a record of
    its raw bytes without a time; blank lines are skipped.
    """
    return Reader(source, _clicks)


def read_items(source: Source) -> Reader[Record]:
    """Records for the topic `items`.

    The id is the column `item_id`, else `item`, else the first; every other column is an attribute
    of its name, a list where it contains `|`, absent where it is empty. JSONL passes as it is.
    Raises `WalkstreamError` that names file and line when one has no id or cannot be read: items
    are few, and sending all of them again after a correction changes nothing else.
    """
    return Reader(source, _items)


class _ClickHead(msgspec.Struct):
    user_id: Any = None
    ts: Any = None


class _ItemHead(msgspec.Struct):
    item_id: Any = None


_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_click = msgspec.json.Decoder(_ClickHead).decode
_decode_item = msgspec.json.Decoder(_ItemHead).decode


def _whole_lines(blocks: Blocks) -> Blocks:
    """The same bytes cut at line ends, which become `\\n`; no byte order mark, no last line end."""
    rest = b""
    for number, block in enumerate(blocks):
        text = block if number else block.removeprefix(codecs.BOM_UTF8)
        lines, end, rest = (rest + text).rpartition(b"\n")
        if end:
            yield lines.replace(b"\r\n", b"\n").removesuffix(b"\r")
    if rest:
        yield rest


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _format(path: Path, first: bytes) -> Format:
    by_name = _FORMATS.get(_suffix(path))
    if by_name:
        return by_name
    if first.startswith(b"{"):
        return "jsonl"
    return "tsv" if b"\t" in first.partition(b"\n")[0] else "csv"


def _refuse_columns(path: Path, source: Source) -> None:
    if source.columns is not None:
        raise ConfigError(f"{path}: column names are for CSV and TSV, and this is JSONL")


def _clicks(blocks: Blocks, path: Path, source: Source) -> Iterator[list[Record]]:
    first = next(blocks, None)
    if first is None:
        return
    form = _format(path, first)
    if form == "jsonl":
        _refuse_columns(path, source)
        convert = _pass_click if source.time == "ms" else _convert_click(source.time)
        if source.foreign:
            convert = _as_it_is
        yield from _json_clicks(chain([first], blocks), path, convert)
        return
    split = split_tsv if form == "tsv" else split_csv
    head, end, rest = first.partition(b"\n")
    table = ClickTable(path, head, source.columns, split, source.time)
    number, begin = (2, [rest] if end else []) if source.columns is None else (1, [first])
    for block in chain(begin, blocks):
        yield table.records(block, number)
        number += block.count(b"\n") + 1


Parts = tuple[bytes | None, bytes, int | None, Flaw | None]
"""Key, value, time and flaw of a record."""


def _json_clicks(
    blocks: Iterable[bytes], path: Path, convert: Callable[[bytes], Parts]
) -> Iterator[list[Record]]:
    number = 0
    for block in blocks:
        records = []
        for line in block.split(b"\n"):
            number += 1
            if line.strip():
                key, value, time, flaw = convert(line)
                records.append(Record(key, value, time, path, number, flaw))
        yield records


def _as_it_is(line: bytes) -> Parts:
    return None, line, None, None


def _pass_click(line: bytes) -> Parts:
    try:
        head = _decode_click(line)
        return key_of(head.user_id), line, head.ts if type(head.ts) is int else None, None
    except UNREADABLE:
        return _as_it_is(line)


def _convert_click(unit: Unit) -> Callable[[bytes], Parts]:
    to_ms = TO_MS[unit]

    def convert(line: bytes) -> Parts:
        text = None
        try:
            record = _decode_raw(line)
            text = str(msgspec.json.decode(record["ts"]))
            ms = to_ms(text)
            record["ts"] = msgspec.Raw(_encode(ms))
            return key_of(_decode_click(line).user_id), _encode(record), ms, None
        except UNREADABLE:
            return None, line, None, time_flaw(text, unit) if text is not None else None

    return convert


def _items(blocks: Blocks, path: Path, source: Source) -> Iterator[Record]:
    first = next(blocks, b"")
    number = 0

    def lines() -> Blocks:
        nonlocal number
        for block in chain([first], blocks):
            for line in block.split(b"\n"):
                number += 1
                yield line

    try:
        form = _format(path, first)
        if form == "jsonl":
            _refuse_columns(path, source)
            for line in lines():
                if line.strip():
                    key = item_key(_decode_item(line).item_id)
                    yield Record(key, line, None, path, number)
            return
        rows: Iterator[list[str]] = (
            csv.reader((text_of(line) + "\n" for line in lines()), strict=True)
            if form == "csv"
            else (split_tsv(text_of(line)) for line in lines())
        )
        columns: list[str] = []
        for row in rows:
            if not columns:
                columns = columns_of(path, source.columns, row)
                if source.columns is None:
                    continue
            if any(row):
                yield Record(*item(columns, row), None, path, number)
    except UNREADABLE as error:
        raise WalkstreamError(
            f"{path}: line {number} is no item: {error}. Correct it and publish again; "
            "items sent twice do no harm"
        ) from error
