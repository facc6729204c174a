"""Whether one ranker finds the next item more often than another: told at any time, with one error.

Both rank the same trials. A trial that only one of them hits says which is better, and one that
both hit, or both miss, says nothing. Of the trials of a round that say something, let x be the
share that the challenger wins less the share that it loses. If it is no better, the mean of x given
all earlier rounds is 0 or less. So a purse that stakes a part of itself on each round, and has
1 + stake x of every 1 after it, is a supermartingale, and so is the mean of many such purses, which
is the evidence E. It begins at 1, and by Ville's inequality it ever comes to 1 / error with a
probability of at most `error`, however often and whenever one looks, and however long it goes on.

One bet a round, and not one a trial, because trials of a round are not independent: both models
rank them as they stood before it, and a session may be in several. Of x only the mean is needed.
With one trial a round E is Robbins' mixture, the integral of (2 p)^wins (2 (1 - p))^losses over p
from 1/2 to 1, as stake = 2 p - 1.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41 (1970); I. Waudby-Smith and A. Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 86 (2024); A. Ramdas, P. Gruenwald, V. Vovk and G. Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38 (2023).
"""

import math

import numpy as np

PURSES = 64
STAKES = (np.arange(PURSES) + 0.5) / PURSES
"""float64 [PURSES]: the stakes that are tried side by side, evenly from 0 to 1. A mean over them is
a supermartingale whatever they are; these are good against any lead, without knowing it."""


class SequentialTest:
    """The test of one challenger, of an error (0 to 1) that holds for it as a whole."""

    def __init__(self, error: float) -> None:
        self.error = error
        self.wins = self.losses = 0
        """Trials that the challenger alone, and that the champion alone has hit."""
        self.logs = np.zeros(PURSES)
        """float64 [PURSES]: logarithms of the purses."""
        self.is_better = False
        """Whether the evidence has ever come to 1 / error."""

    def add(self, wins: int, losses: int) -> None:
        """Take a round's trials in."""
        told = wins + losses
        if told == 0:
            return
        self.wins, self.losses = self.wins + wins, self.losses + losses
        self.logs += np.log1p(STAKES * ((wins - losses) / told))
        # A mean is no more than the greatest, which is looked at sooner.
        if self.logs.max() >= -math.log(self.error):
            self.is_better |= self.evidence >= 1.0 / self.error

    @property
    def evidence(self) -> float:
        """E, infinite where it is past all numbers."""
        top = float(self.logs.max())
        log = top + float(np.log(np.exp(self.logs - top).mean()))
        return float(np.exp(log)) if log < 700.0 else np.inf
