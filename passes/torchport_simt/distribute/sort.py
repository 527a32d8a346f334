"""Sorting networks on distributed tensors: loops over local memory, with code of one size for every length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import DOWN, UP, element_type, shape_of

from torchport_simt.distribute.build import constant, counted_loop, flag
from torchport_simt.distribute.values import Values

__all__ = ["sort"]


def sort(op: Any, values: Values) -> None:
    """Emit ``tp.sort``: the merges of stages ``first`` to ``last`` (``torchport_passes.loops.sort`` defines them).

    In each step a lane takes pairs of elements whose indices differ in one bit, and swaps a pair that is out of order.
    Each element is compared by itself, as in Triton's network, so that NaN and ties are treated the same.
    """
    source, result = op.operands[0], op.results[0]
    count = prod(shape_of(source) or ())
    registers = values.own(source)
    scratch = values.allocate(count, element_type(source.type))
    shape = shape_of(source) or ()
    for k, element in enumerate(registers):
        values.write(scratch, values.distribution.own(shape, k), element, values.distribution.is_first(shape))
    values.barrier()
    first, last, order = (ir.IntegerAttr(op.attributes[name]).value for name in ("first", "last", "order"))
    _Network(values, scratch, count, "unsigned" in op.attributes).emit(first, last, order)
    values.put(result, scratch)


class _Network:
    """A sorting network on ``count`` elements in local memory."""

    def __init__(self, values: Values, scratch: Any, count: int, unsigned: bool) -> None:
        self.values = values
        self.scratch = scratch
        self.count = count
        self.unsigned = unsigned

    def emit(self, first: int, last: int, order: int) -> None:
        if last > first:

            def stages(stage: Any, _: list[Any]) -> tuple[()]:
                self.merge(stage, self.bit(stage))
                return ()

            counted_loop(first, last, stages)
        stage = constant(last)
        flip = self.bit(constant(order)) if order not in (UP, DOWN) else lambda index: flag(order == DOWN)
        self.merge(stage, flip)

    @staticmethod
    def bit(position: Any) -> Callable[[Any], Any]:
        """The function that gives an index's bit at a position known at run time: it reverses the order."""
        return lambda index: arith.TruncIOp(integer_type(1), arith.ShRUIOp(index, position).result).result

    def merge(self, stage: Any, flip: Callable[[Any], Any]) -> None:
        """Emit the steps whose partners' indices differ in the bits ``stage`` - 1 down to 0."""
        one = constant(1)

        def step(down: Any, _: list[Any]) -> tuple[()]:
            position = arith.SubIOp(arith.SubIOp(stage, down).result, one).result
            distance = arith.ShLIOp(one, position).result
            for pair, inside in self.pairs():
                if inside is None:
                    self.exchange(pair, position, distance, flip)
                    continue
                branch = scf.IfOp(inside)
                with ir.InsertionPoint(branch.then_block):
                    self.exchange(pair, position, distance, flip)
                    scf.YieldOp([])
            self.values.barrier()
            return ()

        counted_loop(0, stage, step)

    def pairs(self) -> Iterator[tuple[Any, Any | None]]:
        """The numbers of a lane's pairs, and whether there is such a pair (None: there always is)."""
        count, lane = self.count // 2, self.values.distribution.lane
        lanes = self.values.distribution.count
        for k in range(max(1, count // lanes)):
            pair = arith.AddIOp(lane, constant(k * lanes)).result if k else lane
            inside = None if count >= lanes else arith.CmpIOp(arith.CmpIPredicate.ult, pair, constant(count)).result
            yield pair, inside

    def exchange(self, pair: Any, position: Any, distance: Any, flip: Callable[[Any], Any]) -> None:
        """Compare the two elements of a pair and swap them if they are out of order."""
        one = constant(1)
        low = arith.AndIOp(pair, arith.SubIOp(distance, one).result).result
        high = arith.ShLIOp(arith.ShRUIOp(pair, position).result, arith.AddIOp(position, one).result).result
        before = arith.OrIOp(high, low).result
        after = arith.OrIOp(before, distance).result
        a, b = (self.load(index) for index in (before, after))
        reversed_ = flip(before)
        straight = arith.XOrIOp(reversed_, flag(True)).result
        swap_a = arith.CmpIOp(arith.CmpIPredicate.ne, self.greater(a, b), reversed_).result
        swap_b = arith.CmpIOp(arith.CmpIPredicate.ne, self.greater(b, a), straight).result
        self.store(arith.SelectOp(swap_a, b, a).result, before)
        self.store(arith.SelectOp(swap_b, a, b).result, after)

    def greater(self, a: Any, b: Any) -> Any:
        if isinstance(a.type, ir.FloatType):
            return arith.CmpFOp(arith.CmpFPredicate.OGT, a, b).result
        predicate = arith.CmpIPredicate.ugt if self.unsigned else arith.CmpIPredicate.sgt
        return arith.CmpIOp(predicate, a, b).result

    def load(self, index: Any) -> Any:
        return ir.Operation.create("tp.scratch_load", [self.scratch.element], [self.scratch.buffer, index]).results[0]

    def store(self, value: Any, index: Any) -> None:
        ir.Operation.create("tp.scratch_store", [], [value, self.scratch.buffer, index])
