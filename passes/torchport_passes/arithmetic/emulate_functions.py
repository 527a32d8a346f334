"""Emulates the errors of a chip's functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import math

from torchport.arithmetic.rules import check, parse
from torchport_passes.arithmetic.formats import exponent, flushed, uniform
from torchport_passes.ir.ops import element_type, matching, text_attribute
from torchport_passes.ir.types import Module, Op, Type
from torchport_passes.scalar.mathlib.symbols import function_of, function_of_symbol
from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["EmulateFunctions"]

_LOG2E = 1.4426950408889634
_EXACT = frozenset("abs ceil copysign floor fma rint round trunc isnan isinf isfinite signbit fmod fmin fmax".split())


@dataclass(frozen=True)
class EmulateFunctions:
    """Compute functions of f32 with the errors of a rule.

    Takes imported TTIR. Each ``math`` operation, external function and division of f32 that the rule names is computed
    in f64, moved by up to its error, and rounded. A hash of the exact result decides how far it moves, so the same
    argument always gives the same result. With ``via`` the function is computed by the f32 operations of a chip's
    compiler instead. Other functions do not change.

    ``rules``: the rule ``functions``, JSON or the short form (``torchport.arithmetic.rules.parse``).
    """

    name: ClassVar[str] = "emulate-functions"
    rules: str = ""

    def apply(self, module: Module) -> None:
        rules = parse(self.rules)
        check({"functions": rules})
        with module.context, ir.Location.unknown():
            for op in matching(module, _is_function):
                name = _name(op)
                rule = rules.get(name, None if name in _EXACT else rules.get("*"))
                if rule and len(op.results) == 1 and str(element_type(op.results[0].type)) == "f32":
                    with ir.InsertionPoint(op):
                        _rewrite(op, name, rule)


def _is_function(name: str) -> bool:
    return name.startswith("math.") or name in ("tt.extern_elementwise", "arith.divf", "tt.precise_sqrt")


def _name(op: Op) -> str:
    if op.name == "arith.divf":
        return "div"
    if op.name == "tt.extern_elementwise":
        return function_of_symbol(text_attribute(op, "symbol"))
    return function_of(op)


def _rewrite(op: Op, name: str, rule: Mapping[str, Any]) -> None:
    """Replace the function ``name`` by one with the errors of its rule."""
    operands = [VectorValue(value) for value in op.operands]
    if rule.get("flush"):
        operands = [flushed(x, -126) if x.is_float else x for x in operands]
    unchanged = _copy(op, operands, ir.F32Type.get())  # the result outside of the rule's range
    wide = _exact(op, name, operands, rule.get("via"))
    ulp, per_x, absolute = (float(rule.get(key, 0.0)) for key in ("ulp", "ulp_x", "abs"))
    if ulp or per_x or absolute:
        wide = _moved(wide, operands[0], ulp, per_x, absolute, one_way=bool(rule.get("bias")))
    result = wide.truncate_float(ir.F32Type.get())
    if rule.get("flush"):
        result = flushed(result, -126)
    if "range" in rule:
        low, high = rule["range"]
        inside = operands[0].ge(low) & operands[0].le(high)
        result = select(inside, result, unchanged)
    op.results[0].replace_all_uses_with(result.value)
    op.erase()


def _copy(op: Op, operands: list[VectorValue], element: Type) -> VectorValue:
    """The same operation on operands of type ``element``."""
    wide = [x.extend_float(element) if x.is_float else x for x in operands]
    attributes = {name: op.attributes[name] for name in op.attributes}
    type_ = wide[0].type if wide[0].is_float else op.results[0].type
    name = "math.sqrt" if op.name == "tt.precise_sqrt" else op.name
    return VectorValue(ir.Operation.create(name, [type_], [x.value for x in wide], attributes).results[0])


def _exact(op: Op, name: str, operands: list[VectorValue], via: str | None) -> VectorValue:
    """The result in f64, computed by the f32 operations that ``via`` names if it does."""
    f64, x = ir.F64Type.get(), operands[0]
    if via == "exp2" and name == "exp":
        return VectorValue(math.exp2((x * _LOG2E).extend_float(f64).value))
    if via == "reciprocal" and name == "div":
        return (x * (1.0 / operands[1])).extend_float(f64)
    if via == "exp" and name == "pow":
        return VectorValue(math.exp2((operands[1] * VectorValue(math.log2(x.value))).extend_float(f64).value))
    if via == "exp" and name == "tanh":
        power = VectorValue(math.exp2((x * (2 * _LOG2E)).value))
        return (1.0 - 2.0 / (power + 1.0)).extend_float(f64)
    return _copy(op, operands, f64)


def _moved(
    exact: VectorValue, x: VectorValue, ulp: float, per_x: float, absolute: float, *, one_way: bool
) -> VectorValue:
    """``exact`` off by at most ``ulp`` + ``per_x`` |x| ULP once rounded to f32, and by ``absolute``."""
    binade = exponent(exact, -126, zero=0.0)
    unit = binade * 2.0**-23
    most = unit * (max(ulp - (0.0 if one_way else 0.5), 0.0))
    if per_x:
        most = most + unit * (x.abs().extend_float(exact.element) * per_x)
    if absolute:
        most = most + absolute
    moved = exact + (most if one_way else most * uniform(exact))
    if not (absolute or one_way):  # beyond the next power of two the unit is larger, and so is the rounding error
        moved = select(moved.abs().gt(binade * 2.0), (binade * 2.0).copysign(moved), moved)
    finite = exact.abs().lt(float("inf"))
    if per_x:  # exp of -inf is 0, and no error for each unit of an infinite argument
        finite = finite & x.abs().lt(float("inf"))
    return select(finite, moved, exact)
