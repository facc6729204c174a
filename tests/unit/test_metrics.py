import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamer.errors import ConfigError
from streamer.events import Reason
from streamer.health import Health
from streamer.log import setup
from streamer.metrics import Metrics
from streamer.settings import LogSettings


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_each_metric_has_the_prefix_and_a_help_text() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    families = [f for f in registry.collect() if not f.name.startswith("process_")]
    assert len(families) == 15
    for family in families:
        assert family.name.startswith("walkstream_")
        assert family.documentation.endswith(".") or ";" in family.documentation


def test_two_workers_of_one_process_do_not_share_metrics() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    Metrics(first).events_total.inc(3)
    Metrics(second)
    assert first.get_sample_value("walkstream_events_total") == 3
    assert second.get_sample_value("walkstream_events_total") == 0


def test_every_reason_is_shown_before_its_first_dead_letter() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    for reason in Reason:
        labels = {"reason": reason.value}
        assert registry.get_sample_value("walkstream_dead_letters_total", labels) == 0


def test_staleness_is_counted_for_every_click() -> None:
    registry = CollectorRegistry()
    staleness = Metrics(registry).staleness_seconds
    staleness.observe(np.array([0.01, 0.05, 0.06, 700.0]))
    staleness.observe([2.0])
    staleness.observe([])

    def upto(bound: str) -> float | None:
        return registry.get_sample_value("walkstream_staleness_seconds_bucket", {"le": bound})

    assert [upto(b) for b in ("0.05", "0.075", "2.0", "600.0", "+Inf")] == [2, 3, 4, 4, 5]
    assert registry.get_sample_value("walkstream_staleness_seconds_count") == 5
    total = registry.get_sample_value("walkstream_staleness_seconds_sum")
    assert total == pytest.approx(702.12)
    assert b'walkstream_staleness_seconds_bucket{le="+Inf"} 5.0' in generate_latest(registry)


def test_metrics_and_health_are_served() -> None:
    registry = CollectorRegistry()
    Metrics(registry).items.set(12)
    health = Health(registry)
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
        assert fetch(port, "/")[0] == 404
    finally:
        health.stop()
    with pytest.raises(urllib.error.URLError):
        fetch(port, "/healthz")


def test_a_loop_that_does_not_beat_is_stuck_until_it_beats() -> None:
    health = Health(CollectorRegistry(), stuck_after=1.0)
    port = health.start("127.0.0.1", 0)
    try:
        time.sleep(1.1)
        status, body = fetch(port, "/healthz")
        answer = json.loads(body)
        assert (status, answer["status"], answer["state"]) == (503, "stuck", "starting")
        health.beat()
        assert fetch(port, "/healthz")[0] == 200
    finally:
        health.stop()


def test_a_taken_port_names_the_setting() -> None:
    health = Health(CollectorRegistry())
    port = health.start("127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError, match=rf"metrics\.port: .*127\.0\.0\.1:{port}"):
            Health(CollectorRegistry()).start("127.0.0.1", port)
    finally:
        health.stop()


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield lambda: capsys.readouterr().err
    root.handlers = handlers
    root.setLevel(level)


def test_json_log_lines_hold_extra_fields_and_errors(logged: Callable[[], str]) -> None:
    setup(LogSettings(format="json"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("a.b").exception("lost %s", "x", extra={"partition": 3, "why": {1}})
    logging.getLogger("a.b").debug("not shown")
    [line] = logged().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["msg"]) == ("error", "a.b", "lost x")
    assert (entry["partition"], entry["why"]) == (3, [1])
    assert "ValueError: broken" in entry["error"]
    assert entry["ts"].endswith("+00:00")


def test_text_log_lines_end_in_extra_fields(logged: Callable[[], str]) -> None:
    setup(LogSettings(level="debug"))
    logging.getLogger("a.b").debug("committed", extra={"round": 7})
    assert logged().endswith("DEBUG   a.b committed round=7\n")
