"""Sorting networks on distributed tensors: loops over scratchpad memory, code of one size for every length."""

from __future__ import annotations

from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import DOWN, UP, element_type, shape_of

from torchport_simt.distribute.values import Values

__all__ = ["sort"]


def sort(op: Any, values: Values) -> None:
    """Emit ``tp.sort``: merges of the stages ``first`` to ``last`` (``_lower_sort`` says what they are).

    In each step a lane takes pairs of elements whose indices differ in one bit. Of a pair, the element before takes its
    partner's place when it is greater, the other one likewise: what Triton's own network does, NaN and ties included.
    """
    source, result = op.operands[0], op.results[0]
    count = prod(shape_of(source) or ())
    registers = values.own(source)
    scratch = values.allocate(count, element_type(source.type))
    shape = shape_of(source) or ()
    for k, element in enumerate(registers):
        values.write(scratch, values.lanes.own(shape, k), element, values.lanes.is_first(shape))
    values.barrier()
    first, last, order = (ir.IntegerAttr(op.attributes[name]).value for name in ("first", "last", "order"))
    _Network(values, scratch, count, "unsigned" in op.attributes).emit(first, last, order)
    values.put(result, scratch)


class _Network:
    def __init__(self, values: Values, scratch: Any, count: int, unsigned: bool) -> None:
        self.values = values
        self.scratch = scratch
        self.count = count
        self.unsigned = unsigned

    def emit(self, first: int, last: int, order: int) -> None:
        if last > first:
            with _Loop(first, last) as stage:
                self.merge(stage, self.bit(stage))
        number = _constant(last)
        flip = self.bit(_constant(order)) if order not in (UP, DOWN) else lambda index: _bool(order == DOWN)
        self.merge(number, flip)

    @staticmethod
    def bit(place: Any) -> Any:
        """The bit of an index that turns the order round, at a place that is known at run time."""

        def of(index: Any) -> Any:
            return arith.TruncIOp(integer_type(1), arith.ShRUIOp(index, place).result).result

        return of

    def merge(self, stage: Any, flip: Any) -> None:
        """Steps whose partners' indices differ in the bits ``stage`` - 1 down to 0."""
        one = _constant(1)
        with _Loop(0, stage) as down:
            place = arith.SubIOp(arith.SubIOp(stage, down).result, one).result
            distance = arith.ShLIOp(one, place).result
            pairs = self.count // 2
            lanes = self.values.lanes
            for k in range(max(1, pairs // lanes.count)):
                pair = arith.AddIOp(lanes.lane, _constant(k * lanes.count)).result if k else lanes.lane
                if pairs >= lanes.count:
                    self.exchange(pair, place, distance, flip)
                    continue
                inside = arith.CmpIOp(arith.CmpIPredicate.ult, pair, _constant(pairs)).result
                branch = scf.IfOp(inside)
                with ir.InsertionPoint(branch.then_block):
                    self.exchange(pair, place, distance, flip)
                    scf.YieldOp([])
            self.values.barrier()

    def exchange(self, pair: Any, place: Any, distance: Any, flip: Any) -> None:
        one = _constant(1)
        low = arith.AndIOp(pair, arith.SubIOp(distance, one).result).result
        high = arith.ShLIOp(arith.ShRUIOp(pair, place).result, arith.AddIOp(place, one).result).result
        before = arith.OrIOp(high, low).result
        after = arith.OrIOp(before, distance).result
        a, b = (self.load(index) for index in (before, after))
        turned = flip(before)
        straight = arith.XOrIOp(turned, _bool(True)).result
        swap_a = arith.CmpIOp(arith.CmpIPredicate.ne, self.greater(a, b), turned).result
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


class _Loop:
    """``for i in range(low, high)``, i an i32."""

    def __init__(self, low: int, high: Any) -> None:
        bounds = [_constant(low), high if not isinstance(high, int) else _constant(high), _constant(1)]
        self.op = scf.ForOp(*bounds)
        self.point = ir.InsertionPoint(self.op.body)

    def __enter__(self) -> Any:
        self.point.__enter__()
        return self.op.induction_variable

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            scf.YieldOp([])
        self.point.__exit__(*error)


def _constant(number: int) -> Any:
    return arith.ConstantOp(integer_type(32), number).result


def _bool(value: bool) -> Any:
    return arith.ConstantOp(integer_type(1), int(value)).result
