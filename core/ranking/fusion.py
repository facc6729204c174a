"""The fused ranker: a mixture of the experts, and a softmax regression on top of it.

The mixture p(b) = sum of pi_m p_m(b) says what is likely; its pi follow the log by online EM (Cappe
and Moulines, "On-line expectation-maximization algorithm for latent data models", JRSS B 71, 2009),
each expert's share moving towards what of the target it accounts for. The regression (a
conditional logit over the candidates, trained by a step of RMSprop for each target) then learns
what a mixture cannot say: that an item which an expert puts high comes sooner than the mixture has
it, or, as where nobody buys a thing twice, later.

Both learn from transitions that were ranked before: nothing is learned from the future.
"""

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import SOURCES
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
LEAST = np.float32(1e-9)
"""Added to the mixture before its logarithm is taken."""

USED = np.ones((len(HEADS), len(FEATURES)), np.bool_)
"""[heads, features]: by the last item alone, nothing is known of the session."""
USED[0, 1:-2] = OF_ITEM[[EXPERTS.index(name) for name in (*COUNTED, *HEAT)]]
USED[0, -1] = False
_E = len(EXPERTS)


@dataclass
class Fusion:
    """What the ranker has learned, by head."""

    shares: NDArray[np.float64]
    """[heads, experts]: pi; each row sums to 1."""
    weights: NDArray[np.float64]
    """[heads, features]"""
    squares: NDArray[np.float64]
    """[heads, features]: decayed means of squared gradients."""
    trials: int = 0
    """Transitions learned from."""

    @classmethod
    def new(cls) -> "Fusion":
        known = np.stack([OF_ITEM, np.ones(_E, np.bool_)])
        weights = np.zeros((len(HEADS), len(FEATURES)))
        weights[:, 0] = 1.0
        return cls(known / known.sum(axis=1, keepdims=True), weights, np.full(weights.shape, 0.1))

    def ranks(self, found: Table, target: NDArray[np.int32], learns: bool) -> NDArray[np.int64]:
        """How many candidates come before each target, int64 [heads, q]; -1 if it is none.

        target int32 [q] are slots, -1 for one that is not known. If it `learns`, each question is
        ranked by what was learned from those before it.
        """
        out = np.full((len(HEADS), len(target)), -1, np.int64)
        self.trials += int(
            _ranks(found, target, self.shares, self.weights, self.squares, learns, out)
        )
        return out

    def scores(self, found: Table, head: str) -> NDArray[np.float32]:
        """The logarithm of each candidate's share, up to a constant, float32 [n]."""
        out, mixture = np.empty((2, len(found.slot)), np.float32)
        at = HEADS.index(head)
        for begin, end in zip(found.begin[:-1].tolist(), found.begin[1:].tolist(), strict=True):
            _score(
                begin, end, found, self.shares[at], self.weights[at], mixture[begin:end],
                out[begin:end],
            )  # fmt: skip
        return out


@nb.njit(nogil=True, cache=True)
def _score(begin, end, found, pi, weights, logs, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    """The regression's scores into out [n], and the logarithm of the mixture of those experts that
    have anything to say into `logs`. Returns their part of pi."""
    logs[:] = 0.0
    there = 0.0
    for m in range(_E):
        share, total = found.share[m, begin:end], np.float32(0.0)
        if pi[m] > 0.0:
            for i in range(len(share)):
                total += share[i]
        if total > 0.0:
            there += pi[m]
            part = np.float32(pi[m])
            for i in range(len(share)):
                logs[i] += part * share[i]
    scale = np.float32(1.0 / there) if there > 0.0 else np.float32(0.0)
    first = np.float32(weights[0])
    for i in range(len(out)):
        logs[i] = np.log(scale * logs[i] + LEAST)
        out[i] = first * logs[i]
    for f in range(1, len(weights)):
        weight, column = np.float32(weights[f]), _feature(f, begin, end, found)
        if weight != 0.0:
            for i in range(len(out)):
                out[i] += weight * column[i]
    return there


@nb.njit(nogil=True, cache=True)
def _feature(f, begin, end, found):  # type: ignore[no-untyped-def]
    """The column of feature f > 0."""
    if f <= len(found.root):
        return found.root[f - 1, begin:end]
    return found.score[f - 1 - len(found.root), begin:end]


@nb.njit(nogil=True, cache=True)
def _learn(begin, end, goal, there, found, pi, used, weights, squares, logs, score):  # type: ignore[no-untyped-def]
    """Learn that of these candidates it was `goal`; `logs` and `score` are as `_score` left them,
    and `used` says which features there are."""
    top, total = score.max(), np.float32(0.0)
    for i in range(len(score)):
        score[i] = np.exp(score[i] - top) * found.stands_for[begin + i]
        total += score[i]
    # The gradient of the logarithm of the goal's share, by the weights.
    for f in range(len(weights)):
        if used[f]:
            column = logs if f == 0 else _feature(f, begin, end, found)
            mean = np.float32(0.0)
            for i in range(len(score)):
                mean += score[i] * column[i]
            g = np.float64(column[goal]) - np.float64(mean) / np.float64(total)
            squares[f] += FORGETS * (g * g - squares[f])
            weights[f] += RATE * g / np.sqrt(squares[f] + 1e-4)
    # EM: experts with nothing to say keep their parts.
    known = (np.exp(np.float64(logs[goal])) - LEAST) * there
    if known > 0.0:
        for m in range(_E):
            if pi[m] > 0.0:
                says = np.float32(0.0)
                share = found.share[m, begin:end]
                for i in range(len(share)):
                    says += share[i]
                if says > 0.0:
                    part = pi[m] * share[goal] / known
                    pi[m] = max(pi[m] + FORGETS * (part * there - pi[m]), 1e-6)
        pi /= pi.sum()


@nb.njit(nogil=True, cache=True)
def _ranks(found, target, pi, weights, squares, learns, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    learned = 0
    for q in range(len(target)):
        begin, end = found.begin[q], found.begin[q + 1]
        slot, goal = found.slot[begin:end], -1
        for i in range(len(slot)):
            if slot[i] == target[q]:
                goal = i
        if goal < 0 or target[q] < 0:
            continue
        logs, score = np.empty((2, len(slot)), np.float32)
        for h in range(len(pi)):
            there = _score(begin, end, found, pi[h], weights[h], logs, score)
            before = 0
            for i in range(len(slot)):
                tied = score[i] == score[goal] and slot[i] < target[q]
                before += score[i] > score[goal] or tied
            out[h, q] = before
            if learns:
                _learn(
                    begin, end, goal, there, found, pi[h], USED[h], weights[h], squares[h], logs,
                    score,
                )  # fmt: skip
        learned += learns
    return learned
