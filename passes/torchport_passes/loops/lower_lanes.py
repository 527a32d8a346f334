"""Lowers operations that move or combine elements by position: scans, sorts, flips, gathers, histograms, joins."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, scf, vector

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.build import byte_width, storage_type
from torchport_passes.ir.ops import matching
from torchport_passes.ir.types import Module, Type, Value
from torchport_passes.loops.loop_builder import BufferOp, add, close, constant, end, loop, nest, read, times, write
from torchport_passes.loops.scan import scan
from torchport_passes.loops.sort import sort

__all__ = ["LowerLanes"]


@dataclass(frozen=True)
class LowerLanes:
    """Turn ``tp.scan``, ``sort``, ``flip``, ``gather``, ``histogram``, ``join``, ``split`` and ``cat`` into loops.

    Takes what ``buffers`` leaves: operands and results are buffers, whose tensor types are attributes. A scan runs in
    order along its axis. If other dimensions follow the axis in memory, the lanes of a vector are neighbouring scans.

    ``vector_bits``: width of the machine's vector registers.
    """

    name: ClassVar[str] = "lower-lanes"
    removes: ClassVar[frozenset[str]] = frozenset(
        {"tp.cat", "tp.flip", "tp.gather", "tp.histogram", "tp.join", "tp.scan", "tp.sort", "tp.split",
         "tt.scan.return"}
    )  # fmt: skip
    vector_bits: int = 256

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, _LOWERINGS.__contains__):
                with ir.InsertionPoint(op):
                    _LOWERINGS[op.name](BufferOp(op), self.vector_bits)
                op.erase()


def _position(value: Value) -> Value:
    """An index as an i64. One of 8 or 16 bits may be unsigned, and is never negative in a correct program."""
    i64 = ir.IntegerType.get_signless(64)
    width = ir.IntegerType(value.type).width
    if width == 64:
        return value
    return (arith.ExtSIOp if width == 32 else arith.ExtUIOp)(i64, value).result


def _gather(call: BufferOp, vector_bits: int) -> None:
    """``result[.., i, ..] = source[.., index[.., i, ..], ..]`` along ``axis``."""

    axis = call.integer("axis")
    source, index = call.operand_types
    shape = list(index.shape)
    inner = prod(shape[axis + 1 :])
    source_length, source_inner = source.shape[axis], prod(list(source.shape)[axis + 1 :])
    if inner != source_inner:
        raise UnsupportedOperation("tt.gather", "source and index differ outside of the axis")
    loops = nest([prod(shape[:axis]), shape[axis], inner])
    with ir.InsertionPoint(loops[-1].body):
        o, i, k = (loop_.induction_variable for loop_ in loops)
        here = add(times(o, shape[axis] * inner), times(i, inner), k)
        where = read(call.sources[1], here, index.element_type)
        where = _position(where)
        low, high = constant(0), constant(source_length - 1)
        where = arith.MinSIOp(arith.MaxSIOp(where, low).result, high).result  # stays inside the buffer
        there = add(times(o, source_length * inner), times(where, inner), k)
        write(read(call.sources[0], there, source.element_type), call.results[0], here, source.element_type)
    close(loops)


def _histogram(call: BufferOp, vector_bits: int) -> None:
    """Counts of the values 0 .. bins-1. Other values are not counted."""
    source, result = call.operand_types[0], call.result_types[0]
    bins, element = result.shape[0], result.element_type
    clear = loop(bins)
    with ir.InsertionPoint(clear.body):
        zero = arith.ConstantOp(element, 0).result
        write(zero, call.results[0], clear.induction_variable, element)
        end()
    places = loop(prod(source.shape))
    with ir.InsertionPoint(places.body):
        value = read(call.sources[0], places.induction_variable, source.element_type)
        value = _position(value)
        inside = arith.CmpIOp(arith.CmpIPredicate.ult, value, constant(bins)).result
        if len(call.sources) > 1:
            mask = read(call.sources[1], places.induction_variable, ir.IntegerType.get_signless(1))
            inside = arith.AndIOp(inside, mask).result
        branch = scf.IfOp(inside)
        with ir.InsertionPoint(branch.then_block):
            old = read(call.results[0], value, element)
            write(arith.AddIOp(old, arith.ConstantOp(element, 1).result).result, call.results[0], value, element)
            end()
        end()


def _join(call: BufferOp, vector_bits: int) -> None:
    """``result[.., 0] = a``, ``result[.., 1] = b``: vectors of both, interleaved in registers."""
    element = call.operand_types[0].element_type
    count = prod(call.operand_types[0].shape)
    lanes = _lanes(count, element, vector_bits)
    places = loop(count, lanes)
    with ir.InsertionPoint(places.body):
        i = places.induction_variable
        pair = [read(source, i, element, lanes) for source in call.sources]
        for half in range(2):
            order = [half * lanes // 2 + j // 2 + j % 2 * lanes for j in range(lanes)]
            values = vector.ShuffleOp(*pair, order).result if lanes > 1 else pair[half]
            write(values, call.results[0], add(times(i, 2), constant(half * lanes)), element)
        end()


def _split(call: BufferOp, vector_bits: int) -> None:
    """``a = x[.., 0]``, ``b = x[.., 1]``: the even and the odd lanes of two vectors."""
    element = call.operand_types[0].element_type
    count = prod(call.result_types[0].shape)
    lanes = _lanes(count, element, vector_bits)
    places = loop(count, lanes)
    with ir.InsertionPoint(places.body):
        i = places.induction_variable
        starts = [add(times(i, 2), constant(half * lanes)) for half in range(2)]
        pair = [read(call.sources[0], start, element, lanes) for start in starts]
        for k, result in enumerate(call.results):
            order = [2 * j + k for j in range(lanes)]
            write(vector.ShuffleOp(*pair, order).result if lanes > 1 else pair[k], result, i, element)
        end()


def _cat(call: BufferOp, vector_bits: int) -> None:
    """One operand after the other. Triton leaves the order of elements open."""
    element, offset = call.operand_types[0].element_type, 0
    for source, type_ in zip(call.sources, call.operand_types, strict=True):
        count = prod(type_.shape)
        lanes = _lanes(count, element, vector_bits)
        places = loop(count, lanes)
        with ir.InsertionPoint(places.body):
            i = places.induction_variable
            write(read(source, i, element, lanes), call.results[0], add(i, constant(offset)), element)
            end()
        offset += count


def _lanes(count: int, element: Type, vector_bits: int) -> int:
    """Elements of a vector where ``count`` of them, a power of two, lie one after another."""
    return min(count, max(1, vector_bits // (8 * byte_width(storage_type(element)))))


def _flip(call: BufferOp, vector_bits: int) -> None:
    """``result[o, i, k] = source[o, n - 1 - i, k]`` in the shape ``dims`` = (outer, n, inner)."""

    outer, count, inner = ir.DenseI64ArrayAttr(call.op.attributes["dims"])
    element = call.operand_types[0].element_type
    lanes = _lanes(inner if inner > 1 else count, element, vector_bits)
    steps = [outer, count, inner // lanes] if inner > 1 else [outer, count // lanes, 1]
    loops = nest(steps)
    with ir.InsertionPoint(loops[-1].body):
        o, i, k = (loop_.induction_variable for loop_ in loops)
        mirrored = arith.SubIOp(constant(steps[1] - 1), i).result
        scale = inner if inner > 1 else lanes
        here, there = (add(times(o, count * inner), times(p, scale), times(k, lanes)) for p in (i, mirrored))
        values = read(call.sources[0], there, element, lanes)
        if inner == 1:
            values = vector.ShuffleOp(values, values, list(reversed(range(lanes)))).result
        write(values, call.results[0], here, element)
    close(loops)


_LOWERINGS = {"tp.scan": scan, "tp.sort": sort, "tp.flip": _flip, "tp.gather": _gather, "tp.histogram": _histogram,
              "tp.join": _join, "tp.split": _split, "tp.cat": _cat}  # fmt: skip
