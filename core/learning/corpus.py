"""What skip-gram reads: walks on the graph, sessions, or both.

walks      DeepWalk (Perozzi et al., KDD 2014): sentences are random walks, with p and q those of
           node2vec (Grover and Leskovec, KDD 2016). What many users did together reaches items that
           no session has side by side.
sessions   What users did, and nothing else. A pair of items is learned when the later one comes,
           both ways: so each pair of a session is learned once, in whatever rounds it was clicked.
  window     word2vec (Mikolov et al., NIPS 2013): the `model.window` items before it
  set        item2vec (Barkan and Koenigstein, MLSP 2016): all items before it, in no order
  shuffle    item2vec's cheaper twin, sessions that are shuffled and then have a window: as many of
             the items before it as a window has, by lot

A session's sentence is a star: its first item meets the others, and these do not meet each other,
as they did so when they came. A session remembers its last 16 items, so that `set` is the whole of
a session up to 17 items long, and the last 16 items before each of a longer one.

Subsampling (word2vec's source, `word2vec.c`): an item that is a share f of all clicks is kept in a
sentence with probability min(1, sqrt(t / f) + t / f), and what is left moves together. Clicks are
decayed counts, so that an item is frequent as long as it is.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from core.graph.sessions import REMEMBERED
from core.settings import CorpusSettings, Settings

SHUFFLED, SAMPLED_WALKS, SAMPLED_STARS = 1001, 1003, 1004
"""Purpose numbers of this module's random streams."""

Slots = NDArray[np.int32]


def _window(history: Slots, window: int, rng: np.random.Generator) -> Slots:
    return history[:, :window]


def _set(history: Slots, window: int, rng: np.random.Generator) -> Slots:
    return history


def _shuffle(history: Slots, window: int, rng: np.random.Generator) -> Slots:
    lot = rng.random(history.shape)
    lot[history < 0] = 2.0
    return np.take_along_axis(history, np.argsort(lot, axis=1)[:, :window], axis=1)


SESSIONS: dict[str, Callable[[Slots, int, np.random.Generator], Slots]] = {
    "window": _window,
    "set": _set,
    "shuffle": _shuffle,
}
"""Which of the items before it each item meets: of int32 [n, 16], newest first, -1 past the end."""


class Corpus:
    """Makes the sentences of a round."""

    def __init__(self, settings: Settings) -> None:
        self.settings: CorpusSettings = settings.corpus
        self.window, self.seed = settings.model.window, settings.model.seed

    @property
    def has_walks(self) -> bool:
        return self.settings.kind != "sessions"

    @property
    def has_sessions(self) -> bool:
        return self.settings.kind != "walks"

    @staticmethod
    def reach(settings: Settings) -> int:
        """How many items before a click the corpus asks for."""
        if settings.corpus.kind == "walks":
            return 0
        window = settings.model.window if settings.corpus.session == "window" else REMEMBERED
        return min(window, REMEMBERED)

    @property
    def shrinks(self) -> bool:
        """Whether items of a session are nearer to each other or further apart."""
        return self.settings.session == "window"

    def stars(self, history: Slots, target: Slots, round_number: int) -> Slots:
        """The sentences of what continued sessions: int32 [n, 1 + reach], the new item first.

        history int32 [n, reach], newest first and -1 past the end; target int32 [n].
        """
        rng = self._rng(round_number, SHUFFLED)
        met = SESSIONS[self.settings.session](history, self.window, rng)
        return np.column_stack([target, met]).astype(np.int32)

    def sampled(
        self, sentences: Slots, counts: NDArray[np.float32], total: float, round_number: int,
        are_stars: bool,
    ) -> Slots:  # fmt: skip
        """The sentences, int32 [n, length] of slots with -1 past the end, without what subsampling
        leaves out. counts float32 [slots], `total` their sum. A star without its first item is no
        sentence."""
        t = self.settings.subsample
        if t == 0.0 or total <= 0.0 or sentences.size == 0:
            return sentences
        there = sentences >= 0
        rng = self._rng(round_number, SAMPLED_STARS if are_stars else SAMPLED_WALKS)
        kept = there & (rng.random(sentences.shape) < keep(counts[sentences] / total, t))
        if are_stars:
            kept &= kept[:, :1]
        order = np.argsort(~kept, axis=1, kind="stable")
        out = np.where(kept, sentences, -1)
        return np.take_along_axis(out, order, axis=1).astype(np.int32)

    def _rng(self, round_number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, round_number, purpose])


def keep(share: NDArray[np.float64] | NDArray[np.float32], t: float) -> NDArray[np.float64]:
    """How likely a token of an item that is such a share of all clicks is kept."""
    ratio = t / np.maximum(np.asarray(share, np.float64), np.finfo(np.float64).tiny)
    return np.minimum(1.0, np.sqrt(ratio) + ratio)
