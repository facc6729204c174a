"""What a stop writes of the graph, and how long it takes for it."""

import pytest

from core.engine import Engine
from core.rounds import Inputs
from streamer.settings import load as configs
from streamer.state.store import POINTER, Store
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
    leaving = Outgoing(CONFIG, store, engine, lambda: 7, 1)
    leaving.write_folder(1)
    evidence = engine.step(Inputs(second)).evidence
    monkeypatch.setattr(outgoing, "FOLDER_SECONDS", 0.0)
    leaving.write_folder(2)
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    assert at.commit == 1
    loaded = Engine(SETTINGS, 1)
    checkpoint.load(store, loaded)
    loaded.fold_again(evidence, 2)
    loaded.load_rows([])
    assert remembered(loaded) == remembered(engine)
    monkeypatch.setattr(outgoing, "FOLDER_SECONDS", 60.0)
    leaving.write_folder(2)
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    assert at.commit == 2
