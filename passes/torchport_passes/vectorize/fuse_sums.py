"""Adds products of float64 to the sums of a loop in one step, rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir

from torchport_passes.ir.ops import element_type, matching, owner_of, terminator_of
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["FuseSums"]


@dataclass(frozen=True)
class FuseSums:
    """Let what a loop carries, ``sum + a * b`` in float64, be ``llvm.intr.fmuladd``, if nothing else takes the product.

    Takes loops over vectors, or scalars. That is one rounding less. Variances, whose sums are of float64, wait for
    additions: Zen cores add in two units and multiply in two others. Other sums of products, and those of float32, do
    not change.
    """

    name: ClassVar[str] = "fuse-sums"

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for loop in matching(module, "scf.for".__eq__):
                block = loop.regions[0].blocks[0]
                carried = list(block.arguments)[1:]
                for argument, end in zip(carried, terminator_of(block).operands, strict=True):
                    _fuse(argument, end)


def _fuse(carried: Value, end: Value) -> None:
    addition = owner_of(end)
    if addition is None or addition.name != "arith.addf" or not isinstance(element_type(end.type), ir.F64Type):
        return
    first, second = addition.operands
    if carried not in (first, second):
        return
    product = owner_of(second if first == carried else first)
    if product is None or product.name != "arith.mulf" or not _used_once(product):
        return
    fused = ir.Operation.create(
        "llvm.intr.fmuladd", [end.type], [*product.operands, carried], ip=ir.InsertionPoint(addition)
    )
    addition.results[0].replace_all_uses_with(fused.results[0])
    addition.erase()
    product.erase()


def _used_once(op: Op) -> bool:
    return len(list(op.results[0].uses)) == 1
