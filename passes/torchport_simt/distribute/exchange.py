"""Gathers, histograms and functions of several elements on distributed tensors."""

from __future__ import annotations

from math import prod
from typing import Any

from mlir import ir
from mlir.dialects import arith
from torchport_passes.ir.build import integer_type
from torchport_passes.ir.ops import element_type, shape_of

from torchport_simt.distribute.index import dimensions, log2, number, value_bits
from torchport_simt.distribute.region import inline
from torchport_simt.distribute.values import Values

__all__ = ["gather", "histogram", "map_elementwise"]


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
