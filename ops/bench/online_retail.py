"""All of the online-retail log through Kafka and one worker; writes the figures as Markdown.

    .venv/bin/python ops/bench/online_retail.py EVENTS ITEMS > ops/results/online-retail.md

EVENTS and ITEMS are `events.tsv.gz` and `items.tsv.gz` of the UCI Online Retail data (user, item,
unix ms, event type; and item, description). Three runs, one after the other: `replay` without
Kafka; a worker that finds the whole log waiting; a worker while the log is published at 5,000
clicks a second. Needs Java 17 and Maven, or KAFKA_BOOTSTRAP_SERVERS; takes some seven minutes on
two cores.
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "kafka"))
from broker import Broker, free_port

COLUMNS = "user_id,item_id,ts,event_type"
SETTINGS = ["graph.half_life=180d", "topics.partitions=4"]
RATE = 5000
PRODUCTS = ["85123A", "22423", "84879", "20725", "22960"]


def walkstream(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamer.cli", *arguments]


def settings(*more: str) -> list[str]:
    return [part for setting in [*SETTINGS, *more] for part in ("--set", setting)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Worker:
    """A worker with topics and a state folder of its own, watched through its metrics."""

    def __init__(self, name: str, bootstrap: str, folder: Path) -> None:
        self.port, self.state = free_port(), folder / name
        topics = ("clicks", "items", "item_vectors", "model_state", "transitions", "dead_letters")
        self.settings = settings(
            f"app.name={name}",
            f"kafka.bootstrap.servers={bootstrap}",
            f"state.dir={self.state}",
            f"metrics.port={self.port}",
            *(f"topics.{topic}={name}.{topic}" for topic in topics),
        )
        subprocess.run(
            walkstream("topics", "create", *self.settings), check=True, stdout=sys.stderr
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(walkstream("worker", *self.settings))
        try:
            while self.metrics().get("walkstream_restore_progress") != 1.0:
                if process.poll() is not None:
                    sys.exit("the worker ended before it was running")
                time.sleep(0.1)
            yield
            self.peak_mib = psutil.Process(process.pid).memory_info().rss / 2**20
            self.peak_mib = max(self.peak_mib, peak(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                sys.exit("the worker did not stop cleanly")

    def publish(self, events: Path, *more: str) -> None:
        command = walkstream("publish", str(events), "--columns", COLUMNS, *more, *self.settings)
        subprocess.run(command, check=True, stdout=sys.stderr)

    def wait(self, events: int) -> None:
        """Until every record was learned from, left out, or made a dead letter."""
        while self.taken() < events:
            time.sleep(0.2)

    def taken(self) -> float:
        counters = [
            f"walkstream_{name}_total" for name in ("events", "ignored_clicks", "dead_letters")
        ]
        found = self.metrics().items()
        return sum(value for name, value in found if name.partition("{")[0] in counters)

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }

    def staleness(self, share: float) -> float:
        """A quantile of click sent to vector committed, in seconds, linear inside its bucket."""
        bound = re.compile(r'walkstream_staleness_seconds_bucket\{le="(.+)"\}')
        low, below = 0.0, 0.0
        buckets = [(m[1], v) for n, v in self.metrics().items() if (m := bound.match(n))]
        wanted = share * buckets[-1][1]
        for edge, count in buckets:
            if count >= wanted:
                inside = (wanted - below) / (count - below)
                return low + inside * (float(edge) - low)
            low, below = float(edge), count
        raise AssertionError("the last bucket holds all")

    def neighbours(self, item: str) -> list[str]:
        command = walkstream("query", item, "--state", str(self.state), "-k", "10", "--json")
        answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [neighbour["item"] for neighbour in answer["neighbours"]]


def peak(pid: int) -> float:
    """Peak resident memory of a process in MiB, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def replay(events: Path, folder: Path) -> str:
    out = folder / "replay"
    command = walkstream("replay", str(events), "--columns", COLUMNS, "--out", str(out))
    done = subprocess.run([*command, *settings()], check=True, capture_output=True, text=True)
    return done.stdout.partition("try:")[0].strip()


def measure(events: Path, items: Path, bootstrap: str, folder: Path) -> str:
    import gzip

    with gzip.open(events, "rt") as log:
        total = sum(1 for _ in log)
    with gzip.open(items, "rt") as catalogue:
        names = {row[0]: row[1] for row in (line.split("\t") for line in catalogue)}

    say("1/3 replay")
    replayed = replay(events, folder)

    say("2/3 a worker that finds the whole log waiting")
    full = Worker("full", bootstrap, folder)
    full.publish(events)
    with full.running():
        begin = time.perf_counter()
        full.wait(total)
        seconds = time.perf_counter() - begin
        got = full.metrics()
    catch_up_memory = full.peak_mib

    say(f"3/3 a worker at {RATE:,} clicks a second")
    steady = Worker("steady", bootstrap, folder)
    with steady.running():
        steady.publish(events, "--rate", str(RATE))
        steady.wait(total)
        p50, p99 = steady.staleness(0.5), steady.staleness(0.99)
        mean_commit = (
            steady.metrics()["walkstream_commit_seconds_sum"]
            / steady.metrics()["walkstream_commit_seconds_count"]
        )

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
        (f"staleness p50 at {RATE:,} clicks/s", f"{p50:.2f} s"),
        (f"staleness p99 at {RATE:,} clicks/s", f"{p99:.2f} s"),
        (f"mean seconds of a commit at {RATE:,} clicks/s", f"{mean_commit:.3f} s"),
        ("peak memory of the worker at that rate", f"{steady.peak_mib:,.0f} MiB"),
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
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if given:
            print(measure(events, items, given, Path(folder)))
        else:
            with Broker() as broker:
                print(measure(events, items, broker.bootstrap, Path(folder)))


if __name__ == "__main__":
    main()
