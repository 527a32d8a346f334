"""Tensors that control flow carries go through buffers; only scalars stay carried."""

from __future__ import annotations

from typing import Any

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.ir.ops import element_type, is_scalar_constant, is_tensor, numel, owner_of, shape_of
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.tensors import constant, splat_like

__all__ = ["Carried"]

# Terms that a running f32 sum takes before it is added to a total: the error of a sum grows with the square root of
# the number of its terms, so two short sums in place of a long one are much more exact, and cost one branch.
_SUM_LENGTH = 64


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
            op = self._for(op, tensors) if op.name == "scf.for" else self._if(op, tensors)
        return op

    def _for(self, op: Any, tensors: list[int]) -> Any:
        point = ir.InsertionPoint(op)
        inits = list(op.operands)[3:]
        small = [i for i in tensors if numel(shape_of(inits[i]) or ()) == 1]
        large = [i for i in tensors if i not in small]
        buffers = {i: self.memory.stored(inits[i], point) for i in large}
        kept = [i for i in range(len(inits)) if i not in buffers]
        new = scf.ForOp(
            op.operands[0], op.operands[1], op.operands[2],
            [self.memory.scalar(inits[i], point) if i in small else inits[i] for i in kept], ip=point,
        )  # fmt: skip
        old, body = op.regions[0].blocks[0], new.body
        moved = [o.operation for o in old.operations]
        sums = {i for i in large if _is_long_sum(op, i)}
        in_place = {i for i in large if self.dots.accumulate_in(op, i, buffers[i])}
        for inner in moved:
            body.append(inner)
        start = ir.InsertionPoint.at_block_begin(body)
        old.arguments[0].replace_all_uses_with(body.arguments[0])
        for i, argument in enumerate(list(old.arguments)[1:]):
            if i in buffers:
                argument.replace_all_uses_with(self.memory.read(argument.type, buffers[i], start))
            else:
                self.replace(argument, body.arguments[1 + kept.index(i)], start)
        end = moved[-1]
        before_end = ir.InsertionPoint(end)
        yielded = list(end.operands)
        for i in large:
            if i not in in_place:
                self.memory.write(yielded[i], buffers[i], before_end)
        totals = {i: self.memory.buffer(inits[i].type) for i in large if i in sums}
        if totals:
            before_loop = ir.InsertionPoint(new.operation)
            for total, i in zip(totals.values(), totals, strict=True):
                self.memory.write(_zeros(inits[i].type, before_loop), total, before_loop)
            self.flush(new, {i: (buffers[i], total, inits[i].type) for i, total in totals.items()}, before_end)
        scf.YieldOp(
            [self.memory.scalar(yielded[i], before_end) if i in small else yielded[i] for i in kept], ip=before_end
        )
        end.erase()
        after = ir.InsertionPoint(op)
        for i, result in enumerate(op.results):
            if i in totals:
                with after:
                    parts = [self.memory.read(result.type, b, after) for b in (totals[i], buffers[i])]
                    result.replace_all_uses_with(arith.AddFOp(*parts).result)
            elif i in buffers:
                result.replace_all_uses_with(self.memory.read(result.type, buffers[i], after))
            else:
                self.replace(result, new.results[kept.index(i)], after)
        op.erase()
        return new.operation

    def flush(self, loop: Any, sums: dict[int, tuple[Any, Any, Any]], point: Any) -> None:
        """Every _SUM_LENGTH iterations, add the running sums to the totals and start them again."""
        with point:
            type_ = loop.induction_variable.type
            number = arith.DivUIOp(arith.SubIOp(loop.induction_variable, loop.lowerBound).result, loop.step).result
            last = arith.ConstantOp(type_, _SUM_LENGTH - 1).result
            full = arith.CmpIOp(arith.CmpIPredicate.eq, arith.AndIOp(number, last).result, last).result
            branch = scf.IfOp(full)
        with ir.InsertionPoint(branch.then_block):
            end = scf.YieldOp([])
        inside = ir.InsertionPoint(end)
        for running, total, tensor in sums.values():
            with inside:
                parts = [self.memory.read(tensor, b, inside) for b in (total, running)]
                self.memory.write(arith.AddFOp(*parts).result, total, inside)
                self.memory.write(_zeros(tensor, inside), running, inside)

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

    def replace(self, old: Any, new: Any, point: Any) -> None:
        """Uses of a one-element tensor (or scalar) by those of the scalar that took its place."""

        if not is_tensor(old):
            old.replace_all_uses_with(new)
            return
        old.replace_all_uses_with(ir.Operation.create("tt.splat", [old.type], [new], ip=point).results[0])


def _is_long_sum(loop: Any, index: int) -> bool:
    """Whether a carried f32 tensor only has something added to it, ``acc + x`` or ``where(mask, acc + x, acc)``.

    The loop must not read the sums in between (a running sum that is stored, a recurrent state): it would see what was
    added since the last flush only. Loops known to be short stay as they are.
    """
    low, high, step = (is_scalar_constant(loop.operands[i]) for i in range(3))
    if low is not None and high is not None and step is not None and (high - low) <= _SUM_LENGTH * step:
        return False
    block = loop.regions[0].blocks[0]
    argument = block.arguments[1 + index]
    if str(element_type(argument.type)) != "f32":
        return False
    end = list(block.operations)[-1].operation
    value = end.operands[index]
    users = {use.owner.operation for use in argument.uses}
    chosen = set()
    op = owner_of(value)
    if op is not None and op.name == "arith.select" and op.operands[2] == argument:
        chosen.add(op)
        op = owner_of(op.operands[1])
    if op is None or op.name != "arith.addf" or list(op.operands).count(argument) != 1:
        return False
    readers = {use.owner.operation for made in (op, *chosen) for use in made.results[0].uses}
    return users == chosen | {op} and readers == chosen | {end} and list(end.operands).count(value) == 1


def _zeros(type_: Any, point: Any) -> Any:
    with point:
        return splat_like(type_, constant(type_.element_type, 0.0))
