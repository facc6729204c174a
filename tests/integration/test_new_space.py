"""A challenger whose vectors cannot be compared with the champion's takes over in a new space."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from broker import free_port
from confluent_kafka import Message

from streamer.state import commits, packing, records, users
from streamer.state.records import Space
from tests.folders import assert_indices_follow_rows, contents, row_table
from tests.integration.models import header_of
from tests.integration.test_challenger import CLICKS, POOR, SETTINGS, promotions, until_level
from tests.support import App

BUDGET = 40
APART: dict[str, object] = SETTINGS | POOR | {
    "challenger.promote": "true",
    "challenger.error": 0.2,
    "challenger.min_agreement": 1,
    "user_vectors.kind": "mean",
    "publish.budget": BUDGET,
}  # fmt: skip
"""However far a challenger agrees, that is too little; and to publish all takes some commits."""


class Vector(msgspec.Struct):
    """What is looked at of a record of `item-vectors`."""

    version: int
    space: str
    cluster: int | None


def vectors(app: App) -> dict[bytes, list[Vector]]:
    """All records of each item, in their order."""
    out: dict[bytes, list[Vector]] = {}
    for message in app.read(app.config.topics.item_vectors):
        found = msgspec.json.decode(message.value() or b"", type=Vector)
        out.setdefault(message.key() or b"", []).append(found)
    return out


def spaces(app: App) -> set[str]:
    """The names under which the newest records of items stand."""
    return {records[-1].space for records in vectors(app).values()}


def of_users(app: App) -> set[str]:
    found = {m.key(): m.value() for m in app.read(app.config.topics.user_vectors)}
    return {users.read(value).space for value in found.values() if value is not None}


def headers(app: App) -> list[tuple[int, Space]]:
    """The headers in `model-state`, each with the number of its commit."""
    out = []
    for message in app.read(app.config.topics.model_state):
        mark = commits.mark_of(message)
        if message.key() == records.SPACE and mark is not None:
            header = msgspec.msgpack.decode(message.value() or b"", type=Space)
            out.append((mark.number, header))
    return out


def all_in_one(app: App) -> Callable[[], bool]:
    return lambda: spaces(app) == of_users(app) == {header_of(app).name}


def placements(app: App) -> list[int]:
    """The epochs, in the order in which they left."""

    def epoch(message: Message) -> int:
        return packing.unpack_placement(message.value() or b"", 16).epoch

    read = app.read(app.config.topics.model_state)
    return [epoch(message) for message in read if message.key() == records.PLACEMENT]


def assert_each_of_its_space(app: App) -> None:
    """Versions rise, and say by the headers of which space a vector is."""
    names = {header.since: header.name for _, header in headers(app)}
    for found in vectors(app).values():
        versions = [one.version for one in found]
        assert versions == sorted(set(versions))
        for one in found:
            assert one.space == names[max(since for since in names if since <= one.version)]


def test_it_takes_over_in_a_new_space_which_lasts(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, APART) as app:
        port = free_port()
        worker = app.worker(metrics__port=port).running()
        first = header_of(app)
        app.publish(CLICKS[:4000])
        until_level(app, worker)
        assert "the challenger takes over: alone it hit" in worker.output
        assert "and a new space begins" in worker.output
        worker.until(all_in_one(app), "that all vectors are of the new space")
        worker.stop()

        # One commit has the header, and that it took over; all later ones are of that space.
        ((number, told),) = promotions(app)
        assert told.is_new_space
        commit, header = headers(app)[-1]
        assert commit == number == told.commit
        assert header.name != first.name
        assert header == msgspec.structs.replace(first, since=header.since, format=records.NEWER)
        assert told.versions == dict.fromkeys(range(first.partitions), header.since - 1)
        found = vectors(app)
        assert len(found) > 100
        assert_each_of_its_space(app)
        assert all(one[-1].cluster is not None for one in found.values())
        epochs = placements(app)
        assert epochs == sorted(epochs)
        assert len(epochs) >= 2

        inspected = app.command("inspect")
        assert inspected.wait() == 0
        assert header.name in inspected.output
        assert "and a new vector space began" in inspected.output
        assert_query(app)

        # The folder, from the topics alone.
        before = contents(app.config)
        shutil.rmtree(app.state)
        again = app.worker(metrics__port=port).running()
        assert f"the challenger took over with commit {told.commit}" in again.output
        again.stop()
        after = contents(app.config)
        assert after.placement == before.placement
        assert after.rows.keys() == before.rows.keys()
        assert min(row_table(app.config)[1]["version"]) >= header.since
        assert_indices_follow_rows(app.config)
        assert_query(app)

        # It goes on in that space, also by other settings.
        other = app.worker(**{"challenger__set": '["walks.q=0.5"]'}).running()
        app.publish(CLICKS[4000:])
        until_level(app, other)
        other.stop()
        assert headers(app)[-1][1] == header
        assert spaces(app) == {header.name}
        assert_query(app)


def assert_query(app: App) -> None:
    item = max(vectors(app))
    asked = app.command("query", item.decode(), "-k", "5", "--json")
    assert asked.wait() == 0, asked.output
    assert len(msgspec.json.decode(asked.output)["neighbours"]) == 5
    user = next(m.key() for m in app.read(app.config.topics.user_vectors) if m.value())
    assert user is not None
    asked = app.command("query", "--user", user.decode(), "--json", "--with-seen")
    assert asked.wait() == 0, asked.output


def test_what_was_not_out_when_it_was_killed_is_learned_again_and_leaves(
    kafka: str, tmp_path: Path
) -> None:
    with App(kafka, tmp_path, APART | {"publish.budget": 10}) as app:
        worker = app.worker().running()
        app.publish(CLICKS[:4000])
        worker.until(lambda: "and a new space begins" in worker.output, "that it takes over")
        worker.until(lambda: header_of(app).since > 0, "its first commit")
        worker.kill()
        header, first = header_of(app), headers(app)[0][1]
        assert spaces(app) == {first.name, header.name}
        shutil.rmtree(app.state)
        again = app.worker(publish__budget=0).running()
        again.until(app.caught_up, "all clicks committed")
        again.until(all_in_one(app), "that all vectors are of the new space")
        again.stop()
        assert header_of(app) == header
        assert_each_of_its_space(app)
        assert_indices_follow_rows(app.config)


def test_one_that_stood_by_is_told_and_joins_the_new_space(kafka: str, tmp_path: Path) -> None:
    """Two workers and one partition of the clicks: one of them has everything."""
    with App(kafka, tmp_path, APART | {"topics.partitions": 1}) as app:
        first = app.worker().running()
        second = app.worker(app__instance="b", state__dir=tmp_path / "b").running()
        app.publish(CLICKS[:4000])
        first.until(lambda: header_of(app).since > 0, "that it takes over")
        assert second.wait() != 0
        assert "the challenger took over in another worker while this one stood by" in second.output
        again = app.worker(app__instance="b", state__dir=tmp_path / "b").running()
        first.until(all_in_one(app), "that all vectors are of the new space")
        first.stop()
        app.publish(CLICKS[4000:])
        until_level(app, again)
        again.stop()
        assert spaces(app) == {header_of(app).name}


@pytest.mark.parametrize("agreement", [-1, 0.0])
def test_one_that_agrees_keeps_the_space(kafka: str, tmp_path: Path, agreement: float) -> None:
    with App(kafka, tmp_path, APART | {"challenger.min_agreement": agreement}) as app:
        worker = app.worker().running()
        app.publish(CLICKS[:4000])
        until_level(app, worker)
        worker.stop()
        ((_, told),) = promotions(app)
        assert not told.is_new_space
        assert {header.name for _, header in headers(app)} == spaces(app)
        assert header_of(app).since == 0


def test_one_that_joins_on_the_way_publishes_its_share(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, APART | {"publish.budget": 4}) as app:
        first = app.worker().running()
        app.publish(CLICKS[:4000])
        first.until(lambda: header_of(app).since > 0, "that it takes over")
        second = app.worker(app__instance="b", state__dir=tmp_path / "b", publish__budget=0)
        second.until(lambda: "took up" in second.output, "its share")
        assert spaces(app) == {name.name for _, name in headers(app)}, "not all is out yet"
        app.publish(CLICKS[4000:])
        second.until(all_in_one(app), "that all vectors are of the new space")
        first.until(app.caught_up, "all clicks committed")
        marks = [commits.mark_of(m) for m in app.read(app.config.topics.item_vectors)]
        assert {mark.instance for mark in marks if mark is not None} >= {"b"}
        first.stop()
        second.stop()
        assert len({header.name for _, header in headers(app)}) == 2
        assert_each_of_its_space(app)
