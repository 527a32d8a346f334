"""Dots, gathers, histograms and functions of several elements on distributed tensors."""

from __future__ import annotations

from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, math, scf
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import element_type, shape_of

from torchport_simt.distribute.index import dimensions, log2, number, value_bits
from torchport_simt.distribute.region import inline
from torchport_simt.distribute.values import Values

__all__ = ["dot", "gather", "histogram", "map_elementwise"]


def dot(op: Any, values: Values) -> None:
    """Emit ``tt.dot`` of one type: both operands in scratchpad memory, each lane adds up its elements over K.

    What two elements of a lane share of an operand is read once: those of one column share the right operand.
    """
    a, b, c = op.operands
    shape = shape_of(c) or ()
    inner = (shape_of(a) or ())[-1]
    left, right = values.shared(a), values.shared(b)
    start = values.own(c)
    bounds = [arith.ConstantOp(integer_type(32), n).result for n in (0, inner, 1)]
    loop = scf.ForOp(*bounds, start)
    with ir.InsertionPoint(loop.body):
        values.open()
        k = value_bits(loop.induction_variable, log2(inner))
        read: dict[Any, Any] = {}
        sums = []
        for register, total in enumerate(loop.inner_iter_args):
            *batch, row, column = dimensions(values.lanes.own(shape, register), shape)
            outer = tuple(bit for part in reversed(batch) for bit in part)
            places = ((0, left, (*k, *row, *outer)), (1, right, (*column, *k, *outer)))
            for side, scratch, bits in places:
                if (side, bits) not in read:
                    read[side, bits] = values.read(scratch, bits)
            x, y = (read[side, bits] for side, _, bits in places)
            sums.append(_multiply_add(x, y, total))
        values.close()
        scf.YieldOp(sums)
    values.registers[op.results[0]] = list(loop.results)


def _multiply_add(x: Any, y: Any, total: Any) -> Any:
    if isinstance(total.type, ir.IntegerType):
        return arith.AddIOp(total, arith.MulIOp(x, y).result).result
    return math.FmaOp(x, y, total).result


def gather(op: Any, values: Values) -> None:
    """Emit ``tt.gather``: the source in scratchpad memory, read at the place that each lane's index says."""
    source, indices = op.operands
    axis = ir.IntegerAttr(op.attributes["axis"]).value
    scratch = values.shared(source)
    from_shape, shape = shape_of(source) or (), shape_of(indices) or ()
    registers = []
    for k, index in enumerate(values.own(indices)):
        parts = dimensions(values.lanes.own(shape, k), shape)
        narrow = arith.TruncIOp(integer_type(32), index).result if index.type.width > 32 else index
        if narrow.type.width < 32:
            narrow = arith.ExtUIOp(integer_type(32), narrow).result
        parts[axis] = value_bits(narrow, log2(from_shape[axis]))
        registers.append(values.read(scratch, tuple(bit for part in reversed(parts) for bit in part)))
    values.registers[op.results[0]] = registers


def histogram(op: Any, values: Values) -> None:
    """Emit ``tt.histogram``: bins in scratchpad memory, counted with atomic additions. Other values are not counted."""
    result = op.results[0]
    shape = shape_of(result) or ()
    bins = values.allocate(prod(shape), element_type(result.type))
    zero = arith.ConstantOp(bins.element, 0).result
    for k in range(values.lanes.registers(shape)):
        values.write(bins, values.lanes.own(shape, k), zero, values.lanes.is_first(shape))
    values.barrier()
    source = shape_of(op.operands[0]) or ()
    counted = values.lanes.is_first(source)
    masks = values.own(op.operands[1]) if len(op.operands) > 1 else [None] * values.lanes.registers(source)
    for value, mask in zip(values.own(op.operands[0]), masks, strict=True):
        limit = arith.ConstantOp(value.type, prod(shape)).result
        inside = arith.CmpIOp(arith.CmpIPredicate.ult, value, limit).result
        for other in (mask, counted):
            inside = inside if other is None else arith.AndIOp(inside, other).result
        index = value if value.type.width == 32 else _as_i32(value)
        ir.Operation.create("tp.scratch_count", [], [bins.buffer, index, inside])
    values.barrier()
    values.registers[result] = [
        values.read(bins, values.lanes.own(shape, k)) for k in range(values.lanes.registers(shape))
    ]


def _as_i32(value: Any) -> Any:
    i32 = integer_type(32)
    return (arith.TruncIOp if value.type.width > 32 else arith.ExtUIOp)(i32, value).result


def map_elementwise(op: Any, values: Values) -> None:
    """Emit ``tt.map_elementwise``: the function runs in each lane, for all ``pack`` elements that one call makes."""
    pack = ir.IntegerAttr(op.attributes["pack"]).value
    shape = shape_of(op.results[0]) or ()
    low = log2(pack)
    results: list[list[Any]] = [[] for _ in op.results]
    for k in range(values.lanes.registers(shape)):
        bits = values.lanes.own(shape, k)
        members = [(*number(i, low), *bits[low:]) for i in range(pack)]
        arguments = [values.at(operand, member) for operand in op.operands for member in members]
        made = inline(op.regions[0], arguments, values)
        for i, registers in enumerate(results):
            registers.append(_member(values, made[i * pack : (i + 1) * pack], bits[:low]))
    for result, registers in zip(op.results, results, strict=True):
        values.registers[result] = registers


def _member(values: Values, made: list[Any], bits: Any) -> Any:
    """The result whose number has these bits."""
    for bit in bits:
        pairs = zip(made[::2], made[1::2], strict=True)
        if not isinstance(bit, tuple):
            made = [pair[bit] for pair in pairs]
        else:
            chosen = arith.TruncIOp(integer_type(1), values.lanes.value((bit,))).result
            made = [arith.SelectOp(chosen, one, zero).result for zero, one in pairs]
    return made[0]
