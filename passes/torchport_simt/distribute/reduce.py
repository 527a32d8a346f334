"""Reductions and scans of distributed tensors: registers first, then local memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import element_type, is_tensor, shape_of

from torchport_simt.distribute.build import constant, counted_loop
from torchport_simt.distribute.index import Bits, log2, number, value_bits
from torchport_simt.distribute.region import inline
from torchport_simt.distribute.values import Scratch, Values

__all__ = ["reduce", "scan"]

_ANY_ORDER = frozenset(
    {"arith.maxnumf", "arith.minnumf", "arith.maximumf", "arith.minimumf", "arith.maxsi", "arith.minsi",
     "arith.maxui", "arith.minui", "arith.addi", "arith.andi", "arith.ori", "arith.xori"}
)  # fmt: skip
"""Operations of which any order gives the same."""
_RADIX = 3
"""Lanes are combined 2^3 at a time: each step costs a barrier, and combining pairs would take three times as many."""


def _axis(op: Any) -> tuple[int, int, int]:
    """The number of index bits below the axis, of the axis, and above it."""
    shape = shape_of(op.operands[0]) or ()
    axis = ir.IntegerAttr(op.attributes["axis"]).value
    return log2(prod(shape[axis + 1 :])), log2(shape[axis]), log2(prod(shape[:axis]))


def reduce(op: Any, values: Values) -> None:
    """Emit ``tt.reduce``. Its results are in registers if lanes share nothing, else in local memory."""
    distribution = values.distribution
    low, length, high = _axis(op)
    total = low + length + high
    width = min(distribution.width, total)
    below = distribution.inner(total)
    lanes = range(below, below + width)
    reduced = range(low, low + length)
    across = [position - below for position in reduced if position in lanes]
    inside = [position if position < below else position - width for position in reduced if position not in lanes]
    partials = _in_registers(op, values, inside)
    if not across:
        for i, result in enumerate(op.results):
            _set_result(values, result, [partial[i] for partial in partials])
        return

    def place(bits: Bits) -> Bits:  # from the index of a result
        source = (*bits[:low], *([0] * length), *bits[low:])
        kept = [bit for position, bit in enumerate(source) if position in lanes or position not in reduced]
        return tuple(kept)

    scratches = [values.allocate(len(partials) << width, element_type(operand.type)) for operand in op.operands]
    me = value_bits(distribution.lane, width)
    first = distribution.is_first(shape_of(op.operands[0]) or ())
    if values.vector:
        partials = [_shuffled(op, values, partial, across) for partial in partials]
    before = below - sum(position < below for position in reduced)
    kept = [number(k, log2(len(partials))) for k in range(len(partials))]
    places = [(*bits[:before], *me, *bits[before:]) for bits in kept]
    for where, partial in zip(places, partials, strict=True):
        for scratch, element in zip(scratches, partial, strict=True):
            values.write(scratch, where, element, first)
    values.barrier()
    done: list[int] = []
    for start in range(0, 0 if values.vector else len(across), _RADIX):
        step = across[start : start + _RADIX]
        done += step
        _combine_lanes(op, values, scratches, places, before, step, done, first)
        values.barrier()
    for result, raw in zip(op.results, scratches, strict=True):
        scratch = replace(raw, place=place)  # from here on by the index of a result
        if is_tensor(result):
            values.put(result, scratch)
        else:
            values.scalars[result] = values.read(scratch, ())


def _set_result(values: Values, result: Any, registers: list[Any]) -> None:
    if is_tensor(result):
        values.registers[result] = registers
    else:
        values.scalars[result] = registers[0]


def _in_registers(op: Any, values: Values, positions: list[int]) -> list[list[Any]]:
    """Combine within each lane the registers whose numbers differ in the bits ``positions`` only.

    In order, but of pairs where any order gives the same: then no operation waits for all before it.
    """
    operands = [values.own(operand) for operand in op.operands]
    mask = sum(1 << position for position in positions)
    groups: dict[int, list[list[Any]]] = {}
    for k in range(len(operands[0])):
        groups.setdefault(k & ~mask, []).append([registers[k] for registers in operands])
    ordered = not _in_any_order(op)
    results = []
    for members in groups.values():
        while len(members) > 1:
            first, second, *rest = members
            combined = inline(op.regions[0], [*first, *second], values)
            members = [combined, *rest] if ordered else [*rest, combined]
        results += members
    return results


def _in_any_order(op: Any) -> bool:
    """Whether a reduction gives the same in any order."""
    names = [inner.operation.name for inner in op.regions[0].blocks[0].operations]
    return len(names) == 2 and names[0] in _ANY_ORDER


def _shuffled(op: Any, values: Values, partial: list[Any], across: list[int]) -> list[Any]:
    """Combine lanes that differ in the bits ``across``, without local memory: each gets the result."""
    last = values.distribution.count - 1
    for position in across:
        pair = [
            _lane_of_pair(element, last & ~(1 << position), part << position) for part in (0, 1) for element in partial
        ]
        partial = inline(op.regions[0], pair, values)
    return partial


def _lane_of_pair(element: Any, keep: int, put: int) -> Any:
    attributes = {name: ir.IntegerAttr.get(integer_type(64), n) for name, n in (("keep", keep), ("put", put))}
    return ir.Operation.create("tp.shuffle", [element.type], [element], attributes).results[0]


def _combine_lanes(
    op: Any,
    values: Values,
    scratches: list[Any],
    places: list[Bits],
    before: int,
    step: list[int],
    done: list[int],
    first: Any,
) -> None:
    """Combine lanes that differ in the bits ``step``: the first of them takes in the values of the others.

    ``before``: bits of a place below the lane's number.
    """
    distribution = values.distribution
    condition = distribution.all_clear(tuple((distribution.lane, position) for position in done))
    if first is not None:
        condition = arith.AndIOp(condition, first).result
    branch = scf.IfOp(condition)
    with ir.InsertionPoint(branch.then_block):
        values.open()
        for where in places:
            accumulators = [values.read(scratch, where) for scratch in scratches]
            for other in range(1, 1 << len(step)):
                chosen = {before + position: (other >> i) & 1 for i, position in enumerate(step)}
                there = tuple(chosen.get(i, bit) for i, bit in enumerate(where))
                others = [values.read(scratch, there) for scratch in scratches]
                accumulators = inline(op.regions[0], [*accumulators, *others], values)
            for scratch, element in zip(scratches, accumulators, strict=True):
                values.write(scratch, where, element)
        values.close()
        scf.YieldOp([])


def scan(op: Any, values: Values) -> None:
    """Emit ``tt.scan``. Elements are combined in their order."""
    _Scan(op, values).emit()


class _Scan:
    """A scan in local memory.

    Every line along the axis is cut into 2^``cut`` parts, each scanned by one lane; then one lane scans the parts'
    totals; then every element takes in the total of the parts before its own.
    """

    def __init__(self, op: Any, values: Values) -> None:
        self.op = op
        self.values = values
        self.distribution = values.distribution
        self.low, self.length, high = _axis(op)
        self.lines = self.low + high
        self.cut = max(0, min(self.length // 2, self.distribution.width - self.lines))
        self.steps = self.length - self.cut
        self.backwards = "reverse" in op.attributes and ir.BoolAttr(op.attributes["reverse"]).value
        self.shape = shape_of(op.operands[0]) or ()
        self.scratches: list[Scratch] = []
        self.totals: list[Scratch] = []

    def emit(self) -> None:
        self.write_operands()
        if self.cut:
            count = 1 << (self.lines + self.cut)
            self.totals = [self.values.allocate(count, element_type(operand.type)) for operand in self.op.operands]
        self.values.barrier()
        _each(self.values, self.lines + self.cut, self.scan_part)
        self.values.barrier()
        if self.cut:
            _each(self.values, self.lines, self.scan_totals)
            self.values.barrier()
        indices = [self.distribution.own(self.shape, k) for k in range(self.distribution.registers(self.shape))]
        elements = [self.result(bits) for bits in indices]
        for result, registers in zip(self.op.results, zip(*elements, strict=True), strict=True):
            _set_result(self.values, result, list(registers))

    def write_operands(self) -> None:
        for operand in self.op.operands:
            registers = self.values.own(operand)
            scratch = self.values.allocate(prod(self.shape), element_type(operand.type))
            for k, element in enumerate(registers):
                first = self.distribution.is_first(self.shape)
                self.values.write(scratch, self.distribution.own(self.shape, k), element, first)
            self.scratches.append(scratch)

    def index(self, line: Bits, position: Bits) -> Bits:
        """The index of a position along the axis, counted in the order of the scan."""
        return (*line[: self.low], *self.in_order(position), *line[self.low :])

    def in_order(self, position: Bits) -> Bits:
        """A position along the axis, counted in the other direction if the scan runs backwards."""
        if not self.backwards:
            return position
        ones = constant((1 << self.length) - 1)
        return value_bits(arith.XOrIOp(self.distribution.value(position), ones).result, self.length)

    def read(self, bits: Bits) -> list[Any]:
        return [self.values.read(scratch, bits) for scratch in self.scratches]

    def combine(self, left: list[Any], right: list[Any]) -> list[Any]:
        return inline(self.op.regions[0], [*left, *right], self.values)

    def scan_part(self, task: Bits) -> None:
        """Scan one part in place."""
        line, segment = task[: self.lines], task[self.lines :]

        def step(i: Any, carried: list[Any]) -> list[Any]:
            bits = self.index(line, (*value_bits(i, self.steps), *segment))
            combined = self.combine(carried, self.read(bits))
            for scratch, element in zip(self.scratches, combined, strict=True):
                self.values.write(scratch, bits, element)
            return combined

        start = self.read(self.index(line, (*([0] * self.steps), *segment)))
        counted_loop(1, 1 << self.steps, step, start)

    def scan_totals(self, line: Bits) -> None:
        """Write the total of all parts before each part of a line."""
        last = (1,) * self.steps

        def step(i: Any, carried: list[Any]) -> list[Any]:
            segment = value_bits(i, self.cut)
            for scratch, element in zip(self.totals, carried, strict=True):
                self.values.write(scratch, (*line, *segment), element)
            return self.combine(carried, self.read(self.index(line, (*last, *segment))))

        start = self.read(self.index(line, (*last, *number(0, self.cut))))
        counted_loop(1, 1 << self.cut, step, start)

    def result(self, bits: Bits) -> list[Any]:
        """An element of the scan's results: its part's, combined with the total of the parts before."""
        own = self.read(bits)
        if not self.cut:
            return own
        low, end = self.low, self.low + self.length
        line, segment = (*bits[:low], *bits[end:]), self.in_order(bits[low:end])[self.steps :]
        before = [self.values.read(scratch, (*line, *segment)) for scratch in self.totals]
        combined = self.combine(before, own)
        is_first = self.distribution.all_clear(segment)
        if is_first is None:
            return own
        return [arith.SelectOp(is_first, o, c).result for o, c in zip(own, combined, strict=True)]


def _each(values: Values, bits: int, body: Callable[[Bits], None]) -> None:
    """Emit ``body`` for 2^``bits`` tasks, one a lane; if there are more tasks than lanes, a lane does several."""
    distribution = values.distribution
    if bits >= distribution.width:
        for k in range(1 << (bits - distribution.width)):
            values.open()
            body((*value_bits(distribution.lane, distribution.width), *number(k, bits - distribution.width)))
            values.close()
        return
    inside = arith.CmpIOp(arith.CmpIPredicate.ult, distribution.lane, constant(1 << bits)).result
    branch = scf.IfOp(inside)
    with ir.InsertionPoint(branch.then_block):
        values.open()
        body(value_bits(distribution.lane, bits))
        values.close()
        scf.YieldOp([])
