"""Fixtures that every kind of test may use, and the closing lines that count what ran."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as `main` does, before numpy is imported

import hypothesis
import pytest

from tests.brokers import one_broker
from tests.forks import Commands
from tests.support import App

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("integration", "chaos", "quality")
DAY_MS = 24 * 60 * 60 * 1000
NEWER_GROUPS = {
    "min.session.timeout.ms": "6000",
    "session.timeout.ms": "6000",
    "min.heartbeat.interval.ms": "1000",
    "heartbeat.interval.ms": "1000",
}
"""Sessions of groups whose brokers share out partitions, as short as those of the others here."""


hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    """Interrupts reach what tests start, even if a shell started all of this in the background.

    Examples are the same in every run; `--hypothesis-profile=default` draws others.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    App.commands = Commands()
    if not config.getoption("--hypothesis-profile", None):
        hypothesis.settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder of a test is its marker."""
    for item in items:
        parts = item.path.relative_to(ROOT).parts
        for kind in KINDS:
            if kind in parts:
                item.add_marker(kind)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka: KAFKA_BOOTSTRAP_SERVERS, or one of the session's own, that
    all its processes share."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    # Tests write records of years ago: retention may not look at them for a day.
    looks = ("log.retention.check.interval.ms", "log.initial.task.delay.ms")
    newer = {f"group.consumer.{name}": value for name, value in NEWER_GROUPS.items()}
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with one_broker(folder, dict.fromkeys(looks, str(DAY_MS)) | newer) as servers:
        yield servers


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data")
    return folder


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs beside the repository."""
    folder = ROOT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("no ../shared/cases")
    return folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """Prints how many tests ran, and last of all how many of them met a real Kafka."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    passed, skipped = reporter.stats.get("passed", []), reporter.stats.get("skipped", [])
    failed, errors = reporter.stats.get("failed", []), reporter.stats.get("error", [])
    print(f"{len(passed)} passed, {len(failed + errors)} failed, {len(skipped)} skipped")

    def with_kafka(reports: list[pytest.TestReport]) -> list[pytest.TestReport]:
        # A module that could not be collected has a report without keywords.
        kinds = {"integration", "chaos"}
        return [report for report in reports if kinds & set(getattr(report, "keywords", ()))]

    reasons = Counter(_reason(report) for report in with_kafka(skipped))
    why = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
    print(
        f"walkstream tests with a real Kafka: {len(with_kafka(passed + failed))} ran, "
        f"{reasons.total()} skipped" + (f" ({why})" if why else "")
    )


def _reason(report: pytest.TestReport) -> str:
    # A skipped report carries (path, line, "Skipped: reason").
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
