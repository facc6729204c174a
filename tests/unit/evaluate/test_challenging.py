"""A challenger in an evaluation: where it takes over, and what that is worth."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from streamer.demo.shop import Shop
from streamer.evaluate import compare, picture, report
from streamer.evaluate.challenging import Contest
from streamer.evaluate.run import Evaluation, Options
from streamer.files.readers import Source
from streamer.settings.load import load

SMALL = ["model.dim=16", "round.max_events=100", "commit.rounds=4", "quality.sample=64"]
POOR = ["model.rate=1e-6", "model.session_rate=1e-6"]
BESIDE = ["challenger.preset=walkstream", "challenger.error=0.3", "challenger.min_agreement=-1"]
OPTIONS = Options("next", None, False, False, 60, 0.7, True, None)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "clicks.jsonl"
    clicks = Shop(3, products=120, users=60).clicks(1_700_000_000_000, 1.0)
    path.write_bytes(b"\n".join(msgspec.json.encode(next(clicks)) for _ in range(6000)))
    return path


def evaluated(log: Path, *overrides: str) -> report.Report:
    config = load(None, [*SMALL, *overrides], {})
    return Evaluation(config, Source([log]), OPTIONS).run()


def test_where_it_takes_over_the_model_is_what_it_was(log: Path) -> None:
    found = evaluated(log, *POOR, *BESIDE, "challenger.promote=true")
    contest = found.challenger
    assert contest is not None
    assert contest.took_over is not None
    assert 400 <= contest.took_over < 4000
    assert contest.wins > contest.losses
    before = [point for point in found.over_stream if point.click <= contest.took_over]
    after = [point for point in found.over_stream if point.click > contest.took_over + 400]
    assert any(point.hr["challenger"] > point.hr["next"] for point in before)
    assert after
    assert all(point.hr["challenger"] == point.hr["next"] for point in after)
    assert list(report.marks(found)) == [contest.took_over]


def test_one_that_may_not_take_over_is_told_beside_the_champion(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(log, *POOR, *BESIDE)
    hr = {figure.ranker: figure.hr for figure in found.figures if figure.of == "all"}
    assert hr["challenger"] > hr["next"] + 0.05
    assert found.challenger is not None
    assert found.challenger.took_over is None
    report.show(found, as_json=False)
    assert "the challenger: alone it hit" in capsys.readouterr().out
    alone = evaluated(log, *POOR)
    assert alone.challenger is None
    same = {f.ranker: f for f in found.figures if f.of == "all" and f.ranker != "challenger"}
    assert same == {f.ranker: f for f in alone.figures if f.of == "all"}


def test_a_comparison_shows_what_a_challenger_is_worth(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    poor = ",".join(["walkstream", *POOR])
    with_one = ",".join([poor, *BESIDE, "challenger.promote=true"])
    named = compare.variants([poor, with_one, "walkstream"], None, SMALL)
    options = replace(OPTIONS, plot=tmp_path / "picture.png")
    compare.run(named, Source([log]), options)
    found = msgspec.json.decode(capsys.readouterr().out, type=compare.Comparison)
    champion, challenged, good = (line.hr for line in found.lines)
    assert list(found.challengers) == [with_one]
    assert found.challengers[with_one].took_over is not None
    assert champion + 0.05 < challenged
    assert challenged > good - 0.05
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_evidence_past_all_numbers_is_told_and_reported() -> None:
    contest = Contest(9000, 5000, 0, 2000.0, None, None)
    assert "evidence beyond 1e304" in contest.told()
    assert msgspec.json.decode(msgspec.json.encode(contest))["log_evidence"] == 2000.0


def test_a_picture_says_where_it_took_over(log: Path) -> None:
    pytest.importorskip("matplotlib")
    points = evaluated(log, *POOR).over_stream
    assert picture.draw(points) != picture.draw(points, {3000: "the challenger takes over"})
