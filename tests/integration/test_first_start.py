"""Where the first start begins is written down: a stop before the first commit moves nothing."""

import shutil
from pathlib import Path

import pytest

from tests.integration.models import CLICKS, EXACT, counted, refused
from tests.integration.test_recreated import set_offsets
from tests.support import App

SETTINGS = {**EXACT, "start.position": "latest"}


@pytest.mark.parametrize("folder", ["kept", "lost"])
def test_clicks_since_the_first_start_count_though_it_was_stopped_before_a_commit(
    kafka: str, tmp_path: Path, folder: str
) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:100])
        app.worker().running().stop()
        assert app.caught_up(), "what was there before does not count, and is no lag"
        app.publish(CLICKS[100:300])
        if folder == "lost":
            shutil.rmtree(app.state)
        rehearsal = app.worker("--dry-run")
        assert rehearsal.wait() == 0, rehearsal.output
        app.worker(commit__seconds=600).running().kill()
        app.publish(CLICKS[300:400])
        app.run_to_end()
        assert counted(app) == 300


def test_a_group_that_another_program_uses_keeps_its_offsets(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:100])
        set_offsets(app, 3)
        refused(app.worker(), "has offset 3", "no progress")
        assert set(app.group_offsets().values()) == {3}
        assert app.progress() == {}
