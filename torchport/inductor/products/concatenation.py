"""Lowers concatenations that convolutions read to memory with channels last, as the convolutions want it.

Inductor puts channels last only where an input lies so for good already. Other inputs are then written with their
channels apart, and the whole is copied for each convolution that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torchport.inductor.compat import V, ir
from torchport.inductor.products.quantised import LOWERINGS as NARROW

__all__ = ["LOWERINGS"]

_aten = torch.ops.aten

_BYTES = (torch.int8, torch.uint8)
"""Inductor leaves these to aten."""
_KEEP_PLACES = frozenset(
    {
        _aten.avg_pool2d.default, _aten.max_pool2d_with_indices.default, _aten._unsafe_index.Tensor,
        torch.ops.prims._low_memory_max_pool_with_offsets.default, _aten.constant_pad_nd.default,
    }
)  # fmt: skip
"""Besides elementwise operators: those whose results lie as their input does."""
_STEPS = 8


def _cat(tensors: Any, dim: int = 0) -> Any:
    found = NARROW[_aten.cat.default](tensors, dim)
    return _channels_last(tensors, dim) if found is NotImplemented else found


def _channels_last(tensors: Any, dim: int) -> Any:
    """Images [N, C, H, W] in one buffer with channels last; NotImplemented where Inductor's own choice is as good."""
    node, sizevars = V.graph.current_node, V.graph.sizevars
    first = tensors[0]
    if not V.graph.layout_opt or len(tensors) < 2 or any(len(one.get_size()) != 4 for one in tensors):
        return NotImplemented
    if first.get_device().type != "cpu" or first.get_dtype() in _BYTES:
        return NotImplemented
    if any(one.get_dtype() != first.get_dtype() or one.get_device() != first.get_device() for one in tensors):
        return NotImplemented
    if node.target is not _aten.cat.default or node in V.graph.user_visible_output_strides:
        return NotImplemented
    if node not in V.graph.nodes_prefer_channels_last or not _read_by_convolution(node):
        return NotImplemented
    dim %= 4
    others = [axis for axis in range(4) if axis != dim]
    size = list(first.get_size())
    ends = [size[dim]]
    for one in tensors[1:]:
        if not all(sizevars.statically_known_equals(one.get_size()[axis], size[axis]) for axis in others):
            return NotImplemented
        ends.append(ends[-1] + one.get_size()[dim])
    size[dim] = ends[-1]
    _, channels, height, width = size
    layout = ir.FixedLayout(
        first.get_device(), first.get_dtype(), size, [channels * height * width, 1, width * channels, channels]
    )
    whole = ir.ConcatKernel(name=None, layout=layout, inputs=[])
    storage = ir.StorageBox(whole)
    for one, start, end in zip(tensors, [0, *ends], ends, strict=False):
        place = ir.SliceView.create(storage, dim, start, end, clamp=False)
        whole.inputs.append(ir.ConcatKernel.realize_into(one, place))
    whole.name = V.graph.register_buffer(whole)
    whole.inputs = ir.ConcatKernel.unwrap_storage(whole.inputs)
    V.graph.register_operation(whole)
    return ir.TensorBox(storage)


def _read_by_convolution(node: torch.fx.Node, steps: int = _STEPS) -> bool:
    """Whether images, or what is computed of them place by place, are the input of a convolution."""
    for user in node.users:
        if user.target is _aten.convolution.default:
            if user.args[0] is node:
                return True
        elif steps and _keeps_places(user) and _read_by_convolution(user, steps - 1):
            return True
    return False


def _keeps_places(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.dim() != 4:
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target in _KEEP_PLACES or torch.Tag.pointwise in node.target.tags
    return getattr(node.target, "__name__", "") == "getitem"


LOWERINGS: dict[Any, Callable[..., Any]] = {_aten.cat.default: _cat}
