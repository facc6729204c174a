"""Durations and start times, as people write them."""

from pathlib import Path

import pytest

from core.settings import Duration
from streamer.settings.load import duration, load, spelled, start_time
from tests.unit.settings.files import written

MINUTE = 60_000


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("30m", 30 * MINUTE),
        ("14d", 14 * 24 * 60 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("500ms", 500),
        ("1.5s", 1500),
        ("1w", 7 * 24 * 60 * MINUTE),
        ("0", 0),
        ("90", 90_000),
        (90, 90_000),
        (0.25, 250),
    ],
)
def test_durations(value: object, ms: int) -> None:
    assert duration(value) == ms
    assert isinstance(duration(value), Duration)


@pytest.mark.parametrize(
    "value", ["", "soon", "5 minutes", "m", "-5s", -1, True, [1], "nan", "1e9d"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(value)


@pytest.mark.parametrize("text", ["0", "1ms", "1501ms", "90s", "90m", "36h", "7d", "400d"])
def test_a_spelled_duration_reads_as_the_same(text: str) -> None:
    assert spelled(duration(text)) == text


@pytest.mark.parametrize(
    ("position", "ms"),
    [
        ("earliest", None),
        ("latest", None),
        ("1970-01-01", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T12:00:00", 1_769_860_800_000),
        ("2026-01-31 13:00:00.250+01:00", 1_769_860_800_250),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
    ],
)
def test_start_times(position: str, ms: int | None) -> None:
    assert start_time(position) == ms


@pytest.mark.parametrize("position", ["", "now", "1769860800000", "12:00:00", "1969-12-31", "-1"])
def test_what_is_no_start_time_is_refused(position: str) -> None:
    with pytest.raises(ValueError, match=r"neither earliest, latest|before 1970"):
        start_time(position)


def test_a_start_time_may_be_a_time_of_toml(tmp_path: Path) -> None:
    file = written(tmp_path, "[start]\nposition = 2026-01-31T12:00:00Z\n")
    assert start_time(load(file, [], {}).start.position) == 1_769_860_800_000


def test_a_duration_is_read_from_each_source(tmp_path: Path) -> None:
    file = written(tmp_path, "[graph]\nhalf_life = '2d'\n[session]\ngap = 60\n")
    config = load(file, ["graph.horizon=20d"], {"WALKSTREAM_MAJOR__EVERY": "1h"})
    spans = (config.graph.half_life, config.session.gap, config.graph.horizon, config.major.every)
    assert spans == (2 * 1440 * MINUTE, MINUTE, 20 * 1440 * MINUTE, 60 * MINUTE)
