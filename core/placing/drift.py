"""How far rows moved since they were last published: read once, from memory, and no more.

It is asked of every row that a commit's rounds touched, most of them negatives whose context vector
moved a little, so it costs what reading the rows costs.
"""

import numpy as np
from numpy.typing import NDArray

from core.kernels.lanes import (
    PASS,
    SOURCES,
    address,
    fill16,
    fma,
    load16,
    loadh16,
    pointer,
    pointers,
    prefetch,
    total,
)
from core.learning.dense import F32
from core.learning.mixing import hidden_vector
from core.model import Model

AHEAD = 4
"""The memory of the row that comes so many later is asked for."""


@PASS
def _drift(slots, rows, pub_v, pub_u, share, h, drift, lengths, sources=SOURCES):  # type: ignore[no-untyped-def]
    """Of each slot: the larger drift of V and U into drift [n], their lengths into lengths [n, 2].

    pub_v and pub_u are the published unit rows, float16 as uint16.
    """
    n = len(slots)
    rows, slots, share, h = pointers(rows), pointer(slots), pointer(share), pointer(h)
    pub_v, pub_u = pointer(pub_v), pointer(pub_u)
    drift, lengths = pointer(drift), pointer(lengths)
    d = 16 * len(rows.wide)
    for i in range(n):
        if i + AHEAD < n:
            begin = np.int64(slots[i + AHEAD]) * d
            for x in range(begin, begin + d, 16):
                prefetch(address(rows.v, x))
                prefetch(address(rows.u, x))
            for x in range(begin, begin + d, 32):
                prefetch(address(pub_v, x))
                prefetch(address(pub_u, x))
        slot = slots[i]
        at = np.int64(slot) * d
        hidden_vector(rows, slot, share, 0, h, 0)
        v_v = v_p = p_p = u_u = u_q = q_q = fill16(F32(0))
        for x in range(len(rows.wide)):
            v, p = load16(h, 16 * x), loadh16(pub_v, at + 16 * x)
            u, q = load16(rows.u, at + 16 * x), loadh16(pub_u, at + 16 * x)
            v_v, v_p, p_p = fma(v, v, v_v), fma(v, p, v_p), fma(p, p, p_p)
            u_u, u_q, q_q = fma(u, u, u_u), fma(u, q, u_q), fma(q, q, q_q)
        furthest = F32(0)
        for k in range(2):
            square = total(v_v) if k == 0 else total(u_u)
            inner = total(v_p) if k == 0 else total(u_q)
            was = total(p_p) if k == 0 else total(q_q)
            length = np.sqrt(square)
            lengths[2 * i + k] = length
            one = F32(1) if length > F32(0) else F32(0)
            cosine = inner / length if length > F32(0) else F32(0)
            furthest = max(furthest, F32(0.5) * (one + was) - cosine)
        drift[i] = furthest


def drift(
    model: Model, slots: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far rows moved, float32 [n], and how long they are, float32 [n, 2] (hidden, context).

    The drift of a vector is half the squared distance of its unit row from the one last published,
    which is the cosine distance of two unit rows and 0 for two rows of zeros; of V and U the larger
    counts.
    """
    r, c = model.rows, model.columns
    out, lengths = np.empty(len(slots), np.float32), np.empty((len(slots), 2), np.float32)
    share, h = np.empty(r.mix.shape[1], np.float32), np.empty(r.v.shape[1], np.float32)
    pub_v, pub_u = c.pub_v.view(np.uint16), c.pub_u.view(np.uint16)
    slots = np.ascontiguousarray(slots, np.int32)
    _drift(slots, r.tables(), pub_v, pub_u, share, h, out, lengths)
    return out, lengths
