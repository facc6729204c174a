"""What products of a narrow and a wide table are made of: rows of pairs and quads, tiles, and sums.

They are numba values as those of `core.kernels.lanes`, and each is the few shuffles that LLVM makes
the best instructions of.
"""

from typing import Any

from llvmlite import ir
from numba import types

from core.kernels.lanes import (
    FLOAT8,
    FLOAT16,
    I64,
    load,
    on_memory,
    on_values,
    shuffle,
    spread,
    store,
)

_FOUR = ir.VectorType(ir.FloatType(), 4)


def _spread_pair(builder: Any, pointer: Any) -> Any:
    two = builder.load(builder.bitcast(pointer, ir.DoubleType().as_pointer()), align=4)
    return builder.bitcast(spread(builder, two, 8), FLOAT16.ir)


spread_pair = on_memory(2, FLOAT16, _spread_pair)
"""memory[at], memory[at + 1], eight times."""
spread_quad = on_memory(
    2,
    FLOAT16,
    lambda b, p: shuffle(b, four := load(b, p, _FOUR), four, list(range(4)) * 4),
)
"""memory[at], ..., memory[at + 3], four times."""


def _turn_pairs(builder: Any, pointer: Any, stride: Any, out: Any) -> None:
    wide = ir.VectorType(ir.DoubleType(), 8)
    rows = [builder.gep(pointer, [builder.mul(stride, ir.Constant(I64, r))]) for r in range(8)]
    x = [load(builder, row, wide) for row in rows]
    for step in (1, 2, 4):  # swap blocks of `step` across the diagonal
        y = list(x)
        for r in range(8):
            if r & step == 0:
                even = [c if c & step == 0 else 8 + c - step for c in range(8)]
                odd = [c + step if c & step == 0 else 8 + c for c in range(8)]
                y[r] = shuffle(builder, x[r], x[r + step], even)
                y[r + step] = shuffle(builder, x[r], x[r + step], odd)
        x = y
    for r in range(8):
        store(builder, builder.gep(out, [ir.Constant(I64, 16 * r)]), x[r])


def _turn_quads(builder: Any, pointer: Any, stride: Any, out: Any) -> None:
    rows = [builder.gep(pointer, [builder.mul(stride, ir.Constant(I64, r))]) for r in range(4)]
    x = [load(builder, row, FLOAT16.ir) for row in rows]
    for i in range(4):
        part = [4 * i + b for b in range(4)] + [16 + 4 * i + b for b in range(4)]
        first, second = (shuffle(builder, x[r], x[r + 1], part) for r in (0, 2))
        both_halves = shuffle(builder, first, second, list(range(16)))
        store(builder, builder.gep(out, [ir.Constant(I64, 16 * i)]), both_halves)


turn_quads = on_memory(5, types.void, _turn_quads)
"""(x, at, stride, out, where): out[where + 16 i + 4 r + b] = x[at + r stride + 4 i + b].

r, i and b in 0 .. 3.
"""
turn_pairs = on_memory(5, types.void, _turn_pairs)
"""(x, at, stride, out, where): out[where + 16 i + 2 r + b] = x[at + r stride + 2 i + b].

r and i in 0 .. 7, b in 0, 1: a tile of 8 x 8 pairs, turned round.
"""


def _totals(builder: Any, pointer: Any) -> Any:
    def merge(a: Any, b: Any) -> Any:
        """Sums of neighbours within a and b: [a01 a23 b01 b23 | a45 a67 b45 b67]."""
        even = shuffle(builder, a, b, [0, 2, 8, 10, 4, 6, 12, 14])
        odd = shuffle(builder, a, b, [1, 3, 9, 11, 5, 7, 13, 15])
        return builder.fadd(even, odd)

    rows = [builder.gep(pointer, [ir.Constant(I64, 8 * r)]) for r in range(8)]
    x = [load(builder, row, FLOAT8.ir) for row in rows]
    while len(x) > 2:
        x = [merge(a, b) for a, b in zip(x[::2], x[1::2], strict=True)]
    low_half = shuffle(builder, x[0], x[1], [0, 1, 2, 3, 8, 9, 10, 11])
    high_half = shuffle(builder, x[0], x[1], [4, 5, 6, 7, 12, 13, 14, 15])
    return builder.fadd(low_half, high_half)


totals8 = on_memory(2, FLOAT8, _totals)
"""Lane r is the sum of memory[at + 8 r : at + 8 r + 8]."""


fold_pairs = on_values(
    1,
    lambda x: FLOAT8,
    lambda b, x: b.fadd(
        shuffle(b, x, x, list(range(0, 16, 2))), shuffle(b, x, x, list(range(1, 16, 2)))
    ),
)
"""Lane c is the sum of lanes 2 c and 2 c + 1 of x."""


def _fold_quads(builder: Any, x: Any, y: Any) -> Any:
    parts = [shuffle(builder, x, y, list(range(b, 32, 4))) for b in range(4)]
    return builder.fadd(builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3]))


fold_quads = on_values(2, lambda x, y: FLOAT8, _fold_quads)
"""Lane c is the sum of lanes 4 c to 4 c + 3 of x, and lane 4 + c that of y's."""
