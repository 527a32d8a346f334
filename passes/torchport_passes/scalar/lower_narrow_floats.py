"""Replaces bf16 and 8-bit floats by integers of the same width, which LLVM can load, move and store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.build import constant_like
from torchport_passes.ir.ops import element_type, matching
from torchport_passes.ir.types import Module, Op, Type, Value
from torchport_passes.scalar.mathlib.formats import LAYOUTS, FloatLayout
from torchport_passes.scalar.mathlib.vector_value import with_element

__all__ = ["LowerNarrowFloats"]


@dataclass(frozen=True)
class LowerNarrowFloats:
    """Give values of bf16 and of 8-bit float types the type i16 or i8.

    Takes what ``lower-casts`` leaves: such values are loaded, stored, selected, moved between lanes, carried by control
    flow and bitcast, but not computed with. Leaves none.

    LLVM has no 8-bit floats. It has bf16, but x86 without AVX512-BF16 has no registers for it. LLVM passes a scalar on
    as an f32, and rounds it back by a call of ``__truncsfbf2``, a function of compiler-rt that no library of the
    process has. It makes lanes scalars when it splits a masked load, fills a vector with one value or joins branches.
    f16 has registers everywhere.
    """

    name: ClassVar[str] = "lower-narrow-floats"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            operations = matching(module, lambda name: True)
            bitcasts = [op for op in operations if op.name == "arith.bitcast"]
            formats = _Formats()
            for op in operations:
                _retype_operation(op, formats)
            for op in bitcasts:
                if op.operands[0].type == op.results[0].type:
                    op.results[0].replace_all_uses_with(op.operands[0])
                    op.erase()


class _Formats(dict[Type, FloatLayout | None]):
    """The formats of values by type, if they become integers; None for other types."""

    def __missing__(self, type_: Type) -> FloatLayout | None:
        name = str(element_type(type_))
        self[type_] = found = LAYOUTS[name] if name in LAYOUTS and name != "f16" else None
        return found


def _retype_operation(op: Op, formats: _Formats) -> None:
    """Give the narrow floats among an operation's results and block arguments their integer types."""
    regions = op.regions
    if len(regions):
        for block in (block for region in regions for block in region.blocks):
            for argument in block.arguments:
                _retype(argument, formats)
    for result in op.results:
        format_ = formats[result.type]
        if format_ is not None and op.name == "arith.constant":
            _replace_constant(op, format_)
            return
        _retype(result, formats)


def _retype(value: Value, formats: _Formats) -> None:
    format_ = formats[value.type]
    if format_ is not None:
        value.set_type(with_element(value.type, ir.IntegerType.get_signless(format_.bits)))


def _replace_constant(op: Op, format_: FloatLayout) -> None:
    """Replace a constant by the integer with its bits, in every lane."""
    value, type_ = op.attributes["value"], op.results[0].type
    value = value.get_splat_value() if isinstance(value, ir.DenseElementsAttr) else value
    bits = _bits(float(ir.FloatAttr(value).value), format_)
    integer = ir.IntegerType.get_signless(format_.bits)
    signed = bits - (1 << format_.bits) if bits >> (format_.bits - 1) else bits
    with ir.InsertionPoint(op):
        new = constant_like(with_element(type_, integer), ir.IntegerAttr.get(integer, signed))
    op.results[0].replace_all_uses_with(new)
    op.erase()


def _bits(number: float, format_: FloatLayout) -> int:
    """The bits of a number of the format, or of its nearest neighbour towards zero."""
    sign = 1 << (format_.bits - 1) if math.copysign(1.0, number) < 0 else 0
    if math.isnan(number):
        return sign | format_.nan
    if math.isinf(number):
        return sign | (format_.largest + 1)
    if number == 0.0:
        return 0 if format_.kind == "fnuz" else sign
    mantissa, exponent = math.frexp(abs(number))  # mantissa in [0.5, 1)
    exponent = max(exponent - 1 + format_.bias, 1)
    units = int(math.ldexp(mantissa, math.frexp(abs(number))[1] + format_.bias - exponent + format_.mantissa))
    return sign | min(((exponent - 1) << format_.mantissa) + units, format_.largest)
