"""What `walkstream reset` deletes, what it keeps, and when it refuses."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Producer
from rocksdict import Rdict

from streamer.demo.shop import Shop
from streamer.state import records
from streamer.state import store as stores
from streamer.state.store import Store
from tests.folders import contents
from tests.support import ROOT, START_MS, App, Process, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1000))


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, {"topics.partitions": 3, "commit.seconds": 0.2}) as app:
        yield app


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A state folder as a worker leaves it, as far as reset looks."""
    path = tmp_path / "state"
    store = Store(path)
    store.set_meta({stores.IDENTITY: b"\x80"})
    store.close()
    return path


def reset(path: Path, *options: str, answer: str = "") -> tuple[int, str]:
    """Reset of a folder without Kafka, on a terminal where there is an answer to give."""
    command = [sys.executable, "-m", "streamer.cli", "reset", "--set", f"state.dir={path}"]
    command += ["--set", "kafka.bootstrap.servers=127.0.0.1:1", *options]
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        process = subprocess.run(
            command, stdin=theirs if answer else subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60, cwd=path.parent, check=False, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        os.close(theirs)
        os.close(terminal)
    assert "Traceback" not in process.stdout, process.stdout
    return process.returncode, process.stdout


def done(process: Process, code: int = 0) -> str:
    assert process.wait() == code, process.output
    assert "Traceback" not in process.output
    return process.output


def test_a_state_folder_goes_and_needs_no_kafka_for_it(made: Path) -> None:
    code, output = reset(made, "--yes")
    assert code == 0, output
    assert "the next start rebuilds it" in output
    assert not made.exists()
    nothing = 0, f"{made}: there is no state folder, nothing to delete\n"
    assert reset(made, "--yes") == nothing
    made.mkdir()  # as a volume is, that stays where it is mounted
    assert reset(made, "--yes") == nothing


def test_it_asks_on_a_terminal_and_elsewhere_wants_yes(made: Path) -> None:
    code, output = reset(made, answer="n\n")
    assert (code, made.exists()) == (0, True), output
    assert "nothing was changed" in output
    code, output = reset(made)
    assert (code, made.exists()) == (2, True), output
    assert "give --yes" in output
    code, output = reset(made, answer="y\n")
    assert (code, made.exists()) == (0, False), output


def test_a_dry_run_says_what_would_go_and_deletes_nothing(made: Path) -> None:
    code, output = reset(made, "--dry-run")
    assert code == 0
    assert f"delete the state folder {made}" in output
    assert Store(made).meta(stores.IDENTITY) == b"\x80"


def test_a_folder_that_a_process_has_open_is_left_alone(made: Path) -> None:
    store = Store(made)
    for options in (["--yes"], ["--dry-run"]):
        code, output = reset(made, *options)
        assert code == 3
        assert "has this state folder open" in output
    assert store.meta(stores.IDENTITY) == b"\x80"
    store.close()


def test_what_is_not_a_state_folder_is_left_alone(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "thesis.txt").write_text("the only copy")
    foreign = tmp_path / "foreign"
    database = Rdict(str(foreign))
    database["key"] = "value"
    database.close()
    empty = tmp_path / "empty"
    Store(empty).close()
    for path in (plain, foreign, empty):
        code, output = reset(path, "--yes")
        assert code == 3, output
        assert str(path) in output
    assert (plain / "thesis.txt").read_text() == "the only copy"
    assert (empty / "CURRENT").exists()
    database = Rdict(str(foreign))
    assert database["key"] == "value"
    database.close()


def test_files_of_others_in_a_state_folder_stay(made: Path) -> None:
    (made / "notes.txt").write_text("mine")
    code, output = reset(made, "--yes")
    assert code == 0
    assert "stays: notes.txt" in output
    assert [file.name for file in made.iterdir()] == ["notes.txt"]


def test_a_replay_that_no_worker_took_over_needs_yes_even_on_a_terminal(made: Path) -> None:
    store = Store(made)
    store.set_meta({stores.ORIGIN: stores.REPLAY})
    store.close()
    code, output = reset(made, answer="y\n")
    assert (code, made.exists()) == (2, True), output
    assert "lost for good" in output
    assert reset(made, "--yes")[0] == 0
    assert not made.exists()


def test_a_worker_rebuilds_what_reset_deleted(app: App) -> None:
    app.publish(CLICKS)
    app.run_to_end()
    before = contents(app.config)
    done(app.command("reset", "--yes"))
    assert not app.state.exists()
    app.worker().running().stop()
    after = contents(app.config)
    assert after.rows.keys() == before.rows.keys()
    assert (after.graph, after.sessions) == (before.graph, before.sessions)
    ends = {partition: p.offset for partition, p in before.progress.items()}
    assert {partition: p.offset for partition, p in after.progress.items()} == ends


def test_after_a_reset_of_topics_a_worker_learns_all_clicks_again(app: App) -> None:
    app.publish([*CLICKS, (b"key", b"not json")])
    app.run_to_end()
    before = contents(app.config)
    topics = app.config.topics
    emptied = [topics.model_state, topics.item_vectors, topics.dead_letters, topics.transitions]
    assert len(app.read(topics.dead_letters)) == 1
    # Topics that exist keep their partitions, whatever new ones would get.
    output = done(app.command("reset", "--topics", "--yes", topics__partitions=5))
    assert "start.position = earliest" in output
    assert not app.state.exists()
    for topic in emptied:
        count = 1 if topic == topics.transitions else 3
        assert app.ends(topic) == {(topic, p): 0 for p in range(count)}
    assert sum(app.ends(topics.clicks).values()) == 1001
    assert {*app.group_offsets().values()} == {-1001}
    app.run_to_end()
    after = contents(app.config)
    assert after.rows.keys() == before.rows.keys()
    assert sum(p.offset for p in after.progress.values()) == 1001
    assert len(app.read(topics.dead_letters)) == 1


def test_forgotten_users_stay_forgotten(app: App) -> None:
    topic = app.config.topics.model_state
    one, other = records.FORGOTTEN + b"1" * 32, records.FORGOTTEN + b"2" * 32
    producer = Producer({"bootstrap.servers": app.servers})
    for key, value in ((one, b"\x01"), (other, b"\x01"), (b"item", b"row"), (other, None)):
        producer.produce(topic, value, key, partition=0)
    assert producer.flush(30) == 0
    done(app.command("reset", "--topics", "--yes"))
    (left,) = app.read(topic)
    assert (left.key(), left.value(), left.partition()) == (one, b"\x01", 0)


@pytest.mark.parametrize(
    ("point", "when"), [("recreate", "before"), ("recreate", "after"), ("remember", "after")]
)
def test_a_reset_that_is_killed_keeps_the_list_of_forgotten_users(
    app: App, point: str, when: str
) -> None:
    done(app.command("forget", "anna", "bob"))
    topic = app.config.topics.model_state
    listed = {message.key() for message in app.read(topic)}
    plan = {"point": point, "when": when, "call": 1, "marker": str(app.folder / "killed")}
    killed = app.command("reset", "--topics", "--yes", plan=plan)
    assert killed.wait() == -9, killed.output
    for command in (["worker"], ["worker", "--dry-run"], ["forget", "--undo", "bob"]):
        refused = app.command(*command)
        assert refused.wait() == 3, refused.output
        assert "did not come to its end" in refused.output
    done(app.command("reset", "--topics", "--yes"))
    assert {message.key() for message in app.read(topic)} == listed
    assert len(listed) == 2
    app.worker().running().stop()


def test_topics_that_are_missing_are_created(app: App) -> None:
    topics = app.config.topics
    app.admin.delete_topics([topics.model_state])[topics.model_state].result()
    time.sleep(1)
    done(app.command("reset", "--topics", "--yes"))
    assert app.ends(topics.model_state) == {(topics.model_state, p): 0 for p in range(3)}


def test_it_is_refused_while_a_worker_runs_here_or_elsewhere(app: App, tmp_path: Path) -> None:
    worker = app.worker().running()
    assert "has this state folder open" in done(app.command("reset", "--yes"), 3)
    there = app.command("reset", "--topics", "--yes", state__dir=tmp_path / "elsewhere")
    assert "stop the worker, then reset again" in done(there, 3)
    app.publish(CLICKS[:600])
    worker.until(app.caught_up, "clicks after the refusal")
    worker.stop()
