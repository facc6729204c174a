"""Clusters by rules, and clusters that items found, in real workers."""

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from many import SETTINGS, Team

from core.placing.placement import Placement
from streamer.demo.shop import Shop
from streamer.state import packing, records
from streamer.state.store import Store
from tests.support import START_MS, App, as_records, wait_until

SHOP = Shop(5, products=60, users=40)
CLICKS = as_records(islice(SHOP.clicks(START_MS, 0.5), 3000))
CATEGORY = {item["item_id"]: item["attributes"]["category"] for item in SHOP.items()}
ITEMS = [(item["item_id"].encode(), json.dumps(item).encode()) for item in SHOP.items()]
RULES: dict[str, object] = {
    "topics.partitions": 2,
    "commit.seconds": 0.2,
    "major.every": 0,
    "model.attribute_slots": 1,
    "clusters.kind": "rules",
    "clusters.min_size": 3,
    "lsh.bits": 0,
}


def vectors(app: App) -> dict[str, dict[str, Any]]:
    """The last record of each item in the topic."""
    found = [json.loads(m.value() or b"") for m in app.read(app.config.topics.item_vectors)]
    return {one["item_id"]: one for one in found}


def misnamed(app: App, told: dict[str, str]) -> dict[str, object]:
    """Items that are not in the cluster of their category."""
    return {
        item: one.get("cluster_name")
        for item, one in vectors(app).items()
        if one.get("cluster_name") != f"category={told[item]}"
    }


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, RULES) as app:
        yield app


def test_items_are_published_and_asked_for_by_the_names_of_their_clusters(app: App) -> None:
    app.describe(ITEMS)
    app.publish(CLICKS[:1500])
    worker = app.worker()
    worker.until(app.caught_up, "all clicks")
    wait_until(lambda: misnamed(app, CATEGORY) == {}, "every item by its name")
    worker.stop()
    before = {item: one["cluster"] for item, one in vectors(app).items()}
    moved = next(iter(CATEGORY))
    other = next(name for name in CATEGORY.values() if name != CATEGORY[moved])
    told = CATEGORY | {moved: other}
    shutil.rmtree(app.state)
    worker = app.worker()
    app.describe([(moved.encode(), json.dumps({"item_id": moved, "category": other}).encode())])
    app.publish(CLICKS[1500:])
    worker.until(app.caught_up, "more clicks, with a folder that is made anew")
    wait_until(lambda: misnamed(app, told) == {}, "the one that moved")
    versions = {item: one["version"] for item, one in vectors(app).items()}
    asked = app.command("major", "--wait")
    assert asked.wait() == 0, asked.output
    wait_until(
        lambda: all(one["version"] > versions[item] for item, one in vectors(app).items()),
        "all of them by the next rules",
    )
    assert misnamed(app, told) == {}
    worker.stop()
    after = {item: one["cluster"] for item, one in vectors(app).items()}
    assert {item for item in before if after[item] != before[item]} == {moved}
    hot = app.command("query", "--cluster", f"category={other}", "-k", "100", "--json")
    assert hot.wait() == 0, hot.output
    found = json.loads(hot.output)
    assert found["name"] == f"category={other}"
    members = {item for item, category in told.items() if category == other}
    assert {one["item"] for one in found["items"]} == members & after.keys()
    near = app.command("query", moved, "-k", "3", "--json")
    assert near.wait() == 0, near.output
    assert len(json.loads(near.output)["neighbours"]) == 3
    wrong = app.command("query", "--cluster", f"category={other}x")
    assert wrong.wait() == 1
    assert f"'category={other}'" in wrong.output


def placements(team: Team) -> list[Placement]:
    """What the folders of two workers that have stopped go by."""
    found = []
    for name in "ab":
        with Store(team.folder(name)) as store:
            value = store.meta(records.PLACEMENT)
            assert value is not None
            found.append(packing.unpack_placement(value, 16))
    assert packing.pack_placement(found[0]) == packing.pack_placement(found[1])
    return found


def test_several_workers_go_by_one_list_of_rules(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, {**SETTINGS, **RULES, "round.max_events": 100}) as app:
        team = Team(app)
        team.begin()
        app.describe(ITEMS)
        app.publish(CLICKS)
        wait_until(app.caught_up, "all clicks")
        team.finish()
        rules = placements(team)[0].rules
        assert rules is not None
        names = {one.get("cluster_name") for one in vectors(app).values()} - {None}
        assert len(names) > 1
        assert names <= {", ".join(name) for name in rules.names} | {"other"}


def test_founded_clusters_are_in_the_topic_and_in_every_folder(kafka: str, tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "major.every": 0,
        "round.max_events": 100,
        "clusters.count": 2,
        "clusters.spawn": 0.7,
    }
    with App(kafka, tmp_path, settings) as app:
        team = Team(app)
        team.begin()
        app.publish(CLICKS)
        wait_until(app.caught_up, "all clicks")
        team.finish()
        one, other = placements(team)
        assert one.epoch == other.epoch == 1
        assert len(one.centroids) == 2 + one.founded > 2
        clusters = {v["cluster"] for v in vectors(app).values()}
        assert max(clusters - {None}) >= 2
