"""Nodes that torchport adds to FX graphs of aten operations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["base", "call", "computed", "is_view", "uses", "value"]

_TRACES = ("stack_trace", "nn_module_stack")


def value(node: Any) -> torch.Tensor | None:
    """The fake tensor that stands for the value of ``node``; None for anything else."""
    found = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return found if isinstance(found, torch.Tensor) else None


def call(graph: torch.fx.Graph, like: torch.fx.Node, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
    """Add a call of ``target`` at the graph's insertion point, as part of the user's line that ``like`` belongs to."""
    node = graph.call_function(target, args, kwargs)
    node.meta.update({key: like.meta[key] for key in _TRACES if key in like.meta})
    example = value(like)
    assert example is not None
    with example.fake_mode:  # type: ignore[attr-defined]
        node.meta["val"] = target(*torch.fx.map_arg(args, lambda argument: argument.meta["val"]), **kwargs)
    return node


def computed(node: torch.fx.Node) -> torch.fx.Node:
    """``node``, which Inductor then computes at its place in the graph, into memory of its own."""
    node.meta["inductor_realize_to_strides"] = True
    return node


def base(node: torch.fx.Node) -> torch.fx.Node:
    """The node whose memory ``node`` is a view of; itself where it is none."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], torch.fx.Node):
        source = node.args[0]
        if node.target is operator.getitem and is_view(source):
            source = source.args[0]  # type: ignore[assignment]  # of a split, a tensor
        elif not is_view(node):
            break
        node = source
    return node


def is_view(node: torch.fx.Node) -> bool:
    """Whether an operation gives a view of its first argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def uses(node: torch.fx.Node, passes: Callable[[torch.fx.Node], bool] = is_view) -> int:
    """How many operations and results use a value, where the results of ``passes`` are the value still."""
    return sum(uses(user, passes) if passes(user) else 1 for user in node.users)
