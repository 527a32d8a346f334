"""Noise of the size of legal rounding errors on promoted values (docs/numerics/concepts.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from mlir import ir
from mlir.dialects import arith

from torchport_passes.arithmetic.rounding import LIMITS, parse_ulp, rounding
from torchport_passes.arithmetic.types import PromotedOp, shaped
from torchport_passes.ir.ops import element_type, function_of, int_attribute, matching, text_attribute
from torchport_passes.ir.traits import COMBINES, CONVERSIONS
from torchport_passes.ir.types import InsertionPoint, Module, Op, Type, Value
from torchport_passes.scalar.mathlib.formats import FloatLayout

__all__ = ["Noise", "full"]

# splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): its constants.
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# 32-bit factors with well spread bits (Wellons, "Prospecting for hash functions", 2018: triple32).
_FACTORS = (0xED5AD4BB, 0xAC4C1B51)


@dataclass
class Noise:
    """Adds noise to operations.

    ``ulp``: errors of mathematical functions by name.
    ``functions``: each function of the module with the values of its arguments seed and scale.
    ``casts``: whether conversions between float types get noise.
    """

    ulp: dict[str, float]
    functions: list[tuple[Op, Value, Value]]
    casts: bool = True
    _sites: int = field(default=0)

    @classmethod
    def of(cls, module: Module, ulp: str, *, casts: bool = True) -> Noise:
        """Give every function of the module the two arguments, and every call those of its caller."""
        functions = [_with_arguments(function) for function in matching(module, "func.func".__eq__)]
        noise = cls(parse_ulp(ulp), functions, casts)
        for call in matching(module, "tt.call".__eq__):
            operands = [*call.operands, *noise._arguments(call)]
            attributes = {name: call.attributes[name] for name in call.attributes}
            types, point = [r.type for r in call.results], ir.InsertionPoint(call)
            new = ir.Operation.create("tt.call", types, operands, attributes, ip=point)
            for old, result in zip(call.results, new.results, strict=True):
                old.replace_all_uses_with(result)
            call.erase()
        return noise

    def add(self, promoted_op: PromotedOp) -> None:
        """Add noise to the result of an operation that rounds, and to the terms of sums."""
        op = promoted_op.op
        if op.name in CONVERSIONS and not self.casts:
            return
        if op.name in COMBINES:
            self._fold(promoted_op)
        elif op.name == "tt.dot":
            self._sum(promoted_op, op.operands[0].type.shape[-1])
        elif op.name == "tt.atomic_rmw":
            self._atomic(promoted_op)
        elif not _is_plain_fold(op.parent) and (errors := rounding(promoted_op, self.ulp)):
            self._result(promoted_op, *errors)

    def _fold(self, promoted_op: PromotedOp) -> None:
        op = promoted_op.op
        kind = _is_plain_fold(op)
        terms = op.operands[0].type.shape[int_attribute(op, "axis")]
        if kind == "arith.addf":
            self._sum(promoted_op, terms)
        elif kind == "arith.mulf" and promoted_op.results[0] is not None:
            self._result(promoted_op, promoted_op.results[0], float(terms))

    def _sum(self, promoted_op: PromotedOp, terms: int) -> None:
        """A sum of n terms in an unknown order: its terms may be off by u sqrt(n / 2), itself by u sqrt(n / 3)."""
        op, format_ = promoted_op.op, promoted_op.results[0]
        if format_ is None:
            return
        with ir.InsertionPoint(op):
            op.operands[0] = self._noisy(op, op.operands[0], format_, math.sqrt(terms / 2))
        self._result(promoted_op, format_, math.sqrt(terms / 3))

    def _atomic(self, promoted_op: PromotedOp) -> None:
        """An addition in memory is followed by one of its rounding error."""
        op, format_ = promoted_op.op, promoted_op.results[0]
        if format_ is None or text_attribute(op, "rmw") != "fadd":
            return
        with _after(op):
            total = arith.AddFOp(op.results[0], op.operands[1]).result
            noisy = self._noisy(op, total, format_, 1.0)
            same = arith.CmpFOp(arith.CmpFPredicate.OEQ, noisy, total).result  # infinities, whose difference is NaN
            error = arith.SelectOp(same, full(total.type, 0.0), arith.SubFOp(noisy, total).result).result
            attributes = {name: op.attributes[name] for name in op.attributes}
            operands = [op.operands[0], error, *list(op.operands)[2:]]
            ir.Operation.create(op.name, [op.results[0].type], operands, attributes)

    def _result(self, promoted_op: PromotedOp, format_: Type, units: float, exact_below: float = 0.0) -> None:
        op, value = promoted_op.op, promoted_op.replacement
        if value is None:
            value, point = op.results[0], _after(op)
        else:
            point = ir.InsertionPoint(op)
        uses = list(op.results[0].uses)
        if units <= 1.0 and format_.width < 32:
            # A stored value is rounded to this type anyway, and comparisons account for that one rounding.
            for use in uses:
                if use.owner.name == "tt.store":
                    use.owner.operands[use.operand_number] = value
            uses = [use for use in uses if use.owner.name != "tt.store"]
        if not uses:
            return
        with point:
            noisy = self._noisy(op, value, format_, units, exact_below)
        for use in uses:
            use.owner.operands[use.operand_number] = noisy

    def _noisy(self, op: Op, value: Value, format_: Type, units: float, exact_below: float = 0.0) -> Value:
        """``value``, moved by at most ``units`` unit roundoffs of ``format_``.

        Denormals move by as many halves of their spacing. Zeros, infinities and values below ``exact_below`` do not
        move. Values that round to infinity become infinite.
        """
        limits, type_ = LIMITS[str(format_)], value.type
        magnitude = ir.Operation.create("math.absf", [type_], [value]).results[0]
        moved = value if units == 0.0 else self._moved(op, value, magnitude, limits, units, exact_below)
        if limits.kind != "ieee" or limits.bits == 8:  # conversions to 8 bits saturate or not, as their author chose
            return moved
        beyond = 2.0 ** (limits.bias + 1) * (1 - 2.0 ** -(limits.mantissa + 2))
        infinite = arith.MulFOp(value, full(type_, math.inf)).result
        over = arith.CmpFOp(arith.CmpFPredicate.OGE, magnitude, full(type_, beyond)).result
        return arith.SelectOp(over, infinite, moved).result

    def _moved(
        self, op: Op, value: Value, magnitude: Value, limits: FloatLayout, units: float, exact_below: float
    ) -> Value:
        seed, scale = self._arguments(op)
        self._sites += 1
        type_, least = value.type, 2.0 ** (1 - limits.bias)
        size = arith.MulFOp(_all(type_, scale), full(type_, units * 2.0 ** -(limits.mantissa + 1))).result
        error = arith.MulFOp(_uniform(value, seed, self._sites), size).result
        moved = arith.MulFOp(value, arith.AddFOp(error, full(type_, 1.0)).result).result
        less, ordered = arith.CmpFPredicate.OLT, arith.CmpFPredicate.ONE
        if exact_below:
            return arith.SelectOp(arith.CmpFOp(less, magnitude, full(type_, exact_below)).result, value, moved).result
        small = arith.CmpFOp(less, magnitude, full(type_, least)).result
        tiny = arith.AndIOp(small, arith.CmpFOp(ordered, value, full(type_, 0.0)).result).result
        absolute = arith.AddFOp(value, arith.MulFOp(error, full(type_, least)).result).result
        return arith.SelectOp(tiny, absolute, moved).result

    def _arguments(self, op: Op) -> tuple[Value, Value]:
        function = function_of(op)
        return next((seed, scale) for other, seed, scale in self.functions if other == function)


def _with_arguments(function: Op) -> tuple[Op, Value, Value]:
    i64, f64 = ir.IntegerType.get_signless(64), ir.F64Type.get()
    kind = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    kind = ir.FunctionType.get([*kind.inputs, i64, f64], list(kind.results))
    function.attributes["function_type"] = ir.TypeAttr.get(kind)
    if "arg_attrs" in function.attributes:
        attributes = [*ir.ArrayAttr(function.attributes["arg_attrs"]), *[ir.DictAttr.get({})] * 2]
        function.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
    block = function.regions[0].blocks[0]
    return function, *(block.add_argument(type_, ir.Location.unknown()) for type_ in (i64, f64))


def _is_plain_fold(op: Op) -> str:
    """The name of the operation by which a reduction or scan only adds or multiplies; empty for others."""
    if op.name not in COMBINES:
        return ""
    block = op.regions[0].blocks[0]
    operations = [o.operation for o in block.operations]
    plain = len(operations) == 2 and set(operations[0].operands) == set(block.arguments)
    return operations[0].name if plain and operations[0].name in ("arith.addf", "arith.mulf") else ""


def _uniform(value: Value, seed: Value, site: int) -> Value:
    """A number in [-1, 1), a multiple of 2^-31, from the bits of ``value``, the seed and the site.

    Tensors are multiplied 32 bits by 32, for which vector units have an instruction.
    """
    key = arith.XOrIOp(seed, full(seed.type, site * _GOLDEN)).result
    for factor, shift in ((_MIX1, 30), (_MIX2, 31)):
        key = _folded(arith.MulIOp(_folded(key, shift), full(seed.type, factor)).result, 32)
    type_ = shaped(value.type, seed.type)
    bits = _folded(arith.XOrIOp(arith.BitcastOp(type_, value).result, _all(type_, key)).result, 32)
    for factor in _FACTORS:
        bits = _folded(arith.MulIOp(_low(bits), full(type_, factor)).result, 32)
    # as the upper 32 bits of the mantissa of a number in [2, 4)
    mantissa = arith.ShLIOp(_low(bits), full(type_, 20)).result
    number = arith.OrIOp(mantissa, full(type_, 0x4000000000000000)).result
    return arith.SubFOp(arith.BitcastOp(value.type, number).result, full(value.type, 3.0)).result


def _low(bits: Value) -> Value:
    """The low 32 bits."""
    return arith.AndIOp(bits, full(bits.type, (1 << 32) - 1)).result


def _folded(bits: Value, by: int) -> Value:
    """``bits ^ (bits >> by)``."""
    return arith.XOrIOp(bits, arith.ShRUIOp(bits, full(bits.type, by)).result).result


def full(type_: Type, number: float) -> Value:
    """A constant, in every lane of a tensor."""
    element = element_type(type_)
    if isinstance(element, ir.IntegerType):
        bits = int(number) & ((1 << 64) - 1)
        attribute: Any = ir.IntegerAttr.get(element, bits - (1 << 64) if bits >> 63 else bits)
    else:
        attribute = ir.FloatAttr.get(element, number)
    if isinstance(type_, ir.RankedTensorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return ir.Operation.create("arith.constant", [type_], attributes={"value": attribute}).results[0]


def _all(type_: Type, scalar: Value) -> Value:
    """A scalar in every lane of a tensor, itself for a scalar."""
    if not isinstance(type_, ir.RankedTensorType):
        return scalar
    return ir.Operation.create("tt.splat", [type_], [scalar]).results[0]


def _after(op: Op) -> InsertionPoint:
    return ir.InsertionPoint.after(op)
