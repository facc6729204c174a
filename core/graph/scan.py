"""Scans of a row of the graph, a cache line at a time, as LLVM vectors inside numba kernels.

numba turns a loop of unknown length into vectors and a tail of single entries, and rows are mostly
tail. Here the last vector is masked, so that nothing past the row is read. What is added up is
added in one fixed order: results are the same to the bit on every machine.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Entries of a vector, float32 or int32. Entry i of a row is in lane i % LANES."""

_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
_INTS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(ir.FloatType(), LANES)
_EACH = ir.Constant(_INTS, list(range(LANES)))
_ZERO, _STEP = ir.Constant(_I64, 0), ir.Constant(_I64, LANES)


def _intrinsic(returns: types.Type, operands: tuple[types.Type, ...], emit: Callable[..., Any]):  # type: ignore[no-untyped-def]
    """What numba asks of an intrinsic; `emit(builder, *values)` gets an array as its pointer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, values, strict=True)
        ]
        made = emit(builder, *given)
        return context.get_dummy_value() if returns is types.void else made

    return returns(*operands), generate


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(_INTS, order))


def _everywhere(builder: Any, value: Any) -> Any:
    lanes = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    one = builder.insert_element(lanes, value, ir.Constant(_I32, 0))
    return _shuffle(builder, one, one, [0] * LANES)


def _vector(builder: Any, data: Any, at: Any, lanes: ir.Type) -> Any:
    return builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())


def _declared(builder: Any, kind: ir.FunctionType, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]


def _load(builder: Any, data: Any, at: Any, left: Any, lanes: ir.Type) -> tuple[Any, Any]:
    """The entries from data[at] on, 0 after the first `left`, and the mask of those."""
    mask = builder.icmp_signed("<", _EACH, _everywhere(builder, builder.trunc(left, _I32)))
    pointer = _vector(builder, data, at, lanes)
    kind = ir.FunctionType(lanes, [pointer.type, _I32, mask.type, lanes])
    name = f"llvm.masked.load.v{LANES}{'f' if lanes is _FLOATS else 'i'}32.p0"
    values = pointer, ir.Constant(_I32, 4), mask, ir.Constant(lanes, [0] * LANES)
    return builder.call(_declared(builder, kind, name), values), mask


def _lane_sums(typingctx: Any, wgt: Any, base: Any, n: Any, sums: Any, row: Any) -> Any:
    def emit(builder: Any, wgt: Any, base: Any, n: Any, sums: Any, row: Any) -> None:
        zeros = ir.Constant(_FLOATS, [0.0] * LANES)
        total = cgutils.alloca_once_value(builder, zeros)  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, _ZERO, n, _STEP) as (at, _):
            part, _ = _load(builder, wgt, builder.add(base, at), builder.sub(n, at), _FLOATS)
            builder.store(builder.fadd(builder.load(total), part), total)
        lanes = builder.load(total)
        shift = 1
        while shift < LANES:
            order = [LANES] * shift + list(range(LANES - shift))
            lanes = builder.fadd(lanes, _shuffle(builder, lanes, zeros, order))
            shift *= 2
        builder.store(lanes, _vector(builder, sums, builder.mul(row, _STEP), _FLOATS), align=4)

    return _intrinsic(types.void, (wgt, types.int64, types.int64, sums, types.int64), emit)


def _lanes_up_to(typingctx: Any, sums: Any, row: Any, left: Any) -> Any:
    def emit(builder: Any, sums: Any, row: Any, left: Any) -> Any:
        lanes = builder.load(_vector(builder, sums, builder.mul(row, _STEP), _FLOATS), align=4)
        mask = builder.fcmp_ordered("<=", lanes, _everywhere(builder, left))
        return builder.zext(builder.ctpop(builder.bitcast(mask, _I16)), _I64)

    return _intrinsic(types.int64, (sums, types.int64, types.float32), emit)


def _find(typingctx: Any, nbr: Any, base: Any, n: Any, wanted: Any) -> Any:
    def emit(builder: Any, nbr: Any, base: Any, n: Any, wanted: Any) -> Any:
        everywhere = _everywhere(builder, wanted)
        found = cgutils.alloca_once_value(builder, ir.Constant(_I64, -1))  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, _ZERO, n, _STEP) as (at, _):
            place = builder.add(base, at)
            part, mask = _load(builder, nbr, place, builder.sub(n, at), _INTS)
            same = builder.and_(builder.icmp_signed("==", part, everywhere), mask)
            hits = builder.bitcast(same, _I16)
            with builder.if_then(builder.icmp_unsigned("!=", hits, ir.Constant(_I16, 0))):
                lane = builder.zext(builder.cttz(hits, ir.Constant(_I1, 1)), _I64)
                builder.store(builder.add(place, lane), found)
        return builder.load(found)

    return _intrinsic(types.int64, (nbr, types.int64, types.int64, types.int32), emit)


def _prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    def emit(builder: Any, data: Any, at: Any) -> None:
        pointer = builder.bitcast(builder.gep(data, [at]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        read, into_first_cache, as_data = (ir.Constant(_I32, x) for x in (0, 3, 1))
        prefetch = _declared(builder, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [pointer, read, into_first_cache, as_data])

    return _intrinsic(types.void, (array, types.int64), emit)


lane_sums: Any = intrinsic(_lane_sums)
"""(wgt, base, n, sums, row): sums[row, i] = the sum of lanes 0 to i of wgt[base : base + n].

wgt float32; sums float32 [rows, LANES]; both contiguous.
"""
lanes_up_to: Any = intrinsic(_lanes_up_to)
"""(sums, row, left): how many entries of sums[row] are at most `left`."""
find: Any = intrinsic(_find)
"""(nbr, base, n, wanted): the index of `wanted` in nbr[base : base + n], int32, -1 if not there.

No two entries of a row are equal.
"""
prefetch: Any = intrinsic(_prefetch)
"""(array, at): ask for the cache line of array[at]. It need not exist."""
