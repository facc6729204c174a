"""Faults that a network makes, in numbers that no test suite has the time for.

    ops/chaos --seed 1 --commits 1000 --kills 50 --starts 200

Each scenario runs real workers on a real Kafka behind a proxy that delays, cuts and reorders what
they say, and then counts: every click once, every commit whole. It ends with 1 if anything was lost
or doubled that no worker refused with exit code 3. What came of it goes to ops/results/chaos.md,
one section a scenario, so that one of them may be run alone.
"""

import argparse
import importlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.support import compile_kernels

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "ops" / "results" / "chaos.md"
HEAD = """\
# Faults on a real Kafka

Made by `ops/chaos` (`ops/faults`): real workers, and a proxy between them and the broker.
"""


class Scenario(NamedTuple):
    """`module.run(n, seed, say)` returns lines of Markdown and whether nothing was lost unseen."""

    module: str
    option: str
    counted: str


SCENARIOS = [
    Scenario("late_commits", "commits", "commits while EndTxn comes late, and twice"),
    Scenario("kills", "kills", "kills of a worker at random moments"),
    Scenario("many", "many", "kills of one of two workers at random moments"),
    Scenario("everything", "everything", "kills of one of two workers with all switched on"),
    Scenario("first_starts", "starts", "first starts while answers to ListOffsets come late"),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="ops/chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance (1)")
    for scenario in SCENARIOS:
        parser.add_argument(
            f"--{scenario.option}", type=int, default=0, metavar="N", help=scenario.counted
        )
    asked = parser.parse_args()
    chosen = [(s, n) for s in SCENARIOS if (n := getattr(asked, s.option)) > 0]
    if not chosen:
        parser.error("name at least one scenario, such as --commits 50")
    failed = False
    compile_kernels()  # or workers of a new clone would, and be taken for ones that stand still
    for scenario, n in chosen:
        began = time.monotonic()
        say(f"{n} {scenario.counted}, seed {asked.seed}")
        lines, good = importlib.import_module(scenario.module).run(n, asked.seed, say)
        failed |= not good
        command = f"ops/chaos --seed {asked.seed} --{scenario.option} {n}"
        minutes = (time.monotonic() - began) / 60
        told = [
            f"`{command}`, {minutes:.1f} minutes, {_machine()}:",
            "",
            *lines,
            "",
            "Nothing was lost or doubled." if good else "**Something was lost or doubled.**",
        ]
        _keep(f"{scenario.counted[0].upper()}{scenario.counted[1:]}", told)
        print("\n".join(told), flush=True)
    return 1 if failed else 0


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


Say = Callable[[str], None]


def _machine() -> str:
    revision = ["git", "describe", "--always", "--exclude=*", "--dirty= with changes"]
    commit = subprocess.run(revision, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    python = platform.python_version()
    return (
        f"{os.cpu_count()} cores, Python {python}, revision {commit}, {datetime.now(UTC):%Y-%m-%d}"
    )


def _keep(title: str, lines: list[str]) -> None:
    """Put the section of this title into the file of results, in place of an older one."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    section = "\n".join([f"## {title}", "", *lines, ""])
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: f"{section}\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(f"{text.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
