"""Emulates the order and the accumulator of sums over an axis: a chip's, or those of a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mlir import ir

from torchport.arithmetic.rules import DotRule, check, parse
from torchport_passes.arithmetic.dot_mark import DotMark
from torchport_passes.arithmetic.formats import rounded
from torchport_passes.ir.ops import element_type, int_attribute, matching
from torchport_passes.ir.tensors import constant, convert, reshape, splat_like, transposed
from torchport_passes.ir.types import Module, Op, Value
from torchport_passes.scalar.mathlib.vector_value import VectorValue

__all__ = ["EmulateReductions"]

_TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class EmulateReductions:
    """Rewrite ``tt.reduce`` of one operand that adds f32, f16 or bf16.

    Takes imported TTIR and leaves it. The order ``pairwise`` becomes a tree of sums; any other order a dot with ones,
    for which ``lower-emulated-dot`` follows order, accumulator and rounding. A sum that a loop carries (``acc += x``)
    is rounded to the accumulator in every iteration. Other reductions (products, maxima, several operands) stay.

    ``rules``: the rule ``reductions``, JSON or the short form (``torchport.arithmetic.rules.parse``).
    """

    name: ClassVar[str] = "emulate-reductions"
    rules: str = ""

    def apply(self, module: Module) -> None:
        rule = parse(self.rules)
        check({"reductions": rule})
        format_, rounding = rule.get("accumulator", "f32"), rule.get("rounding", "rne")
        with module.context, ir.Location.unknown():
            if format_ in ("f16", "bf16") or rounding != "rne":
                for op in matching(module, "arith.addf".__eq__):
                    if _is_carried(op):
                        _round_result(op, format_ if format_ != "f64" else "f32", rounding)
            for op in matching(module, "tt.reduce".__eq__):
                if _adds(op):
                    with ir.InsertionPoint(op):
                        _rewrite(op, rule)


def _adds(reduce: Op) -> bool:
    """Whether a reduction adds floats of up to 32 bits, and does nothing else."""
    block = reduce.regions[0].blocks[0]
    operations = [o.operation for o in block.operations]
    return (
        len(operations) == 2
        and operations[0].name == "arith.addf"
        and str(block.arguments[0].type) in _TYPES
        and set(operations[0].operands) == set(block.arguments)
    )


def _is_carried(op: Op) -> bool:
    """Whether an addition adds to a value that the loop around it carries."""
    parent = op.parent.operation
    if parent.name != "scf.for" or str(element_type(op.results[0].type)) != "f32":
        return False
    carried = set(list(op.block.arguments)[1:])
    return any(operand in carried for operand in op.operands)


def _round_result(op: Op, format_: str, rounding: str) -> None:
    """Round what an operation gives to its uses."""
    uses = [(use.owner, use.operand_number) for use in op.results[0].uses]
    with ir.InsertionPoint.after(op):
        wide = VectorValue(op.results[0]).extend_float(ir.F64Type.get())
        result = rounded(wide, format_, rounding).truncate_float(ir.F32Type.get()).value
    for owner, number in uses:
        owner.operation.operands[number] = result


def _rewrite(op: Op, rule: Mapping[str, Any]) -> None:
    """Replace a sum over an axis."""
    source, result = op.operands[0], op.results[0]
    axis = int_attribute(op, "axis")
    shape = list(source.type.shape)
    order = [axis, *(i for i in range(len(shape)) if i != axis)]
    x = convert(source, ir.F32Type.get())
    if order != sorted(order):
        x = transposed(x, order)
    count, others = shape[axis], prod(shape[:axis] + shape[axis + 1 :])
    x = reshape(x, [count, others])
    order_name = rule.get("order", "sequential")
    total = _tree(x, count, others, rule) if order_name == "pairwise" else _dot(x, count, others, order_name, rule)
    if isinstance(result.type, ir.RankedTensorType):
        total = convert(reshape(total, list(result.type.shape)), result.type.element_type)
    else:
        total = ir.Operation.create("tt.unsplat", [ir.F32Type.get()], [reshape(total, [1])]).results[0]
        total = VectorValue(total).truncate_float(result.type).value if str(result.type) != "f32" else total
    result.replace_all_uses_with(total)
    op.erase()


def _dot(x: Value, count: int, others: int, order: str, rule: Mapping[str, Any]) -> Value:
    """``ones[1, count] @ x[count, others]``, which adds one term after another."""
    f32 = ir.F32Type.get()
    order = {"sequential": "forward"}.get(order, order)
    dot_rule = DotRule(order=order, rounding=rule.get("rounding", "rne"), accumulator=rule.get("accumulator", "f32"))
    ones = splat_like(ir.RankedTensorType.get([1, count], f32), constant(f32, 1.0))
    zeros = splat_like(ir.RankedTensorType.get([1, others], f32), constant(f32, 0.0))
    attributes = {
        "input_precision": ir.StringAttr.get("ieee"),
        "emulate": DotMark(dot_rule, (-126, -126)).attribute(),
    }
    return ir.Operation.create("tt.dot", [zeros.type], [ones, x, zeros], attributes).results[0]


def _tree(x: Value, count: int, others: int, rule: Mapping[str, Any]) -> Value:
    """A tree of sums of neighbours, each rounded to the accumulator."""
    format_, rounding = rule.get("accumulator", "f32"), rule.get("rounding", "rne")
    x = transposed(x, [1, 0])
    x = convert(x, ir.F64Type.get()) if format_ == "f64" else x
    while count > 1:
        count //= 2
        pairs = reshape(x, [others, count, 2])
        half = ir.RankedTensorType.get([others, count], x.type.element_type)
        left, right = ir.Operation.create("tt.split", [half, half], [pairs]).results
        total = VectorValue(left) + VectorValue(right)
        if (format_, rounding) != ("f32", "rne") and format_ != "f64":
            total = rounded(total.extend_float(ir.F64Type.get()), format_, rounding).truncate_float(ir.F32Type.get())
        x = total.value
    return VectorValue(x).truncate_float(ir.F32Type.get()).value
