"""Stores what is computed of tensors that lie in different orders, where several operations use it.

Inductor computes a pointwise value again for each operation that uses it, as long as it reads few tensors. Read across,
a tensor costs a line of the cache for each element, or squares that are turned in registers, and a norm reads it three
times. Once is enough: a kernel of tiles, whose result lies as the value's other operands do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.codegen.directions import FEW, directions
from torchport.inductor.compat import MemoryDep, V, ir
from torchport.inductor.host import limits
from torchport.inductor.upstream.fx import is_view, uses

__all__ = ["AFTER"]

_aten = torch.ops.aten


def _store(result: Any) -> None:
    """Have the sum or product that is being lowered in memory, if it is shared and its operands' orders differ."""
    node = V.graph.current_node
    if node is None or node.target not in AFTER or limits() is None:
        return  # a lowering of torchport's may be made of sums
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not all(type(size) is int for size in value.shape):
        return
    stored = getattr(result, "data", None)
    if (
        math.prod(value.shape) >= FEW
        and isinstance(stored, ir.StorageBox)
        and type(stored.data) is ir.Pointwise
        and uses(node, _is_of_one) > 1
        and _reads_across(stored.data)
    ):
        result.realize()


def _is_of_one(node: torch.fx.Node) -> bool:
    """Whether a node is a view, or a function of one tensor alone."""
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
    return is_view(node) or (pointwise and len(node.all_input_nodes) == 1)


def _reads_across(pointwise: Any) -> bool:
    """Whether whole tensors that a pointwise value reads have their neighbours along different dimensions."""
    deps = [dep for dep in pointwise.get_reads() if isinstance(dep, MemoryDep)]
    sizes = {variable: size for dep in deps for variable, size in dep.ranges.items()}
    return len(directions((dep.index for dep in deps), sizes)) > 1


AFTER: dict[Any, Callable[[Any], None]] = dict.fromkeys((_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor), _store)
"""What follows Inductor's lowering of an operator."""
