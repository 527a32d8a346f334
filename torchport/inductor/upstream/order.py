"""The order of operations: reads of a complex tensor keep their side of a write, random numbers are drawn in turn."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from torchport.inductor.compat import config
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.fx import value

__all__ = ["in_program_order"]


def in_program_order(graph: torch.fx.Graph) -> AbstractContextManager[object]:
    """A context in which Inductor keeps the graph's order where that makes a difference; else one of no effect."""
    options = {}
    if applies("complex-order") and _writes_complex(graph):
        options["reorder_for_peak_memory"] = False
    if applies("random-order") and config.fallback_random:
        options["reorder_for_locality"] = False  # which moves draws, too, in PyTorch 2.11
    return config.patch(options) if options else nullcontext()


def _writes_complex(graph: torch.fx.Graph) -> bool:
    """Whether the graph writes a complex tensor.

    Inductor leaves views of complex tensors to aten, and orders what touches a view by that view alone: reads of the
    tensor itself are moved across the write to save memory.
    """
    writes = graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default)
    tensors = (value(node.args[0]) for node in writes)
    return any(tensor is not None and tensor.is_complex() for tensor in tensors)
