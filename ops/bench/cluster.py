"""A whole log through Kafka and one, two or four workers: quality, work and bytes, as Markdown.

    .venv/bin/python ops/bench/cluster.py EVENTS [--workers 1 2 4] [--rate 3000] [--set KEY=VALUE]

EVENTS is a log as `walkstream publish` takes it (user, item, time, event type). Each run publishes
it at the rate into topics of its own, and ends when all is learned. Work is processor time of the
workers, from the first click on, while idle time is burnt: beside one worker a processor would else
be faster than beside four, as two may be threads of one core. Bytes are those of the loopback
device, of publisher, broker and workers together. Needs Java 17 and Maven, or
KAFKA_BOOTSTRAP_SERVERS.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from worker import Worker, a_kafka, say

PARTITIONS = 8


@contextmanager
def no_idle_time() -> Iterator[None]:
    """Keep every processor busy with what gets only the time that nobody else wants."""
    burners = [
        subprocess.Popen(
            [sys.executable, "-c", "while True: pass"],
            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),
        )
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def cpu(workers: list[Worker]) -> float:
    """Seconds of the processor that they took so far."""
    taken = [psutil.Process(worker.process.pid).cpu_times() for worker in workers]
    return float(sum(times.user + times.system for times in taken))


def wire() -> int:
    """Bytes that went over the loopback device so far."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_recv)


def shares_are_out(workers: list[Worker]) -> bool:
    held = [one.total("held_partitions") for one in workers]
    clicks = [
        one.alive_metrics().get('walkstream_held_partitions{kind="clicks"}', 0.0) for one in workers
    ]
    return sum(clicks) == PARTITIONS and min(held) > 0


def summed(workers: list[Worker], metric: str, ranker: str) -> float:
    name = f'walkstream_{metric}{{ranker="{ranker}"}}'
    return sum(worker.metrics()[name] for worker in workers)


def measure(
    count: int, events: Path, bootstrap: str, folder: Path, given: argparse.Namespace
) -> list[str]:
    name = f"cluster-{count}-{int(time.time())}"
    settings = [f"topics.partitions={PARTITIONS}", *given.set]
    workers = [Worker(name, bootstrap, folder, settings, str(n)) for n in range(count)]
    for worker in workers:
        worker.begin()
    while not shares_are_out(workers):
        time.sleep(0.2)
    spent, sent, began = cpu(workers), wire(), time.perf_counter()
    workers[0].publish(events, "--rate", str(given.rate), *given.publish.split())
    published = time.perf_counter() - began
    while sum(worker.total("lag") for worker in workers):
        time.sleep(0.5)
    time.sleep(3.0)
    total = sum(worker.taken() for worker in workers)
    seconds, spent, sent = time.perf_counter() - began, cpu(workers) - spent, wire() - sent
    trials = sum(worker.total("quality_trials_total") for worker in workers)
    quality = {
        ranker: " / ".join(
            f"{summed(workers, metric, ranker) / trials:.4f}"
            for metric in ("quality_hits_total", "quality_reciprocal_ranks_total")
        )
        for ranker in ("next", "hybrid", "session")
    }
    items = workers[0].total("items")
    tables = max(worker.total("table_bytes") for worker in workers)
    evidence = sum(worker.total("evidence_bytes_total") for worker in workers)
    vectors = sum(worker.total("published_vectors_total") for worker in workers)
    late = (
        max(worker.staleness(0.5) for worker in workers),
        max(worker.staleness(0.99) for worker in workers),
    )
    peak = max(worker.peak_mib() for worker in workers)
    for worker in workers:
        worker.end()
    say(f"{count} workers: {total:,.0f} clicks in {seconds:.0f} s (published in {published:.0f} s)")
    return [
        f"{count}", *quality.values(), f"{trials:,.0f}",
        f"{1e6 * spent / total:.1f}", f"{sent / total:,.0f}", f"{evidence / total:.1f}",
        f"{vectors / total:.2f}", f"{late[0]:.2f} / {late[1]:.2f}", f"{peak:,.0f}",
        f"{tables / items:,.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rate", type=int, default=3000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--publish", default="--columns user_id,item_id,ts,event_type")
    given = parser.parse_args()
    columns = (
        "workers", "next, HR@20 / MRR@20", "hybrid", "hybrid, session", "trials", "CPU us a click",
        "wire bytes a click", "evidence bytes", "vectors", "staleness p50 / p99, s",
        "peak MiB of one", "table bytes an item",
    )  # fmt: skip
    print("|", " | ".join(columns), "|")
    print("|" + "---|" * len(columns))
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap, no_idle_time():
        for count in given.workers:
            print(
                "|", " | ".join(measure(count, given.events, bootstrap, Path(folder), given)), "|"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
