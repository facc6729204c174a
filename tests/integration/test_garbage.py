"""What a worker has done with is freed at once: it looks for cycles now and then only."""

import gc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Message

from core.clicks import Clicks
from core.rounds import Changes
from streamer.decode.fields import Invalid
from streamer.demo.shop import Shop
from streamer.worker.batch import Batch
from tests import inside
from tests.support import START_MS, App, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 50.0), 4000))
BAD = (
    b"no json",
    CLICKS[0][1].replace(b'"ts"', b'"when"'),
    CLICKS[0][1].replace(b'"click"', b'"unheard-of"'),
    b"[%s, 7]" % CLICKS[0][1],
)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", ["off", "mean"])
def test_no_commit_outlives_the_next(kafka: str, tmp_path: Path, kind: str) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.1, "user_vectors.kind": kind}
    with App(kafka, tmp_path, settings) as app:
        clicks = app.config.topics.clicks
        ends = dict.fromkeys(app.ends(clicks), 0)
        with inside.started(app.config, lambda worker: inside.has_read(ends)(worker)) as worker:
            for first in range(0, len(CLICKS), 400):
                app.publish([*CLICKS[first : first + 400], *((b"key", value) for value in BAD)])
                ends |= app.ends(clicks)
                worker.loop()
            assert worker.commits > 5
            there = Counter(type(one) for one in gc.get_objects())
            assert there[Batch] <= 2
            assert there[Changes] <= 2
            assert there[Message] < 1000
            assert there[Clicks] < 20
            assert there[Invalid] == 0
