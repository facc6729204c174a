"""Whether one ranker finds the next item more often than another: told at any time, with one error.

Both rank the same trials. One that the challenger alone hits it wins, one that the champion alone
hits it loses. Let x be what it wins in a round less what it loses, over all trials that were ranked
in it. They are known before anybody ranks them; how many of them somebody wins is not, and to
divide by that would let a challenger win that loses more than it wins, if it wins where little is
told and loses where much is. If it is no better, the mean of x, given the trials and all earlier
rounds, is 0 or less. So a purse that stakes a part of itself on each round, and has 1 + stake x of
every 1 after it, is a supermartingale, and so is the mean of many such purses, which is the
evidence E. It begins at 1, and by Ville's inequality it ever comes to 1 / error with a probability
of at most `error`, however often and whenever one looks, and however long it goes on.

One bet a round, and not one a trial, because trials of a round are not independent: both models
rank them as they stood before it, and a session may be in several. Of x only the mean is needed.
As x is never below -1, no stake is above 1, and a lead of two points wins a purse 2% a round at
most: so many trials in a round make it surer, and not much sooner.
With one trial a round E is a mixture like Robbins', of (2 p)^wins (2 (1 - p))^losses over p from
1/2 to 1, as stake = 2 p - 1.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41 (1970); I. Waudby-Smith and A. Ramdas, "Estimating means of bounded
random variables by betting", JRSS B 86 (2024); A. Ramdas, P. Gruenwald, V. Vovk and G. Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38 (2023).
"""

import math

import numpy as np

PURSES = 64
STAKES = 1.0 - (1.0 - (np.arange(PURSES) + 0.5) / PURSES) ** 2
"""float64 [PURSES]: the stakes that are tried side by side, from 0 to 1, and closer together near
1. A mean over them is a supermartingale whatever they are. The best stake is the mean of x over its
variance: with a trial or two a round a small one, and with more than a dozen 1, for most leads."""


class SequentialTest:
    """The test of one challenger, of an error (0 to 1) that holds for it as a whole."""

    def __init__(self, error: float) -> None:
        self.error = error
        self.wins = self.losses = 0
        """Trials that the challenger alone, and that the champion alone has hit."""
        self.logs = np.zeros(PURSES)
        """float64 [PURSES]: logarithms of the purses."""
        self.greatest = 0.0
        """The logarithm of the greatest evidence so far."""

    def add(self, trials: int, wins: int, losses: int) -> None:
        """Take a round in, of so many trials that were ranked."""
        assert wins + losses <= trials, "a trial is won or lost once"
        self.wins, self.losses = self.wins + wins, self.losses + losses
        if wins == losses:
            return  # or x might be 0 / 0
        self.logs += np.log1p(STAKES * ((wins - losses) / trials))
        self.greatest = max(self.greatest, self.log_evidence)

    @property
    def is_better(self) -> bool:
        """Whether the evidence has ever come to 1 / error, of the error as it is now."""
        return self.greatest >= -math.log(self.error)

    @property
    def log_evidence(self) -> float:
        """The natural logarithm of E."""
        top = float(self.logs.max())
        return top + float(np.log(np.exp(self.logs - top).mean()))

    @property
    def evidence(self) -> float:
        """E, infinite where it is past all numbers."""
        log = self.log_evidence
        return math.exp(log) if log < 700.0 else math.inf
