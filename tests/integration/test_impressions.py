"""Impressions among the clicks of real workers: each counts once, whoever dies."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from many import Team

from streamer.query.choice import Choice
from streamer.query.index import Index
from streamer.state.commits import mark_of
from streamer.state.store import Store
from streamer.worker import checkpoint
from tests.integration.models import CLICKS, EXACT
from tests.support import START_MS, App, wait_until

KNOWN, LATER = CLICKS[:800], CLICKS[800:]
ITEMS = sorted({msgspec.json.decode(value)["item_id"] for _, value in KNOWN})
SHOWN: dict[str, object] = {**EXACT, "events.impressions": "impression"}


def shown_among(
    clicks: list[tuple[bytes, bytes]],
) -> tuple[list[tuple[bytes, bytes]], dict[str, int]]:
    """These, with two impressions after each, most of known items, and seen by many users; and how
    often each was shown."""
    random, out, amount = Random(1), list[tuple[bytes, bytes]](), dict.fromkeys(ITEMS, 0)
    for click in clicks:
        out.append(click)
        ts = msgspec.json.decode(click[1])["ts"]
        for _ in range(2):
            item = random.choice(ITEMS) if random.random() < 0.9 else "never-clicked"
            user = f"viewer-{random.randrange(20)}"
            record = {"user_id": user, "item_id": item, "ts": ts, "event_type": "impression"}
            out.append((user.encode(), msgspec.json.encode(record)))
            if item in amount:
                amount[item] += 1
    return out, amount


def counted(folder: Path) -> dict[str, int]:
    """How often each item of a stopped worker's folder was shown: nothing fades."""
    with Store(folder) as store:
        nodes = checkpoint.nodes(store)
        return {key.decode(): round(checkpoint.shown_at(one, START_MS)) for key, one in nodes}


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SHOWN) as app:
        yield app


def test_a_kill_in_a_commit_and_a_lost_folder_count_none_twice(app: App, tmp_path: Path) -> None:
    app.publish(KNOWN)
    app.run_to_end()
    mixed, amount = shown_among(LATER)
    app.publish(mixed)
    marker = tmp_path / "marker"
    plan = {"point": "commit", "when": "middle", "call": 2, "marker": str(marker)}
    assert app.worker(plan=plan).wait() != 0
    assert marker.exists()
    worker = app.worker().running()  # what the commit had may be in Kafka alone
    worker.until(app.caught_up, "all clicks committed")
    worker.stop()
    found = counted(app.state)
    assert {item: n for item, n in found.items() if n} == {i: n for i, n in amount.items() if n}
    assert found.keys() >= amount.keys()
    assert "never-clicked" not in found
    shutil.rmtree(app.state)
    app.worker().running().stop()
    assert counted(app.state) == found
    with Store(app.state) as store:
        index = Index(store)
        plain = index.neighbours(ITEMS[:1], 10, "next").neighbours
        by_rate = index.neighbours(ITEMS[:1], 10, "next", choice=Choice(ctr=1.0)).neighbours
    assert [one.score for one in plain] != [one.score for one in by_rate]


def test_two_workers_count_what_came_to_either(app: App) -> None:
    team = Team(app)
    team.begin()
    app.publish(KNOWN)
    wait_until(app.caught_up, "all clicks committed")
    before = len(app.read(app.config.topics.transitions))
    mixed, amount = shown_among(LATER)
    app.publish(mixed)
    team.finish()
    told = app.read(app.config.topics.transitions)[before:]
    assert {mark.instance for mark in map(mark_of, told) if mark is not None} == {"a", "b"}
    team.start("c")
    team.running("c")
    team.stop("c")
    for name in "abc":
        found = counted(team.folder(name))
        assert {item: n for item, n in found.items() if n} == {i: n for i, n in amount.items() if n}
