"""Centroids in `item-vectors`, which residuals are added to: there while they are named."""

import shutil
from itertools import islice
from pathlib import Path

import msgspec
from confluent_kafka import Message
from many import SETTINGS as TEAM
from many import Team

from streamer.demo.shop import Shop
from streamer.export.published import from_folder, from_topic
from streamer.state import commits
from streamer.vectors import CENTROIDS
from tests.support import START_MS, App, as_records, wait_until

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 2400))
FEW: dict[str, object] = {
    "publish.form": "residual", "clusters.count": 4, "clusters.min_items": 20,
}  # fmt: skip


class Named:
    """What a reader of `item-vectors` has: which epoch each vector names, and which are there."""

    def __init__(self) -> None:
        self.by_item: dict[bytes, int] = {}
        self.there: set[int] = set()
        self.left: list[int] = []

    def take(self, message: Message) -> None:
        key, value = message.key() or b"", message.value()
        if key.startswith(CENTROIDS):
            epoch = int(key.removeprefix(CENTROIDS))
            (self.there.discard if value is None else self.there.add)(epoch)
            self.left += [epoch] * (value is None)
            return
        self.by_item.pop(key, None)
        if value is not None and (one := msgspec.json.decode(value))["cluster"] is not None:
            self.by_item[key] = one["epoch"]

    @property
    def epochs(self) -> set[int]:
        return set(self.by_item.values())


def commits_of(app: App) -> list[list[Message]]:
    """The records of `item-vectors`, commit by commit of one worker."""
    out: dict[int, list[Message]] = {}
    for message in app.read(app.config.topics.item_vectors):
        mark = commits.mark_of(message)
        assert mark is not None
        out.setdefault(mark.number, []).append(message)
    return [out[number] for number in sorted(out)]


def test_after_each_commit_all_that_are_named_are_there_and_old_ones_leave_once(
    kafka: str, tmp_path: Path
) -> None:
    settings = {
        **FEW, "topics.partitions": 3, "round.max_events": 50, "commit.rounds": 1,
        "session.gap": "5m", "major.every": "8m",
    }  # fmt: skip
    with App(kafka, tmp_path, settings) as app:
        app.publish(CLICKS[:1200])
        app.run_to_end(publish__budget=5)  # so few that vectors of several epochs are live
        shutil.rmtree(app.state)
        app.publish(CLICKS[1200:1700])
        app.run_to_end()
        found, most = Named(), 0
        for messages in commits_of(app):
            for message in messages:
                found.take(message)
            assert found.epochs <= found.there
            most = max(most, len(found.epochs))
        assert most > 1
        assert len(found.left) > 2
        assert found.left == list(range(1, min(found.there)))
        assert max(found.there) - min(found.there) <= 1
        topic, folder = from_topic(app.config, None), from_folder(app.state, None)
        assert topic.items == folder.items
        assert (topic.clusters == folder.clusters).all()


def test_of_several_workers_the_one_that_leads_waits_for_what_the_others_publish(
    kafka: str, tmp_path: Path
) -> None:
    settings = {**TEAM, **FEW, "clusters.min_items": 8, "major.every": 0}
    with App(kafka, tmp_path, settings) as app:
        team = Team(app)
        team.begin()
        for part in range(4):
            app.publish(CLICKS[600 * part : 600 * part + 600])
            wait_until(app.caught_up, "these clicks")
            asked = app.command("major", "--wait")
            assert asked.wait() == 0, asked.output
            wait_until(lambda: read(app).epochs == {max(read(app).there)}, "all vectors, anew")
        team.finish()
        found = read(app)
        assert found.epochs <= found.there
        assert len(found.left) >= 2
        assert sorted(found.left) == list(range(1, min(found.there)))


def read(app: App) -> Named:
    found = Named()
    for message in app.read(app.config.topics.item_vectors):
        found.take(message)
    return found
