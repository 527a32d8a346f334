"""Reductions and scans of distributed tensors: registers first, then scratchpad memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import element_type, is_tensor, shape_of

from torchport_simt.distribute.index import Bits, log2, number, value_bits
from torchport_simt.distribute.region import inline
from torchport_simt.distribute.values import Values

__all__ = ["reduce", "scan"]

_RADIX = 3
"""Lanes are combined 2^3 at a time: each step costs a barrier, and steps of two would take three times as many."""


def _axis(op: Any) -> tuple[int, int, int]:
    """Bits of the index below the axis, of the axis, and above it."""
    shape = shape_of(op.operands[0]) or ()
    axis = ir.IntegerAttr(op.attributes["axis"]).value
    return log2(prod(shape[axis + 1 :])), log2(shape[axis]), log2(prod(shape[:axis]))


def reduce(op: Any, values: Values) -> None:
    """Emit ``tt.reduce``. Its results are in registers where no two lanes meet, else in scratchpad memory."""
    lanes = values.lanes
    low, length, high = _axis(op)
    total = low + length + high
    width = min(lanes.width, total)
    reduced = range(low, low + length)
    across = [position for position in reduced if position < width]
    partials = _in_registers(op, values, [position - width for position in reduced if position >= width])
    if not across:
        for i, result in enumerate(op.results):
            _result(values, result, [partial[i] for partial in partials])
        return

    def place(bits: Bits) -> Bits:  # from the index of a result
        source = (*bits[:low], *([0] * length), *bits[low:])
        kept = [bit for position, bit in enumerate(source) if position < width or position not in reduced]
        return tuple(kept)

    scratches = [values.allocate(len(partials) << width, element_type(operand.type)) for operand in op.operands]
    me = value_bits(lanes.lane, width)
    first = lanes.is_first(shape_of(op.operands[0]) or ())
    kept_bits = total - width - sum(position >= width for position in reduced)
    places = [(*me, *number(k, kept_bits)) for k in range(len(partials))]
    for where, partial in zip(places, partials, strict=True):
        for scratch, element in zip(scratches, partial, strict=True):
            values.write(scratch, where, element, first)
    values.barrier()
    done: list[int] = []
    for start in range(0, len(across), _RADIX):
        step = across[start : start + _RADIX]
        done += step
        _combine_lanes(op, values, scratches, places, step, done, first)
        values.barrier()
    for result, raw in zip(op.results, scratches, strict=True):
        scratch = replace(raw, place=place)  # from here on by the index of a result
        if is_tensor(result):
            values.put(result, scratch)
        else:
            values.scalars[result] = values.read(scratch, ())


def _result(values: Values, result: Any, registers: list[Any]) -> None:
    if is_tensor(result):
        values.registers[result] = registers
    else:
        values.scalars[result] = registers[0]


def _in_registers(op: Any, values: Values, positions: list[int]) -> list[list[Any]]:
    """What each lane combines by itself: registers whose numbers differ in ``positions`` only, in order."""
    operands = [values.own(operand) for operand in op.operands]
    mask = sum(1 << position for position in positions)
    groups: dict[int, list[Any]] = {}
    for k in range(len(operands[0])):
        elements = [registers[k] for registers in operands]
        kept = k & ~mask
        groups[kept] = inline(op.regions[0], [*groups[kept], *elements], values) if kept in groups else elements
    return list(groups.values())


def _combine_lanes(
    op: Any, values: Values, scratches: list[Any], places: list[Bits], step: list[int], done: list[int], first: Any
) -> None:
    """Lanes that differ in the bits ``step``: the first of each group takes the others' values in."""
    lanes = values.lanes
    condition = lanes.all_clear(tuple((lanes.lane, position) for position in done))
    if first is not None:
        condition = arith.AndIOp(condition, first).result
    branch = scf.IfOp(condition)
    with ir.InsertionPoint(branch.then_block):
        values.open()
        for where in places:
            accumulators = [values.read(scratch, where) for scratch in scratches]
            for other in range(1, 1 << len(step)):
                chosen = {position: (other >> i) & 1 for i, position in enumerate(step)}
                there = tuple(chosen.get(i, bit) for i, bit in enumerate(where))
                others = [values.read(scratch, there) for scratch in scratches]
                accumulators = inline(op.regions[0], [*accumulators, *others], values)
            for scratch, element in zip(scratches, accumulators, strict=True):
                values.write(scratch, where, element)
        values.close()
        scf.YieldOp([])


def scan(op: Any, values: Values) -> None:
    """Emit ``tt.scan``: every line is cut into parts, each scanned by one lane; then the parts' totals, then both meet.

    Elements are combined in their order.
    """
    lanes = values.lanes
    low, length, high = _axis(op)
    lines = low + high
    cut = max(0, min(length // 2, lanes.width - lines))
    steps = length - cut
    backwards = ir.BoolAttr(op.attributes["reverse"]).value if "reverse" in op.attributes else False
    shape = shape_of(op.operands[0]) or ()
    scratches = []
    for operand in op.operands:
        registers = values.own(operand)
        scratch = values.allocate(prod(shape), element_type(operand.type))
        for k, element in enumerate(registers):
            values.write(scratch, lanes.own(shape, k), element, lanes.is_first(shape))
        scratches.append(scratch)
    totals = [values.allocate(1 << (lines + cut), element_type(operand.type)) for operand in op.operands] if cut else []
    values.barrier()

    def index(line: Bits, position: Bits) -> Bits:
        """``position`` along the axis, in the order of the scan, as an index."""
        if backwards:
            position = value_bits(_flipped(lanes.value(position), length), length)
        return (*line[:low], *position, *line[low:])

    def part(task: Bits) -> None:
        line, segment = task[:lines], task[lines:]
        start = [values.read(s, index(line, (*([0] * steps), *segment))) for s in scratches]
        types = [s.element for s in scratches]
        with _loop(1, 1 << steps, start, types) as (i, carried, end):
            where = index(line, (*value_bits(i, steps), *segment))
            combined = inline(op.regions[0], [*carried, *(values.read(s, where) for s in scratches)], values)
            for scratch, element in zip(scratches, combined, strict=True):
                values.write(scratch, where, element)
            end(combined)

    _each(values, lines + cut, part)
    values.barrier()
    if cut:

        def whole(line: Bits) -> None:
            last = (1,) * steps
            start = [values.read(s, index(line, (*last, *number(0, cut)))) for s in scratches]
            with _loop(1, 1 << cut, start, [s.element for s in scratches]) as (i, carried, end):
                segment = value_bits(i, cut)
                for scratch, element in zip(totals, carried, strict=True):
                    values.write(scratch, (*line, *segment), element)
                sums = [values.read(s, index(line, (*last, *segment))) for s in scratches]
                end(inline(op.regions[0], [*carried, *sums], values))

        _each(values, lines, whole)
        values.barrier()
    results: list[list[Any]] = [[] for _ in op.results]
    for k in range(lanes.registers(shape)):
        bits = lanes.own(shape, k)
        own = [values.read(s, bits) for s in scratches]
        if cut:
            own = _with_total(op, values, own, totals, bits, (low, length, cut), backwards)
        for elements, element in zip(results, own, strict=True):
            elements.append(element)
    for result, elements in zip(op.results, results, strict=True):
        _result(values, result, elements)


def _with_total(
    op: Any, values: Values, own: list[Any], totals: list[Any], bits: Bits, axis: tuple[int, int, int], backwards: bool
) -> list[Any]:
    """An element of a scan of a part, with the total of all parts before it."""
    low, length, cut = axis
    position = bits[low : low + length]
    if backwards:
        position = value_bits(_flipped(values.lanes.value(position), length), length)
    line, segment = (*bits[:low], *bits[low + length :]), position[length - cut :]
    before = [values.read(s, (*line, *segment)) for s in totals]
    combined = inline(op.regions[0], [*before, *own], values)
    is_first = values.lanes.all_clear(segment)
    if is_first is None:
        return own
    return [arith.SelectOp(is_first, o, c).result for o, c in zip(own, combined, strict=True)]


def _flipped(index: Any, bits: int) -> Any:
    ones = arith.ConstantOp(integer_type(32), (1 << bits) - 1).result
    return arith.XOrIOp(index, ones).result


def _each(values: Values, bits: int, body: Callable[[Bits], None]) -> None:
    """``body`` for every task of 2^bits, by one lane each; a lane does several where there are more than lanes."""
    lanes = values.lanes
    if bits >= lanes.width:
        for k in range(1 << (bits - lanes.width)):
            values.open()
            body((*value_bits(lanes.lane, lanes.width), *number(k, bits - lanes.width)))
            values.close()
        return
    limit = arith.ConstantOp(integer_type(32), 1 << bits).result
    branch = scf.IfOp(arith.CmpIOp(arith.CmpIPredicate.ult, lanes.lane, limit).result)
    with ir.InsertionPoint(branch.then_block):
        values.open()
        body(value_bits(lanes.lane, bits))
        values.close()
        scf.YieldOp([])


class _loop:
    """``for i in range(low, high)`` with values carried along: ``with _loop(...) as (i, carried, end)``."""

    def __init__(self, low: int, high: int, start: list[Any], types: list[Any]) -> None:
        i32 = integer_type(32)
        low, high, one = (arith.ConstantOp(i32, n).result for n in (low, high, 1))
        self.op = scf.ForOp(low, high, one, start)
        self.point = ir.InsertionPoint(self.op.body)

    def __enter__(self) -> tuple[Any, list[Any], Callable[[list[Any]], None]]:
        self.point.__enter__()
        return self.op.induction_variable, list(self.op.inner_iter_args), self._end

    def _end(self, carried: list[Any]) -> None:
        scf.YieldOp(carried)

    def __exit__(self, *error: Any) -> None:
        self.point.__exit__(*error)
