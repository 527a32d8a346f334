"""``tt.assert``: ``cf.assert`` for each element, with its message."""

from __future__ import annotations

from typing import Any

from torchport_linalg.kernel import Kernel
from torchport_linalg.memory import extracted, nest

__all__ = ["assertion"]


def assertion(x: Kernel, op: Any) -> None:
    """Write the assertion on a boolean or on each element of a tensor of them."""
    condition, message = x.get(op.operands[0]), str(op.attributes["message"])
    shape = condition.shape if condition.scalar is None else None
    if shape is None:
        x.w.op(f"cf.assert {(condition.scalar or condition).name}, {message}", effect=True)
        return
    with nest(x, shape) as numbers:
        x.w.op(f"cf.assert {extracted(x, condition, numbers).name}, {message}", effect=True)
