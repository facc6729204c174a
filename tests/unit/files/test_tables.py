"""Tables as other programs write them: delimiters, names of columns, texts for nothing."""

import json
from pathlib import Path

import pytest

from streamer.cli.options import Reading
from streamer.errors import ConfigError
from streamer.files.lines import Record
from streamer.files.readers import Source, read_clicks, read_items
from streamer.files.times import time_flaw

NOW = 1_790_000_000_000


def read(path: Path, text: str, **options: object) -> tuple[list[Record], list[str]]:
    """Records of a file with this text under the options of a command, and what was odd."""
    path.write_text(text)
    reader = read_clicks(Reading(**options).source([path]))  # type: ignore[arg-type]
    return [record for batch in reader for record in batch], list(reader.findings.lines())


ONE = {"user_id": "u", "item_id": "a", "ts": NOW}


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("c.csv", "user_id;item_id;ts\nu;a;{ts}", {}),
        ("c.csv", "user_id|item_id|ts\nu|a|{ts}", {}),
        ("c.csv", "user_id\titem_id\tts\nu\ta\t{ts}", {}),
        ("c.tsv", "user_id,item_id,ts\nu,a,{ts}", {}),
        ("c.txt", "x,y;user_id;item_id;ts\n1,5;u;a;{ts}", {}),
        ("c.dat", "u::a::{ts}", {"columns": "user_id,item_id,ts", "delimiter": "::"}),
        ("c.csv", "u;a;{ts};1,2,3", {"columns": "user_id,item_id,ts,_"}),
        ("c.csv", "u a {ts}", {"columns": "user_id,item_id,ts", "delimiter": " "}),
        ("c", "ts,v,p\n{ts},u,a", {"columns": "user_id=v,item_id=p,ts=ts"}),
        ("c", "ts,v,p,user_id\n{ts},u,a,other", {"columns": "user_id=v,item_id=p,ts=ts"}),
        ("c.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t{ts}", {}),
        ("c.csv", "who,what,when\nu,a,{ts}", {"columns": "user_id, item_id, ts"}),
        ("c.csv", '"user_id";"item_id";"ts"\n"u";"a";"{ts}"', {}),
        ("c.csv", "user_id,item_id,ts\nu,a,{s}", {"time": "s"}),
        ("c.csv", "user_id,item_id,ts\nu,a,{s}000000", {"time": "us"}),
        ("c.csv", "user_id,item_id,ts\nu,a,{s}000000000", {"time": "ns"}),
        ("c.csv", "user_id,item_id,ts\nu,a,{s}000000000", {"time": "auto"}),
        ("c.csv", "user_id,item_id,ts\nu,a,{s}.0", {"time": "auto"}),
        ("c.csv", "user_id,item_id,ts\nu,a,2026-09-21 14:13:20 UTC", {"time": "auto"}),
        ("c.csv", "user_id,item_id,ts\nu,a,2026-09-21 16:13:20 +0200", {"time": "iso"}),
    ],
)
def test_a_click_is_the_same_from_every_table(
    tmp_path: Path, name: str, text: str, options: dict[str, object]
) -> None:
    (record,), _ = read(tmp_path / name, text.format(ts=NOW, s=NOW // 1000), **options)
    assert json.loads(record.value) == ONE


def test_weights_have_a_comma_between_semicolons(tmp_path: Path) -> None:
    text = f"user_id;item_id;ts;weight\nu;a;{NOW};1,5\nu;a;{NOW};2\nu;a;{NOW};x"
    records, _ = read(tmp_path / "c.csv", text)
    assert [json.loads(record.value)["weight"] for record in records[:2]] == [1.5, 2.0]
    assert records[2].flaw is not None


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("timestamp,visitorid,event,itemid\n", {}, "is it --columns user_id=visitorid,"
         "item_id=itemid,ts=timestamp,event_type=event?"),
        ("a,b,c\n", {}, "--columns user_id=COLUMN,item_id=COLUMN,ts=COLUMN"),
        ("user_id,item_id,ts,ts\n", {}, "column 'ts' is there 2 times"),
        ("a,b,t,t\n", {"columns": "user_id=a,item_id=b,ts=t"}, "column 't' is there 2 times"),
        ("a,b,t\n", {"columns": "user_id,user_id,ts"}, "no column 'item_id'"),
        ("a,b,t\n", {"columns": "user_id,item_id,item_id,ts"}, "has 3 columns and 4 are named"),
        ("a,b,t\n", {"columns": "user_id=a,item_id=b,ts=zz"}, "no column 'zz' among a, b, t"),
        ("a,b,t\n", {"columns": "user_id=a,item_id=b,time=t"}, "time is no column of a click"),
        ("a,b,t\n", {"columns": "user_id=a,item_id=a,ts=t"}, "gives one column two names"),
        ("a,b,t\n", {"columns": "user_id=a,user_id=b"}, "names a column twice"),
        ("a,b,t\n", {"columns": "user_id=a,item_id"}, "item_id names no column"),
        ("a,b,t\n", {"delimiter": ""}, "--delimiter: must be a text"),
        ("{}\n", {"delimiter": ";"}, "--delimiter is for tables such as CSV, and this is JSONL"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_say_what_to_give(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path / "c.csv", text, **options)
    assert message in str(refusal.value)


@pytest.mark.parametrize("null", ["NULL", "null", "None", "nan", "NaN", "\\N", ""])
def test_a_user_that_stands_for_none_is_a_dead_letter(tmp_path: Path, null: str) -> None:
    text = f"user_id,item_id,ts,weight\n{null},a,{NOW},1\nu,{null},{NOW},1\nu,a,{NOW},{null}"
    records, _ = read(tmp_path / "c.csv", text)
    flaws = [record.flaw for record in records]
    assert [flaw is None for flaw in flaws] == [False, False, True]
    assert "has no user_id" in str(flaws[0])
    assert json.loads(records[2].value) == ONE


def test_null_lists_the_texts_that_stand_for_none(tmp_path: Path) -> None:
    text = f"user_id,item_id,ts\nNULL,a,{NOW}\n-,a,{NOW}"
    assert [r.flaw is None for r in read(tmp_path / "c.csv", text, null="-,0")[0]] == [True, False]
    assert [r.flaw is None for r in read(tmp_path / "c.csv", text, null="")[0]] == [True, True]
    (tmp_path / "i.csv").write_text("item_id,name,tag\n1,NULL,x\n2,Mug,nan")
    items = [json.loads(item.value) for item in read_items(Source([tmp_path / "i.csv"]))]
    assert [item["attributes"] for item in items] == [{"tag": "x"}, {"name": "Mug"}]


def test_damaged_ids_are_told_with_their_count(tmp_path: Path) -> None:
    lines = [f"4.00638E+12,a,{NOW}", f"1.0,a,{NOW}", f"u,2.0,{NOW}", f"v1.0,3e5x,{NOW}"]
    records, notes = read(tmp_path / "c.csv", "\n".join(["user_id,item_id,ts", *lines]))
    assert all(record.flaw is None for record in records)
    assert len(notes) == 2
    assert notes[0].startswith(
        "ids that look shortened by a spreadsheet: 1, the first 4.00638E+12 ("
    )
    assert notes[1].startswith("ids that end in .0: 2, as pandas writes")


def test_a_header_in_the_middle_is_told_as_one(tmp_path: Path) -> None:
    head = "user_id,item_id,ts"
    records, _ = read(tmp_path / "c.csv", f"{head}\nu,a,{NOW}\n{head}\nu,a,{NOW}")
    assert [record.flaw and record.flaw.kind for record in records] == [None, "header", None]


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("1790000000", "ms", "in 1970 as ms, and in 2026 as s; is it --time s"),
        ("1790000000000000", "ms", "not between 1970 and 9999 as ms, and in 2026 as us"),
        ("1790000000000", "s", "not between 1970 and 9999 as s, and in 2026 as ms"),
        ("1790000000000", "us", "in 1970 as us, and in 2026 as ms"),
        ("1790000000", "iso", "which is no time such as 2026-01-31T12:00:00Z, and in 2026 as s"),
        ("253402300800", "s", "not between 1970 and 9999 in s"),
        ("-1", "s", "not between 1970 and 9999 in s"),
        ("1.79E+12", "ms", "a time that a spreadsheet shortened"),
        ("29/03/2026 03:00", "iso", "no time such as"),
        ("2026-03-29T03:00:05 Europe/Berlin", "iso", "no time such as"),
        ("17", "auto", "no time in s, ms, us or ns"),
        ("nan", "ms", "no number of milliseconds"),
    ],
)
def test_a_time_that_is_none_says_what_it_would_be(text: str, unit: str, message: str) -> None:
    flaw = time_flaw(text, unit)  # type: ignore[arg-type]
    assert flaw is not None
    # As it was written, in whatever unit.
    assert f"ts is '{text}', which is " in flaw.message
    assert message in flaw.message


@pytest.mark.parametrize(
    ("text", "unit"),
    [("17", "ms"), ("1.7900000000E+12", "ms"), ("1790000000.0", "s"), ("5", "order"), ("0", "ns")],
)
def test_old_and_invented_times_are_times(text: str, unit: str) -> None:
    assert time_flaw(text, unit) is None  # type: ignore[arg-type]


def test_seconds_in_json_are_not_taken_for_ms(tmp_path: Path) -> None:
    lines = [{"user_id": "u", "item_id": "a", "ts": ts} for ts in (NOW // 1000, str(NOW), NOW, 5)]
    records, _ = read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, lines)))
    assert [record.flaw is None for record in records] == [False, True, True, True]
    assert "is it --time s, or auto?" in str(records[0].flaw)
    records, _ = read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, lines)), time="auto")
    assert [record.time for record in records] == [NOW, NOW, NOW, None]


@pytest.mark.parametrize("text", ["1_7", "١٧", "1_700_000_000_000"])
def test_a_time_that_only_python_takes_for_a_number_is_none(text: str) -> None:
    for unit in "ms", "s", "order", "auto":
        assert time_flaw(text, unit) is not None


@pytest.mark.parametrize("text", ["1_0", "١", "9" * 400, "inf", "x"])
def test_a_weight_that_is_no_number_is_a_flaw(tmp_path: Path, text: str) -> None:
    records, _ = read(tmp_path / "c.csv", f"user_id,item_id,ts,weight\nu,a,{NOW},{text}\n")
    assert records[0].flaw is not None
    assert records[0].flaw.kind == "weight"


@pytest.mark.parametrize("unit", ["ms", "s", "ns", "order", "auto"])
def test_a_time_that_no_float_holds_is_a_flaw(unit: str) -> None:
    assert time_flaw("9" * 400, unit) is not None  # type: ignore[arg-type]
