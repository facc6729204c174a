"""What random ids cost: single clicks of so many users on so many ids, beside a shop's own.

    .venv/bin/python ops/bench/admission.py [--ids 100000] [--items 10000] [--only-on]

A warm model takes rounds of 2,000 clicks of a shop and as many on random ids, one a commit, and
then as many rounds of the shop alone, with admission off, and on. Told is what each random id took:
memory, which is what there is more than without them after the same round, the median of the rounds
in which the shop is alone again, and the most of all rounds; and bytes before compression, of
records that are about such ids, or have the table of them, and of evidence. Each runs in a process
of its own, without a broker: a commit is encoded record by record, and applied to a state folder.
Prints a table for a result file.
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
from core.graph.counting import Entries
from core.settings import AdmissionSettings
from streamer import memory
from streamer import vectors as public
from streamer.bench.scale import Shop, World
from streamer.state import packing
from streamer.worker.batch import Batch

IN_ROUND = 2000
OFF: list[str] = []
VARIANTS = {
    "off": OFF,
    "`min_events = 2`": ["admission.min_events=2"],
    "`min_events = 2`, `min_users = 2`": ["admission.min_events=2", "admission.min_users=2"],
}


class Spent(NamedTuple):
    """What one run took, from the warm model on."""

    resident: list[int]
    """By round, bytes of memory of the process."""
    tables: int
    bytes: dict[str, int]
    """Of records, by what they are."""
    vectors: int
    """Of random ids, each time that one is published."""
    items: int


class Watched(World):
    """A worker without a broker, of which is told what leaves of random ids."""

    vectors = 0

    def _apply(self, batch: Batch) -> None:
        super()._apply(batch)
        for key, row in zip(batch.changes.keys, batch.changes.values, strict=True):
            self.bytes["rows"] += is_random(key) * (len(key) + len(row))
        for key, vector in public.records(batch.changes, self.space.name, "json"):
            self.bytes["vectors"] += is_random(key) * (len(key) + len(vector or b""))
            self.vectors += is_random(key)
        for key, node in batch.swept.graph.items():
            self.bytes["graph"] += is_random(key) * (len(key) + len(node))
        for value in batch.swept.sessions.values():
            if value is not None and isinstance(packing.unpack_either(value)[1], Entries):
                self.bytes["table"] += len(value)
        self.bytes["evidence"] += sum(map(len, batch.evidence))


def is_random(key: bytes) -> bool:
    return not key.startswith(b"item-")


class Visited(Shop):
    """A shop that bots come to: every other click is of a new user, or of the visitor before, on an
    id nobody has."""

    bots = in_sessions = False
    strange = 0

    def clicks(self, k: int) -> Clicks:
        own = super().clicks(k)
        if not self.bots:
            return own
        n = np.arange(self.strange, self.strange + k)
        self.strange += k
        bots = [f"bot-{user:09d}" for user in n.tolist()]
        random = Clicks(
            own.users if self.in_sessions else bots,
            [f"{id_:016x}" for id_ in self.rng.integers(1 << 62, size=k).tolist()],
            own.times, own.weights, None, own.partitions, own.offsets,
        )  # fmt: skip
        both = Clicks.joined([own, random])
        return both.at(np.argsort(np.tile(np.arange(k), 2), kind="stable"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(ids: int, items: int, bots: bool, in_sessions: bool, changed: list[str]) -> Spent:
    memory.give_back()  # as a worker does
    with tempfile.TemporaryDirectory() as folder:
        world = Watched(items, Path(folder) / "state", changed)
        world.shop = shop = Visited(items, np.random.default_rng(1))
        shop.in_sessions = in_sessions
        catalogue = world.engine.catalogue
        catalogue.count_by(AdmissionSettings())
        world.fill()
        catalogue.count_by(world.config.engine_settings.admission_ms)  # what is there is admitted
        before, tables, taken = resident(), sum(world.engine.table_bytes().values()), list[int]()
        world.forget()
        world.vectors = 0
        for shop.bots in (bots, False):
            for _ in range(-(-ids // IN_ROUND)):
                world.round(IN_ROUND, closes=True)
                taken.append(resident() - before)
        tables = sum(world.engine.table_bytes().values()) - tables
        names = world.engine.vocabulary.names(world.engine.items)
        random = sum(is_random(name.encode()) for name in names)
        return Spent(taken, tables, dict(world.bytes), world.vectors, random)


def alone(*given: object) -> Spent:
    """In a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, *given).result()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000, help="of the shop")
    parser.add_argument(
        "--in-sessions", action="store_true", help="of the shop's visitors, and not of new users"
    )
    parser.add_argument(
        "--only-on", action="store_true", help="leave out admission off, which takes longest"
    )
    given = parser.parse_args()
    ids, items, within = given.ids, given.items, given.in_sessions
    run(2 * IN_ROUND, 1000, True, within, VARIANTS["`min_events = 2`"])  # compiles
    without = alone(ids, items, False, within, OFF)
    told = ("rows", "vectors", "graph", "table")
    columns = ("`[admission]`", "memory", "at most", "arrays", "evidence", *told, "published")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, changed in VARIANTS.items():
        if given.only_on and changed is OFF:
            continue
        spent = alone(ids, items, True, within, changed)
        more = [a - b for a, b in zip(spent.resident, without.resident, strict=True)]
        cells = [
            float(np.median(more[len(more) // 2 :])) / ids,
            max(more) / ids,
            (spent.tables - without.tables) / ids,
            (spent.bytes["evidence"] - without.bytes["evidence"]) / ids,
            *(spent.bytes.get(what, 0) / ids for what in told),
        ]
        each = " | ".join(f"{cell:,.0f} B" for cell in cells)
        print(f"| {name} | {each} | {spent.vectors:,} vectors of {spent.items:,} ids |", flush=True)
    print(f"\nBy id, of {ids:,} beside a shop of {items:,} items.", file=sys.stderr)


if __name__ == "__main__":
    main()
