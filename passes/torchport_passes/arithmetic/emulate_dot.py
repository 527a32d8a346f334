"""Marks dots with the arithmetic of a matrix unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mlir import ir

from torchport.arithmetic.formats import FORMATS
from torchport.arithmetic.rules import FLOATS, DotRule, check, dot_rule, parse
from torchport_passes.arithmetic.dot_mark import DotMark
from torchport_passes.arithmetic.formats import cut_to_tf32, flushed
from torchport_passes.ir.ops import element_type, matching, text_attribute
from torchport_passes.ir.tensors import convert
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.vector_value import VectorValue
from torchport_passes.tensor.decompose_dot import in_precision

__all__ = ["EmulateDot"]


@dataclass(frozen=True)
class EmulateDot:
    """Mark every ``tt.dot`` of floats up to f32 with the arithmetic that a rule gives its operands.

    Takes imported TTIR. Leaves dots of f32 with the attribute ``emulate`` (a ``DotMark``), which
    ``lower-emulated-dot`` follows, or ``chained``, which ``lower-dot`` follows. Operands are narrowed by the rule (tf32
    by truncation, as in the units: MMA-Sim, arXiv 2511.10909) and widened exactly. Dots are not marked if a rule only
    narrows; f64 and integer dots stay. 8-bit floats of which the rule says nothing are f16 to it.

    ``rules``: the rule ``dot``, JSON or the short form (``torchport.arithmetic.rules.parse``).
    """

    name: ClassVar[str] = "emulate-dot"
    rules: str = ""

    def apply(self, module: Module) -> None:
        rule = parse(self.rules)
        check({"dot": rule})
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.dot".__eq__):
                _rewrite(op, rule)


def _rewrite(op: Op, rules: dict[str, Any]) -> None:
    """Replace a dot by one or more emulated ones."""
    a, b, c = op.operands
    source = str(element_type(a.type))
    kind = source if not source.startswith("f8") else "f8"
    if kind not in FLOATS:
        return
    precision = text_attribute(op, "input_precision").lower()
    if source == "f32" and precision == "tf32":
        kind = "tf32"
    if kind == "f8" and not _names(rules, "f8") and _names(rules, "f16"):
        kind = "f16"  # units without 8-bit floats take them as f16, to which Triton widens them
    rule = dot_rule(rules, kind)
    if rule is not None and source == "f32" and rule.inputs is not None:
        kind, precision = rule.inputs, "ieee"
        rule = dot_rule(rules, kind) or rule
    if rule is None:
        return
    with ir.InsertionPoint(op):
        if source == "f32" and precision not in ("ieee", "tf32"):  # tf32x3 ...: each of its products
            result = in_precision(a, b, c, precision, lambda x, y, z: _emulated(x, y, z, "f32", precision[:-2], rules))
        else:
            result = _emulated(a, b, c, source, kind, rules, promoted=_imprecise(op))
    op.results[0].replace_all_uses_with(result)
    op.erase()


def _names(rules: dict[str, Any], type_: str) -> bool:
    """Whether rules say something of one type of operands of its own."""
    return type_ in rules.get("types", {})


def _imprecise(op: Op) -> int:
    """After how many terms a kernel wants sums of 8-bit floats in f32; 0 if it does not say, or more than there are."""
    name = "maxNumImpreciseAcc"
    terms = ir.IntegerAttr(op.attributes[name]).value if name in op.attributes else 0
    return terms if terms <= ir.RankedTensorType(op.operands[0].type).shape[-1] else 0


def _emulated(
    a: Value, b: Value, c: Value, source: str, kind: str, rules: dict[str, Any], *, promoted: int = 0
) -> Value:
    """``a @ b + c``; operands of type ``source`` that are narrowed to ``kind``; ``promoted``: of ``_imprecise``."""
    rule = dot_rule(rules, kind) or dot_rule(rules, "f32") or DotRule()
    wide = [_narrowed(value, source, kind) for value in (a, b)]
    # 8-bit floats of two types may be multiplied.
    formats = [str(element_type(value.type)) if kind == "f8" else kind for value in (a, b)]
    least = FORMATS[formats[0]].least, FORMATS[formats[1]].least
    total, attributes = convert(c, ir.F32Type.get()), {"input_precision": ir.StringAttr.get("ieee")}
    if rule.chained:
        attributes["chained"] = ir.UnitAttr.get()
    elif not rule.plain:
        if rule.flush:
            pairs = zip(wide, least, strict=True)
            signed = rule.signed
            wide = [flushed(VectorValue(value), smallest, signed=signed).value for value, smallest in pairs]
            total = flushed(VectorValue(total), FORMATS["f32"].least, signed=signed).value
        sums = str(element_type(c.type))
        mark = DotMark(_accumulating(rule, sums), least, promoted if rule.promote and sums == "f32" else 0)
        attributes["emulate"] = mark.attribute()
    result = ir.Operation.create("tt.dot", [total.type], [*wide, total], attributes).results[0]
    return convert(result, element_type(c.type))


def _accumulating(rule: DotRule, type_: str) -> DotRule:
    """A rule with its accumulator, in a kernel that adds up in ``type_``: sums of f16 are rounded to nearest."""
    if type_ == "f16" and rule.accumulator in (None, "e8m13"):
        return replace(rule, accumulator="f16", rounding="rne")
    return replace(rule, accumulator=rule.accumulator or "f32")


def _narrowed(value: Value, source: str, kind: str) -> Value:
    """An operand as f32 holding numbers of ``kind``."""
    f32 = ir.F32Type.get()
    if kind == "tf32":
        return cut_to_tf32(value)
    if source == "f32" and kind in ("bf16", "f16"):
        return convert(convert(value, ir.BF16Type.get() if kind == "bf16" else ir.F16Type.get()), f32)
    return convert(value, f32)
