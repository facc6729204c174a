import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from streamer.errors import ConfigError, WalkstreamError
from streamer.files.lines import Record
from streamer.files.opening import BLOCK_BYTES
from streamer.files.readers import Source, read_clicks, read_items


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def clicks(source: Source) -> list[Record]:
    return [record for batch in read_clicks(source) for record in batch]


def decoded(records: list[Record]) -> list[tuple[bytes | None, dict[str, object], int | None]]:
    return [(record.key, json.loads(record.value), record.time) for record in records]


ONE = (b"u1", {"user_id": "u1", "item_id": "i1", "ts": 5000}, 5000)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.tsv", b"user_id\titem_id\tts\nu1\ti1\t5000\n"),
        ("c.csv", b"user_id,item_id,ts\nu1,i1,5000\n"),
        ("c.csv", b'\xef\xbb\xbfuser_id,item_id,ts\r\n"u1","i1",5000\r\n'),
        ("c.jsonl", b'{"user_id":"u1","item_id":"i1","ts":5000}'),
        ("c.tsv.gz", b"ts\tother\titem_id\tuser_id\n5000\tx\ti1\tu1\n"),
        ("c.log", b"user_id\titem_id\tts\nu1\ti1\t5000\n"),
        ("c.txt", b'{"user_id":"u1","item_id":"i1","ts":5000}\n'),
        ("c.txt.gz", b"user_id,item_id,ts\nu1,i1,5000\n\n"),
    ],
)
def test_a_click_is_the_same_from_every_format(tmp_path: Path, name: str, data: bytes) -> None:
    assert decoded(clicks(Source([write(tmp_path / name, data)]))) == [ONE]


def test_named_columns_replace_the_header_and_may_be_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", b'5000,9,"a, ""b""",7,cart,0.5,e1\n6000,9,i,8,,,\n')
    source = Source([path], ["ts", "_", "item_id", "user_id", "event_type", "weight", "event_id"])
    full = {"event_type": "cart", "weight": 0.5, "event_id": "e1"}
    assert decoded(clicks(source)) == [
        (b"7", {"user_id": "7", "item_id": 'a, "b"', "ts": 5000} | full, 5000),
        (b"8", {"user_id": "8", "item_id": "i", "ts": 6000}, 6000),
    ]


@pytest.mark.parametrize(
    ("unit", "text", "ms"),
    [
        ("ms", "1259653500000", 1259653500000),
        ("ms", "1259653500000.0", 1259653500000),
        ("s", "1259653500", 1259653500000),
        ("s", "1259653500.25", 1259653500250),
        ("order", "17", 17_000),
        ("iso", "2009-12-01T07:45:00", 1259653500000),
        ("iso", "2009-12-01 07:45:00.125Z", 1259653500125),
        ("iso", "2009-12-01T09:45:00+02:00", 1259653500000),
    ],
)
def test_every_unit_of_time_becomes_milliseconds(
    tmp_path: Path, unit: str, text: str, ms: int
) -> None:
    table = write(tmp_path / "c.tsv", f"user_id\titem_id\tts\nu\ti\t{text}\n".encode())
    assert [record.time for record in clicks(Source([table], None, unit))] == [ms]  # type: ignore[arg-type]
    if unit != "ms":
        ts = json.dumps(text) if unit == "iso" else text
        lines = write(tmp_path / "c.jsonl", f'{{"user_id":7,"ts":{ts},"x":[1.0]}}\n'.encode())
        (record,) = decoded(clicks(Source([lines], None, unit)))  # type: ignore[arg-type]
        assert record == (b"7", {"user_id": 7, "ts": ms, "x": [1.0]}, ms)


def test_json_lines_in_milliseconds_pass_byte_for_byte(tmp_path: Path) -> None:
    lines = [
        b'{ "user_id": 7, "item_id": "a", "ts": 1, "extra": 1e400 }',
        b'{"user_id":"7","ts":"soon"}',
        b'{"user_id":true}',
        b"not json",
        b"\xff\xfe",
        b"[" * 5000,
    ]
    records = clicks(Source([write(tmp_path / "c.jsonl", b"\n".join(lines))]))
    assert [record.value for record in records] == lines
    assert [(record.key, record.time) for record in records] == [(b"7", 1), (b"7", None)] + [
        (None, None)
    ] * 4


@pytest.mark.parametrize(
    "line",
    [
        b"u\ti\tyesterday",
        b"u\ti",
        b"u\ti\t5\textra\tmore",
        b"\ti\t5\t",
        b"u\t\t5\t",
        b"u\xff\ti\t5\t",
        b"u\ti\tnan\t",
        b"u\ti\t1e999\t",
        b"u\ti\t5\theavy",
        b"u\ti\t5\tinf",
        b'{"user_id":',
    ],
)
def test_a_line_that_is_no_click_passes_as_raw_bytes_among_good_ones(
    tmp_path: Path, line: bytes
) -> None:
    good = b"u1\ti1\t5000\t"
    data = b"\n".join([b"user_id\titem_id\tts\tweight", good, line, good])
    records = clicks(Source([write(tmp_path / "c.tsv", data)]))
    assert (records[1].key, records[1].value, records[1].time) == (None, line, None)
    assert records[1].flaw is not None
    assert decoded([records[0], records[2]]) == [ONE, ONE]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("u,i", "columns", "has 2 columns, and there are 4 (user_id,item_id,ts,weight)"),
        (",i,5,", "empty user_id", "has no user_id: the field is empty"),
        ("u,,5,", "empty item_id", "has no item_id: the field is empty"),
        ("u,i,soon,", "time", "ts is 'soon', which is no number of milliseconds"),
        ("u,i,,", "time", "ts is '', which is no number of milliseconds"),
        ("u,i,2026-01-31,", "time", "no number of milliseconds; is it --time iso?"),
        ("u,i,5,heavy", "weight", "weight is 'heavy', which is no finite number"),
        ("u,i,5,-inf", "weight", "weight is '-inf', which is no finite number"),
        ("\udcff,i,5,", "text", "is not in UTF-8"),
        ('"u,i,5,', "quotes", "has broken quotes"),
    ],
)
def test_a_line_that_is_no_click_says_why_and_where(
    tmp_path: Path, line: str, kind: str, message: str
) -> None:
    data = f"user_id,item_id,ts,weight\nu,i,5,\n\n{line}\nu,i,6,\n"
    path = write(tmp_path / "c.csv", data.encode(errors="surrogateescape"))
    good, bad, after = clicks(Source([path]))
    assert bad.flaw is not None
    assert bad.flaw.kind == kind
    assert message in bad.flaw.message
    assert bad.where == f"{path}, line 4"
    assert (good.flaw, after.flaw, after.line) == (None, None, 5)


def test_json_with_a_time_of_another_unit_says_so(tmp_path: Path) -> None:
    lines = b'{"user_id":"u","item_id":"i","ts":1769860800000}\n'
    (record,) = clicks(Source([write(tmp_path / "c.jsonl", lines)], None, "iso"))
    assert record.flaw is not None
    assert (
        "no time such as 2026-01-31T12:00:00Z, and in 2026 as ms; is it --time ms, or auto?"
        in record.flaw.message
    )


def test_a_header_below_named_columns_is_left_out_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", b"who,what,when\nu1,i1,5000\n")
    reader = read_clicks(Source([path], ["user_id", "item_id", "ts"]))
    assert decoded([record for batch in reader for record in batch]) == [ONE]
    (note,) = reader.findings.lines()
    assert note.startswith(f"{path}: the first line looks like a header and was left out")


def test_lines_are_counted_from_a_header_that_came_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return self.readline()

    slow = io.TextIOWrapper(Slow(b"user_id,item_id,ts\nu1,i1,5000\n\nu1\n"))
    monkeypatch.setattr(sys, "stdin", slow)
    first, second = clicks(Source([Path("-")]))
    assert (first.line, second.where) == (2, "standard input, line 4")


def test_an_unclosed_quote_costs_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", b'user_id,item_id,ts\n"u1,i1,5000\nu1,i1,5000\n')
    records = clicks(Source([path]))
    assert (records[0].key, records[0].value) == (None, b'"u1,i1,5000')
    assert decoded(records[1:]) == [ONE]


@pytest.mark.parametrize("name", ["c.tsv", "c.tsv.gz", "c.jsonl"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_across_blocks_stay_whole_and_progress_reaches_the_total(
    tmp_path: Path, name: str, end: bytes
) -> None:
    count = 60_000
    if name == "c.jsonl":
        lines = [b'{"user_id":"u%d","item_id":"i","ts":%d}' % (n, n) for n in range(count)]
    else:
        lines = [b"user_id\titem_id\tts"] + [b"u%d\ti\t%d" % (n, n) for n in range(count)]
    data = end.join(lines)
    assert len(data) > 2 * BLOCK_BYTES
    path = write(tmp_path / name, data)
    reader = read_clicks(Source([path, path]))
    positions, records = [], []
    for batch in reader:
        positions.append(reader.bytes_read)
        records += batch
    expected = [(b"u%d" % n, n) for n in range(count)]
    assert [(record.key, record.time) for record in records] == expected * 2
    first = 1 if name == "c.jsonl" else 2
    assert [record.line for record in records] == [*range(first, first + count)] * 2
    assert reader.total_bytes == 2 * path.stat().st_size == reader.bytes_read
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "data",
    [
        b"user_id,item_id,ts\nu1,i1,5000\n",
        b"user_id\titem_id\tts\nu1\ti1\t5000",
        b'{"user_id":"u1","item_id":"i1","ts":5000}\n',
    ],
)
def test_the_format_of_standard_input_is_seen_from_its_first_line(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    reader = read_clicks(Source([Path("-")]))
    assert decoded([record for batch in reader for record in batch]) == [ONE]
    assert (reader.bytes_read, reader.total_bytes) == (len(data), None)


@pytest.mark.parametrize(
    ("name", "data", "columns", "message"),
    [
        ("c.tsv", b"user\titem_id\tts\n", None, "no column 'user_id' among user, item_id, ts"),
        ("c.csv", b"1,2,3,4\n", ["user_id", "item_id", "ts"], "4 columns and 3 are named"),
        ("c.csv", b"1,2\n", ["user_id", "item_id"], "no column 'ts'"),
        ("c.jsonl", b"{}\n", ["user_id"], "this is JSONL"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, data: bytes, columns: list[str] | None, message: str
) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(ConfigError, match=message):
        clicks(Source([path], columns))


def test_a_missing_file_is_refused_before_reading(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_clicks(Source([tmp_path / "none.tsv"]))


def test_a_truncated_gzip_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    whole = gzip.compress(b"user_id\titem_id\tts\n" + b"u\ti\t5\n" * 1000)
    path = tmp_path / "c.tsv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WalkstreamError, match=r"c\.tsv\.gz: ends too early: its gzip"):
        clicks(Source([path]))


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    source = Source([write(tmp_path / "c.tsv", b"")])
    assert clicks(source) == []
    assert list(read_items(source)) == []


@pytest.mark.parametrize(
    ("name", "data", "columns"),
    [
        ("i.csv", b'name,item,tags\n"Lamp, ""tall""\nbrass",7,a|b\nMug,8,\n', None),
        ("i.csv.gz", b'7,"Lamp, ""tall""\nbrass",a|b\n8,Mug,\n', ["item_id", "name", "tags"]),
        ("i.csv", b'sku,name,tags\r\n7,"Lamp, ""tall""\r\nbrass",a||b\r\n8,Mug,\r\n', None),
    ],
)
def test_columns_of_an_item_are_its_attributes(
    tmp_path: Path, name: str, data: bytes, columns: list[str] | None
) -> None:
    items = list(read_items(Source([write(tmp_path / name, data)], columns)))
    assert [(item.key, json.loads(item.value)) for item in items] == [
        (
            b"7",
            {
                "item_id": "7",
                "attributes": {"name": 'Lamp, "tall"\nbrass', "tags": ["a", "b"]},
            },
        ),
        (b"8", {"item_id": "8", "attributes": {"name": "Mug"}}),
    ]


def test_tsv_items_keep_quotes_and_skip_columns_without_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "i.tsv", b'3\t5" nail\tx\n')
    (item,) = read_items(Source([path], ["_", "name", "item_id"]))
    assert (item.key, item.line) == (b"x", 1)
    assert item.value == b'{"item_id":"x","attributes":{"name":"5\\" nail"}}'


def test_json_items_pass_byte_for_byte_with_their_id_as_key(tmp_path: Path) -> None:
    lines = [b'{ "item_id": 7, "attributes": {"a": "b"}}', b'{"item_id":"x"}']
    path = write(tmp_path / "i.jsonl", b"\n".join(lines))
    items = [(item.key, item.value) for item in read_items(Source([path]))]
    assert items == [(b"7", lines[0]), (b"x", lines[1])]


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("i.tsv", b"item_id\tname\nx\tLamp\n\tMug\n", 3),
        ("i.tsv", b"item_id\tname\nx\n", 2),
        ("i.csv", b'item_id,name\nx,"Lamp\n', 2),
        ("i.tsv", b"item_id\tname\nx\tCaf\xe9\n", 2),
        ("i.jsonl", b'{"item_id":"x"}\n{"id":"y"}\n', 2),
        ("i.jsonl", b'{"item_id":"x"\n', 1),
    ],
)
def test_a_bad_item_stops_with_its_file_and_line(
    tmp_path: Path, name: str, data: bytes, line: int
) -> None:
    with pytest.raises(WalkstreamError, match=rf"{name}: line {line} is no item"):
        list(read_items(Source([write(tmp_path / name, data)])))


def test_the_retail_log_is_read_whole(shared_data: Path) -> None:
    folder = shared_data / "online-retail-2009-2011"
    names = ["user_id", "item_id", "ts", "event_type"]
    records = clicks(Source([folder / "events.tsv.gz"], names))
    assert len(records) == 809_560
    assert all(record.key and record.time for record in records)
    assert json.loads(records[0].value) == {
        "user_id": "13085",
        "item_id": "85048",
        "ts": 1259653500000,
        "event_type": "purchase",
    }
    items = list(read_items(Source([folder / "items.tsv.gz"])))
    assert len({item.key for item in items}) == len(items) == 4770
