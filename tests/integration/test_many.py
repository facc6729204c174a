"""Several workers on one model, on a real Kafka."""

import signal
import time
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from broker import free_port
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from kills import Stream, came_back
from many import SETTINGS, Team, unlike_topic, wrong_of

from streamer.demo.shop import Shop
from streamer.state import traces
from streamer.state.records import MARKS
from streamer.state.store import Store
from streamer.worker.outgoing import IDLE_SECONDS
from tests.folders import contents
from tests.support import START_MS, App, as_records, wait_until

CLICKS = as_records(islice(Shop(1, products=200, users=200).clicks(START_MS, 1.0), 12_000))
LATER = as_records(islice(Shop(2, products=200, users=200).clicks(START_MS, 1.0), 8_000))
BAD = [(b"nobody-%d" % n, b"not json") for n in range(len(CLICKS) // 50)]
MANY: dict[str, object] = {**SETTINGS, "commit.seconds": 0.3}


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, MANY) as app:
        yield app


def lose_one_and_get_it_back(team: Team) -> None:
    time.sleep(2.0)
    team.kill("b")
    wait_until(lambda: "alone: " in team.workers["a"].output, "the other half")
    team.start("b")
    team.shared_out("a", "b")


def test_workers_that_come_go_and_are_killed_learn_one_model(app: App) -> None:
    team = Team(app)
    mixed = [one for n, one in enumerate(CLICKS) for one in (BAD[n // 50], one)[n % 50 > 0 :]]
    with Stream(app, mixed, Random(1)) as stream:
        team.begin()
        lose_one_and_get_it_back(team)
        team.stop("a")
        wait_until(lambda: "alone: " in team.workers["b"].output, "all of it")
        team.start("a")
        team.shared_out("a", "b")
        time.sleep(2.0)
    team.finish()
    good = [one for one in mixed[: stream.sent] if one[1] != b"not json"]
    assert wrong_of(team, ["a", "b"], good) == []
    assert came_back(app, stream.retired, team.config("a")) == []
    with Store(team.folder("a")) as one, Store(team.folder("b")) as other:
        assert one.versions() == other.versions()
        assert one.progress() == other.progress()
        assert one.meta(MARKS) == other.meta(MARKS)
        assert visits(one) == visits(other)
        wanted = visits(one)
    # All of it comes from Kafka as well.
    team.start("c")
    team.running("c")
    team.stop("c")
    assert contents(team.config("c")).graph == contents(team.config("a")).graph
    assert unlike_topic(app, team.config("c")) == []
    with Store(team.folder("c")) as store:
        assert visits(store) == wanted


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        return str(page.read().decode())


def visits(store: Store) -> list[tuple[str, str]]:
    """User and item of the newest clicks that a folder has copies of."""
    found = [
        pair
        for one in traces.rounds(store)
        for pair in zip(one.clicks.users, one.clicks.items, strict=True)
    ]
    assert len(found) > 3000
    return found[-3000:]


def test_brokers_that_share_out_partitions_do_as_well(app: App) -> None:
    """The newer protocol of groups (KIP-848). It keeps the place of one that stopped."""
    app.settings = {**app.settings, "kafka.group.protocol": "consumer"}
    team = Team(app)
    with Stream(app, CLICKS, Random(1)) as stream:
        team.begin()
        lose_one_and_get_it_back(team)
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS[: stream.sent]) == []


def test_a_worker_that_stood_still_finds_its_partitions_with_others(app: App) -> None:
    team = Team(app)
    with Stream(app, CLICKS, Random(1)) as stream:
        team.begin()
        frozen = team.workers.pop("b")
        frozen.popen.send_signal(signal.SIGSTOP)
        wait_until(lambda: "alone: " in team.workers["a"].output, "the other half")
        frozen.popen.send_signal(signal.SIGCONT)
        assert frozen.wait() == 4, frozen.output
        assert "Its partitions are with" in frozen.output
        team.start("b")
        team.shared_out("a", "b")
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS[: stream.sent]) == []


def test_of_two_first_starts_one_makes_the_model_and_the_other_follows(app: App) -> None:
    team, port = Team(app), free_port()
    for name in "ab":
        team.start(name, metrics__port=port if name == "b" else 0)
    with Stream(app, CLICKS[:3000], Random(1)) as stream:
        team.shared_out("a", "b")
        held = 'held_partitions{kind="clicks"} 2.0', "walkstream_alone 0.0"
        log = f'walkstream_lag{{partition="0",topic="{app.config.topics.transitions}"}}'
        wait_until(lambda: all(line in metrics(port) for line in (*held, log)), "what it has")
        wait_until(lambda: stream.sent == 3000, "all clicks sent")
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS[:3000]) == []


def test_who_joins_while_another_restores_alone_gets_a_share_and_no_more(app: App) -> None:
    team = Team(app)
    app.publish(CLICKS[:1000])
    team.start("a")
    team.finish()
    marker = app.folder / "marker"
    plan = {"point": "space", "when": "before", "call": 1, "sleeps": 6, "marker": str(marker)}
    team.start("a", plan=plan)
    wait_until(marker.exists, "the first to restore")
    team.start("b")
    with Stream(app, CLICKS[1000:5000], Random(1)) as stream:
        team.shared_out("a", "b")
        wait_until(lambda: stream.sent == 4000, "all clicks sent")
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS[:5000]) == []


def test_partitions_that_a_dead_member_gave_up_are_handed_on(app: App) -> None:
    """It had given them back, and died before it told the group so."""
    team = Team(app)
    with Stream(app, CLICKS[:2000], Random(1)):
        team.start("a")
        team.running("a")
        team.start("b")
        wait_until(lambda: "gave back" in team.workers["a"].output, "the half of a")
        team.kill("a")
        team.start("a")
        team.shared_out("a", "b")
    team.finish()


def test_what_is_decided_in_several_records_is_folded_whole(app: App) -> None:
    """Of 20,000 clicks that wait for one worker, while another one comes and goes."""
    app.settings = {**app.settings, "commit.seconds": 3}
    app.publish(CLICKS + LATER)
    team = Team(app)
    team.start("a")
    team.start("b")
    team.running("a", "b")
    team.kill("b")
    team.start("b")
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS + LATER) == []


def test_what_needs_a_worker_alone_waits_for_the_others_and_is_refused(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team(app)
    app.publish(CLICKS[:200])
    team.start("a")
    team.running("a")
    wait_until(app.caught_up, "a commit")
    for arguments, changed, why in (
        (("--repair",), {}, "a repair writes what all of them own"),
        ((), {"round__max_seconds": 0, "commit__rounds": 2}, "rounds by count"),
        ((), {"session__gap": "5s"}, "fold clicks otherwise than this one would: session.gap"),
    ):
        options: dict[str, Any] = {"app__instance": "b", "state__dir": team.folder("b"), **changed}
        other = app.worker(*arguments, **options)
        other.until(lambda other=other, why=why: why in other.output, why)  # type: ignore[misc]
        other.kill()
    assert "gave back" not in team.workers["a"].output
    team.stop()


def test_partitions_that_are_added_are_taken_by_workers_that_start_again(app: App) -> None:
    team = Team(app)
    with Stream(app, CLICKS[:4000], Random(1)) as stream:
        team.begin()
        clicks = app.config.topics.clicks
        for future in app.admin.create_partitions([NewPartitions(clicks, 6)]).values():
            future.result()
        wait_until(lambda: _restarted(team) and stream.sent == 4000, "six partitions")
    app.publish(CLICKS[4000:5000])
    team.finish()
    assert wrong_of(team, ["a", "b"], CLICKS[:5000]) == []


def _restarted(team: Team) -> bool:
    """Whether both run on six partitions; who ended is started again, as a supervisor does."""
    outputs = [team.alive(name).output for name in ("a", "b")]
    lines = [line for out in outputs for line in out.splitlines()[::-1] if " partitions of" in line]
    return all("running: " in out for out in outputs) and any(" of 6 " in line for line in lines)


def test_who_takes_over_needs_no_dead_letters_that_retention_took(app: App) -> None:
    team, letters = Team(app), app.config.topics.dead_letters
    team.begin()
    app.publish([*CLICKS[:500], *BAD[:50]])
    left = team.workers["a"]
    left.until(app.caught_up, "all clicks committed")
    time.sleep(2.0)  # they are read back
    ends = app.ends(letters)
    assert sum(ends.values()) > 50
    gone = [TopicPartition(*where, end) for where, end in ends.items()]
    for future in app.admin.delete_records(gone).values():
        future.result()
    team.stop("b")
    left.until(lambda: "alone: " in left.output, "all of it")
    app.publish(CLICKS[500:1000])
    left.until(app.caught_up, "all clicks committed")
    team.stop("a")


@pytest.mark.long
def test_who_joins_needs_no_evidence_that_retention_took(app: App) -> None:
    """All of it is in a sweep that ended while nothing came, and behind it is a marker."""
    team, log = Team(app), app.config.topics.transitions
    team.start("a")
    app.publish(CLICKS[:500])
    alone = team.workers["a"]
    alone.until(app.caught_up, "all clicks committed")
    time.sleep(IDLE_SECONDS + 10.0)
    gone = [TopicPartition(*where, end) for where, end in app.ends(log).items()]
    for future in app.admin.delete_records(gone).values():
        future.result()
    team.start("b")
    team.shared_out("a", "b")
    app.publish(CLICKS[500:1000])
    wait_until(app.caught_up, "all clicks committed")
    team.finish()
    one, other = (contents(team.config(name)) for name in ("a", "b"))
    assert one.graph == other.graph
    assert len(one.graph) > 100
