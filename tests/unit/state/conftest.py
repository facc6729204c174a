from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from streamer.demo.shop import Shop
from streamer.files import replay
from streamer.files.readers import Source
from streamer.settings import load as config
from streamer.state import records
from streamer.state.records import Space
from streamer.state.store import Store
from tests.unit.state.made import SETTINGS, SMALL, START_MS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state")
    opened.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 1))})
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "clicks.jsonl"
    clicks = islice(Shop(1, products=200).clicks(START_MS, rate=1.0), 3000)
    path.write_bytes(b"\n".join(msgspec.json.encode(click) for click in clicks))
    return path


@pytest.fixture(scope="module")
def learned(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned") / "out"
    replay.run(config.load(None, SMALL, {}), Source([log]), None, out, False)
    return out / "state"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder that is closed and knows no topics yet."""
    path = tmp_path / "state"
    Store(path).close()
    return path
