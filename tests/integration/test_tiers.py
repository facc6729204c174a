"""Rows of several widths through a real worker: written short, read whole, and restored."""

import shutil
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from core.rows import FORMAT, dims_of, from_values
from streamer.demo.shop import Shop
from streamer.export.published import from_folder, from_topic
from streamer.state.records import is_item
from streamer.state.store import Store
from tests.folders import assert_same, contents
from tests.support import DETERMINISTIC, START_MS, App, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1600))
TIERS = [[1, 16], [10, 32], [30, 64]]
SETTINGS: dict[str, object] = {
    **DETERMINISTIC, "major.every": 0, "model.dim": 64, "model.attribute_slots": 0,
    "graph.half_life": "1h", "graph.horizon": "8h", "size.tiers": TIERS,
}  # fmt: skip


def widths(app: App) -> dict[bytes, int]:
    with Store(app.state) as store:
        keys, rows = store.all_rows()
        values = store.rows(keys)
    assert [row.tobytes() for row in rows] == [
        row.tobytes() for row in from_values([v or b"" for v in values], rows.dtype)
    ]
    found = dict(zip(keys, dims_of(rows["format"]).tolist(), strict=True))
    sizes = {(dim, len(value or b"")) for dim, value in zip(found.values(), values, strict=True)}
    assert len(sizes) == len(set(found.values())), "all rows of one width are as long"
    return found


def test_rows_of_several_widths_are_written_read_and_restored(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SETTINGS) as app:
        app.publish(CLICKS[:800])
        app.run_to_end()
        before, first = contents(app.config), widths(app)
        assert set(first.values()) == {0, 16, 32}
        shutil.rmtree(app.state)
        app.worker().running().stop()
        assert_same(contents(app.config), before)
        assert widths(app) == first
        app.publish(CLICKS[800:])
        app.run_to_end()
        last = widths(app)
        assert any(last[key] != dims for key, dims in first.items() if key in last)
        records = app.read(app.config.topics.model_state)
        newest = {m.key() or b"": m.value() or b"" for m in records if is_item(m.key() or b"")}
        assert {value[0] for value in newest.values()} == {FORMAT, 0x81, 0x82}
        folder, topic = from_folder(app.state, None), from_topic(app.config, None)
        assert folder.items == topic.items
        np.testing.assert_allclose(folder.vectors, topic.vectors, atol=1e-3)
        for n, item in enumerate(folder.items):
            dims = last[item.encode()] or 64
            assert topic.vectors[n, :dims].any()
            assert not topic.vectors[n, dims:].any()
        asked = app.command("query", folder.items[0], "--json", "-k", "5")
        assert asked.wait() == 0, asked.output
        assert len(msgspec.json.decode(asked.output)["neighbours"]) == 5


def test_what_goes_on_after_a_lost_folder_is_what_would_have_come_without(
    kafka: str, tmp_path: Path
) -> None:
    """To the bit, with rows that grow after it."""
    published = []
    for name in ("calm", "lost"):
        with App(kafka, tmp_path / name, SETTINGS) as app:
            app.publish(CLICKS[:800])
            app.run_to_end()
            if name == "lost":
                shutil.rmtree(app.state)
            app.publish(CLICKS[800:])
            app.run_to_end()
            found = {}
            for message in app.read(app.config.topics.item_vectors):
                one = msgspec.json.decode(message.value() or b"")
                found[one["item_id"]] = one["vector"], one["context"], one["updates"]
            published.append((found, widths(app)))
    assert published[0] == published[1]
