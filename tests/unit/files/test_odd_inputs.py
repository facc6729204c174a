"""No file, folder or pipe ends a command in a traceback, whatever is in it."""

import bz2
import gzip
import random
from pathlib import Path

import pytest

from streamer.state.store import Store
from tests.unit.conftest import Run

GOOD = b"user_id,item_id,ts\n" + b"".join(
    b"u%d,i%d,%d\n" % (n % 5, n % 7, 1_790_000_000_000 + n * 1000) for n in range(60)
)
JSON = b"".join(
    b'{"user_id":"u%d","item_id":"i%d","ts":%d}\n' % (n % 5, n % 7, 1_790_000_000_000 + n * 1000)
    for n in range(60)
)
ODD = {
    "empty.csv": b"",
    "empty.gz": b"",
    "blank.csv": b"\n\n\n",
    "blanks.jsonl": b" \n\t\n\r\n",
    "head.csv": b"user_id,item_id,ts",
    "quotes.csv": b'user_id,item_id,ts\n"u,a,1\nu,"a"b,1\nu,a,"1\n' + b'"' * 5000,
    "wide.csv": b"user_id,item_id,ts\n" + b"," * 200_000 + b"\n",
    "field.csv": b'user_id,item_id,ts\n"' + b"x" * 200_000 + b'",a,1\n',
    "nul.csv": b"user_id,item_id,ts\nu\0,a,1790000000000\n",
    "latin.csv": "user_id,item_id,ts\nü,é,1790000000000\n".encode("latin-1"),
    "head-latin.csv": "üser,item_id,ts\nu,a,5\n".encode("latin-1"),
    "surrogate.jsonl": b'{"user_id":"\\ud800","item_id":"a","ts":1790000000000}\n',
    "deep.jsonl": b'{"user_id":' + b"[" * 100_000 + b"\n",
    "huge.jsonl": b'{"user_id":"u","item_id":"a","ts":' + b"9" * 6000 + b"}\n",
    "types.jsonl": b'{"user_id":true,"item_id":{},"ts":[]}\n[]\n1\nnull\n"x"\n{}\n',
    "times.csv": b"user_id,item_id,ts\n"
    + b"".join(
        b"u,a,%s\n" % t for t in (b"inf", b"-0", b"1e999", b"9" * 5000, b" ", b"0x1f", b"1_0")
    ),
    "weights.csv": b"user_id,item_id,ts,weight\nu,a,1790000000000,1e400\nu,a,1790000000000,-1\n",
    "gzip-tail.csv.gz": gzip.compress(GOOD) + b"tail",
    "gzip-cut.csv.gz": gzip.compress(GOOD)[:-20],
    "bz2-cut": bz2.compress(GOOD)[:-9],
    "zst": b"\x28\xb5\x2f\xfd\xff\xff",
    "parquet": b"PAR1" + b"\0" * 50,
    "utf16-odd.csv": b"\xff\xfe" + "user_id,item_id,ts\n".encode("utf-16-le") + b"\x00\xd8",
    "utf32.csv": "user_id,item_id,ts\nu,a,5\n".encode("utf-32"),
    "same.csv": b"user_id,user_id,item_id,ts\nu,u,a,5\n",
}
MARKS = (b'"', b"\n", b",", b"\xff", b"\x1b[2J", b"\0", b"\xef\xbb\xbf")
COMMANDS = ("replay", "publish --dry-run", "publish --dry-run --items", "evaluate")


def for_command(command: str, data: bytes) -> bytes:
    """The data, in a catalogue with another name for the times: else it is refused as clicks."""
    if "--items" in command:
        return data.replace(b",ts", b",at").replace(b'"ts"', b'"at"')
    return data


@pytest.fixture
def tries(tmp_path: Path, run: Run) -> Run:
    number = 0

    def one(command: str, *line: str | Path) -> tuple[int, str, str]:
        nonlocal number
        number += 1
        words = command.split()
        out = ["--out", tmp_path / f"out{number}"] if words[0] == "replay" else []
        code, stdout, stderr = run(words[0], *line, *words[1:], *out)
        told = stdout + stderr
        assert "Traceback" not in told, (command, line, told)
        assert code in (0, 1, 2), (command, line, told)
        assert told, (command, line)
        assert len(told) < 10_000, (command, line, told)
        if code:
            assert "walkstream: " in stderr, (command, line, told)
        return code, stdout, stderr

    return one


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read_or_refused_in_words(tmp_path: Path, tries: Run, name: str) -> None:
    path = tmp_path / name
    for command in COMMANDS:
        path.write_bytes(for_command(command, ODD[name]))
        tries(command, path)


@pytest.mark.parametrize(
    ("name", "lines", "items", "code", "said"),
    [
        ("c.csv", b"\n \t\n\r\nuser_id,item_id,ts\nu,a,1790000000000\nu,,\n", False, 0, "line 6"),
        ("c", b'\n{"user_id":"u","item_id":"a","ts":1790000000000}\n{}\n', False, 0, "line 3"),
        ("i.csv", b"\n\nitem_id,name\na,A\n", True, 0, "1 item; attributes: name"),
        ("mark.csv", b"\xef\xbb\xbf\n", False, 1, "there is no record in the input"),
        ("c.jsonl", b"null\n[[[\n", False, 2, "no record of the input can be used"),
        ("c.jsonl", b"null\n", False, 2, "must be an object, not null"),
        ("i.jsonl", b'{"item_id":"a","attributes":[]}\n', True, 2, "no record of the input"),
        ("c.csv", b"user_id,item_id,ts\nu,a,never\n", False, 2, "no record of the input"),
    ],
)
def test_blank_lines_before_all_and_no_line_that_is_good(
    tmp_path: Path, tries: Run, name: str, lines: bytes, items: bool, code: int, said: str
) -> None:
    (tmp_path / name).write_bytes(lines)
    command = "publish --dry-run --items" if items else "publish --dry-run"
    got, stdout, stderr = tries(command, tmp_path / name)
    assert said in stdout + stderr
    assert got == code, stdout + stderr


@pytest.mark.parametrize("seed", range(12))
def test_a_file_that_was_damaged_at_random_is_no_end(tmp_path: Path, tries: Run, seed: int) -> None:
    draw = random.Random(seed)
    for name, whole in (("c.csv", GOOD), ("c.jsonl", JSON), ("c.gz", gzip.compress(GOOD))):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 10, 200))):
            at = draw.randrange(len(data))
            what = draw.choice(("flip", "cut", "twice", "odd"))
            if what == "flip":
                data[at] = draw.randrange(256)
            elif what == "cut":
                del data[at : at + draw.randrange(8)]
            elif what == "twice":
                data[at:at] = data[at : at + draw.randrange(30)]
            else:
                data[at:at] = draw.choice(
                    (b'"', b"\n", b",", b"\xff", b"\x1b[2J", b"\0", b"\xef\xbb\xbf")
                )
            data = data or bytearray(b"x")
        command = draw.choice(COMMANDS)
        (tmp_path / name).write_bytes(for_command(command, bytes(data)))
        tries(command, tmp_path / name)


def test_what_is_no_file_or_folder_is_told(tmp_path: Path, tries: Run, run: Run) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    for command in COMMANDS:
        for path in (tmp_path, tmp_path / "none", tmp_path / "file" / "below", "\udcff.csv"):
            code, _, _ = tries(command, path)
            assert code == 2
    for line in (
        ["replay", tmp_path / "file", "--out", tmp_path / "file" / "below"],
        ["replay", tmp_path / "file", "--out", tmp_path / "file"],
        ["replay", tmp_path / "file", "--out", tmp_path / "o", "--items", tmp_path],
        ["query", "a", "--state", tmp_path / "file"],
        ["inspect", "--state", tmp_path / "file"],
        ["plot", "--state", tmp_path / "file", "--out", tmp_path / "map.png"],
        ["evaluate", tmp_path / "file", "--plot", tmp_path / "file" / "x.png"],
    ):
        code, _, err = run(*line)
        assert code in (1, 2)
        assert err.startswith("walkstream: "), err
        assert err.count("\n") == 1, err
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Exception, match="cannot be the state folder") as refusal:
            Store(path)
        assert refusal.type.__name__ == "ConfigError"


def test_a_unit_that_would_not_be_used_is_refused_with_the_setting_that_is(
    tmp_path: Path, run: Run
) -> None:
    path, at = tmp_path / "events.jsonl", "2026-01-31T12:00:0{}Z"
    path.write_text(
        "".join(f'{{"who": "u", "item_id": "i{n}", "at": "{at.format(n)}"}}\n' for n in range(5))
    )
    paths = ["--set", "clicks.fields.user_id=who", "--set", "clicks.fields.ts=at"]
    unit = ["--set", "clicks.time_unit=iso"]
    out = ["--out", tmp_path / "out"]
    code, _, err = run("replay", path, *out, *paths, "--time", "iso")
    assert code == 2
    assert "--set clicks.time_unit=UNIT" in err
    code, told, _ = run("replay", path, *out, *paths)
    assert code == 1
    assert "ts ('at') must be a number of ms, not '2026-01-31T12:00:00Z'; is clicks.time" in told
    code, told, _ = run("replay", path, *out, *paths, *unit)
    assert (code, told.split("\n")[0][:21]) == (0, "5 clicks of 5 records")
