"""Lowers maps of scalar functions over tensors to loops."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import matching
from torchport_passes.ir.types import Module, Op
from torchport_passes.loops.loop_builder import BufferOp, add, constant, end, loop, read, write

__all__ = ["LowerMap"]


@dataclass(frozen=True)
class LowerMap:
    """Run the function of every ``tp.map_elementwise`` element by element, as it may branch.

    Takes what ``buffers`` leaves of ``tt.map_elementwise``: operands and results are buffers, and the region is one
    block. It takes ``pack`` neighbouring elements, in row-major order, at a time: first those of the first operand,
    then those of the second, and so on. The order of its results is the same.
    """

    name: ClassVar[str] = "lower-map"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.map_elementwise", "tt.map_elementwise.return"})

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tp.map_elementwise".__eq__):
                with ir.InsertionPoint(op):
                    _lower(op)
                op.erase()


def _lower(op: Op) -> None:
    call = BufferOp(op)
    pack = call.integer("pack")
    block = op.regions[0].blocks[0]
    steps = loop(prod(call.operand_types[0].shape), pack)
    with ir.InsertionPoint(steps.body):
        places = [add(steps.induction_variable, constant(i)) if i else steps.induction_variable for i in range(pack)]
        sources = zip(call.sources, call.operand_types, strict=True)
        values = [read(buffer, place, type_.element_type) for buffer, type_ in sources for place in places]
        for argument, value in zip(block.arguments, values, strict=True):
            argument.replace_all_uses_with(value)
        *body, terminator = (o.operation for o in block.operations)
        for inner in body:
            steps.body.append(inner)
        results = [(buffer, place) for buffer in call.results for place in places]
        for value, (buffer, place) in zip(terminator.operands, results, strict=True):
            write(value, buffer, place, value.type)
        end()
