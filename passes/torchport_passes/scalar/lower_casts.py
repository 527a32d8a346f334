"""Lowers conversions, and arithmetic of narrow floats, to f32 and integer code with defined results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.ops import matching, text_attribute
from torchport_passes.ir.types import Module
from torchport_passes.scalar.mark_nans import SHORT_NANS
from torchport_passes.scalar.mathlib.conversions import from_int, holds, round_to, to_f32, to_int
from torchport_passes.scalar.mathlib.formats import LAYOUTS, narrow, widen
from torchport_passes.scalar.mathlib.vector_value import VectorValue, element_type, with_element

__all__ = ["LowerCasts"]

_INT_CASTS = frozenset({"arith.fptosi", "arith.fptoui", "arith.sitofp", "arith.uitofp"})
_FLOAT_CASTS = frozenset({"arith.extf", "arith.truncf", "tp.fp_to_fp"})
# Operations computed in f32 when their operands are f16, bf16 or 8-bit floats, the result rounded back.
_ARITHMETIC = frozenset(
    f"arith.{name}" for name in "addf subf mulf divf negf maximumf minimumf maxnumf minnumf cmpf".split()
) | {"vector.reduction", "vector.multi_reduction", "vector.fma"}
_TARGETS = _INT_CASTS | _FLOAT_CASTS | _ARITHMETIC | {"arith.negf"}


@dataclass(frozen=True)
class LowerCasts:
    """Lower conversions and narrow float arithmetic on scalars and 1-D vectors.

    Takes arith, vector, scf, llvm and ``tp.fp_to_fp`` (attribute ``rounding``: ``rtne`` or ``rtz``); runs after
    ``lower-math``. Leaves no arithmetic on f16, bf16 or 8-bit floats (loads, stores, selects, shuffles, bitcasts and
    constants of them stay), no bf16 ``extf``/``truncf``, and no conversion whose result LLVM leaves undefined.

    * f32 or f64 to bf16, f16: to nearest even with one rounding, denormals kept, NaN quiet.
    * 8-bit floats: to nearest even (or towards zero), saturating to the largest finite value as Triton's GPU targets
    do.
    * Each 16- and 8-bit operation is done in f32 and rounded.
    * Integers that are converted to f16 or bf16, which has them all, and then to a wider type, are converted once.
    * Float to integer: NaN and out-of-range values give what eager torch gives on ``arch``. x86_64: the most negative
      integer, narrower integers being the low bits of the 32-bit result; aarch64: saturation, NaN gives 0.

    ``half``: the machine converts between f16 and f32 (x86: F16C). Without, integer code does: LLVM would call
    functions of the compiler's runtime library, which the process does not offer.

    Raises UnsupportedOperation for a float type or rounding mode that it does not know.
    """

    name: ClassVar[str] = "lower-casts"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.fp_to_fp"})

    arch: str = "x86_64"
    half: bool = True

    def apply(self, module: Module) -> None:
        with module.context:
            for op in matching(module, "arith.extf".__eq__):
                with ir.InsertionPoint(op), op.location:
                    _widen_integers(op)
            targets = matching(module, _TARGETS.__contains__)
            for op in targets:
                with ir.InsertionPoint(op), op.location:
                    _replace(op, _lower(op, self.arch))
            for op in [] if self.half else matching(module, _FLOAT_CASTS.__contains__):
                with ir.InsertionPoint(op), op.location:
                    _replace(op, _half_cast(op, VectorValue(op.operands[0])))


def _replace(op: ir.Operation, replacement: VectorValue | None) -> None:
    if replacement is not None:
        op.results[0].replace_all_uses_with(replacement.value)
        op.erase()


def _widen_integers(op: ir.Operation) -> None:
    """Convert an integer to the wide type at once where the narrow one on the way has it: weights of 8 bits."""
    source = op.operands[0].owner
    if not isinstance(source, ir.Operation | ir.OpView) or source.name not in ("arith.sitofp", "arith.uitofp"):
        return
    integer = source.operands[0]
    narrow_type = element_type(op.operands[0].type)
    if holds(narrow_type, VectorValue(integer).bits, signed=source.name == "arith.sitofp"):
        wide = ir.Operation.create(source.name, results=[op.results[0].type], operands=[integer])
        op.results[0].replace_all_uses_with(wide.results[0])
        op.erase()
        if not list(source.results[0].uses):
            source.erase()


def _lower(op: ir.Operation, arch: str) -> VectorValue | None:
    """The value that replaces ``op``'s result; None keeps the operation."""
    name = op.name
    x = VectorValue(op.operands[0])
    if name in _FLOAT_CASTS:
        return _float_cast(op, x)
    if name in ("arith.fptosi", "arith.fptoui"):
        return to_int(_widened(x), op.results[0].type, signed=name == "arith.fptosi", saturate=arch != "x86_64")
    if name in ("arith.sitofp", "arith.uitofp"):
        return from_int(x, element_type(op.results[0].type), signed=name == "arith.sitofp")
    if not (x.is_float and x.bits <= 16):
        return None
    if name == "arith.negf" and x.bits == 16:
        return (x.to_bits() ^ 0x8000).cast_bits(x.element)
    return _in_f32(op, x.element)


def _widened(x: VectorValue) -> VectorValue:
    return x if x.bits >= 32 else to_f32(x)


def _in_f32(op: ir.Operation, element: ir.Type) -> VectorValue:
    """``op`` on f32 copies of its narrow operands, its result rounded back."""
    result_type = op.results[0].type
    wide = with_element(result_type, ir.F32Type.get()) if element_type(result_type) == element else result_type
    operands = [_widened(VectorValue(o)).value if element_type(o.type) == element else o for o in op.operands]
    attributes = {key: op.attributes[key] for key in op.attributes}
    wide_op = ir.Operation.create(op.name, results=[wide], operands=operands, attributes=attributes)
    result = VectorValue(wide_op.results[0])
    return round_to(result, element) if wide != result_type else result


def _float_cast(op: ir.Operation, x: VectorValue) -> VectorValue | None:
    name = op.name
    target = element_type(op.results[0].type)
    nearest = True
    if name == "tp.fp_to_fp" and "rounding" in op.attributes:
        mode = text_attribute(op, "rounding")
        if mode not in ("rtne", "rtz"):
            raise UnsupportedOperation(name, f"unknown rounding {mode!r}; it is rtne or rtz", location=str(op.location))
        nearest = mode == "rtne"
    elif "roundingmode" in op.attributes:
        mode = str(op.attributes["roundingmode"])
        if "to_nearest_even" not in mode:
            raise UnsupportedOperation(name, f"rounding {mode}: only to nearest even", location=str(op.location))
    instruction = {str(x.element), str(target)} == {"f32", "f64"} or (str(x.element), str(target)) == ("f16", "f32")
    if instruction and name != "tp.fp_to_fp":
        return None
    return round_to(_widened(x), target, nearest=nearest, short_nans=SHORT_NANS in op.attributes)


def _half_cast(op: ir.Operation, x: VectorValue) -> VectorValue | None:
    """A conversion between f16 and f32 as integer code; None for others."""
    half = LAYOUTS["f16"]
    if str(x.element) == "f16":
        return widen(x.to_bits(), half)
    target = element_type(op.results[0].type)
    return narrow(x, half, saturate=False).cast_bits(target) if str(target) == "f16" else None
