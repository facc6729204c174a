"""How much of the model moves between one publish and the next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.rounds import Changes
from streamer.evaluate.past import Past

NEAREST = 10
"""Neighbours of an item that are compared."""
SAMPLE = 32
"""Touched items, and as many untouched ones, whose neighbours are compared at a publish."""


@dataclass(frozen=True)
class Step:
    """From one publish to the next. Means over items, NaN where there are none.

    An item is touched if it was clicked since the publish before. Cosines are of its V^ at the two;
    overlap is the share of its ten nearest items by that cosine, among all of both, that
    stayed among them.
    """

    click: int
    """The number of clicks so far."""
    clicks: int
    """Those since the publish before."""
    touched: int
    untouched: int
    """Items published by both, by whether they were touched."""
    cosine_touched: float
    cosine_untouched: float
    overlap_touched: float
    overlap_untouched: float
    moved_clusters: float
    """Share of the known items whose cluster is another."""
    moved_keys: float
    """Share of the bucket keys of the known items, one for each table, that are others."""
    fitted: bool
    """It brought new centroids: the first, or those of a major update."""


class Stability:
    """Compares each publish with the one before."""

    def __init__(self, seed: int) -> None:
        self.steps: list[Step] = []
        self._rng = np.random.default_rng(seed)
        self._numbers: NDArray[np.int32] = np.zeros(0, np.int32)
        self._vectors = np.zeros((0, 0), np.float32)
        self._epoch = self._clicks = 0

    def observe(self, engine: Engine, past: Past, changes: Changes) -> None:
        """Take a publish in; `past.touched` starts anew."""
        items = engine.items[engine.model.columns.published[engine.items] > 0]
        numbers = past.vocabulary.intern(engine.vocabulary.names(items))
        vectors = unit_rows(hidden(engine.model.rows, items))
        _, now, before = np.intersect1d(numbers, self._numbers, return_indices=True)
        if len(now):
            touched = np.isin(numbers[now], np.fromiter(past.touched, np.int32, len(past.touched)))
            self.steps.append(
                self._step(engine, past, changes, vectors[now], self._vectors[before], touched)
            )
        past.touched.clear()
        self._numbers, self._vectors = numbers, vectors
        self._epoch, self._clicks = engine.placement.epoch, past.clicks

    def _step(
        self, engine: Engine, past: Past, changes: Changes, now: NDArray[np.float32],
        before: NDArray[np.float32], touched: NDArray[np.bool_],
    ) -> Step:  # fmt: skip
        cosine = np.einsum("nd,nd->n", now, before)
        overlaps = []
        for kind in (touched, ~touched):
            at = np.flatnonzero(kind)
            at = self._rng.choice(at, min(SAMPLE, len(at)), replace=False)
            overlaps.append(_mean(_overlap(now, before, at)))
        return Step(
            click=past.clicks,
            clicks=past.clicks - self._clicks,
            touched=int(touched.sum()),
            untouched=int((~touched).sum()),
            cosine_touched=_mean(cosine[touched]),
            cosine_untouched=_mean(cosine[~touched]),
            overlap_touched=overlaps[0],
            overlap_untouched=overlaps[1],
            moved_clusters=changes.cluster_moves / len(now),
            moved_keys=changes.bucket_moves / (len(now) * engine.settings.lsh.tables),
            fitted=engine.placement.epoch != self._epoch,
        )


def _overlap(
    now: NDArray[np.float32], before: NDArray[np.float32], at: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Share of the nearest of items `at` that are the same in both, float64 [len(at)]."""
    k = min(NEAREST, len(now) - 1)
    if k < 1:
        return np.zeros(0)
    near = []
    for vectors in (now, before):
        cosine = vectors[at] @ vectors.T
        cosine[np.arange(len(at)), at] = -np.inf
        near.append(np.argpartition(-cosine, k - 1, axis=1)[:, :k])
    same = (near[0][:, :, None] == near[1][:, None, :]).any(axis=2)
    share: NDArray[np.float64] = same.mean(axis=1)
    return share


def _mean(x: NDArray[np.floating]) -> float:
    return float(x.mean()) if len(x) else float("nan")
