"""Computes costly functions of a small tensor once, where each element of a larger tensor would compute them again.

A norm by running statistics divides by a root for each channel: Inductor writes that into the kernel that normalizes,
which computes it for each pixel. A small kernel before it costs less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import V
from torchport.inductor.host import limits

__all__ = ["AFTER"]

_aten = torch.ops.aten

_COSTLY = frozenset({_aten.sqrt.default, _aten.rsqrt.default, _aten.reciprocal.default, _aten.div.Tensor})
"""Inductor itself stores exponentials and what is made of them, where they are expanded."""
_VIEWS = frozenset(
    {
        _aten.unsqueeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.view.default, _aten.reshape.default,
        _aten.expand.default, _aten._unsafe_view.default, _aten.permute.default, _aten.t.default,
    }
)  # fmt: skip
_STORED = frozenset({_aten.convolution.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default})
"""What is in memory whatever reads it."""

_TYPES = (torch.float32, torch.float64)
"""Types that memory holds as kernels compute them: the result's bits are the same."""
_TIMES = 8
_SAVED = 16384
"""Elements that are not computed again, from which a kernel more costs less."""


def _store(result: Any) -> None:
    """Have the result of the node that is being lowered in memory, if larger tensors read it."""
    node = V.graph.current_node
    if node is None or limits() is None:
        return
    size = _size(node)
    if node.target not in _COSTLY or size is None or not _comes_from_memory(node, size):
        return
    if _largest(node, size) >= max(size * _TIMES, size + _SAVED):
        result.realize()


def _size(node: torch.fx.Node) -> int | None:
    """Elements of a tensor of one of ``_TYPES``; None where they are not known."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype not in _TYPES:
        return None
    return math.prod(value.shape) if all(type(size) is int for size in value.shape) else None


def _largest(node: torch.fx.Node, size: int) -> int:
    """Elements of the largest tensor that elementwise operations compute from ``node``, with no costly one between."""
    found = 0
    for user in node.users:
        if _is_view(user):
            found = max(found, _largest(user, size))
        elif _is_elementwise(user) and (elements := _size(user)) is not None:
            if elements > size:
                found = max(found, elements)
            elif user.target not in _COSTLY:
                found = max(found, _largest(user, size))
    return found


def _comes_from_memory(node: torch.fx.Node, size: int) -> bool:
    """Whether no reduction or larger tensor is behind ``node``: these may be computed in the kernel that reads it."""
    for source in node.all_input_nodes:
        if source.op != "call_function" or source.target in _STORED:
            continue
        if not (_is_view(source) or (_is_elementwise(source) and (_size(source) or size + 1) <= size)):
            return False
        if not _comes_from_memory(source, size):
            return False
    return True


def _is_view(node: torch.fx.Node) -> bool:
    return node.target in _VIEWS


def _is_elementwise(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


AFTER: dict[Any, Callable[[Any], None]] = dict.fromkeys(_COSTLY, _store)
"""What follows Inductor's lowering of an operator."""
