"""Fixtures of tests that run commands in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line; gives its exit code, and what it printed to both streams."""

    def runs(*line: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["walkstream", *map(str, line)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return runs
