"""Puts tensors that cannot stay in registers into buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.bufferize.control_flow import ControlFlow
from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.ir.build import from_storage, storage_type
from torchport_passes.ir.ops import is_tensor, matching, owner_of, shape_of, squeezed
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.traits import WHOLE_TENSORS
from torchport_passes.ir.types import Block, Module, Op

__all__ = ["Buffers"]


@dataclass(frozen=True)
class Buffers:
    """Make memory explicit where elements meet other elements, and where tensors cross control flow.

    Takes scalarized IR. A buffer (``tp.buffer``) is memory of one program instance that holds a tensor in row-major
    order. This pass adds buffers, writes to them (``tp.write value, buffer``) and reads of them (``tp.read buffer``):

    * A reshape that does more than add or drop dimensions of size 1 reads a buffer in another shape.
    * ``tt.scan``, ``tt.gather``, ``tt.histogram``, ``tt.split``, ``tt.join`` and ``tt.cat`` become ``tp.*`` operations
      from buffers to buffers.
    * ``tt.dot`` becomes ``tp.dot``, which adds the product of two buffers to a third one.
    * ``scf.for``, ``scf.while`` and ``scf.if`` carry scalars only; tensors pass through buffers.
    """

    name: ClassVar[str] = "buffers"
    removes: ClassVar[frozenset[str]] = frozenset(
        {"tt.cat", "tt.dot", "tt.gather", "tt.histogram", "tt.join", "tt.map_elementwise", "tt.scan", "tt.split"}
    )

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) > 0:
                    _Function(function).run()


class _Function:
    """One function while its tensors get buffers."""

    def __init__(self, function: Op) -> None:
        self.function = function
        self.memory = ProgramMemory(function.regions[0].blocks[0])
        self.dots = DotOperands(self.memory)
        self.control_flow = ControlFlow(self.memory, self.dots)

    def run(self) -> None:
        for block in self.function.regions[0].blocks:
            self._block(block)
        for op in matching(self.function, "tt.unsplat".__eq__):
            self._unsplat(op)

    def _block(self, block: Block) -> None:
        for view in list(block.operations):
            self._operation(view.operation)

    def _operation(self, op: Op) -> None:
        if op.name == "tt.reshape":
            self._reshape(op)
        elif op.name in WHOLE_TENSORS or (op.name == "tt.print" and any(is_tensor(v) for v in op.operands)):
            self._whole_tensors(op)
        elif op.name == "tt.dot":
            self.dots.lower(op)
        elif op.name in ("scf.for", "scf.if", "scf.while"):
            for region in self.control_flow.rebuilt(op).regions:
                for block in region.blocks:
                    self._block(block)

    def _unsplat(self, op: Op) -> None:
        """The element of a splat is its scalar; that of a tensor in a buffer is loaded where the buffer is read."""
        source = owner_of(op.operands[0])
        if source is None or source.name not in ("tt.splat", "tp.read"):
            return
        scalar = source.operands[0]
        if source.name == "tp.read":
            element = op.results[0].type
            with ir.InsertionPoint(source):
                stored = ir.Operation.create("tt.load", [storage_type(element)], [source.operands[0]]).results[0]
                scalar = from_storage(stored, element)
        op.results[0].replace_all_uses_with(scalar)
        op.erase()

    def _reshape(self, op: Op) -> None:
        """A reshape that moves elements reads a buffer in another shape."""
        source, result = op.operands[0], op.results[0]
        if squeezed(shape_of(source) or ()) == squeezed(shape_of(result) or ()):
            return
        point = ir.InsertionPoint(op)
        result.replace_all_uses_with(self.memory.read(result.type, self.memory.stored(source, point), point))
        op.erase()

    def _whole_tensors(self, op: Op) -> None:
        """``tt.x(tensors) -> tensors`` becomes ``tp.x(buffers of operands, buffers of results)``."""
        point = ir.InsertionPoint(op)
        sources = [self.memory.stored(v, point) for v in op.operands]
        results = [self.memory.buffer(r.type) for r in op.results]
        attributes = dict(op.attributes.items())
        # what Triton prints as properties is not among the items
        attributes.update({name: op.attributes[name] for name in ("axis", "reverse", "pack") if name in op.attributes})
        attributes["operand_types"] = ir.ArrayAttr.get([ir.TypeAttr.get(v.type) for v in op.operands])
        attributes["result_types"] = ir.ArrayAttr.get([ir.TypeAttr.get(r.type) for r in op.results])
        new = ir.Operation.create(
            "tp." + op.name[3:], [], [*sources, *results], attributes, regions=len(op.regions), ip=point
        )
        for old_region, region in zip(op.regions, new.regions, strict=True):
            for block in list(old_region.blocks):
                block.append_to(region)
        for result, buffer in zip(op.results, results, strict=True):
            result.replace_all_uses_with(self.memory.read(result.type, buffer, point))
        op.erase()
