"""Lowers products of pairs of bf16 to the instruction that adds them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import llvm

from torchport_passes.ir.ops import matching
from torchport_passes.ir.types import Module, Op, Value

__all__ = ["LowerPairs"]


@dataclass(frozen=True)
class LowerPairs:
    """Emit each ``tp.add_pairs`` as x86's ``vdpbf16ps`` (AVX512-BF16).

    Takes ``tp.add_pairs a, b, c`` of vectors of 4, 8 or 16 words of two bf16, and f32: ``c`` plus both products of each
    pair. Intel's manual: denormals are taken for zeros and flushed to zeros, results are rounded to nearest even. Runs
    after ``lower-narrow-floats``: the intrinsic is the only operation that has bf16.
    """

    name: ClassVar[str] = "lower-pairs"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.add_pairs"})

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            for op in matching(module, "tp.add_pairs".__eq__):
                with ir.InsertionPoint(op):
                    op.results[0].replace_all_uses_with(_instruction(op))
                op.erase()


def _instruction(op: Op) -> Value:
    a, b, c = op.operands
    lanes = c.type.shape[0]
    pairs = ir.VectorType.get([2 * lanes], ir.BF16Type.get())
    operands = [c, *(llvm.BitcastOp(pairs, value).result for value in (a, b))]
    intrinsic = ir.StringAttr.get(f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}")
    return llvm.CallIntrinsicOp(c.type, intrinsic, operands, [], []).operation.results[0]
