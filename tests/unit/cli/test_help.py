import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.cli import admin, app
from tests.unit.conftest import Run

ROOT = Path(__file__).parents[3]
GROUPS = {"": app, "topics ": admin.topics, "dlq ": admin.dlq}
NAMES = ["", "topics", "dlq"] + [
    f"{prefix}{command.name or getattr(command.callback, '__name__', '')}"
    for prefix, group in GROUPS.items()
    for command in group.registered_commands
]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_shows_how_to_call_each_command_in_80_columns_with_nothing_cut_off(
    run: Run, name: str
) -> None:
    code, told, _ = run(*name.split(), "--help")
    assert code == 0
    assert name in ("", "topics", "dlq") or f"$ walkstream {name}" in told
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    assert "...}" not in told


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("query 42 --mode foo", "'--mode': 'foo' is not one of 'similar', 'next', 'hybrid'."),
        ("query 42 -k 0", "'-k': Input should be greater than or equal to 1"),
        ("query", "name one of these: an item, or items of a session; --cluster N; --user ID"),
        ("replay clicks.csv", "Missing option '--out'."),
    ],
)
def test_a_wrong_argument_is_named_in_plain_words(run: Run, line: str, said: str) -> None:
    code, _, told = run(*line.split())
    assert code == 2
    assert said in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(
    ("does", "unwanted"),
    [
        ("app(['--help'])", {"numba", "numpy", "confluent_kafka", "rocksdict"}),
        ("app(['init', '-'])", {"numba", "numpy", "confluent_kafka", "rocksdict"}),
        ("app(['config'])", {"numba", "numpy", "rocksdict"}),
        ("from streamer.kafka import rights, topics", {"numba", "numpy", "rocksdict"}),
    ],
)
def test_commands_that_only_talk_import_no_numba(
    tmp_path: Path, does: str, unwanted: set[str]
) -> None:
    script = (
        "import sys\n"
        "from streamer.cli import app\n"
        f"try:\n    {does}\n"
        "except SystemExit:\n    pass\n"
        f"print('LOADED', sorted({unwanted} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["worker", "--help"]])
def test_the_help_names_the_exit_codes(run: Run, words: list[str]) -> None:
    _, told, _ = run(*words)
    assert re.findall(r"^ +• (\d+)", told, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "130"]


def test_a_wrong_setting_ends_a_command_with_one_line_and_exit_code_2() -> None:
    done = command("topics", "check", "--set", "graph.halflife=3d")
    assert done.returncode == 2
    assert done.stderr.startswith("walkstream: graph.halflife: ")
    assert len(done.stderr.splitlines()) == 1
