"""What a restored engine is given from the folder."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from streamer.decode.items import attribute_tokens
from streamer.settings import load as configs
from streamer.state import records
from streamer.state.records import Progress, Space
from streamer.state.store import Attributes, Store
from streamer.worker import restore
from tests.unit.state.made import START_MS

CONFIG = configs.load(
    None, ["model.dim=16", "model.attribute_slots=2", 'items.use=["category"]'], {}
)
ITEMS: dict[str, Attributes] = {"a": {"category": "x", "brand": "z"}, "b": {"category": "x"}}


@pytest.mark.parametrize(
    ("was", "differ"), [(("category",), set()), (("category", "brand"), {"a"})]
)
def test_items_to_which_other_settings_gave_other_attributes_are_written_again(
    tmp_path: Path, was: tuple[str, ...], differ: set[str]
) -> None:
    """What they had is told by their rows."""
    settings = CONFIG.engine_settings
    described = [(item, attribute_tokens(each, was)) for item, each in ITEMS.items()]
    changes = Engine(settings, 1).step(Inputs(Clicks.empty(), described)).changes
    assert changes is not None
    with Store(tmp_path / "state") as store:
        meta = {
            records.SPACE: msgspec.msgpack.encode(Space.of(settings, 1)),
            records.progress_key("clicks", 0): msgspec.msgpack.encode(Progress(7, START_MS, 1, 1)),
        }
        store.set_meta(meta)
        attributes = [(item.encode(), json.dumps(each).encode()) for item, each in ITEMS.items()]
        families = {"attributes": attributes}
        store.write(keys=changes.keys, rows=changes.rows, families=families)
        engine = Engine(settings, 1)
        restore.load_model(CONFIG, store, engine, dict)
        stale = np.flatnonzero(engine.model.columns.stale)
        assert {engine.vocabulary.keys[slot] for slot in stale} == differ
        assert engine.leaving.any_stale == bool(differ)
