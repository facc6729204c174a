"""Rounds of trials that a champion and a challenger are told apart by, by lot."""

import numpy as np
from numpy.typing import NDArray

from core.sequential import SequentialTest

RUNS, ROUNDS, SAMPLE = 400, 1000, 16
"""Seeded runs; and rounds of each, with so many trials."""
ERROR, LEAD = 0.05, 0.02


def duel(seed: int, lead: float, same: float = 0.35) -> NDArray[np.int64]:
    """Wins and losses by round, [ROUNDS, 2]: both hit `same` of the trials, the champion alone
    5%, and the challenger alone that and a `lead`."""
    shares = [0.05 + lead, 0.05, same, 1.0 - same - 0.1 - lead]
    return np.random.default_rng([7, seed]).multinomial(SAMPLE, shares, ROUNDS)[:, :2]


def promoted(rounds: NDArray[np.int64], sample: int = SAMPLE) -> int | None:
    """The rounds until the challenger takes over."""
    test = SequentialTest(ERROR)
    for number, (wins, losses) in enumerate(rounds.tolist(), 1):
        test.add(sample, wins, losses)
        if test.is_better:
            return number
    return None
