"""Eight or sixteen floats at once, for the inner loops of kernels.

LLVM turns plain loops into vector code when it can prove enough about them, which it cannot in
the loops that matter most here: they carry a dozen sums from one round to the next. ``float8``
and ``float16`` are values of numba's own kinds that are always one vector. They take part in
``+ - * /`` and in comparisons, also with a plain float32, which then stands for as many equal
ones. Every operation rounds as IEEE says, so a lane gives the same bits wherever it stands;
``fma`` rounds once where the processor can, as all of today do.

Processors with smaller vectors take several of them. After a change to this file, delete the
``__pycache__`` folders of the kernels: numba's cache does not notice it (see kernels.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import overload, register_model
from numba.np.arrayobj import make_array

from renderers.kernels import kernel

LANES = 8
EDGE = 4
"""Sixteen floats are often a square of pixels: four rows of four."""
_INT = ir.IntType(32)
f32 = np.float32
intrinsic: Any = extending.intrinsic  # what it makes is called with other arguments than it takes


class _Floats(types.Type):
    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"float{lanes}")
        self.lanes, self.plain = lanes, ir.VectorType(ir.FloatType(), lanes)


class _Bools(types.Type):
    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"bool{lanes}")
        self.lanes, self.plain = lanes, ir.VectorType(ir.IntType(1), lanes)


_float8, _float16 = _Floats(LANES), _Floats(2 * LANES)


@register_model(_Floats)
@register_model(_Bools)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.plain)


def _operand(kind: types.Type) -> types.Type:
    return kind if isinstance(kind, _Floats) else types.float32


def _widened(builder: Any, kind: types.Type, value: Any, vector: Any) -> Any:
    """A vector as it is, a float32 in all lanes of ``vector``."""
    if isinstance(kind, _Floats):
        return value
    one = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(one, value, ir.Constant(_INT, 0))
    return _shuffled(builder, one, [0] * vector.count)


def _shuffled(builder: Any, value: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT, len(lanes)), lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _operation(
    emit: Callable[..., Any], arity: int, result: Callable[[int], types.Type] = _Floats
) -> Any:
    """An intrinsic on ``arity`` vectors or floats; ``emit`` writes its instruction."""

    def signed(kinds: tuple[types.Type, ...]) -> Any:
        vector = next(kind for kind in kinds if isinstance(kind, _Floats))

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pairs = zip(signature.args, args, strict=True)
            return emit(builder, *(_widened(builder, k, v, vector.plain) for k, v in pairs))

        return result(vector.lanes)(*map(_operand, kinds)), generate

    if arity == 1:
        return intrinsic(lambda typing, a: signed((a,)))
    if arity == 2:
        return intrinsic(lambda typing, a, b: signed((a, b)))
    return intrinsic(lambda typing, a, b, c: signed((a, b, c)))


def _llvm(name: str, *liberties: str) -> Callable[..., Any]:
    """Emit a call of LLVM's function of that name on vectors."""

    def emit(builder: Any, *values: Any) -> Any:
        vector = values[0].type
        kind = ir.FunctionType(vector, [vector] * len(values))
        function = cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.{name}.v{vector.count}f32"
        )
        return builder.call(function, values, fastmath=liberties)

    return emit


def _install(symbol: Any, function: Any) -> None:
    @overload(symbol)
    def chosen(a, b):
        vectors = {kind for kind in (a, b) if isinstance(kind, _Floats)}
        others = {a, b} - vectors
        if len(vectors) == 1 and all(isinstance(kind, types.Float) for kind in others):
            return lambda a, b: function(a, b)
        return None


for _names, _emit in (
    (("add", "iadd"), lambda builder, a, b: builder.fadd(a, b)),
    (("sub", "isub"), lambda builder, a, b: builder.fsub(a, b)),
    (("mul", "imul"), lambda builder, a, b: builder.fmul(a, b)),
    (("truediv", "itruediv"), lambda builder, a, b: builder.fdiv(a, b)),
):
    for _name in _names:
        _install(getattr(operator, _name), _operation(_emit, 2))
for _name, _symbol in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
    _install(
        getattr(operator, _name),
        _operation(lambda builder, a, b, s=_symbol: builder.fcmp_ordered(s, a, b), 2, _Bools),
    )

fma = _operation(_llvm("fmuladd"), 3)
"""a * b + c."""
absolute = _operation(_llvm("fabs"), 1)
root = _operation(_llvm("sqrt"), 1)
smaller = _operation(lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y), 2)
"""Per lane; the second where either is NaN."""
larger = _operation(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y), 2)
"""Per lane; the second where either is NaN."""
most = _operation(_llvm("maxnum", "nnan", "nsz"), 2)
"""Per lane, where neither is NaN. What is chosen between a number in memory and another, and stored
there again, becomes a masked store with :func:`select` or :func:`larger`: slow on many machines."""


def _lanes(values: list[float]) -> Any:
    """An intrinsic that gives these numbers, one per lane."""

    def typed(typing: Any) -> Any:
        kind = _Floats(len(values))
        return kind(), lambda context, builder, signature, args: ir.Constant(kind.plain, values)

    return intrinsic(typed)


count_up = _lanes([float(lane) for lane in range(LANES)])
"""0, 1, ... 7."""
square_columns = _lanes([float(lane % EDGE) for lane in range(2 * LANES)])
"""Column of each lane of a square: 0, 1, 2, 3, 0, 1, ..."""
square_rows = _lanes([float(lane // EDGE) for lane in range(2 * LANES)])
"""Row of each lane of a square: 0, 0, 0, 0, 1, 1, ..."""


def _spreading(kind: _Floats) -> Any:
    def typed(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _widened(builder, types.float32, args[0], kind.plain)

        return kind(types.float32), generate

    return intrinsic(typed)


spread, spread16 = _spreading(_float8), _spreading(_float16)
"""A float32 in all lanes."""


def _pointer(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any = _float8.plain
) -> Any:
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _loading(kind: _Floats) -> Any:
    def typed(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values, at = args
            place = _pointer(context, builder, signature.args[0], values, at, kind.plain)
            return builder.load(place, align=4)

        return kind(array, index), generate

    return intrinsic(typed)


load, load16 = _loading(_float8), _loading(_float16)
"""Neighbours in a contiguous float32 array, from the one at ``index`` on. Bounds are not
checked."""


@intrinsic
def store(typing, array, index, value):
    """The reverse of :func:`load`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, at, value = args
        place = _pointer(context, builder, signature.args[0], values, at, value.type)
        builder.store(value, place, align=4)
        return context.get_dummy_value()

    return types.none(array, index, value), generate


@intrinsic
def load_rows(typing, array, index):
    """Eight rows of three numbers, one behind the other, as their x, y and z. See :func:`load`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, (values, at) = signature.args[0], args
        places = (builder.add(at, ir.Constant(at.type, LANES * part)) for part in range(3))
        a, b, c = (
            builder.load(_pointer(context, builder, kind, values, place), align=4)
            for place in places
        )
        columns = []
        for axis in range(3):
            found = range(axis, 3 * LANES, 3)  # where this axis stands in the three vectors
            front = [lane if lane < 2 * LANES else 0 for lane in found]
            both = _mixed(builder, a, b, front)
            last = [place if lane < 2 * LANES else lane - LANES for place, lane in enumerate(found)]
            columns.append(_mixed(builder, both, c, last))
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(_float8, 3)(array, index), generate


@intrinsic
def fetch(typing, array, index):
    """Ask memory for an item of a contiguous array, at most a cache line, that is needed soon."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        item = builder.gep(make_array(kind)(context, builder, args[0]).data, [args[1]])
        first = builder.bitcast(item, cgutils.voidptr_t)
        last = builder.gep(first, [ir.Constant(_INT, kind.dtype.bitwidth // 8 - 1)])
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        for end in (first, last):
            builder.call(prefetch, [end, *(ir.Constant(_INT, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(array, index), generate


@intrinsic
def select(typing, mask, a, b):
    """``a`` in the lanes where ``mask`` holds, ``b`` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = (
            _widened(builder, kind, value, _Floats(mask.lanes).plain)
            for kind, value in zip(signature.args[1:], args[1:], strict=True)
        )
        return builder.select(args[0], *found)

    return _Floats(mask.lanes)(mask, _operand(a), _operand(b)), generate


@intrinsic
def both(typing, a, b):
    """Lanes where two masks hold."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(*args)

    return a(a, b), generate


@intrinsic
def any_lane(typing, mask):
    """Whether the mask holds anywhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(mask.lanes), 0))

    return types.boolean(mask), generate


@intrinsic
def total(typing, a):
    """Sum of all lanes, by halves: always in the same order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = args[0]
        for half in (4, 2, 1):
            turned = _shuffled(builder, value, [(lane + half) % LANES for lane in range(LANES)])
            value = builder.fadd(value, turned)
        return builder.extract_element(value, ir.Constant(_INT, 0))

    return types.float32(a), generate


def _mixed(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Lanes of two vectors; those of the second count on from the end of the first."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(lanes)), lanes))


@intrinsic
def folded(typing, a, b):
    """Both halves of sixteen lanes added, of two vectors: those of ``a`` first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (a, b), lower = args, [*range(LANES), *range(2 * LANES, 3 * LANES)]
        upper = [lane + LANES for lane in lower]
        return builder.fadd(_mixed(builder, a, b, lower), _mixed(builder, a, b, upper))

    return _float16(a, b), generate


@intrinsic
def halves(typing, a):
    """The first and the last eight of sixteen lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = [_shuffled(builder, args[0], [*range(up, up + LANES)]) for up in (0, LANES)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(_float8, 2)(a), generate


@intrinsic
def totals(typing, a, b, c, d, e, f, g, h):
    """Sums of all lanes of eight vectors, one per lane: neighbours first, then by halves."""
    steps = (
        ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
        ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
        ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = list(args)
        for evens, odds in steps:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [
                builder.fadd(_mixed(builder, x, y, evens), _mixed(builder, x, y, odds))
                for x, y in pairs
            ]
        return values[0]

    return _float8(a, b, c, d, e, f, g, h), generate


@kernel(fast=True)
def aligned(count):
    """Room for so many float32, where every sixteenth begins a line of the cache."""
    room = np.empty(count + 2 * LANES, f32)
    skip = (64 - room.ctypes.data % 64) // 4
    return room[skip : skip + count]


# 2^(8 s) = p(s)^8, where p is the polynomial of degree 5 that fits 2^s on [-1, 0] best (Remez
# exchange, relative error 7.5e-8). The powers of 8 turn p(s) into a polynomial of 8 s.
_P0 = f32(0.9999999250635262)
_P1 = f32(0.6931422525933734 / 8**1)
_P2 = f32(0.2401721892495853 / 8**2)
_P3 = f32(0.05527972258362717 / 8**3)
_P4 = f32(0.009188611733260795 / 8**4)
_P5 = f32(0.0009387883376086673 / 8**5)


@kernel(fast=True)
def exp2(t):
    """2^t for t in [-8, 0], to 6e-7; beyond, some finite or infinite number."""
    tt = t * t
    p = fma(tt, fma(tt, fma(t, _P5, _P4), fma(t, _P3, _P2)), fma(t, _P1, _P0))
    p = p * p
    p = p * p
    return p * p
