"""A major update when somebody asks for it."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from many import SETTINGS, Team

from streamer.demo.shop import Shop
from streamer.state import packing, records
from tests.support import START_MS, App, as_records, wait_until

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 3000))


def epochs(app: App) -> list[int]:
    """Those of all placements that were ever written."""
    return [
        packing.unpack_placement(message.value() or b"", 1).epoch
        for message in app.read(app.config.topics.model_state)
        if message.key() == records.PLACEMENT
    ]


def ask(app: App, *options: str) -> str:
    asked = app.command("major", *options)
    assert asked.wait() == 0, asked.output
    return asked.output


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2, "major.every": 0}
    with App(kafka, tmp_path, settings) as app:
        yield app


def test_it_is_done_once_by_whoever_runs_next_over_restarts_and_a_lost_folder(app: App) -> None:
    nothing = app.command("major")
    assert nothing.wait() == 1
    assert "has no model" in nothing.output
    worker = app.worker()
    app.publish(CLICKS[:1500])
    worker.until(lambda: epochs(app) == [1], "the first clusters")
    assert "epoch 2" in ask(app, "--wait"), "it needs no clicks"
    app.publish(CLICKS[1500:2000])
    worker.until(app.caught_up, "more clicks")
    worker.stop()
    assert epochs(app) == [1, 2]
    ask(app)
    ask(app)
    app.publish(CLICKS[2000:2500])
    app.run_to_end()
    worker = app.worker()
    worker.until(lambda: epochs(app)[-1] == 3, "what was asked for while none ran")
    worker.stop()
    shutil.rmtree(app.state)
    app.publish(CLICKS[2500:])
    app.run_to_end()
    assert epochs(app)[-1] == 3
    assert sorted(set(epochs(app))) == epochs(app)


def test_another_apps_model_is_left_alone(app: App) -> None:
    app.publish(CLICKS[:500])
    app.run_to_end()
    other = app.command("major", app__name="other")
    assert other.wait() == 3
    assert "is the model of app" in other.output


def test_whoever_waits_is_told_that_no_worker_runs(app: App) -> None:
    app.publish(CLICKS[:500])
    app.run_to_end()
    waits = app.command("major", "--wait")
    assert waits.wait() == 1, "once the session of the one that was stopped is over"
    assert "no worker runs in group" in waits.output
    assert "no worker runs in group" in ask(app)


def test_of_several_workers_one_moves_the_centroids_and_the_others_go_by_them(
    kafka: str, tmp_path: Path
) -> None:
    # A worker knows of others' items how settled they are as they were published.
    few = {"clusters.min_items": 8, "clusters.count": 4}
    settings = {**SETTINGS, **few, "commit.seconds": 0.2, "major.every": 0}
    with App(kafka, tmp_path, settings) as app:
        team = Team(app)
        team.begin()
        app.publish(CLICKS)
        wait_until(lambda: epochs(app) == [1], "the first clusters")
        ask(app, "--wait")
        wait_until(app.caught_up, "all clicks")
        team.finish()
        assert epochs(app) == [1, 2]
