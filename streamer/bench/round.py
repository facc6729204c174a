"""`replay` of a whole log: every stage of a round, learning and publishing included.

The log is that of the synthetic shop, with as many products, users and clicks as a gift shop on the
web had in two years (UCI Online Retail II), or the file that is named.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gensim
from gensim.models import Word2Vec

from streamer.bench.results import Options, Result, in_turns
from streamer.demo.shop import Shop
from streamer.errors import ConfigError

PRODUCTS, USERS, CLICKS, QUICK_CLICKS = 4770, 5942, 800_000, 150_000
DAYS = 738
PRESENT = 4
"""Visitors at a time: few, so that each clicks again within the session's gap."""
COLUMNS = "user_id,item_id,ts,event_type"
SETTINGS = ("graph.half_life=180d", "major.every=180d")
TARGET = 50_000.0
EPOCHS = 5


def measure(options: Options) -> Iterator[Result]:
    """Records a second of `walkstream replay`, beside the nightly job: item2vec on the same log."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = options.events or shop_log(folder, QUICK_CLICKS if options.quick else CLICKS)
        sentences = baskets(log)
        for threads in sorted({1, options.threads}):
            reports: list[dict[str, object]] = []

            def ours(threads: int = threads, reports: list[dict[str, object]] = reports) -> float:
                reports.append(replay(log, folder / f"run{threads}-{len(reports)}", threads))
                return float(str(reports[-1]["records_per_second"]))

            def peer(threads: int = threads) -> float:
                return item2vec(sentences, threads)

            speed, job = in_turns(ours, peer)
            last = reports[-1]
            yield Result(
                bench="round",
                setting=f"replay of {last['records']:,} records, {last['items']:,} items, "
                f"{threads} thread{'s' if threads > 1 else ''}",
                ours=speed,
                unit="events/s",
                peer=f"gensim {gensim.__version__} item2vec, {EPOCHS} epochs, {threads} workers",
                peer_value=job,
                ratio=speed / job,
                quality=spelled(last["hit_rates"]),
                ceiling=f"time: {spelled(last['stages'])}; the kernel of learning sets it, see "
                "`walkstream bench skipgram`",
                target=f"{TARGET:,.0f} events/s",
            )


def spelled(shares: object) -> str:
    assert isinstance(shares, dict)
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)


def shop_log(folder: Path, clicks: int) -> Path:
    """A TSV of that many clicks of the shop, spread evenly over DAYS."""
    log = folder / "clicks.tsv"
    rate = clicks / (DAYS * 86_400)
    shop = Shop(1, PRODUCTS, users=USERS, present=PRESENT)
    with log.open("w") as out:
        for click in islice(shop.clicks(1_600_000_000_000, rate), clicks):
            out.write(f"{click['user_id']}\t{click['item_id']}\t{click['ts']}\tclick\n")
    return log


def replay(log: Path, out: Path, threads: int) -> dict[str, object]:
    """The report of `walkstream replay --json`, run as a user would."""
    settings = [*SETTINGS, f"engine.threads={threads}"]
    command = [sys.executable, "-m", "streamer.cli", "replay", str(log), "--columns", COLUMNS]
    command += ["--out", str(out), "--json", *(p for s in settings for p in ("--set", s))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, object] = json.loads(done.stdout)
    return report


def baskets(log: Path) -> list[list[str]]:
    """The items of each user in order: the sentences of item2vec."""
    found: dict[str, list[str]] = defaultdict(list)
    with gzip.open(log, "rt") if log.suffix == ".gz" else log.open() as lines:
        for number, line in enumerate(lines, 1):
            if line.count("\t") != COLUMNS.count(","):
                raise ConfigError(f"{log}, line {number:,}: has not the columns {COLUMNS}")
            user, item, *_ = line.split("\t")
            found[user].append(item)
    return list(found.values())


def item2vec(sentences: list[list[str]], workers: int) -> float:
    """Clicks a second of one nightly training: gensim's skip-gram, as long vectors as ours."""
    begin = time.perf_counter()
    Word2Vec(
        sentences, vector_size=64, window=5, sg=1, negative=5, min_count=1, sample=0.0,
        epochs=EPOCHS, workers=workers, seed=1,
    )  # fmt: skip
    return sum(map(len, sentences)) / (time.perf_counter() - begin)
