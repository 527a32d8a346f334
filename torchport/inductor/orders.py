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

from torchport.inductor.compat import V, ir
from torchport.inductor.host import limits

__all__ = ["AFTER"]

_aten = torch.ops.aten
_LEAST = 1 << 14
"""Elements; fewer stay in the first-level cache, in whatever order they are read."""


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
        math.prod(value.shape) >= _LEAST
        and isinstance(stored, ir.StorageBox)
        and type(stored.data) is ir.Pointwise
        and _uses(node) > 1
        and len(_directions(stored.data)) > 1
    ):
        result.realize()


def _uses(node: torch.fx.Node) -> int:
    """How many operations and results use a value, through views and functions of it alone."""
    return sum(_uses(user) if _is_of_one(user) else 1 for user in node.users)


def _is_of_one(node: torch.fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or len(node.all_input_nodes) != 1:
        return False
    return node.target.is_view or torch.Tag.pointwise in node.target.tags


def _directions(pointwise: Any) -> set[Any]:
    """The dimensions that the whole tensors which a pointwise value reads have their neighbours along."""
    found = set()
    for dep in pointwise.get_reads():
        index = getattr(dep, "index", None)
        if index is None:
            continue
        variables = [v for v, size in zip(dep.var_names, dep.size, strict=True) if size != 1]
        if all(index.has(variable) for variable in variables):
            found |= {variable for variable in variables if index.coeff(variable) == 1}
    return found


AFTER: dict[Any, Callable[[Any], None]] = dict.fromkeys((_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor), _store)
"""What follows Inductor's lowering of an operator."""
