import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from core.settings import Duration
from streamer.errors import ConfigError
from streamer.settings.sections import Config, DeadLetterSettings, ReadySettings
from streamer.watch import http
from streamer.watch.health import DeadLetterShare, Health, Lag
from streamer.watch.metrics import Metrics


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ago(seconds: float) -> int:
    """A record timestamp."""
    return int(1000 * (time.time() - seconds))


@pytest.fixture
def health() -> Iterator[Health]:
    out = Health(CollectorRegistry(), Config())
    yield out
    out.stop()


def test_metrics_and_health_are_served() -> None:
    registry = CollectorRegistry()
    Metrics(registry).items.set(12)
    health = Health(registry, Config())
    port = health.start("127.0.0.1", 0)
    try:
        health.state = "restoring"
        health.beat()
        status, body = fetch(port, "/healthz")
        answer = json.loads(body)
        assert (status, answer["status"], answer["state"]) == (200, "ok", "restoring")
        assert 0 <= answer["seconds_since_beat"] < 60
        status, body = fetch(port, "/metrics")
        assert status == 200
        assert "walkstream_items 12.0" in body
        status, body = fetch(port, "/")
        assert status == 404
        assert "/readyz" in body
    finally:
        health.stop()
    with pytest.raises(urllib.error.URLError):
        fetch(port, "/healthz")


def test_a_loop_that_does_not_beat_is_stuck_and_not_ready_until_it_beats() -> None:
    health = Health(CollectorRegistry(), Config(), stuck_after=1.0)
    health.state = "running"
    port = health.start("127.0.0.1", 0)
    try:
        time.sleep(1.1)
        status, body = fetch(port, "/healthz")
        answer = json.loads(body)
        assert (status, answer["status"], answer["state"]) == (503, "stuck", "running")
        status, body = fetch(port, "/readyz")
        assert (status, json.loads(body)["reasons"]) == (503, ["the loop has not moved for 1 s"])
        health.beat()
        assert fetch(port, "/healthz")[0] == 200
        assert fetch(port, "/readyz")[0] == 200
    finally:
        health.stop()


def test_a_stall_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(CollectorRegistry(), Config(), stuck_after=0.05)
    health.state = "running"
    health.beat()
    health.complain()
    assert not caplog.messages
    time.sleep(0.1)
    health.complain()
    health.complain()
    health.beat()
    health.beat()
    health.stop()
    said, over = caplog.messages
    assert said.startswith("the loop has not moved for")
    assert over.startswith("the loop moves again after")


def test_a_step_before_the_loop_may_take_long_but_not_for_ever() -> None:
    health = Health(CollectorRegistry(), Config(), stuck_after=0.01, started_after=2.0)
    port = health.start("127.0.0.1", 0)
    try:
        for state in ("starting", "restoring"):
            health.state = state
            health.beat()
            time.sleep(0.1)
            status, body = fetch(port, "/healthz")
            assert (status, json.loads(body)["state"]) == (200, state)
        time.sleep(2.1)
        assert fetch(port, "/healthz")[0] == 503
        assert any("the loop has not moved for" in reason for reason in health.reasons())
    finally:
        health.stop()


def test_a_thousand_half_sent_requests_starve_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection takes no thread and no turn, and the oldest leave when there are too many."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 60.0)
    registry = CollectorRegistry()
    Metrics(registry)
    health = Health(registry, Config())
    port = health.start("127.0.0.1", 0)
    threads, sockets = threading.active_count(), []
    try:
        for _ in range(1000):
            one = socket.create_connection(("127.0.0.1", port), 10)
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            sockets.append(one)
            if len(sockets) > 900:  # they stay open here, while the server has let go of them
                sockets.pop(0).close()
        assert threading.active_count() == threads
        assert fetch(port, "/healthz")[0] == 200
        assert fetch(port, "/metrics")[0] == 200
        sockets[0].settimeout(10)
        assert sockets[0].recv(1) == b"", "one of the oldest was not closed"
        sockets[-1].sendall(b"\r\n")
        sockets[-1].settimeout(10)
        assert sockets[-1].recv(15) == b"HTTP/1.1 200 OK"
    finally:
        for one in sockets:
            one.close()
        health.stop()


def test_who_asks_badly_or_reads_slowly_is_left_alone(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)
    port = health.start("127.0.0.1", 0)

    def said(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as one:
            one.sendall(request)
            return b"".join(iter(lambda: one.recv(4096), b""))

    assert said(b"GET /healthz HTTP/1.1\r\n") == b""  # never ends: the time-out does
    assert said(b"\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert said(b"POST /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    head = said(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert said(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n") == b""
    assert fetch(port, "/healthz?full=1")[0] == 200


def test_a_taken_port_names_the_setting(health: Health) -> None:
    port = health.start("127.0.0.1", 0)
    with pytest.raises(ConfigError, match=rf"metrics\.port: .*127\.0\.0\.1:{port}"):
        Health(CollectorRegistry(), Config()).start("127.0.0.1", port)


# -- ready ---------------------------------------------------------------------------------------


def test_ready_is_who_runs_and_keeps_up(health: Health) -> None:
    port = health.start("127.0.0.1", 0)
    assert health.reasons() == ["starting"]
    health.state = "restoring"
    health.restored = 0.43
    status, body = fetch(port, "/readyz")
    assert status == 503
    assert json.loads(body) == {"status": "not ready", "reasons": ["restoring 43%"]}
    health.state = "running"
    health.lags = {("clicks", 0): Lag(900, ago(5)), ("clicks", 1): Lag(0, -1)}
    health.dead_letters.add(1000, 50)
    status, body = fetch(port, "/readyz")
    assert status == 200
    assert json.loads(body) == {"status": "ready", "reasons": []}
    health.state = "stopping"
    assert health.reasons() == ["stopping"]


def test_the_partition_that_waits_longest_is_named_with_the_bound(health: Health) -> None:
    health.state = "running"
    health.lags = {
        ("clicks", 2): Lag(5000, ago(70)),
        ("clicks", 3): Lag(1, ago(95.1)),
        ("clicks", 4): Lag(9, ago(-10)),
    }
    assert health.reasons() == ["partition clicks[3] waits for 95 s, bound 60 s"]


def test_a_wait_grows_past_the_bound_while_nothing_is_said_of_it() -> None:
    health = Health(CollectorRegistry(), Config(ready=ReadySettings(max_lag=Duration(1000))))
    health.state = "running"
    health.lags = {("clicks", 0): Lag(1, ago(0))}
    assert health.reasons() == []
    time.sleep(1.1)
    assert health.reasons() == ["partition clicks[0] waits for 1 s, bound 1 s"]


def test_a_record_without_a_time_or_a_record_that_is_processed_does_not_wait() -> None:
    assert Lag(3, -1).seconds() == 0
    assert Lag(0, ago(500)).seconds() == 0
    assert Lag(3, ago(500)).seconds() == pytest.approx(500, abs=60)


def test_many_dead_letters_make_it_not_ready_until_good_records_outweigh_them(
    health: Health,
) -> None:
    health.state = "running"
    for _ in range(20):
        health.dead_letters.add(2000, 620)
    assert health.reasons() == ["31% of the last 10000 records are dead letters"]
    records = 0
    while health.reasons():
        health.dead_letters.add(500, 0)
        records += 500
    assert 10_000 < records < 15_000


def test_all_reasons_are_named_at_once() -> None:
    config = Config(
        dlq=DeadLetterSettings(alarm_ratio=0.5), ready=ReadySettings(max_lag=Duration(10_000))
    )
    health = Health(CollectorRegistry(), config)
    health.lags = {("clicks", 0): Lag(1, ago(20.1))}
    health.dead_letters.add(300, 150)
    assert health.reasons() == [
        "starting",
        "partition clicks[0] waits for 20 s, bound 10 s",
        "50% of the last 300 records are dead letters",
    ]


# -- share of dead letters -----------------------------------------------------------------------


def test_the_share_is_over_about_the_window_however_the_records_come() -> None:
    for batch in (1, 100, 2000):
        share = DeadLetterShare(10_000)
        for _ in range(100_000 // batch):
            share.add(batch, batch)
        assert share.share == pytest.approx(1)
        assert share.records == pytest.approx(10_000, rel=0.01)
        for _ in range(10_000 // batch):
            share.add(batch, 0)
        # A window later e^-1 of the old verdict is left, a little less if batches are large.
        assert 0.3 < share.share < 0.38


def test_a_few_records_are_no_verdict() -> None:
    share = DeadLetterShare(10_000)
    share.add(60, 60)
    assert share.share == 0
    share.add(60, 0)
    assert share.share == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("window", [1, 5, 50, 500])
def test_a_small_window_comes_to_a_verdict_too(window: int) -> None:
    share = DeadLetterShare(window)
    for _ in range(window):
        share.add(1, 1)
    assert share.share == pytest.approx(1)


def test_turns_without_records_change_nothing() -> None:
    share = DeadLetterShare(1000)
    share.add(0, 0)
    assert share.share == 0
    share.add(500, 100)
    share.add(0, 0)
    assert share.share == pytest.approx(0.2)


# -- stacks of a stuck loop ----------------------------------------------------------------------

BLOCKS = """
import ctypes, sys, time
from prometheus_client import CollectorRegistry
from streamer.watch import log
from streamer.watch.health import Health
from streamer.settings.sections import Config, LogSettings

def moves(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        health.beat()
        time.sleep(0.02)

def waits_for_good():
    {block}(60)

log.setup(LogSettings())
health = Health(CollectorRegistry(), Config(), stuck_after=0.5)
health.start("127.0.0.1", 0)
health.state = "running"
moves({seconds})
waits_for_good()
"""


def first_stacks(block: str, seconds: float) -> list[str]:
    """What a process with a stuck loop prints until it has named the function that blocks."""
    program = BLOCKS.format(block=block, seconds=seconds)
    lines = []
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "in waits_for_good" in line:
                break
        process.kill()
    return lines


def test_a_stuck_loop_says_so_and_prints_all_stacks() -> None:
    lines = first_stacks("time.sleep", 0.1)
    assert "the loop has not moved" in lines[0]
    assert lines[1].startswith("Timeout")
    assert "in waits_for_good" in lines[-1]
    assert sum(line.startswith("Thread 0x") for line in lines) == 2


def test_stacks_are_printed_while_one_call_keeps_the_interpreter_to_itself() -> None:
    # Beats for longer than the alarm's time: it must be put off by them.
    lines = first_stacks("ctypes.PyDLL(None).sleep", 3.0)
    assert lines[0].startswith("Timeout")
    assert "in waits_for_good" in lines[-1]
    assert not any("in moves" in line for line in lines)
