"""A real Prometheus beside a worker: every panel and alert has data, and shows what goes wrong."""

import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from broker import free_port

from tests.monitoring import Prometheus, needed, queries
from tests.support import App, Process, as_records, wait_until

RATE = 200
BURST = 200_000
COMPARED = re.compile(r"(==|<=|>=|<|>)(?=\s)")


@dataclass
class Live:
    """A worker that learns from the clicks of the invented shop, and who watches it."""

    app: App
    worker: Process
    prometheus: Prometheus

    def clicks(self) -> Process:
        """A producer of RATE clicks a second until it is killed."""
        return self.app.command("publish", "--synthetic", "--rate", str(RATE))

    def shows(self, done: Callable[[Prometheus], bool], what: str) -> None:
        """Wait until Prometheus shows something."""
        wait_until(lambda: done(self.prometheus), what)

    def firing(self) -> set[str]:
        """Names of the alerts whose expression is true now."""
        alerts = self.prometheus.alerts()
        return {name for name, alert in alerts.items() if alert["state"] != "inactive"}


@pytest.fixture(scope="module")
def live(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    needed("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    # Without a challenger its panels are empty, as they say.
    settings = {"metrics.port": port, "commit.seconds": 0.5, "challenger.set": ["walks.q=0.5"]}
    with (
        App(kafka, folder, settings) as app,
        Prometheus(folder / "prometheus", port) as prometheus,
    ):
        yield Live(app, app.worker().running(), prometheus)


@pytest.fixture
def clicks(live: Live) -> Iterator[Process]:
    """A producer that runs, and whose clicks are on the dashboard."""
    producer = live.clicks()
    live.shows(lambda p: p.value("rate(walkstream_events_total[5s])") > RATE / 2, "clicks learned")
    yield producer
    producer.kill()


def test_no_panel_is_empty_while_clicks_come(live: Live, clicks: Process) -> None:
    def empty() -> list[str]:
        return [
            f"{query.panel}: {query.expr}"
            for query in queries()
            if not any(not math.isnan(value) for _, value in live.prometheus.query(query.expr))
        ]

    deadline = time.monotonic() + 30
    while missing := empty():
        assert time.monotonic() < deadline, "\n".join(["no data for", *missing])
        time.sleep(1)


def test_every_alert_has_data_and_is_quiet_while_clicks_come(live: Live, clicks: Process) -> None:
    alerts = live.prometheus.alerts()
    assert len(alerts) > 10
    for name, alert in alerts.items():
        # With `bool` a comparison gives 0 or 1 instead of leaving out what it is not true for.
        expr = COMPARED.sub(r"\1 bool", alert["query"])
        values = [value for _, value in live.prometheus.query(expr)]
        assert values, f"{name} sees nothing: {expr}"
        assert alert["health"] == "ok", alert
    assert live.firing() == set()


def test_a_dead_producer_shows(live: Live, clicks: Process) -> None:
    silence = "time() - walkstream_newest_click_timestamp_seconds"
    assert live.prometheus.value(silence) < 5
    clicks.kill()
    still = " + ".join(
        f"rate(walkstream_{metric}[5s])"
        for metric in ("events_total", "quality_trials_total", "staleness_seconds_count")
    )
    live.shows(lambda p: p.value(still) == 0, "clicks, trials and staleness stand still")
    live.shows(lambda p: p.value("sum(walkstream_lag)") == 0, "nothing waits")
    staleness = next(q.expr for q in queries() if q.panel == "Staleness, sent to published")
    live.shows(lambda p: math.isnan(p.value(staleness)), "a gap in staleness")
    seen = live.prometheus.value(silence)
    live.shows(lambda p: p.value(silence) >= max(5, seen + 2), "the newest click gets older")


def test_a_worker_that_hangs_shows(live: Live, clicks: Process) -> None:
    live.worker.popen.send_signal(signal.SIGSTOP)
    try:
        live.shows(lambda p: p.value("up") == 0, "the worker does not answer")
        live.shows(lambda _: "WalkstreamDown" in live.firing(), "the alert")
    finally:
        live.worker.popen.send_signal(signal.SIGCONT)
    live.shows(lambda p: p.value("up") == 1, "it answers again")


def test_lag_shows_while_a_burst_is_worked_off(live: Live, clicks: Process) -> None:
    now = int(time.time() * 1000)
    live.app.publish(
        as_records(
            {"user_id": f"user-{i % 997}", "item_id": f"sku-{i * i % 211}", "ts": now}
            for i in range(BURST)
        )
    )
    live.shows(lambda p: p.value("sum(walkstream_lag)") > BURST / 10, "records wait")
    live.shows(lambda p: p.value("max(max_over_time(walkstream_lag_seconds[10s]))") > 0, "seconds")
    live.shows(lambda p: p.value("sum(walkstream_lag)") < BURST / 10, "worked off")
