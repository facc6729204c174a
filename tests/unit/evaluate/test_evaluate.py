import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.clicks import Clicks
from core.rounds import Inputs
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate import run
from streamer.evaluate.rankers import Asked, Ranks, popularity
from streamer.evaluate.run import Options
from streamer.evaluate.scores import BASELINES, Figures, Gains, Scores, figures
from streamer.evaluate.stability import Stability
from streamer.files.lines import STDIN
from streamer.files.readers import Source
from streamer.settings import load as config
from tests.unit.evaluate.ring import START, Learned, Row, visits

# -- figures -------------------------------------------------------------------------------------


def compared(ranks: list[int], best: list[int], best_mrr: list[int], w5: list[int]) -> Figures:
    columns = (Gains.of(np.array(column, np.int32)) for column in (ranks, best, best_mrr, w5))
    return figures("next", "all", *columns)


def test_figures_are_those_of_the_definitions() -> None:
    got = compared([0, 2, 19, 20, 500], [0, 99, 99, 1, 99], [1, 99, 99, 99, 9], [3, 0, 9, 20, 9])
    assert got.positions == 5
    assert got.hr == pytest.approx(3 / 5)
    assert got.mrr == pytest.approx((1 + 1 / 3 + 1 / 20) / 5)
    assert got.ndcg == pytest.approx((1 + 1 / 2 + 1 / math.log2(21)) / 5)
    assert got.hr_error == pytest.approx(math.sqrt(0.6 * 0.4 / 5))
    assert got.mrr_error == pytest.approx(np.std([1, 1 / 3, 1 / 20, 0, 0]) / math.sqrt(5))
    assert got.hr_ratio == pytest.approx(3 / 2)
    assert got.mrr_ratio == pytest.approx((1 + 1 / 3 + 1 / 20) / (1 / 2 + 1 / 10))
    assert got.hr_to_w5 == pytest.approx(3 / 4)
    assert got.mrr_to_w5 == pytest.approx((1 + 1 / 3 + 1 / 20) / (1 / 4 + 1 + 1 / 10 + 1 / 10))
    same = compared([0, 2, 500], [0, 2, 500], [0, 2, 500], [0, 2, 500])
    assert (same.hr_ratio, same.hr_ratio_error, same.mrr_to_w5_error) == (1.0, 0.0, 0.0)
    assert math.isnan(compared([], [], [], []).hr)
    assert math.isnan(compared([1], [20], [1], [1]).hr_ratio)


def test_the_errors_of_ratios_are_those_of_many_samples() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 50, (2, 2000)).astype(np.int32)
    ours = np.where(rng.random(2000) < 0.8, theirs, ours)
    base = Gains.of(theirs)
    told = figures("next", "all", Gains.of(ours), base, base, base)
    drawn = rng.integers(0, 2000, (2000, 2000))
    for kind, error, apart in (
        ("hr", told.hr_ratio_error, told.hr_error / told.hr),
        ("mrr", told.mrr_ratio_error, told.mrr_error / told.mrr),
    ):
        x, y = getattr(Gains.of(ours), kind), getattr(base, kind)
        ratios = x[drawn].mean(axis=1) / y[drawn].mean(axis=1)
        assert error == pytest.approx(ratios.std(), rel=0.1)
        assert error < apart


def test_the_best_baselines_in_hr_and_in_mrr_are_the_measure_of_all() -> None:
    learned, scores = Learned(), Scores()
    asked = learned.ask(visits(7, at=2500))
    q = len(asked)
    ranks = {name: np.full(q, 99, np.int32) for name in (*BASELINES, "hybrid")}
    ranks["STAN"][:60], ranks["transitions"][:50], ranks["w5"][:20] = 9, 1, 4
    ranks["hybrid"][:90], ranks["item2vec, pair"] = 0, np.zeros(q, np.int32)  # which is a peer
    scores.add(asked, ranks, learned.past)
    best, found = scores.figures(0)
    assert (best.hr, best.mrr) == ("STAN", "transitions")
    hybrid = {f.of: f for f in found if f.ranker == "hybrid"}
    assert hybrid["all"].hr_ratio == pytest.approx(90 / 60)
    assert hybrid["all"].mrr_ratio == pytest.approx(90 / 25)
    assert hybrid["all"].hr_to_w5 == pytest.approx(90 / 20)
    assert hybrid["all"].mrr_to_w5 == pytest.approx(90 / 4)


def counted(asked: Asked) -> Ranks:
    nowhere = np.full(len(asked), asked.last, np.int32)
    return dict.fromkeys(BASELINES, nowhere) | popularity(asked)


def test_groups_tell_positions_apart_and_add_up() -> None:
    learned, scores = Learned(), Scores()
    first = learned.ask(visits(7, at=2500))
    scores.add(first, counted(first), learned.past)
    learned.past.learn()
    asked = learned.ask([("a", "i1", 2700), ("a", "i2", 2710), ("a", "i1", 2720),
                         ("a", "nobody's", 2730)])  # fmt: skip
    scores.add(asked, counted(asked), learned.past)
    begin = int(asked.positions.click[0])
    found = {f.of: f.positions for f in scores.figures(begin)[1]}
    assert found["all"] == 3
    assert (found["first"], found["again"]) == (2, 1)
    assert (found["known"], found["unknown"]) == (2, 1)
    assert found["popular"] + found["common"] + found["rare"] == 2
    assert (found["new"], found["young"], found["old"]) == (0, 0, 2)
    whole = {f.of: f.positions for f in scores.figures(0)[1]}
    assert whole["all"] == 3 + len(first)
    # The popularity ranker finds the popular tenth and nobody past the 20th of 50 items.
    hits = {f.of: f.hr for f in scores.figures(0)[1] if f.ranker == "popularity"}
    assert hits["popular"] == 1.0
    assert hits["rare"] == 0.0


# -- stability -----------------------------------------------------------------------------------


def test_stability_tells_touched_items_from_those_that_stood_still() -> None:
    learned = Learned()
    engine, past, stability = learned.engine, learned.past, Stability(1)
    changes = engine.step(Inputs(Clicks.empty())).changes
    assert changes is not None
    stability.observe(engine, past, changes)
    assert stability.steps == []
    moved = engine.items[:1]
    past.touched = set(past.vocabulary.intern(engine.vocabulary.names(moved)).tolist())
    engine.model.rows.v[moved] *= -1
    stability.observe(engine, past, changes)
    (step,) = stability.steps
    assert (step.touched, step.untouched) == (1, len(engine.items) - 1)
    assert step.cosine_touched == pytest.approx(-1.0, abs=1e-5)
    assert step.cosine_untouched == pytest.approx(1.0, abs=1e-5)
    assert step.overlap_touched == 0.0  # nothing is near to both ends of a line
    assert 0.9 < step.overlap_untouched < 1.0
    stability.observe(engine, past, changes)
    assert math.isnan(stability.steps[-1].cosine_touched)
    assert stability.steps[-1].overlap_untouched == 1.0
    assert not past.touched


# -- the command ---------------------------------------------------------------------------------

SET = ["model.dim=16", "session.gap=1s", "round.max_events=200", "commit.rounds=2"]
PLAIN = Options("all", None, False, False, 256, 0.5, True, None)


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(f"{user}\t{item}\t{START + time}\n" for user, item, time in rows))
    return path


def evaluate(log: Path, options: Options, *settings: str) -> None:
    loaded = config.load(None, [*SET, *settings], {})
    run.run(loaded, Source([log], ["user_id", "item_id", "ts"]), options)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row for n in range(15) for row in visits(n, at=400 * n)]
    return write(tmp_path_factory.mktemp("evaluate") / "ring.tsv", rows)


def test_the_command_prints_json_and_draws(ring: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "quality.png"
    settings = [part for one in SET for part in ("--set", one)]
    done = subprocess.run(
        [sys.executable, "-m", "streamer.cli", "evaluate", ring, "--columns", "user_id,item_id,ts",
         "--session", "--peer", "batch", "--json", "--plot", picture, *settings],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    hr = {f["ranker"]: f["hr"] for f in report["figures"] if f["of"] == "all"}
    assert set(hr) == {
        "similar", "next", "hybrid", "similar, session", "next, session", "hybrid, session",
        "popularity", "transitions", "co-visitation", "w5", "session-kNN", "VSKNN", "STAN",
        "batch, next",
    }  # fmt: skip
    assert hr["batch, next"] > hr["popularity"]
    assert hr["hybrid"] > hr["popularity"]
    assert hr["transitions"] > hr["popularity"]
    best = {"hr": max(BASELINES, key=lambda ranker: hr[ranker])}
    mrr = {f["ranker"]: f["mrr"] for f in report["figures"] if f["of"] == "all"}
    assert report["best"] == best | {"mrr": max(BASELINES, key=lambda ranker: mrr[ranker])}
    assert report["clicks"] == 3000
    assert report["begin"] == 1500
    assert report["rounds"] == 15
    assert 0.0 < report["stability"]["cosine_touched"] <= 1.0
    assert report["over_stream"][-1]["click"] == 3000
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_tables_show_every_ranker_and_what_the_words_mean(
    ring: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(ring, replace(PLAIN, mode="hybrid", sample=20, begin=0.2, as_json=False))
    told = capsys.readouterr().out
    for words in ("hybrid", "session-kNN", "HR@20", "of w5", "MRR@20", "top 10",
                  "0 of them (0.0%) are on items unknown until then: all miss",
                  "the best baseline: ", " in HR@20, "):  # fmt: skip
        assert words in told
    assert "\n similar" not in told
    assert "240 clicks ranked, from click 600 on" in told


def test_nothing_is_known_of_a_round_before_it_is_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each round has 200 clicks, and goes on from an item that no other round goes on from.
    rows = [
        (f"u{number}-{user}", f"i{item % 10}", 100 * number + n)
        for number in range(10)
        for user in range(100)
        for n, item in enumerate((number, number + user % 3 + 1))
    ]
    evaluate(write(tmp_path / "pairs.tsv", rows), replace(PLAIN, begin=0.0))
    report = json.loads(capsys.readouterr().out)
    hr = {f["ranker"]: f["hr"] for f in report["figures"] if f["of"] == "all"}
    assert report["figures"][0]["positions"] == 900
    assert hr["transitions"] == 0.0


@pytest.mark.parametrize(("step", "goes_on"), [(30, 28), (500, 14)])
def test_a_user_who_lags_a_day_behind_goes_on_while_the_others_stay_within_a_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int, goes_on: int
) -> None:
    """Each time that the clock of the partition enters another gap, sessions before it end."""
    day = 86_400_000
    rows = [
        row
        for n in range(30)
        for row in (("u", f"i{n % 10}", 500 * n), ("w", f"x{n % 2}", day + step * n))
    ]
    evaluate(write(tmp_path / "lags.tsv", rows), replace(PLAIN, begin=0.0), "round.max_events=2")
    report = json.loads(capsys.readouterr().out)
    positions = {f["of"]: f["positions"] for f in report["figures"] if f["ranker"] == "hybrid"}
    # The first click of w, a day ahead, ends the session of u. If w is fast, every other one does.
    assert positions["all"] == goes_on + 29
    assert positions["unknown"] == (8 if goes_on == 28 else 4) + 1


@pytest.mark.parametrize(
    ("options", "settings", "error", "message"),
    [
        ({"plot": Path("a.svg")}, [], ConfigError, "--plot a.svg: the name must end in .png"),
        ({"plot": Path("nowhere/a.png")}, [], ConfigError, "there is no folder nowhere"),
        ({}, ["round.max_events=100000"], WalkstreamError, "there was nothing to rank"),
    ],
)
def test_what_cannot_be_evaluated_is_told(
    ring: Path, options: dict[str, Any], settings: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(ring, replace(PLAIN, **options), *settings)


@pytest.mark.parametrize("named", [True, False])
def test_types_of_events_that_were_left_out_are_named_with_what_to_do(
    tmp_path: Path, named: bool
) -> None:
    kinds = [*["rate:8"] * 3, *["rate:7"] * 2, "seen", "seen", *(f"k{n}" for n in range(9))]
    lines = [f"u\ti{n}\t{START + n}\t{kind}\n" for n, kind in enumerate(kinds)]
    lines += [f"v\ti\t{START}\tclick\n"] * named
    (tmp_path / "log.tsv").write_text("".join(lines))
    source = Source([tmp_path / "log.tsv"], ["user_id", "item_id", "ts", "event_type"])
    with pytest.raises(WalkstreamError) as refused:
        run.run(config.load(None, [*SET, "events.weights.seen=0"], {}), source, PLAIN)
    told = str(refused.value)
    assert "nothing to rank" in told
    assert "not list: 'rate:8' (3), 'rate:7' (2), 'k0' (1), " in told
    assert " 'k5' (1) and 3 more. Give each a weight" in told
    assert "'events.weights.*=1'" in told
    assert "weigh 0 in events.weights: 'seen' (2). To count them" in told


def test_a_peer_needs_files_whose_end_is_known() -> None:
    with pytest.raises(ConfigError, match="--peer: name files"):
        evaluate(STDIN, replace(PLAIN, peer="batch"))
