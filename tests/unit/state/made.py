"""What the tests of the state folder put into it."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from core.clicks import Clicks
from streamer.demo.shop import Shop
from streamer.settings import load as config

START_MS = 1_700_000_000_000
SMALL = ["model.dim=16", "clusters.count=8", "clusters.min_items=40", "metrics.port=0"]
SETTINGS = config.load(
    None,
    [
        *("model.dim=16", "lsh.tables=3", "clusters.count=8", "clusters.min_items=40"),
        *("session.gap=1m", "graph.half_life=1m", "engine.threads=1"),
    ],
    {},
).engine_settings


def batches(n: int, size: int = 250, rate: float = 2.0) -> Iterator[Clicks]:
    stream = list(islice(Shop(1, products=120).clicks(START_MS, rate=rate), n * size))
    for begin in range(0, len(stream), size):
        part = stream[begin : begin + size]
        yield Clicks(
            [click["user_id"] for click in part],
            [click["item_id"] for click in part],
            np.array([click["ts"] for click in part], np.int64),
            np.ones(len(part), np.float32),
        )
