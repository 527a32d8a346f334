"""Promotes every floating-point value of a kernel to f64, for float64 references (docs/numerics/concepts.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, math

from torchport.errors import UnsupportedOperation
from torchport_passes.arithmetic.noise import Noise, full
from torchport_passes.arithmetic.pairs import load_apart
from torchport_passes.arithmetic.rounding import LIMITS
from torchport_passes.arithmetic.types import (
    PromotedOp,
    from_format,
    narrow_float,
    promoted,
    retype,
    retype_function,
    shaped,
    to_format,
)
from torchport_passes.ir.ops import element_type, matching, text_attribute
from torchport_passes.ir.traits import CONVERSIONS
from torchport_passes.ir.types import Module, Op, Type, Value
from torchport_passes.scalar.mathlib.symbols import function_of_symbol
from torchport_passes.tensor import dot_scaled
from torchport_passes.tensor.decompose_dot import dot

__all__ = ["Promote", "restore_extremes"]

_FLOATS = re.compile(r"^(\*?)(?:fp\d\w*|bf16|f8\w+)$")


@dataclass(frozen=True)
class Promote:
    """Make every value, block argument, constant and pointee of type f32, f16, bf16 or an 8-bit float an f64.

    Takes imported TTIR with pointees (``import_ttir(keep_pointees=True)``). Leaves imported TTIR whose floats are f64,
    and whose pointers count f64 elements. Conversions between floats are removed (those to 8 bits saturate), and
    constants keep their value. Where the bits of a float are used, it is rounded to its original type, and converted
    back from it.

    ``noise``: move the result of every operation that rounds in its original type by up to that rounding's error
    (``noise.py``). Kernels get two more arguments, an i64 seed and an f64 scale.
    ``ulp``: errors of functions that differ from the default, ``exp:2;sin:4``.
    ``casts``: whether conversions to narrower types count as operations that round.

    Two 16-bit floats that are loaded as one i32 are loaded apart (``pairs.py``).

    Raises UnsupportedOperation for pointers stored in memory or used as pointers to other types.
    """

    name: ClassVar[str] = "promote"

    noise: bool = False
    ulp: str = ""
    casts: bool = True

    def signature(self, types: Sequence[str]) -> list[str]:
        """Triton's types of the arguments that the kernel takes then, from those that it took."""
        return [_FLOATS.sub(r"\1fp64", type_) for type_ in types] + (["i64", "fp64"] if self.noise else [])

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            _decompose_scaled_dots(module)
            restore_extremes(module)
            load_apart(module)
            noise = Noise.of(module, self.ulp, casts=self.casts) if self.noise else None
            promoted_ops = [PromotedOp.of(op) for op in matching(module, "builtin.module".__ne__)]
            for promoted_op in promoted_ops:
                retype(promoted_op.op, promoted)
            for promoted_op in promoted_ops:
                with ir.InsertionPoint(promoted_op.op):
                    _HANDLERS.get(promoted_op.op.name, _keep)(promoted_op)
                if noise is not None:
                    noise.add(promoted_op)
                if promoted_op.replacement is not None:
                    promoted_op.op.results[0].replace_all_uses_with(promoted_op.replacement)
                    promoted_op.op.erase()


def _decompose_scaled_dots(module: Module) -> None:
    for op in matching(module, "tt.dot_scaled".__eq__):
        with ir.InsertionPoint(op):
            op.results[0].replace_all_uses_with(dot_scaled.lower(op, dot))
        op.erase()


_EXTREMES = {"max": "max", "umin": "max", "min": "min", "umax": "min"}


def restore_extremes(module: Module) -> None:
    """Replace the integer atomics by which Triton's frontend expresses maxima and minima of floats.

    They are signed for positive numbers, and unsigned ones of the other kind for negative numbers (Triton 3.6 and 3.7,
    ``semantic.py``).
    """
    for cast in matching(module, "tt.bitcast".__eq__):
        if "pointees" not in cast.attributes or narrow_float(_pointees(cast)[0]) is None:
            continue
        for use in list(cast.results[0].uses):
            atomic = use.owner.operation
            kind = text_attribute(atomic, "rmw") if atomic.name == "tt.atomic_rmw" else ""
            if kind not in _EXTREMES:
                continue
            bits: Any = atomic.operands[1].owner
            if getattr(bits, "name", "") != "tt.bitcast":
                continue
            number = bits.operands[0]
            attributes = {"rmw": ir.StringAttr.get(_EXTREMES[kind]), "sem": atomic.attributes["sem"]}
            operands = [cast.operands[0], number, *list(atomic.operands)[2:]]
            with ir.InsertionPoint(atomic):
                old = ir.Operation.create("tt.atomic_rmw", [number.type], operands, attributes).results[0]
                old = ir.Operation.create("tt.bitcast", [atomic.results[0].type], [old]).results[0]
            atomic.results[0].replace_all_uses_with(old)
            atomic.erase()
        if not list(cast.results[0].uses):
            cast.erase()


def _pointees(cast: Op) -> list[Type]:
    return [ir.TypeAttr(a).value for a in ir.ArrayAttr(cast.attributes["pointees"])]


def _keep(promoted_op: PromotedOp) -> None:
    """Only types change."""


def _function(promoted_op: PromotedOp) -> None:
    retype_function(promoted_op.op, promoted)


def _constant(promoted_op: PromotedOp) -> None:
    op = promoted_op.op
    if promoted_op.results[0] is None:
        return
    type_, value, f64 = op.results[0].type, op.attributes["value"], ir.F64Type.get()
    if isinstance(value, ir.FloatAttr):
        op.attributes["value"] = ir.FloatAttr.get(f64, value.value)
        return
    if value.is_splat:
        scalar = ir.FloatAttr.get(f64, ir.FloatAttr(value.get_splat_value()).value)
        op.attributes["value"] = ir.DenseElementsAttr.get_splat(type_, scalar)
    else:
        scalars = [ir.FloatAttr.get(f64, number) for number in ir.DenseFPElementsAttr(value)]
        op.attributes["value"] = ir.DenseElementsAttr.get(scalars, type_)


def _pointer_step(promoted_op: PromotedOp) -> None:
    op = promoted_op.op
    if "pointee" not in op.attributes:
        raise UnsupportedOperation("tt.addptr", "promotion needs pointees, and this TTIR was imported without them")
    pointee = ir.TypeAttr(op.attributes["pointee"]).value
    if narrow_float(pointee) is not None:
        op.attributes["elem_bytes"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 8)
    del op.attributes["pointee"]


def _conversion(promoted_op: PromotedOp) -> None:
    """A conversion between floating-point types is removed; one to 8 bits saturates, but for infinities."""
    value, (source,), (result,) = promoted_op.op.operands[0], promoted_op.operands, promoted_op.results
    promoted_op.replacement = value
    if result is None or result.width > 8 or result == source:
        return
    largest = LIMITS[str(result)].maximum
    infinite = arith.CmpFOp(arith.CmpFPredicate.OEQ, math.absf(value), full(value.type, inf)).result
    at_least = arith.MaximumFOp(value, full(value.type, -largest)).result
    limited = arith.MinimumFOp(at_least, full(value.type, largest)).result
    promoted_op.replacement = arith.SelectOp(infinite, value, limited).result


def _bits(promoted_op: PromotedOp) -> None:
    """A bitcast converts floats to their original type before, and from it after."""
    op, source, result = promoted_op.op, promoted_op.operands[0], promoted_op.results[0]
    if "pointees" in op.attributes:
        old, new = _pointees(op)
        if old != new and (narrow_float(old) is not None or narrow_float(new) is not None):
            raise UnsupportedOperation("tt.bitcast", f"a pointer to {old} is used as one to {new}")
        del op.attributes["pointees"]
    if source is None and result is None:
        return
    value = op.operands[0]
    if source is not None:
        value = to_format(value, source)
    target = element_type(op.results[0].type) if result is None else result
    if element_type(value.type) != target:
        value = ir.Operation.create(op.name, [shaped(op.results[0].type, target)], [value]).results[0]
    promoted_op.replacement = value if result is None else from_format(value)


_AS_BITS = {"float_as_int", "float_as_uint", "int_as_float", "uint_as_float", "nextafter"}
"""Functions of the bits of a format, computed in that format."""


def _extern(promoted_op: PromotedOp) -> None:
    """A library function becomes the f64 function of the same name."""
    op = promoted_op.op
    formats = [f for f in (*promoted_op.operands, *promoted_op.results) if f is not None]
    if not formats:
        return
    function = function_of_symbol(text_attribute(op, "symbol"))
    if function in _AS_BITS:
        operands = [v if f is None else to_format(v, f) for v, f in zip(op.operands, promoted_op.operands, strict=True)]
        result = promoted_op.results[0]
        type_ = op.results[0].type if result is None else shaped(op.results[0].type, result)
        attributes = {name: op.attributes[name] for name in ("libname", "libpath", "pure", "symbol")}
        value = ir.Operation.create(op.name, [type_], operands, attributes).results[0]
        promoted_op.replacement = value if result is None else from_format(value)
        return
    stem, _, mode = function.rpartition("_")
    if stem == "double2float":
        promoted_op.replacement = op.operands[0]
        return
    if mode in _MODES and stem in _DIRECTED:
        function = _DIRECTED[stem]
        if "." in function:
            operands = _reciprocal(op) if stem == "rcp" else list(op.operands)
            promoted_op.replacement = ir.Operation.create(function, [op.results[0].type], operands).results[0]
            return
    op.attributes["symbol"] = ir.StringAttr.get(f"tp_{function}_f64")


_MODES = ("rn", "rz", "rd", "ru")
_DIRECTED = {
    "add": "arith.addf", "sub": "arith.subf", "mul": "arith.mulf", "div": "arith.divf", "rcp": "arith.divf",
    "sqrt": "math.sqrt", "fma": "math.fma", "rsqrt": "rsqrt", "int2float": "arith.sitofp", "ll2float": "arith.sitofp",
    "uint2float": "arith.uitofp", "ull2float": "arith.uitofp",
}  # fmt: skip
"""The operation or function that takes the place of one with a rounding mode."""


def _reciprocal(op: Op) -> list[Value]:
    one = ir.FloatAttr.get(ir.F64Type.get(), 1.0)
    type_ = op.results[0].type
    value = ir.DenseElementsAttr.get_splat(type_, one) if isinstance(type_, ir.RankedTensorType) else one
    return [ir.Operation.create("arith.constant", [type_], attributes={"value": value}).results[0], op.operands[0]]


def _dot(promoted_op: PromotedOp) -> None:
    if promoted_op.results[0] is not None:
        promoted_op.op.attributes["input_precision"] = ir.StringAttr.get("ieee")


def _load(promoted_op: PromotedOp) -> None:
    if str(element_type(promoted_op.op.results[0].type)) == "!llvm.ptr":
        raise UnsupportedOperation("tt.load", "what pointers kept in memory point to cannot be promoted")


def _address(promoted_op: PromotedOp) -> None:
    raise UnsupportedOperation(promoted_op.op.name, "addresses made of integers cannot be promoted")


_HANDLERS: dict[str, Callable[[PromotedOp], None]] = {
    "func.func": _function,
    "arith.constant": _constant,
    "tt.addptr": _pointer_step,
    "tt.int_to_ptr": _address,
    "tt.ptr_to_int": _address,
    "tt.load": _load,
    "tt.bitcast": _bits,
    "arith.bitcast": _bits,
    "tt.extern_elementwise": _extern,
    "tt.dot": _dot,
    **dict.fromkeys(CONVERSIONS, _conversion),
}
