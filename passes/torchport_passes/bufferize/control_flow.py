"""Tensors that control flow carries go through buffers; only scalars stay carried."""

from __future__ import annotations

from typing import Any

from mlir import ir
from mlir.dialects import scf

from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.bufferize.for_loop import ForLoop
from torchport_passes.ir.ops import is_tensor
from torchport_passes.ir.program_memory import ProgramMemory

__all__ = ["Carried"]


class Carried:
    """Rebuilds ``scf.for``, ``scf.while`` and ``scf.if`` without tensor operands, block arguments and results."""

    def __init__(self, memory: ProgramMemory, dots: DotOperands) -> None:
        self.memory = memory
        self.dots = dots

    def rebuilt(self, op: Any) -> Any:
        """The operation that takes the place of ``op``."""
        tensors = [i for i, r in enumerate(op.results) if is_tensor(r)]
        if op.name == "scf.while":
            if any(is_tensor(v) for v in (*op.operands, *op.results)):
                op = self._while(op)
        elif tensors:
            op = ForLoop(op, self.memory, self.dots).rebuilt() if op.name == "scf.for" else self._if(op, tensors)
        return op

    def _while(self, op: Any) -> Any:
        """Tensors go through two sets of buffers: those the condition reads, those the body and the results read."""
        point = ir.InsertionPoint(op)
        before, after = (region.blocks[0] for region in op.regions)
        inits = list(op.operands)
        into = [self.memory.stored(v, point) if is_tensor(v) else None for v in inits]
        onward = [self.memory.buffer(r.type) if is_tensor(r) else None for r in op.results]
        scalars = [v for v, b in zip(inits, into, strict=True) if b is None]
        new = scf.WhileOp([r.type for r, b in zip(op.results, onward, strict=True) if b is None], scalars, ip=point)
        for old, region, buffers, target in (
            (before, new.regions[0], into, onward),
            (after, new.regions[1], onward, into),
        ):
            types = [a.type for a, b in zip(old.arguments, buffers, strict=True) if b is None]
            body = region.blocks.append(*types, arg_locs=[ir.Location.unknown()] * len(types))
            moved = [o.operation for o in old.operations]
            for inner in moved:
                body.append(inner)
            start, kept = ir.InsertionPoint.at_block_begin(body), iter(body.arguments)
            for argument, buffer in zip(old.arguments, buffers, strict=True):
                value = next(kept) if buffer is None else self.memory.read(argument.type, buffer, start)
                argument.replace_all_uses_with(value)
            self._end_while(moved[-1], target)
        kept = iter(new.results)
        after_loop = ir.InsertionPoint(op)
        for result, buffer in zip(op.results, onward, strict=True):
            value = next(kept) if buffer is None else self.memory.read(result.type, buffer, after_loop)
            result.replace_all_uses_with(value)
        op.erase()
        return new.operation

    def _end_while(self, end: Any, buffers: list[Any]) -> None:
        """Rebuild ``scf.condition`` or ``scf.yield`` with its tensors written to buffers."""
        point = ir.InsertionPoint(end)
        first = 1 if end.name == "scf.condition" else 0
        values = list(end.operands)[first:]
        for value, buffer in zip(values, buffers, strict=True):
            if buffer is not None:
                self.memory.write(value, buffer, point)
        kept = [v for v, b in zip(values, buffers, strict=True) if b is None]
        if first:
            scf.ConditionOp(end.operands[0], kept, ip=point)
        else:
            scf.YieldOp(kept, ip=point)
        end.erase()

    def _if(self, op: Any, tensors: list[int]) -> Any:
        point = ir.InsertionPoint(op)
        kept = [i for i in range(len(op.results)) if i not in tensors]
        buffers = {i: self.memory.buffer(op.results[i].type) for i in tensors}
        new = scf.IfOp(op.operands[0], [op.results[i].type for i in kept], has_else=True, ip=point)
        for old_region, block in zip(op.regions, (new.then_block, new.else_block), strict=True):
            moved = [o.operation for o in old_region.blocks[0].operations]
            for inner in moved:
                block.append(inner)
            end = moved[-1]
            before_end = ir.InsertionPoint(end)
            for i in tensors:
                self.memory.write(end.operands[i], buffers[i], before_end)
            scf.YieldOp([end.operands[i] for i in kept], ip=before_end)
            end.erase()
        for i, result in enumerate(op.results):
            if i in buffers:
                result.replace_all_uses_with(self.memory.read(result.type, buffers[i], point))
            else:
                result.replace_all_uses_with(new.results[kept.index(i)])
        op.erase()
        return new.operation
