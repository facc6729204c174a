"""What was sent back counts once, however the graph comes back."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.folders import contents
from tests.integration.letters import done, listed
from tests.support import App


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {"topics.partitions": 2, "commit.seconds": 0.2}) as app:
        yield app


def arcs(app: App) -> dict[tuple[str, str], float]:
    """The weight of each arc as of the last click, in the graph that a stopped worker left."""
    state = contents(app.config)
    scale = 2.0 ** ((state.clock[0] - state.clock[1]) / int(app.config.graph.half_life))
    return {
        (node, neighbour): float(weight) / scale
        for node, (_, _, _, neighbours, weights) in state.graph.items()
        for neighbour, weight in zip(neighbours, np.frombuffer(weights, "<f4"), strict=True)
    }


def wishes(n: int, ahead_ms: int = 0) -> list[tuple[bytes, bytes]]:
    """Clicks of n / 2 users on two items in turn, of a type without a weight, in one partition."""
    now = int(time.time() * 1000) - 60_000 + ahead_ms
    return [
        (b"u", json.dumps({
            "user_id": i // 2, "item_id": "ab"[i % 2], "ts": now + 100 * i, "event_type": "wish",
        }).encode())
        for i in range(n)
    ]  # fmt: skip


def send_back(app: App) -> None:
    """All dead letters, and a record behind the end of their transaction."""
    done(app.command("dlq", "replay", "--all"))
    app.publish([(b"u", b"the end")])


@pytest.mark.parametrize(
    ("spoilt", "mended"),
    [
        pytest.param({}, {"events.weights.wish": 1.0}, id="unknown-type"),
        pytest.param(
            {"events.weights.wish": 1.0, "clicks.time_unit": "s"},
            {"clicks.time_unit": "ms"},
            id="bad-time",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_was_sent_back_counts_once_in_a_graph_that_is_folded_anew(
    app: App, spoilt: dict[str, object], mended: dict[str, object]
) -> None:
    app.settings = {**app.settings, **spoilt}
    app.publish(wishes(6))
    app.run_to_end()
    assert len(listed(app)) == 6
    app.settings = {**app.settings, **mended}
    send_back(app)
    app.run_to_end()
    learned = arcs(app)
    assert learned.keys() == {("a", "b"), ("b", "a")}
    assert learned["a", "b"] == pytest.approx(3.0, rel=1e-3)
    shutil.rmtree(app.state)
    app.worker().running().stop()
    assert arcs(app) == pytest.approx(learned, rel=1e-3)


def test_what_was_sent_back_counts_in_a_graph_that_comes_from_a_checkpoint(app: App) -> None:
    app.publish(wishes(6))
    app.run_to_end()
    app.settings = {**app.settings, "events.weights.wish": 1.0}
    send_back(app)
    worker = app.worker(checkpoint__seconds=3600)
    worker.until(app.caught_up, "the clicks sent back")
    worker.kill()
    app.worker().running().stop()
    assert arcs(app)["a", "b"] == pytest.approx(3.0, rel=1e-3)


def test_what_was_sent_back_counts_where_its_original_is_still_bad(app: App) -> None:
    app.settings = {**app.settings, "events.weights.wish": 1.0, "events.max_ahead": "1s"}
    app.publish(wishes(6, ahead_ms=60_000 + 4_000))
    app.run_to_end()
    assert {letter["error.class"] for letter in listed(app)} == {"bad_time"}
    time.sleep(5)
    send_back(app)
    app.run_to_end()
    learned = arcs(app)
    assert learned["a", "b"] == pytest.approx(3.0, rel=1e-3)
    shutil.rmtree(app.state)
    app.worker().running().stop()
    assert arcs(app) == pytest.approx(learned, rel=1e-3)
