"""Reads of a complex tensor keep their side of a write into a view of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from torchport.inductor.compat import config
from torchport.inductor.upstream.fx import value

__all__ = ["in_program_order"]


def in_program_order(graph: torch.fx.Graph) -> AbstractContextManager[object]:
    """A context in which Inductor keeps the graph's order, if the graph writes a complex tensor; else one of no effect.

    Inductor leaves views of complex tensors to aten, and orders what touches a view by that view alone: reads of the
    tensor itself are moved across the write to save memory.
    """
    writes = (
        node for node in graph.nodes if node.op == "call_function" and node.target is torch.ops.aten.copy_.default
    )
    tensors = (value(node.args[0]) for node in writes)
    if any(tensor is not None and tensor.is_complex() for tensor in tensors):
        return config.patch(reorder_for_peak_memory=False)  # type: ignore[no-any-return]
    return nullcontext()
