"""Clicks out of order are told, and sorted on disk."""

import json
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from core.settings import Duration
from streamer.errors import WalkstreamError
from streamer.files import sorting
from streamer.files.order import Order
from streamer.files.readers import Source
from streamer.files.sorting import open_clicks
from tests.unit.conftest import Run

START_MS = 1_790_000_000_000


def shuffled(path: Path, n: int, seed: int) -> Path:
    """Clicks of few times, so that many are equal; some lines are broken."""
    draw = random.Random(seed)
    lines = [f"u,i{number},{START_MS + draw.randrange(50)}" for number in range(n)]
    lines[3] = "broken"
    path.write_text("\n".join(["user_id,item_id,ts", *lines]))
    return path


@pytest.mark.parametrize(("run_bytes", "fan_in"), [(1 << 26, 64), (3000, 2), (500, 3)])
def test_any_number_of_runs_gives_the_stable_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_bytes: int, fan_in: int
) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", run_bytes)
    monkeypatch.setattr(sorting, "FAN_IN", fan_in)
    monkeypatch.setattr(sorting, "BATCH", 7)
    paths = [shuffled(tmp_path / f"{seed}.csv", 400, seed) for seed in range(25)]
    before = list(chain.from_iterable(open_clicks(Source(paths))))
    last, order = 0, {}
    for at, record in enumerate(before):
        last = last if record.time is None else record.time
        order[at] = last
    expected = [before[at] for at in sorted(order, key=order.__getitem__)]
    reader = open_clicks(Source(paths, sort=True))
    positions, found = [], []
    for batch in reader:
        positions.append(reader.bytes_read)
        found += batch
    assert found == expected
    assert positions == sorted(positions)
    assert positions[-1] == reader.bytes_read == reader.total_bytes


def test_a_full_disk_says_where_to_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sorting._Runs, "_write", full)
    monkeypatch.setattr(sorting, "RUN_BYTES", 1)
    path = shuffled(tmp_path / "c.csv", 10, 1)
    with pytest.raises(WalkstreamError, match=r"No space left on device\. Let .* TMPDIR"):
        list(open_clicks(Source([path], sort=True)))


def told(*times: int, gap: int = 10) -> str:
    order = Order(Duration(gap))
    for begin in range(0, len(times), 3):
        order.add(np.array(times[begin : begin + 3], np.int64) + START_MS)
    return " ".join(order.lines())


def test_only_clicks_more_than_a_gap_behind_are_late() -> None:
    assert told(0, 5, 1, 20, 10, 30) == ""
    assert "25.0% of the clicks come late: 1 of 4 are dated more than session.gap (10ms)" in told(
        0, 20, 9, 20
    )
    assert "75.0%" in told(90, 60, 30, 0)  # newest first
    assert "dated before 1990: 2 of 3 clicks" in told(-START_MS, -START_MS + 5, 0)


def test_a_replay_in_order_learns_what_the_sorted_file_does(tmp_path: Path, run: Run) -> None:
    clicks = [
        {
            "user_id": f"u{n % 40}",
            "item_id": f"i{(n * 7 + n // 40) % 60}",
            "ts": START_MS + n * 9000,
        }
        for n in range(2000)
    ]
    by_user = sorted(clicks, key=lambda click: str(click["user_id"]))
    for name, given in (("sorted", clicks), ("by-user", by_user)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, given)))
    foreign = [{"who": c["user_id"], "on": {"what": c["item_id"]}, "at": c["ts"]} for c in by_user]
    (tmp_path / "foreign.jsonl").write_text("\n".join(map(json.dumps, foreign)))
    fields = {"user_id": "who", "item_id": "on.what", "ts": "at"}
    mapped = [part for f, p in fields.items() for part in ("--set", f"clicks.fields.{f}={p}")]
    for name, options in (
        ("sorted", []),
        ("by-user", ["--sort"]),
        ("foreign", ["--sort", *mapped]),
    ):
        line = ["replay", tmp_path / f"{name}.jsonl", "--out", tmp_path / name, *options]
        code, out, err = run(*line, "--set", "engine.threads=1")
        assert (code, err.strip()) == (0, ""), (name, out, err)
    vectors = {
        (tmp_path / name / "vectors.jsonl").read_bytes()
        for name in ("sorted", "by-user", "foreign")
    }
    assert len(vectors) == 1
    code, _, err = run("replay", tmp_path / "by-user.jsonl", "--out", tmp_path / "bad", "--json")
    assert "of the clicks come late" in err
    assert "--sort" in err
