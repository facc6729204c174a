"""What a worker holds while clicks go by: memory that grows with time, and not with the catalogue.

    .venv/bin/python ops/bench/soak.py EVENTS [--rate 2000] [--workers 1] [--set KEY=VALUE]

EVENTS is a table of user, item, time and event type without a header, or what `--publish` says of
it in options of `walkstream publish`. Prints a line of a Markdown table now and then:
the clicks that were taken, the memory of all workers' processes as the system counts it (RSS), and
what of that their tables and RocksDB say they take, in MiB. Needs Java 17 and Maven, or
KAFKA_BOOTSTRAP_SERVERS.
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import psutil
from worker import Worker, a_kafka

PARTITIONS = 8
MIB = 1 << 20
COLUMNS = "clicks", "items", "RSS", "tables", "memtables and cache"


def line(workers: list[Worker]) -> str:
    def mib(metric: str, but: str = "") -> int:
        values = (
            value
            for worker in workers
            for name, value in worker.alive_metrics().items()
            if name.startswith(f"walkstream_{metric}{{") and (not but or but not in name)
        )
        return int(sum(values) / MIB)

    held = sum(psutil.Process(worker.process.pid).memory_info().rss for worker in workers)
    cells = (
        int(sum(worker.taken() for worker in workers)), int(workers[0].total("items")),
        held // MIB, mib("table_bytes"), mib("store_bytes", but='"files"'),
    )  # fmt: skip
    return f"| {' | '.join(f'{cell:,}' for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between lines, 20")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--publish", default="--columns user_id,item_id,ts,event_type")
    given = parser.parse_args()
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap:
        name = f"soak-{int(time.time())}"
        settings = [f"topics.partitions={PARTITIONS}", *given.set]
        workers = [
            Worker(name, bootstrap, Path(folder), settings, str(n)) for n in range(given.workers)
        ]
        more = "--rate", str(given.rate), *given.publish.split()
        with ThreadPoolExecutor(1) as executor, ExitStack() as stack:
            for worker in workers:
                stack.enter_context(worker.running())
            published = executor.submit(workers[0].publish, given.events, *more)
            while not published.done():
                wait([published], given.every)
                print(line(workers))
                sys.stdout.flush()
            published.result()


if __name__ == "__main__":
    main()
