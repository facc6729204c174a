"""Several workers of one app, that come, go, are killed and stand still, on a real Kafka.

Clicks and a catalogue that changes come in meanwhile. In the end the topics and the folders of all
are compared: each click is evidence once, and counted once by everybody; commits are whole; rows
and vectors in every folder are the newest of the topics; all graphs are one.
"""

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from broker import Broker
from chaos import Say
from confluent_kafka import KafkaException
from kills import SETTINGS as ONE
from kills import Stream, came_back, differ
from late_commits import audit, miscounted

from streamer.demo.shop import Shop
from streamer.settings.sections import Config
from streamer.state import evidence, records
from tests.folders import contents
from tests.support import START_MS, App, Process, as_records

SETTINGS: dict[str, object] = {**ONE, "publish.min_drift": 0.01}
CLICKS_A_KILL = 4_000
"""More than are sent in the time that one takes, so that clicks come until the last."""
AT_ONCE = 10
"""Clicks that are sent each tenth of a second."""
SECONDS = 120.0
"""What is not done after so long will never be."""
FROZEN_SECONDS = 9.0
"""Longer than a session."""


CLIENTS = "rdkafka_queue.h"
"""Where the Kafka client aborts the process, now and then when a broker is away: it counts what it
has asked once too often. A worker takes that as any other crash."""


class Team:
    """Workers of one app by their names, each with a folder of its own."""

    def __init__(self, app: App, say: Say = print) -> None:
        self.app, self.say = app, say
        self.workers: dict[str, Process] = {}
        self.outputs: dict[str, list[Process]] = {}
        """All processes that a name had."""
        self.ended: Counter[int] = Counter()
        """Exit codes of workers that ended by themselves."""

    def folder(self, name: str) -> Path:
        return self.app.folder / f"state-{name}"

    def config(self, name: str) -> Config:
        config = self.app.config
        return replace(config, state=replace(config.state, dir=str(self.folder(name))))

    def start(self, name: str, **changed: object) -> Process:
        worker = self.app.worker(app__instance=name, state__dir=self.folder(name), **changed)
        self.workers[name] = worker
        self.outputs.setdefault(name, []).append(worker)
        return worker

    def alive(self, name: str) -> Process:
        """The worker of this name, started again if it ended by itself."""
        worker = self.workers[name]
        code = worker.popen.poll()
        if code is None:
            return worker
        self.ended[code] += 1
        self.say(f"{name} ended with {code}: {worker.output.splitlines()[-1]}")
        if code not in (1, 4) and not (code == -signal.SIGABRT and CLIENTS in worker.output):
            raise AssertionError(f"{name} ended with {code}:\n{worker.output}")
        return self.start(name)

    def running(self, *names: str) -> None:
        """Wait until these run."""
        begin = time.monotonic()
        while not all("running: " in self.alive(name).output for name in names):
            assert time.monotonic() < begin + SECONDS, self.told()
            time.sleep(0.1)

    def begin(self) -> None:
        """Start a, and b beside it, which takes its half."""
        self.start("a")
        self.running("a")
        self.start("b")
        self.shared_out("a", "b")

    def shared_out(self, *names: str) -> None:
        """Wait until each of these two has said that it took up its half."""
        for name in names:
            worker = self.workers[name]
            worker.until(lambda worker=worker: self._has_half(worker), f"the half of {name}")  # type: ignore[misc]

    def _has_half(self, worker: Process) -> bool:
        """Whether the worker's last word on it is that half of the partitions are its own."""
        all_of_them = self.app.config.topics.partitions
        of = f" of {all_of_them} partitions"
        lines = [line for line in worker.output.splitlines() if of in line]
        return bool(lines) and f" {all_of_them // 2}{of}" in lines[-1]

    def kill(self, name: str) -> None:
        self.workers.pop(name).kill()

    def stop(self, *names: str) -> None:
        """SIGTERM to all of them, and their clean ends."""
        there = [self.workers.pop(name) for name in names or tuple(self.workers)]
        for worker in there:
            worker.popen.send_signal(signal.SIGTERM)
        for worker in there:
            assert worker.wait(40) == 0, worker.output

    def finish(self) -> None:
        """All clicks are in commits, everybody has folded them, and all end well."""
        begin = time.monotonic()
        while not (self._are_running() and self._caught_up()):
            assert time.monotonic() < begin + SECONDS, self.told()
            time.sleep(0.2)
        ends, still = self._ends(), 0
        while still < 6:  # nobody has anything to say to the others
            time.sleep(0.5)
            assert time.monotonic() < begin + SECONDS, self.told()
            ends, before = self._ends(), ends
            still = still + 1 if ends == before else 0
        self.stop()

    def _ends(self) -> dict[tuple[str, int], int]:
        topics = self.app.config.topics
        return self.app.ends(topics.model_state) | self.app.ends(topics.transitions)

    def _are_running(self) -> bool:
        return all("running: " in self.alive(name).output for name in list(self.workers))

    def _caught_up(self) -> bool:
        try:
            return self.app.caught_up()
        except KafkaException:
            return False

    def told(self) -> str:
        parts = [f"--- {name}\n{worker.output}" for name, worker in self.workers.items()]
        return "\n".join(parts)


def wrong_of(team: Team, names: Iterable[str], clicks: list[tuple[bytes, bytes]]) -> list[str]:
    """What is lost, doubled or differs in topics and folders, once all workers are stopped."""
    app, names = team.app, list(names)
    wrong = twice(app)
    for name in names:
        config = team.config(name)
        told = [*audit(app, config), *miscounted(app, clicks, config), *unlike_topic(app, config)]
        wrong += [f"{name}: {sentence}" for sentence in told]
    graphs = {name: contents(team.config(name)).graph for name in names}
    return wrong + unlike("graph", graphs)


def unlike(what: str, found: Mapping[str, Mapping[Any, object]]) -> list[str]:
    """How what the others have differs from what the first has, as sentences."""
    (first, wanted), *others = found.items()
    wrong = []
    for name, got in others:
        rows = [key for key in wanted.keys() | got.keys() if got.get(key) != wanted.get(key)]
        if rows:
            pair = f"{got.get(rows[0])}, not {wanted.get(rows[0])}"
            wrong.append(
                f"{len(rows)} of {len(got)} rows of the {what} of {name} are not those of "
                f"{first}, such as {rows[0]}: {pair}"
            )
    return wrong


def twice(app: App, forgotten: Collection[bytes] = ()) -> list[str]:
    """Clicks that are not evidence, or a dead letter, once, of records that are one click each.
    Those of these users may be neither."""
    seen = Counter[tuple[int, int]]()
    for message in app.read(app.config.topics.transitions):
        for one in evidence.unpack(message.value() or b"").rounds:
            if one.clicks.partitions is not None and one.clicks.offsets is not None:
                seen.update(
                    zip(one.clicks.partitions.tolist(), one.clicks.offsets.tolist(), strict=True)
                )
    for message in app.read(app.config.topics.dead_letters):
        headers = dict(message.headers() or [])
        if (headers.get("source.topic") or b"") == app.config.topics.clicks.encode():
            seen.update(
                [(int(headers["source.partition"] or 0), int(headers["source.offset"] or 0))]
            )
    wanted = {
        (m.partition() or 0, m.offset() or 0)
        for m in app.read(app.config.topics.clicks)
        if m.key() not in forgotten
    }
    wrong = []
    if doubled := [where for where, n in seen.items() if n > 1]:
        wrong.append(f"{len(doubled)} clicks left more than once, such as {doubled[0]}")
    if lost := wanted - seen.keys():
        wrong.append(
            f"{len(lost)} clicks left neither as evidence nor as dead letters, such as {min(lost)}"
        )
    return wrong


def unlike_topic(app: App, config: Config) -> list[str]:
    """Rows of a folder that are not the newest of `model-state`."""
    newest = {
        m.key() or b"": m.value()
        for m in app.read(config.topics.model_state)
        if records.is_row(m.key() or b"")
    }
    wanted = {key: value for key, value in newest.items() if value is not None}
    got = contents(config).rows
    unlike = [key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key)]
    return (
        [f"{len(unlike)} rows are not those of the topic, such as {unlike[0]!r}"] if unlike else []
    )


class Fates:
    """What befalls a team while clicks come, as chance decides."""

    def __init__(
        self, team: Team, broker: Broker, names: Sequence[str], chance: random.Random
    ) -> None:
        self.team, self.broker, self.names, self.chance = team, broker, names, chance
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, tuple[int, Callable[[str], None]]] = {
            "kill": (12, self._kill),
            "broker": (3, self._broker),
            "third": (2, self._third),
            "stop": (2, self._stop),
            "frozen": (1, self._frozen),
        }
        """How likely each is, and what it does, to the worker of a name."""

    def go_through(self, kills: int) -> None:
        """Start all, and go on until so many were killed."""
        for name in self.names:
            self.team.start(name)
        self.team.running(*self.names)
        weights = [weight for weight, _ in self.kinds.values()]
        while self.done["kill"] < kills:
            kind = self.chance.choices([*self.kinds], weights)[0]
            name = self.chance.choice(self.names)
            time.sleep(self.chance.uniform(0.0, 4.0))
            self.team.alive(name)
            self.kinds[kind][1](name)
            self.done[kind] += 1
            if sum(self.done.values()) % 10 == 0:
                self.team.say(f"{dict(self.done)}; ended by themselves: {dict(self.team.ended)}")

    def _kill(self, name: str) -> None:
        self.team.kill(name)
        if self.chance.random() < 0.3:
            # It may have been killed before it made one.
            shutil.rmtree(self.team.folder(name), ignore_errors=True)
            self.done["lost"] += 1
        time.sleep(self.chance.uniform(0.0, 8.0))
        self.team.start(name)

    def _broker(self, _: str) -> None:
        self.broker.kill()
        time.sleep(self.chance.uniform(0.0, 2.0))
        self.broker.start()

    def _third(self, _: str) -> None:
        self.team.start("c")
        time.sleep(self.chance.uniform(4.0, 8.0))
        self.team.kill("c")

    def _stop(self, name: str) -> None:
        worker = self.team.workers[name]
        if "running: " in worker.output:
            worker.popen.send_signal(signal.SIGTERM)
            self.team.workers.pop(name).wait(40)
            self.team.start(name)

    def _frozen(self, name: str) -> None:
        worker = self.team.workers[name]
        worker.popen.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        worker.popen.send_signal(signal.SIGCONT)

    @property
    def told(self) -> list[str]:
        """All that happened, as lines of Markdown."""
        done = self.done
        return [
            f"- the state folder of the killed one was deleted as well: {done['lost']}",
            f"- kill -9 of the broker, and a new start: {done['broker']}",
            f"- a third worker that came for 4 to 8 s, and was killed: {done['third']}",
            f"- a worker that was stopped and started again: {done['stop']}",
            f"- a worker that stood still for longer than its session: {done['frozen']}",
            f"- workers that ended by themselves, by exit code: {dict(self.team.ended) or 'none'}",
        ]


def run(kills: int, seed: int, say: Say) -> tuple[list[str], bool]:
    """Two workers, so many kills of one of them, and what else happens between."""
    source = Shop(seed, products=300, users=400).clicks(START_MS, 1.0)
    clicks = as_records(islice(source, kills * CLICKS_A_KILL))
    with (
        tempfile.TemporaryDirectory(prefix="walkstream-many-") as folder,
        Broker() as broker,
        App(broker.bootstrap, Path(folder), SETTINGS) as app,
    ):
        team, names = Team(app, say), ["a", "b"]
        fates = Fates(team, broker, names, random.Random(seed))
        with Stream(app, clicks, random.Random(seed), AT_ONCE) as stream:
            fates.go_through(kills)
        team.finish()
        sent = clicks[: stream.sent]
        wrong = wrong_of(team, names, sent)
        wrong += came_back(app, stream.retired, team.config("a"))
        wrong += differ(app, Path(folder), team.config("a"))
    lines = [
        f"- {stream.sent:,} clicks, two workers; {fates.done['kill']} times kill -9 of one of them",
        *fates.told,
        *(f"- **{sentence}**" for sentence in wrong),
    ]
    return lines, not wrong
