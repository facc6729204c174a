import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.errors import Refused
from streamer.settings.sections import LogSettings
from streamer.watch import log
from tests.unit.cli.test_help import command


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    root = logging.getLogger()
    handlers, level, context = root.handlers[:], root.level, dict(log.context)
    root.handlers = []
    log.context.clear()
    yield lambda: capsys.readouterr().err
    root.handlers = handlers
    root.setLevel(level)
    log.context.clear()
    log.context.update(context)


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_json_log_lines_hold_extra_fields_and_errors(logged: Callable[[], str]) -> None:
    log.setup(LogSettings(format="json"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("a.b").exception("lost %s", "x", extra={"partition": 3, "why": {1}})
    logging.getLogger("a.b").debug("not shown")
    [line] = logged().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["msg"]) == ("error", "a.b", "lost x")
    assert (entry["partition"], entry["why"]) == (3, [1])
    assert "ValueError: broken" in entry["error"]


def test_every_json_line_carries_worker_round_and_commit(logged: Callable[[], str]) -> None:
    log.setup(LogSettings(format="json"))
    log.context.update(worker="shop-0", round=0, commit=0)
    logging.getLogger("a").info("one")
    log.context.update(round=17, commit=4)
    logging.getLogger("b").warning("two")
    first, second = map(json.loads, logged().splitlines())
    assert (first["worker"], first["round"], first["commit"]) == ("shop-0", 0, 0)
    assert (second["worker"], second["round"], second["commit"]) == ("shop-0", 17, 4)


def test_a_fields_own_value_stands_above_the_context_and_below_the_time(
    logged: Callable[[], str],
) -> None:
    log.setup(LogSettings(format="json"))
    log.context.update(worker="shop-0", round=17)
    logging.getLogger("a").info("one", extra={"round": 3, "ts": "never", "level": "none"})
    entry = json.loads(logged())
    assert (entry["worker"], entry["round"], entry["level"]) == ("shop-0", 3, "info")
    assert next(iter(entry)) == "ts"
    assert entry["ts"] != "never"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def in_itself() -> list[object]:
    out: list[object] = []
    out.append(out)
    return out


@pytest.mark.parametrize(
    "odd",
    [
        math.nan,
        -math.inf,
        10**30,
        b"\xff\x00",
        "half of a pair: \ud800",
        "two\nlines\x00\u2028",
        {(1, 2): 3, None: 4},
        {"deep": [{"\udfff"}]},
        in_itself(),
        ValueError("\ud800"),
        Unshowable(),
        {"deep": Unshowable()},
        object,
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_a_json_line_is_one_valid_object_whatever_the_extra(
    logged: Callable[[], str], odd: object
) -> None:
    log.setup(LogSettings(format="json"))
    log.context.update(worker="shop-0", round=17, commit=4)
    logging.getLogger("a").info("said", extra={"odd": odd})
    text = logged()
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    entry = json.loads(text, parse_constant=refused)
    assert (entry["msg"], entry["worker"], entry["round"]) == ("said", "shop-0", 17)
    assert "odd" in entry


def test_a_json_line_is_valid_when_message_and_error_hold_half_a_character(
    logged: Callable[[], str],
) -> None:
    log.setup(LogSettings(format="json"))
    try:
        raise OSError("no such file: \udcff")
    except OSError:
        logging.getLogger("a").exception("lost %s", "\udcff", stack_info=True)
    [line] = logged().splitlines()
    entry = json.loads(line)
    assert entry["msg"] == "lost \\udcff"
    assert "OSError: no such file: \\udcff" in entry["error"]
    assert entry["stack"].startswith("Stack (most recent call last)")


def test_text_log_lines_end_in_extra_fields_and_leave_the_context_out(
    logged: Callable[[], str],
) -> None:
    log.setup(LogSettings(level="debug"))
    log.context.update(worker="shop-0", round=17)
    logging.getLogger("a.b").debug("committed", extra={"partition": 7})
    assert logged().endswith("DEBUG   a.b committed partition=7\n")


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_times_are_utc_whatever_the_zone_of_the_machine(logged: Callable[[], str]) -> None:
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "said", (), None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    log.setup(LogSettings(format="json"))
    logging.getLogger().handle(record)
    assert json.loads(logged())["ts"] == "2023-11-14T22:13:20.250+00:00"
    log.setup(LogSettings(format="text"))
    logging.getLogger().handle(record)
    assert logged().startswith("2023-11-14 22:13:20.250Z ")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Refused("clicks would be lost"), 3, "clicks would be lost"),
        (ValueError("odd"), 1, "ValueError: odd"),
    ],
)
def test_the_end_of_a_process_is_a_json_line_where_logs_are(
    logged: Callable[[], str], error: Exception, code: int, reason: str
) -> None:
    log.setup(LogSettings(format="json"))
    log.context.update(worker="shop-0", round=17)
    assert log.end(error) == code
    [line] = logged().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["msg"], entry["exit_code"]) == ("error", reason, code)
    assert entry["worker"] == "shop-0"
    assert ("error" in entry) == (code == 1)


def test_the_end_of_a_process_is_plain_text_otherwise(logged: Callable[[], str]) -> None:
    assert log.end(Refused("clicks would be lost")) == 3
    assert logged() == "walkstream: clicks would be lost\n"
    assert log.end(ValueError("odd")) == 1
    assert logged().endswith("ValueError: odd\n")


def test_a_command_that_fails_ends_with_a_json_line(tmp_path: Path) -> None:
    log_file = tmp_path / "empty.jsonl"
    log_file.touch()
    out = ["--out", str(tmp_path / "out"), "--set", "log.format=json"]
    done = command("replay", str(log_file), *out)
    entry = json.loads(done.stderr.splitlines()[-1])
    assert entry["msg"] == "nothing was learned: there is no record in the input"
    assert (done.returncode, entry["exit_code"]) == (1, 1)
