"""A million items with attributes on a real Kafka: what a bounded commit and a lost folder cost.

    .venv/bin/python ops/bench/million.py [--items 1000000] [--arcs 20000000] > part of scale.md

One worker with defaults and four partitions goes through a first catalogue, a graph of so many
arcs, a kill -9, a major update with a kill -9 in its middle, and the loss of its state folder.
Meanwhile visitors click, 500 a second, but for the filling of the graph, which goes as fast as the
worker can. Prints a table as Markdown. Needs Java 17 and Maven, or KAFKA_BOOTSTRAP_SERVERS, 16 GiB
of memory, and some forty minutes on two cores.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Producer
from worker import Worker, a_kafka, say

SETTINGS = ["topics.partitions=4", "model.attribute_slots=2"]
RATE = 500
VISIT = 5
"""Clicks of a visitor."""
GROUP = 500
"""Items that are clicked together, popular ones more often."""
CATEGORIES, BRANDS = 500, 5000
BULK = 10
"""Clicks of a record, and of a visitor, when the graph is filled."""
AHEAD = 200_000
"""Records that may wait while the graph is filled."""
FILLING = [
    *("walks.per_node=1", "walks.length=2", "walks.replay=0"),
    *("model.session_passes=0", "quality.sample=0"),
]
"""Little is learned meanwhile: what is wanted of it are the arcs."""
CLUSTERS = 65
"""Another number than the default, which makes a major update at a start."""


class Shop:
    """Clicks of visitors, now, on a catalogue of n items."""

    def __init__(self, n: int, worker: Worker, bootstrap: str) -> None:
        self.n, self.names = n, worker.topics
        self.rng, self.visitors = np.random.default_rng(1), 0
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 20,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self.sent = 0

    def catalogue(self) -> None:
        for item in range(self.n):
            value = {
                "item_id": name(item),
                "attributes": {
                    "category": f"category {item // GROUP % CATEGORIES}",
                    "tags": [f"brand {item * 7919 % BRANDS}"],
                },
            }
            self._send(self.names["items"], name(item).encode(), value)
        self.producer.flush()

    def visit(self, clicks: int, is_uniform: bool = False) -> None:
        """One record a visitor of so many clicks, all inside a group."""
        groups = self.n // GROUP
        first = self._zipf(groups) if not is_uniform else int(self.rng.integers(groups))
        inside = (
            self.rng.integers(GROUP, size=clicks)
            if is_uniform
            else [self._zipf(GROUP) for _ in range(clicks)]
        )
        self.visitors += 1
        user, now = f"visitor-{self.visitors}", time.time_ns() // 1_000_000
        lines = [
            {"user_id": user, "item_id": name(first * GROUP + int(item)), "ts": now - clicks + at}
            for at, item in enumerate(inside)
        ]
        self._send(self.names["clicks"], user.encode(), *lines)
        self.sent += clicks

    def _zipf(self, n: int) -> int:
        return min(n, int(np.exp(self.rng.random() * np.log(n + 1)))) - 1

    def _send(self, topic: str, key: bytes, *lines: object) -> None:
        value = b"\n".join(msgspec.json.encode(line) for line in lines)
        while True:
            try:
                self.producer.produce(topic, value, key)
                return
            except BufferError:
                self.producer.poll(0.1)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Visitors come while the block runs."""
        stop = threading.Event()

        def visitors() -> None:
            begin, done = time.monotonic(), 0
            while not stop.wait(0.02):
                while done < (time.monotonic() - begin) * RATE / VISIT:
                    self.visit(VISIT)
                    done += 1
                self.producer.poll(0)

        thread = threading.Thread(target=visitors)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.producer.flush()


def name(item: int) -> str:
    return f"item-{item:07d}"


class Trial:
    """One worker and its table."""

    def __init__(self, n: int, arcs: int, bootstrap: str, folder: Path) -> None:
        self.n, self.arcs = n, arcs
        self.worker = Worker("million", bootstrap, folder, SETTINGS)
        self.shop = Shop(n, self.worker, bootstrap)
        self.rows: list[tuple[str, str]] = []

    def run(self) -> None:
        self.first_catalogue()
        self.fill_graph()
        self.restart()
        self.major_update()
        self.lost_folder()

    def told(self, what: str, figure: str) -> None:
        say(f"{what}: {figure}")
        self.rows.append((what, figure))

    def first_catalogue(self) -> None:
        self.shop.catalogue()
        self.worker.begin()
        begin = time.monotonic()
        with self.shop.open():
            what = f"first catalogue of {self.n:,} items with attributes"
            self.settled(begin, what, self.n, self.n)
        self.worker.kill()

    def settled(self, begin: float, what: str, vectors: int, items: int = 0) -> None:
        """Wait until there are so many items, and so many vectors have left, and nothing waits;
        tell how long clicks waited."""
        before = self.worker.buckets()
        stale = 'walkstream_waiting_rows{kind="stale"}'
        while (
            self.worker.total("items") < items
            or self.worker.total("published_vectors_total") < vectors
            or self.worker.alive_metrics()[stale] > 0
        ):
            time.sleep(0.5)
        self.told(what, f"{time.monotonic() - begin:,.0f} s")
        p50, p99 = (self.worker.staleness(share, before) for share in (0.5, 0.99))
        waited = f"{p50:.2f} / {p99:.2f} s"
        self.told(f"- staleness of {RATE} clicks/s meanwhile, p50 / p99", waited)
        commits = self.worker.total("commit_seconds_count")
        mean = self.worker.total("commit_seconds_sum") / commits
        self.told("- commits, and mean of what the brokers took", f"{commits:,.0f}, {mean:.2f} s")
        self.told("- peak memory", f"{self.worker.peak_mib():,.0f} MiB")

    def fill_graph(self) -> None:
        self.worker.begin(*FILLING)
        begin, sent = time.monotonic(), self.shop.sent
        while self.worker.total("arcs") < self.arcs:
            for _ in range(max(0, int(AHEAD - self.worker.total("lag")))):
                self.shop.visit(BULK, is_uniform=True)
            self.shop.producer.flush()
            time.sleep(0.2)
        self.caught_up()
        seconds = time.monotonic() - begin
        self.told(
            f"filling the graph to {self.worker.total('arcs'):,.0f} arcs",
            f"{(self.shop.sent - sent) / seconds:,.0f} clicks/s for {seconds:,.0f} s",
        )
        self.told("- peak memory while it grew", f"{self.worker.peak_mib():,.0f} MiB")
        held = self.worker.total("table_bytes") / 2**20
        self.told("- arrays at its end, by `walkstream_table_bytes`", f"{held:,.0f} MiB")
        self.worker.kill()

    def caught_up(self) -> None:
        """Until no more waits than visitors send in two seconds."""
        while self.worker.total("lag") > 2 * RATE / VISIT:
            time.sleep(0.2)

    def restart(self) -> None:
        begin = time.monotonic()
        self.worker.begin()
        self.told(
            "restart after kill -9, with the state folder", f"{time.monotonic() - begin:,.0f} s"
        )
        with self.shop.open():
            time.sleep(60)
        self.caught_up()
        self.told("- peak memory", f"{self.worker.peak_mib():,.0f} MiB")
        self.worker.kill()

    def major_update(self) -> None:
        more = [f"clusters.count={CLUSTERS}"]
        begin = time.monotonic()
        with self.shop.open():
            self.worker.begin(*more)
            while (left := self.worker.total("published_vectors_total")) < self.n / 3:
                time.sleep(0.5)
            self.worker.kill()
            self.worker.begin(*more)
            self.caught_up()  # staleness is that of the update, and not that of the kill
            what = "major update, with a kill -9 after a third of it"
            self.settled(begin, what, int(self.n - left) // 2)
        self.caught_up()
        self.worker.kill()

    def lost_folder(self) -> None:
        shutil.rmtree(self.worker.state)
        begin = time.monotonic()
        self.worker.begin(f"clusters.count={CLUSTERS}")
        self.told("folder lost: until running again", f"{time.monotonic() - begin:,.0f} s")
        items, arcs = self.worker.total("items"), self.worker.total("arcs")
        self.told("- items and arcs after it", f"{items:,.0f}, {arcs:,.0f}")
        self.told("- peak memory", f"{self.worker.peak_mib():,.0f} MiB")
        self.worker.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--arcs", type=int, default=20_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap:
        trial = Trial(given.items, given.arcs, bootstrap, Path(folder))
        trial.run()
    print("| | |\n|---|---|", *(f"| {what} | {figure} |" for what, figure in trial.rows), sep="\n")


if __name__ == "__main__":
    main()
