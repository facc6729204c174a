import json
import os
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.demo.shop import Shop
from streamer.errors import ConfigError, WalkstreamError
from streamer.files import replay
from streamer.files.readers import Source
from streamer.settings import load as config
from streamer.state.store import Store

START_MS = 1_700_000_000_000
SETTINGS = [
    "round.max_seconds=0",
    "engine.threads=1",
    "round.max_events=200",
    "commit.rounds=2",
    "model.dim=16",
    "clusters.count=8",
    "clusters.min_items=40",
    "session.gap=1m",
    "graph.half_life=1m",
]
"""A horizon of 8 minutes, in a log of 25: items leave, and come back."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 clicks, one a second, and after every hundredth a record that is none."""
    path = tmp_path_factory.mktemp("log") / "clicks.jsonl"
    lines = []
    for n, click in enumerate(islice(Shop(1, products=300).clicks(START_MS, rate=1.0), 1500)):
        lines.append(json.dumps(click))
        if n % 100 == 99:
            lines.append(json.dumps(click | {"item_id": ""}))
    path.write_text("\n".join(lines))
    return path


def run(log: Path, out: Path, publish_all: bool = False, *overrides: str) -> list[dict[str, Any]]:
    """The records of vectors.jsonl."""
    replay.run(
        config.load(None, [*SETTINGS, *overrides], {}), Source([log]), None, out, publish_all
    )
    return [json.loads(line) for line in (out / "vectors.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def everything(log: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(log, tmp_path_factory.mktemp("all"), True)


@pytest.fixture(scope="module")
def last(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("last")
    run(log, out)
    return out


def test_two_replays_are_byte_for_byte_the_same(log: Path, last: Path, tmp_path: Path) -> None:
    run(log, tmp_path)
    for name in ("vectors.jsonl", "dead-letters.jsonl"):
        assert (tmp_path / name).read_bytes() == (last / name).read_bytes()


@pytest.mark.long  # half a minute of compiling: of one kernel `test_cache` says so in each run
def test_a_process_that_compiles_repeats_one_that_finds_its_kernels_compiled(
    log: Path, tmp_path: Path
) -> None:
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    outputs = []
    for name in ("compiles", "finds"):
        command = [sys.executable, "-m", "streamer.cli", "replay", str(log), "--out", name]
        subprocess.run([*command, *settings], cwd=tmp_path, env=environ, check=True)
        outputs.append((tmp_path / name / "vectors.jsonl").read_bytes())
    assert any((tmp_path / "kernels").rglob("*.nbc")), "nothing was compiled"
    assert outputs[0] == outputs[1]


def test_another_seed_gives_other_vectors(log: Path, last: Path, tmp_path: Path) -> None:
    run(log, tmp_path, False, "model.seed=2")
    assert (tmp_path / "vectors.jsonl").read_bytes() != (last / "vectors.jsonl").read_bytes()


def test_versions_of_an_item_increase_in_what_is_published(
    everything: list[dict[str, Any]],
) -> None:
    versions: dict[str, list[int]] = {}
    for record in everything:
        if record["vector"] is not None:
            versions.setdefault(record["item_id"], []).append(record["version"])
    assert max(map(len, versions.values())) > 3
    assert all(a < b for of_item in versions.values() for a, b in pairwise(of_item))


def test_the_last_of_all_records_are_the_records_of_last(
    everything: list[dict[str, Any]], last: Path
) -> None:
    wanted = {record["item_id"]: record for record in everything}
    gone = [item for item, record in wanted.items() if record["vector"] is None]
    assert gone, "the log has to be long enough for items to leave"
    for item in gone:
        del wanted[item]
    got = [json.loads(line) for line in (last / "vectors.jsonl").read_text().splitlines()]
    assert {record["item_id"]: record for record in got} == wanted
    assert len(got) == len(wanted)


def test_the_state_folder_holds_what_was_published_last(last: Path) -> None:
    records = map(json.loads, (last / "vectors.jsonl").read_text().splitlines())
    published = {record["item_id"]: record for record in records}
    store = Store(last / replay.DIRECTORY)
    keys, rows = store.all_rows()
    store.close()
    placed = {k.decode(): row for k, row in zip(keys, rows, strict=True) if row["published"] > 0}
    assert placed.keys() == published.keys()
    for item, row in placed.items():
        record = published[item]
        assert (record["version"], record["cluster"]) == (row["published"], row["cluster"])
        assert [int(bucket, 16) for bucket in record["buckets"]] == row["buckets"].tolist()
        np.testing.assert_allclose(row["pub_v"], record["vector"], atol=1e-3)
        np.testing.assert_allclose(row["pub_u"], record["context"], atol=1e-3)


def test_bad_records_become_dead_letters_with_their_place_in_the_log(log: Path, last: Path) -> None:
    letters = [json.loads(s) for s in (last / "dead-letters.jsonl").read_text().splitlines()]
    lines = log.read_text().splitlines()
    assert [letter["source.offset"] for letter in letters] == list(range(100, 1515, 101))
    for letter in letters:
        assert letter["value"] == lines[letter["source.offset"]]
        assert "item_id" in letter["error.message"]


def test_the_report_counts_clicks_items_and_dead_letters(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(log, tmp_path)
    told = capsys.readouterr().out
    assert "1,500 clicks of 1,515 records" in told
    assert "15 dead letters" in told


def test_clicks_of_unwanted_types_are_left_out_of_a_replay(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = [json.loads(line) for line in log.read_text().splitlines()]
    refunds = [json.dumps(click | {"event_type": "refund"}) for click in clicks[:200]]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([*refunds, log.read_text()]))
    run(mixed, tmp_path / "out", False, "events.weights.refund=0")
    told = capsys.readouterr().out
    assert "1,500 clicks of 1,715 records" in told
    assert "15 dead letters, 200 left out" in told


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.jsonl", "", "there is no record in the input"),
        ("wrong.csv", "user_id,item_id,ts\nu,i,2026-01-31\n", "no record is a click"),
    ],
)
def test_a_replay_that_learned_nothing_says_so_and_leaves_its_folder_to_the_next(
    tmp_path: Path, log: Path, name: str, text: str, message: str
) -> None:
    nothing, out = tmp_path / name, tmp_path / "out"
    nothing.write_text(text)
    with pytest.raises(WalkstreamError, match=f"nothing was learned: {message}"):
        run(nothing, out)
    assert list(out.iterdir()) == []
    assert run(log, out)


def test_a_bad_catalogue_leaves_the_folder_to_the_next_replay(tmp_path: Path, log: Path) -> None:
    catalogue, out = tmp_path / "items.csv", tmp_path / "out"
    catalogue.write_text("item_id,name\na\n")
    with pytest.raises(WalkstreamError, match="line 2 is no item"):
        replay.run(config.load(None, SETTINGS, {}), Source([log]), catalogue, out, False)
    assert list(out.iterdir()) == []


def test_a_dead_letter_says_what_is_wrong_with_the_line_of_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("user_id,item_id,ts\nu,a,1000\nu,b\nu,b,2000\nu\n,b,3000\n")
    run(path, tmp_path / "out")
    told = capsys.readouterr().out
    assert f"2 undecodable, the first in {path}, line 3: has 2 columns" in told
    assert f"1 undecodable in {path}, line 6: has no user_id" in told
    letters = (tmp_path / "out" / "dead-letters.jsonl").read_text().splitlines()
    messages = [json.loads(letter)["error.message"] for letter in letters]
    assert messages[1].startswith("has 1 column")
    assert messages[1].endswith(f"({path}, line 5)")


def test_without_a_hit_rate_it_says_why(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(log, tmp_path / "one", False, "round.max_events=2000")
    told = capsys.readouterr().out
    assert "too few rounds (1) to rank clicks before they are learned" in told
    assert "try --set round.max_events=151" in told
    alone = tmp_path / "alone.jsonl"
    clicks = ({"user_id": f"u{n}", "item_id": "i", "ts": START_MS + n} for n in range(1000))
    alone.write_text("\n".join(map(json.dumps, clicks)))
    with pytest.raises(WalkstreamError, match=r"no user went on .* session\.gap \(1m\)"):
        run(alone, tmp_path / "two")
    run(log, tmp_path / "three")
    assert "next item in the first 20" in capsys.readouterr().out


def test_a_folder_that_holds_something_is_refused_and_left_alone(log: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("here")
    with pytest.raises(ConfigError, match="not empty"):
        run(log, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
