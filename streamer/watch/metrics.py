"""Every metric of a worker, declared in one place."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from core.quality import CANDIDATES, RANKERS
from core.ranking.experts import EXPERTS
from streamer.decode.events import Reason

if TYPE_CHECKING:
    from streamer.kafka.clients import Partition
    from streamer.watch.health import Health, Lag

STAGES = (
    *("collect", "decode", "rank", "fold", "walk", "learn", "challenger", "place"),
    *("commit", "apply", "checkpoint"),
)
OUTCOMES = ("committed", "aborted")
IGNORED = ("duplicate", "too_long", "held", "forgotten", "unwanted")
TABLES = ("vectors", "graph", "sessions", "admission", "ids")
WAITING = ("moved", "stale")
STORE_KINDS = ("files", "memtables", "cache")
HELD = ("clicks", "items")
CONTEST = ("off", "learning", "better", "promoted", "resting")
CONTENDERS = ("champion", "challenger")

_STALENESS_BUCKETS = (
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
_CLICK_STALENESS_BUCKETS = (*_STALENESS_BUCKETS, 1800.0, 3600.0, 21_600.0, 86_400.0)
_DRIFT_BUCKETS = (
    *(0.001, 0.003, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0),
)
_COMMIT_BUCKETS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


# When a counter began is a series more for each, which no rule or dashboard of ours asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


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
        buckets = np.searchsorted(self._bounds, array)
        # Replaced, never changed in place: a scrape sees all of an observation's buckets or none.
        self._counts = self._counts + np.bincount(buckets, minlength=len(self._bounds))
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

        def histogram(name: str, help_text: str, buckets: Sequence[float]) -> BatchHistogram:
            return BatchHistogram(f"walkstream_{name}", help_text, buckets, registry)

        self.info = gauge(
            "info", "Always 1; its labels say what runs here.", "worker", "space", "version"
        )

        # What comes in.
        self.events_total = counter(
            "events_total", "Clicks learned from, in committed rounds; dead letters are not in it."
        )
        self.ignored_clicks_total = counter(
            "ignored_clicks_total",
            "Clicks that were left out and are no dead letters: sent twice, in a session past "
            "`session.max_events`, held back by `[admission]`, of a user to forget, or of a type "
            "that weighs 0.",
            "reason",
        )
        self.admitted_items_total = counter(
            "admitted_items_total", "Ids that were clicked as often as `[admission]` asks for."
        )
        self.dead_letters_total = counter(
            "dead_letters_total",
            "Records of the clicks topic that could not be used and went to the dead-letter topic.",
            "reason",
        )
        self.dead_letter_ratio = gauge(
            "dead_letter_ratio",
            "Share of dead letters among about the last `dlq.window` records; 0 until enough came.",
        )

        # What of it comes to this worker.
        self.held_partitions = gauge(
            "held_partitions",
            "Partitions of the clicks that this worker holds, and of the items that it owns.",
            "kind",
        )
        self.alone = gauge(
            "alone",
            "1 where this worker holds everything, and learns clicks as they come; 0 beside "
            "others, and until it has all.",
        )

        # Whether the loop keeps up.
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
        self.lag_seconds = gauge(
            "lag_seconds",
            "Seconds that the oldest record of a partition not processed yet has waited; 0 if "
            "there is none.",
            "topic",
            "partition",
        )
        self.newest_click_timestamp_seconds = gauge(
            "newest_click_timestamp_seconds",
            "When the newest click in published vectors was sent, Unix time; from a start until "
            "the first commit with clicks, when the newest click of the model happened; NaN "
            "before the first of all. `time()` minus it grows when producers fall silent.",
        )
        self.newest_click_timestamp_seconds.set(math.nan)
        self.staleness_seconds = histogram(
            "staleness_seconds",
            "Seconds from when a click was sent to when the vectors it changed were committed, but "
            "those that wait (waiting_rows).",
            _STALENESS_BUCKETS,
        )
        self.click_staleness_seconds = histogram(
            "click_staleness_seconds",
            "Seconds from a click's own time to when the vectors it changed were committed. Above "
            "the staleness from sending: producers send late.",
            _CLICK_STALENESS_BUCKETS,
        )

        # What is kept.
        self.items = gauge(
            "items", "Items that the model knows, also those that have no vector yet."
        )
        self.counted_items = gauge(
            "counted_items", "Ids that `[admission]` holds back: counted, and nothing else."
        )
        self.arcs = gauge("arcs", "Arcs of the item graph of this worker; they take most memory.")
        self.sessions = gauge("sessions", "Users whose session is kept.")
        self.table_bytes = gauge("table_bytes", "Bytes of memory of each table.", "table")
        self.store_bytes = gauge(
            "store_bytes",
            "Bytes of RocksDB: files on disk, and memory for memtables and cache.",
            "kind",
        )

        # What goes out.
        self.published_vectors_total = counter(
            "published_vectors_total", "Vectors and tombstones sent to the item-vectors topic."
        )
        self.published_user_vectors_total = counter(
            "published_user_vectors_total",
            "Records of users, tombstones among them, sent to the user-vectors topic.",
        )
        self.row_writes_total = counter(
            "row_writes_total", "Model rows written to the model-state topic."
        )
        self.graph_writes_total = counter(
            "graph_writes_total",
            "Records of graph and sessions that sweeps wrote to the model-state topic.",
        )
        self.evidence_bytes_total = counter(
            "evidence_bytes_total", "Bytes of evidence written to the transitions topic."
        )
        self.waiting = gauge(
            "waiting_rows",
            "Rows that wait for a commit: `moved` enough, or `stale`, to be written once more.",
            "kind",
        )
        self.waiting_drift = gauge(
            "waiting_drift",
            "How far the one moved that waits and moved furthest, in multiples of "
            "publish.min_drift. Above 5 for long: there is no room in the commits.",
        )
        self.cluster_moves_total = counter(
            "cluster_moves_total",
            "Known items that changed cluster. Consumers that cache by cluster notice each.",
        )
        self.bucket_moves_total = counter(
            "bucket_moves_total",
            "LSH buckets that known items changed, one for each table.",
        )
        self.drift = histogram(
            "drift",
            "Cosine distance of a published vector from the one published before it.",
            _DRIFT_BUCKETS,
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

        # Whether it is ready, and good.
        self.restore_progress = gauge(
            "restore_progress",
            "About how much of the start-up restore is done, 0 to 1; 1 while running.",
        )
        self.ready = gauge("ready", "1 while /readyz answers 200, otherwise 0.")
        self.quality_trials_total = counter(
            "quality_trials_total",
            "Transitions from one item to the next that were ranked before they were learned.",
        )
        self.quality_candidates = gauge(
            "quality_candidates",
            "Items among which trials are ranked: "
            f"of more than {CANDIDATES:,} a sample stands for all.",
        )
        self.quality_hits_total = counter(
            "quality_hits_total",
            "Trials whose item was among the first 20 of a ranker: `next`, `hybrid` and `session`, "
            "which is hybrid asked by the whole session, are the model's, `popularity` and "
            "`covisitation` the obvious ones to beat.",
            "ranker",
        )
        self.quality_reciprocal_ranks_total = counter(
            "quality_reciprocal_ranks_total",
            "Sum of 1 / rank over these hits: by trial it is MRR@20.",
            "ranker",
        )
        self.expert_share = gauge(
            "expert_share",
            "How much of the mixture behind `hybrid`, asked by the session, each expert has.",
            "expert",
        )
        self.challenger_trials_total = counter(
            "challenger_trials_total",
            "Trials that were ranked by the challenger too, where one learns beside the model.",
        )
        self.challenger_hits_total = counter(
            "challenger_hits_total",
            "Those of them whose item was among the first 20 by `next`, of the `champion`, which "
            "is the model, and of the `challenger`.",
            "model",
        )
        self.challenger_evidence = gauge(
            "challenger_evidence",
            "Evidence that the challenger finds more; from 1 / `challenger.error` on it is better.",
        )
        self.challenger_state = gauge(
            "challenger_state",
            "1 for what the challenger is: `off`, where there is none; `learning`; `better`; "
            "`promoted`, which is the model now; `resting`, beside other workers.",
            "state",
        )
        self._lagging: set[Partition] = set()
        """Partitions whose lag is shown."""
        ProcessCollector(registry=registry)
        # Series that exist from the start, at 0, make rate() right from the first event on.
        families: tuple[tuple[Counter | Gauge, Sequence[str]], ...] = (
            (self.dead_letters_total, list(Reason)),
            (self.ignored_clicks_total, IGNORED),
            (self.stage_seconds_total, STAGES),
            (self.transactions_total, OUTCOMES),
            (self.table_bytes, TABLES),
            (self.store_bytes, STORE_KINDS),
            (self.quality_hits_total, RANKERS),
            (self.quality_reciprocal_ranks_total, RANKERS),
            (self.expert_share, EXPERTS),
            (self.waiting, WAITING),
            (self.held_partitions, HELD),
            (self.challenger_hits_total, CONTENDERS),
            (self.challenger_state, CONTEST),
        )
        for family, values in families:
            for value in values:
                family.labels(value)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to `stage_seconds_total` of one of STAGES."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds_total.labels(stage).inc(time.perf_counter() - begin)

    def identify(self, worker: str, space: str) -> None:
        """Says in `info` which worker this is and which vector space it writes."""
        try:
            release = version("walkstream")
        except PackageNotFoundError:
            release = "unknown"
        self.info.clear()
        self.info.labels(worker, space, release).set(1)

    def follow(self, health: "Health") -> None:
        """Shows what `health` says, as it is at the time of each scrape."""
        self.ready.set_function(lambda: not health.reasons())
        self.restore_progress.set_function(lambda: health.restored)
        self.dead_letter_ratio.set_function(lambda: health.dead_letters.share)

    def show_shares(self, clicks: int, items: int, alone: bool) -> None:
        """Shows how many partitions this worker has, and whether those are all there are."""
        self.held_partitions.labels("clicks").set(clicks)
        self.held_partitions.labels("items").set(items)
        self.alone.set(alone)

    def show_lags(self, lags: Mapping["Partition", "Lag"]) -> None:
        """Shows the lag of these partitions alone; the seconds grow by themselves until the next.

        One that was given back is the business of who has it now.
        """
        for gone in self._lagging - lags.keys():
            self.lag.remove(*gone)
            self.lag_seconds.remove(*gone)
        self._lagging = set(lags)
        for (topic, partition), lag in lags.items():
            self.lag.labels(topic, partition).set(lag.records)
            self.lag_seconds.labels(topic, partition).set_function(lag.seconds)
