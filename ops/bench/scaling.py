"""Workers that come and go under load, and one that is killed; prints the figures as Markdown.

    .venv/bin/python ops/bench/scaling.py EVENTS [--rate 2000] [--set KEY=VALUE ...]

One worker, then four, then two, while EVENTS is published at the rate; then kill -9 of one of the
two. Told are how long partitions of the clicks had no holder, how long the lag took to be back at
zero, and when the first vector of an item left that the killed worker had owned. In the end each
click must be evidence once, and versions must rise. Needs Java 17 and Maven, or
KAFKA_BOOTSTRAP_SERVERS.
"""

import argparse
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition
from worker import Worker, a_kafka, say

from core.ids.hashing import hash_keys
from streamer.state import evidence
from streamer.state.commits import mark_of

PARTITIONS = 8
LINE = re.compile(r"shares (took up|gave back) (.*?): \d+ of|stop (stopping): ")
HELD = 'walkstream_held_partitions{kind="clicks"}'
NUMBER = re.compile(r"\[(\d+)\]")


def holds(workers: list[Worker]) -> Iterator[tuple[float, str, int, bool]]:
    """When which instance took a partition up (True) or gave it back, by the clock; who stops gives
    back all."""
    for worker in workers:
        held: set[int] = set()
        for line in worker.told.splitlines():
            at, _, text = line.partition("Z ")
            found = LINE.search(text)
            if found is None:
                continue
            when = datetime.fromisoformat(at.replace(" ", "T") + "+00:00").timestamp()
            taken = found[1] == "took up"
            numbers = set(map(int, NUMBER.findall(found[2] or ""))) or set(held)
            held = held | numbers if taken else held - numbers
            for number in numbers:
                yield when, worker.instance, number, taken


def unheld(workers: list[Worker], begin: float, end: float) -> dict[int, float]:
    """The longest time that each partition had no holder between these moments."""
    out: dict[int, float] = {}
    free: dict[int, float] = {}
    for when, _, number, taken in sorted(holds(workers)):
        if not taken:
            free[number] = when
        elif (since := free.pop(number, None)) is not None and begin <= when <= end:
            out[number] = max(out.get(number, 0.0), when - since)
    return out


def lag(workers: list[Worker]) -> float:
    return sum(worker.total("lag") for worker in workers)


def level(workers: list[Worker]) -> float:
    """Seconds until the lag is a second's clicks or less."""
    begin = time.monotonic()
    calm = 0
    while calm < 3:
        calm = calm + 1 if lag(workers) <= RATE else 0
        time.sleep(0.3)
    return time.monotonic() - begin


RATE = 2000


def read(bootstrap: str, topic: str) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "scaling",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in numbers])
    out: list[Message] = []
    ended: set[int] = set()
    while len(ended) < len(numbers):
        for message in consumer.consume(10_000, 0.5):
            if message.error() is None:
                out.append(message)
            else:
                ended.add(message.partition() or 0)
    consumer.close()
    return out


def wrong(bootstrap: str, topics: dict[str, str]) -> list[str]:
    seen = Counter[tuple[int, int]]()
    for message in read(bootstrap, topics["transitions"]):
        for one in evidence.unpack(message.value() or b"").rounds:
            if one.clicks.partitions is not None and one.clicks.offsets is not None:
                places = one.clicks.partitions.tolist(), one.clicks.offsets.tolist()
                seen.update(zip(*places, strict=True))
    doubled = sum(n > 1 for n in seen.values())
    newest: dict[bytes, int] = {}
    fell = 0
    for message in read(bootstrap, topics["item_vectors"]):
        if (value := message.value()) is not None:
            version = int(msgspec.json.decode(value)["version"])
            fell += version <= newest.get(message.key() or b"", 0)
            newest[message.key() or b""] = version
    return [f"{len(seen):,} clicks are evidence, {doubled} of them twice", f"{fell} versions fell"]


def main() -> None:
    global RATE
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--publish", default="--columns user_id,item_id,ts,event_type")
    given = parser.parse_args()
    RATE = given.rate
    lines = []
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap:
        name, settings = (
            f"scaling-{int(time.time())}",
            [f"topics.partitions={PARTITIONS}", *given.set],
        )
        team = [Worker(name, bootstrap, Path(folder), settings, str(n)) for n in range(4)]
        team[0].begin()
        more = ["--rate", str(RATE), *given.publish.split()]
        source = threading.Thread(target=team[0].publish, args=(given.events, *more), daemon=True)
        source.start()
        level(team[:1])
        time.sleep(20.0)

        def changed(what: str, act: Iterator[None], there: list[Worker]) -> None:
            begin = time.time()
            next(act, None)
            ended = time.time()
            seconds = level(there)
            time.sleep(10.0)
            longest = max(unheld(team, begin, time.time()).values(), default=0.0)
            line = (
                f"| {what} | {ended - begin:.1f} | {longest:.1f} | {seconds:.1f} | "
                f"{sum(worker.total('events_total') for worker in there):,.0f} |"
            )
            say(line)
            lines.append(line)

        def come() -> Iterator[None]:
            for worker in team[1:]:
                worker.begin()
            yield

        def go() -> Iterator[None]:
            for worker in team[2:]:
                worker.end()
            yield

        changed("1 -> 4 workers", come(), team)
        changed("4 -> 2 workers", go(), team[:2])

        killed, heir = team[1], team[0]
        owned = [p for p in range(PARTITIONS) if p in _held(team, killed.instance)]
        begin = time.time()
        killed.kill()
        while heir.alive_metrics().get(HELD) != PARTITIONS:
            time.sleep(0.1)
        took = time.time() - begin
        seconds = level([heir])
        source.join()
        level([heir])
        time.sleep(5.0)
        firsts = [
            (message.timestamp()[1] / 1000, message.key() or b"")
            for message in read(bootstrap, heir.topics["item_vectors"])
            for mark in [mark_of(message)]
            if mark is not None
            and mark.instance == heir.instance
            and message.timestamp()[1] / 1000 > begin
        ]
        keys = [key for _, key in firsts]
        places = hash_keys(keys, PARTITIONS)[0].tolist()
        first = min((at for (at, _), p in zip(firsts, places, strict=True) if p in owned))
        lines.append(
            f"| kill -9 of one of two | - | {took:.1f} | {seconds:.1f} | first vector of an item "
            f"that it owned after {first - begin:.1f} s |"
        )
        heir.end()
        told = wrong(bootstrap, heir.topics)
    print(
        "| | seconds until all ran or ended | longest without a holder, s | lag level again, s | |"
    )
    print("|---|---|---|---|---|")
    print("\n".join(lines))
    print("\n" + "; ".join(told) + ".")
    sys.exit(0)


def _held(workers: list[Worker], instance: str) -> set[int]:
    """The partitions that an instance has, by its log."""
    held: set[int] = set()
    for _, name, number, taken in sorted(holds(workers)):
        if name == instance:
            (held.add if taken else held.discard)(number)
    return held


if __name__ == "__main__":
    main()
