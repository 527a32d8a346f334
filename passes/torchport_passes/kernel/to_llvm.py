"""Runs upstream MLIR's conversions to the LLVM dialect."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import ir, passmanager

from torchport_passes.ir.types import Module, Op

__all__ = ["ToLLVM"]

# Canonicalised once from the top: LLVM finds what a second round would, in less time.
_PIPELINE = (
    "canonicalize{max-iterations=1 region-simplify=disabled},cse,convert-scf-to-cf,"
    "convert-vector-to-llvm,convert-math-to-llvm,convert-to-llvm,reconcile-unrealized-casts"
)


@dataclass(frozen=True)
class ToLLVM:
    """Convert func, scf, cf, arith, math and vector to the llvm dialect.

    Takes what ``lower-kernel``, ``lower-math`` and ``lower-casts`` leave; leaves llvm operations only. ``loop_hints``:
    loops may have a ``llvm.loop_annotation`` (``tl.range(..., disable_licm=True)``), which LLVM's loop gets.
    """

    name: ClassVar[str] = "to-llvm"
    removes: ClassVar[frozenset[str]] = frozenset({"arith.", "cf.", "func.", "math.", "scf.", "tp.", "tt.", "vector."})
    loop_hints: bool = True

    def apply(self, module: Module) -> None:
        with module.context:
            _manager(module.context).run(module.operation)
            if self.loop_hints:
                module.operation.walk(_annotate)


_threads = threading.local()


def _manager(context: Any) -> Any:
    """The conversions, for one context. A thread keeps those of its last one: their patterns take 0.6 ms to collect."""
    known, manager = getattr(_threads, "last", (None, None))
    if known is not context:
        manager = passmanager.PassManager.parse(f"builtin.module({_PIPELINE})", context)
        manager.enable_verifier(False)  # the pipeline verifies the result
        _threads.last = context, manager
    return manager


def _annotate(op: Op) -> Any:
    """Branches carry a loop's annotation as a foreign attribute; the one that becomes metadata is the branch's own."""
    if op.name in ("llvm.br", "llvm.cond_br") and "llvm.loop_annotation" in op.attributes:
        op.attributes["loop_annotation"] = op.attributes["llvm.loop_annotation"]
        del op.attributes["llvm.loop_annotation"]
    return ir.WalkResult.ADVANCE
