"""The kernels that a model becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.compile import request
from torchport.inductor import compile_graph, without_graph_caches
from torchport.inductor.scope import KernelSource, capture_kernels
from torchport.runtime import events

__all__ = ["capture"]


def capture(model: Callable[..., Any], inputs: Sequence[Any]) -> tuple[list[KernelSource], list[events.Fallback]]:
    """Compile ``model`` for the CPU and run it once on ``inputs``; each different kernel once, in order, and fallbacks.

    Gradients are asked for where an input or parameter requires them and the result is one tensor: the backward
    graph's kernels are then captured too. Raises what the model itself raises.
    """
    checked = request(None, {"target": "cpu"})

    def fresh(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(gm, example_inputs, checked)

    with events.capture() as happened, without_graph_caches(), capture_kernels() as kernels:
        result = torch.compile(model, backend=fresh)(*inputs)
        if isinstance(result, torch.Tensor) and result.requires_grad:
            result.backward(torch.ones_like(result))
    unique = {kernel.key: kernel for kernel in kernels}
    return list(unique.values()), [event for event in happened if isinstance(event, events.Fallback)]
