"""Several configurations in one pass over a log."""

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.demo.shop import Shop
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate import compare
from streamer.evaluate.run import Evaluation, Options
from streamer.files.readers import Source
from streamer.settings.load import load

SMALL = ["model.dim=16", "round.max_events=200", "walks.per_node=2"]
OPTIONS = Options("next", None, False, False, 40, 0.5, True, None)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "clicks.jsonl"
    clicks = Shop(3, products=80, users=60).clicks(1_700_000_000_000, 1.0)
    path.write_bytes(b"\n".join(msgspec.json.encode(next(clicks)) for _ in range(3000)))
    return path


def compared(
    log: Path, *names: str, capsys: pytest.CaptureFixture[str], options: Options = OPTIONS
) -> compare.Comparison:
    compare.run(compare.variants(names, None, SMALL), Source([log]), options)
    return msgspec.json.decode(capsys.readouterr().out, type=compare.Comparison)


def test_each_does_as_it_would_alone_and_the_first_is_the_measure(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(log, "walkstream", "item2vec", capsys=capsys)
    for line in found.lines:
        config = load(None, [f"preset={line.variant}", *SMALL], {})
        alone = Evaluation(config, Source([log]), OPTIONS).run()
        figure = next(f for f in alone.figures if (f.ranker, f.of) == ("next", "all"))
        assert (figure.hr, figure.mrr, figure.positions) == (line.hr, line.mrr, found.positions)
    first, second = found.lines
    assert (first.hr_difference, first.hr_difference_error) == (0.0, 0.0)
    assert second.hr_difference == pytest.approx(second.hr - first.hr)
    apart = math.hypot(first.hr_error, second.hr_error)
    assert 0 < second.hr_difference_error < apart
    assert first.microseconds > 0


def test_vectors_of_users_rank_where_they_are_on_and_alone_as_beside_others(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean, parts = (f"walkstream,user_vectors.kind={kind}" for kind in ("mean", "interests"))
    found = compared(log, "walkstream", mean, parts, capsys=capsys)
    by = {(line.variant, line.mode): line for line in found.lines}
    user = "next, user"
    assert set(by) == {
        ("walkstream", "next"), (mean, "next"), (parts, "next"), (mean, user), (parts, user)
    }  # fmt: skip
    assert by[mean, "next"].hr == by["walkstream", "next"].hr
    assert by[mean, user].hr_difference == 0.0
    difference = by[parts, user].hr - by[mean, user].hr
    assert by[parts, user].hr_difference == pytest.approx(difference)
    assert difference != 0.0
    config = load(None, ["user_vectors.kind=mean", *SMALL], {})
    alone = Evaluation(config, Source([log]), OPTIONS).run()
    hr = {f.ranker: f.hr for f in alone.figures if f.of == "all"}
    assert hr[user] == by[mean, user].hr > hr["popularity"]


def test_an_item_that_was_never_clicked_is_found_by_its_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups of items that are clicked together, one of which comes late."""
    rng, groups = np.random.default_rng(1), 8
    clicks, at = [], 1_700_000_000_000
    for visit in range(1200):
        group = int(rng.integers(groups))
        known = 5 + (visit > 900)  # the last of each group comes then
        for n in rng.permutation(known)[:4].tolist():
            at += 1000
            clicks.append(
                {"user_id": f"u{visit}", "item_id": f"{group}-{n}", "ts": at, "event_type": "view"}
            )
    log, items = tmp_path / "log.jsonl", tmp_path / "items.jsonl"
    log.write_bytes(b"\n".join(map(msgspec.json.encode, clicks)))
    described = [
        {"item_id": f"{g}-{n}", "category": f"group {g}"} for g in range(groups) for n in range(6)
    ]
    items.write_bytes(b"\n".join(map(msgspec.json.encode, described)))
    with_attributes = tmp_path / "attributes.toml"
    with_attributes.write_text("[model]\nattribute_slots = 2\n")
    options = replace(OPTIONS, items=items, begin=0.7, sample=200)
    named = compare.variants(
        ["walkstream", str(with_attributes)], None, ["model.dim=16", "round.max_events=40"]
    )
    compare.run(named, Source([log]), options)
    found = msgspec.json.decode(capsys.readouterr().out, type=compare.Comparison)
    plain, attributes, category, nearest = found.lines
    assert found.by_clicks["0"] >= 5
    assert plain.by_clicks["0"] == 0.0, "it has no vector"
    assert attributes.by_clicks["0"] > 0.8
    assert (category.variant, nearest.variant) == (
        "walkstream + category mean", "walkstream + nearest three",
    )  # fmt: skip
    assert category.by_clicks["0"] > 0.8
    assert nearest.by_clicks["0"] > 0.8
    assert category.by_clicks["10+"] == pytest.approx(plain.by_clicks["10+"], abs=0.02)
    assert sum(found.by_clicks.values()) == found.positions


def test_errors_of_differences_are_those_of_pairs() -> None:
    rng = np.random.default_rng(1)
    base = (rng.random(4000) < 0.4).astype(np.float64)
    own = np.where(rng.random(4000) < 0.9, base, 1 - base)
    mean, error = compare.difference(own, base)
    drawn = rng.integers(0, 4000, (1000, 4000))
    assert mean == pytest.approx(own.mean() - base.mean())
    assert error == pytest.approx((own - base)[drawn].mean(axis=1).std(), rel=0.1)


def test_a_file_and_a_preset_stand_side_by_side_and_people_get_tables(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[walks]\nper_node = 1\n")
    long = "walkstream,corpus.kind=both,negatives.draws=4,walks.per_node=1"
    named = compare.variants(
        ["deepwalk", str(mine), long], None, ["model.dim=16", "round.max_events=200"]
    )
    assert [one.config.walks.per_node for one in named] == [6, 1, 1]
    picture = tmp_path / "stream.png"
    shown = replace(OPTIONS, as_json=False, plot=picture)
    compare.run(named, Source([log]), shown)
    out = capsys.readouterr().out
    assert "deepwalk" in out
    assert "mine" in out
    assert "vs first" in out
    assert "…" not in out, "all numbers are whole in 80 columns"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_name_may_have_settings_of_its_own() -> None:
    names = ["deepwalk", "deepwalk,walks.length=40,walks.q=0.5"]
    one, other = compare.variants(names, None, ["walks.length=12"])
    assert (one.config.walks.length, other.config.walks.length) == (12, 40)
    assert other.name == names[1]
    assert other.config.walks.q == 0.5
    assert other.config.negatives == one.config.negatives
    (tiered,) = compare.variants(["walkstream,size.tiers=[[1,16],[9,64]],walks.q=2"], None, [])
    assert tiered.config.size.tiers == ((1, 16), (9, 64))
    assert tiered.config.walks.q == 2


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[session]\ngap = "1h"\n')
    with pytest.raises(ConfigError, match=r"\[session\] of other and of walkstream differ"):
        compare.variants(["walkstream", str(other)], None, [])
    with pytest.raises(ConfigError, match="is no file, and no preset"):
        compare.variants(["walkstream", "glove"], None, [])
    with pytest.raises(ConfigError, match="each configuration once"):
        compare.variants(["walkstream", "walkstream"], None, [])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("walkstream,model.dimm=3", r"^model\.dimm: there is no such .* \(from --compare\)$"),
        ("mine.toml,model.dim=x", r"^model\.dim: 'x' is wrong: .* \(from --compare\)$"),
        ("mine.toml,corpus.subsample=2", r"^corpus\.subsample: must be .* \(from --compare\)$"),
    ],
)
def test_a_wrong_setting_is_told_with_the_option_that_it_came_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[walks]\nper_node = 1\n")
    with pytest.raises(ConfigError, match=told):
        compare.variants(["walkstream", name], None, [])
    with pytest.raises(ConfigError, match=r"^model\.dim: .* \(from --set\)$"):
        compare.variants(["walkstream", "mine.toml,walks.q=2"], None, ["model.dim=x"])


def test_a_log_of_unknown_types_alone_is_told_with_its_types(tmp_path: Path) -> None:
    log = tmp_path / "c.csv"
    log.write_text("user_id,item_id,ts,event_type\n" + "u,i,5000,zoom\n" * 3)
    named = compare.variants(["walkstream", "item2vec"], None, SMALL)
    with pytest.raises(WalkstreamError, match=r"(?s)nothing to rank: no record .*'zoom' \(3\)"):
        compare.run(named, Source([log]), OPTIONS)
