"""Replaces tensor operations whose lanes are all equal by scalar operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith

from torchport_passes.ir.ops import constant_splat, element_type, has_uses, int_attribute, is_tensor, numel, shape_of
from torchport_passes.ir.traits import COMBINES, INDEX_MAPS, SCALAR_EFFECTS, is_elementwise
from torchport_passes.ir.types import Attribute, Block, Module, Op, Region, Value

__all__ = ["Scalarize"]


@dataclass(frozen=True)
class Scalarize:
    """Compute values that are the same in every lane once.

    Takes imported TTIR. Leaves tensor operations only where lanes differ. Operations on splats become scalar
    arithmetic, loads through one pointer scalar loads, and tensors of one element scalars (``tt.unsplat`` reads those
    that reductions and block arguments give). An operation whose lanes differ takes a ``tt.splat`` of such a value.
    """

    name: ClassVar[str] = "scalarize"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                state = _State()
                for region in function.regions:
                    state.region(region)
                state.finish()


class _State:
    """The values of one function that are the same in every lane.

    ``uniform``: the scalar of each such tensor.
    ``replaced``: operations to erase if nothing uses them in the end, in order.
    ``splats``: the ``tt.splat`` of a tensor's scalar, if there is one.
    """

    def __init__(self) -> None:
        self.uniform: dict[Value, Value] = {}
        self.replaced: list[Op] = []
        self.splats: dict[Value, Value] = {}

    def region(self, region: Region) -> None:
        """Visit all blocks of a region."""
        for block in region.blocks:
            for argument in block.arguments:
                self._one_element(argument, block)
            for op in list(block.operations):
                self.operation(op.operation, block)

    def operation(self, op: Op, block: Block) -> None:
        """Replace an operation whose lanes are equal; give another one splats for such operands."""
        if op.name not in COMBINES:  # their regions combine scalars
            for region in op.regions:
                self.region(region)
        scalar = self._scalar_form(op)
        if scalar is not None:
            self.uniform[op.results[0]] = scalar
            self.replaced.append(op)
            return
        if op.name == "tt.reduce" and self._unit_reduction(op):
            return
        if op.name == "tt.unsplat" and self.uniform.get(op.operands[0], op.results[0]) != op.results[0]:
            op.results[0].replace_all_uses_with(self.uniform[op.operands[0]])  # as in `if block:`
            self.replaced.append(op)
            return
        if op.name in SCALAR_EFFECTS:
            self._effect(op)
            return
        for result in op.results:
            self._one_element(result, block, after=op)
        for i, operand in enumerate(op.operands):
            if operand in self.uniform and op.name != "tt.unsplat":
                op.operands[i] = self._splat(operand, op)

    def _unit_reduction(self, op: Op) -> bool:
        """Replace a reduction over one element by its operand. Returns whether ``op`` is one."""
        shape = shape_of(op.operands[0]) or ()
        if shape[int_attribute(op, "axis")] != 1:
            return False
        for operand, result in zip(op.operands, op.results, strict=True):
            scalar = self._scalar(operand)
            if scalar is not None and is_tensor(result):
                self.uniform[result] = scalar
            elif scalar is not None:
                result.replace_all_uses_with(scalar)
            elif numel(shape) > 1:
                new = ir.Operation.create("tt.reshape", [result.type], [operand], ip=ir.InsertionPoint(op))
                result.replace_all_uses_with(new.results[0])
        self.replaced.append(op)
        return True

    def _scalar(self, value: Value) -> Value | None:
        """The scalar that every lane of a tensor equals, None if unknown; a value that is no tensor itself."""
        return self.uniform.get(value) if is_tensor(value) else value

    def _scalar_form(self, op: Op) -> Value | None:
        """The scalar that every lane of an operation's result equals, emitted if need be; None if lanes may differ."""
        if len(op.results) != 1 or not is_tensor(op.results[0]):
            return None
        name = op.name
        if name == "tt.splat":
            return op.operands[0]
        attribute = constant_splat(op)
        if attribute is not None:
            return self._constant(op, attribute)
        if name == "tt.make_range" and shape_of(op.results[0]) == (1,):
            return self._constant(op, op.attributes["start"])
        operands = [self._scalar(v) for v in op.operands]
        if not operands or any(v is None for v in operands):
            return None
        if name in INDEX_MAPS or (name == "tt.scan" and numel(shape_of(op.results[0]) or ()) == 1):
            return operands[0]
        if not (is_elementwise(name) or name == "tt.load"):
            return None
        scalar = ir.Operation.create(
            name, [element_type(op.results[0].type)], operands, dict(op.attributes.items()), ip=ir.InsertionPoint(op)
        )
        return scalar.results[0]

    def _constant(self, op: Op, attribute: Attribute) -> Value:
        return arith.ConstantOp(element_type(op.results[0].type), attribute, ip=ir.InsertionPoint(op)).result

    def _effect(self, op: Op) -> None:
        """Make stores and atomics of one element, and assertions of one condition, scalar."""
        if not any(is_tensor(v) for v in (*op.operands, *op.results)):
            return
        operands = [self._scalar(v) for v in op.operands]
        single = numel(shape_of(op.operands[0]) or ()) == 1
        if all(v is not None for v in operands) and (single or op.name == "tt.assert"):
            types = [element_type(r.type) for r in op.results]
            new = ir.Operation.create(op.name, types, operands, dict(op.attributes.items()), ip=ir.InsertionPoint(op))
            for old, result in zip(op.results, new.results, strict=True):
                if is_tensor(old):
                    self.uniform[old] = result
            self.replaced.append(op)
            return
        for i, operand in enumerate(op.operands):
            if operand in self.uniform:
                op.operands[i] = self._splat(operand, op)

    def _one_element(self, value: Value, block: Block, after: Op | None = None) -> None:
        """Read a tensor of one element by ``tt.unsplat``."""
        shape = shape_of(value)
        if shape is None or numel(shape) != 1:
            return
        point = ir.InsertionPoint.at_block_begin(block) if after is None else ir.InsertionPoint.after(after)
        read = ir.Operation.create("tt.unsplat", [element_type(value.type)], [value], ip=point)
        self.uniform[value] = read.results[0]

    def _splat(self, value: Value, before: Op) -> Value:
        """The ``tt.splat`` of a tensor's scalar, emitted once, where the scalar is defined."""
        if value not in self.splats:
            owner = self.uniform[value].owner
            if isinstance(owner, ir.Block):
                point = ir.InsertionPoint.at_block_begin(owner)
            else:
                point = ir.InsertionPoint.after(owner)
            splat = ir.Operation.create("tt.splat", [value.type], [self.uniform[value]], ip=point)
            self.splats[value] = splat.results[0]
        return self.splats[value]

    def finish(self) -> None:
        """Erase what was replaced, last first."""
        for op in reversed(self.replaced):
            if not any(map(has_uses, op.results)):
                op.erase()
