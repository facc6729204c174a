"""First starts while answers about offsets come late.

A worker that begins at the end "until it knows", and seeks when it does, is carried to the end by
an answer that comes after: all clicks in between are skipped, and nothing says so. Each start here
has a log, delays and gaps of its own, and has to count each click once.

The workers run in this process, one after the other: what is tried is the order of answers.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from broker import Broker
from confluent_kafka import Producer
from proxy import FETCH, LIST_OFFSETS, RESPONSE, Proxy

from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from tests import inside
from tests.support import START_MS, App, as_records

MOST_CLICKS = 2_000
SETTINGS: dict[str, object] = {
    "commit.seconds": 0.1,
    "engine.threads": 1,
    "walks.per_node": 1,
    "walks.length": 4,
    # Little is read ahead, so that much is unread when a late answer comes.
    "round.max_events": 50,
    "kafka.queued.min.messages": 100,
}


def run(n: int, seed: int, say: Callable[[str], None]) -> tuple[list[str], bool]:
    """So many starts. Lines of Markdown, and whether each counted every click, or said why not."""
    chance, outcomes = random.Random(seed), Counter[str]()
    clicks = as_records(islice(Shop(seed, products=60, users=40).clicks(START_MS, 0.5), 4000))
    sent = late = 0
    wrong: list[str] = []
    with Proxy() as proxy, Broker(behind=proxy) as broker, tempfile.TemporaryDirectory() as folder:
        for number in range(1, n + 1):
            count = chance.randint(100, MOST_CLICKS)
            own = {
                "topics.partitions": chance.randint(1, 3),
                "kafka.bootstrap.servers": broker.bootstrap,
            }
            with App(broker.direct, Path(folder), SETTINGS | own) as app:
                _fill(app, clicks[:count], chance)
                seconds = partial(chance.uniform, 0, chance.choice((0.05, 0.2, 0.5, 1.5)))
                overtaken = chance.random() < 0.7
                asked = proxy.hold(LIST_OFFSETS, RESPONSE, seconds, overtaken=overtaken)
                fetched = proxy.hold(FETCH, RESPONSE, partial(chance.uniform, 0, 0.02))
                outcome = _start(app, count)
                late += len(asked.caught)
                asked.remove()
                fetched.remove()
                names = [str(v) for k, v in app.settings.items() if k.startswith("topics.")]
                topics = [name for name in names if name.startswith(app.name)]
                for future in app.admin.delete_topics(topics).values():
                    future.result()
            outcomes[outcome.partition(":")[0]] += 1
            sent += count
            if outcome != "whole":
                wrong.append(f"start {number}: {outcome}")
                say(wrong[-1])
            if number % 10 == 0:
                say(f"{number} of {n} starts: {dict(outcomes)}")
    lines = [
        "| first starts | clicks sent | answers held back, up to 1.5 s | counted every click once "
        "| refused to go on | lost or doubled |",
        "|---|---|---|---|---|---|",
        f"| {n} | {sent:,} | {late:,} | {outcomes['whole']} | {outcomes['refused']} "
        f"| {outcomes['wrong']} |",
    ]
    return [*lines, "", *wrong] if wrong else lines, not outcomes["wrong"]


def _fill(app: App, clicks: list[tuple[bytes, bytes]], chance: random.Random) -> None:
    """Send the clicks: as they are, or in transactions with others between them that abort."""
    if chance.random() < 0.5:
        app.publish(clicks)
        return
    topic = app.config.topics.clicks
    producer = Producer(
        {"bootstrap.servers": app.servers, "transactional.id": f"{app.name}-source", "log_level": 2}
    )
    producer.init_transactions(30)
    at = 0
    while at < len(clicks):
        size = chance.choice((1, 5, 100, 500))
        aborts = chance.random() < 0.3
        producer.begin_transaction()
        for key, value in clicks[at : at + size]:
            producer.produce(topic, value, key)
        producer.flush(30)
        if aborts:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            at += size


def _start(app: App, count: int) -> str:
    """`whole`, or what is wrong."""
    ends = app.ends(app.config.topics.clicks)
    try:
        counted = inside.run(app.config, ends)
    except WalkstreamError as error:
        return f"refused: {error}"
    except AssertionError as error:
        return f"wrong: {error}"
    letters = sum(app.ends(app.config.topics.dead_letters).values())
    if counted != count or letters:
        return f"wrong: {counted} of {count} counted, {letters} dead letters"
    return "whole"
