"""Vector code that suits most arguments, and a branch to what suits all of them for a vector that has others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlir import ir
from mlir.dialects import arith, scf

from torchport_passes.scalar.mathlib.vector_value import VectorValue, select

__all__ = ["unless_rare"]


def unless_rare(
    some: ir.Value, rare: VectorValue, usual: Sequence[VectorValue], otherwise: Callable[[], Sequence[VectorValue]]
) -> list[VectorValue]:
    """``usual``, but what ``otherwise`` emits in elements that are ``rare``.

    ``some``: an i1, whether any element is rare. The branch is expected not to be taken.
    """
    types = [one.type for one in usual]
    never = ir.Operation.create("llvm.intr.expect", [some.type], [some, arith.constant(some.type, 0)]).results[0]
    branch = scf.IfOp(never, types, has_else=True)
    with ir.InsertionPoint(branch.then_block):
        called = [select(rare, other, one) for other, one in zip(otherwise(), usual, strict=True)]
        scf.YieldOp([one.value for one in called])
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp([one.value for one in usual])
    return [VectorValue(one) for one in branch.results]
