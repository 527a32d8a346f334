"""Runs upstream MLIR's conversions to the LLVM dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import passmanager

__all__ = ["ToLLVM"]

_PIPELINE = (
    "canonicalize,cse,convert-scf-to-cf,"
    "convert-vector-to-llvm,convert-math-to-llvm,convert-to-llvm,reconcile-unrealized-casts"
)


@dataclass(frozen=True)
class ToLLVM:
    """Convert func, scf, cf, arith, math and vector to the llvm dialect.

    Takes what ``lower-kernel``, ``lower-math`` and ``lower-casts`` leave; leaves llvm operations only.
    """

    name: ClassVar[str] = "to-llvm"

    def apply(self, module: Any) -> None:
        with module.context:
            manager = passmanager.PassManager.parse(f"builtin.module({_PIPELINE})")
            manager.enable_verifier(False)  # the pipeline verifies the result
            manager.run(module.operation)
