"""A flood of broken records among good ones, through a real Kafka and a real worker."""

import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from broker import free_port

from streamer.decode.events import Decoder, Reason
from streamer.demo.malformed import MALFORMED
from streamer.demo.shop import Shop
from streamer.settings.sections import ClickSettings, EventSettings
from tests.support import START_MS, App, as_records, wait_until

Record = tuple[bytes, bytes | None]

SCALARS: tuple[object, ...] = (
    *(None, True, False, 0, -1, 7, 2**63, -(2**70), 1e308, -0.0, 0.5, 1_700_000_000_000),
    *("", "a", "7", "\x00", "\ud800", "é" * 300, [], {}, [1], {"id": 1}, [[[[]]]]),
)
FIELDS = ("user_id", "item_id", "ts", "event_type", "weight", "event_id", "extra")


def spoilt(rng: Random, click: dict[str, object]) -> bytes | None:
    """Noise, or a good record that is changed, cut, given wrong values, or put in a list."""
    value = json.dumps(click).encode()
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(60))
        case 1:
            spoilt = bytearray(value)
            for _ in range(rng.randrange(1, 4)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            return bytes(spoilt)
        case 2:
            cut = rng.randrange(len(value))
            return value[:cut] + rng.choice([b"", value[cut + 1 :], value[: cut // 2]])
        case 3:
            changed = {name: rng.choice(SCALARS) for name in rng.sample(FIELDS, 2)}
            return json.dumps({**click, **changed}).encode(errors="surrogatepass")
        case 4:
            elements = [click, rng.choice(SCALARS), {"user_id": "u"}]
            return json.dumps(rng.choices(elements, k=rng.randrange(4))).encode()
        case _:
            return rng.choice(list(MALFORMED.values()))(click)


def expected(records: list[Record]) -> tuple[Counter[str], int]:
    """Dead letters by class, and how many clicks there are, by the decoder alone."""
    decoder = Decoder(ClickSettings(), EventSettings())
    now = [int(time.time() * 1000)] * len(records)
    decoded = decoder([k for k, _ in records], [v for _, v in records], now)
    return Counter(bad.reason.value for bad in decoded.bad), len(decoded.clicks)


@pytest.mark.parametrize("count", [30_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_no_input_stops_a_worker_or_spoils_a_vector(kafka: str, tmp_path: Path, count: int) -> None:
    """`count` broken records, and a fifth as many good ones."""
    rng, kept = Random(11), count // 5
    clicks = list(islice(Shop(5, products=200, users=300).clicks(START_MS, 20.0), kept))
    good = as_records(clicks)
    fuzz: list[Record] = [
        (str(n).encode(), spoilt(rng, clicks[rng.randrange(kept)])) for n in range(count)
    ]
    records = [*good, *fuzz]
    rng.shuffle(records)
    classes, learnable = expected(records)
    # These two take records of megabytes, and batches that cannot be fetched.
    elsewhere = {Reason.OVERSIZED, Reason.UNREADABLE}
    assert set(classes) == {reason.value for reason in set(Reason) - elsewhere}
    assert learnable >= kept
    assert sum(classes.values()) > 0.8 * count

    # Every good click counts, also one that was copied into a broken record. A changed digit may
    # date a click far ahead of its neighbours: the decoder alone, by which this counts, takes it.
    settings = {
        "topics.partitions": 4, "session.max_events": 1_000_000, "session.event_ids": 0,
        "clicks.max_ahead": 0,
    }  # fmt: skip
    with App(kafka, tmp_path, settings) as app:
        port = free_port()
        worker = app.worker(metrics__port=port)
        app.publish(records)
        worker.until(app.caught_up, "all records committed")

        def learned() -> float:
            return worker.metric(port, "events_total")

        wait_until(lambda: learned() >= learnable, "every good click in the metrics")
        assert learned() == learnable
        letters = app.read(app.config.topics.dead_letters)
        told = Counter(dict(letter.headers() or [])["error.class"].decode() for letter in letters)  # type: ignore[union-attr]
        assert told == classes
        came = {value for _, value in records}
        whole = [m for m in letters if "source.part" not in dict(m.headers() or [])]
        assert all(letter.value() in came for letter in whole)
        for message in app.read(app.config.topics.item_vectors):
            if (value := message.value()) is not None:
                vector = json.loads(value)
                assert np.isfinite(vector["vector"] + vector["context"]).all()
        app.publish(good[:100])
        worker.until(app.caught_up, "the worker to go on")
        wait_until(lambda: learned() == learnable + 100, "the last clicks in the metrics")
        worker.stop()
