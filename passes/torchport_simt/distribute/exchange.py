"""Dots, gathers, histograms and functions of several elements on distributed tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith, math
from torchport_passes.ir.build import byte_width, integer_type
from torchport_passes.ir.ops import element_type, shape_of

from torchport_simt.distribute.build import counted_loop
from torchport_simt.distribute.index import Bits, dimensions, log2, number, value_bits
from torchport_simt.distribute.region import inline
from torchport_simt.distribute.values import Values

__all__ = ["dot", "gather", "histogram", "map_elementwise"]


def dot(op: Any, values: Values) -> None:
    """Emit ``tt.dot`` of one type: each lane sums its elements over K.

    Operands are in local memory, or loaded where they are needed if lanes become a vector: its registers then hold a
    tile of the result, and an element of an operand that several of them need is read once for all. A result of more
    vectors than there are registers is computed in parts.
    """
    a, b, c = op.operands
    inner = (shape_of(a) or ())[-1]
    start = values.own(c)
    reads = [_read(values, operand) for operand in (a, b)]
    part = _tile(values, element_type(c.type)) if values.vector else len(start)
    registers: list[Any] = []
    for first in range(0, len(start), part):

        def step(index: Any, totals: list[Any], first: int = first) -> list[Any]:
            values.open()
            sums = _sums(values, op, value_bits(index, log2(inner)), reads, totals, first)
            values.close()
            return sums

        registers += counted_loop(0, inner, step, start[first : first + part])
    values.registers[op.results[0]] = registers


def _tile(values: Values, type_: Any) -> int:
    """Vectors of a result that are computed together: half a CPU's registers, but enough to hide a multiply-add's
    latency. AVX2, with vectors of 8 f32, has 16 registers; AVX-512 and NEON have 32."""
    registers = 16 if values.distribution.count == 8 else 32
    return registers // 2 // (byte_width(type_) // 4)


def _read(values: Values, operand: Any) -> Callable[[Bits], Any]:
    """The function that gives an operand's element at an index."""
    if values.vector and (values.reloads(operand) or values.cheap(operand)):
        return lambda bits: values.at(operand, bits)
    scratch = values.shared(operand)
    return lambda bits: values.read(scratch, bits)


def _sums(
    values: Values, op: Any, k: Bits, reads: list[Callable[[Bits], Any]], totals: list[Any], first: int
) -> list[Any]:
    """Add the terms of number ``k`` to the totals of the registers from ``first``."""
    shape = shape_of(op.operands[2]) or ()
    elements: dict[Any, Any] = {}

    def element(side: int, bits: Bits) -> Any:
        if (side, bits) not in elements:
            elements[side, bits] = reads[side](bits)
        return elements[side, bits]

    sums = []
    for register, total in enumerate(totals, first):
        *batch, row, column = dimensions(values.distribution.own(shape, register), shape)
        outer = tuple(bit for part in reversed(batch) for bit in part)
        sums.append(_multiply_add(element(0, (*k, *row, *outer)), element(1, (*column, *k, *outer)), total))
    return sums


def _multiply_add(x: Any, y: Any, total: Any) -> Any:
    if isinstance(total.type, ir.IntegerType):
        return arith.AddIOp(total, arith.MulIOp(x, y).result).result
    return math.FmaOp(x, y, total).result


def gather(op: Any, values: Values) -> None:
    """Emit ``tt.gather``: the source in local memory, read at each lane's index."""
    source, indices = op.operands
    axis = ir.IntegerAttr(op.attributes["axis"]).value
    scratch = values.shared(source)
    from_shape, shape = shape_of(source) or (), shape_of(indices) or ()
    registers = []
    for k, index in enumerate(values.own(indices)):
        parts = dimensions(values.distribution.own(shape, k), shape)
        parts[axis] = value_bits(_as_i32(index), log2(from_shape[axis]))
        registers.append(values.read(scratch, tuple(bit for part in reversed(parts) for bit in part)))
    values.registers[op.results[0]] = registers


def histogram(op: Any, values: Values) -> None:
    """Emit ``tt.histogram``: bins in local memory, counted with atomic additions. Others are ignored."""
    result = op.results[0]
    shape = shape_of(result) or ()
    bins = values.allocate(prod(shape), element_type(result.type))
    zero = arith.ConstantOp(bins.element, 0).result
    for k in range(values.distribution.registers(shape)):
        values.write(bins, values.distribution.own(shape, k), zero, values.distribution.is_first(shape))
    values.barrier()
    source = shape_of(op.operands[0]) or ()
    counted = values.distribution.is_first(source)
    masks = values.own(op.operands[1]) if len(op.operands) > 1 else [None] * values.distribution.registers(source)
    for value, mask in zip(values.own(op.operands[0]), masks, strict=True):
        limit = arith.ConstantOp(value.type, prod(shape)).result
        inside = arith.CmpIOp(arith.CmpIPredicate.ult, value, limit).result
        for other in (mask, counted):
            inside = inside if other is None else arith.AndIOp(inside, other).result
        ir.Operation.create("tp.scratch_count", [], [bins.buffer, _as_i32(value), inside])
    values.barrier()
    values.registers[result] = [
        values.read(bins, values.distribution.own(shape, k)) for k in range(values.distribution.registers(shape))
    ]


def _as_i32(value: Any) -> Any:
    if value.type.width == 32:
        return value
    i32 = integer_type(32)
    return (arith.TruncIOp if value.type.width > 32 else arith.ExtUIOp)(i32, value).result


def map_elementwise(op: Any, values: Values) -> None:
    """Emit ``tt.map_elementwise``: each lane runs the function for all ``pack`` elements that one call computes."""
    pack = ir.IntegerAttr(op.attributes["pack"]).value
    shape = shape_of(op.results[0]) or ()
    low = log2(pack)
    results: list[list[Any]] = [[] for _ in op.results]
    for k in range(values.distribution.registers(shape)):
        bits = values.distribution.own(shape, k)
        members = [(*number(i, low), *bits[low:]) for i in range(pack)]
        arguments = [values.at(operand, member) for operand in op.operands for member in members]
        computed = inline(op.regions[0], arguments, values)
        for i, registers in enumerate(results):
            registers.append(_member(values, computed[i * pack : (i + 1) * pack], bits[:low]))
    for result, registers in zip(op.results, results, strict=True):
        values.registers[result] = registers


def _member(values: Values, members: list[Any], bits: Any) -> Any:
    """The result whose number has these bits."""
    for bit in bits:
        pairs = zip(members[::2], members[1::2], strict=True)
        if not isinstance(bit, tuple):
            members = [pair[bit] for pair in pairs]
        else:
            condition = arith.TruncIOp(integer_type(1), values.distribution.value((bit,))).result
            members = [arith.SelectOp(condition, high, low).result for low, high in pairs]
    return members[0]
