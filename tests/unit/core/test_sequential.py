"""The test that lets a challenger take over: what it promises, it keeps."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from core.sequential import SequentialTest
from tests.unit.core.duels import ERROR, LEAD, ROUNDS, RUNS, SAMPLE, duel, promoted


def evidence(rounds: list[tuple[int, int]], trials: int = 3) -> float:
    test = SequentialTest(ERROR)
    for wins, losses in rounds:
        test.add(trials, wins, losses)
    return test.evidence


def exact(wins: int, losses: int) -> float:
    """The integral of (1 + s)^wins (1 - s)^losses over u from 0 to 1, with s = 1 - u^2: that of
    (2 - u^2)^wins u^(2 losses), which is a polynomial."""
    terms = (
        Fraction((-1) ** k * comb(wins, k) * 2 ** (wins - k), 2 * (k + losses) + 1)
        for k in range(wins + 1)
    )
    return float(sum(terms))


@pytest.mark.parametrize("outcomes", [[(1, 0), (0, 1)], [(3, 0), (2, 1), (1, 2), (0, 3)]])
def test_the_mean_evidence_of_all_that_may_come_of_equals_is_one(
    outcomes: list[tuple[int, int]],
) -> None:
    """It is a martingale: rounds with trials that depend on each other in any way, too."""
    every = [evidence(list(rounds)) for rounds in product(outcomes, repeat=5)]
    assert np.mean(every) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 7), (12, 5), (40, 60), (90, 60)])
def test_with_one_trial_a_round_it_is_the_mixture_over_chances(wins: int, losses: int) -> None:
    rounds = [(1, 0)] * wins + [(0, 1)] * losses
    assert evidence(rounds, trials=1) == pytest.approx(exact(wins, losses), rel=0.03)


def test_what_says_nothing_changes_nothing_and_past_all_numbers_it_is_infinite() -> None:
    assert evidence([(0, 0)] * 5) == 1.0
    assert evidence([(0, 0)] * 5, trials=0) == 1.0
    assert evidence([(1, 0)] * 5000) == np.inf
    assert 0.0 <= evidence([(0, 1)] * 5000) < 0.001
    assert evidence([(0, 1)] * 5000, trials=1) < 0.01


def test_what_was_told_stays_told() -> None:
    test = SequentialTest(ERROR)
    for wins, losses in [(1, 0)] * 20 + [(0, 1)] * 100:
        test.add(2, wins, losses)
    assert test.is_better
    assert test.evidence < 1.0
    test.error = 1e-9  # that it came to 20 once does not say that it came to a milliard
    assert not test.is_better


def test_one_that_wins_where_little_is_told_and_loses_where_much_is_is_no_better() -> None:
    """It wins 60 trials, and loses 90: each share of what is told is in its favour."""
    test = SequentialTest(ERROR)
    for _ in range(30):
        test.add(SAMPLE, 1, 0)
        test.add(SAMPLE, 1, 3)
    assert (test.wins, test.losses) == (60, 90)
    assert not test.is_better
    assert test.evidence < 0.5


def test_rounds_whose_size_and_direction_go_together_make_no_more_errors() -> None:
    """Of equals: half of the rounds tell one trial, which the challenger more often wins, and half
    tell four, of which the champion gets as many more."""

    def unlike(seed: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([9, seed])
        few = rng.random(ROUNDS) < 0.5
        won = rng.random(ROUNDS) < np.where(few, 0.9, 0.4)
        size = np.where(few, 1, 4)
        return np.stack([size * won, size * ~won], axis=1)

    mean = np.mean([(rounds[:, 0] - rounds[:, 1]).mean() for rounds in map(unlike, range(RUNS))])
    assert abs(mean) < 0.01
    assert sum(promoted(unlike(seed)) is not None for seed in range(RUNS)) <= ERROR * RUNS


def test_a_challenger_equal_to_the_champion_is_promoted_in_at_most_one_run_of_twenty() -> None:
    runs = [duel(seed, lead=0.0) for seed in range(RUNS)]
    assert sum(promoted(rounds) is not None for rounds in runs) <= ERROR * RUNS
    # The same runs under the usual test of a fixed size, looked at as often: many times the error.
    fooled = 0
    for rounds in runs:
        wins, losses = np.cumsum(rounds, axis=0).T
        told = wins + losses > 30
        z = (wins - losses)[told] / np.sqrt((wins + losses)[told])
        fooled += bool((z > 1.645).any())
    assert fooled > 4 * ERROR * RUNS


def test_trials_of_a_round_that_go_one_way_together_make_no_more_errors() -> None:
    def together(seed: int) -> NDArray[np.int64]:
        won = np.random.default_rng([8, seed]).integers(2, size=ROUNDS)
        return np.stack([8 * won, 8 * (1 - won)], axis=1)

    assert sum(promoted(together(seed)) is not None for seed in range(RUNS)) <= ERROR * RUNS


def test_a_challenger_two_points_better_takes_over_in_nearly_all_runs() -> None:
    found = [promoted(duel(seed, LEAD)) for seed in range(RUNS)]
    there = [after for after in found if after is not None]
    assert len(there) >= 0.98 * RUNS
    assert np.median(there) < 250
    assert np.quantile(there, 0.95) < 440
