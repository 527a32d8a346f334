"""``scan``, ``map`` and ``while_loop``: numbers that Inductor reads, and memory that it expects.

``scan`` and ``map`` become loops, whose counter Inductor reads as a number; Dynamo's default forbids that. What a loop
carries has the strides of what its body gives; the gradient of a sum, an expanded number, has others.
"""

from __future__ import annotations

from typing import Any

import torch

from torchport.inductor.upstream.fx import call, value

__all__ = ["allow_counters", "carry_dense_tensors"]

_higher_order = torch.ops.higher_order


def allow_counters(graph: torch.fx.Graph) -> None:
    """Let a graph with ``scan`` or ``map`` have numbers that are known at run time only."""
    for operation in (_higher_order.scan, _higher_order.map_impl):
        for node in graph.find_nodes(op="call_function", target=operation):
            for tensor in node.meta["val"]:
                tensor.fake_mode.allow_scalar_outputs = True


def carry_dense_tensors(graph: torch.fx.Graph) -> None:
    """Have loops begin with copies of expanded tensors. PyTorch makes these itself from 2.13 on."""
    for node in graph.find_nodes(op="call_function", target=_higher_order.while_loop):
        condition, body, carried, *others = node.args
        with graph.inserting_before(node):
            node.args = (condition, body, tuple(_dense(graph, argument) for argument in carried), *others)


def _dense(graph: torch.fx.Graph, argument: Any) -> Any:
    tensor = value(argument)
    if tensor is None or not any(isinstance(stride, int) and stride == 0 for stride in tensor.stride()):
        return argument
    return call(graph, argument, torch.ops.aten.clone.default, argument, memory_format=torch.contiguous_format)
