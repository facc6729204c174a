"""Row-wise Adagrad that forgets.

A step of a row is rate g / sqrt(initial + A), where A sums the mean squares of its gradients
(Duchi, Hazan and Singer, JMLR 12, 2011, in its row-wise form), each of which loses half its weight
in a half-life: A(t) = sum over i of g_i^2 2^(-(t - t_i) / half_life). If nothing lost weight, steps
would only become smaller, and an old model would need many times as long to follow its items as a
young one.

Decay is forward (see `core.graph.graph`): accumulators stand as they would be at the landmark, the
last whole half-life of the log's time. So within a half-life no row is multiplied down, and at its
end all are halved, which loses nothing but what is next to nothing (TINY).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import NEVER

TINY = np.float32(2.0**-100)
"""What decays to less than it becomes 0: numbers below float32's normal ones would be rounded, and
halved twice they may differ from what they are if quartered at once."""


class Pace(NamedTuple):
    """How far rows move, as kernels take it: along a gradient g by step g / sqrt(floor + stored),
    where `stored` has grown by gain g^2."""

    rate: np.float32
    """That of what has no accumulator."""
    step: np.float32
    gain: np.float32
    """By how much what is added now is more than what was added at the landmark."""
    floor: np.float32

    @classmethod
    def of(cls, rate: float, initial: float, since_landmark: float = 0.0) -> "Pace":
        """`since_landmark` is in half-lives."""
        gain = 2.0**since_landmark
        return cls(
            np.float32(rate), np.float32(rate * math.sqrt(gain)), np.float32(gain),
            np.float32(initial * gain),
        )  # fmt: skip


def rescaled(
    stored: NDArray[np.float32], landmark: NDArray[np.int64], written: NDArray[np.int64], to: int,
    half_life: int, time: int,
) -> NDArray[np.float32]:  # fmt: skip
    """As `decayed`, of rows that were written under the half-lives `written` int64 [n], ms: up to
    now, `time`, they went by those."""
    out = decayed(stored, landmark, to, half_life)
    other = (written != half_life) & (landmark != NEVER)
    if not other.any() or time == NEVER:
        return out
    since = np.maximum(time - landmark[other], 0) / np.maximum(written[other], 1)
    now = stored[other] * np.exp2(-np.where(written[other] > 0, since, 0.0))
    out = out.copy()
    out[other] = now * (2.0 ** ((time - to) / half_life) if half_life else 1.0)
    return out


def landmark_of(time: int, half_life: int) -> int:
    """The landmark of accumulators at this time, ms; the time itself if they never forget."""
    return time if half_life == 0 or time == NEVER else time // half_life * half_life


def decayed(
    stored: NDArray[np.float32], landmark: NDArray[np.int64], to: int, half_life: int
) -> NDArray[np.float32]:
    """Sums on the scale of a later landmark `to` (ms); `landmark` int64 says on which each stands,
    or all do. Exact where whole half-lives lie between; what has no landmark, or a later one, stays
    as it is."""
    if half_life == 0 or to == NEVER:
        return stored
    known = np.where(landmark == NEVER, to, landmark)
    between = np.maximum(to - known, 0)
    whole, rest = np.divmod(between, half_life)
    part = np.exp2(-rest / half_life).astype(np.float32)
    out = np.ldexp(stored * part, -np.minimum(whole, 1000).astype(np.int32))
    return np.where((out < TINY) & (between > 0), np.float32(0), out)
