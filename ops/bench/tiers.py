"""What rows of fewer dims for rare items save: bytes of rows and vectors, by click and by item.

    .venv/bin/python ops/bench/tiers.py LOG [--columns NAMES] [--time UNIT] [--set KEY=VALUE ...]
        --compare NAME ...

A log goes through an engine for each configuration, which are named as for `walkstream evaluate
--compare`, a commit after each round. Told of the second half is what a click takes in
`model-state`, of model rows alone, and in `item-vectors`, with keys, and as the producer would send
it with lz4, the records of a commit in batches of a million bytes; and of the end what a living
item takes. Hit rates are for `walkstream evaluate`.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow

from core.engine import Engine
from core.ids.vocabulary import encode
from core.learning.tiers import ALL
from core.rounds import Changes, Inputs
from streamer import kernels, vectors
from streamer.evaluate.compare import variants
from streamer.evaluate.rounds import Log
from streamer.files.readers import Source
from streamer.files.replay import ALL as NO_BOUND
from streamer.settings.sections import Config

BATCH = 1_000_000
"""Bytes of a batch at most: `batch.size` of librdkafka."""
TOPICS = ("model-state", "item-vectors, JSON", "item-vectors, MessagePack")


def compressed(records: Iterable[bytes]) -> int:
    """Bytes of these records in batches, each compressed by itself."""
    total, batch, size = 0, list[bytes](), 0
    for record in chain(records, [b""]):
        if batch and (size + len(record) > BATCH or not record):
            total += len(pyarrow.compress(b"".join(batch), codec="lz4", asbytes=True))
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    return total


def leaving(changes: Changes) -> Iterator[tuple[str, list[bytes]]]:
    """The records of a commit by topic, each with its key."""
    rows = zip(changes.keys, changes.values, strict=True)
    yield TOPICS[0], [key + value for key, value in rows]
    for topic, fmt in (TOPICS[1], "json"), (TOPICS[2], "msgpack"):
        told = vectors.records(changes, "space", fmt)  # type: ignore[arg-type]
        yield topic, [key + (value or b"") for key, value in told]


def run(config: Config, source: Source, half: int) -> list[str]:
    """The cells of a line: bytes a click after so many clicks, and an item at the end."""
    engine, clicks = Engine(config.engine_settings), 0
    plain, small, records = Counter[str](), Counter[str](), Counter[str]()
    written: dict[bytes, bytes] = {}
    for taken in Log(config, source):
        if taken is None:
            continue
        inputs = Inputs(taken.clicks, closes_commit=True, room=NO_BOUND, budget=NO_BOUND)
        changes = engine.step(inputs).changes
        clicks += len(taken.clicks)
        if changes is not None:
            written |= zip(changes.keys, changes.values, strict=True)
        if changes is None or clicks <= half:
            continue
        for topic, values in leaving(changes):
            plain[topic] += sum(map(len, values))
            small[topic] += compressed(values)
            records[topic] += len(values)
    cells = [f"{records[TOPICS[0]] / (clicks - half):.2f}"]
    cells += [
        f"{plain[topic] / (clicks - half):,.0f} / {small[topic] / (clicks - half):,.0f}"
        for topic in TOPICS
    ]
    items, dim = engine.items, config.model.dim
    own = engine.model.columns.dims[items]
    dims = np.where(own == ALL, dim, own)
    rows = [written.get(encode(name)) for name in engine.vocabulary.names(items)]
    tables = sum(getattr(engine.model.rows, name).itemsize for name in ("v", "u"))
    tables += sum(getattr(engine.model.columns, name).itemsize for name in ("pub_v", "pub_u"))
    widths = zip(*np.unique(dims, return_counts=True), strict=True)
    at = ", ".join(f"{n:,} of {width}" for width, n in widths)
    cells += [f"{np.mean([len(row) for row in rows if row is not None]):.0f}", at]
    return [*cells, f"{tables * dim}", f"{tables * dims.mean():.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--columns")
    parser.add_argument("--time", default="ms")
    parser.add_argument("--compare", nargs="+", required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    names = asked.columns.split(",") if asked.columns else None
    print(
        f"| | rows a click | {' | '.join(TOPICS)} | a row | items | "
        "vectors in memory | of their dims alone |"
    )
    print("|---" * (7 + len(TOPICS)) + "|")
    for variant in variants(asked.compare, None, asked.overrides):
        config = variant.config
        kernels.prepare(config.engine_settings)
        counted = Log(config, Source([asked.log], names, asked.time))
        total = sum(len(taken.clicks) for taken in counted if taken is not None)
        cells = run(config, Source([asked.log], names, asked.time), total // 2)
        print(f"| `{variant.name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
