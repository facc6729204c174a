"""No text from outside commands a terminal: every command that prints one is asked for it."""

import ast
import io
import json
import logging
import re
from pathlib import Path

import pytest

from streamer import cli
from streamer.files import replay
from streamer.files.readers import Source
from streamer.settings import load as config
from streamer.terminal import Console, fitted, guarded, one_line, printable
from tests.conftest import ROOT
from tests.unit.conftest import Run

LONG = "note: " + "some words to read " * 9 + "\n" + "  and these " * 9 + "\n/" + "x" * 90
EVIL = "\x1b[8mhid\x1b]0;owned\x07\x9b31m\x7f\u202egnp.\u2028\u200f[bold]red"
COMMANDS = ["\x1b[8m", "\x1b]0", "\x07", "\x9b", "\x7f", "\u202e", "\u2028", "\u200f"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clicks on EVIL and others, bad lines, a catalogue with EVIL names, and what is learned."""
    path = tmp_path_factory.mktemp("evil")
    clicks = [
        {"user_id": f"u{n // 4}", "item_id": EVIL if n % 4 == 0 else f"i{n % 7}", "ts": 10**12 + n}
        for n in range(400)
    ]
    clicks.append({"user_id": "u", "item_id": "i", "ts": 10**12 + 500, "event_type": EVIL})
    (path / "clicks.jsonl").write_text("\n".join(map(json.dumps, clicks)))
    (path / "bad.csv").write_text(f"user_id,item_id,ts\nu,i,{EVIL}\n{EVIL}\nu,{EVIL},1000000000000")
    (path / "head.csv").write_text(f"user_id,{EVIL},ts\nu,i,5\n")
    names = [{"item_id": item, "attributes": {"name": EVIL, EVIL: EVIL}} for item in (EVIL, "i1")]
    (path / "items.jsonl").write_text("\n".join(map(json.dumps, names)))
    (path / f"{EVIL}.csv").write_text("item_id\n1")
    source = Source([path / "clicks.jsonl"])
    replay.run(config.load(None, [], {}), source, path / "items.jsonl", path / "out", False)
    return path


def commands(folder: Path) -> list[list[str | Path]]:
    clicks, items = folder / "clicks.jsonl", folder / "items.jsonl"
    state: list[str | Path] = ["--state", folder / "out" / "state"]
    return [
        ["query", EVIL, *state],
        ["query", EVIL, "--json", *state],
        ["replay", folder / "bad.csv", "--out", folder / "other"],
        ["replay", folder / "head.csv", "--out", folder / "other"],
        ["replay", folder / f"{EVIL}.csv", "--out", folder / "other"],
        ["replay", folder / f"no {EVIL}", "--out", folder / "other"],
        ["publish", "--dry-run", folder / "bad.csv"],
        ["publish", "--dry-run", clicks],
        ["publish", "--dry-run", "--items", items],
        ["publish", "--dry-run", "--items", folder / "bad.csv"],
        ["evaluate", clicks, "--set", "round.max_events=20", "--from", "0"],
        ["query", "i1", EVIL, "gone" + EVIL, "--mode", "hybrid", *state],
        ["query", "gone" + EVIL, *state],
        ["inspect", *state],
        ["inspect", "--json", *state],
        ["inspect", "--state", folder / EVIL],
        ["plot", *state, "--out", folder / "map.png", "--by", EVIL],
        ["config", "--set", f"app.name={EVIL}"],
        ["config", "--set", f"{EVIL}=1"],
    ]


@pytest.mark.parametrize("on_terminal", [False, True])
def test_no_command_prints_a_control_character_that_it_was_given(
    folder: Path, run: Run, on_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich writes codes of its own, and only these
        monkeypatch.setenv("COLUMNS", "300")
    shown = 0
    for line in commands(folder):
        _, out, err = run(*line)
        found = [command for command in COMMANDS if command in out + err]
        assert not found, (line, out, err)
        assert out or err, line
        assert "Traceback" not in err, err
        shown += "\\u001b" in out + err
    assert shown >= 10
    assert "[bold]red" in run(*commands(folder)[0])[1]


def test_json_says_the_same_as_without_escapes(folder: Path, run: Run) -> None:
    _, out, _ = run(*commands(folder)[1])
    answer = json.loads(out)
    assert answer["item"] == EVIL
    assert {EVIL: EVIL, "name": EVIL} in [near["attributes"] for near in answer["neighbours"]]


def test_a_log_line_is_one_line_without_commands(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in ("text", "json"):
        run("config", "--json")
        with guarded():
            from streamer.settings.sections import LogSettings
            from streamer.watch import log

            log.setup(LogSettings("info", form))
            logging.getLogger("x").warning("bad id %s\n2026 ERROR forged", EVIL, extra={"k": EVIL})
        _, err = capsys.readouterr()
        assert not [command for command in COMMANDS if command in err]
        assert not any(line.startswith("2026 ERROR") for line in err.splitlines())
        if form == "json":
            assert json.loads(err)["k"] == EVIL


def test_printable_keeps_what_people_write() -> None:
    for text in ("Ünïcode 日本語 \u200d👩\u200d🚀 نص", "a\tb\nc", "\\u001b"):
        assert printable(text) == text
    assert one_line("a\nb\tc") == "a\\nb\\tc"
    assert printable("\udcff \U000e0041") == "\\udcff \\udb40\\udc41"


def test_tables_and_progress_go_through_the_console_that_escapes() -> None:
    assert issubclass(Console, object)
    for path in ROOT.glob("streamer/**/*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                assert "Console" not in [name.name for name in node.names], path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_fit_a_terminal_and_stay_whole_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = fitted(LONG, Terminal()).splitlines()
    assert [line for line in lines if len(line) > 60] == ["/" + "x" * 90]
    assert " ".join(" ".join(lines).split()) == " ".join(LONG.split())
    assert {len(line) - len(line.lstrip()) for line in lines} == {0, 2, 4, 6}
    for stream in (io.StringIO(), None):
        assert fitted(LONG, stream) == LONG


def test_errors_and_reports_fit_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.chdir(tmp_path)  # so that the path is short
    path = Path("c.csv")
    path.write_text("user_id,item_id,ts\n" + "u,i,2026-01-31\n" * 3)
    for line in (["replay", path, "--out", "r"], ["publish", "--dry-run", path]):
        monkeypatch.setattr("sys.argv", ["walkstream", *map(str, line)])
        with pytest.raises(SystemExit):
            cli.main()
    # What erases the bar is no column.
    told = re.sub(r"\x1b\[\w+", "", out.getvalue() + err.getvalue()).splitlines()
    assert [line for line in told if len(line) > 70 and "━" not in line] == []
    assert sum("dead letters of these" in line for line in told) == 1
