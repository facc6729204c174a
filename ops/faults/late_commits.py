"""EndTxn that arrives late: an old one may settle a later transaction in the middle.

librdkafka asks again, with the same epoch, when the line breaks before the answer. The proxy keeps
the first question, lets the second one pass, and gives the first one to the broker when the next
transaction is open. And lines break: the producer's at any request of a transaction or its answer,
or all that a worker has.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from broker import Broker
from chaos import Say
from confluent_kafka import KafkaException, Message
from proxy import (
    ADD_OFFSETS_TO_TXN,
    ADD_PARTITIONS_TO_TXN,
    END_TXN,
    PRODUCE,
    REQUEST,
    RESPONSE,
    TXN_OFFSET_COMMIT,
    Proxy,
)

from streamer.demo.shop import Shop
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.commits import Manifest, Mark, Part, mark_of
from streamer.vectors import CENTROIDS
from tests.folders import contents, counts, row_table
from tests.support import START_MS, App, as_records

CLICKS_A_COMMIT = 20
ASKED = (PRODUCE, ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, TXN_OFFSET_COMMIT, END_TXN)
"""What a transaction asks of the brokers."""
MANY = 20
"""A worker that ended by itself so many times will not get to the end of the log."""
SETTINGS: dict[str, object] = {
    "round.max_seconds": 0,
    "round.max_events": CLICKS_A_COMMIT,
    "commit.rounds": 1,
    "topics.partitions": 2,
    # No click of a test loses weight in this time, so that counts are whole numbers.
    "graph.half_life": "36500d",
    "session.gap": "5m",
    # A user's clicks all count, however long the log is.
    "session.max_events": 1_000_000,
    "major.every": 0,
}


@dataclass
class Lateness:
    """What is done to EndTxn while a worker commits, as chance decides."""

    proxy: Proxy
    chance: random.Random
    only: str | None = None
    """One kind of fault for all of them."""
    done: Counter[str] = field(default_factory=Counter)
    """How often each was done."""

    def __enter__(self) -> "Lateness":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for rule in list(self.proxy.rules):
            rule.remove()
        self._thread.join()

    def _run(self) -> None:
        kinds = ("none", "slow", "unheard", "late", "broken", "apart")
        while not self._over.is_set():
            kind = self.only or self.chance.choices(kinds, (2, 1, 2, 5, 4, 1))[0]
            if kind in ("broken", "apart"):
                if not self._break(kind):
                    return
                self.done[kind] += 1
                continue
            side = RESPONSE if kind == "unheard" else REQUEST
            seconds = {"none": 0.0, "slow": self.chance.uniform(0.1, 1.0)}.get(kind)
            rule = self.proxy.hold(END_TXN, side, seconds, times=1)
            if not self._await(lambda rule=rule: len(rule.caught) > 0):
                return
            if kind in ("unheard", "late"):
                begun = self._begun()
                self._over.wait(self.chance.uniform(0.0, 0.1))
                rule.cut()
                if kind == "late":
                    # The question that is asked again passes, and the next transaction begins.
                    self._await(lambda begun=begun: self._begun() > begun)
                    self._over.wait(self.chance.uniform(0.0, 0.05))
            else:
                self._over.wait(seconds)
            self.done[kind] += 1
            if rule in self.proxy.rules:
                rule.remove()

    def _break(self, kind: str) -> bool:
        """Break the line of one request, or all lines when it comes."""
        api, side = self.chance.choice(ASKED), self.chance.choice((REQUEST, RESPONSE))
        if kind == "broken":
            rule = self.proxy.break_lines(api, side, times=1)
        else:
            rule = self.proxy.hold(api, side, seconds=0.0, times=1)
        if not self._await(lambda: len(rule.caught) > 0):
            return False
        if kind == "apart":
            self.proxy.close_lines()
        if rule in self.proxy.rules:
            rule.remove()
        return True

    def _begun(self) -> int:
        """How many requests came that add partitions to a transaction."""
        asked = self.proxy.requests.copy()
        return sum(n for (_, api), n in asked.items() if api == ADD_PARTITIONS_TO_TXN)

    def _await(self, there: Any) -> bool:
        while not there():
            if self._over.wait(0.002):
                return False
        return True


def audit(app: App, config: Config | None = None) -> list[str]:
    """Whatever is torn, lost or doubled in the topics of an app, as sentences; empty if nothing is.

    To be called after the workers have ended, and before anything was compacted. `config` is that
    of the folder to look into.
    """
    topics = app.config.topics
    written = {t: app.read(t) for t in (topics.model_state, topics.item_vectors)}
    written |= {t: app.read(t) for t in (topics.transitions, topics.dead_letters)}
    if app.config.has_users:
        written[topics.user_vectors] = app.read(topics.user_vectors)
    manifests = _manifests(written[topics.model_state])
    wrong, newest, known = [], dict[str, int](), {0, *(one.commit for one in manifests)}
    for one in manifests:
        if one.before not in known or one.commit <= newest.get(one.instance, -1):
            wrong.append(f"commit {one.commit} of {one.instance} came after another than it says")
        newest[one.instance] = one.commit
    found: dict[Mark, dict[tuple[str, int], Part]] = {}
    for topic, messages in written.items():
        for message in messages:
            mark = mark_of(message)
            if mark is not None and not records.is_manifest(message.key() or b""):
                parts = found.setdefault(mark, {})
                part = parts.setdefault((topic, message.partition() or 0), Part(0))
                part.add(message.key(), message.value())
    for manifest in manifests:
        parts = found.pop(manifest.mark, {})
        for topic, told in manifest.topics.items():
            for number, part in enumerate(told.partitions):
                got = parts.get((topic, number), Part(0))
                if msgspec.structs.replace(part, begin=0) != got:
                    wrong.append(f"commit {manifest.commit}: {topic}[{number}]: {got}, not {part}")
    wrong += [f"commit {mark.number} of {mark.instance} has no manifest" for mark in found]
    return wrong + list(_wrong_vectors(config or app.config, written[topics.item_vectors]))


def _manifests(messages: Iterable[Message]) -> list[Manifest]:
    values = [m.value() or b"" for m in messages if records.is_manifest(m.key() or b"")]
    return [msgspec.msgpack.decode(value, type=Manifest) for value in values]


def _wrong_vectors(config: Config, messages: Iterable[Message]) -> Iterable[str]:
    newest: dict[bytes, int] = {}
    for message in messages:
        key, value = message.key() or b"", message.value()
        if key.startswith(CENTROIDS):
            continue
        version = 0 if value is None else int(msgspec.json.decode(value)["version"])
        if 0 < version <= newest.get(key, 0):
            yield f"item-vectors: {key!r} went from version {newest[key]} to {version}"
        newest[key] = version
    keys, rows = row_table(config)
    stored = dict(zip(keys, rows["published"].tolist(), strict=True))
    living = {key: version for key, version in newest.items() if version > 0}
    if living != {key: version for key, version in stored.items() if version > 0}:
        yield "item-vectors: the newest vectors are not those of the state folder"


def miscounted(
    app: App, clicks: Iterable[tuple[bytes, bytes]], config: Config | None = None
) -> list[str]:
    """Whatever the graph of a stopped worker does not count once, as sentences."""
    wanted = Counter(str(msgspec.json.decode(value)["item_id"]) for _, value in clicks)
    got = {item: round(n) for item, n in counts(config or app.config).items()}
    differ = [item for item in wanted.keys() | got.keys() if wanted[item] != got.get(item, 0)]
    wrong = behind(app, config)
    if differ:
        wrong.append(
            f"{len(differ)} items are not counted as often as they were clicked, such as "
            f"{differ[0]}: {got.get(differ[0], 0)} instead of {wanted[differ[0]]}"
        )
    return wrong


def behind(app: App, config: Config | None = None) -> list[str]:
    """Where group and folder of a stopped worker are not at the end of the log, as sentences."""
    ends, wrong = app.ends(app.config.topics.clicks), []
    if app.group_offsets() != ends:
        wrong.append(f"the group is at {app.group_offsets()}, the ends are {ends}")
    if {
        p: progress.offset for p, progress in contents(config or app.config).progress.items()
    } != ends:
        wrong.append("the progress in the folder is not the end of the log")
    return wrong


def log_of(commits: int) -> list[tuple[bytes, bytes]]:
    """Clicks for so many commits, at least."""
    source = Shop(3, products=60, users=40).clicks(START_MS, 50.0)
    return as_records(islice(source, commits * CLICKS_A_COMMIT))


def _caught_up(app: App) -> bool:
    try:
        return app.caught_up()
    except KafkaException:
        return False  # this question may be the one that comes late


def run(commits: int, seed: int, say: Say) -> tuple[list[str], bool]:
    """One worker after the other, as long as they end, until all commits were made."""
    clicks = log_of(commits)
    with (
        tempfile.TemporaryDirectory(prefix="walkstream-chaos-") as folder,
        Proxy() as proxy,
        Broker(behind=proxy) as broker,
        App(broker.bootstrap, Path(folder), SETTINGS) as app,
    ):
        app.publish(clicks)
        ends: Counter[int] = Counter()
        renewed, told = 0, -1
        with Lateness(proxy, random.Random(seed)) as lateness:
            while not ends[3] and sum(ends.values()) < MANY:
                worker = app.worker()
                while worker.popen.poll() is None:
                    if "running: " in worker.output and _caught_up(app):
                        worker.stop()
                    done = sum(lateness.done.values())
                    if done // 50 != told:
                        told = done // 50
                        say(f"{done} commits were tampered with: {dict(lateness.done)}")
                    time.sleep(0.2)
                renewed += worker.output.count("a fresh producer")
                if worker.popen.returncode == 0:
                    break
                code = worker.wait()
                ends[code] += 1
                say(f"exit code {code}: {worker.output[-600:]}")
        made = len(_manifests(app.read(app.config.topics.model_state)))
        wrong = [] if ends[3] else [*audit(app), *miscounted(app, clicks)]
    lines = [
        f"- {made} commits of {CLICKS_A_COMMIT} clicks; {renewed} fresh producers",
        *(f"- {_KINDS[kind]}: {n}" for kind, n in sorted(lateness.done.items())),
        f"- workers that ended by themselves, by exit code: {dict(ends) or 'none'}",
        *(f"- **{sentence}**" for sentence in wrong),
    ]
    return lines, not wrong


_KINDS = {
    "none": "EndTxn left alone",
    "slow": "EndTxn delayed by 0.1 to 1 s",
    "unheard": "EndTxn taken, and the line cut before its answer",
    "late": "EndTxn kept while the line was cut, asked again, and freed into the next transaction",
    "broken": "the producer's line broken at a request of a transaction, or its answer",
    "apart": "all lines broken in the middle of a transaction",
}
