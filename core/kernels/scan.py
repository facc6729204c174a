"""Scans of rows in memory, 16 entries at a time, inside kernels.

numba turns a loop of unknown length into vectors and a tail of single entries, and rows are mostly
tail. Here the tail is one more vector. Sums are taken in one fixed order, so that results are the
same to the bit on every machine.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from core.kernels.lanes import (
    INLINED,
    declared,
    fill16,
    filli16,
    fma,
    load16,
    loadi16,
    lowest,
    on_memory,
    same,
    shuffle,
    spread,
    total,
)

LANES = 16
"""Entries of a vector, float32 or int32. Entry i of a row is in lane i % LANES."""

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_INTS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)


@INLINED
def find(memory, at, n, wanted):  # type: ignore[no-untyped-def]
    """The index of the first `wanted` of memory[at : at + n], int32; -1 if it is not there.

    It reads whole vectors, up to LANES - 1 entries past the end. Nothing that it reads may have
    been written just before: a wide load waits for narrow stores in flight.
    """
    everywhere = filli16(wanted)
    for i in range(at, at + n, LANES):
        lane = lowest(same(loadi16(memory, i), everywhere))
        if lane < LANES:
            return i + lane if i + lane < at + n else -1
    return -1


@INLINED
def weighted_sum(x, a, y, b, n):  # type: ignore[no-untyped-def]
    """The sum of x[a + i] y[b + i] for i < n, float32."""
    lanes, whole = fill16(np.float32(0.0)), n // LANES * LANES
    for i in range(0, whole, LANES):
        lanes = fma(load16(x, a + i), load16(y, b + i), lanes)
    out = total(lanes)
    for i in range(whole, n):
        out += x[a + i] * y[b + i]
    return out


def _lane_sums(builder: Any, row: Any, n: Any, out: Any) -> None:
    zeros = ir.Constant(_FLOATS, [0.0] * LANES)
    each, step = ir.Constant(_INTS, list(range(LANES))), ir.Constant(_I64, LANES)
    total = cgutils.alloca_once_value(builder, zeros)  # type: ignore[no-untyped-call]
    with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), n, step) as (at, _):
        # Zeros past the end of the row.
        left = spread(builder, builder.trunc(builder.sub(n, at), _I32), LANES)
        mask = builder.icmp_signed("<", each, left)
        pointer = builder.bitcast(builder.gep(row, [at]), _FLOATS.as_pointer())
        kind = ir.FunctionType(_FLOATS, [pointer.type, _I32, mask.type, _FLOATS])
        load = declared(builder, kind, f"llvm.masked.load.v{LANES}f32.p0")
        part = builder.call(load, [pointer, ir.Constant(_I32, 4), mask, zeros])
        builder.store(builder.fadd(builder.load(total), part), total)
    lanes = builder.load(total)
    shift = 1
    while shift < LANES:
        order = [LANES] * shift + list(range(LANES - shift))
        lanes = builder.fadd(lanes, shuffle(builder, lanes, zeros, order))
        shift *= 2
    builder.store(lanes, builder.bitcast(out, _FLOATS.as_pointer()), align=4)


lane_sums = on_memory(5, types.void, _lane_sums)
"""(wgt, base, n, sums, at): sums[at + i] = the sum of lanes 0 to i of wgt[base : base + n].

Both float32.
"""


def _lanes_up_to(builder: Any, sums: Any, left: Any) -> Any:
    lanes = builder.load(builder.bitcast(sums, _FLOATS.as_pointer()), align=4)
    mask = builder.fcmp_ordered("<=", lanes, spread(builder, left, LANES))
    return builder.zext(builder.ctpop(builder.bitcast(mask, _I16)), _I64)


lanes_up_to = on_memory(3, types.int64, _lanes_up_to)
"""(sums, at, left): how many of the LANES entries sums[at:] are at most `left`, float32."""


@nb.njit(cache=True, nogil=True)
def rank(scores, own, at):  # type: ignore[no-untyped-def]
    """How many of scores [n], without scores[own], come before scores[at]; of equals the first."""
    goal = scores[at]
    before = 0
    for j in range(at):
        before += scores[j] >= goal
    for j in range(at + 1, len(scores)):
        before += scores[j] > goal
    if own < at:
        before -= scores[own] >= goal
    else:
        before -= scores[own] > goal
    return before
