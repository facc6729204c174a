"""Vectors of users on a real Kafka: what they are made of, and that each click counts once."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from kills import Stream
from many import SETTINGS as TEAM
from many import Team

from streamer.demo.shop import Shop
from streamer.state import commits, users
from tests.integration.models import grow, hand_over, header_of, recreate, repair
from tests.support import DETERMINISTIC, ROOT, START_MS, App, as_records, wait_until
from tests.users import assert_histories, histories, last_of, of_folder

SHOP = Shop(5, products=60, users=40)
RAW = [
    click | {"event_id": f"e{n - (n % 50 == 7)}"}  # some come twice
    for n, click in enumerate(islice(SHOP.clicks(START_MS, 0.5), 2401))
]
CLICKS = as_records(RAW)
HALF_LIFE = 600_000
MOST = 12
EXACT: dict[str, object] = {
    **DETERMINISTIC,
    "round.max_events": 100,
    "user_vectors.kind": "mean",
    "user_vectors.items": MOST,
    "user_vectors.half_life": "10m",
    "graph.horizon": "20d",
}


def told(messages: list[Message]) -> list[tuple[bytes | None, bytes | None, int]]:
    """Key, value and number of the commit, in order."""
    marks = [commits.mark_of(message) for message in messages]
    return [
        (message.key(), message.value(), mark.number)
        for message, mark in zip(messages, marks, strict=True)
        if mark is not None
    ]


@pytest.fixture(scope="module")
def source(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app whose worker nobody disturbed. The log ends one record behind a commit."""
    with App(kafka, tmp_path_factory.mktemp("users"), EXACT) as app:
        app.publish(CLICKS)
        worker = app.worker()
        place = app.config.topics.clicks, 0
        worker.until(lambda: app.group_offsets().get(place) == 2400, "all commits")
        worker.stop()
        yield app


def test_a_vector_is_the_decayed_mean_of_the_items_as_of_its_commit(source: App) -> None:
    app = source
    messages = app.read(app.config.topics.user_vectors)
    assert of_folder(app.state) == last_of(messages)
    weights = app.config.events.weights
    assert_histories(last_of(messages), histories(RAW[:2400], weights, HALF_LIFE, MOST))
    vectors: dict[str, list[tuple[int, Any]]] = {}
    for _, value, commit in told(app.read(app.config.topics.item_vectors)):
        if value is not None:
            one = msgspec.json.decode(value)
            vectors.setdefault(one["item_id"], []).append((commit, one))
    compared = 0
    for _, value, commit in told(messages)[::7]:
        record = users.read(value or b"")
        v, u = np.zeros(16), np.zeros(16)
        for one in record.history:
            before = [row for number, row in vectors.get(one.item, []) if number <= commit]
            if before:
                weight = one.weight * 0.5 ** ((record.ts - one.time) / HALF_LIFE)
                v += weight * np.array(before[-1]["vector"])
                u += weight * np.array(before[-1]["context"])
        (mean,) = record.vectors
        assert (mean.item, mean.weight) == (None, 1.0)
        for got, wanted in zip(mean.arrays, (v, u), strict=True):
            np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), atol=1e-4)
        compared += 1
    assert compared > 30


KILLS = [
    ("begin", "after", 1), ("produce", "middle", 1), ("commit", "after", 1), ("apply", "before", 1),
    ("apply", "middle", 1), ("commit", "middle", 2), ("apply", "after", 2),
]  # fmt: skip


@pytest.mark.parametrize(
    "is_lost",
    [
        pytest.param(False, id="folder-kept", marks=pytest.mark.long),
        pytest.param(True, id="folder-lost"),
    ],
)
def test_killed_workers_leave_the_topic_that_an_uninterrupted_one_leaves(
    kafka: str, tmp_path: Path, source: App, is_lost: bool
) -> None:
    topics = source.config.topics
    shared = {"topics.clicks": topics.clicks, "topics.items": topics.items}
    with App(kafka, tmp_path, {**EXACT, **shared}) as app:
        for number, (point, when, call) in enumerate(KILLS[is_lost : 5 if is_lost else None]):
            if is_lost and number % 2:
                shutil.rmtree(app.state)
            marker = tmp_path / f"marker-{number}"
            plan = {"point": point, "when": when, "call": call, "marker": str(marker)}
            assert app.worker(plan=plan).wait() == -9
            assert marker.exists()
        worker = app.worker()
        place = topics.clicks, 0
        worker.until(lambda: app.group_offsets().get(place) == 2400, "all commits")
        worker.stop()
        got, wanted = (told(a.read(a.config.topics.user_vectors)) for a in (app, source))
        assert got == wanted
        assert of_folder(app.state) == of_folder(source.state)


def test_the_idle_and_the_forgotten_leave_the_topic(kafka: str, tmp_path: Path) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2, "user_vectors.idle": "1h"}
    settings |= {"user_vectors.kind": "interests", "publish.format": "msgpack"}
    early = [click | {"user_id": f"early-{click['user_id']}"} for click in RAW[:200]]
    late = [click | {"ts": click["ts"] + 7_200_000} for click in RAW[:200]]
    with App(kafka, tmp_path, settings) as app:

        def there() -> set[str]:
            found = last_of(app.read(app.config.topics.user_vectors))
            for value in found.values():
                record = users.read(value)
                assert 0 < sum(one.weight for one in record.vectors) <= 1 + 1e-5
                assert {one.item for one in record.vectors} <= {h.item for h in record.history}
                assert all(len(one.arrays[0]) == 16 for one in record.vectors)
            return {user.decode() for user in found}

        gone = {str(click["user_id"]) for click in early}
        stay = {str(click["user_id"]) for click in late}
        app.publish(as_records(early))
        worker = app.worker().running()
        worker.until(app.caught_up, "the early clicks")
        assert there() == gone
        app.publish(as_records(late))
        worker.until(lambda: there() == stay, "only those who clicked late")
        somebody = min(stay)
        forgotten = app.command("forget", somebody)
        assert forgotten.wait() == 0, forgotten.output
        worker.until(lambda: there() == stay - {somebody}, "who is forgotten to go")
        worker.stop()
        assert {user.decode() for user in of_folder(app.state)} == stay - {somebody}
        # Who comes back begins anew.
        app.publish(as_records([early[0] | {"ts": late[-1]["ts"]}]))
        app.run_to_end()
        (one,) = [users.read(v) for u, v in of_folder(app.state).items() if u.startswith(b"early")]
        assert [entry.item for entry in one.history] == [early[0]["item_id"]]


def test_several_workers_count_each_click_once_and_have_all_users(
    kafka: str, tmp_path: Path
) -> None:
    clicks = list(islice(Shop(1, products=200, users=200).clicks(START_MS, 1.0), 6000))
    settings = {**TEAM, "commit.seconds": 0.3, "user_vectors.kind": "interests"}
    settings |= {"user_vectors.items": MOST, "user_vectors.half_life": "10m"}
    with App(kafka, tmp_path, settings) as app:
        team = Team(app)
        with Stream(app, as_records(clicks), Random(1)) as stream:
            team.start("a")
            team.running("a")
            team.start("b")
            wait_until(lambda: "took up" in team.workers["b"].output, "a share")
            wait_until(lambda: stream.sent > 2000, "some clicks")
            team.kill("b")
            wait_until(lambda: "alone: " in team.workers["a"].output, "the other half")
            team.start("b")
            wait_until(lambda: stream.sent == len(clicks), "all clicks")
        team.finish()
        topic = last_of(app.read(app.config.topics.user_vectors))
        read = assert_histories(
            topic, histories(clicks, app.config.events.weights, HALF_LIFE, MOST)
        )
        assert sum(len(one.vectors) > 0 for one in read.values()) > 0.9 * len(read)
        team.start("c")
        team.running("c")
        team.stop("c")
        for name in "abc":
            assert of_folder(team.folder(name)) == topic, name


def test_a_topic_that_was_made_anew_is_filled_again_and_a_user_is_shown_something(
    kafka: str, tmp_path: Path
) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2, "user_vectors.kind": "interests"}
    with App(kafka, tmp_path, settings) as app:
        app.publish(CLICKS[:600])
        app.run_to_end()
        before = of_folder(app.state)
        recreate(app, app.config.topics.user_vectors)
        worker = app.worker().running()
        worker.until(lambda: "repaired: " in worker.output, "the repair")
        worker.stop()
        assert last_of(app.read(app.config.topics.user_vectors)) == before
        assert of_folder(app.state) == before
        user = min(before).decode()
        asked = [sys.executable, "-m", "streamer.cli", "query", "--user", user, "--json"]
        done = subprocess.run(
            [*asked, "--mode", "next", "--state", str(app.state)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        shown = msgspec.json.decode(done.stdout)
        assert len(shown["items"]) == 10
        history = {one.item for one in users.read(before[user.encode()]).history}
        assert not history & {one["item"] for one in shown["items"]}


def test_vectors_of_users_may_begin_and_end_at_any_start(kafka: str, tmp_path: Path) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2}
    with App(kafka, tmp_path, settings) as app:
        off = app.settings
        app.publish(CLICKS[:300])
        app.run_to_end()
        assert app.config.topics.user_vectors not in app.admin.list_topics(timeout=10).topics
        app.settings = {**off, "user_vectors.kind": "mean"}
        lacking = app.worker()
        assert lacking.wait() == 3
        assert f"{app.config.topics.user_vectors} does not exist" in lacking.output
        created = app.command("topics", "create")
        assert created.wait() == 0, created.output
        app.publish(CLICKS[300:600])
        worker = app.worker().running()
        worker.until(app.caught_up, "the clicks since then")
        other = app.worker(
            app__instance="b", state__dir=tmp_path / "b", user_vectors__kind="off"
        )  # fmt: skip
        other.until(lambda: "have vectors of users" in other.output, "what keeps it waiting")
        other.kill()
        worker.stop()
        found = of_folder(app.state)
        assert {user.decode() for user in found} == {c["user_id"] for c in RAW[300:600]}
        app.settings = off
        app.publish(CLICKS[600:900])
        app.run_to_end()
        assert of_folder(app.state) == found


def test_users_stay_known_under_another_name_of_the_app_with_a_new_folder(
    kafka: str, tmp_path: Path
) -> None:
    settings = {"topics.partitions": 1, "commit.seconds": 0.2, "user_vectors.kind": "mean"}
    with App(kafka, tmp_path, settings) as app:
        app.publish(CLICKS[:600])
        app.run_to_end()
        before = of_folder(app.state)
        changed: dict[str, Any] = {"app__name": f"{app.name}-b", "state__dir": tmp_path / "b"}
        hand_over(app, app.name, **changed)
        app.worker(**changed).running().stop()
        assert of_folder(tmp_path / "b") == before


def test_users_are_emptied_with_the_model_also_where_there_are_none_by_now(
    kafka: str, tmp_path: Path
) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2}
    with App(kafka, tmp_path, {**settings, "user_vectors.kind": "mean"}) as app:
        app.publish(CLICKS[:300])
        app.run_to_end()
        users_of = app.config.topics.user_vectors
        layout = header_of(app).topics["user_vectors"]
        grow(app, users_of, 3)
        app.settings = {**app.settings, "user_vectors.kind": "off"}
        app.publish(CLICKS[300:600])
        app.run_to_end()
        header = header_of(app)
        assert "user_vectors" not in header.topics
        assert header.unused == {"user_vectors": layout}, "keys stay where they are"
        repair(app)
        assert header_of(app).unused == {"user_vectors": layout}
        done = app.command("reset", "--topics", "--yes")
        assert done.wait() == 0, done.output
        assert users_of in done.output
        assert not app.read(users_of)


def test_no_commit_has_more_users_than_it_has_room_for(kafka: str, tmp_path: Path) -> None:
    """Of records that carry clicks of a hundred users each, some 120 in a round."""
    settings = {"topics.partitions": 1, "user_vectors.kind": "mean"}
    clicks = [
        {"user_id": f"u{n // 2}", "item_id": f"i{n % 50}", "ts": START_MS + 10 * n}
        for n in range(24_000)
    ]
    lines = [msgspec.json.encode(click) for click in clicks]
    records = [(b"k", b"\n".join(lines[at : at + 200])) for at in range(0, len(lines), 200)]
    with App(kafka, tmp_path, settings) as app:
        app.publish(records)
        app.run_to_end()
        topics = app.config.topics
        users_of = Counter(number for _, _, number in told(app.read(topics.user_vectors)))
        sizes = Counter(users_of)
        for topic in (topics.item_vectors, topics.model_state, topics.transitions):
            sizes += Counter(number for _, _, number in told(app.read(topic)))
        assert users_of.total() < 13_000
        assert 4900 <= max(users_of.values()) <= 5000
        assert max(sizes.values()) <= 20_000
        found = last_of(app.read(topics.user_vectors))
        assert_histories(found, histories(clicks, app.config.events.weights, HALF_LIFE, MOST))
