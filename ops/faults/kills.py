"""Kill -9 of workers at random moments, and of the broker while they commit.

One worker after the other, with four partitions and the default `publish.min_drift`, while clicks
and a catalogue that changes come in. Between kills the broker is killed and started again, another
instance joins for a moment, and a worker stands still past its session. In the end all is counted:
by the topics, by the state folder, and by a worker that took the same log with nobody near it.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from broker import Broker
from chaos import Say
from confluent_kafka import KafkaException, Producer
from late_commits import audit, miscounted

from streamer.demo.shop import Shop
from streamer.settings.sections import Config
from tests.folders import contents
from tests.support import START_MS, App, Process, as_records

SETTINGS: dict[str, object] = {
    "topics.partitions": 4,
    "round.max_seconds": 0.1,
    "commit.seconds": 0.2,
    "checkpoint.seconds": 0.5,
    # No click of this log loses weight, so that counts and arcs are whole numbers.
    "graph.half_life": "36500d",
    # A user's clicks and an item's arcs all count, so that their order does not matter.
    "session.max_events": 1_000_000,
    "graph.max_degree": 512,
    "major.every": "2h",
}
AT_ONCE, EVERY = 50, 0.1
"""Clicks that are sent at a time, and seconds between."""
CLICKS_A_KILL = 2_000
PRODUCTS, RETIRED = 300, 40
SECONDS = 120.0
"""A worker that is no further after so long will never be."""


class Stream:
    """Sends clicks, and changes of the catalogue, to the end of the log or until told to stop."""

    def __init__(
        self, app: App, clicks: list[tuple[bytes, bytes]], chance: random.Random,
        at_once: int = AT_ONCE,
    ) -> None:  # fmt: skip
        self.clicks, self._topics, self._chance = clicks, app.config.topics, chance
        self._at_once = at_once
        self.sent = 0
        self.retired: set[bytes] = set()
        self._stop = threading.Event()
        # An outage of the broker delays records, and loses and doubles none.
        self._producer = Producer(
            {
                "bootstrap.servers": app.servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "log_level": 2,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(60) == 0, "records were not delivered"

    def _run(self) -> None:
        while self.sent < len(self.clicks) and not self._stop.wait(EVERY):
            for key, value in self.clicks[self.sent : self.sent + self._at_once]:
                self._producer.produce(self._topics.clicks, value, key)
            self.sent = min(self.sent + self._at_once, len(self.clicks))
            self._describe()
            self._producer.poll(0)

    def _describe(self) -> None:
        """An item that is clicked gets other attributes; one that is not comes or goes."""
        sold = b"sku-%04d" % self._chance.randint(1, PRODUCTS)
        shelf = b"shelf-%02d" % self._chance.randrange(RETIRED)
        for key in (sold, shelf):
            if key == shelf and self._chance.random() < 0.5:
                self.retired.add(shelf)
                self._producer.produce(self._topics.items, None, shelf)
                continue
            self.retired.discard(key)
            category = f"category {self._chance.randrange(8)}"
            item = {"item_id": key.decode(), "attributes": {"category": category}}
            self._producer.produce(self._topics.items, msgspec.json.encode(item), key)


class Life:
    """Workers, one after the other, and what befalls them."""

    def __init__(self, app: App, broker: Broker, chance: random.Random, say: Say) -> None:
        self.app, self.broker, self.chance, self.say = app, broker, chance, say
        self.done: Counter[str] = Counter()
        self.ended: Counter[int] = Counter()
        """Exit codes of workers that ended by themselves."""
        self.worker = app.worker()

    def go_through(self, kills: int) -> None:
        while self.done["kill"] < kills and not self.broken:
            kinds = ("kill", "broker", "joins", "frozen")
            kind = self.chance.choices(kinds, (12, 3, 2, 1))[0]
            getattr(self, f"_{kind}")()
            self.done[kind] += 1
            if sum(self.done.values()) % 10 == 0:
                self.say(f"{dict(self.done)}; ended by themselves: {dict(self.ended)}")

    @property
    def broken(self) -> bool:
        """A worker refused to go on, or found what it could not read."""
        return bool(self.ended.keys() - {1, 4})

    def _alive(self) -> Process:
        code = self.worker.popen.poll()
        if code is not None:
            self.ended[code] += 1
            self.say(f"exit code {code}: {self.worker.output[-600:]}")
            self.worker = self.app.worker()
        return self.worker

    def _wait(self, low: float, high: float) -> None:
        time.sleep(self.chance.uniform(low, high))

    def _kill(self) -> None:
        """Mostly while it learns, now and then while it restores."""
        worker, begin = self._alive(), time.monotonic()
        if self.chance.random() < 0.8:
            while "running: " not in worker.output and worker.popen.poll() is None:
                assert time.monotonic() < begin + SECONDS, worker.output
                time.sleep(0.01)
        self._wait(0.0, 3.0)
        self._alive().kill()
        self.worker = self.app.worker()

    def _broker(self) -> None:
        self._wait(0.5, 3.0)
        self.broker.kill()
        self._wait(0.0, 2.0)
        self.broker.start()

    def _joins(self) -> None:
        """The group is shared out again, twice."""
        self._alive()
        other = self.app.worker(app__instance="2", state__dir=self.app.folder / "other")
        self._wait(2.0, 5.0)
        other.kill()

    def _frozen(self) -> None:
        worker = self._alive()
        worker.popen.send_signal(19)
        time.sleep(8.0)
        worker.popen.send_signal(18)

    def finish(self) -> None:
        """Until all clicks are committed, and the clean end."""
        begin = time.monotonic()
        while not self.broken:
            worker = self._alive()
            if "running: " in worker.output and _caught_up(self.app):
                worker.stop()
                return
            assert time.monotonic() < begin + SECONDS, worker.output
            time.sleep(0.2)


def _caught_up(app: App) -> bool:
    try:
        return app.caught_up()
    except KafkaException:
        return False


def run(kills: int, seed: int, say: Say) -> tuple[list[str], bool]:
    """So many kills of the worker, and what else happens between."""
    chance = random.Random(seed)
    source = Shop(seed, products=PRODUCTS, users=400).clicks(START_MS, 1.0)
    clicks = as_records(islice(source, kills * CLICKS_A_KILL))
    with (
        tempfile.TemporaryDirectory(prefix="walkstream-kills-") as folder,
        Broker() as broker,
        App(broker.bootstrap, Path(folder), SETTINGS) as app,
    ):
        with Stream(app, clicks, random.Random(seed)) as stream:
            life = Life(app, broker, chance, say)
            life.go_through(kills)
        life.finish()
        wrong = [] if not life.broken else ["a worker refused to go on"]
        if not wrong:
            sent = clicks[: stream.sent]
            wrong = [
                *audit(app),
                *miscounted(app, sent),
                *came_back(app, stream.retired, app.config),
            ]
            wrong += differ(app, Path(folder), app.config)
    lines = [
        f"- {stream.sent:,} clicks; {life.done['kill']} times kill -9 of the worker",
        *(f"- {_KINDS[kind]}: {life.done[kind]}" for kind in _KINDS),
        f"- workers that ended by themselves, by exit code: {dict(life.ended) or 'none'}",
        *(f"- **{sentence}**" for sentence in wrong),
    ]
    return lines, not wrong


_KINDS = {
    "broker": "kill -9 of the broker, and a new start",
    "joins": "another instance that joined for 2 to 5 s",
    "frozen": "a worker that stood still for longer than its session",
}


def came_back(app: App, retired: set[bytes], config: Config) -> list[str]:
    """Items that were retired last, and have a vector or a row all the same."""
    topics = app.config.topics
    newest: dict[bytes, Any] = {
        message.key() or b"": message.value() for message in app.read(topics.item_vectors)
    }
    rows = contents(config).rows
    back = [key for key in retired if newest.get(key) is not None or key in rows]
    return [f"{len(back)} retired items came back, such as {back[0]!r}"] if back else []


def differ(app: App, folder: Path, config: Config) -> list[str]:
    """What the graph has otherwise than that of a worker that nobody disturbed."""
    topics = app.config.topics
    same = {"topics.clicks": topics.clicks, "topics.items": topics.items}
    with App(app.servers, folder, {**SETTINGS, **same}) as calm:
        calm.run_to_end()
        wanted, got = _arcs(calm.config), _arcs(config)
    differ = [arc for arc in wanted.keys() | got.keys() if wanted[arc] != got[arc]]
    if not differ:
        return []
    first = f"{differ[0]} has weight {got[differ[0]]}, not {wanted[differ[0]]}"
    return [f"{len(differ)} of {len(wanted)} arcs differ, such as {first}"]


def _arcs(config: Config) -> Counter[tuple[str, str]]:
    """The weight of each arc, which is the number of steps that it stands for."""
    arcs = Counter[tuple[str, str]]()
    for item, (_, _, _, neighbours, weights) in contents(config).graph.items():
        for neighbour, weight in zip(neighbours, np.frombuffer(weights, np.float32), strict=True):
            # A step that has aged by the days of this log weighs a little less than 1.
            arcs[item, neighbour] = round(float(weight))
    return arcs
