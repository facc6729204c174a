from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.rows import FORMAT, row_dtype, to_values
from streamer.state import records
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.worker import later
from streamer.worker.later import Later
from tests.unit.state.made import SETTINGS

NAMES = [f"item/{n}".encode() for n in range(20)]


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    space = msgspec.msgpack.encode(Space.of(SETTINGS, 4))
    opened = [Store(tmp_path / name) for name in ("at-once", "later")]
    for store in opened:
        store.set_meta({records.SPACE: space})
    return opened


@pytest.mark.parametrize("seed", range(10))
def test_the_folder_gets_later_what_it_would_have_got_at_once(
    stores: list[Store], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    at_once, waits = stores[0], Later(stores[1])
    dtype = at_once.dtype
    version = 0
    for _ in range(80):
        chosen = [NAMES[n] for n in rng.permutation(20)[: rng.integers(0, 9)]]
        keys, left = chosen[:6], chosen[6:]
        rows = np.zeros(len(keys), dtype)
        rows["format"] = FORMAT
        rows["version"] = range(version + 1, version + 1 + len(keys))
        rows["published"] = rng.integers(0, 3, len(keys))
        rows["cluster"] = rng.integers(-1, 3, len(keys))
        rows["buckets"] = rng.integers(0, 3, rows["buckets"].shape)
        version += len(keys) + 1
        gone, counter = dict.fromkeys(left, version), msgspec.msgpack.encode(version)
        meta: dict[bytes, bytes | None] = {records.version_key(1): counter}
        values = to_values(rows)
        at_once.write(
            keys=keys, rows=rows, gone=list(gone.items()), families={"meta": meta.items()}
        )
        waits.add(dict(zip(keys, values, strict=True)), gone, meta)
        found = [(name, at_once.row(name)) for name in NAMES]
        assert waits.versions() == at_once.versions() == {1: version}
        there, packed = waits.written(NAMES)
        assert list(zip(there, to_values(packed), strict=True)) == [
            (name, value) for name, value in found if value is not None
        ]
        if rng.random() < 0.15:
            waits.flush()
    waits.flush()
    assert waits.is_empty
    for family in ("rows", "clusters", "postings", "meta"):
        assert waits.store.everything(family) == at_once.everything(family), family


def test_nothing_waits_longer_than_it_may(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Later(stores[1])
    assert not waits.is_due
    waits.add({}, {}, {records.version_key(0): b"\x01"})
    assert not waits.is_due
    waits.hurry = True
    assert waits.is_due, "somebody waits for the folder"
    waits.hurry = False
    monkeypatch.setattr(later, "SECONDS", 0.0)
    assert waits.is_due
    waits.flush()
    assert not waits.is_due
    monkeypatch.setattr(later, "SECONDS", 60.0)
    monkeypatch.setattr(later, "MOST", 1)
    dtype = row_dtype(16, 0, 3)
    waits.add({name: bytes(dtype.itemsize) for name in NAMES[:2]}, {}, {})
    assert waits.is_due, "there are many"
