"""Scans, as loops over buffers."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from mlir import ir
from mlir.dialects import arith

from torchport_passes._combine_region import apply_region
from torchport_passes._emit import byte_width
from torchport_passes._lane_loops import Call, add, constant, end, loop, loop_from, read, times, write

__all__ = ["scan"]


def scan(call: Call, vector_bits: int) -> None:
    """``acc = combine(acc, x)`` along the axis; the first element starts it."""

    axis = call.integer("axis")
    attributes = call.op.attributes
    reverse = "reverse" in attributes and bool(ir.BoolAttr(attributes["reverse"]).value)
    shape = list(call.operand_types[0].shape)
    length, outer, inner = shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])
    elements = [t.element_type for t in call.operand_types]
    widest = max(8 * byte_width(e) for e in elements)
    lanes = min(inner, max(1, vector_bits // widest)) if inner > 1 else None
    rows = loop(outer)
    with ir.InsertionPoint(rows.body):
        columns = loop(inner, lanes or 1)
        with ir.InsertionPoint(columns.body):
            base = add(times(rows.induction_variable, length * inner), columns.induction_variable)

            def at(position: Any) -> Any:
                step = arith.SubIOp(constant(length - 1), position).result if reverse else position
                return add(base, times(step, inner))

            def values_at(index: Any) -> list[Any]:
                return [read(b, index, e, lanes) for b, e in zip(call.sources, elements, strict=True)]

            def keep(values: list[Any], index: Any) -> None:
                for value, buffer, element in zip(values, call.results, elements, strict=True):
                    write(value, buffer, index, element)

            wide = _wide_operation(call)
            first = at(constant(0))
            start = values_at(first)
            keep(start, first)
            if length > 1:
                steps = loop_from(1, length, start if wide is None else [_extend(start[0], wide.element)])
                with ir.InsertionPoint(steps.body):
                    index = at(steps.induction_variable)
                    values = values_at(index)
                    if wide is None:
                        combined = apply_region(call.op.regions[0], [*steps.inner_iter_args, *values], lanes)
                        keep(combined, index)
                    else:
                        value = _extend(values[0], wide.element)
                        combined = [wide.operation(steps.inner_iter_args[0], value).result]
                        keep([arith.TruncFOp(values[0].type, combined[0]).result], index)
                    end(combined)
            end()
        end()


class _Wide(NamedTuple):
    operation: Any
    element: Any


def _wide_operation(call: Call) -> _Wide | None:
    """The operation of a running sum or product of floats, and the type it is kept in.

    f32 ones are kept in f64, as eager PyTorch does on CPUs, f16 and bf16 ones in f32: each result is rounded once.
    """
    operations = [o.operation for o in call.op.regions[0].blocks[0].operations]
    element = str(call.operand_types[0].element_type)
    wide = {"f32": ir.F64Type, "f16": ir.F32Type, "bf16": ir.F32Type}.get(element)
    operation = {"arith.addf": arith.AddFOp, "arith.mulf": arith.MulFOp}.get(operations[0].name)
    if len(operations) != 2 or len(call.sources) != 1 or wide is None or operation is None:
        return None
    return _Wide(operation, wide.get())


def _extend(value: Any, wide: Any) -> Any:
    type_ = value.type
    target = ir.VectorType.get(list(type_.shape), wide) if isinstance(type_, ir.VectorType) else wide
    return arith.ExtFOp(target, value).result
