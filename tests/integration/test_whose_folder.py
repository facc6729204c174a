"""Folders and commits that are another app's, another worker's, or of another time."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import Fenced, Refused
from tests import inside
from tests.integration.models import (
    CLICKS,
    EXACT,
    counted,
    newest_vectors,
    published,
    recreate,
    refused,
    repair,
)
from tests.support import App

SETTINGS = {**EXACT, "kafka.session.timeout.ms": 6_000}


@pytest.fixture
def learned(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:200])
        app.run_to_end()
        yield app


def test_the_folder_of_another_app_is_refused_whatever_is_accepted(learned: App) -> None:
    with App(learned.servers, learned.folder, SETTINGS) as other:
        other.publish(CLICKS[200:500])
        own = other.state
        for checks, options in ("true", []), ("true", ["--repair", "--accept-loss"]), ("false", []):
            changed: dict[str, Any] = {"state__dir": learned.state, "topics__check": checks}
            worker = other.worker(*options, **changed)
            refused(worker, f"folder of another model, of app '{learned.name}'", "state.dir")
            assert "Start once with" not in worker.output
        refused(other.worker("--dry-run", **changed), "folder of another model")
        assert other.read(other.config.topics.model_state) == []
        other.run_to_end()
        assert (other.state, counted(other)) == (own, 300)
    learned.worker().running().stop()
    assert counted(learned) == 200


def test_a_repair_does_not_write_over_a_model_that_began_anew(learned: App) -> None:
    names, old = learned.config.topics, learned.state.with_name("old")
    shutil.copytree(learned.state, old)
    reset = learned.command("reset", "--topics", "--yes")
    assert reset.wait() == 0, reset.output
    learned.run_to_end()
    before = published(learned)
    for options in [], ["--repair"]:
        worker = learned.worker(*options, state__dir=old)
        refused(worker, f"{names.model_state} had before it was deleted", "walkstream reset")
    learned.worker().running().stop()
    assert (counted(learned), published(learned)) == (200, before)


def test_a_repair_that_was_killed_leaves_word_for_a_new_folder(
    learned: App, tmp_path: Path
) -> None:
    vectors, wanted = learned.config.topics.item_vectors, published(learned)
    recreate(learned, vectors)
    plan = {"point": "produce", "when": "middle", "call": 1, "marker": str(tmp_path / "marker")}
    assert learned.worker("--repair", plan=plan).wait() == -signal.SIGKILL
    learned.settings = {**learned.settings, "state.dir": tmp_path / "fresh"}
    worker = learned.worker().running()
    assert f"{vectors}: its id was" in worker.output
    worker.stop()
    repair(learned)
    assert newest_vectors(learned) == published(learned)
    assert published(learned).keys() == wanted.keys()
    learned.publish(CLICKS[200:600])
    worker = learned.worker()
    worker.until(learned.caught_up, "more clicks")
    assert "its id was" not in worker.output
    worker.stop()
    assert counted(learned) == 600


def test_what_another_worker_of_the_same_name_committed_is_not_called_torn(learned: App) -> None:
    with inside.started(learned.config, lambda _: False) as worker:
        second = learned.worker(state__dir=learned.folder / "second").running()
        learned.publish(CLICKS[200:400])
        second.until(learned.caught_up, "commits of the second worker")
        with pytest.raises(Refused, match="is torn") as torn:
            inside.until(lambda: worker.committer.readback.poll(0.1))
        told = worker.verdict(torn.value)
        assert isinstance(told, Fenced), told
        assert "another member" in str(told)
        second.stop()
