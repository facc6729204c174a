"""Simulate several workers: the protocol under faults, or the quality on a log (`ops/simulate`)."""

import argparse
import sys
import time
from pathlib import Path

from streamer.errors import WalkstreamError
from streamer.files.readers import Source
from streamer.settings.load import load
from tests.simulation.quality import table
from tests.simulation.test_cluster import run
from tests.simulation.worker import Fault

COLUMNS = ["user_id", "item_id", "ts", "event_type"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="so many runs of the protocol")
    parser.add_argument("--seed", type=int, help="one run of the protocol: the one of this seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed, 0")
    parser.add_argument("--events", type=Path, help="a log: user, item, ts, type without a header")
    parser.add_argument("--time", default="ms", help="of the log, as of walkstream evaluate")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4, 16], help="with --events: 1 2 4 16"
    )
    parser.add_argument("--commit", type=int, default=2000, help="clicks of a commit, 2000")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --events: a setting"
    )
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
            for line in table(load(None, given.set, {}), source, given.workers, given.commit):
                print(line, flush=True)
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
