"""``scan`` and ``map`` become loops: Inductor reads the loop's counter as a number, which Dynamo's default forbids."""

from __future__ import annotations

import torch

__all__ = ["allow_counters"]


def allow_counters(graph: torch.fx.Graph) -> None:
    """Let a graph with such an operation have numbers that are known at run time only."""
    for operation in (torch.ops.higher_order.scan, torch.ops.higher_order.map_impl):
        for node in graph.find_nodes(op="call_function", target=operation):
            for tensor in node.meta["val"]:
                tensor.fake_mode.allow_scalar_outputs = True
