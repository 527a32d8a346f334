"""Emits sorting networks as loops over a buffer, so that the size of the code does not depend on the length.

Batcher, "Sorting networks and their applications" (1968): a merge of stage ``s`` compares elements whose linear indices
differ in bit ``s - 1``, then ``s - 2``, ..., 0. Distances of at least one vector are loops over pairs of vectors, the
shorter ones are shuffles inside a vector.
"""

from __future__ import annotations

from math import prod

from mlir import ir
from mlir.dialects import arith, vector

from torchport_passes.ir.build import byte_width, splat, storage_type
from torchport_passes.ir.ops import DOWN
from torchport_passes.ir.types import Value
from torchport_passes.loops.loop_builder import BufferOp, add, constant, end, loop, loop_from, read, write

__all__ = ["sort"]

_NEVER = 62  # a bit that no index has


def sort(call: BufferOp, vector_bits: int) -> None:
    """Merges of the stages ``first`` .. ``last``, each over the whole buffer.

    A merge of stage ``s`` before the last sorts groups upwards if bit ``s`` of the index is 0, and downwards if it is
    1. The last merge goes by ``order``: the number of a bit, UP or DOWN. An element is exchanged with the partner
    before it if it is not greater, and with the one after it if it is. Results are those of Triton's own network, also
    for ties, NaN and -0.
    """
    _BufferSort(call, vector_bits).emit()


class _BufferSort:
    def __init__(self, call: BufferOp, vector_bits: int) -> None:
        self.first, self.last, self.order = (call.integer(name) for name in ("first", "last", "order"))
        self.unsigned = "unsigned" in call.op.attributes
        self.element = call.operand_types[0].element_type
        self.count = prod(call.operand_types[0].shape)
        self.lanes = min(self.count, max(1, vector_bits // (8 * byte_width(storage_type(self.element)))))
        self.lane_bits = self.lanes.bit_length() - 1
        self.source, self.buffer = call.sources[0], call.results[0]

    def emit(self) -> None:
        """Stages inside vectors, from the source to the result in one pass; then longer stages in place."""
        head = loop(self.count, self.lanes)
        with ir.InsertionPoint(head.body):
            index = head.induction_variable
            values = read(self.source, index, self.element, self.lanes)
            for stage in range(self.first, min(self.last, self.lane_bits) + 1):
                flip = self.flip(index, self.order if stage == self.last else stage)
                for bit in reversed(range(stage)):
                    values = self.exchange_lanes(values, bit, flip)
            write(values, self.buffer, index, self.element)
            end()
        low = max(self.first, self.lane_bits + 1)
        if low > self.last:
            return
        stages = loop_from(low, self.last + 1, [])
        with ir.InsertionPoint(stages.body):
            self.merge(stages.induction_variable)
            end()

    def merge(self, stage: Value) -> None:
        """One stage longer than a vector; ``stage`` is an i64."""
        is_last = arith.CmpIOp(arith.CmpIPredicate.eq, stage, constant(self.last)).result
        bit = arith.SelectOp(is_last, constant(self.order if self.order >= 0 else _NEVER), stage).result
        down = arith.SelectOp(is_last, constant(int(self.order == DOWN)), constant(0)).result
        steps = loop_from(0, arith.SubIOp(stage, constant(self.lane_bits)).result, [])
        with ir.InsertionPoint(steps.body):
            below = arith.AddIOp(steps.induction_variable, constant(1)).result
            self.exchange_vectors(arith.ShLIOp(constant(1), arith.SubIOp(stage, below).result).result, bit, down)
            end()
        if self.lane_bits == 0:
            return
        tail = loop(self.count, self.lanes)
        with ir.InsertionPoint(tail.body):
            index = tail.induction_variable
            values = read(self.buffer, index, self.element, self.lanes)
            flip = arith.TruncIOp(ir.IntegerType.get_signless(1), self.downwards(index, bit, down)).result
            for step in reversed(range(self.lane_bits)):
                values = self.exchange_lanes(values, step, splat(flip, self.lanes))
            write(values, self.buffer, index, self.element)
            end()

    @staticmethod
    def downwards(index: Value, bit: Value, down: Value) -> Value:
        """1 if the group of ``index`` is sorted downwards, else 0 (i64)."""
        direction = arith.AndIOp(arith.ShRUIOp(index, bit).result, constant(1)).result
        return arith.XOrIOp(direction, down).result

    def exchange_vectors(self, distance: Value, bit: Value, down: Value) -> None:
        """Compare each vector with the one ``distance`` elements after it. Downwards, the two swap roles."""
        pairs = loop(self.count // 2, self.lanes)
        with ir.InsertionPoint(pairs.body):
            number = pairs.induction_variable
            inside = arith.AndIOp(number, arith.SubIOp(distance, constant(1)).result).result
            before = add(arith.ShLIOp(arith.SubIOp(number, inside).result, constant(1)).result, inside)
            shift = arith.MulIOp(distance, self.downwards(before, bit, down)).result
            places = add(before, shift), arith.SubIOp(add(before, distance), shift).result
            a, b = (read(self.buffer, place, self.element, self.lanes) for place in places)
            least = arith.SelectOp(self.greater(a, b), b, a).result
            most = arith.SelectOp(self.greater(b, a), b, a).result
            for value, place in zip((least, most), places, strict=True):
                write(value, self.buffer, place, self.element)
            end()

    def exchange_lanes(self, values: Value, bit: int, flip: Value) -> Value:
        """Compare each lane with the one whose number differs in ``bit``. ``flip``: lanes that are sorted downwards."""
        partner = vector.ShuffleOp(values, values, [i ^ (1 << bit) for i in range(self.lanes)]).result
        takes = arith.XOrIOp(flip, self.mask([bool(i >> bit & 1) for i in range(self.lanes)])).result
        return arith.SelectOp(arith.XOrIOp(self.greater(values, partner), takes).result, partner, values).result

    def flip(self, index: Value, order: int) -> Value:
        """The lanes of the vector at ``index`` that a merge with a constant ``order`` sorts downwards."""
        if order < 0:
            return self.mask([order == DOWN] * self.lanes)
        if order < self.lane_bits:
            return self.mask([bool(i >> order & 1) for i in range(self.lanes)])
        direction = self.downwards(index, constant(order), constant(0))
        return splat(arith.TruncIOp(ir.IntegerType.get_signless(1), direction).result, self.lanes)

    def mask(self, lanes: list[bool]) -> Value:
        type_ = ir.VectorType.get([self.lanes], ir.IntegerType.get_signless(1))
        return arith.ConstantOp(type_, ir.DenseElementsAttr.get([ir.BoolAttr.get(v) for v in lanes], type_)).result

    def greater(self, a: Value, b: Value) -> Value:
        if isinstance(self.element, ir.FloatType):
            return arith.CmpFOp(arith.CmpFPredicate.OGT, a, b).result
        predicate = arith.CmpIPredicate.ugt if self.unsigned else arith.CmpIPredicate.sgt
        return arith.CmpIOp(predicate, a, b).result
