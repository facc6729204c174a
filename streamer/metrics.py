"""Every metric of a worker, declared in one place."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from streamer.events import Reason

STAGES = ("collect", "fold", "walk", "learn", "place", "commit", "apply", "checkpoint")
OUTCOMES = ("committed", "aborted")

_STALENESS_BUCKETS = (
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
_COMMIT_BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class BatchHistogram(Collector):
    """A histogram that takes arrays, as an observation per click would cost too much."""

    def __init__(
        self, name: str, help_text: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._help = name, help_text
        self._bounds = np.array([*buckets, math.inf])
        self._counts = np.zeros(len(self._bounds), np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: ArrayLike) -> None:
        """Counts `values`, any shape; only one thread may call this."""
        array = np.asarray(values, np.float64).ravel()
        places = np.searchsorted(self._bounds, array)
        # Replaced, never changed in place: a scrape sees all of an observation's buckets or none.
        self._counts = self._counts + np.bincount(places, minlength=len(self._bounds))
        self._sum += float(array.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        bounds = [*map(str, self._bounds[:-1].tolist()), "+Inf"]
        cumulative = self._counts.cumsum().tolist()
        buckets = list(zip(bounds, cumulative, strict=True))
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


class Metrics:
    """The metrics in `registry`, as attributes named without the prefix `walkstream_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"walkstream_{name}", help_text, labels, registry=registry)

        def gauge(name: str, help_text: str, *labels: str) -> Gauge:
            return Gauge(f"walkstream_{name}", help_text, labels, registry=registry)

        self.events_total = counter(
            "events_total", "Clicks learned from, in committed rounds; dead letters are not in it."
        )
        self.dead_letters_total = counter(
            "dead_letters_total",
            "Records of the clicks topic that could not be used and went to the dead-letter topic.",
            "reason",
        )
        self.rounds_total = counter("rounds_total", "Rounds of learning that were finished.")
        self.stage_seconds_total = counter(
            "stage_seconds_total",
            "Seconds spent in each stage of the loop; collect is mostly waiting for clicks.",
            "stage",
        )
        self.lag = gauge(
            "lag",
            "Records of a partition not processed yet. Growing: the worker cannot keep up.",
            "topic",
            "partition",
        )
        self.staleness_seconds = BatchHistogram(
            "walkstream_staleness_seconds",
            "Seconds from when a click was sent to when the vectors it changed were committed.",
            _STALENESS_BUCKETS,
            registry,
        )
        self.items = gauge("items", "Items that have a vector now.")
        self.arcs = gauge("arcs", "Arcs of the item graph of this worker; they take most memory.")
        self.published_vectors_total = counter(
            "published_vectors_total", "Vectors and tombstones sent to the item-vectors topic."
        )
        self.row_writes_total = counter(
            "row_writes_total", "Model rows written to the model-state topic."
        )
        self.cluster_moves_total = counter(
            "cluster_moves_total",
            "Known items that changed cluster. Consumers that cache by cluster notice each.",
        )
        self.bucket_moves_total = counter(
            "bucket_moves_total",
            "LSH buckets that known items changed, one for each table.",
        )
        self.transactions_total = counter(
            "transactions_total",
            "Kafka transactions by outcome. Aborted ones are done again; many mean trouble.",
            "outcome",
        )
        self.commit_seconds = Histogram(
            "walkstream_commit_seconds",
            "Seconds that the broker took for one transaction, from begin to commit.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.restore_progress = gauge(
            "restore_progress",
            "Share of the start-up restore that is done, 0 to 1; 1 while running.",
        )
        ProcessCollector(registry=registry)
        # Series that exist from the start, at 0, make rate() right from the first event on.
        for reason in Reason:
            self.dead_letters_total.labels(reason.value)
        for stage in STAGES:
            self.stage_seconds_total.labels(stage)
        for outcome in OUTCOMES:
            self.transactions_total.labels(outcome)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to `stage_seconds_total` of one of STAGES."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds_total.labels(stage).inc(time.perf_counter() - begin)
