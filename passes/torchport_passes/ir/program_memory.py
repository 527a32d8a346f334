"""Makes buffers, the memory of one program instance, and moves tensors into and out of them."""

from __future__ import annotations

from mlir import ir

from torchport_passes.ir.ops import element_type, numel, owner_of, shape_of
from torchport_passes.ir.types import Block, InsertionPoint, Op, Type, Value

__all__ = ["ProgramMemory", "create_buffer"]


def create_buffer(entry: Block, count: int, element: Type) -> Value:
    """A ``tp.buffer`` of ``count`` elements, at the start of the function's ``entry`` block. An i1 takes a byte."""
    attributes = {
        "count": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), count),
        "element": ir.TypeAttr.get(element),
    }
    pointer = ir.Type.parse("!llvm.ptr")
    point = ir.InsertionPoint.at_block_begin(entry)
    return ir.Operation.create("tp.buffer", [pointer], [], attributes, ip=point).results[0]


class ProgramMemory:
    """The buffers of one function, whose first block is ``entry``."""

    def __init__(self, entry: Block) -> None:
        self.entry = entry

    def buffer(self, type_: Type) -> Value:
        """A buffer for one tensor of ``type_``."""
        return create_buffer(self.entry, numel(tuple(type_.shape)), element_type(type_))

    def write(self, value: Value, buffer: Value, point: InsertionPoint) -> Op:
        """Write a tensor to a buffer at ``point``; returns the ``tp.write``."""
        return ir.Operation.create("tp.write", [], [value, buffer], ip=point)

    def read(self, type_: Type, buffer: Value, point: InsertionPoint) -> Value:
        """A tensor of ``type_``, read from a buffer at ``point``."""
        return ir.Operation.create("tp.read", [type_], [buffer], ip=point).results[0]

    def stored(self, value: Value, point: InsertionPoint) -> Value:
        """A new buffer that holds ``value`` from ``point`` on."""
        buffer = self.buffer(value.type)
        self.write(value, buffer, point)
        return buffer

    def scalar(self, value: Value, point: InsertionPoint) -> Value:
        """The one element of a tensor."""
        op = owner_of(value)
        if op is not None and op.name == "tt.splat":
            return op.operands[0]
        assert numel(shape_of(value) or ()) == 1
        return ir.Operation.create("tt.unsplat", [element_type(value.type)], [value], ip=point).results[0]
