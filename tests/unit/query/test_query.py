import io
import json
import os
import shutil
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamer.demo.shop import Shop
from streamer.errors import ConfigError, Refused, WalkstreamError
from streamer.files import replay
from streamer.files.readers import Source
from streamer.query import run as query
from streamer.query.index import Index, Mode
from streamer.query.run import Options
from streamer.settings import load as config
from streamer.state import records
from streamer.state.store import Store, cluster_prefix
from tests.unit.query.ranking import recall, scores, tables

ROOT = Path(__file__).resolve().parents[3]
START_MS = 1_700_000_000_000
SHOP = Shop(1, products=300)
CATEGORY = {item["item_id"]: item["attributes"]["category"] for item in SHOP.items()}
MODES = pytest.mark.parametrize("mode", ["similar", "next", "hybrid"])
VECTORS = pytest.mark.parametrize("mode", ["similar", "next"])
RESIDENT = pytest.mark.parametrize("resident", [False, True], ids=["stored", "resident"])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a replayed shop, with the names of its items."""
    folder = tmp_path_factory.mktemp("learned")
    log = folder / "clicks.jsonl"
    log.write_text("\n".join(json.dumps(c) for c in islice(SHOP.clicks(START_MS), 8000)))
    settings = ["model.dim=16", "clusters.count=8", "clusters.min_items=40"]
    settings += ["round.max_events=500", "engine.threads=1"]
    replay.run(config.load(None, settings, {}), Source([log]), None, folder / "out", False)
    state = folder / "out" / replay.DIRECTORY
    store = Store(state)
    attributes = [
        (item["item_id"].encode(), msgspec.json.encode(item["attributes"])) for item in SHOP.items()
    ]
    store.write_entries({"attributes": attributes})
    store.close()
    return state


@pytest.fixture
def store(learned: Path, tmp_path: Path) -> Any:
    opened = Store(learned, tmp_path / "secondary")
    yield opened
    opened.close()


# -- a learned shop ------------------------------------------------------------------------------


@MODES
def test_neighbours_are_of_the_same_category_far_above_chance(store: Store, mode: Mode) -> None:
    names, _, _ = tables(store)
    index = Index(store)
    same = [
        CATEGORY[found.item] == CATEGORY[item]
        for item in names[::5]
        for found in index.neighbours([item], 5, mode).neighbours
    ]
    # Of 15 categories.
    assert np.mean(same) > 0.5


@VECTORS
@RESIDENT
def test_most_of_the_true_neighbours_are_found(store: Store, mode: Mode, resident: bool) -> None:
    assert recall(store, tables(store)[0][::25], mode, resident)[0] > 0.9


@VECTORS
@RESIDENT
def test_asking_for_all_items_gives_them_in_the_true_order(
    store: Store, mode: Mode, resident: bool
) -> None:
    names, _, _ = tables(store)
    wanted = scores(store, {names[17]: 1.0}, mode)
    answer = Index(store, resident).neighbours([names[17]], len(names) + 5, mode)
    assert answer.candidates == len(answer.neighbours) == len(wanted)
    told = {found.item: found.score for found in answer.neighbours}
    assert told == pytest.approx(wanted, abs=1e-5)
    assert [found.score for found in answer.neighbours] == sorted(told.values(), reverse=True)


@VECTORS
@RESIDENT
def test_a_session_is_the_decayed_mean_of_its_items(
    store: Store, mode: Mode, resident: bool
) -> None:
    names, _, _ = tables(store)
    a, b, c = names[3], names[40], names[90]
    weights = {a: (1 + 0.25) / 1.75, b: 0.5 / 1.75}
    index = Index(store, resident)
    answer = index.neighbours([a, b, a], len(names), mode, decay=0.5)
    told = {found.item: found.score for found in answer.neighbours}
    assert told == pytest.approx(scores(store, weights, mode), abs=1e-5)
    assert (answer.item, answer.session, answer.unknown) == (a, [a, b, a], [])
    # An item without a vector keeps its place in the session, and no more.
    answer = index.neighbours([c, "nowhere", a], len(names), mode, decay=0.5)
    told = {found.item: found.score for found in answer.neighbours}
    assert told == pytest.approx(scores(store, {a: 0.8, c: 0.2}, mode), abs=1e-5)
    assert answer.unknown == ["nowhere"]


@MODES
def test_memory_and_rocksdb_give_the_same_answer(store: Store, mode: Mode) -> None:
    stored, resident = Index(store), Index(store, resident=True)
    for item in tables(store)[0][::40]:
        one, other = (index.neighbours([item], 10, mode) for index in (stored, resident))
        assert one.candidates == other.candidates
        assert [n.item for n in one.neighbours] == [n.item for n in other.neighbours]
        assert [n.updates for n in one.neighbours] == [n.updates for n in other.neighbours]


@MODES
@pytest.mark.parametrize("k", [1, 10, 200])
def test_k_others_come_back_the_item_never_among_them(store: Store, mode: Mode, k: int) -> None:
    index = Index(store)
    for item in tables(store)[0][::30]:
        found = [n.item for n in index.neighbours([item], k, mode).neighbours]
        assert len(set(found)) == len(found) == k
        assert item not in found


def test_neighbours_carry_cluster_and_attributes(store: Store) -> None:
    item = tables(store)[0][0]
    for found in Index(store).neighbours([item], 5, "similar").neighbours:
        assert found.attributes["category"] == CATEGORY[found.item]
        assert found.cluster is not None
        assert (
            store.entry("clusters", cluster_prefix(found.cluster) + found.item.encode()) is not None
        )


@MODES
def test_items_with_few_updates_are_left_out_on_request(store: Store, mode: Mode) -> None:
    keys, rows = store.all_rows()
    updates = {key.decode(): int(row["updates"]) for key, row in zip(keys, rows, strict=True)}
    item = tables(store)[0][3]
    least = int(np.median(list(updates.values())))
    others = [other for other, n in updates.items() if n >= least and other != item]
    index = Index(store)
    found = index.neighbours([item], 10, mode, least).neighbours
    assert len(found) == 10
    assert all(n.updates == updates[n.item] >= least for n in found)
    every = index.neighbours([item], len(updates), mode, least).neighbours
    assert sorted(n.item for n in every) == sorted(others)


def test_a_table_shows_names_and_how_many_were_looked_at(
    learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query.run(learned, ["sku-0000"], Options(k=3))
    out = capsys.readouterr().out
    query.run(learned, ["sku-0000"], Options(k=3, as_json=True))
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        "item", "mode", "candidates", "items", "neighbours", "session", "unknown",
    }  # fmt: skip
    assert (told["item"], told["mode"], len(told["neighbours"])) == ("sku-0000", "similar", 3)
    for found in told["neighbours"]:
        assert set(found) == {"item", "score", "cluster", "updates", "attributes"}
        assert f"{found['updates']:,}" in out
        assert found["item"] in out
        assert f"{found['score']:.3f}" in out
        assert found["attributes"]["name"].split()[-1] in out
    assert f"looked at {told['candidates']:,} of {told['items']:,} items" in out


def test_another_process_reads_beside_the_one_that_writes(learned: Path, tmp_path: Path) -> None:
    writer = Store(learned)
    keys, stored = writer.all_rows()
    rows, versions = stored.copy(), set()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            rows["version"] += 1
            writer.write(keys=keys, rows=rows)
            versions.add(int(rows["version"][0]))
            done.wait(0.02)  # the other one has work to do, too

    thread = threading.Thread(target=write)
    thread.start()
    try:
        command = [sys.executable, "-m", "streamer.cli", "query", "sku-0000", "--json"]
        ran = subprocess.run(
            [*command, "--state", str(learned)],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        done.set()
        thread.join()
        writer.close()
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["neighbours"]) == 10
    assert len(versions) > 10, "nothing was written meanwhile"


def test_hybrid_tells_that_the_graph_is_not_there_yet(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    young = Path(shutil.copytree(learned, tmp_path / "young"))
    store = Store(young)
    store.write_entries({"graph": [(key, None) for key in store.everything("graph")]})
    store.close()
    for folder, tells in ((young, True), (learned, False)):
        query.run(folder, ["sku-0001"], Options(mode="hybrid"))
        assert ("hybrid goes without the graph" in capsys.readouterr().err) == tells


def test_standard_input_is_not_asked_for_beside_items(learned: Path) -> None:
    with pytest.raises(ConfigError, match="give it alone"):
        query.run(learned, ["-", "sku-0001"], Options())


def test_each_line_of_standard_input_is_a_query(
    learned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "sku-0001\n\nsku-0002\tsku-0003\nsku-9999\nsku-0004\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    with pytest.raises(WalkstreamError, match="1 of 4 queries"):
        query.run(learned, ["-"], Options(k=3, mode="hybrid", as_json=True))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["item"] for one in told] == ["sku-0001", "sku-0003", "sku-9999", "sku-0004"]
    assert [one["line"] for one in told] == [1, 3, 4, 5]
    assert told[1]["session"] == ["sku-0002", "sku-0003"]
    assert told[2]["session"] == ["sku-9999"]
    assert "there is no item 'sku-9999'" in told[2]["error"]
    query.run(learned, ["sku-0002", "sku-0003"], Options(k=3, mode="hybrid", as_json=True))
    alone = json.loads(capsys.readouterr().out)
    assert [n["item"] for n in alone["neighbours"]] == [n["item"] for n in told[1]["neighbours"]]


def test_an_unknown_item_is_told_apart_from_one_without_a_vector(learned: Path) -> None:
    for unknown in ("sku-9999", "", "\udcffattr/category=garden", "\udcffspace"):
        with pytest.raises(WalkstreamError, match="there is no item"):
            query.run(learned, [unknown], Options())
    store = Store(learned)
    store.write_entries({"attributes": [(b"sku-new", b'{"name": "New"}')]})
    store.close()
    with pytest.raises(WalkstreamError, match=r"has no vector.*Or it had one and left"):
        query.run(learned, ["sku-new"], Options())


def test_a_folder_that_is_none_is_named_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(WalkstreamError, match=r"nowhere: there is no state folder"):
        query.run(tmp_path / "nowhere", ["1"], Options())
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", ["similar", "hybrid"])
@pytest.mark.parametrize(("there", "whose"), [(3, "an older"), (99, "a newer")])
def test_a_folder_of_another_format_is_refused(
    learned: Path, tmp_path: Path, mode: Mode, there: int, whose: str
) -> None:
    other = Path(shutil.copytree(learned, tmp_path / "other"))
    store = Store(other)
    assert store.space is not None
    space = msgspec.msgpack.encode(msgspec.structs.replace(store.space, format=there))
    store.write_entries({"meta": [(records.SPACE, space)]})
    store.close()
    with pytest.raises(Refused, match=f"format {there}, of {whose} walkstream"):
        query.run(other, ["sku-0001"], Options(mode=mode))


def test_a_folder_in_which_nothing_was_learned_says_so(tmp_path: Path) -> None:
    Store(tmp_path / "state").close()
    with pytest.raises(WalkstreamError, match="nothing was learned yet"):
        query.run(tmp_path / "state", ["1"], Options())


def test_an_answer_that_min_updates_leaves_empty_says_why(
    learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query.run(learned, ["sku-0002"], Options(min_updates=10**9))
    assert "none of them has 1,000,000,000 updates (--min-updates)" in capsys.readouterr().out
