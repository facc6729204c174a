"""Long commands tell how far they are, also where nobody sees a bar."""

import time
from pathlib import Path

import pytest

from streamer import progress
from streamer.evaluate import run
from streamer.files import replay
from streamer.files.delivery import Display
from streamer.files.readers import Source
from streamer.settings import load
from tests.unit.evaluate.ring import START, visits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, which a test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.Display("replay", 200) as display:
        for position in range(0, 200, 10):
            display.show(position, f"{position} records of a file [that] has a name")
            clock[0] += 2.0
        display.finish(200)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"replay: {position // 2}%, {position} records of a file [that] has a name"
        for position in (50, 100, 150)
    ]


def test_of_an_unknown_size_no_share_is_told(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.Display("replay", None) as display:
        clock[0] += 10.0
        display.show(5, "sorting")
    assert capsys.readouterr().err == "replay: sorting\n"


def test_a_delivery_tells_the_rate_since_the_line_before(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Display("clicks", 4000) as display:
        for position, delivered in ((1000, 900), (2000, 1900), (2500, 1950), (4000, 3900)):
            clock[0] += 5.0
            display.deliver(position, delivered)
    assert capsys.readouterr().err.splitlines() == [
        "clicks: 50%, 1,900 records delivered, 190 a second",
        "clicks: 100%, 3,900 records delivered, 200 a second",
    ]


def test_on_a_terminal_a_bar_is_drawn(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.Display("replay", 10) as display:
        clock[0] += 1.0
        display.show(5, "half of it")
    err = capsys.readouterr().err
    assert "half of it" in err
    assert "50%" in err


@pytest.mark.parametrize("command", ["replay", "evaluate"])
def test_long_commands_tell_how_far_they_are(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    log = tmp_path / "clicks.tsv"
    rows = [row for n in range(4) for row in visits(n, at=400 * n)]
    log.write_text("".join(f"{user}\t{item}\t{START + time}\n" for user, item, time in rows))
    source = Source([log], ["user_id", "item_id", "ts"])
    config = load.load(None, ["model.dim=16", "session.gap=1s", "round.max_events=200"], {})
    if command == "replay":
        replay.run(config, source, None, tmp_path / "out", False)
    else:
        run.run(config, source, run.Options("all", None, False, False, 9, 0.5, True, None))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(command)]
    assert len(lines) >= 4
    assert lines[-1].startswith(f"{command}: 100%, 800 ")
