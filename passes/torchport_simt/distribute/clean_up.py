"""Upstream's simplifications of scalar code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlir import passmanager

__all__ = ["CleanUp"]


@dataclass(frozen=True)
class CleanUp:
    """Fold constants, hoist loop invariants and merge equal scalar operations, with upstream's passes."""

    name: ClassVar[str] = "clean-up"

    def apply(self, module: Any) -> None:
        pipeline = "builtin.module(canonicalize,loop-invariant-code-motion,cse)"
        passmanager.PassManager.parse(pipeline, module.context).run(module.operation)
