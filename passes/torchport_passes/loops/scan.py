"""Emits scans as loops over buffers."""

from __future__ import annotations

from math import prod

from mlir import ir
from mlir.dialects import arith, vector

from torchport_passes.ir.build import byte_width
from torchport_passes.ir.combine import apply_region, is_straight
from torchport_passes.ir.identities import WIDE_FOR_SCANS
from torchport_passes.ir.types import Type, Value
from torchport_passes.loops.loop_builder import BufferOp, add, constant, end, loop, loop_from, read, times, write

__all__ = ["scan"]

_OPERATIONS = {"arith.addf": arith.AddFOp, "arith.mulf": arith.MulFOp}


def scan(call: BufferOp, vector_bits: int) -> None:
    """``acc = combine(acc, x)`` along the axis, in the order of the elements.

    If other dimensions follow the axis in memory, neighbouring scans are the lanes of a vector. Else a vector holds
    neighbours along the axis. It is scanned by itself (Hillis and Steele, "Data parallel algorithms", 1986), and then
    combined with the result of all elements before it.
    """
    loops = _Scan(call)
    lanes = max(1, vector_bits // loops.widest)
    if loops.inner > 1:
        loops.element_by_element(min(loops.inner, lanes))
    elif min(loops.length, lanes) > 1 and is_straight(call.op.regions[0]):
        loops.vector_by_vector(min(loops.length, lanes))
    else:
        loops.element_by_element(None)


class _Scan:
    def __init__(self, call: BufferOp) -> None:
        axis = call.integer("axis")
        attributes = call.op.attributes
        self.call = call
        self.region = call.op.regions[0]
        self.reverse = "reverse" in attributes and bool(ir.BoolAttr(attributes["reverse"]).value)
        shape = list(call.operand_types[0].shape)
        self.length, self.outer, self.inner = shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])
        self.elements = [t.element_type for t in call.operand_types]
        self.wide = self._wide_type()
        self.widest = max(8 * byte_width(e) for e in [*self.elements, *([self.wide] if self.wide else [])])

    def _wide_type(self) -> Type | None:
        operations = [o.operation for o in self.region.blocks[0].operations]
        wider = WIDE_FOR_SCANS.get(str(self.elements[0]))
        if len(operations) != 2 or len(self.elements) != 1 or wider is None or operations[0].name not in _OPERATIONS:
            return None
        return wider.get()

    def read(self, index: Value, lanes: int | None) -> list[Value]:
        """The operands at a linear index, widened."""
        values = [read(b, index, e, lanes) for b, e in zip(self.call.sources, self.elements, strict=True)]
        return values if self.wide is None else [arith.ExtFOp(_shaped(self.wide, lanes), values[0]).result]

    def write(self, values: list[Value], index: Value, lanes: int | None) -> None:
        """Results at a linear index, rounded where they were widened."""
        if self.wide is not None:
            values = [arith.TruncFOp(_shaped(self.elements[0], lanes), values[0]).result]
        for value, buffer, element in zip(values, self.call.results, self.elements, strict=True):
            write(value, buffer, index, element)

    def combine(self, before: list[Value], after: list[Value], lanes: int | None) -> list[Value]:
        if self.wide is None:
            return apply_region(self.region, [*before, *after], lanes)
        operation = _OPERATIONS[next(iter(self.region.blocks[0].operations)).operation.name]
        return [operation(before[0], after[0]).result]

    def element_by_element(self, lanes: int | None) -> None:
        """Emit ``lanes`` neighbouring scans at a time; None for one."""
        rows = loop(self.outer)
        with ir.InsertionPoint(rows.body):
            columns = loop(self.inner, lanes or 1)
            with ir.InsertionPoint(columns.body):
                base = add(times(rows.induction_variable, self.length * self.inner), columns.induction_variable)

                def at(position: Value) -> Value:
                    step = arith.SubIOp(constant(self.length - 1), position).result if self.reverse else position
                    return add(base, times(step, self.inner))

                first = at(constant(0))
                start = self.read(first, lanes)
                self.write(start, first, lanes)
                steps = loop_from(1, self.length, start)
                with ir.InsertionPoint(steps.body):
                    index = at(steps.induction_variable)
                    combined = self.combine(list(steps.inner_iter_args), self.read(index, lanes), lanes)
                    self.write(combined, index, lanes)
                    end(combined)
                end()
            end()

    def vector_by_vector(self, lanes: int) -> None:
        """Emit ``lanes`` neighbours along the axis at a time. The loop carries the last result, in every lane."""
        rows = loop(self.outer)
        with ir.InsertionPoint(rows.body):
            base = times(rows.induction_variable, self.length)

            def at(position: Value) -> Value:
                step = arith.SubIOp(constant(self.length // lanes - 1), position).result if self.reverse else position
                return add(base, times(step, lanes))

            first = at(constant(0))
            start = self.within(self.turned(self.read(first, lanes), lanes), lanes)
            self.write(self.turned(start, lanes), first, lanes)
            steps = loop_from(1, self.length // lanes, _last(start, lanes))
            with ir.InsertionPoint(steps.body):
                index = at(steps.induction_variable)
                local = self.within(self.turned(self.read(index, lanes), lanes), lanes)
                carried = list(steps.inner_iter_args)
                self.write(self.turned(self.combine(carried, local, lanes), lanes), index, lanes)
                # not the last result that was written, so that the next step waits for one operation only
                end(self.combine(carried, _last(local, lanes), lanes))
            end()

    def turned(self, values: list[Value], lanes: int) -> list[Value]:
        """Vectors with their lanes reversed, for a scan from the end."""
        order = list(reversed(range(lanes)))
        return [vector.ShuffleOp(v, v, order).result for v in values] if self.reverse else values

    def within(self, values: list[Value], lanes: int) -> list[Value]:
        """The scan of one vector by itself, in log2(lanes) steps."""
        distance = 1
        while distance < lanes:
            earlier = [vector.ShuffleOp(v, v, [max(i - distance, 0) for i in range(lanes)]).result for v in values]
            combined = self.combine(earlier, values, lanes)
            mask_type = _shaped(ir.IntegerType.get_signless(1), lanes)
            has_earlier = ir.DenseElementsAttr.get([ir.BoolAttr.get(i >= distance) for i in range(lanes)], mask_type)
            mask = arith.ConstantOp(mask_type, has_earlier).result
            values = [arith.SelectOp(mask, c, v).result for c, v in zip(combined, values, strict=True)]
            distance *= 2
        return values


def _last(values: list[Value], lanes: int) -> list[Value]:
    """The last lane in every lane."""
    return [vector.ShuffleOp(v, v, [lanes - 1] * lanes).result for v in values]


def _shaped(element: Type, lanes: int | None) -> Type:
    return element if lanes is None else ir.VectorType.get([lanes], element)
