"""Joins products and sums into fused multiply-adds, or splits these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, math

from torchport_passes.ir.ops import element_type, matching, owner_of
from torchport_passes.ir.types import Module, Op

__all__ = ["EmulateContraction"]

_TYPES = ("f32", "f64")


@dataclass(frozen=True)
class EmulateContraction:
    """Decide whether the product in a * b + c is rounded.

    Takes imported TTIR and leaves it.

    ``fused``: whether to contract, as GPU compilers do: a product of f32 or f64 whose only use is a sum or difference
    in the same block joins it as ``math.fma``. Else every ``math.fma`` becomes a product and a sum.
    """

    name: ClassVar[str] = "emulate-contraction"
    fused: bool = True

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            names = ("arith.addf", "arith.subf") if self.fused else ("math.fma",)
            for op in matching(module, names.__contains__):
                with ir.InsertionPoint(op):
                    if self.fused:
                        _join(op)
                    else:
                        a, b, c = op.operands
                        op.results[0].replace_all_uses_with(arith.addf(arith.mulf(a, b), c))
                        op.erase()


def _join(op: Op) -> None:
    """Join a sum or difference with the first operand that is a product."""
    if str(element_type(op.results[0].type)) not in _TYPES:
        return
    for i in (0, 1):
        product, other = owner_of(op.operands[i]), op.operands[1 - i]
        if product is None or product.name != "arith.mulf":
            continue
        if product.block != op.block or len(list(product.results[0].uses)) != 1:
            continue
        a, b = product.operands
        if op.name == "arith.subf":
            if i == 0:
                other = arith.negf(other)
            else:
                a = arith.negf(a)
        op.results[0].replace_all_uses_with(math.fma(a, b, other))
        op.erase()
        product.erase()
        return
