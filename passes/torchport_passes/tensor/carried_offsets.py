"""Replaces a tensor to which a loop adds scalars by a fixed tensor and a carried scalar offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.ir.ops import element_type, is_tensor, matching, owner_of, terminator_of
from torchport_passes.ir.types import Attribute, InsertionPoint, Module, Op, Type, Value

__all__ = ["CarriedOffsets"]

_ELEM_BYTES = "elem_bytes"


@dataclass(frozen=True)
class CarriedOffsets:
    """For ``p = p + step`` in a loop, with a scalar ``step``, carry the sum of the steps instead of the tensor.

    Takes scalarized IR. A tensor that ``scf.for`` carries and whose next value is itself plus splats (``tt.addptr``,
    ``arith.addi``) becomes ``start + splat(offset)`` in the loop and after it. The offset is an i64 for pointers, and
    has the elements' type for integers. So facts about addresses stay known (contiguous, aligned, below a bound), and
    no tensor of pointers passes through memory.
    """

    name: ClassVar[str] = "carried-offsets"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            # Inner loops first: an outer loop then sees "start + splat" where the inner loop's result was.
            for loop in reversed(matching(module, "scf.for".__eq__)):
                _rewrite(loop)


@dataclass(frozen=True)
class _Steps:
    """What one iteration adds to a carried tensor.

    ``terms``: scalars.
    ``elem_bytes``: for pointers, the attribute that says how many bytes they count; None for integers.
    """

    terms: tuple[Value, ...]
    elem_bytes: Attribute | None


def _steps(loop: Op, index: int) -> _Steps | None:
    """What the loop adds to its carried value ``index``; None if it does anything else with it."""
    block = loop.regions[0].blocks[0]
    argument = block.arguments[1 + index]
    if not is_tensor(argument):
        return None
    value = terminator_of(block).operands[index]
    terms: list[Value] = []
    elem_bytes = None
    while value != argument:
        op = owner_of(value)
        if op is None or op.name not in ("tt.addptr", "arith.addi"):
            return None
        base, step = op.operands
        if op.name == "arith.addi" and (owner := owner_of(base)) is not None and owner.name == "tt.splat":
            base, step = step, base
        splat = owner_of(step)
        if splat is None or splat.name != "tt.splat":
            return None
        terms.append(splat.operands[0])
        if op.name == "tt.addptr":
            elem_bytes = op.attributes[_ELEM_BYTES]
        value = base
    return _Steps(tuple(terms), elem_bytes)


def _rewrite(loop: Op) -> None:
    """Rebuild the loop with offsets in place of the tensors that it moves."""
    inits = list(loop.operands)[3:]
    moved = {i: steps for i in range(len(inits)) if (steps := _steps(loop, i)) is not None}
    if not moved:
        return
    with ir.InsertionPoint(loop):
        starts = [_zero(init) if i in moved else init for i, init in enumerate(inits)]
        new = scf.ForOp(loop.operands[0], loop.operands[1], loop.operands[2], starts)
    old, body = loop.regions[0].blocks[0], new.body
    for inner in [o.operation for o in old.operations]:
        body.append(inner)
    old.arguments[0].replace_all_uses_with(body.arguments[0])
    first = ir.InsertionPoint.at_block_begin(body)
    for i, init in enumerate(inits):
        value = body.arguments[1 + i]
        argument = old.arguments[1 + i]
        argument.replace_all_uses_with(_moved(init, value, moved[i], first) if i in moved else value)
    end = terminator_of(body)
    with ir.InsertionPoint(end):
        for i, steps in moved.items():
            offset = body.arguments[1 + i]
            for term in steps.terms:
                offset = arith.AddIOp(offset, _wide(term, offset.type, new.operation)).result
            end.operands[i] = offset
    after = ir.InsertionPoint(loop)
    for i, result in enumerate(loop.results):
        value = new.results[i]
        result.replace_all_uses_with(_moved(inits[i], value, moved[i], after) if i in moved else value)
    loop.erase()


def _zero(tensor: Value) -> Value:
    """The offset of a tensor before the loop."""
    element = element_type(tensor.type)
    type_ = element if isinstance(element, ir.IntegerType) else ir.IntegerType.get_signless(64)
    return arith.ConstantOp(type_, 0).result


def _wide(value: Value, type_: Type, loop: Op) -> Value:
    """``value`` in a wider integer type, emitted before the loop if it does not change inside."""
    if value.type == type_:
        return value
    owner = owner_of(value)
    outside = owner is None or owner.block != loop.regions[0].blocks[0]
    with ir.InsertionPoint(loop) if outside else ir.InsertionPoint.current:
        return arith.ExtSIOp(type_, value).result


def _moved(tensor: Value, offset: Value, steps: _Steps, point: InsertionPoint) -> Value:
    """``tensor + splat(offset)``."""
    offsets = ir.RankedTensorType.get(list(tensor.type.shape), offset.type)
    splat = ir.Operation.create("tt.splat", [offsets], [offset], ip=point).results[0]
    if steps.elem_bytes is None:
        if isinstance(element_type(tensor.type), ir.IntegerType):
            return arith.AddIOp(tensor, splat, ip=point).result
        return tensor  # a pointer that does not move
    attributes = {_ELEM_BYTES: steps.elem_bytes}
    return ir.Operation.create("tt.addptr", [tensor.type], [tensor, splat], attributes, ip=point).results[0]
