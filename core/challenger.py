"""A second configuration that learns beside the first, and takes over when it is better.

It has rows of its own over the same items, graph, sessions and rounds, and begins as the champion
is: with the champion's settings it would stay the same to the bit. Each trial of a round is ranked
by both before either learns it. When the sequential test (`core.sequential`) says that the
challenger finds more, its vectors are turned onto the champion's by orthogonal Procrustes on
settled items, and take their place: no inner product of the challenger is another one by that, and
centroids, cluster labels, centre and buckets go on as they are. What then is elsewhere than it was
published leaves with commits, as all that moves does.

Where the two agree too little for vectors before and after to be compared, a new vector space
begins: placement and labels are made anew, and everything is published again. Its vectors are
turned all the same, so that what a crash leaves of the champion's is as near to them as it can be.

It is the online twin of the exploration network of DRN (Zheng et al., "DRN: A deep reinforcement
learning framework for news recommendation", WWW 2018), which is also compared on what users do, and
taken over where it does better.
"""

from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.learner import Learner
from core.learning.skipgram import hidden
from core.learning.tiers import ALL
from core.model import Model
from core.placing.clusters import unit_rows
from core.placing.placement import SETTLED, Placement
from core.placing.procrustes import agreement, rotation
from core.sequential import SequentialTest
from core.settings import ChallengerSettings, Settings, WalkSettings
from core.starts import Starts
from core.terms import differences

MOST = 50_000
"""Settled items to which the rotation is fitted at most: the first, which are the oldest."""


class Promotion(NamedTuple):
    """A challenger took over, after so many trials that it, or the champion, alone has hit."""

    round_number: int
    wins: int
    losses: int
    agreement: float
    is_new_space: bool = False
    """Whether that was too little for vectors before and after to be compared."""
    evidence: float = 0.0
    """That of the test by then."""


class Challenger:
    """One configuration beside that of the catalogue's model. `terms` say when it takes over.
    ValueError if it cannot be one."""

    def __init__(
        self, settings: Settings, terms: ChallengerSettings, champion: Settings,
        catalogue: Catalogue,
    ) -> None:  # fmt: skip
        if found := differences(settings, champion):
            raise ValueError(f"a challenger may not differ in {', '.join(found)}")
        self.settings, self.terms, self.catalogue = settings, terms, catalogue
        self.model = Model(settings, catalogue.partitions, catalogue.model)
        self.learner = Learner(settings, catalogue, self.model)
        self.test = SequentialTest(terms.error)
        self.agreement = float("nan")
        """When that was last looked at."""
        self._shares_walks = _walks_by(settings) == _walks_by(champion)

    def learn(
        self, starts: Starts, walks: NDArray[np.int32], history: NDArray[np.int32],
        target: NDArray[np.int32], time: int, round_number: int, placement: Placement,
    ) -> None:  # fmt: skip
        """Learn a round: as `Learner.learn`, from the champion's walks where the settings of walks
        are the same, and else from its own."""
        learner = self.learner
        learner.begin(starts.begun)
        if not self._shares_walks:
            s = self.settings
            begins = starts.spread(s.walks, s.model.seed, round_number, learner.corpus.has_walks)
            walks = learner.walks(begins, round_number)
        learner.learn(walks, history, target, time, round_number, placement)
        self.model.rows.dirty[:] = False  # none of its rows leave, and all that moved are cut

    def take_over(self, round_number: int) -> Promotion | None:
        """Put its rows into the place of the champion's, if it is to.

        It costs a pass over all rows. Where too few items are settled to tell whether their vectors
        agree, it waits. One that was better, and has lost all that it had won before it could take
        over, waits until it has won that again.
        """
        if not self.terms.promote or not self.test.is_better or self.test.log_evidence < 0.0:
            return None
        if self.catalogue.settled < 2 * self.settings.model.dim or (turn := self._turn()) is None:
            return None
        self.catalogue.model.become(self.model, turn)
        self.catalogue.list_items()
        is_new_space = self.agreement < self.terms.min_agreement
        return Promotion(
            round_number, self.test.wins, self.test.losses, self.agreement, is_new_space,
            self.test.evidence,
        )  # fmt: skip

    def _turn(self) -> NDArray[np.float64] | None:
        """What turns its vectors onto the champion's, orthogonal [dim, dim]; None where too few
        items are settled to tell how far they agree."""
        items = self.catalogue.items
        champion = self.catalogue.model
        settled = champion.columns.updates[items] >= SETTLED
        settled &= self.model.columns.updates[items] >= SETTLED
        at = items[settled][:MOST]
        own, theirs = (unit_rows(hidden(model.rows, at)) for model in (self.model, champion))
        dims = self.model.columns.dims[self.catalogue.items]
        ends = [end for end in np.unique(dims).tolist() if end != ALL]
        self.agreement = agreement(own, theirs, ends)
        return None if isnan(self.agreement) else rotation(own, theirs, ends)


def _walks_by(settings: Settings) -> tuple[WalkSettings, int, bool]:
    """What the walks of a round follow from."""
    return settings.walks, settings.model.seed, settings.corpus.kind == "sessions"
