"""Computes sums and products of 16-bit floats in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import matching
from torchport_passes.ir.types import Module, Op, Type

__all__ = ["WidenSums"]

_NARROW = ("f16", "bf16")


@dataclass(frozen=True)
class WidenSums:
    """Compute reductions that add or multiply f16 or bf16 in f32, and round the result once.

    Takes imported TTIR. A target may choose the order of additions, and so the rounding in between. CPUs add f32
    fastest, and the result is the closest to the sum. Other reductions do not change.
    """

    name: ClassVar[str] = "widen-sums"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.reduce".__eq__):
                if _adds_narrow_floats(op):
                    _widen(op)


def _adds_narrow_floats(reduce: Op) -> bool:
    block = reduce.regions[0].blocks[0]
    operations = [o.operation for o in block.operations]
    return (
        len(operations) == 2
        and operations[0].name in ("arith.addf", "arith.mulf")
        and str(block.arguments[0].type) in _NARROW
        and set(operations[0].operands) == set(block.arguments)
    )


def _in_f32(type_: Type) -> Type:
    f32 = ir.F32Type.get()
    return ir.RankedTensorType.get(list(type_.shape), f32) if isinstance(type_, ir.RankedTensorType) else f32


def _widen(op: Op) -> None:
    source, result = op.operands[0], op.results[0]
    point = ir.InsertionPoint(op)
    wide = ir.Operation.create("arith.extf", [_in_f32(source.type)], [source], ip=point).results[0]
    axis = {"axis": op.attributes["axis"]}
    new = ir.Operation.create("tt.reduce", [_in_f32(result.type)], [wide], axis, regions=1, ip=point)
    op.regions[0].blocks[0].append_to(new.regions[0])
    block = new.regions[0].blocks[0]
    for argument in block.arguments:
        argument.set_type(ir.F32Type.get())
    for inner in block.operations:
        for value in inner.operation.results:
            value.set_type(ir.F32Type.get())
    narrow = ir.Operation.create("arith.truncf", [result.type], [new.results[0]], ip=point).results[0]
    result.replace_all_uses_with(narrow)
    op.erase()
