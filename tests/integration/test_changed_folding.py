"""Settings that decide what clicks do to sessions and graph, changed between two lives.

Evidence does not say by which settings it was folded. So what comes back, of whatever is left, has
to be what the workers went on with.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from many import SETTINGS, Team, twice, unlike

from streamer.demo.shop import Shop
from tests.folders import contents, table_and_graph
from tests.support import START_MS, App, as_records, wait_until

BASE: dict[str, object] = {
    **SETTINGS,
    "topics.partitions": 2,
    # Many commits: a sweep of `model-state` takes dozens of them, and is behind.
    "round.max_events": 100,
    "commit.rounds": 1,
    "checkpoint.seconds": 60,
}
SOME: dict[str, object] = {"admission.min_events": 2, "admission.min_users": 2}
MORE: dict[str, object] = {"admission.min_events": 8, "admission.min_users": 4}


def log_of(n: int) -> list[tuple[bytes, bytes]]:
    """A shop's clicks, two in five of them on one of some ids that few click."""
    chance = Random(1)
    clicks = list(islice(Shop(1, products=200, users=200).clicks(START_MS, 1.0), n))
    for click in clicks:
        if chance.random() < 0.4:
            click["item_id"] = f"random-{chance.randrange(n // 15)}"
    return as_records(clicks)


CLICKS = log_of(3300)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param({}, SOME, id="admission-on"),
        pytest.param(SOME, MORE, id="admission-otherwise", marks=pytest.mark.long),
        pytest.param(SOME, {}, id="admission-off", marks=pytest.mark.long),
        pytest.param({}, {"session.gap": "2m", "session.length": 2}, id="sessions"),
    ],
)
def test_a_folder_that_is_lost_comes_back_as_it_was(
    kafka: str, tmp_path: Path, first: Mapping[str, object], then: Mapping[str, object]
) -> None:
    with App(kafka, tmp_path, {**BASE, **first}) as app:
        app.publish(CLICKS[:3000])
        app.run_to_end()
        app.settings = {**app.settings, **dict.fromkeys(first, 1), **then}
        app.publish(CLICKS[3000:])
        app.run_to_end()
        wanted, table = contents(app.config), table_and_graph(app.config)
        app.worker(state__dir=tmp_path / "new").running().stop()
        app.settings = {**app.settings, "state.dir": tmp_path / "new"}
        got = contents(app.config)
        assert unlike("graph", {"before": wanted.graph, "after": got.graph}) == []
        assert unlike("sessions", {"before": wanted.sessions, "after": got.sessions}) == []
        assert table_and_graph(app.config) == table


def test_several_workers_begin_anew_by_other_settings(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, BASE) as app:
        team = Team(app)
        team.start("a")
        team.running("a")
        team.start("b")
        app.publish(CLICKS[:3000])
        team.running("b")
        team.finish()
        app.settings = {**app.settings, **SOME}
        app.publish(CLICKS[3000:])
        for name in ("a", "b"):
            team.start(name)
        team.running("a", "b")
        wait_until(lambda: "took up" in team.told(), "a share of whoever came later")
        team.finish()
        assert team.ended == {}
        assert twice(app) == []
        assert table_and_graph(team.config("a")) == table_and_graph(team.config("b"))
