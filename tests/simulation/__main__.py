"""Simulate several workers: the protocol under faults, or the quality on a log (`ops/simulate`)."""

import argparse
import sys
import time
from pathlib import Path

from streamer.errors import WalkstreamError
from streamer.files.readers import Source
from streamer.settings.load import load
from tests.simulation.quality import capacity, table
from tests.simulation.test_cluster import run
from tests.simulation.worker import Fault

COLUMNS = ["user_id", "item_id", "ts", "event_type"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="so many runs of the protocol")
    parser.add_argument("--seed", type=int, help="one run of the protocol: the one of this seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed, 0")
    parser.add_argument("--events", type=Path, help="a log: user, item, ts, type without a header")
    parser.add_argument("--items", type=Path, help="attributes, as of walkstream evaluate")
    parser.add_argument("--time", default="ms", help="of the log, as of walkstream evaluate")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4, 16], help="with --events: 1 2 4 16"
    )
    parser.add_argument("--commit", type=int, default=2000, help="clicks of a commit, 2000")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --events: a setting"
    )
    parser.add_argument(
        "--outside", type=float, default=6.8, metavar="US",
        help="with --events: microseconds a click of all that no engine does, for the capacity: "
        "collect, decode, commit, apply and other of `walkstream bench round` (6.8)",
    )  # fmt: skip
    parser.add_argument(
        "--speedup", type=float, default=1.7, metavar="RATIO",
        help="with --events: how much faster two threads learn, of `walkstream bench skipgram "
        "--threads 2` (1.7); eight do by Amdahl's law",
    )  # fmt: skip
    given = parser.parse_args()
    if given.seed is None and given.seeds < 1 and given.events is None:
        parser.error("nothing to simulate: give --seeds N, --seed N or --events FILE")
    if given.set and given.events is None:
        parser.error("--set is for --events")
    if given.seed is not None:
        run(given.seed)
        print(f"seed {given.seed}: all holds")
    if given.seeds:
        protocol(given.first, given.seeds)
    if given.events:
        source = Source([given.events], COLUMNS, given.time)
        try:
            terms: dict[int, dict[str, float]] = {}
            config = load(None, given.set, {})
            for line in table(config, source, given.workers, given.commit, terms, given.items):
                print(line, flush=True)
            alone = 2 / given.speedup - 1
            speedups = {1: 1.0, 8: 1 / (alone + (1 - alone) / 8)}
            print(f"\nCapacity, with {speedups[8]:.1f} for the speedup of 8 threads:\n")
            print("\n".join(capacity(terms, given.outside, speedups)))
        except WalkstreamError as error:
            parser.error(str(error))


def protocol(first: int, count: int) -> None:
    begin, failed = time.monotonic(), 0
    for seed in range(first, first + count):
        try:
            run(seed)
        except (Fault, AssertionError, KeyError) as fault:
            failed += 1
            print(f"seed {seed}: {fault}. Again: ops/simulate --seed {seed}", flush=True)
        done = seed - first + 1
        if done % 100 == 0:
            spent = time.monotonic() - begin
            print(f"{done:,} of {count:,} seeds, {failed} failed, {spent:.0f} s", file=sys.stderr)
    print(f"{count:,} seeds from {first} on: {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
