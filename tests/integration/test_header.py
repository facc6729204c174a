"""Whose model it is, and of which topics: what a worker says when that is not so any more."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from streamer.errors import Refused
from streamer.kafka.identity import identity
from streamer.kafka.members import members
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config
from streamer.state import commits, records
from streamer.state.records import Layout, Space
from streamer.state.store import Store
from streamer.worker import header
from streamer.worker.header import Accepted
from streamer.worker.readback import Readback
from tests.folders import contents
from tests.integration.models import (
    CLICKS,
    EXACT,
    counted,
    grow,
    hand_over,
    header_of,
    newest_vectors,
    published,
    recreate,
    refused,
    repair,
)
from tests.support import App, wait_until


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, EXACT) as app:
        yield app


@pytest.fixture
def learned(app: App) -> App:
    """An app that has learned the first thousand clicks."""
    app.publish(CLICKS[:1000])
    app.run_to_end()
    return app


def test_another_app_is_refused_until_the_model_is_handed_over(learned: App) -> None:
    space = header_of(learned)
    assert space.app == learned.name
    other, state = f"{learned.name}-other", learned.folder / "other"
    changed: dict[str, Any] = {"app__name": other, "state__dir": state}
    refused(learned.worker(**changed), f"model of app '{learned.name}'", "walkstream hand-over")
    user = CLICKS[1000][0].decode()
    learned.command("forget", user).wait()
    hand_over(learned, learned.name, **changed)
    assert header_of(learned).name == space.name, "vectors stay comparable"
    refused(learned.worker(), f"model of app '{other}'")
    recreate(learned, learned.config.topics.item_vectors)
    learned.publish(CLICKS[1000:1500])
    ends = learned.ends(learned.config.topics.clicks)
    worker = learned.worker(**changed)

    def caught_up() -> bool:
        return {place: p.offset for place, p in learned.progress().items()} == ends

    worker.until(caught_up, "the clicks since then")
    worker.stop()
    forgotten = sum(key.decode() == user for key, _ in CLICKS[1000:1500])
    own = learned.settings
    learned.settings = {**own, "state.dir": state}
    assert counted(learned) == 1500 - forgotten < 1500
    # And back: the offsets of the first app's group are where it stopped, what the other one
    # published is of this model too, and a start that only writes the header may be killed.
    learned.settings = own
    assert 0 < sum(learned.group_offsets().values()) < sum(ends.values())
    hand_over(learned, other)
    sent = learned.read(learned.config.topics.item_vectors)
    assert {mark and mark.app for mark in map(commits.mark_of, sent)} == {other}
    learned.worker().running().stop()
    assert learned.caught_up(), "there is no lag, though no click came"
    recreate(learned, learned.config.topics.dead_letters)  # the header changes once more
    learned.worker().running().kill()
    assert (
        header_of(learned).topics["dead_letters"].id
        == identity(learned.admin, learned.config).ids["dead_letters"]
    )
    learned.publish(CLICKS[1500:])
    dry = learned.worker("--dry-run")
    assert dry.wait() == 0, dry.output
    learned.run_to_end()
    forgotten += sum(key.decode() == user for key, _ in CLICKS[1500:])
    assert counted(learned) == 1600 - forgotten


class Start:
    """What a worker of some app does until it settles whose model it is."""

    def __init__(self, app: App, name: str) -> None:
        config = app.config
        self.admin = app.admin
        self.config: Config = replace(config, app=replace(config.app, name=name))
        self.now = identity(app.admin, config)
        self.store = Store(app.folder / name)
        self.transactions = Transactions(self.config)
        self.readback = Readback(self.config, self.now, app.admin, lambda: None)
        self.readback.start(repair=False)

    def settle(self) -> Space:
        return header.settle(
            self.config, self.store, self.now, Accepted(), self.readback, self.transactions,
            self.admin, read=0,
        )  # fmt: skip

    def close(self) -> None:
        self.readback.close()
        self.store.close()


def test_of_two_apps_that_find_no_model_the_first_to_write_gets_it(app: App) -> None:
    """The second one begins to write when the first has written, and has not committed yet."""
    with closing(Start(app, "first")) as first, closing(Start(app, "second")) as second:
        producer, refusals = first.transactions.producer, []

        class Slow:
            """The producer of the first, which flushes when the second has tried as well."""

            def __getattr__(self, name: str) -> Any:
                return getattr(producer, name)

            def flush(self, seconds: float) -> None:
                producer.flush(seconds)
                with pytest.raises(Refused) as refusal:
                    second.settle()
                refusals.append(str(refusal.value))

        first.transactions.producer = Slow()  # type: ignore[assignment]
        assert first.settle().app == "first"
        assert "app 'first' began to write its model" in refusals[0]
    assert header_of(app).app == "first"
    keys = [message.key() for message in app.read(app.config.topics.model_state)]
    assert keys == [records.SPACE, records.manifest_key("0")], "nothing of the second was committed"


def test_a_header_of_an_older_version_is_taken_over_by_its_app(learned: App) -> None:
    topic = learned.config.topics.model_state
    old = msgspec.to_builtins(header_of(learned))
    for field in ("app", "cluster", "topics"):
        del old[field]
    producer = Producer({"bootstrap.servers": learned.servers})
    producer.produce(topic, msgspec.msgpack.encode(old), records.SPACE, partition=0)
    producer.flush(10)
    assert header_of(learned).app == ""
    other, name = f"{learned.name}-other", learned.name
    changed: dict[str, Any] = {"app__name": other, "state__dir": learned.folder / "other"}
    refused(learned.worker(**changed), f"hand-over --from {other}")
    # The offsets of the true app may have expired.

    def is_empty() -> bool:
        return not members(learned.admin, learned.config)

    wait_until(is_empty, "the end of the session")
    learned.admin.delete_consumer_groups([name])[name].result()
    refused(learned.worker(), f"hand-over --from {name}")
    wait_until(is_empty, "the end of that session")
    given = learned.command("hand-over", "--from", name)
    assert given.wait() == 0, given.output
    learned.publish(CLICKS[1000:])
    learned.run_to_end()
    header = header_of(learned)
    assert (header.app, header.topics["clicks"].partitions) == (learned.name, 2)
    assert counted(learned) == 1600


def test_topics_that_have_fewer_partitions_than_the_model_are_refused(app: App) -> None:
    """Without `topics.check` there are no ids that tell."""
    config = replace(app.config, topics=replace(app.config.topics, check=False))
    now = identity(app.admin, config)
    four = {role: Layout("", 4) for role in ("model_state", "item_vectors")}
    space = Space.of(config.engine_settings, 4)
    header_of_four = msgspec.structs.replace(space, app=app.name, topics=now.topics | four)
    found = header.differences(app.name, config.topics, header_of_four, {}, now)
    assert [(one.role, one.accepted_by) for one in found] == [
        ("model_state", header.NEVER), ("item_vectors", header.NEVER)
    ]  # fmt: skip


def test_clicks_and_items_that_were_created_again_are_read_anew_once_that_is_accepted(
    app: App, tmp_path: Path
) -> None:
    clicks, items = app.config.topics.clicks, app.config.topics.items
    catalogue = [(b"a", b'{"item_id":"a","attributes":{"name":"A"}}')] * 5
    app.describe(catalogue)
    app.publish(CLICKS[:1000])
    app.run_to_end()
    for topic in clicks, items:
        recreate(app, topic)
    app.describe([(b"b", b'{"item_id":"b","attributes":{"name":"B"}}')])
    app.publish(CLICKS[:300])
    # A new folder, which knows nothing of the old topic, skipped clicks without a word.
    for folder in (app.state, tmp_path / "new"):
        refused(
            app.worker(state__dir=folder), f"{clicks}: its id was", f"{items}: its id was",
            "--accept-loss",
        )  # fmt: skip
    refused(app.command("topics", "check"), f"{clicks}: its id was")
    rehearsal = app.worker("--dry-run", "--accept-loss")
    assert rehearsal.wait() == 0, rehearsal.output
    worker = app.worker("--accept-loss")
    worker.until(app.caught_up, "the clicks of the new topic")
    worker.stop()
    assert counted(app) == 1300
    after = contents(app.config)
    assert after.graph
    assert after.attributes.keys() >= {b"a", b"b"}
    store = Store(app.state)
    assert sum(store.items_taken().values()) == 1
    store.close()


def test_vectors_go_to_a_topic_that_was_created_again(learned: App) -> None:
    """By the next start, whoever makes it, and though it is killed on the way."""
    vectors = learned.config.topics.item_vectors
    wanted = published(learned)
    assert len(wanted) > 50
    recreate(learned, vectors, partitions=3)
    refused(learned.command("topics", "check"), f"{vectors}: its id was")
    plan = {"point": "commit", "when": "before", "call": 1}
    killed = learned.worker(plan=plan | {"marker": str(learned.folder / "killed")})
    assert killed.wait() == -9, killed.output
    assert newest_vectors(learned) == {}
    worker = learned.worker()
    worker.until(lambda: "repaired: all rows and vectors" in worker.output, "all vectors again")
    assert f"{vectors}: its id was" in worker.output
    worker.stop()
    assert newest_vectors(learned) == published(learned)
    assert published(learned).keys() == wanted.keys()
    worker = learned.worker().running()
    assert "its id was" not in worker.output
    worker.stop()


def test_a_model_that_was_created_again_comes_back_from_the_folder_by_a_repair(
    learned: App, tmp_path: Path
) -> None:
    before, topic = contents(learned.config), learned.config.topics.model_state
    learned.command("forget", "user-1").wait()
    learned.worker().running().stop()
    recreate(learned, topic)
    refused(learned.worker(), f"{topic}: its id was", "--repair", "reset --topics")
    refused(learned.worker(state__dir=tmp_path / "new"), "reset --topics")
    repair(learned)
    learned.worker(state__dir=tmp_path / "again").running().stop()
    learned.settings = {**learned.settings, "state.dir": tmp_path / "again"}
    after = contents(learned.config)
    assert after.rows.keys() == before.rows.keys()
    assert after.graph == before.graph
    assert {p: x.offset for p, x in after.progress.items()} == {
        p: x.offset for p, x in before.progress.items()
    }
    assert any(m.key() != records.SPACE and (m.key() or b"").startswith(records.FORGOTTEN)
               for m in learned.read(topic))  # fmt: skip


def test_keys_stay_where_they_are_when_partitions_are_added(learned: App) -> None:
    names = learned.config.topics
    for topic in names.item_vectors, names.model_state, names.transitions:
        grow(learned, topic, 3)
    check = learned.command("topics", "check")
    assert check.wait() == 0, check.output
    assert f"{names.item_vectors} has 3 partitions instead of 2" in check.output
    assert "Kafka cannot take partitions away" in check.output
    worker = learned.worker()
    learned.publish(CLICKS[1000:])
    worker.until(learned.caught_up, "more clicks")
    assert "stay in the first 2" in worker.output
    worker.stop()
    assert newest_vectors(learned) == published(learned)
    for topic in names.item_vectors, names.model_state:
        assert {m.partition() for m in learned.read(topic)} == {0, 1}


def test_a_running_worker_notices_what_happens_to_its_topics(kafka: str, tmp_path: Path) -> None:
    """Each of them in an app of its own, at the same time: looks are ten seconds apart.

    In one of them rounds are by count, and no click comes: the round never ends.
    """
    by_count = EXACT | {"round.max_seconds": 0}
    with (
        App(kafka, tmp_path, EXACT) as grown,
        App(kafka, tmp_path, EXACT) as gone,
        App(kafka, tmp_path, by_count) as idle,
    ):
        workers = [app.worker() for app in (grown, gone, idle)]
        for worker in workers:
            worker.running()
        grow(grown, grown.config.topics.items, 3)
        grow(idle, idle.config.topics.clicks, 3)
        vectors = gone.config.topics.item_vectors
        gone.admin.delete_topics([vectors])[vectors].result()
        gone.publish(CLICKS[:300])
        refused(
            workers[0], f"{grown.config.topics.items} has 3 partitions, and had 2", "start again",
            code=1,
        )  # fmt: skip
        refused(workers[1], f"['{vectors}'] were deleted", "topics create")
        refused(workers[2], f"{idle.config.topics.clicks} has 3 partitions, and had 2", code=1)
        grown.describe([(b"sku-0001", b'{"item_id":"sku-0001","attributes":{}}')])
        grown.worker().running().stop()
