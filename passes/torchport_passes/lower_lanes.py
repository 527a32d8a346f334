"""Lowers the operations in which lanes meet other lanes by position: scans, gathers, histograms, joins."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mlir import ir
from mlir.dialects import arith, llvm, scf

from torchport.errors import UnsupportedOperation
from torchport_passes._combine import apply_region
from torchport_passes._emit import byte_width, gep, plain_load, storage_type
from torchport_passes._ops import matching

__all__ = ["LowerLanes"]


@dataclass(frozen=True)
class LowerLanes:
    """Turn ``tp.scan``, ``gather``, ``histogram``, ``join``, ``split`` and ``cat`` into loops over buffers.

    Takes what ``buffers`` leaves (operands and results are buffers, their tensor types attributes). A scan runs in
    order along its axis; where other dimensions follow the axis in memory, neighbouring scans run as the lanes of a
    vector. ``vector_bits``: width of the machine's vector registers.
    """

    name: ClassVar[str] = "lower-lanes"
    vector_bits: int = 256

    def apply(self, module: Any) -> None:
        found = matching(module, _LOWERINGS.__contains__)
        with module.context, ir.Location.unknown():
            for op in found:
                with ir.InsertionPoint(op):
                    _LOWERINGS[op.name](_Call(op), self.vector_bits)
                op.erase()


class _Call:
    """One ``tp.*`` operation taken apart: buffers with the shapes and element types of the tensors in them."""

    def __init__(self, op: Any) -> None:
        self.op = op
        types = [
            [ir.RankedTensorType(ir.TypeAttr(a).value) for a in ir.ArrayAttr(op.attributes[name])]
            for name in ("operand_types", "result_types")
        ]
        self.operand_types, self.result_types = types
        buffers = list(op.operands)
        self.sources, self.results = buffers[: len(types[0])], buffers[len(types[0]) :]

    def integer(self, name: str) -> int:
        return int(ir.IntegerAttr(self.op.attributes[name]).value)


def _constant(value: int) -> Any:
    return arith.ConstantOp(ir.IntegerType.get_signless(64), value).result


def _loop(count: int, step: int = 1, inits: list[Any] | None = None) -> Any:
    return scf.ForOp(_constant(0), _constant(count), _constant(step), inits or [])


def _end(values: list[Any] | None = None) -> None:
    scf.YieldOp(values or [])


def _add(*terms: Any) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = arith.AddIOp(total, term).result
    return total


def _times(value: Any, factor: int) -> Any:
    return value if factor == 1 else arith.MulIOp(value, _constant(factor)).result


def _read(buffer: Any, index: Any, element: Any, lanes: int | None = None) -> Any:
    """Element (or ``lanes`` neighbouring elements) at a linear index."""

    storage = storage_type(element)
    bytes_ = byte_width(storage)
    type_ = storage if lanes is None else ir.VectorType.get([lanes], storage)
    value = plain_load(type_, gep(buffer, index, bytes_), bytes_)
    if str(element) == "i1":
        return arith.TruncIOp(element if lanes is None else ir.VectorType.get([lanes], element), value).result
    return value


def _write(value: Any, buffer: Any, index: Any, element: Any, lanes: int | None = None) -> None:
    storage = storage_type(element)
    bytes_ = byte_width(storage)
    if str(element) == "i1":
        value = arith.ExtUIOp(storage if lanes is None else ir.VectorType.get([lanes], storage), value).result
    llvm.StoreOp(value, gep(buffer, index, bytes_), alignment=bytes_)


def _scan(call: _Call, vector_bits: int) -> None:
    """``acc = combine(acc, x)`` along the axis; the first element starts it."""

    axis = call.integer("axis")
    attributes = call.op.attributes
    reverse = "reverse" in attributes and bool(ir.BoolAttr(attributes["reverse"]).value)
    shape = list(call.operand_types[0].shape)
    length, outer, inner = shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])
    elements = [t.element_type for t in call.operand_types]
    widest = max(8 * byte_width(e) for e in elements)
    lanes = min(inner, max(1, vector_bits // widest)) if inner > 1 else None
    rows = _loop(outer)
    with ir.InsertionPoint(rows.body):
        columns = _loop(inner, lanes or 1)
        with ir.InsertionPoint(columns.body):
            base = _add(_times(rows.induction_variable, length * inner), columns.induction_variable)

            def at(position: Any) -> Any:
                step = arith.SubIOp(_constant(length - 1), position).result if reverse else position
                return _add(base, _times(step, inner))

            def read(index: Any) -> list[Any]:
                return [_read(b, index, e, lanes) for b, e in zip(call.sources, elements, strict=True)]

            def write(values: list[Any], index: Any) -> None:
                for value, buffer, element in zip(values, call.results, elements, strict=True):
                    _write(value, buffer, index, element, lanes)

            wide = _wide_operation(call)
            first = at(_constant(0))
            start = read(first)
            write(start, first)
            if length > 1:
                loop = _loop_from(1, length, start if wide is None else [_extend(start[0])])
                with ir.InsertionPoint(loop.body):
                    index = at(loop.induction_variable)
                    values = read(index)
                    if wide is None:
                        combined = apply_region(call.op.regions[0], [*loop.inner_iter_args, *values], lanes)
                        write(combined, index)
                    else:
                        combined = [wide(loop.inner_iter_args[0], _extend(values[0])).result]
                        write([arith.TruncFOp(values[0].type, combined[0]).result], index)
                    _end(combined)
            _end()
        _end()


def _wide_operation(call: _Call) -> Any | None:
    """The operation of a running f32 sum or product: it is kept in f64, as eager PyTorch does on CPUs."""
    operations = [o.operation for o in call.op.regions[0].blocks[0].operations]
    if len(operations) != 2 or len(call.sources) != 1 or str(call.operand_types[0].element_type) != "f32":
        return None
    return {"arith.addf": arith.AddFOp, "arith.mulf": arith.MulFOp}.get(operations[0].name)


def _extend(value: Any) -> Any:
    wide = ir.F64Type.get()
    type_ = value.type
    target = ir.VectorType.get(list(type_.shape), wide) if isinstance(type_, ir.VectorType) else wide
    return arith.ExtFOp(target, value).result


def _loop_from(low: int, high: int, inits: list[Any]) -> Any:
    return scf.ForOp(_constant(low), _constant(high), _constant(1), inits)


def _gather(call: _Call, vector_bits: int) -> None:
    """``result[.., i, ..] = source[.., index[.., i, ..], ..]`` along ``axis``."""

    axis = call.integer("axis")
    source, index = call.operand_types
    shape = list(index.shape)
    inner = prod(shape[axis + 1 :])
    source_length, source_inner = source.shape[axis], prod(list(source.shape)[axis + 1 :])
    if inner != source_inner:
        raise UnsupportedOperation("tt.gather", "source and index differ outside of the axis")
    i64 = ir.IntegerType.get_signless(64)
    loops = _nest([prod(shape[:axis]), shape[axis], inner])
    with ir.InsertionPoint(loops[-1].body):
        o, i, k = (loop.induction_variable for loop in loops)
        here = _add(_times(o, shape[axis] * inner), _times(i, inner), k)
        where = _read(call.sources[1], here, index.element_type)
        where = where if where.type == i64 else arith.ExtSIOp(i64, where).result
        low, high = _constant(0), _constant(source_length - 1)
        where = arith.MinSIOp(arith.MaxSIOp(where, low).result, high).result  # never outside of the buffer
        there = _add(_times(o, source_length * inner), _times(where, inner), k)
        _write(_read(call.sources[0], there, source.element_type), call.results[0], here, source.element_type)
    _close(loops)


def _nest(counts: list[int]) -> list[Any]:
    loops = [_loop(counts[0])]
    for count in counts[1:]:
        with ir.InsertionPoint(loops[-1].body):
            loops.append(_loop(count))
    return loops


def _close(loops: list[Any]) -> None:
    for loop in reversed(loops):
        with ir.InsertionPoint(loop.body):
            _end()


def _histogram(call: _Call, vector_bits: int) -> None:
    """Counts of values 0 .. bins-1; values outside count nowhere."""

    source, result = call.operand_types[0], call.result_types[0]
    bins, element = result.shape[0], result.element_type
    i64 = ir.IntegerType.get_signless(64)
    clear = _loop(bins)
    with ir.InsertionPoint(clear.body):
        zero = arith.ConstantOp(element, 0).result
        _write(zero, call.results[0], clear.induction_variable, element)
        _end()
    loop = _loop(prod(source.shape))
    with ir.InsertionPoint(loop.body):
        value = _read(call.sources[0], loop.induction_variable, source.element_type)
        value = value if value.type == i64 else arith.ExtSIOp(i64, value).result
        inside = arith.CmpIOp(arith.CmpIPredicate.ult, value, _constant(bins)).result
        if len(call.sources) > 1:
            mask = _read(call.sources[1], loop.induction_variable, ir.IntegerType.get_signless(1))
            inside = arith.AndIOp(inside, mask).result
        branch = scf.IfOp(inside)
        with ir.InsertionPoint(branch.then_block):
            old = _read(call.results[0], value, element)
            _write(arith.AddIOp(old, arith.ConstantOp(element, 1).result).result, call.results[0], value, element)
            _end()
        _end()


def _join(call: _Call, vector_bits: int) -> None:
    """``result[.., 0] = a``, ``result[.., 1] = b``."""

    element = call.operand_types[0].element_type
    loop = _loop(prod(call.operand_types[0].shape))
    with ir.InsertionPoint(loop.body):
        i = loop.induction_variable
        for k, source in enumerate(call.sources):
            _write(_read(source, i, element), call.results[0], _add(_times(i, 2), _constant(k)), element)
        _end()


def _split(call: _Call, vector_bits: int) -> None:
    """``a = x[.., 0]``, ``b = x[.., 1]``."""

    element = call.operand_types[0].element_type
    loop = _loop(prod(call.result_types[0].shape))
    with ir.InsertionPoint(loop.body):
        i = loop.induction_variable
        for k, result in enumerate(call.results):
            _write(_read(call.sources[0], _add(_times(i, 2), _constant(k)), element), result, i, element)
        _end()


def _cat(call: _Call, vector_bits: int) -> None:
    """Both operands one after the other (Triton leaves the order of elements open)."""

    element, offset = call.operand_types[0].element_type, 0
    for source, type_ in zip(call.sources, call.operand_types, strict=True):
        count = prod(type_.shape)
        loop = _loop(count)
        with ir.InsertionPoint(loop.body):
            i = loop.induction_variable
            _write(_read(source, i, element), call.results[0], _add(i, _constant(offset)), element)
            _end()
        offset += count


_LOWERINGS = {"tp.scan": _scan, "tp.gather": _gather, "tp.histogram": _histogram, "tp.join": _join,
              "tp.split": _split, "tp.cat": _cat}  # fmt: skip
