"""Clicks and item records out of files: JSON lines, tables and Parquet, also compressed or piped.

What comes out is ready for the topics `clicks` and `items`; `publish` sends it to Kafka, `replay`
folds it without. Whether a click is a good one is not judged here: a line that cannot be made into
one leaves as it came, so that there is one dead-letter path.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from streamer.decode.formats import why
from streamer.errors import ConfigError, WalkstreamError
from streamer.files import findings, headers, opening
from streamer.files.findings import Findings
from streamer.files.headers import Columns, Header
from streamer.files.lines import NOT_UTF_8, STDIN, UNREADABLE, Record, key_of, name_of, text_of
from streamer.files.opening import COMPRESSIONS, Blocks, CutLine, Input
from streamer.files.parquet import Parquet
from streamer.files.tables import CLICK_COLUMNS, NEEDED, NULLS, ClickTable, item, item_key
from streamer.files.times import TO_MS, Flaw, Unit, reads, time_flaw

T = TypeVar("T")

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Source:
    """Where records come from.

    `columns` names the columns of a table without a header line, `_` skips one; or it gives columns
    of the header their names. `time` is the unit of `ts`: a number of ms, s, us or ns, ISO-8601
    (UTC unless it says otherwise), `auto` for what each can only be, or `order`: a running number n
    that becomes n seconds since the epoch, so that durations such as `session.gap` count in steps
    of one second. `delimiter` is between the fields of a table, None for what its first line has.
    `nulls` are the texts of fields that are missing.
    """

    files: list[Path]
    columns: Columns = None
    time: Unit = "ms"
    foreign: bool = False
    """JSON lines are not in Walkstream's own format: they pass as they are."""
    delimiter: str | None = None
    nulls: tuple[str, ...] = NULLS
    sort: bool = False
    """Clicks are taken in the order of their times."""

    @property
    def is_json(self) -> bool:
        """Whether all of it is JSON lines, as far as names tell."""
        return all(
            _suffix(path) in _JSON_SUFFIXES or path == STDIN or path.is_fifo()
            for path in self.files
        )


class Reader(Generic[T]):
    """One pass over the files of a source, in their order.

    `bytes_read` is the position in the files as they lie on disk (compressed, if they are);
    `total_bytes` is None when standard input or a pipe is among them. `findings` is what was odd.
    Raises `ConfigError` for files that cannot be read or whose columns do not fit,
    `WalkstreamError` for damaged compression.
    """

    def __init__(
        self, source: Source, parse: Callable[[Input, Source, "Reader[T]"], Iterator[T]]
    ) -> None:
        on_disk = [opening.check(path) for path in source.files]
        self._source, self._parse = source, parse
        self._before = 0
        self._input: Input | None = None
        self._table: Parquet | None = None
        self.findings = Findings()
        self.total_bytes = (
            sum(path.stat().st_size for path in source.files) if all(on_disk) else None
        )

    @property
    def bytes_read(self) -> int:
        if self._table is not None and self._input is not None:
            size = self._input.path.stat().st_size
            return self._before + int(size * self._table.share)
        return self._before + (self._input.position if self._input is not None else 0)

    def __iter__(self) -> Iterator[T]:
        for path in self._source.files:
            with Input(path) as opened:
                self._input = opened
                yield from self._parse(opened, self._source, self)
                self._before, self._input, self._table = self.bytes_read, None, None

    def table(self, path: Path) -> Parquet:
        """The Parquet file at `path`, by which `bytes_read` goes now."""
        self._table = Parquet(path)
        return self._table


def read_clicks(source: Source) -> Reader[list[Record]]:
    """Batches of some 5,000 records for the topic `clicks`.

    Columns `user_id`, `item_id` and `ts` are needed, `event_type`, `weight` and `event_id` are
    taken if there, others are ignored. A line of CSV is one record: no newlines inside quotes.
    JSONL passes as it is, except that `ts` becomes milliseconds. An unreadable line is a record of
    its raw bytes without a time, one of more than LINE_BYTES of its first bytes; blank lines are
    skipped.
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


class _FirstHead(msgspec.Struct):
    item_id: Any = None
    user_id: Any = None
    ts: Any = None
    attributes: Any = None


_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_click = msgspec.json.Decoder(_ClickHead).decode
_decode_item = msgspec.json.Decoder(_ItemHead).decode
_decode_first = msgspec.json.Decoder(_FirstHead).decode


def _suffix(path: Path) -> str:
    if path.suffix.lower() in COMPRESSIONS:
        path = Path(path.stem)
    return path.suffix.lower()


def _is_json(path: Path, first: bytes) -> bool:
    """Whether these are JSON lines. ConfigError for one JSON document over many lines."""
    suffix = _suffix(path)
    # No name of a column begins with a brace.
    is_json = first.startswith(b"{") or suffix in _JSON_SUFFIXES
    if not is_json and not (first.startswith(b"[") and not suffix):
        return False
    line = first.partition(b"\n")[0].strip()
    if line in (b"[", b"{") or (line.startswith(b"[") and line.endswith(b",")):
        raise ConfigError(
            f"{name_of(path)}: is one JSON document over many lines, and each record needs a line "
            "of its own: take `jq -c '.[]'` of it"
        )
    return True


def _begin(blocks: Blocks) -> tuple[int, bytes]:
    """The number of the first line that is not blank, and the first block from there on."""
    number = 1
    for block in blocks:
        if isinstance(block, CutLine):
            return number, block
        if block.strip():
            blank = _BLANK.match(block)
            at = blank.end() if blank else 0
            return number + block.count(b"\n", 0, at), block[at:]
        number += block.count(b"\n") + 1
    return number, b""


_BLANK = re.compile(rb"(?:[ \t\r]*\n)+")


def _refuse_table_options(path: Path, source: Source) -> None:
    for option, given in (("--columns", source.columns), ("--delimiter", source.delimiter)):
        if given is not None:
            raise ConfigError(
                f"{name_of(path)}: {option} is for tables such as CSV, and this is JSONL. Where "
                "its fields are, section [clicks.fields] says; publish takes user_id, item_id, ts"
            )


def _clicks(opened: Input, source: Source, reader: Reader[list[Record]]) -> Iterator[list[Record]]:
    path = opened.path
    if opened.is_parquet:
        yield from _parquet_clicks(reader.table(path), path, source, reader.findings)
        return
    blocks = opened.lines()
    number, first = _begin(blocks)
    if not first:
        return
    if _is_json(path, first):
        _refuse_table_options(path, source)
        convert = _pass_click if source.time == "ms" else _convert_click(source.time)
        if source.foreign:
            convert = _as_it_is
        yield from _json_clicks(chain([first], blocks), path, convert, number)
        return
    if isinstance(first, CutLine):
        raise ConfigError(f"{name_of(path)}: the first line {_TOO_LONG.message}; is it a table?")
    head, end, rest = first.partition(b"\n")
    header = _header(path, text_of(head), source)
    if header.is_first_line and isinstance(source.columns, list):
        reader.findings.add(findings.HEADER, name_of(path))
    table = ClickTable(path, header, source.time, source.nulls, reader.findings)
    begin = [first]
    if header.is_first_line:
        number, begin = number + 1, [rest] if end else []
    for block in chain(begin, blocks):
        if isinstance(block, CutLine):
            yield [Record(None, bytes(block), None, path, number, _TOO_LONG)]
        else:
            yield table.lines(text_of(block), number)
        number += block.count(b"\n") + 1


_TOO_LONG = Flaw("long", f"has more than {opening.LINE_BYTES >> 20} MiB, of which only the "
                 "beginning is kept")  # fmt: skip


def _header(path: Path, first: str, source: Source) -> Header:
    delimiter = headers.delimiter_of(first, _suffix(path), source.columns, NEEDED, source.delimiter)
    try:
        fields = headers.splitter(delimiter)(first)
    except csv.Error as error:
        raise ConfigError(f"{name_of(path)}: the first line has broken quotes: {error}") from None
    return headers.read(name_of(path), fields, source.columns, delimiter, NEEDED, CLICK_COLUMNS)


def _parquet_clicks(
    parquet: Parquet, path: Path, source: Source, found: Findings
) -> Iterator[list[Record]]:
    header = _parquet_header(parquet, path, source, NEEDED)
    is_temporal = parquet.columns[header.columns.index("ts")] in parquet.temporal
    unit = "iso" if is_temporal else source.time
    table, number = ClickTable(path, header, unit, source.nulls, found), 1
    for rows in parquet.batches():
        yield table.rows(rows, number)
        number += len(rows)


def _parquet_header(
    parquet: Parquet, path: Path, source: Source, needed: tuple[str, ...]
) -> Header:
    """ConfigError for columns that are named by their order, which the file names itself."""
    if isinstance(source.columns, list):
        raise ConfigError(
            f"{path}: Parquet names its columns ({', '.join(parquet.columns)}); give them others "
            "with --columns NAME=COLUMN"
        )
    known = CLICK_COLUMNS if needed else ()
    return headers.read(str(path), parquet.columns, source.columns, ",", needed, known)


Parts = tuple[bytes | None, bytes, int | None, Flaw | None]
"""Key, value, time and flaw of a record."""


def _json_clicks(
    blocks: Iterable[bytes], path: Path, convert: Callable[[bytes], Parts], number: int
) -> Iterator[list[Record]]:
    """`number` is that of the first line."""
    number -= 1
    for block in blocks:
        records = []
        for line in block.split(b"\n"):
            number += 1
            if isinstance(block, CutLine):
                records.append(Record(None, line, None, path, number, _TOO_LONG))
            elif line.strip():
                key, value, time, flaw = convert(line)
                records.append(Record(key, value, time, path, number, flaw))
        yield records


def _as_it_is(line: bytes) -> Parts:
    return None, line, None, None


def _pass_click(line: bytes) -> Parts:
    try:
        head = _decode_click(line)
        text, time = str(head.ts), head.ts if type(head.ts) is int else None
        # What is no time at all is the decoder's to judge, as in a topic.
        if isinstance(head.ts, str | int) and (flaw := _misread(text)):
            return None, line, None, flaw
        return key_of(head.user_id), line, time, None
    except UNREADABLE:
        return _as_it_is(line)


def _misread(text: str) -> Flaw | None:
    """What is wrong with a time in ms that is one in another unit."""
    try:
        TO_MS["ms"](text)
    except ValueError:
        return time_flaw(text, "ms") if reads(text, "auto") else None
    return None


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


def _items(opened: Input, source: Source, reader: Reader[Record]) -> Iterator[Record]:
    path = opened.path
    parquet = reader.table(path) if opened.is_parquet else None
    blocks: Blocks = opened.lines() if parquet is None else iter(())
    number, first = _begin(blocks)
    number -= 1

    def lines() -> Blocks:
        nonlocal number
        for block in chain([first], blocks):
            if isinstance(block, CutLine):
                number += 1
                raise ValueError(_TOO_LONG.message)
            for line in block.split(b"\n"):
                number += 1
                yield line

    try:
        if parquet is not None:
            header = _parquet_header(parquet, path, source, ())
            headers.refuse_clicks(name_of(path), header.columns, NEEDED)
            for row in chain.from_iterable(parquet.batches()):
                number += 1
                yield Record(*item(header.columns, row, source.nulls), None, path, number)
            return
        if _is_json(path, first):
            _refuse_table_options(path, source)
            records = (line for line in lines() if line.strip())
            for line in islice(records, 1):
                head = _decode_first(line)
                there = [name for name in NEEDED if getattr(head, name) is not None]
                if head.attributes is None:
                    headers.refuse_clicks(name_of(path), there, NEEDED)
                yield Record(item_key(head.item_id), line, None, path, number)
            for line in records:
                yield Record(item_key(_decode_item(line).item_id), line, None, path, number)
            return
        if not first:
            return
        begin = text_of(first.partition(b"\n")[0])
        between = headers.delimiter_of(begin, _suffix(path), source.columns, (), source.delimiter)
        texts = (text_of(line) for line in lines())
        rows: Iterator[list[str]] = (
            map(headers.splitter(between), texts)
            if between == "\t" or len(between) > 1
            # Quotes of an item may go over lines.
            else csv.reader((text + "\n" for text in texts), delimiter=between, strict=True)
        )
        fields = next(rows)
        header = headers.read(name_of(path), fields, source.columns, between, (), ())
        headers.refuse_clicks(name_of(path), header.columns, NEEDED)
        if not header.is_first_line:
            rows = chain([fields], rows)
        for row in rows:
            if any(row):
                yield Record(*item(header.columns, row, source.nulls), None, path, number)
    except UNREADABLE as error:
        wrong = f"it {NOT_UTF_8}" if isinstance(error, UnicodeError) else why(error)
        raise WalkstreamError(
            f"{name_of(path)}: line {number} is no item: {wrong}. Correct it and publish "
            "again; items sent twice do no harm"
        ) from error
