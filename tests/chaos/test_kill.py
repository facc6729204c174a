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

from streamer.demo.shop import Shop
from streamer.state import commits, evidence, packing, records
from streamer.state.records import Progress
from tests.chaos.shop_log import BAD, BAD_ITEMS, ROUND, catalogue, clicks_of, log_of, rounds_of
from tests.folders import (
    Contents,
    assert_indices_follow_rows,
    assert_same,
    contents,
    counts,
    row_table,
)
from tests.support import DETERMINISTIC, START_MS, App, as_records

COLUMNS = ("times", "weights", "event_ids", "offsets")

Told = tuple[bytes | None, bytes | None, Any]
"""Key, value and headers of a record."""


def kill_at(app: App, point: str, when: str, call: int) -> None:
    """One life of a worker, that ends exactly there."""
    marker = app.folder / f"{app.name}-{point}-{when}-{time.monotonic_ns()}"
    plan = {"point": point, "when": when, "call": call, "marker": str(marker)}
    worker = app.worker(plan=plan)
    assert worker.wait() == -9, f"{point} {when}\n{worker.output}"
    assert marker.read_text() == f"{point} {when}"


def told(messages: list[Message], app: str) -> list[Told]:
    """Without the header and the name of the app, which are its own; a manifest without offsets."""
    out = []
    for message in messages:
        key, value = message.key(), message.value()
        headers: dict[str, Any] = dict(message.headers() or [])
        mark = commits.mark_of(message)
        assert mark is not None
        assert mark.app == app
        headers[records.COMMIT_HEADER] = mark.number
        if records.is_manifest(key or b""):
            manifest = msgspec.msgpack.decode(value or b"", type=commits.Manifest)
            parts = [part for topic in manifest.topics.values() for part in topic.partitions]
            counted = [msgspec.structs.replace(part, begin=0) for part in parts[1:]]
            value = msgspec.msgpack.encode((manifest.commit, counted))
        # The first commit is the header alone. How far sweeps are depends on the time.
        of_sweeps = (key or b"").startswith((records.GRAPH, records.SESSIONS, records.SWEPT))
        if key != records.SPACE and headers[records.COMMIT_HEADER] != 0 and not of_sweeps:
            out.append((key, value, headers))
    return out


def evidence_of(message: Message) -> Any:
    """All that a record of evidence says."""
    commit, before, rounds = evidence.unpack(message.value() or b"")
    return commit, before, [
        (
            one.round_number, list(one.gone), list(one.forgotten), list(one.births.items()),
            list(one.clicks.users), list(one.clicks.items),
            *(getattr(one.clicks, name).tolist() for name in COLUMNS),
        )
        for one in rounds
    ]  # fmt: skip


# -- one partition, deterministic: byte for byte --------------------------------------------------


@dataclass
class Outcome:
    """All that the outside can see of an app that went through the log."""

    offsets: dict[tuple[str, int], int]
    vectors: list[Told]
    model: list[Told]
    dead_letters: list[Told]
    evidence: list[Any]
    state: Contents


def outcome(app: App) -> Outcome:
    topics = app.config.topics
    return Outcome(
        app.group_offsets(),
        told(app.read(topics.item_vectors), app.name),
        told(app.read(topics.model_state), app.name),
        told(app.read(topics.dead_letters), app.name),
        [evidence_of(message) for message in app.read(topics.transitions)],
        contents(app.config),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def uninterrupted(kafka: str, folder: Path) -> Iterator[tuple[App, Outcome]]:
    """An app with clicks and items, and the outcome of its worker, that nobody disturbed.

    The log ends where a commit closes, and one record later: a round that is taken and not yet
    committed would keep a stopping worker from writing its checkpoint.
    """
    port = free_port()
    with App(kafka, folder, {**DETERMINISTIC, "metrics.port": port}) as app:
        log, end = log_of(clicks=9600, seed=7, rate=0.5), 8400
        app.describe(catalogue(seed=7))
        app.publish(log[:end])
        worker = app.worker()

        def all_committed() -> bool:
            """False if rounds are pending; a commit takes milliseconds after its last round."""
            rounds = rounds_of(log[:end])
            worker.until(lambda: worker.metric(port, "rounds_total") == rounds, "all rounds")
            time.sleep(1.0)
            return app.caught_up()

        while not all_committed():
            app.publish(log[end : end + ROUND])
            end += ROUND
        app.publish(log[end : end + 1])
        assert worker.metric(port, r'ignored_clicks_total\{reason="duplicate"\}') > 200
        worker.stop()
        yield app, outcome(app)


def test_the_log_makes_everything_happen_that_a_restart_could_get_wrong(
    uninterrupted: tuple[App, Outcome],
) -> None:
    app, wanted = uninterrupted
    assert wanted.state.placement is not None
    assert packing.unpack_placement(wanted.state.placement, 16).epoch >= 4
    assert sum(value is None for _, value, _ in wanted.vectors) > 50
    assert len({key for key, _, _ in wanted.vectors}) > 250
    assert len(wanted.dead_letters) > 150
    told = [dict(headers) for _, _, headers in wanted.dead_letters]
    items = app.config.topics.items.encode()
    assert sum(headers["source.topic"] == items for headers in told) == len(BAD_ITEMS)
    assert sum("source.part" in headers for headers in told) > 100
    assert sum(clicks > 1 and any(ids) for _, _, clicks, ids in wanted.state.sessions.values()) > 5
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
    ("apply", "after", 6),
]
REFOLD = [
    ("commit", "after", 3),
    ("fold", "after", 1),
    ("apply", "middle", 4),
    ("offsets", "after", 2),
    ("apply", "after", 2),
    ("produce", "middle", 3),
]
"""With no sweep of the folder before the clean end, the graph comes from the evidence each time."""
AGAIN = [("commit", "after", 2), ("fold", "after", 1), ("apply", "middle", 2)]
COPIED, LOST, OLD = "copied", "lost", "an older copy"
"""What becomes of a folder before a kill."""


@pytest.mark.parametrize(
    ("schedule", "checkpoint_seconds", "folders"),
    [
        pytest.param(STEPS, 0.001, {}, id="every-step"),
        pytest.param([*REFOLD, *AGAIN], 3600, {1: COPIED, 3: LOST, 6: OLD}, id="without-sweeps"),
        pytest.param(REFOLD, 3600, {}, id="graph-from-evidence", marks=pytest.mark.long),
        pytest.param(REFOLD, 3600, {3: LOST}, id="folder-lost", marks=pytest.mark.long),
        pytest.param(REFOLD, 3600, {1: COPIED, 3: OLD}, id="older-copy", marks=pytest.mark.long),
    ],
)
def test_killed_workers_leave_byte_for_byte_what_an_uninterrupted_one_leaves(
    kafka: str,
    folder: Path,
    uninterrupted: tuple[App, Outcome],
    schedule: list[tuple[str, str, int]],
    checkpoint_seconds: float,
    folders: dict[int, str],
) -> None:
    source, wanted = uninterrupted
    topics = source.config.topics
    shared = {"topics.clicks": topics.clicks, "topics.items": topics.items}
    changed = {**DETERMINISTIC, **shared, "checkpoint.seconds": checkpoint_seconds}
    with App(kafka, folder, changed) as app:
        for number, (point, when, call) in enumerate(schedule):
            copy, becomes = app.state.with_name("copy"), folders.get(number)
            if becomes == COPIED:
                shutil.copytree(app.state, copy)
            elif becomes is not None:
                shutil.rmtree(app.state)
            if becomes == OLD:
                copy.rename(app.state)
            kill_at(app, point, when, call)
        worker = app.worker()
        worker.until(lambda: app.group_offsets() == wanted.offsets, "the end of the log")
        worker.stop()
        got = outcome(app)
    assert_same(got.state, wanted.state)
    assert got.dead_letters == wanted.dead_letters
    assert got.evidence == wanted.evidence
    assert_equal_sequences(got.vectors, wanted.vectors)
    assert_equal_sequences(got.model, wanted.model)


def assert_equal_sequences(got: list[Told], wanted: list[Told]) -> None:
    for n, (a, b) in enumerate(zip(got, wanted, strict=False)):
        assert a == b, f"record {n}"
    assert len(got) == len(wanted)


# -- four partitions, rounds by the clock: nothing lost, nothing twice ----------------------------

CENTURY = "36500d"
"""A half-life in which no click of a test loses weight, so that counts are whole numbers."""


@dataclass
class Battered:
    """An app whose worker was killed at random moments while clicks came in."""

    kills: int
    app: App
    log: list[tuple[bytes, bytes]]
    state: Contents


@pytest.fixture(scope="module", params=[4, pytest.param(20, marks=pytest.mark.long)])
def battered(request: pytest.FixtureRequest, kafka: str, folder: Path) -> Iterator[Battered]:
    kills: int = request.param
    settings = {
        "topics.partitions": 4,
        "graph.half_life": CENTURY,
        "round.max_seconds": 0.1,
        "commit.seconds": 0.2,
        "checkpoint.seconds": 0.5,
    }
    with App(kafka, folder, settings) as app:
        log = log_of(clicks=2_000 * kills, seed=3, rate=50.0)
        app.describe(BAD_ITEMS)
        stop = threading.Event()

        def trickle() -> None:
            for at in range(0, len(log), 100):
                app.publish(log[at : at + 100])
                stop.wait(0.15)

        publisher = threading.Thread(target=trickle)
        publisher.start()
        moments = random.Random(11)
        for number in range(kills):
            worker = app.worker()
            if number % 3:  # the others may still be restoring, however slow the machine is
                worker.running()
            time.sleep(moments.uniform(0.5, 3.0))
            assert worker.popen.poll() is None, worker.output
            worker.kill()
        assert sum(max(0, offset) for offset in app.group_offsets().values()) > 0
        stop.set()
        publisher.join()
        app.run_to_end()
        yield Battered(kills, app, log, contents(app.config))


def test_every_click_is_processed_once_in_every_partition(battered: Battered) -> None:
    app, log = battered.app, battered.log
    ends = app.ends(app.config.topics.clicks)
    assert sum(ends.values()) == len(log)
    assert min(ends.values()) > 0
    assert app.group_offsets() == ends
    assert {partition: p.offset for partition, p in app.progress().items()} == ends
    assert {partition: p.offset for partition, p in battered.state.progress.items()} == ends


def test_the_count_of_every_item_is_the_number_of_its_clicks(battered: Battered) -> None:
    clicks = [click for _, value in battered.log for click in clicks_of(value)]
    items = {click["event_id"]: click["item_id"] for click in clicks}
    assert len(clicks) - len(items) > 30 * battered.kills, "some come twice"
    published = Counter(items.values())
    found = counts(battered.app.config)
    assert max(abs(n - round(n)) for n in found.values()) < 0.1  # sums of float32
    assert {item: round(n) for item, n in found.items()} == published


def test_every_bad_record_is_a_dead_letter_once(battered: Battered) -> None:
    letters = battered.app.read(battered.app.config.topics.dead_letters)
    lines = [(key, line) for key, value in battered.log for line in value.split(b"\n")]
    wanted = Counter([*BAD_ITEMS, *((key, line) for key, line in lines if line in BAD)])
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
    for (topic, number), progress in battered.state.progress.items():
        value = last[records.progress_key(topic, number)]
        assert msgspec.msgpack.decode(value, type=Progress) == progress
    assert_indices_follow_rows(app.config)


def test_a_deleted_folder_comes_back_the_same_and_learning_goes_on(battered: Battered) -> None:
    app = battered.app
    shutil.rmtree(app.state)
    app.worker().running().stop()
    # What had moved too little to leave may have been learned again, and have left since then.
    learned = ("rows", "clusters", "postings", "versions", "progress", "folded")
    again = contents(app.config)
    assert_same(again, battered.state, but=learned)
    assert again.rows.keys() == battered.state.rows.keys()
    assert_indices_follow_rows(app.config)
    more = as_records(islice(Shop(3).clicks(START_MS + 3_600_000, 50.0), 500))
    app.publish(more)
    app.run_to_end()
    after = contents(app.config)
    changed = {item for item, row in after.graph.items() if battered.state.graph.get(item) != row}
    assert {msgspec.json.decode(value)["item_id"] for _, value in more} <= changed
    assert any(row != battered.state.rows.get(key) for key, row in after.rows.items())
