"""Each method of the field gives through Kafka what it gives in a replay, to the bit."""

from itertools import islice
from pathlib import Path

import msgspec
import pytest

from streamer.demo.shop import Shop
from streamer.settings.presets import PRESETS
from tests.support import START_MS, App, as_records

CLICKS = list(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 600))
SETTINGS: dict[str, object] = {
    "topics.partitions": 1,
    "round.max_seconds": 0,
    "round.max_events": 100,
    "publish.min_drift": 0,
    "model.dim": 16,
    "clusters.count": 4,
    "clusters.min_items": 20,
}
METHODS: dict[str, dict[str, object]] = {
    **{name: {"preset": name} for name in PRESETS},
    "both": {"corpus.kind": "both", "corpus.session": "shuffle", "corpus.subsample": 0.02},
    "mixed": {
        "negatives.kind": "mix", "negatives.similar": 0.3, "negatives.popularity": 0.2,
        "negatives.scored": 0.5, "negatives.spare_neighbours": True,
    },
    "residual": {"residual.strength": 30},
    "tiers": {"model.dim": 64, "size.tiers": [[1, 16], [8, 32], [16, 64]]},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_worker_learns_what_a_replay_learns(kafka: str, tmp_path: Path, name: str) -> None:
    log, out = tmp_path / "clicks.jsonl", tmp_path / "out"
    log.write_bytes(b"\n".join(map(msgspec.json.encode, CLICKS)))
    with App(kafka, tmp_path, SETTINGS | METHODS[name]) as app:
        app.publish(as_records(CLICKS))
        app.run_to_end()
        replay = app.command("replay", str(log), "--out", str(out))
        assert replay.wait() == 0, replay.output
        lines = map(msgspec.json.decode, (out / "vectors.jsonl").read_bytes().splitlines())
        replayed = {line["item_id"]: line for line in lines}
        learned = {}
        for message in app.read(app.config.topics.item_vectors):
            value = msgspec.json.decode(message.value() or b"")
            learned[value["item_id"]] = value
        assert len(learned) == len(replayed) > 40
        for item, wanted in replayed.items():
            for part in ("vector", "context", "norms", "cluster", "buckets", "updates"):
                assert learned[item][part] == wanted[part], (item, part)
