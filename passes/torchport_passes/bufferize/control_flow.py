"""Rebuilds control flow that carries tensors: they pass through buffers, and only scalars stay carried."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from mlir import ir
from mlir.dialects import scf

from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.bufferize.for_loop import ForLoop
from torchport_passes.ir.ops import is_tensor
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.types import Block, InsertionPoint, Op, Region, Value

__all__ = ["ControlFlow"]


_Buffers: TypeAlias = list[Value | None]
"""The buffers that values pass through; None for scalars."""


class ControlFlow:
    """Rebuilds ``scf.for``, ``scf.while`` and ``scf.if`` without tensors as operands, block arguments or results."""

    def __init__(self, memory: ProgramMemory, dots: DotOperands) -> None:
        self.memory = memory
        self.dots = dots

    def rebuilt(self, op: Op) -> Op:
        """The operation that replaces ``op``; ``op`` itself if it carries no tensor."""
        if not any(is_tensor(value) for value in (*op.operands, *op.results)):
            return op
        if op.name == "scf.while":
            return self._while(op)
        return ForLoop(op, self.memory, self.dots).rebuilt() if op.name == "scf.for" else self._if(op)

    def _while(self, op: Op) -> Op:
        """Tensors pass through two sets of buffers: one from the body to the condition, one from it to the body."""
        point = ir.InsertionPoint(op)
        to_condition = [self.memory.stored(v, point) if is_tensor(v) else None for v in op.operands]
        to_body = self._buffers(op.results)
        types = [result.type for result in _scalars(op.results, to_body)]
        new = scf.WhileOp(types, _scalars(op.operands, to_condition), ip=point)
        self._move(op.regions[0].blocks[0], _append_block(new.regions[0], op.operands), to_condition, to_body)
        self._move(op.regions[1].blocks[0], _append_block(new.regions[1], op.results), to_body, to_condition)
        self._replace(op.results, new.results, to_body, ir.InsertionPoint(op))
        op.erase()
        return new.operation

    def _if(self, op: Op) -> Op:
        """Both branches write their tensors to the same buffers, which are read after them."""
        point = ir.InsertionPoint(op)
        buffers = self._buffers(op.results)
        types = [result.type for result in _scalars(op.results, buffers)]
        new = scf.IfOp(op.operands[0], types, has_else=True, ip=point)
        for region, block in zip(op.regions, (new.then_block, new.else_block), strict=True):
            self._move(region.blocks[0], block, [], buffers)
        self._replace(op.results, new.results, buffers, point)
        op.erase()
        return new.operation

    def _buffers(self, values: Iterable[Value]) -> _Buffers:
        return [self.memory.buffer(value.type) if is_tensor(value) else None for value in values]

    def _move(self, source: Block, target: Block, buffers_in: _Buffers, buffers_out: _Buffers) -> None:
        """Move a block: its arguments are read from ``buffers_in``, what it hands on is written to ``buffers_out``."""
        operations = [view.operation for view in source.operations]
        for op in operations:
            target.append(op)
        self._replace(source.arguments, target.arguments, buffers_in, ir.InsertionPoint.at_block_begin(target))
        end = operations[-1]
        point = ir.InsertionPoint(end)
        condition = list(end.operands)[:1] if end.name == "scf.condition" else []
        values = list(end.operands)[len(condition) :]
        for value, buffer in zip(values, buffers_out, strict=True):
            if buffer is not None:
                self.memory.write(value, buffer, point)
        terminator = scf.ConditionOp if condition else scf.YieldOp
        terminator(*condition, _scalars(values, buffers_out), ip=point)
        end.erase()

    def _replace(
        self, values: Iterable[Value], scalars: Iterable[Value], buffers: _Buffers, point: InsertionPoint
    ) -> None:
        """Replace tensors among ``values`` by reads of their buffers at ``point``, the others by ``scalars``."""
        following = iter(scalars)
        for value, buffer in zip(values, buffers, strict=True):
            new = next(following) if buffer is None else self.memory.read(value.type, buffer, point)
            value.replace_all_uses_with(new)


def _scalars(values: Iterable[Value], buffers: _Buffers) -> list[Value]:
    """The values that pass through no buffer."""
    return [value for value, buffer in zip(values, buffers, strict=True) if buffer is None]


def _append_block(region: Region, values: Iterable[Value]) -> Block:
    """A new block with an argument for each scalar among ``values``."""
    types = [value.type for value in values if not is_tensor(value)]
    return region.blocks.append(*types, arg_locs=[ir.Location.unknown()] * len(types))
