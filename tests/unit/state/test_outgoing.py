"""What leaves with commits and at a stop, and what must not."""

import numpy as np
import pytest

from core.engine import Engine
from core.rounds import Inputs
from streamer.errors import WalkstreamError
from streamer.settings import load as configs
from streamer.state.store import POINTER, Store
from streamer.vectors import records
from streamer.worker import checkpoint, outgoing
from streamer.worker.outgoing import Outgoing
from tests.unit.state.made import SETTINGS, batches
from tests.unit.state.test_checkpoint import remembered

CONFIG = configs.load(None, [], {})


def test_a_stop_writes_all_or_what_there_is_time_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is folded from the evidence again, around what was written."""
    monkeypatch.setattr(outgoing, "CHUNK", 20)
    engine = Engine(SETTINGS, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    leaving = Outgoing(CONFIG, store, engine, lambda: 7, 1, {})
    leaving.write_folder()
    evidence = engine.step(Inputs(second)).evidence
    leaving.evidence = 2
    monkeypatch.setattr(outgoing, "FOLDER_SECONDS", 0.0)
    leaving.write_folder()
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    assert at.commit == 1
    loaded = Engine(SETTINGS, 1)
    checkpoint.load(store, loaded)
    loaded.fold_again(evidence, 2)
    loaded.load_rows([])
    assert remembered(loaded) == remembered(engine)
    monkeypatch.setattr(outgoing, "FOLDER_SECONDS", 60.0)
    leaving.write_folder()
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    assert at.commit == 2


@pytest.mark.parametrize("column", ["v", "u", "acc_v", "acc_u", "mix", "vectors"])
def test_no_commit_has_numbers_that_are_not_finite(column: str) -> None:
    changes = Engine(SETTINGS, 1).step(Inputs(next(batches(1)))).changes
    assert changes is not None
    list(records(changes, "space", "json"))
    table = changes.vectors if column == "vectors" else changes.rows[column]
    table[2] = np.nan
    with pytest.raises(WalkstreamError, match="1 row that would leave") as told:
        list(records(changes, "space", "json"))
    assert repr(changes.keys[2].decode()) in str(told.value)
