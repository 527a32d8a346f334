"""Turns 8-bit floats into bytes: LLVM has no such types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir

from torchport_passes._emit import constant_like
from torchport_passes._ops import element_type, matching
from torchport_passes.mathlib.formats import FORMATS
from torchport_passes.mathlib.lanes import with_element

__all__ = ["LowerFloat8"]


@dataclass(frozen=True)
class LowerFloat8:
    """Give values of 8-bit float types the type i8.

    Takes what ``lower-casts`` leaves: 8-bit floats are loaded, stored, selected, moved between lanes and bitcast, and
    nothing computes with them. Leaves none.
    """

    name: ClassVar[str] = "lower-float8"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, lambda name: True):
                for region in op.regions:
                    for block in region.blocks:
                        for argument in block.arguments:
                            _retype(argument)
                if not any(_is_float8(result.type) for result in op.results):
                    continue
                if op.name == "arith.constant":
                    _replace_constant(op)
                    continue
                for result in op.results:
                    _retype(result)
            for op in matching(module, "arith.bitcast".__eq__):
                if op.operands[0].type == op.results[0].type:
                    op.results[0].replace_all_uses_with(op.operands[0])
                    op.erase()


def _is_float8(type_: Any) -> bool:
    name = str(element_type(type_))
    return name.startswith("f8") and name in FORMATS


def _retype(value: Any) -> None:
    if _is_float8(value.type):
        value.set_type(with_element(value.type, ir.IntegerType.get_signless(8)))


def _replace_constant(op: Any) -> None:
    """A constant in every lane, by its bits."""
    value, type_ = op.attributes["value"], op.results[0].type
    value = value.get_splat_value() if isinstance(value, ir.DenseElementsAttr) else value
    bits = _bits(float(ir.FloatAttr(value).value), str(element_type(type_)))
    i8 = ir.IntegerType.get_signless(8)
    with ir.InsertionPoint(op):
        new = constant_like(with_element(type_, i8), ir.IntegerAttr.get(i8, bits - 256 if bits > 127 else bits))
    op.results[0].replace_all_uses_with(new)
    op.erase()


def _bits(number: float, kind: str) -> int:
    """The byte of a number of the format ``kind``, or the nearest byte towards zero."""
    format_ = FORMATS[kind]
    sign = 1 << (format_.bits - 1) if math.copysign(1.0, number) < 0 else 0
    if math.isnan(number):
        return format_.nan
    if math.isinf(number):
        return sign | (format_.largest + 1)
    if number == 0.0:
        return 0 if format_.kind == "fnuz" else sign
    mantissa, exponent = math.frexp(abs(number))  # mantissa in [0.5, 1)
    exponent = max(exponent - 1 + format_.bias, 1)
    units = int(math.ldexp(mantissa, math.frexp(abs(number))[1] + format_.bias - exponent + format_.mantissa))
    return sign | min(((exponent - 1) << format_.mantissa) + units, format_.largest)
