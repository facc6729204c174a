"""The fused ranker: a mixture of the experts, and a softmax regression on top of it.

The mixture p(b) = sum of pi_m p_m(b) says what is likely; its pi follow the log by online EM (Cappe
and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B 71, 2009),
each expert's share moving towards what of the target it accounts for. The regression (a
conditional logit over the candidates, trained by a step of RMSprop for each target) then learns
what a mixture cannot say: that an item which an expert puts high comes sooner than the mixture has
it, or, as where nobody buys a thing twice, later.

Both take longer steps while what comes next is harder to tell than usually, as after the log has
changed. They learn from transitions that were ranked before: nothing is learned from the future.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import INLINED, PASS, SOURCES, pointer, pointers
from core.kernels.scan import weighted_sum
from core.ranking.experts import COUNTED, EXPERTS, HEAT, OF_ITEM, SCORES, Table

HEADS = ("item", "session")
"""What is asked by: the last item of a session, or all."""
FEATURES = ("mixture", *COUNTED, *HEAT, *SCORES)
"""Of the regression: the logarithm of the mixture, square roots of shares, and the vectors'
scores."""
FORGETS = 0.005
"""The part of what was learned that each transition puts into the shade."""
RATE = 0.03
"""Steps of the regression."""
YOUNG = 2000
"""A ranker is young that has learned from fewer transitions."""
LATELY = 1 / 8
"""Weight of a loss in the mean of the last ones."""
USUALLY = 0.001
"""The same in the mean of all."""
LOST = 12.0
"""A loss in nats at most, so that no single transition surprises."""
MARGIN = 1.0
"""Nats that chance may bring this mean above the usual one."""
SOONER, SOONEST = 3.0, 10.0
"""Where losses are above that, FORGETS and the square of RATE grow by this a nat, up to so much."""
LEAST = np.float32(1e-9)
"""Added to the mixture before its logarithm is taken."""

USED = np.ones((len(HEADS), len(FEATURES)), np.bool_)
"""[heads, features]: by the last item alone, nothing is known of the session."""
USED[0, 1:-2] = OF_ITEM[[EXPERTS.index(name) for name in (*COUNTED, *HEAT)]]
USED[0, -1] = False
_E, _F, _ROOTS = len(EXPERTS), len(FEATURES), len(COUNTED) + len(HEAT)
F32 = np.float32


@dataclass
class Fusion:
    """What the ranker has learned, by head."""

    shares: NDArray[np.float64]
    """[heads, experts]: pi; each row sums to 1."""
    weights: NDArray[np.float64]
    """[heads, features]"""
    squares: NDArray[np.float64]
    """[heads, features]: decayed means of squared gradients."""
    losses: NDArray[np.float64]
    """[heads, 2]: minus the logarithm of the share of what came next: means lately, and usually."""
    trials: int = 0
    """Transitions learned from."""

    @classmethod
    def new(cls) -> "Fusion":
        known = np.stack([OF_ITEM, np.ones(_E, np.bool_)])
        weights = np.zeros((len(HEADS), len(FEATURES)))
        weights[:, 0] = 1.0
        return cls(
            known / known.sum(axis=1, keepdims=True), weights, np.full(weights.shape, 0.1),
            np.zeros((len(HEADS), 2)),
        )  # fmt: skip

    @property
    def eager(self) -> bool:
        """Whether there is much to learn: there were few transitions yet, or what comes next was
        harder to tell lately than usually, as the log is not what it was."""
        surprised = self.losses[:, 0] > self.losses[:, 1] + MARGIN
        return self.trials < YOUNG or bool(surprised.any())

    def ranks(self, found: Table, target: NDArray[np.int32], learns: bool) -> NDArray[np.int64]:
        """How many candidates come before each target, int64 [heads, q]; -1 if it is none.

        target int32 [q] are slots, -1 for one that is not known. If it `learns`, each question is
        ranked by what was learned from those before it.
        """
        out = np.full((len(HEADS), len(target)), -1, np.int64)
        trials = _ranks(
            found, target, self.shares, self.weights, self.squares, self.losses,
            USED.view(np.uint8), self.trials if learns else -1, _scratch(found), out,
        )  # fmt: skip
        self.trials = int(trials) if learns else self.trials
        return out

    def scores(self, found: Table, head: str) -> NDArray[np.float32]:
        """The logarithm of each candidate's share, up to a constant, float32 [n]."""
        out = np.empty(len(found.slot), np.float32)
        at = HEADS.index(head)
        _scores(found, self.shares[at], self.weights[at], _scratch(found), out)
        return out


def _scratch(found: Table) -> NDArray[np.float32]:
    """Room for the mixture and the scores of one question. Kernels have pointers to it, which keep
    nothing alive: so it is made, and kept, by their caller."""
    return np.empty((2, int(np.diff(found.begin).max(initial=0))), np.float32)


class Head(NamedTuple):
    """What one head has learned, as kernels take it: pointers."""

    pi: NDArray[np.float64]
    weights: NDArray[np.float64]
    squares: NDArray[np.float64]
    losses: NDArray[np.float64]
    used: NDArray[np.uint8]
    """Which features there are."""


class Shares(NamedTuple):
    """A table of n candidates as kernels take it: pointers (see `core.kernels.lanes`)."""

    weight: NDArray[np.float32]
    """What each candidate stands for."""
    share: NDArray[np.float32]
    root: NDArray[np.float32]
    score: NDArray[np.float32]


@INLINED
def _says(m, begin, size, n, found):  # type: ignore[no-untyped-def]
    """Whether expert m has anything to say of a question."""
    return weighted_sum(found.share, m * n + begin, found.weight, begin, size) > F32(0.0)


@INLINED
def _feature(f, begin, n):  # type: ignore[no-untyped-def]
    """Where the column of feature f > 0 of a question begins: in the roots, or, negative, in the
    scores, one less than 0 being its first."""
    if f <= _ROOTS:
        return (f - 1) * n + begin
    return -1 - ((f - 1 - _ROOTS) * n + begin)


@PASS
def _score(begin, size, n, found, pi, weights, logs, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The regression's scores of `size` candidates into `out`, and the logarithm of the mixture of
    those experts that have anything to say into `logs`. Returns their part of pi."""
    for i in range(size):
        logs[i] = F32(0.0)
    there = 0.0
    for m in range(_E):
        if pi[m] > 0.0 and _says(m, begin, size, n, found):
            there += pi[m]
            part, at = F32(pi[m]), m * n + begin
            for i in range(size):
                logs[i] += part * found.share[at + i]
    scale = F32(1.0 / there) if there > 0.0 else F32(0.0)
    first = F32(weights[0])
    for i in range(size):
        logs[i] = np.log(scale * logs[i] + LEAST)
        out[i] = first * logs[i]
    for f in range(1, _F):
        weight, at = F32(weights[f]), _feature(f, begin, n)
        if weight != F32(0.0) and at >= 0:
            for i in range(size):
                out[i] += weight * found.root[at + i]
        elif weight != F32(0.0):
            for i in range(size):
                out[i] += weight * found.score[i - 1 - at]
    return there


@PASS
def _learn(begin, size, n, goal, there, found, head, trials, logs, score, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Learn that it was `goal`, after so many trials; `logs` and `score` are as `_score` left
    them."""
    pi, weights, squares, losses = head.pi, head.weights, head.squares, head.losses
    top = score[0]
    for i in range(size):
        top = max(top, score[i])
    loss = np.float64(top - score[goal])
    for i in range(size):
        score[i] = np.exp(score[i] - top)
    total = weighted_sum(score, 0, found.weight, begin, size)
    for i in range(size):
        score[i] *= found.weight[begin + i]
    loss = min(loss + np.log(np.float64(total)), LOST)
    if not np.isfinite(loss):
        return
    losses[0] += LATELY * (loss - losses[0])
    sooner = min(1.0 + SOONER * max(losses[0] - losses[1] - MARGIN, 0.0), SOONEST)
    losses[1] += max(USUALLY, 1.0 / (1.0 + trials)) * (loss - losses[1])
    forgets, rate = FORGETS * sooner, RATE * np.sqrt(sooner)
    # The gradient of the logarithm of the goal's share, by the weights.
    for f in range(_F):
        if head.used[f] != 0:
            at = _feature(f, begin, n)
            if f == 0:
                own, mean = logs[goal], weighted_sum(score, 0, logs, 0, size)
            elif at >= 0:
                own, mean = found.root[at + goal], weighted_sum(score, 0, found.root, at, size)
            else:
                at = -1 - at
                own, mean = found.score[at + goal], weighted_sum(score, 0, found.score, at, size)
            g = np.float64(own) - np.float64(mean) / np.float64(total)
            squares[f] += forgets * (g * g - squares[f])
            weights[f] += rate * g / np.sqrt(squares[f] + 1e-4)
    # EM: experts with nothing to say keep their parts.
    known = (np.exp(np.float64(logs[goal])) - LEAST) * there
    if known > 0.0:
        sum_of_all = 0.0
        for m in range(_E):
            if pi[m] > 0.0:
                if _says(m, begin, size, n, found):
                    part = pi[m] * found.share[m * n + begin + goal] / known
                    pi[m] = max(pi[m] + forgets * (part * there - pi[m]), 1e-6)
                sum_of_all += pi[m]
        for m in range(_E):
            pi[m] /= sum_of_all


@PASS
def _ranks(  # type: ignore[no-untyped-def]
    table, target, pi, weights, squares, losses, used, trials, scratch, out, sources=SOURCES,
):  # fmt: skip
    n = len(table.slot)
    found = pointers(Shares(table.stands_for, table.share, table.root, table.score))
    slot, learns = pointer(table.slot), trials >= 0
    logs, score = pointer(scratch[0]), pointer(scratch[1])
    for q in range(len(target)):
        begin, goal = table.begin[q], -1
        size = table.begin[q + 1] - begin
        for i in range(size):
            if slot[begin + i] == target[q]:
                goal = i
        if goal < 0 or target[q] < 0:
            continue
        for h in range(len(pi)):
            head = pointers(Head(pi[h], weights[h], squares[h], losses[h], used[h]))
            there = _score(begin, size, n, found, head.pi, head.weights, logs, score)
            before = 0
            for i in range(size):
                # A score that is no number comes last, so that hit rates show it.
                tied = score[i] == score[goal] and slot[begin + i] >= target[q]
                before += not (score[i] < score[goal] or tied)
            out[h, q] = before
            if learns:
                _learn(begin, size, n, goal, there, found, head, trials, logs, score)
        trials += learns
    return trials


@PASS
def _scores(table, pi, weights, scratch, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    found = pointers(Shares(table.stands_for, table.share, table.root, table.score))
    n = len(table.slot)
    logs = pointer(scratch[0])
    for q in range(len(table.begin) - 1):
        begin = table.begin[q]
        size = table.begin[q + 1] - begin
        _score(
            begin, size, n, found, pointer(pi), pointer(weights), logs,
            pointer(out[begin:]),
        )  # fmt: skip
