"""With ``fallback_random``, aten draws random numbers in the order of the program, as eager does."""

from __future__ import annotations

from typing import Any

import torch

from torchport.inductor.compat import V, ir

__all__ = ["keep_order"]


def keep_order() -> None:
    """Make every call of aten that draws random numbers wait for the one before it, in the graph that was lowered.

    Inductor ties them together too, but by results; a result that nobody uses goes, and takes the tie with it.
    """
    previous: Any = None
    for operation in V.graph.operations:
        overload = getattr(operation, "op_overload", None)
        if not isinstance(operation, ir.ExternKernel) or not isinstance(overload, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in overload.tags:
            if previous is not None:
                V.graph.additional_star_deps[operation.get_operation_name()].add(previous.get_name())
            previous = operation
