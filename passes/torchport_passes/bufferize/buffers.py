"""Puts values that cannot stay in a loop's registers into explicit buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir

from torchport_passes.bufferize.control_flow import Carried
from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.ir.build import from_storage, storage_type
from torchport_passes.ir.ops import is_tensor, matching, owner_of, shape_of, squeezed
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.traits import WHOLE_TENSORS

__all__ = ["Buffers"]


@dataclass(frozen=True)
class Buffers:
    """Make memory explicit where lanes meet other lanes or values cross control flow.

    Takes scalarized IR. Leaves ``tp.buffer`` (stack memory of one program instance, row-major), ``tp.write value,
    buffer`` and ``tp.read buffer`` around

    * reshapes that do more than add or drop unit dimensions (a read of the same buffer in another shape),
    * ``tt.scan``, ``tt.gather``, ``tt.histogram``, ``tt.split``, ``tt.join``, ``tt.cat``, which become ``tp.*``
      operations from buffers to buffers,
    * ``tt.dot``, which becomes ``tp.dot`` of two buffers added to a third one,
    * tensors carried by ``scf.for``, ``scf.while`` and ``scf.if``, which carry scalars only afterwards.
    """

    name: ClassVar[str] = "buffers"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            for function in module.body.operations:
                if len(function.regions[0].blocks) > 0:
                    _Function(function).run()


class _Function:
    def __init__(self, function: Any) -> None:
        self.function = function
        self.memory = ProgramMemory(function.regions[0].blocks[0])
        self.dots = DotOperands(self.memory)
        self.carried = Carried(self.memory, self.dots)

    def run(self) -> None:
        for block in self.function.regions[0].blocks:
            self.block(block)
        for op in matching(self.function, "tt.unsplat".__eq__):
            self.one_element(op)

    def block(self, block: Any) -> None:
        for view in list(block.operations):
            self._operation(view.operation)

    def _operation(self, op: Any) -> None:
        if op.name == "tt.reshape":
            self.reshape(op)
        elif op.name in WHOLE_TENSORS or (op.name == "tt.print" and any(is_tensor(v) for v in op.operands)):
            self.whole(op)
        elif op.name == "tt.dot":
            self.dots.lower(op)
        elif op.name in ("scf.for", "scf.if", "scf.while"):
            for region in self.carried.rebuilt(op).regions:
                for inner in region.blocks:
                    self.block(inner)

    def one_element(self, unsplat: Any) -> None:
        """The one element of a splat is its scalar; of a tensor in a buffer, a scalar load where the buffer is read."""
        read = owner_of(unsplat.operands[0])
        if read is not None and read.name == "tt.splat":
            unsplat.results[0].replace_all_uses_with(read.operands[0])
            unsplat.erase()
        if read is None or read.name != "tp.read":
            return
        element = unsplat.results[0].type
        with ir.InsertionPoint(read):
            stored = ir.Operation.create("tt.load", [storage_type(element)], [read.operands[0]]).results[0]
            unsplat.results[0].replace_all_uses_with(from_storage(stored, element))
        unsplat.erase()

    def reshape(self, op: Any) -> None:
        source, result = op.operands[0], op.results[0]
        if squeezed(shape_of(source) or ()) == squeezed(shape_of(result) or ()):
            return
        point = ir.InsertionPoint(op)
        result.replace_all_uses_with(self.memory.read(result.type, self.memory.stored(source, point), point))
        op.erase()

    def whole(self, op: Any) -> None:
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
