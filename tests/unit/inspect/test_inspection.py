import json
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from streamer.cli import app
from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from streamer.inspect import folder as inspection
from streamer.settings import load as config
from streamer.state import records
from streamer.state import store as stores
from streamer.state.records import Progress, Space
from streamer.state.store import Store
from streamer.worker import checkpoint

START_MS = 1_700_000_000_000
SETTINGS = config.load(
    None,
    ["model.dim=16", "model.attribute_slots=1", "clusters.count=8", "clusters.min_items=40"],
    {},
).engine_settings


def clicks(n: int) -> Clicks:
    stream = list(islice(Shop(1, products=200).clicks(START_MS), n))
    return Clicks(
        [click["user_id"] for click in stream],
        [click["item_id"] for click in stream],
        np.array([click["ts"] for click in stream], np.int64),
        np.ones(n, np.float32),
    )


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Engine]:
    """A folder as a worker with two partitions leaves it, and the engine of that worker."""
    engine = Engine(SETTINGS, 2)
    taken = clicks(4000)
    outputs = engine.step(Inputs(taken, [("sku-0001", ["category=garden"])]))
    assert outputs.changes is not None
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 2))})
    done = [Progress(1900, START_MS, 6, 11), Progress(2100, START_MS, 7, 12)]
    meta = {records.progress_key("clicks", p): msgspec.msgpack.encode(done[p]) for p in (0, 1)}
    meta[stores.TAIL + b"model-state/1"] = msgspec.msgpack.encode(321)
    store.write_changes(outputs.changes, meta)
    checkpoint.save(store, engine, 7, 12)
    store.close()
    return tmp_path / "state", engine


def test_every_figure_is_that_of_the_engine(
    written: tuple[Path, Engine], capsys: pytest.CaptureFixture[str]
) -> None:
    path, engine = written
    inspection.run(path, 40, True)
    told = json.loads(capsys.readouterr().out)
    c = engine.model.columns
    published = engine.items[c.published[engine.items] > 0]
    assert told["space"] == Space.of(SETTINGS, 2).name
    assert told["header"] == msgspec.to_builtins(Space.of(SETTINGS, 2))
    assert told["origin"] is None
    assert (told["items"], told["attribute_rows"]) == (len(engine.items), 1)
    assert told["with_vector"] == len(published)
    assert (told["nodes"], told["arcs"]) == (len(engine.items), engine.graph.arcs)
    assert told["sessions"] == np.count_nonzero(engine.sessions.size)
    assert told["epoch"] == engine.placement.epoch == 1
    assert told["settled"] is None
    sizes = np.bincount(c.cluster[published], minlength=8)
    assert told["clusters"] == {str(label): size for label, size in enumerate(sizes.tolist())}
    tables = [np.unique(keys, return_counts=True)[1] for keys in c.buckets[published].T]
    assert told["buckets"] == sum(map(len, tables))
    assert told["largest_bucket"] == max(counts.max() for counts in tables)
    assert told["progress"]["clicks/1"]["offset"] == 2100
    assert told["tail"] == {"model-state/1": 321}
    assert told["swept"] == 7
    assert (told["commits"], told["rounds"]) == (7, 12)
    assert 0 <= told["age_seconds"] < 60
    assert told["bytes"] > 100_000


def test_people_get_the_same_figures_in_tables(
    written: tuple[Path, Engine], capsys: pytest.CaptureFixture[str]
) -> None:
    path, engine = written
    inspection.run(path, 40, False)
    out = capsys.readouterr().out
    for text in (
        Space.of(SETTINGS, 2).name,
        f"{len(engine.items):,}",
        f"{engine.graph.arcs:,} arcs",
        "fitted once",
        "clicks/0",
        "1,900",
        "model-state/1",
    ):
        assert text in out


def test_a_folder_of_a_replay_is_known_as_one(
    written: tuple[Path, Engine], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = written
    store = Store(path)
    for origin, text in ((stores.REPLAY, "a replay"), (stores.ADOPTED, "a worker took over")):
        store.set_meta({stores.ORIGIN: origin})
        inspection.run(path, 40, False)
        assert text in capsys.readouterr().out
    store.close()


def test_before_there_are_clusters_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 2))})
    inspection.run(tmp_path / "state", 40, False)
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "clusters none yet: clusters come with clusters.min_items = 40 settled items" in out
    assert "there are 0" in out
    inspection.run(tmp_path / "state", 40, True)
    told = json.loads(capsys.readouterr().out)
    store.close()
    assert told["items"] == told["epoch"] == told["buckets"] == told["largest_bucket"] == 0
    assert told["clusters"] == {}
    assert told["swept"] is None
    assert told["settled"] == 0


def test_items_that_the_first_clusters_wait_for_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(SETTINGS, 2)
    outputs = engine.step(Inputs(clicks(60)))
    assert outputs.changes is not None
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, 2))})
    store.write_changes(outputs.changes, {})
    store.close()
    updates = engine.model.columns.updates[engine.items]
    enough = int((updates >= 10).sum())
    assert 0 < enough < len(updates)
    told = CliRunner().invoke(
        app, ["inspect", "--state", str(tmp_path / "state"), "--set", "clusters.min_items=99"]
    )
    out = " ".join(told.stdout.replace("│", " ").split())
    assert "clusters.min_items = 99 settled items (10 updates or more)" in out
    assert f"there are {enough}" in out
    assert "last change" in out


def test_no_folder_and_no_space_are_errors_that_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(WalkstreamError, match=r"nowhere: there is no state folder"):
        inspection.run(tmp_path / "nowhere", 40, True)
    Store(tmp_path / "state").close()
    with pytest.raises(WalkstreamError, match=r"state: nothing was learned yet"):
        inspection.run(tmp_path / "state", 40, True)


def test_the_folder_of_the_configuration_is_looked_at_unless_another_is_named(
    written: tuple[Path, Engine], tmp_path: Path
) -> None:
    path, engine = written
    Store(tmp_path / "other").close()
    configured = ["--set", f"state.dir={path}"]
    told = CliRunner().invoke(app, ["inspect", "--json", *configured])
    assert json.loads(told.stdout)["items"] == len(engine.items)
    other = CliRunner().invoke(app, ["inspect", "--state", str(tmp_path / "other"), *configured])
    assert "other: nothing was learned yet" in str(other.exception)
    item = engine.vocabulary.keys[engine.items[0]]
    asked = CliRunner().invoke(app, ["query", str(item), "--json", *configured])
    assert json.loads(asked.stdout)["item"] == item
