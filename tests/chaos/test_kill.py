"""Kill -9 at every step of the commit and at random moments: nothing is lost or counted twice."""

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker import free_port
from confluent_kafka import Message

from streamer import records
from streamer.records import Progress
from streamer.shop.shop import Shop
from tests.support import (
    DETERMINISTIC,
    START_MS,
    App,
    Contents,
    as_records,
    assert_indices_follow_rows,
    assert_same,
    contents,
    row_table,
)

BAD = (
    b"not json",
    b'{"user_id":"u","ts":1700000000000}',
    b'{"user_id":"u","item_id":"i","ts":"soon"}',
    b'{"user_id":"u","item_id":"","ts":1700000000000}',
    b'{"user_id":"u","item_id":"i","ts":1700000000000,"weight":-1}',
    b'{"user_id":"u","item_id":"i","ts":-5}',
    b'{"user_id":"u","item_id":"i","ts":1700000000000,"event_type":"?"}',
)


Told = tuple[bytes | None, bytes | None, Any]
"""Key, value and headers of a record."""


def log_of(clicks: int, seed: int, rate: float) -> list[tuple[bytes, bytes]]:
    """A shop's clicks with a bad record before every 500th."""
    good = as_records(islice(Shop(seed).clicks(START_MS, rate), clicks))
    out = []
    for n, record in enumerate(good):
        if n % 500 == 250:
            out.append((b"k%d" % n, BAD[n // 500 % len(BAD)]))
        out.append(record)
    return out


def catalogue(seed: int) -> list[tuple[bytes, bytes | None]]:
    """A shop's items; two of them were retired, and will be clicked all the same."""
    items = [(i["item_id"].encode(), msgspec.json.encode(i)) for i in Shop(seed).items()]
    return [*items, *((key, None) for key, _ in items[:2])]


def kill_at(app: App, point: str, when: str, call: int) -> None:
    """One life of a worker, that ends exactly there."""
    marker = app.folder / f"{app.name}-{point}-{when}-{time.monotonic_ns()}"
    plan = {"point": point, "when": when, "call": call, "marker": str(marker)}
    worker = app.worker(plan=plan)
    assert worker.wait() == -9, f"{point} {when}\n{worker.output}"
    assert marker.read_text() == f"{point} {when}"


def told(messages: list[Message], but: bytes | None = None) -> list[Told]:
    return [(m.key(), m.value(), m.headers()) for m in messages if but is None or m.key() != but]


# -- one partition, deterministic: byte for byte --------------------------------------------------


@dataclass
class Outcome:
    """All that the outside can see of an app that went through the log."""

    offsets: dict[tuple[str, int], int]
    vectors: list[Told]
    model: list[Told]
    dead_letters: list[Told]
    state: Contents


def outcome(app: App) -> Outcome:
    topics = app.config.topics
    model = told(app.read(topics.model_state), but=records.SPACE)
    named = topics.items.encode()
    return Outcome(
        app.group_offsets(),
        told(app.read(topics.item_vectors)),
        # Apps have items topics of their own, and reserved keys name them.
        [(key and key.replace(named, b"items"), value, more) for key, value, more in model],
        told(app.read(topics.dead_letters)),
        contents(app.config),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def uninterrupted(kafka: str, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """The log of clicks, and the outcome of a worker that nobody disturbed.

    The log ends where a commit closes, and one record later: a round that is taken and not yet
    committed would keep a stopping worker from writing its checkpoint.
    """
    port = free_port()
    with App(kafka, folder, {**DETERMINISTIC, "metrics.port": port}) as app:
        log, end = log_of(clicks=9000, seed=7, rate=0.5), 8400
        app.describe(catalogue(seed=7))
        app.publish(log[:end])
        worker = app.worker()

        def all_committed() -> bool:
            """False if rounds are pending; a commit takes milliseconds after its last round."""
            worker.until(lambda: worker.metric(port, "rounds_total") == end // 200, "all rounds")
            time.sleep(1.0)
            return app.caught_up()

        while not all_committed():
            app.publish(log[end : end + 200])
            end += 200
        app.publish(log[end : end + 1])
        worker.stop()
        yield app.config.topics.clicks, outcome(app)


def test_the_log_makes_everything_happen_that_a_restart_could_get_wrong(
    uninterrupted: tuple[str, Outcome],
) -> None:
    _, wanted = uninterrupted
    assert wanted.state.placement is not None
    assert records.unpack_placement(wanted.state.placement, 16).epoch >= 4
    assert sum(value is None for _, value, _ in wanted.vectors) > 50
    assert len({key for key, _, _ in wanted.vectors}) > 250
    assert len(wanted.dead_letters) > 15
    assert len(wanted.state.sessions) > 20
    assert len(wanted.state.clusters) > 200


STEPS = [
    ("space", "after", 1),
    ("begin", "before", 1),
    ("begin", "after", 2),
    ("produce", "before", 1),
    ("produce", "middle", 2),
    ("produce", "after", 1),
    ("offsets", "before", 2),
    ("offsets", "after", 1),
    ("commit", "before", 1),
    ("commit", "middle", 2),
    ("commit", "after", 1),
    ("tail", "middle", 1),
    ("tail", "after", 1),
    ("apply", "before", 1),
    ("apply", "middle", 1),
    ("apply", "after", 2),
    ("checkpoint", "before", 1),
    ("checkpoint", "middle", 2),
    ("checkpoint", "after", 1),
]
REFOLD = [
    ("commit", "after", 3),
    ("fold", "after", 1),
    ("apply", "middle", 4),
    ("offsets", "after", 2),
    ("apply", "after", 2),
    ("produce", "middle", 3),
]
"""With no checkpoint before the clean end, the graph comes from the clicks each time."""


@pytest.mark.parametrize(
    ("schedule", "checkpoint_seconds", "without_folder"),
    [(STEPS, 0.001, -1), (REFOLD, 3600, -1), (REFOLD, 3600, 3)],
    ids=["every-step", "graph-from-clicks", "folder-lost-on-the-way"],
)
def test_killed_workers_leave_byte_for_byte_what_an_uninterrupted_one_leaves(
    kafka: str,
    folder: Path,
    uninterrupted: tuple[str, Outcome],
    schedule: list[tuple[str, str, int]],
    checkpoint_seconds: float,
    without_folder: int,
) -> None:
    clicks, wanted = uninterrupted
    changed = {"topics.clicks": clicks, "checkpoint.seconds": checkpoint_seconds}
    with App(kafka, folder, {**DETERMINISTIC, **changed}) as app:
        app.describe(catalogue(seed=7))
        for number, (point, when, call) in enumerate(schedule):
            if number == without_folder:
                shutil.rmtree(app.state)
            kill_at(app, point, when, call)
        worker = app.worker()
        worker.until(lambda: app.group_offsets() == wanted.offsets, "the end of the log")
        worker.stop()
        got = outcome(app)
    assert_same(got.state, wanted.state)
    assert got.dead_letters == wanted.dead_letters
    assert_equal_sequences(got.vectors, wanted.vectors)
    assert_equal_sequences(got.model, wanted.model)


def assert_equal_sequences(got: list[Told], wanted: list[Told]) -> None:
    for n, (a, b) in enumerate(zip(got, wanted, strict=False)):
        assert a == b, f"record {n}"
    assert len(got) == len(wanted)


# -- four partitions, rounds by the clock: nothing lost, nothing twice ----------------------------

KILLS = 6
CENTURY = "36500d"
"""A half-life in which no click of a test loses weight, so that counts are whole numbers."""


@dataclass
class Battered:
    """An app whose worker was killed at random moments while clicks came in."""

    app: App
    log: list[tuple[bytes, bytes]]
    state: Contents


@pytest.fixture(scope="module")
def battered(kafka: str, folder: Path) -> Iterator[Battered]:
    settings = {
        "topics.partitions": 4,
        "graph.half_life": CENTURY,
        "round.max_seconds": 0.1,
        "commit.seconds": 0.2,
        "checkpoint.seconds": 0.5,
    }
    with App(kafka, folder, settings) as app:
        log = log_of(clicks=12_000, seed=3, rate=50.0)
        stop = threading.Event()

        def trickle() -> None:
            for at in range(0, len(log), 100):
                app.publish(log[at : at + 100])
                stop.wait(0.15)

        publisher = threading.Thread(target=trickle)
        publisher.start()
        moments = random.Random(11)
        for _ in range(KILLS):
            worker = app.worker()
            time.sleep(moments.uniform(0.5, 4.5))
            assert worker.popen.poll() is None, worker.output
            worker.kill()
        assert sum(max(0, offset) for offset in app.group_offsets().values()) > 0
        stop.set()
        publisher.join()
        app.run_to_end()
        yield Battered(app, log, contents(app.config))


def test_every_click_is_processed_once_in_every_partition(battered: Battered) -> None:
    app, log = battered.app, battered.log
    ends = app.ends(app.config.topics.clicks)
    assert sum(ends.values()) == len(log)
    assert min(ends.values()) > 0
    assert app.group_offsets() == ends
    assert {place: p.offset for place, p in app.progress().items()} == ends
    assert {place: p.offset for place, p in battered.state.progress.items()} == ends


def test_the_count_of_every_item_is_the_number_of_its_clicks(battered: Battered) -> None:
    clicks = [msgspec.json.decode(value) for _, value in battered.log if value not in BAD]
    published = Counter(click["item_id"] for click in clicks)
    keys, rows = row_table(battered.app.config)
    half_life = int(battered.app.config.graph.half_life)
    scale = 2.0 ** ((START_MS - rows["landmark"]) / half_life)
    counts = rows["count"] / scale
    assert abs(counts - counts.round()).max() < 0.01
    counted = {k.decode(): int(n) for k, n in zip(keys, counts.round(), strict=True)}
    assert counted == published


def test_every_bad_record_is_a_dead_letter_once(battered: Battered) -> None:
    letters = battered.app.read(battered.app.config.topics.dead_letters)
    wanted = Counter((key, value) for key, value in battered.log if value in BAD)
    assert Counter((m.key(), m.value()) for m in letters) == wanted


def test_versions_only_grow(battered: Battered) -> None:
    newest: dict[bytes, int] = {}
    for message in battered.app.read(battered.app.config.topics.item_vectors):
        key, value = message.key() or b"", message.value()
        assert value is not None
        version = msgspec.json.decode(value)["version"]
        assert version > newest.get(key, 0), f"{key!r} went from {newest[key]} to {version}"
        newest[key] = version
    keys, rows = row_table(battered.app.config)
    stored = dict(zip(keys, rows["published"].tolist(), strict=True))
    assert newest == {key: version for key, version in stored.items() if version > 0}


def test_the_folder_holds_what_the_topic_says(battered: Battered) -> None:
    app = battered.app
    last: dict[bytes, bytes] = {}
    for message in app.read(app.config.topics.model_state):
        assert message.value() is not None, "nothing expires in this log"
        last[message.key() or b""] = message.value() or b""
    assert battered.state.rows == {k: v for k, v in last.items() if not k.startswith(b"\xff")}
    assert battered.state.placement == last[records.PLACEMENT]
    for partition, version in battered.state.versions.items():
        assert last[records.version_key(partition)] == msgspec.msgpack.encode(version)
    for place, progress in battered.state.progress.items():
        value = last[records.progress_key(*place)]
        assert msgspec.msgpack.decode(value, type=Progress) == progress
    assert_indices_follow_rows(app.config)


def test_a_deleted_folder_comes_back_the_same_and_learning_goes_on(battered: Battered) -> None:
    app = battered.app
    shutil.rmtree(app.state)
    app.worker().running().stop()
    # With four partitions the order of the clicks, and so the graph, is not fixed.
    assert_same(contents(app.config), battered.state, but=("graph", "sessions"))
    assert_indices_follow_rows(app.config)
    more = as_records(islice(Shop(3).clicks(START_MS + 3_600_000, 50.0), 500))
    app.publish(more)
    app.run_to_end()
    after = contents(app.config)
    changed = [key for key, row in after.rows.items() if battered.state.rows.get(key) != row]
    assert {msgspec.json.decode(value)["item_id"].encode() for _, value in more} <= {*changed}
