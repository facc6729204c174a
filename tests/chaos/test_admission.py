"""Kill -9 while ids are counted: those are admitted that are where nobody kills."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from everything import folded
from kills import Stream
from many import Team, twice, unlike_topic

from streamer.demo.shop import Shop
from streamer.state import evidence
from tests.chaos.test_kill import Outcome, assert_equal_sequences, kill_at, outcome
from tests.folders import assert_same, counts_of, graph_of, table_and_graph
from tests.integration.test_many import MANY, lose_one_and_get_it_back
from tests.support import DETERMINISTIC, START_MS, App, as_records

SETTINGS = {**DETERMINISTIC, "admission.min_events": 2, "admission.min_users": 2,
            "admission.most": 1000, "checkpoint.seconds": 3600}  # fmt: skip
COMMIT = 400
"""Records of a commit."""
COMMITS = 12
LATER = 302
"""Clicks of the shop between the two on a random id."""


def log_of() -> list[tuple[bytes, bytes]]:
    """A shop's clicks, every other one of a bot, on an id of its own; some are clicked once more,
    LATER, by who visits the shop. One more than the last commit has."""
    n = COMMIT * COMMITS // 2
    shop = list(islice(Shop(7, products=60, users=40).clicks(START_MS, 0.5), n + 1))
    out = []
    for k, click in enumerate(shop):
        again = k % 5 == 4 and k > LATER
        user, number = (click["user_id"], k - LATER) if again else (f"bot-{k}", k)
        id_ = {"user_id": user, "item_id": f"random-{number}", "event_id": f"b{k}"}
        out += [click, {**click, **id_}]
    return as_records(out[: 2 * n + 1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admission")


@pytest.fixture(scope="module")
def uninterrupted(kafka: str, folder: Path) -> Iterator[tuple[App, Outcome]]:
    with App(kafka, folder, SETTINGS) as app:
        app.publish(log_of())
        worker = app.worker()
        where = (app.config.topics.clicks, 0)
        worker.until(lambda: app.group_offsets().get(where) == COMMIT * COMMITS, "all commits")
        worker.stop()
        yield app, outcome(app)


def test_what_is_held_back_is_evidence_and_nothing_else(
    uninterrupted: tuple[App, Outcome],
) -> None:
    app, wanted = uninterrupted
    read = app.read(app.config.topics.transitions)
    rounds = [one for m in read for one in evidence.unpack(m.value() or b"").rounds]
    held = [
        item
        for one in rounds if one.held is not None
        for item, back in zip(one.clicks.items, one.held.tolist(), strict=True) if back
    ]  # fmt: skip
    clicks = [item for one in rounds for item in one.clicks.items]
    assert len(clicks) > 0.95 * COMMIT * COMMITS
    once = {item for item in held if item.startswith("random-")}
    assert len(once) > 1500
    vectors = {(key or b"").decode() for key, _, _ in wanted.vectors}
    admitted = {item for item in vectors if item.startswith("random-")}
    shop = range(LATER + 1, COMMIT * COMMITS // 2)
    assert admitted == {f"random-{k - LATER}" for k in shop if k % 5 == 4}
    assert {item for item in clicks if not item.startswith("random-")} <= vectors | set(held)
    known = {item for item in wanted.state.graph if item.startswith("random-")}
    assert known <= admitted
    rows = {key.decode() for key in wanted.state.rows if not key.startswith(b"\xff")}
    assert {row for row in rows if row.startswith("random-")} <= admitted
    assert not [user for user in wanted.state.sessions if f"random-{user[4:]}" in once - admitted]


KILLS = [
    ("commit", "after", 3),
    ("apply", "middle", 2),
    ("produce", "middle", 2),
    ("apply", "after", 2),
]


@pytest.mark.parametrize(
    ("checkpoint_seconds", "lost"),
    [
        pytest.param(0.001, False, id="from-sweeps"),
        pytest.param(3600, False, id="from-evidence", marks=pytest.mark.long),
        pytest.param(3600, True, id="from-evidence-and-the-folder-lost", marks=pytest.mark.long),
    ],
)
def test_a_killed_worker_admits_what_an_uninterrupted_one_does(
    kafka: str, folder: Path, uninterrupted: tuple[App, Outcome], checkpoint_seconds: float,
    lost: bool,
) -> None:  # fmt: skip
    source, wanted = uninterrupted
    shared = {
        "topics.clicks": source.config.topics.clicks,
        "topics.items": source.config.topics.items,
    }
    with App(
        kafka, folder, {**SETTINGS, **shared, "checkpoint.seconds": checkpoint_seconds}
    ) as app:
        for number, (point, when, call) in enumerate(KILLS):
            if lost and number == 3:
                shutil.rmtree(app.state)
            kill_at(app, point, when, call)
        worker = app.worker()
        worker.until(lambda: app.group_offsets() == wanted.offsets, "the end of the log")
        worker.stop()
        got = outcome(app)
    assert_same(got.state, wanted.state)
    assert got.evidence == wanted.evidence
    assert_equal_sequences(got.vectors, wanted.vectors)
    assert_equal_sequences(got.model, wanted.model)


# -- several workers -----------------------------------------------------------------------------


def test_workers_that_come_and_are_killed_admit_alike(kafka: str, tmp_path: Path) -> None:
    """And each as one would that has folded the whole log, in its order, from its beginning."""
    counted = {name: value for name, value in SETTINGS.items() if name.startswith("admission.")}
    with App(kafka, tmp_path, {**MANY, **counted}) as app:
        team, log = Team(app), log_of()
        with Stream(app, log, Random(1)) as stream:
            team.begin()
            lose_one_and_get_it_back(team)
        team.finish()
        assert stream.sent > 1000
        assert twice(app) == []
        table, graph = table_and_graph(team.config("a"))
        assert (table, graph) == table_and_graph(team.config("b"))
        for name in ("a", "b"):
            assert unlike_topic(app, team.config(name)) == []
        # All of it comes from Kafka as well.
        team.start("c")
        team.running("c")
        team.stop("c")
        assert (table, graph) == table_and_graph(team.config("c"))
        once = folded(app)
        assert counts_of(once) == table
        assert graph_of(once) == graph
        assert sum(name.startswith("random-") for name in graph) > 20
        assert once.catalogue.admission.counted > 500
