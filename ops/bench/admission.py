"""What random ids cost: single clicks of so many users on so many ids, beside a shop's own.

    .venv/bin/python ops/bench/admission.py [--ids 100000] [--items 10000]

A warm model of the shop takes rounds of 2,000 clicks, one a commit; then the same with as many
clicks on random ids in each round, with admission off, and on. What is more than without them is
told by id: memory, records and bytes of each topic before compression, vectors. Each runs in a
process of its own, without a broker: a commit is encoded record by record, and applied to a state
folder. Prints a table for a result file.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.clicks import Clicks
from streamer.bench.scale import Shop, World

IN_ROUND = 2000
OFF: list[str] = []
VARIANTS = {
    "off": OFF,
    "`min_events = 2`": ["admission.min_events=2"],
    "`min_events = 2`, `min_users = 2`": ["admission.min_events=2", "admission.min_users=2"],
    "`min_events = 3`, `min_users = 2`": ["admission.min_events=3", "admission.min_users=2"],
}


class Spent(NamedTuple):
    """What one run took, from the warm model on."""

    resident: int
    """Bytes of memory of the process."""
    tables: int
    topics: dict[str, int]
    """Bytes of each."""
    vectors: int
    items: int
    seconds: float
    """CPU of the engine."""


class Visited(Shop):
    """A shop that bots come to: every other click is of a new user on an id nobody has."""

    bots = False
    strange = 0

    def clicks(self, k: int) -> Clicks:
        own = super().clicks(k)
        if not self.bots:
            return own
        n = np.arange(self.strange, self.strange + k)
        self.strange += k
        random = Clicks(
            [f"bot-{user:09d}" for user in n.tolist()],
            [f"{id_:016x}" for id_ in self.rng.integers(1 << 62, size=k).tolist()],
            own.times, own.weights, None, own.partitions, own.offsets,
        )  # fmt: skip
        both = Clicks.joined([own, random])
        return both.at(np.argsort(np.tile(np.arange(k), 2), kind="stable"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(ids: int, items: int, bots: bool, changed: list[str]) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        world = World(items, Path(folder) / "state", changed)
        world.shop = shop = Visited(items, np.random.default_rng(1))
        world.fill()
        before, tables = resident(), sum(world.engine.table_bytes().values())
        world.forget()
        shop.bots = bots
        for _ in range(-(-ids // IN_ROUND)):
            world.round(IN_ROUND, closes=True)
        names = world.config.topics
        return Spent(
            resident() - before,
            sum(world.engine.table_bytes().values()) - tables,
            {name: world.bytes[name] for name in
             (names.transitions, names.model_state, names.item_vectors)},
            world.rows[names.item_vectors],
            len(world.engine.items),
            sum(world.spent.values()),
        )  # fmt: skip


def alone(*given: object) -> Spent:
    """In a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, *given).result()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000, help="of the shop")
    given = parser.parse_args()
    run(2 * IN_ROUND, 1000, True, VARIANTS["`min_events = 2`"])  # compiles
    without = alone(given.ids, given.items, False, OFF)
    print(
        "| `[admission]` | memory, resident | of it tables | `transitions` | `model-state` "
        "| `item-vectors` | vectors | ids with a row | CPU, µs |"
    )
    print("|---" * 9 + "|")
    for name, changed in VARIANTS.items():
        spent = alone(given.ids, given.items, True, changed)
        topics = [(spent.topics[t] - without.topics[t]) / given.ids for t in spent.topics]
        cells = [
            f"{(spent.resident - without.resident) / given.ids:,.0f} B",
            f"{(spent.tables - without.tables) / given.ids:,.0f} B",
            *(f"{size:,.0f} B" for size in topics),
            f"{spent.vectors - without.vectors:,}",
            f"{spent.items - without.items:,}",
            f"{1e6 * (spent.seconds - without.seconds) / given.ids:,.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\nBy id, of {given.ids:,} beside a shop of {given.items:,} items.", file=sys.stderr)


if __name__ == "__main__":
    main()
