"""``torch._foreach_*_`` of tensors that overlap: AOTAutograd reads all before it writes any, eager goes in turn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch._C._dynamo.guards import compute_overlapping_tensors

__all__ = ["write_in_turn"]


def write_in_turn(gm: torch.fx.GraphModule) -> None:
    """Let Dynamo's graph call such an operation once for each tensor, if one is written that a later one overlaps."""
    for node in list(gm.graph.nodes):
        name = getattr(node.target, "__name__", "").split(".")[0] if node.op == "call_function" else ""
        if not (name.startswith("_foreach_") and name.endswith("_")) or node.users:
            continue
        if any(not isinstance(argument, list | tuple | int | float) for argument in node.args):
            continue  # a tensor of numbers, which belongs to all
        count = len(node.args[0])
        if not any(_overlap(written, other) for written, other in _later(node, count)):
            continue
        with gm.graph.inserting_before(node):
            for i in range(count):
                args = tuple(a[i : i + 1] if isinstance(a, list | tuple) else a for a in node.args)
                gm.graph.call_function(node.target, args, node.kwargs)
        gm.graph.erase_node(node)
        gm.recompile()


def _later(node: torch.fx.Node, count: int) -> Iterator[tuple[Any, Any]]:
    """What an operation writes, with what it reads or writes behind that."""
    lists: list[Any] = [argument for argument in node.args if isinstance(argument, list | tuple)]
    for i, j in combinations(range(count), 2):
        for tensors in lists:
            yield lists[0][i], tensors[j]


def _overlap(a: Any, b: Any) -> bool:
    first, second = (x.meta.get("example_value") if isinstance(x, torch.fx.Node) else None for x in (a, b))
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return False
    if first.untyped_storage()._cdata != second.untyped_storage()._cdata:
        return False
    return bool(compute_overlapping_tensors([first, second]))
