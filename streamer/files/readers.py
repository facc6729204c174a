"""Clicks and item records out of files: JSONL, CSV and TSV, also gzipped, also standard input.

What comes out is ready for the topics `clicks` and `items`; `publish` sends it to Kafka, `replay`
folds it without. Whether a click is a good one is not judged here: a line that cannot be made into
one leaves as it came, so that there is one dead-letter path.
"""

import codecs
import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from streamer.errors import ConfigError, WalkstreamError

Record = tuple[bytes | None, bytes, int | None]
"""Key (user id as text), value (JSON) and event time in ms. Key and time are None if unreadable."""

Format = Literal["jsonl", "csv", "tsv"]
Blocks = Iterator[bytes]
T = TypeVar("T")

STDIN = Path("-")
FEW = 20
"""Fewer lines than this may all be bad."""
BLOCK_BYTES = 1 << 18
"""Bytes that make one batch: some 5,000 clicks."""

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLICK_COLUMNS = ("user_id", "item_id", "ts", "event_type", "weight", "event_id")
_UNREADABLE = (
    LookupError,
    ValueError,
    OverflowError,
    RecursionError,
    csv.Error,
    msgspec.MsgspecError,
)


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
    time: Literal["ms", "s", "iso", "order"] = "ms"
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


def refuse_unreadable(batch: list[Record]) -> None:
    """ConfigError if no line at the beginning of a file could be made into a click."""
    if len(batch) >= FEW and all(key is None and time is None for key, _, time in batch):
        raise ConfigError(
            f"none of the first {len(batch)} lines could be read: is --time right (ms, s, iso or "
            "order), and are the columns?"
        )


def read_items(source: Source) -> Reader[tuple[bytes, bytes]]:
    """Pairs of item id (UTF-8) and JSON value for the topic `items`.

    The id is the column `item_id`, else `item`, else the first; every other column is an attribute
    of its name, a list where it contains `|`, absent where it is empty. JSONL passes as it is.
    Raises `WalkstreamError` that names file and line when one has no id or cannot be read: items
    are few, and sending all of them again after a correction changes nothing else.
    """
    return Reader(source, _items)


class _Click(msgspec.Struct, omit_defaults=True):
    user_id: str
    item_id: str
    ts: int
    event_type: str = "click"
    weight: float | None = None
    event_id: str | None = None


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


def _text(block: bytes) -> str:
    """Bytes that are not UTF-8 survive as surrogates, on which JSON encoding fails line by line."""
    return block.decode("utf-8", "surrogateescape")


def _bytes(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")


def _key(identifier: object) -> bytes | None:
    """7 and "7" are one id."""
    if isinstance(identifier, str | int) and not isinstance(identifier, bool):
        return str(identifier).encode() or None
    return None


def _split_tsv(line: str) -> list[str]:
    return line.split("\t")


def _split_csv(line: str) -> list[str]:
    return next(csv.reader([line], strict=True)) if '"' in line else line.split(",")


def _columns(path: Path, source: Source, first: list[str]) -> list[str]:
    if source.columns is None:
        return [name.strip() for name in first]
    if len(first) != len(source.columns):
        raise ConfigError(
            f"{path}: the first line has {len(first)} columns and {len(source.columns)} are named "
            f"({','.join(source.columns)}); name all of them, `_` for one to skip"
        )
    return source.columns


def _milliseconds(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return round(float(text))


def _seconds(text: str) -> int:
    try:
        return int(text) * 1000
    except ValueError:
        return round(float(text) * 1000)


def _iso(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_TO_MS: dict[str, Callable[[str], int]] = {
    "ms": _milliseconds,
    "s": _seconds,
    "order": _seconds,
    "iso": _iso,
}


def _weight(text: str) -> float:
    weight = float(text)
    if not math.isfinite(weight):
        raise ValueError(text)
    return weight


def _clicks(blocks: Blocks, path: Path, source: Source) -> Iterator[list[Record]]:
    first = next(blocks, None)
    if first is None:
        return
    form = _format(path, first)
    if form == "jsonl":
        _refuse_columns(path, source)
        convert = _pass_click if source.time == "ms" else _convert_click(_TO_MS[source.time])
        if source.foreign:
            convert = _as_it_is
        for block in chain([first], blocks):
            yield [convert(line) for line in block.split(b"\n") if line.strip()]
        return
    split = _split_tsv if form == "tsv" else _split_csv
    head, _, rest = first.partition(b"\n")
    columns = _columns(path, source, split(_text(head)))
    for name in _CLICK_COLUMNS[:3]:
        if name not in columns:
            raise ConfigError(
                f"{path}: no column {name!r} among {', '.join(columns)}; "
                "a file without a header line needs its columns named"
            )
    for block in chain([first if source.columns else rest], blocks):
        yield _table_clicks(_text(block).split("\n"), columns, split, _TO_MS[source.time])


def _table_clicks(
    lines: list[str],
    columns: list[str],
    split: Callable[[str], list[str]],
    to_ms: Callable[[str], int],
) -> list[Record]:
    width = len(columns)
    # A column that is not there is the empty field that is appended to every line.
    place = [columns.index(name) if name in columns else -1 for name in _CLICK_COLUMNS]
    user, item, ts, event_type, weight, event_id = place
    records: list[Record] = []
    for line in lines:
        try:
            fields = split(line)
            if len(fields) != width or not fields[user] or not fields[item]:
                raise ValueError(line)
            fields.append("")
            ms = to_ms(fields[ts])
            click = _Click(
                fields[user],
                fields[item],
                ms,
                fields[event_type] or "click",
                _weight(fields[weight]) if fields[weight] else None,
                fields[event_id] or None,
            )
            records.append((fields[user].encode(), _encode(click), ms))
        except _UNREADABLE:
            if line.strip():
                records.append((None, _bytes(line), None))
    return records


def _as_it_is(line: bytes) -> Record:
    return None, line, None


def _pass_click(line: bytes) -> Record:
    try:
        head = _decode_click(line)
        return _key(head.user_id), line, head.ts if type(head.ts) is int else None
    except _UNREADABLE:
        return None, line, None


def _convert_click(to_ms: Callable[[str], int]) -> Callable[[bytes], Record]:
    def convert(line: bytes) -> Record:
        try:
            record = _decode_raw(line)
            ms = to_ms(str(msgspec.json.decode(record["ts"])))
            record["ts"] = msgspec.Raw(_encode(ms))
            return _key(_decode_click(line).user_id), _encode(record), ms
        except _UNREADABLE:
            return None, line, None

    return convert


def _items(blocks: Blocks, path: Path, source: Source) -> Iterator[tuple[bytes, bytes]]:
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
                    yield _item_id(_key(_decode_item(line).item_id)), line
            return
        rows: Iterator[list[str]] = (
            csv.reader((_text(line) + "\n" for line in lines()), strict=True)
            if form == "csv"
            else (_split_tsv(_text(line)) for line in lines())
        )
        columns: list[str] = []
        for row in rows:
            if not columns:
                columns = _columns(path, source, row)
                if source.columns is None:
                    continue
            if any(row):
                yield _item(columns, row)
    except _UNREADABLE as error:
        raise WalkstreamError(
            f"{path}: line {number} is no item: {error}. Correct it and publish again; "
            "items sent twice do no harm"
        ) from error


def _item_id(key: bytes | None) -> bytes:
    if key is None:
        raise ValueError("it has no item_id")
    return key


def _item(columns: list[str], row: list[str]) -> tuple[bytes, bytes]:
    if len(row) != len(columns):
        raise ValueError(f"it has {len(row)} columns and there are {len(columns)}")
    named = dict(zip(columns, row, strict=True))
    id_column = next((name for name in ("item_id", "item") if name in named), columns[0])
    item_id = named.pop(id_column)
    attributes: dict[str, str | list[str]] = {}
    for name, value in named.items():
        parts = [part for part in value.split("|") if part]
        if parts and name != "_":
            attributes[name] = parts if "|" in value else value
    return _item_id(_key(item_id)), _encode({"item_id": item_id, "attributes": attributes})
