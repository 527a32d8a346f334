"""Computes running sums and products in a wider type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.identities import WIDE_FOR_SCANS
from torchport_passes.ir.ops import element_type, matching
from torchport_passes.ir.tensors import convert, typed
from torchport_passes.ir.types import Module, Op, Type

__all__ = ["WidenScans"]


@dataclass(frozen=True)
class WidenScans:
    """Compute scans that add or multiply in a wider type: f16 and bf16 in f32, f32 in f64.

    Takes imported TTIR. Each result is rounded once, as on the CPU target. Other scans do not change.

    ``double``: whether the target has f64; without it, scans of f32 do not change.
    """

    name: ClassVar[str] = "widen-scans"
    double: bool = True

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tt.scan".__eq__):
                narrow = str(element_type(op.operands[0].type))
                wide = WIDE_FOR_SCANS.get(narrow)
                if wide is not None and (wide is ir.F32Type or self.double) and _accumulates(op):
                    _widen(op, wide.get())


def _accumulates(op: Op) -> bool:
    block = op.regions[0].blocks[0]
    operations = [o.operation for o in block.operations]
    return (
        len(op.operands) == 1
        and len(operations) == 2
        and operations[0].name in ("arith.addf", "arith.mulf")
        and set(operations[0].operands) == set(block.arguments)
    )


def _widen(op: Op, wide: Type) -> None:
    source, result = op.operands[0], op.results[0]
    with ir.InsertionPoint(op):
        operand = convert(source, wide)
        attributes = {name: op.attributes[name] for name in ("axis", "reverse") if name in op.attributes}
        new = ir.Operation.create("tt.scan", [typed(operand, wide)], [operand], attributes, regions=1)
        op.regions[0].blocks[0].append_to(new.regions[0])
        block = new.regions[0].blocks[0]
        for argument in block.arguments:
            argument.set_type(wide)
        for inner in block.operations:
            for value in inner.operation.results:
                value.set_type(wide)
        rounded = convert(new.results[0], element_type(result.type))
    result.replace_all_uses_with(rounded)
    op.erase()
