from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamer.state import records
from streamer.state.records import Space
from streamer.state.store import Store
from tests.unit.state.made import SETTINGS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state")
    opened.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 1))})
    yield opened
    opened.close()
