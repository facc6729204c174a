"""The demo: the clicks of an invented shop through a real worker, and what it makes of them.

The worker is `walkstream worker` in a process of its own. What is shown comes from where anybody
would take it: vectors from `item-vectors`, figures from `/metrics`.
"""

import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from rich.console import Console
from rich.live import Live
from rich.table import Table

from streamer import kafka
from streamer.embedded import QUIET, EmbeddedBroker, Figures, WorkerProcess
from streamer.settings import TopicSettings
from streamer.shop import Shop

CLICKS_PER_SECOND = 400.0
FIRST_CLICKS = 400
"""Sent at once, so that all kernels are compiled when the seconds begin to count."""
USERS = 1000
SETTINGS = (
    "session.gap=2s",  # a user of this shop clicks every 0.6 s, and is back 9 s after leaving
    "graph.half_life=30s",
    "clusters.count=15",
    "clusters.min_items=150",
)
TOP = 10
SHOWN_PRODUCTS, SHOWN_NEIGHBOURS = 5, 5
TICK_SECONDS = 0.05
SHOW_SECONDS = 0.5
LINE_SECONDS = 5.0


def run(seconds: float) -> None:
    """Stream clicks for `seconds`, show how the worker learns, and print what it found.

    Raises WalkstreamError, with the end of the worker's log, if the worker fails.
    """
    # As Ctrl-C does, so that the worker never outlives the demo.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="walkstream-demo-"))
    topics, shop = TopicSettings(), Shop(seed=1, users=USERS)
    catalogue: dict[str, dict[str, str]] = {i["item_id"]: i["attributes"] for i in shop.items()}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        broker.create(
            topics.clicks, topics.items, topics.item_vectors,
            topics.model_state, topics.vector_deltas, topics.dead_letters,
        )  # fmt: skip
        worker = stack.enter_context(WorkerProcess(broker.bootstrap, folder, SETTINGS))
        vectors = stack.enter_context(closing(_Vectors(broker.bootstrap, topics.item_vectors)))
        visitors = stack.enter_context(closing(_Visitors(broker.bootstrap, topics, shop)))
        print(
            f"A shop of {len(catalogue)} products and {USERS} users, a broker in this process, and "
            f"one worker; its log is {worker.log}\n"
            "The worker starts. Its first run compiles the kernels, for up to half a minute ...",
            flush=True,
        )
        visitors.send_first()
        begin = worker.wait_until_learning()
        with _Display() as display:
            started = time.monotonic()
            elapsed = 0.0
            while elapsed < seconds:
                visitors.send_due()
                vectors.read(TICK_SECONDS)
                elapsed = time.monotonic() - started
                if display.is_due() or elapsed >= seconds:
                    share, chance = _same_category(vectors, catalogue)
                    shown = _shown(elapsed, visitors.sent, begin, worker.figures() or begin)
                    display.show({**shown, "same category": f"{share:.0%} (chance {chance:.0%})"})
        worker.stop()
        vectors.read_to_end()
    _print_findings(vectors, catalogue)
    state = folder / "state"
    # The script of the environment that runs this, which need not be on the PATH.
    command = shutil.which("walkstream") or Path(sys.executable).with_name("walkstream")
    print(
        "\nThe worker has stopped and its state folder is still there. What to try next:\n"
        f"  {command} inspect --state {state}\n"
        f"  {command} query {vectors.most_learned()[0]} --state {state}\n"
        "  replay or worker, for your own clicks from files or from Kafka: README.md"
    )


class _Visitors:
    """Sends the shop's items when created, and then its clicks."""

    def __init__(self, bootstrap: str, topics: TopicSettings, shop: Shop) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": QUIET,
            }
        )
        self._topic = topics.clicks
        self._clicks = shop.clicks(0, CLICKS_PER_SECOND)
        self.sent = 0
        for item in shop.items():
            self._producer.produce(topics.items, msgspec.json.encode(item), item["item_id"])

    def send_first(self) -> None:
        for click in islice(self._clicks, FIRST_CLICKS):
            self._send(click)
        self._producer.flush()
        self._next = next(self._clicks)
        self._opened = 0.0

    def send_due(self) -> None:
        """Send the clicks whose time has come since the first call."""
        now = time.monotonic()
        self._opened = self._opened or now - self._next["ts"] / 1000
        while self._next["ts"] / 1000 <= now - self._opened:
            self._send(self._next)
            self._next = next(self._clicks)
        self._producer.poll(0)

    def _send(self, click: dict[str, str | int]) -> None:
        value = msgspec.json.encode({**click, "ts": int(time.time() * 1000)})
        self._producer.produce(self._topic, value, str(click["user_id"]))
        self.sent += 1

    def close(self) -> None:
        self._producer.close()


class _Record(msgspec.Struct):
    """The part of a record of `item-vectors` that the demo looks at."""

    vector: list[float]
    updates: int


class _Vectors:
    """The latest vector of every item, from the topic."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "walkstream-demo",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "log_level": QUIET,
            }
        )
        self._places = [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for partition in kafka.partitions(self._consumer, topic)
        ]
        self._consumer.assign(self._places)
        self._decode = msgspec.json.Decoder(_Record).decode
        self._of: dict[str, _Record] = {}

    def read(self, timeout: float) -> None:
        for message in map(kafka.checked, self._consumer.consume(1000, timeout)):
            item, value = (message.key() or b"").decode(), message.value()
            if value is None:
                self._of.pop(item, None)
            else:
                self._of[item] = self._decode(value)

    def read_to_end(self) -> None:
        ends = [self._consumer.get_watermark_offsets(place)[1] for place in self._places]
        while any(
            max(0, place.offset) < end
            for place, end in zip(self._consumer.position(self._places), ends, strict=True)
        ):
            self.read(TICK_SECONDS)

    def items(self) -> list[str]:
        return list(self._of)

    def most_learned(self) -> list[str]:
        """Items by how many updates their vectors had, most first."""
        return sorted(self._of, key=lambda item: -self._of[item].updates)

    def nearest(self, top: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Places in `items()` of the nearest `top` other items, and their cosines; (items, top)."""
        vectors = np.array([record.vector for record in self._of.values()])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -np.inf)
        order = np.argsort(-cosines, axis=1)[:, :top]
        return order, np.take_along_axis(cosines, order, axis=1)

    def close(self) -> None:
        self._consumer.close()


def _same_category(vectors: _Vectors, catalogue: dict[str, dict[str, str]]) -> tuple[float, float]:
    """Share of the nearest TOP of all items that are of their category, and what chance gives."""
    items = vectors.items()
    if len(items) <= TOP:
        return 0.0, 0.0
    category = np.array([catalogue[item]["category"] for item in items])
    same = category[:, None] == category
    order, _ = vectors.nearest(TOP)
    others = same.sum(axis=1) - 1
    return (
        float(np.take_along_axis(same, order, axis=1).mean()),
        float(others.mean() / (len(items) - 1)),
    )


def _median_staleness(begin: Figures, now: Figures) -> str:
    """Interpolated between the bounds of the histogram's buckets."""
    counts = {
        key[1]: count - begin.get(key, 0.0)
        for key, count in now.items()
        if key[0] == "staleness_seconds_bucket"
    }
    total = counts.pop("+Inf")
    bounds = [0.0, *map(float, counts)]
    return f"{np.interp(total / 2, [0.0, *counts.values()], bounds):.2f} s" if total else "-"


def _shown(elapsed: float, sent: int, begin: Figures, now: Figures) -> dict[str, str]:
    learned = now[("events_total",)] - begin[("events_total",)]
    return {
        "seconds": f"{elapsed:.0f}",
        "clicks sent": f"{sent:,}",
        "clicks learned": f"{now[('events_total',)]:,.0f} ({learned / max(elapsed, 1):,.0f}/s)",
        "staleness p50": _median_staleness(begin, now),
        "items": f"{now[('items',)]:,.0f}",
        "arcs": f"{now[('arcs',)]:,.0f}",
        "vectors published": f"{now[('published_vectors_total',)]:,.0f}",
        "commits": f"{now[('transactions_total', 'committed')]:,.0f}",
    }


class _Display:
    """A table that stays in place on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._interval = SHOW_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._next = time.monotonic() + self._interval

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def show(self, figures: dict[str, str]) -> None:
        self._next = time.monotonic() + self._interval
        if not self._console.is_terminal:
            print(", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
            return
        table = Table.grid(padding=(0, 2))
        for name, value in figures.items():
            table.add_row(name, f"[bold]{value}")
        self._live.update(table, refresh=True)


def _print_findings(vectors: _Vectors, catalogue: dict[str, dict[str, str]]) -> None:
    """Neighbours of the most clicked product of some categories, and the share over all."""
    items = vectors.items()
    order, cosines = vectors.nearest(TOP)
    chosen: dict[str, str] = {}
    for item in vectors.most_learned():
        chosen.setdefault(catalogue[item]["category"], item)
    for item in list(chosen.values())[:SHOWN_PRODUCTS]:
        at = items.index(item)
        print(f"\n{catalogue[item]['name']} ({catalogue[item]['category']}) is nearest to")
        for near, cosine in list(zip(order[at], cosines[at], strict=True))[:SHOWN_NEIGHBOURS]:
            other = catalogue[items[near]]
            print(f"  {cosine:.2f}  {other['name']} ({other['category']})")
    share, chance = _same_category(vectors, catalogue)
    print(
        f"\nOf the {TOP} nearest of each of {len(items)} products, {share:.1%} are of the same "
        f"category; chance gives {chance:.1%}: {share / chance:.1f} times chance"
    )
