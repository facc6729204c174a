"""A challenger in a real worker: it takes over for good, and comes back over stops."""

import re
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from broker import free_port
from numpy.typing import NDArray

from streamer.demo.shop import Shop
from streamer.state import records
from streamer.state.records import Promoted
from tests.integration.models import header_of
from tests.support import START_MS, App, Process, as_records

CLICKS = as_records(islice(Shop(5, products=120, users=60).clicks(START_MS, 0.5), 5000))
SETTINGS: dict[str, object] = {
    "topics.partitions": 2,
    "commit.seconds": 0.2,
    "round.max_events": 100,
    "quality.sample": 64,
    "major.every": 0,
}
POOR: dict[str, object] = {
    "model.rate": 1e-6,
    "model.session_rate": 1e-6,
    "challenger.set": '["model.rate=0.1", "model.session_rate=0.7"]',
}
"""A champion that learns nothing, and a challenger that does."""


def promotions(app: App) -> list[tuple[int, Promoted]]:
    """The records that one took over, and the commits with which they left."""
    out = []
    for message in app.read(app.config.topics.model_state):
        if message.key() == records.PROMOTED:
            value = dict(message.headers() or [])[records.COMMIT_HEADER]
            assert isinstance(value, bytes)
            number = re.match(r".*?/(\d+)@", value.decode())
            assert number is not None
            value = message.value() or b""
            out.append((int(number[1]), msgspec.msgpack.decode(value, type=Promoted)))
    return out


def vectors(app: App) -> dict[str, NDArray[np.float32]]:
    """The last vector of each item in the topic."""
    read = [msgspec.json.decode(m.value() or b"") for m in app.read(app.config.topics.item_vectors)]
    return {one["item_id"]: np.array(one["vector"], np.float32) for one in read}


def until_level(app: App, worker: Process) -> None:
    worker.until(app.caught_up, "all clicks committed")


def test_a_better_one_takes_over_within_its_space_and_a_restart_goes_on_by_it(
    kafka: str, tmp_path: Path
) -> None:
    terms = {"challenger.promote": "true", "challenger.error": 0.2, "challenger.min_agreement": -1}
    settings = SETTINGS | POOR | terms
    with App(kafka, tmp_path, settings) as app:
        port = free_port()
        worker = app.worker(metrics__port=port).running()
        assert "a challenger learns beside the model: it begins as the champion is" in worker.output
        space = header_of(app)
        app.publish(CLICKS[:4000])
        until_level(app, worker)
        assert "the challenger takes over: alone it hit" in worker.output
        trials = worker.metric(port, "challenger_trials_total")
        assert 0 < trials <= worker.metric(port, "quality_trials_total")
        worker.stop()
        ((number, told),) = promotions(app)
        assert told.commit == number
        assert told.wins > told.losses
        assert header_of(app) == space
        names = {msgspec.json.decode(m.value() or b"")["space"]
                 for m in app.read(app.config.topics.item_vectors)}  # fmt: skip
        assert names == {space.name}
        inspected = app.command("inspect")
        assert inspected.wait() == 0
        assert f"took over with commit {told.commit}" in inspected.output

        before = vectors(app)
        again = app.worker(metrics__port=port).running()
        assert f"the challenger took over with commit {told.commit}" in again.output
        assert "learns beside" not in again.output
        app.publish(CLICKS[4000:])
        until_level(app, again)
        assert again.metric(port, "challenger_trials_total") == 0
        again.stop()
        now = vectors(app)
        # By the champion's rates nothing would move.
        moved = sum(float(now[item] @ vector) < 0.99 for item, vector in before.items())
        assert moved > 20

        void = app.worker(**{"challenger__set": '["walks.q=0.5"]'}).running()
        assert "learning goes on by the settings as they are" in void.output
        assert "a challenger learns beside the model" in void.output
        void.until(lambda: len(promotions(app)) == 2, "that the record is void")
        void.stop()
        last = promotions(app)[-1][1]
        assert last.champion == last.challenger == told.champion


def test_a_clean_stop_keeps_it_and_a_crash_begins_it_anew(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS | POOR) as app:
        app.publish(CLICKS[:2000])
        first = app.worker()
        until_level(app, first)
        first.stop()
        second = app.worker().running()
        kept = re.search(r"it goes on with (\d+) trials won and (\d+) lost", second.output)
        assert kept is not None, second.output
        assert int(kept[1]) > int(kept[2])
        app.publish(CLICKS[2000:3000])
        until_level(app, second)
        second.kill()
        third = app.worker().running()
        assert "it begins as the champion is" in third.output
        third.stop()
        assert promotions(app) == []


def test_beside_another_worker_it_rests(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS | POOR) as app:
        first = app.worker().running()
        assert "a challenger learns beside the model" in first.output
        second = app.worker(app__instance="b", state__dir=tmp_path / "b").running()
        first.until(lambda: "the challenger rests beside other workers" in first.output, "rest")
        second.stop()
        first.until(lambda: first.output.count("a challenger learns beside") == 2, "alone again")
        first.stop()
