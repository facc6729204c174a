"""Kill -9 at every step of the commit with which a new vector space begins: it is there, or not."""

import time
from pathlib import Path

import pytest

from streamer.state.store import Store
from tests.folders import assert_indices_follow_rows
from tests.integration.models import header_of
from tests.integration.test_challenger import CLICKS, promotions, until_level
from tests.integration.test_new_space import (
    APART,
    all_in_one,
    assert_each_of_its_space,
    headers,
    spaces,
)
from tests.support import App

STEPS = [
    pytest.param("begin", "after", False, marks=pytest.mark.long),
    ("produce", "middle", False),
    pytest.param("offsets", "after", False, marks=pytest.mark.long),
    pytest.param("commit", "before", False, marks=pytest.mark.long),
    ("commit", "middle", None),
    pytest.param("commit", "after", True, marks=pytest.mark.long),
    ("apply", "middle", True),
    pytest.param("apply", "after", True, marks=pytest.mark.long),
]
"""Where it is killed, and whether the new space is there then; None where nobody can know."""


@pytest.mark.parametrize(("point", "when", "begins"), STEPS)
def test_killed_in_its_first_commit_the_old_space_is_whole_or_the_new_one_is(
    kafka: str, tmp_path: Path, point: str, when: str, begins: bool | None
) -> None:
    with App(kafka, tmp_path, APART | {"publish.budget": 0}) as app:
        marker = tmp_path / f"marker-{time.monotonic_ns()}"
        plan = {"point": point, "when": when, "call": 1, "marker": str(marker), "space": True}
        app.publish(CLICKS[:4000])
        worker = app.worker(plan=plan)
        assert worker.wait() == -9, worker.output
        assert marker.read_text() == f"{point} {when}"
        first, header, told = headers(app)[0][1], header_of(app), promotions(app)
        is_new = header.since > 0
        assert begins in (None, is_new)
        assert [commit for commit, _ in told] == [n for n, one in headers(app) if one.since]
        assert spaces(app) <= {first.name, header.name}
        assert (header.name in spaces(app)) or is_new
        assert_each_of_its_space(app)

        again = app.worker().running()
        assert ("the challenger took over with commit" in again.output) == is_new
        app.publish(CLICKS[4000:])
        until_level(app, again)
        again.until(all_in_one(app), "that all vectors are of one space")
        again.stop()
        assert_each_of_its_space(app)
        assert_indices_follow_rows(app.config)
        with Store(Path(app.config.state.dir)) as store:
            assert store.space == header_of(app)
        if is_new:
            assert header_of(app) == header
