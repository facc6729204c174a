"""Vectors of 8 and 16 numbers as numba values, so that a kernel says itself what is in a register.

Each function is one or a few LLVM instructions, put in place of the call. Memory is named by an
array, contiguous and of one dimension, or a pointer, and by `at`, which counts its elements; no
bounds are checked. Large kernels work on pointers, because numba counts references to arrays,
atomically and also in loops; what a pointer points into is kept alive by the kernel's caller.

There is no fastmath: `fma` rounds once and sums have a fixed order, so that a kernel's results are
the same bits whether it was compiled or loaded. A CPU with narrower registers gets each vector as
several.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numba as nb
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import populate_array

PASS: Any = nb.njit(error_model="numpy", cache=True, nogil=True)
"""A kernel. Its last parameter is `sources=SOURCES`."""
INLINED: Any = nb.njit(error_model="numpy", forceinline=True)
"""Part of a kernel, in place of each call."""


def _sources() -> int:
    """A digest of every module in the wings of `core`: each may hold parts of a kernel."""
    core = Path(__file__).resolve().parents[1]
    return crc32(b"".join(module.read_bytes() for module in sorted(core.glob("*/*.py"))))


SOURCES = _sources()
"""The source that kernels are compiled from, inlined parts included. numba's cache notices a change
of the kernel's own file only. It looks kernels up by their signature, defaults of parameters
included: so each kernel has this as a default."""


def _forgiving(load: Callable[[Any], dict[Any, Any]]) -> Callable[[Any], dict[Any, Any]]:
    """Reads an index of numba's cache as empty if it names a class that is not there any more.

    The index holds the types of arguments, NamedTuples too, and is unpickled before its age is
    looked at: without this, a start after an upgrade that renamed one would fail.
    """

    def load_index(cache: Any) -> dict[Any, Any]:
        try:
            return load(cache)
        except (AttributeError, ImportError):
            return {}

    return load_index


IndexDataCacheFile._load_index = _forgiving(IndexDataCacheFile._load_index)  # type: ignore[method-assign]

_F32, _I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_NONE = ir.Undefined
_ELEMENT = {"float": _F32, "int": _I32, "bool": ir.IntType(1)}


def _vector(kind: str, n: int) -> ir.VectorType:
    return ir.VectorType(_ELEMENT[kind], n)


class Lanes(types.Type):
    """n lanes of float32 ("float"), int32 ("int") or bool ("bool")."""

    def __init__(self, kind: str, n: int) -> None:
        self.kind, self.n = kind, n
        super().__init__(name=f"{kind}x{n}")

    @property
    def ir(self) -> ir.VectorType:
        return _vector(self.kind, self.n)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.ir)  # type: ignore[no-untyped-call]


FLOAT8, FLOAT16 = Lanes("float", 8), Lanes("float", 16)
_INT8, _INT16 = Lanes("int", 8), Lanes("int", 16)


def _intrinsic(arity: int, define: Callable[..., Any]) -> Any:
    """The intrinsic of define(*operand types); numba wants a definition that names its operands."""
    named: dict[int, Callable[..., Any]] = {
        1: lambda typingctx, a: define(a),
        2: lambda typingctx, a, b: define(a, b),
        3: lambda typingctx, a, b, c: define(a, b, c),
        5: lambda typingctx, a, b, c, d, e: define(a, b, c, d, e),
    }
    return intrinsic(named[arity])


def on_values(arity: int, returns: Callable[..., types.Type], emit: Callable[..., Any]) -> Any:
    """An intrinsic on values: `returns` of the operands' types, `emit(builder, *values)`."""

    def define(*operands):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
            return emit(builder, *values)

        return returns(*operands)(*operands), codegen

    return _intrinsic(arity, define)


def on_memory(arity: int, returns: types.Type, emit: Callable[..., Any]) -> Any:
    """An intrinsic on memory: `emit(builder, *values)`, a pointer and its `at` as one."""

    def define(*operands):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
            given, data = [], None
            for kind, value in zip(operands, values, strict=True):
                if isinstance(kind, types.CPointer):
                    data = value
                elif isinstance(kind, types.Array):
                    data = context.make_array(kind)(context, builder, value).data
                elif isinstance(kind, types.Integer):
                    index = context.cast(builder, value, kind, types.intp)
                    given.append(builder.gep(data, [index]) if data is not None else index)
                    data = None
                else:
                    given.append(value)
            made = emit(builder, *given)
            return context.get_dummy_value() if returns is types.void else made

        return returns(*operands), codegen

    return _intrinsic(arity, define)


def spread(builder: Any, value: Any, n: int) -> Any:
    lanes = ir.VectorType(value.type, n)
    one = builder.insert_element(ir.Constant(lanes, _NONE), value, ir.Constant(_I32, 0))
    return shuffle(builder, one, one, [0] * n)


def shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))


def load(builder: Any, pointer: Any, lanes: ir.Type) -> Any:
    return builder.load(builder.bitcast(pointer, lanes.as_pointer()), align=4)


def store(builder: Any, pointer: Any, value: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


def _call(builder: Any, name: str, *values: Any) -> Any:
    lanes = values[0].type
    kind = ir.FunctionType(lanes, [lanes] * len(values))
    whole = f"llvm.{name}.v{lanes.count}f32"
    return builder.call(declared(builder, kind, whole), values)


def declared(builder: Any, kind: ir.FunctionType, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]


def _first(*operands: types.Type) -> types.Type:
    return operands[0]


def _mask(*operands: Lanes) -> Lanes:
    return Lanes("bool", operands[0].n)


# -- memory --------------------------------------------------------------------------------------


def _loader(lanes: Lanes) -> Any:
    return on_memory(2, lanes, lambda b, p: load(b, p, lanes.ir))


def _spreader(n: int) -> Any:
    return on_memory(2, Lanes("float", n), lambda b, p: spread(b, b.load(p, align=4), n))


def _bare(kind: types.Type) -> types.Type:
    """The type that a kernel has in place of an array: a pointer, whose bounds nobody checks.

    Where NUMBA_BOUNDSCHECK asks for checks, it is the array itself, of one dimension.
    """
    if not isinstance(kind, types.Array):
        return kind
    if config.BOUNDSCHECK:  # type: ignore[attr-defined]
        return kind.copy(ndim=1)
    return types.CPointer(kind.dtype)  # type: ignore[no-untyped-call]


def _laid_bare(context: Any, builder: Any, kind: types.Type, value: Any) -> Any:
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    if not config.BOUNDSCHECK:  # type: ignore[attr-defined]
        return array.data
    flat = context.make_array(_bare(kind))(context, builder)
    populate_array(
        flat, array.data, [array.nitems], [array.itemsize], array.itemsize, array.meminfo,
        array.parent,
    )  # type: ignore[no-untyped-call]  # fmt: skip
    context.nrt.incref(builder, _bare(kind), flat._getvalue())
    return flat._getvalue()


def _pointer(array: types.Array) -> Any:
    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return _laid_bare(context, builder, array, values[0])

    return _bare(array)(array), codegen


pointer = _intrinsic(1, _pointer)
"""To the first element of an array."""


def _pointers(tables: types.NamedTuple) -> Any:
    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        fields = cgutils.unpack_tuple(builder, values[0])  # type: ignore[no-untyped-call]
        made = [
            _laid_bare(context, builder, kind, field)
            for kind, field in zip(tables.types, fields, strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, made)

    fields = [_bare(kind) for kind in tables.types]
    return types.NamedTuple(fields, tables.instance_class)(tables), codegen  # type: ignore[no-untyped-call]


pointers = _intrinsic(1, _pointers)
"""A NamedTuple of arrays as one of pointers to their first elements; what is no array stays."""
load8, load16, loadi8, loadi16 = map(_loader, (FLOAT8, FLOAT16, _INT8, _INT16))
"""The lanes from memory[at] on: float32, or int32 with an i."""
loadh16 = on_memory(
    2,
    FLOAT16,
    lambda b, p: b.fpext(
        b.load(b.bitcast(p, ir.VectorType(ir.HalfType(), 16).as_pointer()), align=2), FLOAT16.ir
    ),
)
"""The lanes from memory[at] on, which holds the bits of float16 as uint16."""
store8 = store16 = on_memory(3, types.void, store)
"""Puts lanes into memory[at] and on: (memory, at, lanes)."""
spread8, spread16 = map(_spreader, (8, 16))
"""memory[at] in every lane."""
address = on_memory(2, types.int64, lambda b, p: b.ptrtoint(p, I64))
"""The address of memory[at]."""


def _prefetch(builder: Any, where: Any) -> None:
    pointer = builder.inttoptr(where, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    ask = declared(builder, kind, "llvm.prefetch.p0")
    read, into_all_caches, data = (ir.Constant(_I32, x) for x in (0, 3, 1))
    builder.call(ask, [pointer, read, into_all_caches, data])


prefetch = on_memory(1, types.void, _prefetch)
"""Ask for the cache line of an address."""


# -- values --------------------------------------------------------------------------------------


def _filler(lanes: Lanes, scalar: types.Type) -> Any:
    def define(value: types.Type) -> Any:
        def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
            return spread(builder, values[0], lanes.n)

        return lanes(scalar), codegen

    return _intrinsic(1, define)


fill8, fill16 = _filler(FLOAT8, types.float32), _filler(FLOAT16, types.float32)
filli8, filli16 = _filler(_INT8, types.int32), _filler(_INT16, types.int32)
"""A number in every lane."""

add = on_values(2, _first, lambda b, x, y: b.fadd(x, y))
sub = on_values(2, _first, lambda b, x, y: b.fsub(x, y))
mul = on_values(2, _first, lambda b, x, y: b.fmul(x, y))
div = on_values(2, _first, lambda b, x, y: b.fdiv(x, y))
fma = on_values(3, _first, lambda b, x, y, z: _call(b, "fma", x, y, z))
"""x y + z, rounded once."""
root = on_values(1, _first, lambda b, x: _call(b, "sqrt", x))
low = on_values(2, _first, lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y))
"""The smaller of each lane."""
high = on_values(2, _first, lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
"""The larger of each lane."""

same = on_values(2, _mask, lambda b, x, y: b.icmp_signed("==", x, y))
differ = on_values(2, _mask, lambda b, x, y: b.icmp_signed("!=", x, y))
"""Where integers are equal, and where not."""
positive = on_values(
    1, _mask, lambda b, x: b.fcmp_ordered(">", x, ir.Constant(x.type, [0.0] * x.type.count))
)
both = on_values(2, _mask, lambda b, x, y: b.and_(x, y))
pick = on_values(3, lambda mask, x, y: x, lambda b, mask, x, y: b.select(mask, x, y))
"""(mask, x, y): x where the mask holds, y elsewhere."""
lowest = on_values(
    1,
    lambda mask: types.int64,
    lambda b, mask: b.zext(
        b.cttz(b.bitcast(mask, ir.IntType(mask.type.count)), ir.Constant(ir.IntType(1), 0)), I64
    ),
)
"""The first lane in which a mask holds, the number of lanes if in none."""


def _sum(builder: Any, x: Any) -> Any:
    n = x.type.count
    while n > 1:
        n //= 2
        left = shuffle(builder, x, x, list(range(n)))
        x = builder.fadd(left, shuffle(builder, x, x, list(range(n, 2 * n))))
    return builder.extract_element(x, ir.Constant(_I32, 0))


total = on_values(1, lambda x: types.float32, _sum)
"""The sum of the lanes: halves, quarters and so on."""
