"""Rebuilds an ``scf.for`` that carries tensors: they pass through buffers, and only scalars stay carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.bufferize.dot_operands import DotOperands
from torchport_passes.ir.ops import constant_int, element_type, is_tensor, numel, owner_of, shape_of, terminator_of
from torchport_passes.ir.program_memory import ProgramMemory
from torchport_passes.ir.tensors import constant, splat_like
from torchport_passes.ir.types import InsertionPoint, Op, Type, Value

__all__ = ["ForLoop"]

_SUM_LENGTH = 16
"""Terms that a running f32 sum takes before it is added to a total, and such sums that a total takes before it is added
to another: a cascade, as aten adds.

The error of a sum grows with the square root of the number of its terms: short sums are much more exact than a long
one, and cost one branch.
"""


@dataclass
class _Carried:
    """A value that the loop carries.

    ``index``: its number among the carried values.
    ``init``: its value before the loop.
    ``buffer``: the buffer it passes through; None for scalars, and for tensors of one element, which become scalars.
    ``in_place``: whether a dot accumulates in the buffer, so that the body need not write it.
    ``totals``: the buffers of the totals of a long sum; none for other values.
    """

    index: int
    init: Value
    buffer: Value | None = None
    in_place: bool = False
    totals: list[Value] = field(default_factory=list)

    @property
    def sums(self) -> list[Value]:
        """The buffers of a long sum: of the running sum, then of the totals."""
        assert self.buffer is not None
        return [self.buffer, *self.totals]

    @property
    def type(self) -> Type:
        return self.init.type


class ForLoop:
    """One ``scf.for`` while it is rebuilt."""

    def __init__(self, op: Op, memory: ProgramMemory, dots: DotOperands) -> None:
        self._op = op
        self._memory = memory
        self._dots = dots
        self._carried = [_Carried(index, init) for index, init in enumerate(list(op.operands)[3:])]

    def rebuilt(self) -> Op:
        """The loop without tensors that replaces the old one, which is erased."""
        op, point = self._op, ir.InsertionPoint(self._op)
        buffered = [c for c in self._carried if is_tensor(c.init) and numel(shape_of(c.init) or ()) != 1]
        writes = []
        for carried in buffered:
            carried.buffer = self._memory.buffer(carried.init.type)
            writes.append(self._memory.write(carried.init, carried.buffer, point))
        scalars = [c for c in self._carried if c.buffer is None]
        starts = [self._memory.scalar(c.init, point) if is_tensor(c.init) else c.init for c in scalars]
        new = scf.ForOp(op.operands[0], op.operands[1], op.operands[2], starts, ip=point)
        operations = [view.operation for view in op.regions[0].blocks[0].operations]
        sums = [carried for carried in buffered if _is_long_sum(op, carried.index)]
        for carried, write in zip(buffered, writes, strict=True):
            carried.in_place = self._dots.accumulate_in(op, carried.index, carried.buffer)
            if carried.in_place and self._dots.begins(op, carried.index):
                write.erase()
        for operation in operations:
            new.body.append(operation)
        self._replace_arguments(new, scalars)
        self._end(new, operations[-1], scalars, sums)
        self._replace_results(new, scalars)
        op.erase()
        return new.operation

    def _replace_arguments(self, new: Op, scalars: Sequence[_Carried]) -> None:
        """The body reads buffers at its start, and takes scalars from the new block arguments."""
        start = ir.InsertionPoint.at_block_begin(new.body)
        index, *arguments = self._op.regions[0].blocks[0].arguments
        index.replace_all_uses_with(new.body.arguments[0])
        for carried, argument in zip(self._carried, arguments, strict=True):
            if carried.buffer is not None:
                argument.replace_all_uses_with(self._memory.read(argument.type, carried.buffer, start))
            else:
                _replace(argument, new.body.arguments[1 + scalars.index(carried)], start)

    def _end(self, new: Op, end: Op, scalars: Sequence[_Carried], sums: Sequence[_Carried]) -> None:
        """The body writes buffers at its end, adds long sums to their totals, and yields scalars."""
        point = ir.InsertionPoint(end)
        values = list(end.operands)
        for carried in self._carried:
            if carried.buffer is not None and not carried.in_place:
                self._memory.write(values[carried.index], carried.buffer, point)
        for carried in sums:
            carried.totals = [self._memory.buffer(carried.type) for _ in range(_levels(self._op))]
        if sums:
            before = ir.InsertionPoint(new.operation)
            for carried in sums:
                for total in carried.totals:
                    self._memory.write(_zeros(carried.type, before), total, before)
            self._flush(new, sums, point, 0)
        yielded = [
            self._memory.scalar(values[c.index], point) if is_tensor(c.init) else values[c.index] for c in scalars
        ]
        scf.YieldOp(yielded, ip=point)
        end.erase()

    def _flush(self, new: Op, sums: Sequence[_Carried], point: InsertionPoint, level: int) -> None:
        """Every so many iterations, add the sums of a level to the totals of the next one and start them again."""
        with point:
            type_ = new.induction_variable.type
            number = arith.DivUIOp(arith.SubIOp(new.induction_variable, new.lowerBound).result, new.step).result
            last = arith.ConstantOp(type_, _SUM_LENGTH ** (level + 1) - 1).result
            full = arith.CmpIOp(arith.CmpIPredicate.eq, arith.AndIOp(number, last).result, last).result
            branch = scf.IfOp(full)
        with ir.InsertionPoint(branch.then_block):
            end = scf.YieldOp([])
        inside = ir.InsertionPoint(end)
        for carried in sums:
            sum_, total = carried.sums[level : level + 2]
            with inside:
                added = arith.AddFOp(*(self._memory.read(carried.type, buffer, inside) for buffer in (total, sum_)))
                self._memory.write(added.result, total, inside)
                self._memory.write(_zeros(carried.type, inside), sum_, inside)
        if level + 1 < max(len(carried.totals) for carried in sums):
            self._flush(new, sums, inside, level + 1)

    def _replace_results(self, new: Op, scalars: Sequence[_Carried]) -> None:
        """Uses of the old loop's results read buffers, or the new loop's results."""
        after = ir.InsertionPoint(self._op)
        for carried, result in zip(self._carried, self._op.results, strict=True):
            if carried.totals:
                with after:
                    result.replace_all_uses_with(self._sum(carried, after))
            elif carried.buffer is not None:
                result.replace_all_uses_with(self._memory.read(result.type, carried.buffer, after))
            else:
                _replace(result, new.results[scalars.index(carried)], after)

    def _sum(self, carried: _Carried, point: InsertionPoint) -> Value:
        """The running sum and the totals added. ``point`` must be the current insertion point."""
        running, *totals = (self._memory.read(carried.type, buffer, point) for buffer in carried.sums)
        for total in totals:
            running = arith.AddFOp(total, running).result
        return running


def _levels(loop: Op) -> int:
    """How many totals a long sum has: a second one unless the loop is known to be so short that it is not needed."""
    return 1 if _has_at_most(loop, _SUM_LENGTH**2) else 2


def _has_at_most(loop: Op, iterations: int) -> bool:
    """Whether a loop is known to have no more iterations."""
    low, high, step = (constant_int(loop.operands[i]) for i in range(3))
    return low is not None and high is not None and step is not None and high - low <= iterations * step


def _replace(old: Value, new: Value, point: InsertionPoint) -> None:
    """Replace uses of a scalar or of a one-element tensor by the scalar that takes its place."""
    if is_tensor(old):
        new = ir.Operation.create("tt.splat", [old.type], [new], ip=point).results[0]
    old.replace_all_uses_with(new)


def _is_long_sum(loop: Op, index: int) -> bool:
    """Whether all that the loop does with a carried f32 tensor is to add to it.

    That is ``acc + x`` or ``where(mask, acc + x, acc)``. If the body used the sum in any other way (stored it, or
    computed with it as a recurrent state), it would see only what was added since the last flush. False for loops
    known to be short.
    """
    if _has_at_most(loop, _SUM_LENGTH):
        return False
    block = loop.regions[0].blocks[0]
    argument = block.arguments[1 + index]
    if str(element_type(argument.type)) != "f32":
        return False
    end = terminator_of(block)
    value = end.operands[index]
    addition, last, selections = owner_of(value), end, []
    if addition is not None and addition.name == "arith.select" and addition.operands[2] == argument:
        last, selections = addition, [addition]
        addition = owner_of(addition.operands[1])
    if addition is None or addition.name != "arith.addf" or list(addition.operands).count(argument) != 1:
        return False
    if _users(addition.results[0]) != {last} or any(_users(one.results[0]) != {end} for one in selections):
        return False
    return _users(argument) == {addition, *selections} and list(end.operands).count(value) == 1


def _users(value: Value) -> set[Op]:
    return {use.owner.operation for use in value.uses}


def _zeros(type_: Type, point: InsertionPoint) -> Value:
    with point:
        return splat_like(type_, constant(type_.element_type, 0.0))
