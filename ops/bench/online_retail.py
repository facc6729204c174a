"""All of the online-retail log through Kafka and one worker; writes the figures as Markdown.

    .venv/bin/python ops/bench/online_retail.py EVENTS ITEMS > ops/results/online-retail.md

EVENTS and ITEMS are `events.tsv.gz` and `items.tsv.gz` of the UCI Online Retail data (user, item,
unix ms, event type; and item, description). Four runs, one after the other: `replay` without
Kafka; a worker that finds the whole log waiting; a worker while the log is published at 5,000
clicks a second, and once more with shorter commits. Needs Java 17 and Maven, or
KAFKA_BOOTSTRAP_SERVERS; takes some ten minutes on two cores.
"""

import gzip
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
from worker import Worker, a_kafka, as_options, say, walkstream

COLUMNS = "user_id,item_id,ts,event_type"
SETTINGS = ["graph.half_life=180d", "topics.partitions=4"]
RATE = 5000
SHORT = "commit.seconds=0.3"
PRODUCTS = ["85123A", "22423", "84879", "20725", "22960"]


def replay(events: Path, folder: Path) -> str:
    out = folder / "replay"
    command = walkstream("replay", str(events), "--columns", COLUMNS, "--out", str(out))
    done = subprocess.run(
        [*command, *as_options(SETTINGS)], check=True, capture_output=True, text=True
    )
    return done.stdout.partition("try:")[0].strip()


def wait(worker: Worker, events: int) -> None:
    while worker.taken() < events:
        time.sleep(0.2)


def measure(events: Path, items: Path, bootstrap: str, folder: Path) -> str:
    with gzip.open(events, "rt") as log:
        total = sum(1 for _ in log)
    with gzip.open(items, "rt") as catalogue:
        names = {row[0]: row[1] for row in (line.split("\t") for line in catalogue)}

    say("1/4 replay")
    replayed = replay(events, folder)

    say("2/4 a worker that finds the whole log waiting")
    full = Worker("full", bootstrap, folder, SETTINGS)
    full.publish(events, "--columns", COLUMNS)
    with full.running():
        begin = time.perf_counter()
        wait(full, total)
        seconds = time.perf_counter() - begin
        got, catch_up_memory = full.metrics(), full.peak_mib()

    at_rate: list[tuple[str, str]] = []
    for number, changed in ((3, ""), (4, SHORT)):
        say(f"{number}/4 a worker at {RATE:,} clicks a second {changed}")
        steady = Worker(f"steady-{number}", bootstrap, folder, [*SETTINGS, *changed.split()])
        with steady.running():
            steady.publish(events, "--columns", COLUMNS, "--rate", str(RATE))
            wait(steady, total)
            p50, p99 = steady.staleness(0.5), steady.staleness(0.99)
            mean = steady.total("commit_seconds_sum") / steady.total("commit_seconds_count")
            vectors, peak = steady.total("published_vectors_total"), steady.peak_mib()
        where = f"at {RATE:,} clicks/s" + (f", `{changed}`" if changed else "")
        at_rate += [
            (f"staleness p50 / p99 {where}", f"{p50:.2f} / {p99:.2f} s"),
            (
                f"mean seconds of a commit, vectors published {where}",
                f"{mean:.3f} s, {vectors:,.0f}",
            ),
            (f"peak memory of the worker {where}", f"{peak:,.0f} MiB"),
        ]

    dead = sum(v for n, v in got.items() if n.startswith("walkstream_dead_letters_total"))
    transactions = got['walkstream_transactions_total{outcome="committed"}']
    rows = [
        ("records read", f"{total:,}"),
        ("dead letters (type `return` has no weight by default)", f"{dead:,.0f}"),
        (
            "events/s, whole log waiting, learning and publishing included",
            f"{total / seconds:,.0f}",
        ),
        ("items", f"{got['walkstream_items']:,.0f}"),
        ("arcs", f"{got['walkstream_arcs']:,.0f}"),
        ("vectors published", f"{got['walkstream_published_vectors_total']:,.0f}"),
        ("transactions committed", f"{transactions:,.0f}"),
        ("peak memory of the worker", f"{catch_up_memory:,.0f} MiB"),
        *at_rate,
    ]
    stages = re.compile(r'walkstream_stage_seconds_total\{stage="(.+)"\}')
    shares = ", ".join(
        f"{m[1]} {v / seconds:.0%}" for n, v in got.items() if (m := stages.match(n))
    )
    lines = [
        "# Online retail: 738 days of a shop through one worker\n",
        "Made by `.venv/bin/python ops/bench/online_retail.py EVENTS ITEMS`, with "
        + ", ".join(f"`--set {setting}`" for setting in SETTINGS)
        + f" and defaults otherwise. {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}; "
        "Apache Kafka 4.1.0 with one node and the publisher ran on the same machine.\n",
        "| | |\n|---|---|",
        *(f"| {what} | {figure} |" for what, figure in rows),
        f"\nTime of the worker that found the log waiting, by stage: {shares}.\n",
        "Staleness is from the record's timestamp (the click was sent) to the commit of the "
        "vectors that it changed, over all clicks, read from the worker's histogram.\n",
        "## `walkstream replay` of the same file\n",
        f"```\n{replayed}\n```\n",
        "## The ten nearest neighbours of five products\n",
        "From `walkstream query ITEM` on the state folder of the second run.\n",
    ]
    for product in PRODUCTS:
        near = "; ".join(names.get(item, item).title() for item in full.neighbours(product))
        lines.append(f"- **{names.get(product, product).title()}**: {near}")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    events, items = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder, a_kafka() as bootstrap:
        print(measure(events, items, bootstrap, Path(folder)))


if __name__ == "__main__":
    main()
