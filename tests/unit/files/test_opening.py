"""Files are known by their content, and read once, whatever their names say."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from streamer.errors import ConfigError, WalkstreamError
from streamer.files import opening
from streamer.files.lines import STDIN, Record
from streamer.files.opening import KEPT_BYTES, LINE_BYTES
from streamer.files.readers import Source, read_clicks, read_items
from streamer.files.tables import NEEDED

TABLE = b"user_id,item_id,ts\nu1,i1,5000\nu2,i2,6000\n"
BOM = b"\xef\xbb\xbf"


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def clicks(path: Path, **how: object) -> list[Record]:
    return [record for batch in read_clicks(Source([path], **how)) for record in batch]  # type: ignore[arg-type]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "packed",
    [gzip.compress, bz2.compress, lzma.compress, zstd.compress, lambda data: data],
    ids=["gz", "bz2", "xz", "zst", "plain"],
)
@pytest.mark.parametrize("name", ["c", "c.csv", "c.csv.gz", "c.csv.zst"])
def test_what_compressed_a_file_is_seen_in_it_and_not_in_its_name(
    tmp_path: Path, name: str, packed: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / name, packed(TABLE * 1) + packed(b"u3,i3,7000\n"))
    reader = read_clicks(Source([path]))
    assert [record.key for batch in reader for record in batch] == [b"u1", b"u2", b"u3"]
    assert reader.bytes_read == reader.total_bytes == path.stat().st_size


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_with_its_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    text = "user_id,item_id,ts\r\nü,日本,5000\r\n".encode(encoding)
    (record,) = clicks(write(tmp_path / "c.csv", mark + text))
    assert (record.key, record.time) == ("ü".encode(), 5000)
    with pytest.raises(WalkstreamError, match="damaged text data"):
        clicks(write(tmp_path / "c.csv", mark + text + b"x"))


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_the_mark_of_a_file_that_was_appended_is_no_part_of_a_record(
    tmp_path: Path, name: str
) -> None:
    one, two = (
        (b'{"user_id":"u%d","item_id":"i","ts":5}\n' % n for n in (1, 2))
        if name == "c.jsonl"
        else (b"user_id,item_id,ts\nu1,i,5\n", b"u2,i,5\n")
    )
    records = clicks(write(tmp_path / name, BOM + one + BOM + two))
    assert [record.key for record in records] == [b"u1", b"u2"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04rest", "is a ZIP archive, as those of Excel are"),
        (b"\x04\x22\x4d\x18rest", "is compressed by lz4"),
        (b"Obj\x01rest", "is Avro"),
        (b"ORC\nrest", "is ORC"),
        (gzip.compress(gzip.compress(TABLE)), "is gzip in gzip"),
        (gzip.compress(b"a" * 257 + b"ustar  \0"), "is a tar archive"),
        (TABLE.decode().encode("utf-16-le"), "is text in UTF-16LE; send `iconv -f UTF-16LE"),
        (TABLE.decode().encode("utf-16-be"), "is text in UTF-16BE; send `iconv -f UTF-16BE"),
        (TABLE.decode().encode("utf-32-le"), "is text in UTF-32LE; send `iconv -f UTF-32LE"),
        (b"\x1f\x9d\x90" + bytes(range(40)), "is compressed by compress"),
        (b"\x9d@\x9a\xbfo\xf7\x06\x17\n", "is no text: its first line has bytes"),
        (bytes(5000), "is no text: its first line has bytes"),
        (b"user_id,item_id,ts\ru1,i1,5\r", "carriage returns alone"),
        (b"[\n  {}\n]\n", "one JSON document over many lines"),
        (b'[{"a": 1},\n {"a": 2}]\n', "one JSON document over many lines"),
        (b'{\n  "a": 1\n}\n', "one JSON document over many lines"),
        (b'user_id,"item_id,ts\nu,i,5\n', "the first line has broken quotes"),
        (gzip.compress(b"x" * (LINE_BYTES + 1)), "the first line has more than 8 MiB"),
    ],
    # What is compressed has the time of day in it: each worker of the tests would name it anew.
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_not_read_is_named_and_not_printed(
    tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        clicks(write(tmp_path / "c", data))
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
def test_a_file_that_ends_too_early_is_told_and_what_came_before_is_kept(
    tmp_path: Path, packed: Callable[[bytes], bytes]
) -> None:
    lines = b"".join(b"u%d,i,%d\n" % (n * n, n) for n in range(80_000))
    whole = packed(b"user_id,item_id,ts\n" + lines)
    path = write(tmp_path / "c.csv", whole[: len(whole) * 3 // 4])
    found: list[Record] = []
    with pytest.raises(WalkstreamError, match=rf"{path}: ends too early: its .* cut off") as cut:
        found.extend(chain.from_iterable(read_clicks(Source([path]))))
    assert len(found) > 10_000
    assert f" {len(found) + 1:,} lines before that could be read; fetch" in str(cut.value)
    path = write(tmp_path / "c.csv", packed(TABLE)[:-9])
    with pytest.raises(WalkstreamError, match=r"cut off\. No line of it could be read; fetch"):
        clicks(path)


def test_damage_in_the_middle_is_told_with_what_was_read(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(TABLE))
    data[-8] ^= 1  # of the checksum
    with pytest.raises(WalkstreamError, match=r"damaged gzip data \(CRC.*No line of it could be"):
        clicks(write(tmp_path / "c.csv", bytes(data)))


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_a_line_without_end_costs_one_record(tmp_path: Path, name: str) -> None:
    long = b"x" * (3 * LINE_BYTES)
    good = b'{"user_id":"u","item_id":"i","ts":5}' if name == "c.jsonl" else b"u,i,5"
    head = [] if name == "c.jsonl" else [b"user_id,item_id,ts"]
    lines = [*head, good, long, good, b"", long, long, good]
    first = len(head)
    records = clicks(write(tmp_path / name, b"\n".join(lines)))
    assert [record.line - first for record in records] == [1, 2, 3, 5, 6, 7]
    assert [record.flaw is None for record in records] == [True, False, True, False, False, True]
    assert {len(record.value) for record in records if record.flaw} == {KEPT_BYTES}
    assert "more than 8 MiB" in str(records[1].flaw)
    with pytest.raises(WalkstreamError, match="line 2 is no item: has more than 8 MiB"):
        list(read_items(Source([write(tmp_path / "i.csv", b"item_id\n" + long)])))


def test_blocks_of_any_size_give_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [b"user_id,item_id,ts", b"u,i,5", b"", b"long" * 20, b"u,i,6", b"long" * 40]
    path = write(tmp_path / "c.csv", b"\n".join(lines))
    monkeypatch.setattr(opening, "LINE_BYTES", 60)
    found = set()
    for size in (7, 20, 64, 1000):
        monkeypatch.setattr(opening, "BLOCK_BYTES", size)
        found.add(tuple((record.line, record.flaw is None) for record in clicks(path)))
    # A line that came whole in a block was no danger.
    assert {tuple(line for line, _ in one) for one in found} == {(2, 4, 5, 6)}


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def fill() -> None:
        with fifo.open("wb") as pipe:
            pipe.write(gzip.compress(TABLE))

    writer = threading.Thread(target=fill)
    writer.start()
    reader = read_clicks(Source([fifo]))
    assert [record.key for batch in reader for record in batch] == [b"u1", b"u2"]
    assert reader.total_bytes is None
    writer.join()


def test_what_is_no_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in (
        (tmp_path, "is a folder; name the files in it"),
        (tmp_path / "none", "there is no such file"),
        (write(tmp_path / "file", b"x") / "below", "cannot be read: Not a directory"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_clicks(Source([path]))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        read_clicks(Source([STDIN]))


def test_parquet_is_a_table_whose_times_need_no_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.parquet"
    ns = pyarrow.array([1_700_000_000_123_456_789, None], pyarrow.timestamp("ns"))
    columns = {"visitor": [7, 8], "item_id": ["a|b", "c"], "when": ns, "weight": [0.5, None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    named = {"user_id": "visitor", "ts": "when"}
    reader = read_clicks(Source([path], named))
    good, bad = [record for batch in reader for record in batch]
    assert good.value == b'{"user_id":"7","item_id":"a|b","ts":1700000000123,"weight":0.5}'
    assert bad.flaw is not None
    assert bad.value == b'["8","c","",""]'
    assert reader.bytes_read == reader.total_bytes
    with pytest.raises(ConfigError, match="is it --columns user_id=visitor"):
        clicks(path)
    with pytest.raises(ConfigError, match="Parquet names its columns"):
        clicks(path, columns=["user_id", "item_id", "ts", "weight"])
    items = tmp_path / "items"
    pyarrow.parquet.write_table(
        pyarrow.table({"item_id": [1], "tags": [["x", "y"]], "none": [None]}), items
    )
    (item,) = read_items(Source([items]))
    assert item.value == b'{"item_id":"1","attributes":{"tags":["x","y"]}}'
    pyarrow.parquet.write_table(pyarrow.table({n: [5] for n in NEEDED}), items)
    with pytest.raises(ConfigError, match="so these are clicks"):
        list(read_items(Source([items])))
    with pytest.raises(WalkstreamError, match="damaged Parquet"):
        clicks(write(tmp_path / "cut", path.read_bytes()[:-9]))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    with pytest.raises(ConfigError, match="read from its end; name a file on disk"):
        clicks(STDIN)


def test_a_catalogue_may_say_beside_its_attributes_who_sells_and_since_when(tmp_path: Path) -> None:
    line = b'{"item_id":"a","user_id":"7","ts":5,"attributes":{"brand":"x"}}'
    (item,) = read_items(Source([write(tmp_path / "items.jsonl", line)]))
    assert item.value == line
    clicks = line.replace(b',"attributes":{"brand":"x"}', b"")
    with pytest.raises(ConfigError, match="so these are clicks"):
        list(read_items(Source([write(tmp_path / "clicks.jsonl", clicks)])))


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r'pip install "\.\[parquet\]"'):
        clicks(write(tmp_path / "c.parquet", b"PAR1 and more"))
