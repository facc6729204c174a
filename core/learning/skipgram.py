"""Skip-gram with negative sampling, incremental, with shared negatives and row-wise Adagrad.

Objective (Mikolov et al., "Distributed representations of words and phrases and their
compositionality", NIPS 2013): for a centre o and an item c of its window,
log s(h_c . u_o) + k E_n log s(-h_c . u_n). Here h is the item's hidden vector
(`core.learning.mixing`): its row of V, mixed with those of its attributes. Where windows shrink,
that of a pair has the weight 1 - (distance - 1) / window: word2vec draws the length of each window
from 1 to `window`, and this is how often the pair is then in it.

About `block` consecutive contexts of a walk share their negatives, as many as `block`. Each context
meets every negative of its block once, with weight positives * k / block, which is the plain
objective's weight in expectation; an item of its window is never its negative. Steps are those of
`core.learning.adagrad`.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from core.graph.slabs import Slabs
from core.kernels.lanes import INLINED, PASS, SOURCES, pointer, pointers
from core.learning import scratch, session_pass, walk_pass
from core.learning.adagrad import Pace
from core.learning.mixing import Tables, hidden_vector
from core.learning.negatives import Pool
from core.settings import ModelSettings

__all__ = [
    "INLINED", "KERNEL", "Pace", "Pool", "Rows", "hidden", "learn_sessions", "learn_walks",
]  # fmt: skip

KERNEL = nb.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
"""For kernels whose sums may be taken in any order, because nothing depends on their last bits."""


@dataclass
class Rows:
    """The learned rows, by slot, n of them.

    v, u float32 [n, d] are item and context vectors, d a multiple of 16; acc_v, acc_u float32 [n]
    their accumulators, on the scale of a landmark; mix float32 [n, 1 + S] the attribute weights a
    (before softmax), attrs int32 [n, S] the slots of an item's attributes, -1 where it has fewer;
    dirty bool [n] marks rows changed since the last commit; owned bool [n] those that learning may
    change at all: the others are read as their owners have published them. All are contiguous.
    """

    v: NDArray[np.float32]
    u: NDArray[np.float32]
    acc_v: NDArray[np.float32]
    acc_u: NDArray[np.float32]
    mix: NDArray[np.float32]
    attrs: NDArray[np.int32]
    dirty: NDArray[np.bool_]
    owned: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.v.shape[1] % 16:
            raise ValueError(f"vectors of {self.v.shape[1]} dims; kernels take multiples of 16")
        if not all(table.flags.c_contiguous for table in vars(self).values()):
            raise ValueError("rows must be contiguous: kernels take their address")

    def tables(self) -> Tables:
        """What kernels take."""
        return Tables(
            self.v, self.u, self.acc_v, self.acc_u, self.mix, self.attrs, self.dirty.view(np.uint8),
            self.owned.view(np.uint8), self.attrs.shape[1], (0,) * (self.v.shape[1] // 16),
        )  # fmt: skip


@PASS
def _hidden(slots, rows, share, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    rows, share, out = pointers(rows), pointer(share), pointer(out)
    for i in range(len(slots)):
        hidden_vector(rows, slots[i], share, 0, out, i * 16 * len(rows.wide))


def hidden(rows: Rows, slots: NDArray[np.int32]) -> NDArray[np.float32]:
    """The hidden vectors of items, float32 [len(slots), d]: rows of V without attributes."""
    d = rows.v.shape[1]
    slots = np.ascontiguousarray(slots, np.int32)
    out = np.empty((len(slots), d), np.float32)
    share = np.empty(rows.mix.shape[1], np.float32)
    _hidden(slots, rows.tables(), share, out)
    return out


def learn_walks(
    rows: Rows, walks: NDArray[np.int32], pool: Pool, *, seed: int, round_number: int, window: int,
    shrink: bool, negatives: int, block: int, hardest_of: int, pace: Pace,
    are_stars: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Learn from walks, int32 [n, length] of slots, -1 past the end. Changes `rows` in place.

    Of stars (`core.learning.corpus`) the first item and the others are in each other's windows, and
    nothing else is.
    `pool` is not empty. With more than one thread, blocks of walks run side by side without locks
    (Hogwild: Niu et al., NIPS 2011), and results depend on timing.
    """
    walks = np.ascontiguousarray(walks, np.int32)
    fade = 1 / window if shrink else 0.0
    window = min(window, walks.shape[1])
    rules = walk_pass.Rules(
        seed, round_number, window, np.float32(fade), negatives, block, hardest_of, pace,
        int(are_stars),
    )  # fmt: skip
    tables = rows.tables()
    d, slots = rows.v.shape[1], rows.attrs.shape[1]

    def work(begin: int, end: int) -> None:
        own = scratch.for_walks(walks.shape[1], block, hardest_of, d, slots, rows.v.ctypes.data)
        walk_pass.learn(walks[begin:end], begin, pool, tables, rules, own)

    _share_out(threads, len(walks), work)


def learn_sessions(
    rows: Rows, history: NDArray[np.int32], target: NDArray[np.int32], graph: Slabs, pool: Pool,
    settings: ModelSettings, *, round_number: int, pace: Pace, share: float = 1.0,
) -> None:  # fmt: skip
    """Bring the next item of each session to score best after the last one, and back
    (`core.learning.session_pass`).

    history int32 [n, length] of slots, newest first, -1 past the end; target int32 [n], -1 for
    none. `pool` is not empty. `share` of all rows are owned.
    """
    m = settings
    rules = session_pass.Rules(
        m.seed, round_number, m.session_passes, np.float32(m.session_decay), m.session_negatives,
        np.float32(m.sharpness), np.float32(share), pace,
    )  # fmt: skip
    own = scratch.for_sessions(
        history.shape[1],
        session_pass.NEIGHBOURS,
        m.session_negatives,
        rows.v.shape[1],
        rows.attrs.shape[1],
    )
    history, target = (
        np.ascontiguousarray(history, np.int32),
        np.ascontiguousarray(target, np.int32),
    )
    session_pass.learn(history, target, graph, pool, rows.tables(), rules, own)


def _share_out(threads: int, n: int, work: Any) -> None:
    if threads <= 1:
        work(0, n)
        return
    edges = np.linspace(0, n, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as executor:
        for done in [executor.submit(work, b, e) for b, e in pairwise(edges)]:
            done.result()
