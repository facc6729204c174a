"""What the kernels of learning work in: made once for each call and thread, and kept by the caller.

No loop allocates, and a kernel may take pointers into it (see `core.kernels.lanes`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUP = 8
"""Contexts of a group of `core.learning.walk_pass`, one a lane."""


class WalkScratch(NamedTuple):
    """What a thread works in. A local row is the first position of an item in the walk, or longest
    + the number of a negative that is not in it."""

    home: NDArray[np.int64]  # of local rows: offset in u, accumulator now and before, owner's mark,
    # group, row
    acc: NDArray[np.float32]
    was: NDArray[np.float32]
    own: NDArray[np.uint8]
    stamp: NDArray[np.int64]
    row_of: NDArray[np.int32]
    tokens: NDArray[np.int32]  # of positions: items, and the first positions of these
    local: NDArray[np.int32]
    order: NDArray[np.int32]  # of a block's contexts: positions, as they share groups
    place: NDArray[np.float32]  # of lanes: positions and items
    context: NDArray[np.int32]
    negative: NDArray[np.int32]  # of a block's negatives: items and local rows
    negative_row: NDArray[np.int32]
    allowed: NDArray[np.float32]  # of a group's contexts with the block's negatives: 0 or 1
    drawn: NDArray[np.int32]  # negatives of this walk and of the next
    ask: NDArray[np.int64]  # addresses of rows to ask for
    ids: NDArray[np.int32]  # of a group's rows: local row, its offset in u, accumulator, step
    by_owner: NDArray[np.int32]
    at: NDArray[np.int64]
    accs: NDArray[np.float32]
    sums: NDArray[np.float32]
    wanted: NDArray[np.float32]  # of a group's pairs: a, a + b, score and gradient, g^2, step
    both_weights: NDArray[np.float32]
    score: NDArray[np.float32]
    energy: NDArray[np.float32]
    step: NDArray[np.float32]
    h: NDArray[np.float32]  # of a group's contexts
    turned: NDArray[np.float32]
    grad: NDArray[np.float32]
    share: NDArray[np.float32]
    square: NDArray[np.float32]
    positives: NDArray[np.float32]  # how many
    mean: NDArray[np.float32]  # of a block's hidden vectors; and one of these
    one: NDArray[np.float32]


def for_walks(longest: int, block: int, draws: int, d: int, slots: int, start: int) -> WalkScratch:
    """For walks of at most `longest` items. `start` is an address that may be asked for."""
    local, most = longest + block, longest + block + 8
    negatives = max(1, longest // block) * block * draws
    one = np.float32(1)

    def floats(n: int) -> NDArray[np.float32]:
        return np.zeros(n, np.float32)

    def ints(n: int) -> NDArray[np.int32]:
        return np.full(n, -1, np.int32)

    return WalkScratch(
        home=np.zeros(local, np.int64),
        acc=floats(local) + one,
        was=floats(local),
        own=np.zeros(local, np.uint8),
        stamp=np.full(local, -1, np.int64),
        row_of=ints(local),
        tokens=ints(longest + 16),
        local=ints(longest),
        order=ints(longest + GROUP),
        place=floats(GROUP),
        context=ints(GROUP),
        negative=ints((block + 15) // 16 * 16),
        negative_row=ints(block),
        allowed=floats(8 * block),
        drawn=np.zeros(2 * negatives, np.int32),
        # `apply` may read past the end of the list; what is there are addresses of an earlier walk.
        ask=np.full(2 * longest + negatives + most, start, np.int64),
        ids=ints(most),
        by_owner=ints(most + 1),
        at=np.zeros(most + 4, np.int64),
        accs=floats(most) + one,
        sums=floats(most),
        wanted=floats(8 * most),
        both_weights=floats(8 * most),
        score=floats(8 * most),
        energy=floats(8 * most),
        step=floats(8 * most),
        h=floats(GROUP * d),
        turned=floats(GROUP * d),
        grad=floats(GROUP * d),
        share=floats(GROUP * (1 + slots)),
        square=floats(16),
        positives=floats(GROUP),
        mean=floats(d),
        one=floats(d),
    )


class SessionScratch(NamedTuple):
    """What the kernel works in."""

    drawn: NDArray[np.int32]
    slot: NDArray[np.int32]  # of candidates: item, target, log of how many it stands for, e^score
    y: NDArray[np.float32]
    offset: NDArray[np.float32]
    p: NDArray[np.float32]
    dots: NDArray[np.float32]  # 1 / |V|, 1 / |U|, and the two parts of the score
    halves: NDArray[np.float32]
    h: NDArray[np.float32]
    moved_v: NDArray[np.float32]
    share: NDArray[np.float32]
    own: NDArray[np.float32]  # of the item that asks: hidden vector, V^, V^ + U^, gradients
    unit: NDArray[np.float32]
    sum: NDArray[np.float32]
    grad_v: NDArray[np.float32]
    grad_u: NDArray[np.float32]
    moved_u: NDArray[np.float32]
    own_share: NDArray[np.float32]


def for_sessions(length: int, neighbours: int, k: int, d: int, slots: int) -> SessionScratch:
    """For sessions of at most `length` items, and so many neighbours and negatives of each."""
    most = length + neighbours + k + 1
    own, unit, both, grad_v, grad_u, moved_u = np.zeros((6, d), np.float32)
    return SessionScratch(
        drawn=np.zeros(k, np.int32),
        slot=np.zeros(most, np.int32),
        y=np.zeros(most, np.float32),
        offset=np.zeros(most, np.float32),
        p=np.zeros(most, np.float32),
        dots=np.zeros(4 * most + 4, np.float32),
        halves=np.zeros(64, np.float32),
        h=np.zeros(most * d, np.float32),
        moved_v=np.zeros(most * d, np.float32),
        share=np.zeros(most * (1 + slots), np.float32),
        own=own,
        unit=unit,
        sum=both,
        grad_v=grad_v,
        grad_u=grad_u,
        moved_u=moved_u,
        own_share=np.zeros(1 + slots, np.float32),
    )
