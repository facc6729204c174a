"""The demo: the clicks of an invented shop through a real worker, and what it makes of them.

The worker is `walkstream worker` in a process of its own. What is shown comes from where anybody
would take it: vectors from `item-vectors`, figures from `/metrics`.
"""

import importlib.util
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from streamer.demo.embedded import QUIET, EmbeddedBroker, WorkerProcess
from streamer.demo.shop import Record, Shop
from streamer.demo.view import RANKERS, SAMPLE_SECONDS, History, Near, Newcomer, View, listed
from streamer.files.delivery import Pace
from streamer.kafka import clients
from streamer.settings.sections import TopicSettings
from streamer.wording import wrapped

CLICKS_PER_SECOND = 400.0
FIRST_CLICKS = 400
"""Sent at once, so that all kernels are compiled when the seconds begin to count."""
USERS = 1000
BOTS, MALFORMED, DRIFT = 0.03, 0.01, 0.005
ARRIVAL = 1 / 3
"""When in the run a new product arrives."""
SETTINGS = (
    "session.gap=2s",  # a user of this shop clicks every 0.6 s, and is back 9 s after leaving
    "session.max_events=50",  # a visit here has 8 at most
    "graph.half_life=30s",
    "clusters.count=15",
    "clusters.min_items=150",
)
TOP = 10
SHOWN_PRODUCTS, SHOWN_NEIGHBOURS, SHOWN_NEAREST = 5, 5, 3
TICK_SECONDS = 0.05

Catalogue = dict[str, dict[str, str]]


def run(seconds: float) -> None:
    """Stream clicks for `seconds`, show how the worker learns, and print what it found.

    Raises WalkstreamError, with the end of the worker's log, if the worker fails.
    """
    # As Ctrl-C does, so that the worker never outlives the demo.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="walkstream-demo-"))
    topics = TopicSettings()
    shop = Shop(
        seed=1, users=USERS, drift=DRIFT, bots=BOTS, malformed=MALFORMED,
        held_back=1, arrive_every=FIRST_CLICKS + round(ARRIVAL * seconds * CLICKS_PER_SECOND),
    )  # fmt: skip
    catalogue: Catalogue = {i["item_id"]: i["attributes"] for i in shop.items()}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        broker.create(
            topics.clicks, topics.items, topics.item_vectors,
            topics.model_state, topics.transitions, topics.dead_letters,
        )  # fmt: skip
        worker = stack.enter_context(WorkerProcess(broker.bootstrap, folder, SETTINGS))
        vectors = stack.enter_context(closing(_Vectors(broker.bootstrap, topics.item_vectors)))
        visitors = stack.enter_context(
            closing(_Visitors(broker.bootstrap, topics, shop, catalogue))
        )
        _say(
            f"A shop of {len(catalogue)} products and {USERS:,} users, a broker in this process, "
            f"and one worker; its log is {worker.log}"
        )
        _say("The worker starts; its first run compiles kernels for half a minute or so ...")
        visitors.send_first()
        history = History(worker.wait_until_learning())
        with View(history) as view:
            visitors.open()
            started = time.monotonic()
            elapsed = sampled = 0.0
            while elapsed < seconds:
                newcomer = visitors.send_due(elapsed)
                vectors.read(TICK_SECONDS)
                elapsed = time.monotonic() - started
                if newcomer is not None:
                    newcomer.see(_nearest(vectors, visitors.newcomer_id, catalogue), elapsed)
                last = elapsed >= seconds
                if elapsed - sampled >= SAMPLE_SECONDS or last:
                    sampled = elapsed
                    if (now := worker.figures()) is not None:
                        history.add(elapsed, now)
                    view.show(elapsed, newcomer, last)
        worker.stop()
        vectors.read_to_end()
    _print_findings(vectors, catalogue)
    _print_quality(history)
    if newcomer is not None:
        _print_arrival(newcomer)
    dead, ignored = map(history.by_label, ("dead_letters_total", "ignored_clicks_total"))
    print()
    _say(f"Broken records among the clicks, by the reason in their dead letter: {listed(dead)}")
    _say(f"Clicks of bots, left out: {ignored.get('too_long', 0):,.0f}")
    _print_next_steps(folder / "state", vectors.most_learned()[0])


class _Visitors:
    """Sends the shop's products when created, and then its clicks."""

    def __init__(
        self, bootstrap: str, topics: TopicSettings, shop: Shop, catalogue: Catalogue
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": QUIET,
            }
        )
        self._topics = {"items": topics.items, "clicks": topics.clicks}
        self._records = shop.records(lambda: int(time.time() * 1000))
        self._catalogue = catalogue
        self._newcomer: Newcomer | None = None
        self.newcomer_id = ""
        for record in islice(self._records, shop.opening):
            self._send(record)

    def send_first(self) -> None:
        for record in islice(self._records, FIRST_CLICKS):
            self._send(record)
        self._producer.flush()

    def open(self) -> None:
        """From now on clicks are due."""
        self._pace = Pace(CLICKS_PER_SECOND)

    def send_due(self, elapsed: float) -> Newcomer | None:
        """Send the records whose time has come. Returns the product that arrived, if one has."""
        for record in islice(self._records, self._pace.due()):
            self._send(record)
            if record.topic == "items":
                self.newcomer_id = record.key.decode()
                attributes = self._catalogue[self.newcomer_id]
                self._newcomer = Newcomer(attributes["name"], attributes["category"], elapsed)
            elif self._newcomer and f'"{self.newcomer_id}"'.encode() in (record.value or b""):
                self._newcomer.click(elapsed)
        self._producer.poll(0)
        return self._newcomer

    def _send(self, record: Record) -> None:
        self._producer.produce(self._topics[record.topic], record.value, record.key)

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
                # What the log dropped is not worth waiting for; the end would skip what it has.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "log_level": QUIET,
            }
        )
        self._partitions = [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for partition in clients.partitions(self._consumer, topic)
        ]
        self._consumer.assign(self._partitions)
        self._decode = msgspec.json.Decoder(_Record).decode
        self._of: dict[str, _Record] = {}

    def read(self, timeout: float) -> None:
        for message in map(clients.checked, self._consumer.consume(1000, timeout)):
            item, value = (message.key() or b"").decode(), message.value()
            if value is None:
                self._of.pop(item, None)
            else:
                self._of[item] = self._decode(value)

    def read_to_end(self) -> None:
        ends = [
            self._consumer.get_watermark_offsets(partition)[1] for partition in self._partitions
        ]
        while any(
            max(0, partition.offset) < end
            for partition, end in zip(self._consumer.position(self._partitions), ends, strict=True)
        ):
            self.read(TICK_SECONDS)

    def items(self) -> list[str]:
        return list(self._of)

    def most_learned(self) -> list[str]:
        """Items by how many updates their vectors had, most first."""
        return sorted(self._of, key=lambda item: -self._of[item].updates)

    def near(self, item: str, top: int) -> list[tuple[float, str]]:
        """Cosine and id of the items nearest to one, the nearest first; none without a vector."""
        if item not in self._of:
            return []
        vectors = self._units()
        cosines = vectors @ vectors[self.items().index(item)]
        found = [(float(c), i) for c, i in zip(cosines, self._of, strict=True) if i != item]
        return sorted(found, reverse=True)[:top]

    def nearest(self, top: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Places in `items()` of the nearest `top` other items, and their cosines; (items, top)."""
        vectors = self._units()
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -np.inf)
        order = np.argsort(-cosines, axis=1)[:, :top]
        return order, np.take_along_axis(cosines, order, axis=1)

    def _units(self) -> npt.NDArray[np.float64]:
        vectors = np.array([record.vector for record in self._of.values()])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def close(self) -> None:
        self._consumer.close()


def _nearest(vectors: _Vectors, item: str, catalogue: Catalogue) -> tuple[Near, ...]:
    return tuple(
        (cosine, catalogue[other]["name"], catalogue[other]["category"])
        for cosine, other in vectors.near(item, SHOWN_NEAREST)
    )


def _same_category(vectors: _Vectors, catalogue: Catalogue) -> tuple[float, float]:
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


def _print_findings(vectors: _Vectors, catalogue: Catalogue) -> None:
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
    print()
    _say(
        f"Of the {TOP} nearest of each of {len(items)} products, {share:.1%} are of the same "
        f"category; chance gives {chance:.1%}: {share / chance:.1f} times chance"
    )


def _print_quality(history: History) -> None:
    rates, trials = history.overall()
    if rates:
        print()
        _say(
            f"Of {trials:,.0f} next clicks, each ranked before it was learned, these had it "
            "among their first 20: "
            + ", ".join(f"{name} {rates[ranker]:.0%}" for ranker, name in RANKERS.items())
        )


def _print_arrival(newcomer: Newcomer) -> None:
    vector, home = map(newcomer.since_click, (newcomer.first_vector, newcomer.at_home))
    if vector is None:
        return
    found = f", after {home:.1f} s its nearest were of its category" if home is not None else ""
    print()
    _say(
        f"{newcomer.name} ({newcomer.category}) was new after {newcomer.arrived:.0f} s. "
        f"{vector:.1f} s after its first click it had a vector{found}; in the end they are"
    )
    for cosine, name, category in newcomer.nearest:
        print(f"  {cosine:.2f}  {name} ({category})")


def _say(text: str) -> None:
    print(wrapped(text), flush=True)


def _from_here(path: Path) -> Path:
    """A path to be typed: short where it is below this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_next_steps(state: Path, item: str) -> None:
    # The script of the environment that runs this, which need not be on the PATH.
    command = _from_here(
        Path(shutil.which("walkstream") or Path(sys.executable).with_name("walkstream"))
    )
    kafka_script = _from_here(Path(__file__).resolve().parents[2] / "ops/kafka/run")
    print(
        "\nThe worker has stopped and its state folder is still there. What to try next:\n"
        f"  {command} inspect --state {state}\n"
        f"  {command} query {item} --state {state}"
    )
    if importlib.util.find_spec("plotly"):
        print(f"  {command} plot --state {state} --out map.html")
    print("\nThe same on a real Kafka, each in a terminal of its own:")
    if kafka_script.exists():
        print("  (needs Java 17 and Maven, where there is no Kafka at 127.0.0.1:9092)")
        print(f"  {kafka_script}")
    print(
        f"  {command} topics create\n"
        f"  {command} worker\n"
        f"  {command} publish --synthetic\n"
        "Your own clicks, from files or from Kafka: README.md"
    )
