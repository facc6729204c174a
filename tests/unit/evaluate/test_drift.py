import json
from pathlib import Path

import numpy as np
import pytest

from core.settings import Duration
from streamer.errors import ConfigError
from streamer.evaluate import drift
from streamer.evaluate.drift_log import CLICKS_A_SESSION, GROUP, Groups, interval
from streamer.evaluate.drift_report import RIVALS, Aged, Report, show, smooth
from streamer.evaluate.scores import BASELINES, Point
from tests.unit.conftest import Run

RANKERS = ("next", "hybrid", "next, session", "hybrid, session", *BASELINES)


def test_a_visit_stays_in_its_group_and_popular_items_are_clicked_more() -> None:
    groups = Groups(3, items=500)
    log = groups.clicks(40_000, "u", seed=1, start=10_000, interval=7.0)
    assert len(log) == 40_000
    assert (np.diff(log.times) >= 0).all()
    assert log.times[0] >= 10_000
    assert np.diff(log.times).mean() == pytest.approx(7.0, rel=0.1)
    at = np.empty(500, np.int64)
    at[groups._member] = np.arange(500) // GROUP
    group, visits = at[log.items], np.bincount(log.users)
    own = np.zeros(len(visits), np.int64)
    for user in range(len(visits)):
        own[user] = np.bincount(group[log.users == user], minlength=1).argmax()
    assert (group == own[log.users]).mean() == pytest.approx(0.95, abs=0.02)
    whole = visits[log.users[:20_000]]  # of which none is cut off at the end
    assert np.mean(visits[np.unique(log.users[:20_000])]) == pytest.approx(
        CLICKS_A_SESSION, rel=0.1
    )
    assert whole.min() >= 2
    often = np.sort(np.bincount(log.items, minlength=500))[::-1]
    assert often[0] == pytest.approx(often[99] * 100**0.8, rel=0.5)


def test_the_same_log_comes_of_the_same_seed_and_other_groups_keep_popularity() -> None:
    one, again = (Groups(3).clicks(5000, "u", 1, 0, 7.0) for _ in range(2))
    assert one.part(10, 20).users == again.part(10, 20).users
    assert (one.times == again.times).all()
    longer = Groups(3).clicks(50_000, "u", 1, 0, 7.0)
    assert (longer.items[:5000] == one.items).all()
    assert (longer.times[:5000] == one.times).all()
    other = Groups(4).clicks(5000, "u", 1, 0, 7.0)
    counts = [np.bincount(log.items, minlength=2000) for log in (one, other)]
    assert np.dot(*counts) > 0.9 * np.sqrt(
        np.dot(counts[0], counts[0]) * np.dot(counts[1], counts[1])
    )
    assert (one.items != other.items).any()
    assert interval(Duration(140_000)) == 10.0


def points(curves: dict[str, list[float]]) -> list[Point]:
    """One point every 2,000 clicks; rankers that are not named have .1."""
    n = len(next(iter(curves.values())))
    return [
        Point(2000 * (i + 1), 100, {name: curves.get(name, [0.1] * n)[i] for name in RANKERS})
        for i in range(n)
    ]


def test_recovery_is_where_the_mean_hit_rate_comes_to_nine_tenths_of_the_plateau() -> None:
    rising = [min(0.02 * i, 0.6) for i in range(40)]
    before = points({"next": [0.6] * 5})
    aged = Aged.of(50_000, before, points({"next": rising}), [])
    by = {one.ranker: one for one in aged.rankers}
    # A straight line is its own mean: .54 is reached at point 27, which is click 56,000.
    assert by["next"].before == pytest.approx(0.6)
    assert by["next"].clicks == pytest.approx(56_000, abs=400)
    assert by["STAN"].clicks == 2000
    never = Aged.of(50_000, before, points({"next": [0.3] * 40}), [])
    assert never.rankers[0].clicks is None
    assert never.rankers[0].after == pytest.approx(0.3)


def test_the_worst_is_beside_the_best_baseline_that_knows_as_much() -> None:
    n = 30
    after = points(
        {
            "hybrid": [0.0, *[0.3] * (n - 1)],
            "hybrid, session": [0.0, *[0.3] * (n - 1)],
            "w5": [0.9, *[0.2] * 14, *[0.4] * 15],
            "STAN": [0.9, *[0.5] * (n - 1)],
        }
    )
    item, session = Aged.of(1, points({"next": [1.0]}), after, []).worst
    assert (item.ranker, item.baseline) == ("hybrid", "w5")
    assert item.ratio == pytest.approx(0.75)
    assert session.baseline == "STAN"
    assert session.ratio == pytest.approx(0.6)
    assert not set(RIVALS["hybrid"]) & {"session-kNN", "VSKNN", "STAN"}


def test_means_are_of_as_many_clicks_before_as_after() -> None:
    click = np.arange(1, 21) * 1000
    assert smooth(click, [float(c) for c in click]).tolist()[9] == 10_000.0
    assert smooth(click, [1.0] * 20).tolist() == [1.0] * 20


def test_ages_are_read_and_what_is_none_is_told() -> None:
    assert drift.ages_of(None) == (50_000, 200_000, 1_000_000, 2_000_000)
    assert drift.ages_of("1M, 20k,300") == (300, 20_000, 1_000_000)
    for wrong in ("", "0", "x", "1,,2", "-5", "1.5k", "21M"):
        with pytest.raises(ConfigError, match="--ages"):
            drift.ages_of(wrong)


def test_a_table_names_every_ranker_and_every_age(capsys: pytest.CaptureFixture[str]) -> None:
    aged = Aged.of(1_000_000, points({"next": [0.5] * 9}), points({"next": [0.3] * 30}), [])
    show(Report(2000, [aged]), as_json=False)
    out = capsys.readouterr().out
    assert all(ranker in out for ranker in RANKERS)
    assert "at 1,000,000" in out
    assert "> 60,000" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--drift", "clicks.csv"], "--drift invents a log: leave FILE out"),
        ([], "name the files to evaluate, or --drift"),
        (["--ages", "5k", "clicks.csv"], "--ages is for --drift"),
        (["--drift", "--ages", "soon"], "'soon' is no number of clicks"),
        (["--drift", "--peer", "gensim"], "the rest is of FILE"),
        (["--drift", "--time", "iso"], "the rest is of FILE"),
        (["--drift", "--ages", "2k,50k"], "--ages: 2,000 clicks are too few"),
        (["--drift", "--set", "round.max_events=20000"], "is more than 6,000"),
        (["--drift", "--set", "graph.half_life=200d"], "too near session.gap"),
        (["--drift", "--ages", ",".join(f"{n}k" for n in range(30, 90))], "too many for a picture"),
    ],
)
def test_what_does_not_go_together_is_told(run: Run, args: list[str], why: str) -> None:
    code, _, told = run("evaluate", *args)
    assert code == 2
    assert why in told


@pytest.mark.parametrize("ages", [[22], pytest.param([22, 30], marks=pytest.mark.long)])
def test_a_young_model_is_measured_drawn_and_comes_back(
    run: Run, tmp_path: Path, ages: list[int]
) -> None:
    """From the command line: by 60,000 clicks it is where it was."""
    drawn = tmp_path / "recovery.png"
    asked = ",".join(f"{age}k" for age in ages)
    code, out, told = run("evaluate", "--drift", "--ages", asked, "--json", "--plot", drawn)
    assert code == 0, told
    report = json.loads(out)
    assert [one["age"] for one in report["ages"]] == [1000 * age for age in ages]
    assert drawn.read_bytes().startswith(b"\x89PNG")
    for one in report["ages"]:
        by = {ranker["ranker"]: ranker for ranker in one["rankers"]}
        assert set(by) == set(RANKERS)
        assert by["next"]["before"] > 0.3
        assert by["next"]["clicks"] < 40_000
        assert len(one["curve"]) == 30
        assert one["stability"]["cosine_untouched"] > 0.98
        assert all(worst["ratio"] > 0.8 for worst in one["worst"])
