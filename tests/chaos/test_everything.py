"""Two workers with all switched on, one of them killed: what `ops/chaos --everything` counts."""

from pathlib import Path
from random import Random

import pytest
from everything import BY_SEED, EARLY, SETTINGS, log_of, wrong_of
from kills import Stream
from many import Team

from streamer.state.store import Store
from streamer.state.users import FAMILY, RECORD
from tests.integration.test_many import lose_one_and_get_it_back
from tests.support import App, as_records, wait_until

CLICKS = EARLY + 2000


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.long), 1])
def test_all_is_counted_once_and_what_is_not_is_found(
    kafka: str, tmp_path: Path, seed: int
) -> None:
    clicks = [click for click, _ in zip(log_of(seed), range(CLICKS), strict=False)]
    with App(kafka, tmp_path, {**SETTINGS, **BY_SEED[seed]}) as app:
        team = Team(app)
        with Stream(app, as_records(clicks), Random(seed)) as stream:
            team.begin()
            forgotten = app.command("forget", "user-0007")
            assert forgotten.wait() == 0, forgotten.output
            lose_one_and_get_it_back(team)
            wait_until(lambda: stream.sent == CLICKS, "all clicks")
        team.finish()

        def wrong() -> list[str]:
            return wrong_of(team, ["a", "b"], clicks, {b"user-0007"}, stream.retired)

        assert wrong() == []
        more = {**clicks[-1], "event_id": "never sent"}
        clicks.append(more)
        assert any("users: " in sentence for sentence in wrong())
        clicks.pop()
        with Store(team.folder("b")) as store:
            key, _ = next(store.scan(FAMILY, RECORD))
            value = store.entry(FAMILY, key)
            assert value is not None
            store.write_entries({FAMILY: [(key, value.replace(b'"history":', b'"history" :'))]})
        assert any("users of b" in sentence for sentence in wrong())
