"""What leaves with commits and at a stop, and what must not."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from core.engine import Engine
from core.rounds import Gone, Inputs
from streamer.errors import WalkstreamError
from streamer.settings import load as configs
from streamer.state.records import MARKS
from streamer.state.store import POINTER, Store
from streamer.vectors import records
from streamer.worker import checkpoint, outgoing
from streamer.worker.batch import Pending
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


def test_centroids_that_no_vector_names_leave_once_and_a_few_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "OLD_EPOCHS", 4)
    engine = Engine(SETTINGS, 1)
    changes = engine.step(Inputs(next(batches(1)))).changes
    assert changes is not None

    def leave(leaving: Outgoing, oldest: int) -> tuple[list[int], int]:
        told = replace(changes, oldest_epoch=oldest, gone=[])
        batch = leaving.batch(1, told, Pending(), {}, {})
        assert batch.marks is not None
        store.set_meta({MARKS: msgspec.msgpack.encode(batch.marks)})
        return list(batch.old_epochs), batch.marks.centroids_from

    leaving = Outgoing(CONFIG, store, engine, lambda: 7, 1, {})
    assert leave(leaving, 0) == ([], 1)
    assert leave(leaving, 3) == ([1, 2], 3)
    assert leave(leaving, 3) == ([], 3)
    assert leave(leaving, 0) == ([], 3)
    leaving = Outgoing(CONFIG, store, engine, lambda: 7, 1, {})
    assert leave(leaving, 9) == ([3, 4, 5, 6], 7)
    leaving.needs_folder = True
    assert leave(leaving, 9) == ([], 7)
    leaving = Outgoing(CONFIG, store, engine, lambda: 7, 1, {})
    leaving.dead = [Gone(b"astray", 0, 3, True)] * 2 * CONFIG.commit.max_records
    assert leave(leaving, 9) == ([], 7)


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
