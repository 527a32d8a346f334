"""Emulates how a chip rounds, saturates and omits conversions to narrower floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir

from torchport.arithmetic.formats import FORMATS
from torchport.arithmetic.rules import check, parse
from torchport_passes.arithmetic.formats import rounded
from torchport_passes.ir.ops import element_type, has_uses, matching, owner_of
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["EmulateCasts"]

_NARROW = frozenset({"f16", "bf16", "f8E5M2", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2FNUZ"})


@dataclass(frozen=True)
class EmulateCasts:
    """Rewrite ``arith.truncf`` and ``tt.fp_to_fp`` to narrower floats.

    Takes imported TTIR and leaves it. Values are clamped, NaN replaced, and rounded by the rule before the conversion,
    which is then exact. With ``elide``, the uses of a value that is narrowed and widened again take the original, as
    in compilers that fuse across conversions.

    ``rules``: the rule ``casts``, JSON or the short form (``torchport.arithmetic.rules.parse``).
    """

    name: ClassVar[str] = "emulate-casts"
    rules: str = ""

    def apply(self, module: Module) -> None:
        rule = parse(self.rules)
        check({"casts": rule})
        with module.context, ir.Location.unknown():
            if rule.get("elide"):
                _elide(module)
            for op in matching(module, ("arith.truncf", "tt.fp_to_fp").__contains__):
                target = str(element_type(op.results[0].type))
                if (
                    target in _NARROW
                    and element_type(op.operands[0].type).width > element_type(op.results[0].type).width
                ):
                    with ir.InsertionPoint(op):
                        _rewrite(op, target, rule)


def _elide(module: Module) -> None:
    """Remove pairs of conversions to a narrower type and back."""
    for op in matching(module, ("arith.extf", "tt.fp_to_fp").__contains__):
        source = owner_of(op.operands[0])
        if source is None or source.name not in ("arith.truncf", "tt.fp_to_fp"):
            continue
        if source.operands[0].type == op.results[0].type:
            op.results[0].replace_all_uses_with(source.operands[0])
            op.erase()
            if not has_uses(source.results[0]):
                source.erase()


def _rewrite(op: Op, target: str, rule: Mapping[str, Any]) -> None:
    """Clamp, replace and round the operand of one conversion."""
    x, largest = VectorValue(op.operands[0]), FORMATS[target].largest
    if rule.get("saturate"):
        isnan = x.isnan()
        clamped = select(x.gt(largest), x.const(largest), x)
        clamped = select(clamped.lt(-largest), x.const(-largest), clamped)
        x = select(isnan, x, clamped)
    if "nan" in rule:
        x = select(x.isnan(), x.const(0.0), x)
    if rule.get("rounding", "rne") != "rne" and target in ("f16", "bf16"):
        op.results[0].replace_all_uses_with(_toward_zero(x, op.results[0], rule["rounding"]).value)
        op.erase()
    else:
        op.operands[0] = x.value


def _toward_zero(x: VectorValue, like: Value, rounding: str) -> VectorValue:
    """x truncated to the format of ``like``; with ``odd`` the last bit is set if that was not exact."""
    narrow = element_type(like.type)
    wide = x.extend_float(ir.F64Type.get())
    cut = rounded(wide, str(narrow), "rz")
    largest = FORMATS[str(narrow)].largest
    cut = select(wide.abs().lt(float("inf")), select(cut.gt(largest), cut.const(largest), cut), cut)
    cut = select(wide.abs().lt(float("inf")), select(cut.lt(-largest), cut.const(-largest), cut), cut)
    result = cut.truncate_float(x.element).truncate_float(narrow)
    if rounding == "odd":
        bits = result.to_bits()
        inexact = cut.ne(wide) & wide.abs().lt(float("inf"))
        result = select(inexact, bits | 1, bits).cast_bits(narrow)
    return result
