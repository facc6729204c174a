"""How often a challenger takes over: one that is the champion's equal, and one that is better.

    .venv/bin/python ops/bench/challenger.py [--runs 20] [--test]

Each run invents a log and takes it through two models on the same rounds. The equal one has the
champion's settings, and other lots: its walks and negatives are drawn by another seed. The better
one has the defaults, beside deepwalk. With `--test` no model learns: the outcomes of trials are
drawn by lot, as in `tests/unit/core/test_sequential.py`.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from core.engine import Engine
from core.rounds import Inputs
from core.settings import ChallengerSettings, Settings
from core.warmup import warm_up
from streamer.evaluate.drift_log import START_MS, Groups, interval
from streamer.settings.load import load
from streamer.wording import counted
from tests.unit.core.duels import LEAD, ROUNDS, RUNS, SAMPLE, duel, promoted

SMALL = ["model.dim=16", "walks.per_node=2", "quality.sample=64"]
CLICKS, ROUND = 30_000, 500
KINDS = ("equal", "better")


def pair(kind: str, seed: int) -> tuple[Settings, Settings]:
    """Champion and challenger."""
    if kind == "better":
        champion, challenger = (
            load(None, [f"preset={name}", *SMALL], {}).engine_settings
            for name in ("deepwalk", "walkstream")
        )
        return champion, challenger
    champion = load(None, SMALL, {}).engine_settings
    return champion, replace(champion, model=replace(champion.model, seed=1_000_000 + seed))


def run(kind: str, seed: int) -> tuple[int, int, int, int]:
    """Trials until it was better, 0 if it never was; all trials; wins and losses at the end."""
    champion, settings = pair(kind, seed)
    engine = Engine(replace(champion, model=replace(champion.model, seed=seed)))
    challenger = engine.challenge(settings, ChallengerSettings())
    log = Groups(seed).clicks(CLICKS, "u", seed, START_MS, interval(champion.graph.half_life))
    trials = after = 0
    for begin in range(0, CLICKS, ROUND):
        outputs = engine.step(Inputs(log.part(begin, begin + ROUND), closes_commit=False))
        trials += outputs.quality.duel.trials
        if challenger.test.is_better and not after:
            after = trials
    return after, trials, challenger.test.wins, challenger.test.losses


def by_lot() -> None:
    """What the test alone does."""
    for name, lead in (("equal", 0.0), ("better by two points", LEAD)):
        found = [promoted(duel(seed, lead)) for seed in range(RUNS)]
        there = np.array([rounds for rounds in found if rounds is not None]) * SAMPLE
        print(f"{name}: takes over in {len(there)} of {RUNS} runs of {ROUNDS:,} rounds of {SAMPLE}")
        if lead:
            half, most = (int(np.quantile(there, q, method="higher")) for q in (0.5, 0.95))
            print(
                f"  the first after {there.min():,} trials ({there.min() // SAMPLE} rounds), half "
                f"within {half:,}, 95% within {most:,}, the last after {there.max():,}"
            )
    steady = promoted(np.tile([1, 0], (ROUNDS, 1)), sample=round(1 / LEAD))
    print(f"a lead of two points in each round: takes over after {steady} rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--test", action="store_true", help="the test alone, without models")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.test:
        return by_lot()
    warm_up(pair("equal", 1)[0])
    for kind in options.kinds:
        begin = time.monotonic()
        with ProcessPoolExecutor(options.workers) as pool:
            found = list(pool.map(partial(run, kind), range(1, options.runs + 1)))
        there = sorted(after for after, *_ in found if after)
        trials, wins, losses = (sum(each[n] for each in found) for n in (1, 2, 3))
        median = f", half of them within {there[len(there) // 2]:,} trials" if there else ""
        print(
            f"{kind}: better in {len(there)} of {counted(options.runs, 'run')}{median}; "
            f"{trials // options.runs:,} trials a run, of which the challenger alone hit "
            f"{wins / trials:.1%} and the champion alone {losses / trials:.1%}"
        )
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
