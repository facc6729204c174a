"""Processor time a click of one and of four workers that run side by side, as Markdown.

    .venv/bin/python ops/bench/work.py EVENTS [--workers 1 4] [--rate 2500] [--set KEY=VALUE]

Each app has topics of its own, and gets EVENTS (as `ops/bench/cluster.py` takes them) at the rate.
All of them share the machine in each window, so that ratios hold where its speed comes and goes;
idle time is burnt. What two cores carry is 2,500 clicks a second of five workers. Needs Java 17 and
Maven, or KAFKA_BOOTSTRAP_SERVERS.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import PARTITIONS, cpu, no_idle_time, shares_are_out
from worker import Worker, a_kafka, walkstream

WARM_SECONDS = 15.0
Read = tuple[float, float]
"""Seconds of the processor, and clicks that were taken."""


def read(workers: list[Worker]) -> Read:
    return cpu(workers), sum(worker.taken() for worker in workers)


def microseconds(before: Read, after: Read) -> float:
    """Processor time of each click between the two."""
    (spent, taken), (more, later) = before, after
    if later == taken:
        sys.exit("no click came: EVENTS is too short for so many windows")
    return 1e6 * (more - spent) / (later - taken)


def line(name: str, each: list[float]) -> str:
    ratios = [f"{one / each[0]:.2f}" for one in each[1:]]
    return f"| {' | '.join([name, *(f'{one:.1f}' for one in each), *ratios])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rate", type=int, default=2500)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each window")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--publish", default="--columns user_id,item_id,ts,event_type")
    given = parser.parse_args()
    first, *others = given.workers
    columns = [f"{n} workers, us" for n in given.workers] + [f"{n} to {first}" for n in others]
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap, no_idle_time():
        apps: list[list[Worker]] = []
        for count in given.workers:
            name, settings = (
                f"work-{count}-{int(time.time())}",
                [f"topics.partitions={PARTITIONS}", *given.set],
            )
            app = [Worker(name, bootstrap, Path(folder), settings, str(n)) for n in range(count)]
            for worker in app:
                worker.begin()
            while not shares_are_out(app):
                time.sleep(0.2)
            apps.append(app)
        publish = "publish", str(given.events), "--rate", str(given.rate), *given.publish.split()
        publishers = [
            subprocess.Popen(walkstream(*publish, *app[0].options), stderr=subprocess.DEVNULL)
            for app in apps
        ]
        time.sleep(WARM_SECONDS)
        print(f"| window | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
        began = before = [read(app) for app in apps]
        for number in range(1, given.windows + 1):
            time.sleep(given.seconds)
            after = [read(app) for app in apps]
            print(line(str(number), list(map(microseconds, before, after))), flush=True)
            before = after
        print(line("all", list(map(microseconds, began, before))))
        for publisher in publishers:
            publisher.kill()
        for app in apps:
            for worker in app:
                worker.end()


if __name__ == "__main__":
    main()
