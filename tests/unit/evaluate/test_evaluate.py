import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core import quality
from core.clicks import Clicks
from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.rounds import Inputs
from core.settings import Duration, GraphSettings, ModelSettings, SessionSettings, Settings
from streamer.errors import ConfigError, WalkstreamError
from streamer.evaluate import knn, peers, run
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Counts, Model, Ranks, popularity
from streamer.evaluate.run import Options
from streamer.evaluate.scores import BASELINE, Scores, figures
from streamer.evaluate.stability import Stability
from streamer.files.lines import STDIN
from streamer.files.readers import Source
from streamer.settings import load as config

START, GAP = 1_700_000_000_000, 1000
SETTINGS = Settings(
    session=SessionSettings(Duration(GAP), 3, 50, 2),
    graph=GraphSettings(half_life=Duration(100_000), max_degree=64),
    model=ModelSettings(dim=16),
)
ALL = 1_000_000

Row = tuple[str, str, int]


def clicks(rows: list[Row], ids: NDArray[np.uint64] | None = None) -> Clicks:
    """Rows are user, item and time."""
    times = np.array([START + time for _, _, time in rows], np.int64)
    users, items = [user for user, _, _ in rows], [item for _, item, _ in rows]
    return Clicks(users, items, times, np.ones(len(rows), np.float32), ids)


def visits(seed: int, at: int, users: int = 40, items: int = 50) -> list[Row]:
    """Clicks of users who go round a ring of items, by one step or two, and at times back."""
    rng = np.random.default_rng(seed)
    where = rng.integers(items, size=users)
    rows = []
    for k in range(5):
        where = (where + rng.choice([-1, 1, 1, 2], size=users)) % items
        rows += [(f"u{seed % 3}-{user}", f"i{where[user]}", at + 20 * k) for user in range(users)]
    return rows


class Learned:
    """An engine and a past that took the same rounds."""

    def __init__(self, settings: Settings = SETTINGS, rounds: int = 6) -> None:
        self.engine, self.past = Engine(settings), Past(settings)
        for number in range(rounds):
            self.round(visits(number, at=400 * number))

    def round(self, rows: list[Row]) -> None:
        self.past.take(clicks(rows), 0)
        self.past.learn()
        self.engine.step(Inputs(clicks(rows)))

    def ask(self, rows: list[Row], unseen: bool = False, size: int = ALL) -> Asked:
        """The positions of a round that the past goes on to know of, and the engine does not."""
        return Asked(self.engine, self.past, self.past.take(clicks(rows), size), unseen)


def names(past: Past, numbers: NDArray[np.int32]) -> list[str]:
    return past.vocabulary.names(numbers)


# -- what is ranked ------------------------------------------------------------------------------


def test_positions_are_the_transitions_that_the_worker_ranks() -> None:
    learned = Learned()
    rng = np.random.default_rng(1)
    rows = [(f"u0-{rng.integers(12)}", f"i{rng.integers(60)}", 2500 + 10 * n) for n in range(900)]
    taken = clicks(rows, (rng.integers(2, size=900) * np.arange(900)).astype(np.uint64))
    engine = learned.engine
    expected = quality.transitions(
        taken, engine.sessions, engine.vocabulary, engine.settings.session
    )
    positions = learned.past.take(taken, ALL)
    asked = names(learned.past, positions.history[:, 0])
    pairs = list(zip(asked, names(learned.past, positions.target), strict=True))
    assert len(pairs) > 300
    assert sorted(pairs) == sorted(expected)
    for session, history in zip(positions.sessions, positions.history, strict=True):
        known = history[history >= 0]
        assert session[::-1][: len(known)].tolist() == known.tolist()


def test_a_position_tells_its_session_so_far_and_whether_it_had_the_target() -> None:
    past = Past(SETTINGS)
    past.take(clicks([("u", "a", 0), ("v", "x", 0), ("u", "b", 10)]), ALL)
    past.learn()
    positions = past.take(clicks([("u", "a", 20), ("v", "x", 20), ("u", "c", 5000)]), ALL)
    assert [names(past, session) for session in positions.sessions] == [["a", "b"]]
    assert positions.repeated.tolist() == [True]
    assert positions.click.tolist() == [3]
    # The click after the gap began a session, and ended the one before it and the other user's.
    past.learn()
    assert [names(past, session) for session in past.closed] == [["a", "b", "a"], ["x"]]
    assert [names(past, session) for session in past.sessions()][-1] == ["c"]


def test_a_sample_is_part_of_all_positions_and_the_same_each_time() -> None:
    rows = visits(9, at=2500)
    every = Learned().past.take(clicks(rows), ALL)
    one, again = (Learned().past.take(clicks(rows), 20) for _ in range(2))
    assert one.click.tolist() == again.click.tolist()
    assert len(one.click) == 20
    assert set(one.click.tolist()) <= set(every.click.tolist())
    place = {click: n for n, click in enumerate(every.click.tolist())}
    for n, click in enumerate(one.click.tolist()):
        assert one.sessions[n].tolist() == every.sessions[place[click]].tolist()


# -- counts --------------------------------------------------------------------------------------


def test_tables_count_transitions_and_weigh_neighbours_as_a_graph_without_a_bound() -> None:
    settings = replace(SETTINGS, graph=GraphSettings(half_life=Duration(25), max_degree=1024))
    settings = replace(settings, graph=replace(settings.graph, horizon=Duration(10**9)))
    learned = Learned(settings)  # 80 half-lives: the landmark moves
    past, counted = learned.past, Counter[tuple[int, int]]()
    for history, target in past.transitions:
        counted.update(zip(history[:, 0].tolist(), target.tolist(), strict=True))
    assert {(a, b): n for a, row in past.after.items() for b, n in row.items()} == counted
    for slot in learned.engine.items.tolist():
        nbr, wgt = learned.engine.graph.row(slot)
        name = learned.engine.vocabulary.keys[slot]
        row = past.beside[past.vocabulary.get(name or "") or 0]
        at = past.vocabulary.intern(learned.engine.vocabulary.names(nbr))
        assert np.allclose([row[b] for b in at.tolist()], wgt, rtol=1e-5)
        assert len(row) == len(nbr)


@pytest.mark.parametrize("unseen", [False, True])
def test_counts_rank_as_a_sort_does_and_what_has_no_count_is_not_found(unseen: bool) -> None:
    learned = Learned()
    table = learned.past.after
    asked = learned.ask(visits(8, at=2500), unseen)
    ranks = Counts("transitions", table)(asked)["transitions"]
    for i, rank in enumerate(ranks.tolist()):
        row = table.get(int(asked.positions.history[i, 0]), {})
        target = int(asked.positions.target[i])
        if target not in row:
            assert rank == asked.last
        else:
            session = asked.positions.sessions[i].tolist()
            others = [b for b in row if not unseen or b not in session]
            order = sorted(others, key=lambda b: (-row[b], int(asked.place[b])))
            assert rank == order.index(target)
    assert (ranks == asked.last).any()
    assert (ranks < asked.last).sum() > 50


# -- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [0, 2])
def test_the_last_item_asks_as_in_the_metrics_of_the_worker(slots: int) -> None:
    learned = Learned(replace(SETTINGS, model=ModelSettings(dim=16, attribute_slots=slots)))
    engine = learned.engine
    asked = learned.ask(visits(7, at=2500))
    got = Model(("next", "hybrid"))(asked) | popularity(asked)
    query, target = engine.items[asked.query], engine.items[asked.target]
    expected = quality.ranks(engine.model, engine.graph, engine.items, query, target)
    assert len(query) > 100
    for name, ranks in got.items():  # float32 sums may turn two that are all but equal
        assert np.abs(ranks - expected[name]).max() <= 1, name


def test_a_session_asks_by_the_decayed_means_of_vectors_and_shares() -> None:
    learned = Learned()
    engine, g = learned.engine, 0.5
    asked = learned.ask(visits(7, at=2500), unseen=True)
    got = Model(("similar", "next", "hybrid"), g)(asked)
    rows, items = engine.model.rows, engine.items
    v, u = unit_rows(hidden(rows, items)).astype(float), unit_rows(rows.u[items]).astype(float)
    p = np.zeros((len(items), len(items)))
    for place, slot in enumerate(items.tolist()):
        nbr, wgt = engine.graph.row(slot)
        p[place, np.searchsorted(items, nbr)] = wgt / wgt.sum()
    worst = 0
    for i in range(len(asked)):
        history = asked.history[i][asked.history[i] >= 0]
        w = g ** np.arange(len(history))
        w /= w.sum()
        similar = w @ v[history] @ v.T
        following = similar + w @ u[history] @ v.T + w @ v[history] @ u.T
        scores = {"similar": similar, "next": following,
                  "hybrid": following + 2 * np.sqrt(w @ p[history])}  # fmt: skip
        left_out = asked.place[asked.positions.sessions[i]]
        for mode, score in scores.items():
            order = [b for b in np.argsort(-score, kind="stable") if b not in left_out]
            found = got[f"{mode}, session"][i]
            worst = max(worst, abs(int(found) - order.index(asked.target[i])))
    assert worst <= 1
    assert len(asked) > 100


def test_only_clicks_on_items_that_the_session_has_not_are_ranked_as_unseen() -> None:
    rows = visits(7, at=2500)
    everything, unseen = Learned().ask(rows), Learned().ask(rows, unseen=True)
    repeated = everything.positions.repeated
    assert 0 < repeated.sum() < len(repeated)
    assert unseen.positions.click.tolist() == everything.positions.click[~repeated].tolist()
    before = Model(("hybrid",))(everything)["hybrid"][~repeated]
    after = Model(("hybrid",))(unseen)["hybrid"]
    assert (after <= before).all()
    assert (after < before).any()


def test_equals_rank_in_the_order_of_birth_without_the_query() -> None:
    engine, past = Engine(SETTINGS), Past(SETTINGS)
    rows = [(f"u{n}", f"i{n}", 0) for n in range(30)]
    past.take(clicks(rows), ALL)
    engine.step(Inputs(clicks(rows)))
    engine.model.rows.v[:] = 0.0
    asked = Asked(engine, past, past.take(clicks([("u5", "i4", 9), ("u3", "i6", 9)]), ALL), False)
    for ranks in (Model(("next",))(asked)["next"], popularity(asked)["popularity"]):
        assert ranks.tolist() == [4, 5]


# -- session-kNN ---------------------------------------------------------------------------------


@pytest.mark.parametrize("unseen", [False, True])
def test_session_knn_ranks_as_the_paper_says(unseen: bool) -> None:
    learned = Learned(rounds=12)
    asked = learned.ask(visits(13, at=4800), unseen)
    closed = [set(session.tolist()) for session in learned.past.closed]
    assert len(closed) > 150
    ranks = knn.SessionKnn(learned.past)(asked)[knn.NAME]
    found = 0
    for i, rank in enumerate(ranks.tolist()):
        session = set(asked.positions.sessions[i].tolist())
        sharing = [other for other in reversed(closed) if other & session][: knn.RECENT]
        like = [len(s & session) / math.sqrt(len(s) * len(session)) for s in sharing]
        nearest = sorted(range(len(like)), key=lambda n: -like[n])[: knn.NEAREST]
        score: dict[int, np.float32] = {}
        for n in nearest:
            for b in sharing[n]:
                score[b] = score.get(b, np.float32(0.0)) + np.float32(like[n])
        left_out = session if unseen else {int(asked.positions.history[i, 0])}
        target = int(asked.positions.target[i])
        if target not in score:
            assert rank == asked.last
            continue
        others = [b for b in score if b not in left_out]
        order = sorted(others, key=lambda b: (-score[b], int(asked.place[b])))
        assert rank == order.index(target)
        found += 1
    assert found > 50


def test_session_knn_forgets_all_but_the_most_recent_sessions() -> None:
    past, engine = Past(SETTINGS), Engine(SETTINGS)
    # Of those with item a, the session u0 is one too many. Of the others u1 is most alike.
    rows = [("u0", "near0", 0), ("u0", "goal0", 0), ("u1", "near1", 1), ("u1", "goal1", 1)]
    rows += [(f"u{n}", "b", n) for n in range(2, knn.RECENT + 1)]
    rows += [(f"u{n}", "a", n) for n in range(knn.RECENT + 1)]
    known = [("x", item, 0) for item in ("a", "b", "near0", "goal0", "near1", "goal1")]
    engine.step(Inputs(clicks(known)))
    past.take(clicks(rows), 0)
    past.learn()
    past.take(clicks([("w", "a", 9000)]), 0)
    past.learn()
    late = [(f"y{n}", item, 9010) for n in range(2) for item in ("a", f"near{n}", f"goal{n}")]
    asked = Asked(engine, past, past.take(clicks(late), ALL), False)
    ranks = knn.SessionKnn(past)(asked)[knn.NAME]
    goals = [name.startswith("goal") for name in names(past, asked.positions.target)]
    # Items a and b, which the others have, come before it.
    assert ranks[goals].tolist() == [asked.last, 2]


# -- peers ---------------------------------------------------------------------------------------


def test_a_peer_trains_at_every_tenth_and_knows_nothing_newer() -> None:
    learned, trained = Learned(), list[int]()

    def train(engine: Engine, past: Past) -> peers.Vectors:
        trained.append(past.clicks)
        numbers = past.vocabulary.intern(engine.vocabulary.names(engine.items))
        v, u = engine.model.rows.v[engine.items], engine.model.rows.u[engine.items]
        return peers.Vectors(numbers, unit_rows(v), unit_rows(u))

    peer = peers.Retrained("twin", ("similar", "next"), train)
    asked = learned.ask(visits(7, at=2500))
    assert (peer(asked)["twin, next"] == asked.last).all()
    for share in (0.05, 0.11, 0.15, 0.31, 0.39, 1.0):
        peer.follow(share, learned.engine, learned.past)
    assert len(trained) == 2
    own = Model(("similar", "next"))(asked)
    for kind in ("similar", "next"):
        assert np.abs(peer(asked)[f"twin, {kind}"] - own[kind]).max() <= 1
    learned.past.learn()
    learned.round([("n", "i1", 2600), ("n", "brand new", 2610), ("n", "i2", 2620)])
    asked = learned.ask([("m", "i1", 2700), ("m", "brand new", 2701), ("m", "i2", 2702)])
    assert (peer(asked)["twin, similar"] == asked.last).all()


def test_the_graph_of_deepwalk_has_every_transition_both_ways() -> None:
    past = Learned().past
    graph = peers.undirected(past)
    total = sum(len(target) for _, target in past.transitions)
    assert sum(graph.row(n)[1].sum() for n in range(len(past.vocabulary))) == 2 * total
    for a in range(len(past.vocabulary)):
        for b, n in zip(*(x.tolist() for x in graph.row(a)), strict=True):
            assert n == past.after.get(a, {}).get(b, 0) + past.after.get(b, {}).get(a, 0)


@pytest.mark.parametrize("name", ["gensim", "batch"])
def test_what_is_trained_anew_finds_the_next_item(name: peers.Peer) -> None:
    if name == "gensim":
        pytest.importorskip("gensim")
    learned = Learned(rounds=12)
    found = peers.of(name, SETTINGS)
    for peer in found:
        peer.follow(0.5, learned.engine, learned.past)
    asked = learned.ask(visits(20, at=4800))
    for peer in found:
        for ranker, ranks in peer(asked).items():
            # By chance .2; item2vec has few sessions here.
            assert (ranks < 10).mean() > (0.3 if "item2vec" in ranker else 0.6), ranker


# -- figures -------------------------------------------------------------------------------------


def test_figures_are_those_of_the_definitions() -> None:
    rank = np.array([0, 2, 19, 20, 500], np.int32)
    got = figures("next", "all", rank, np.array([0, 99, 99, 1, 99], np.int32))
    assert got.positions == 5
    assert got.hr == pytest.approx(3 / 5)
    assert got.mrr == pytest.approx((1 + 1 / 3 + 1 / 20) / 5)
    assert got.ndcg == pytest.approx((1 + 1 / 2 + 1 / math.log2(21)) / 5)
    assert got.hr_error == pytest.approx(math.sqrt(0.6 * 0.4 / 5))
    assert got.ratio == pytest.approx(3 / 2)
    assert figures("next", "all", rank, rank).ratio_error == 0.0
    nothing = np.zeros(0, np.int32)
    assert math.isnan(figures("next", "new", nothing, nothing).hr)
    assert math.isnan(figures("next", "new", rank, rank + 20).ratio)


def test_the_error_of_a_ratio_is_that_of_many_samples() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 50, (2, 2000)).astype(np.int32)
    ours = np.where(rng.random(2000) < 0.8, theirs, ours)
    told = figures("next", "all", ours, theirs)
    drawn = rng.integers(0, 2000, (2000, 2000))
    ratios = (ours[drawn] < 20).mean(axis=1) / (theirs[drawn] < 20).mean(axis=1)
    assert told.ratio_error == pytest.approx(ratios.std(), rel=0.1)
    assert told.ratio_error < told.hr_error / told.hr


def counted(asked: Asked, past: Past) -> Ranks:
    return popularity(asked) | Counts(BASELINE, past.beside)(asked)


def test_groups_tell_positions_apart_and_add_up() -> None:
    learned, scores = Learned(), Scores()
    first = learned.ask(visits(7, at=2500))
    scores.add(first, counted(first, learned.past), learned.past)
    learned.past.learn()
    asked = learned.ask([("a", "i1", 2700), ("a", "i2", 2710), ("a", "i1", 2720),
                         ("a", "nobody's", 2730)])  # fmt: skip
    scores.add(asked, counted(asked, learned.past), learned.past)
    begin = int(asked.positions.click[0])
    found = {f.of: f.positions for f in scores.figures(begin)}
    assert found["all"] == 3
    assert (found["first"], found["again"]) == (2, 1)
    assert found["never seen"] == 1
    assert found["popular"] + found["common"] + found["rare"] == 2
    assert (found["new"], found["young"], found["old"]) == (0, 0, 2)
    whole = {f.of: f.positions for f in scores.figures(0)}
    assert whole["all"] == 3 + len(first)
    # The popularity ranker finds the popular tenth and nobody past the 20th of 50 items.
    hits = {f.of: f.hr for f in scores.figures(0) if f.ranker == "popularity"}
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
        "popularity", "transitions", "co-visitation", "session-kNN", "batch, next",
    }  # fmt: skip
    assert hr["batch, next"] > hr["popularity"]
    assert hr["hybrid"] > hr["popularity"]
    assert hr["transitions"] > hr["popularity"]
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
    for words in ("hybrid", "session-kNN", "of co-visitation", "never seen before", "top 10"):
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


def test_a_peer_needs_files_whose_end_is_known() -> None:
    with pytest.raises(ConfigError, match="--peer: name files"):
        evaluate(STDIN, replace(PLAIN, peer="batch"))
