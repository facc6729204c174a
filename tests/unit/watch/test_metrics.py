import math
import time
from contextlib import suppress

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from core.quality import RANKERS
from streamer.decode.events import Reason
from streamer.settings.sections import Config
from streamer.watch.health import Health, Lag
from streamer.watch.metrics import HELD, IGNORED, OUTCOMES, STAGES, STORE_KINDS, TABLES, Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_each_metric_has_the_prefix_and_a_help_text(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    families = [f for f in registry.collect() if not f.name.startswith("process_")]
    assert families
    for family in families:
        assert family.name.startswith("walkstream_")
        assert family.documentation.endswith("."), family.name


def test_two_workers_of_one_process_do_not_share_metrics() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    Metrics(first).events_total.inc(3)
    Metrics(second)
    assert first.get_sample_value("walkstream_events_total") == 3
    assert second.get_sample_value("walkstream_events_total") == 0


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("dead_letters_total", "reason", [reason.value for reason in Reason]),
        ("ignored_clicks_total", "reason", IGNORED),
        ("stage_seconds_total", "stage", STAGES),
        ("transactions_total", "outcome", OUTCOMES),
        ("quality_hits_total", "ranker", RANKERS),
        ("table_bytes", "table", TABLES),
        ("store_bytes", "kind", STORE_KINDS),
        ("held_partitions", "kind", HELD),
    ],
)
def test_a_labelled_series_is_shown_before_its_first_event(
    registry: CollectorRegistry, metrics: Metrics, name: str, label: str, values: list[str]
) -> None:
    shown = [registry.get_sample_value(f"walkstream_{name}", {label: value}) for value in values]
    assert shown == [0] * len(values)


def test_staleness_is_counted_for_every_click(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    staleness = metrics.staleness_seconds
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


def test_days_of_staleness_and_any_drift_have_a_bucket(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.click_staleness_seconds.observe([5.0, 50_000.0])
    metrics.drift.observe([0.012, 2.0])
    for name, bound in (("click_staleness_seconds", "86400.0"), ("drift", "2.0")):
        assert registry.get_sample_value(f"walkstream_{name}_bucket", {"le": bound}) == 2


def test_no_click_yet_is_not_taken_for_a_click_of_1970(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    name = "walkstream_newest_click_timestamp_seconds"
    assert math.isnan(registry.get_sample_value(name) or 0.0)


def test_info_names_worker_space_and_version(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.identify("shop-0", "walkstream-1")
    [family] = [f for f in registry.collect() if f.name == "walkstream_info"]
    [sample] = family.samples
    assert sample.value == 1
    assert sample.labels["worker"] == "shop-0"
    assert sample.labels["space"] == "walkstream-1"
    assert sample.labels["version"]


def test_seconds_of_lag_grow_from_scrape_to_scrape_until_they_are_set_anew(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    def shown(name: str) -> float:
        labels = {"topic": "clicks", "partition": "3"}
        value = registry.get_sample_value(f"walkstream_{name}", labels)
        assert value is not None
        return value

    metrics.show_lags({("clicks", 3): Lag(7, int(1000 * time.time()) - 95_000)})
    before = shown("lag_seconds")
    time.sleep(0.02)
    assert 95 <= before < shown("lag_seconds")
    assert shown("lag") == 7
    metrics.show_lags({("clicks", 3): Lag(0, -1)})
    assert (shown("lag"), shown("lag_seconds")) == (0, 0)


def test_the_lag_of_a_partition_that_was_given_back_is_shown_no_more(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    """It would stand as it was, and its seconds would grow for ever."""
    kept, gone = ("clicks", 3), ("clicks", 4)
    metrics.show_lags({kept: Lag(7, -1), gone: Lag(8, -1)})
    metrics.show_lags({kept: Lag(6, -1)})

    def shown(name: str) -> set[str]:
        families = (f for f in registry.collect() if f.name == f"walkstream_{name}")
        return {sample.labels["partition"] for family in families for sample in family.samples}

    assert shown("lag") == shown("lag_seconds") == {"3"}
    metrics.show_lags({kept: Lag(6, -1), gone: Lag(1, -1)})
    assert shown("lag") == {"3", "4"}


def test_what_this_worker_has_is_nothing_until_it_is_told(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    def shown() -> list[float | None]:
        held = [
            registry.get_sample_value("walkstream_held_partitions", {"kind": kind}) for kind in HELD
        ]
        return [*held, registry.get_sample_value("walkstream_alone")]

    assert shown() == [0, 0, 0]
    metrics.show_shares(2, 4, False)
    assert shown() == [2, 4, 0]
    metrics.show_shares(4, 8, True)
    assert shown() == [4, 8, 1]


def test_readiness_restore_and_dead_letters_are_those_of_the_health_at_each_scrape(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    health = Health(registry, Config())
    metrics.follow(health)

    def shown() -> list[float | None]:
        names = ("ready", "restore_progress", "dead_letter_ratio")
        return [registry.get_sample_value(f"walkstream_{name}") for name in names]

    assert shown() == [0, 0, 0]
    health.state, health.restored = "running", 1.0
    assert shown() == [1, 1, 0]
    health.dead_letters.add(1000, 250)
    assert shown() == [0, 1, 0.25]


def test_time_of_a_stage_is_added_up_even_if_it_fails(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    def spent() -> float:
        return registry.get_sample_value("walkstream_stage_seconds_total", {"stage": "fold"}) or 0.0

    with metrics.timed("fold"):
        time.sleep(0.01)
    once = spent()
    with suppress(ValueError), metrics.timed("fold"):
        time.sleep(0.01)
        raise ValueError
    assert once >= 0.01
    assert spent() >= once + 0.01
