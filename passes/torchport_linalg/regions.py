"""Regions of scalar operations: the functions that reductions, scans and maps apply to elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchport_linalg.kernel import Kernel
from torchport_linalg.text import Value

__all__ = ["apply"]


def apply(x: Kernel, block: Any, given: Sequence[Value]) -> list[Value]:
    """Write the operations of a block of scalars on ``given``; returns what its terminator has."""
    for argument, value in zip(block.arguments, given, strict=True):
        x.set(argument, value)
    x.write(x, block)
    return [x.get(value) for value in list(block.operations)[-1].operands]
