"""Lowers variances of group norms whose input has channels last: sums of each channel first, then of each group.

A group is a few neighbouring channels of every place. Read group by group, memory gives these few numbers and skips the
rest; read channel by channel, lanes are neighbouring channels, and all is read as it lies.

Sums are float64, of differences from a channel's first value (Chan, Golub and LeVeque, "Algorithms for computing the
sample variance", 1983): that value is at most sqrt(n) standard deviations from the mean, so of float64's 2^-53 a
difference of sums loses a factor of n + 1, and float32's 2^-24 is never reached. A group's variance is the mean of its
channels' and the variance of their means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch

from torchport.inductor.compat import V, ir, lowerings
from torchport.inductor.host import limits

__all__ = ["LOWERINGS"]

_aten, _prims = torch.ops.aten, torch.ops.prims

_LAST = {3: [1, 2, 0], 4: [1, 3, 2, 0], 5: [1, 4, 3, 2, 0]}
"""Dimensions of images from the one whose neighbours are neighbours in memory, by how many there are."""
_LANES = 16
_PLACES = 64
"""Places from which two kernels take less time than one."""
_VIEWS = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)


def _var_mean(x: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    """Of [N, groups, channels of a group, places] as ``native_group_norm`` has it; NotImplemented for all others."""
    image = _image(V.graph.current_node, x, dim)
    if image is None or correction != 0 or not keepdim:
        return NotImplemented
    batch, groups, channels, places = (int(size) for size in x.get_size())
    axes = list(range(2, len(image.get_size())))
    wide = _cast(image, torch.float64)
    first = wide
    for axis in axes:
        first = lowerings[_aten.slice.Tensor](first, axis, 0, 1)
    apart = _sub(wide, first)
    shift, squares = (_mean(one, axes, places) for one in (apart, _mul(apart, apart)))
    variance = lowerings[_aten.clamp_min.default](_sub(squares, _mul(shift, shift)), 0)
    mean = lowerings[_aten.add.Tensor](shift, first)
    variance, mean = (lowerings[_aten.reshape.default](one, [batch, groups, channels, 1]) for one in (variance, mean))
    if channels > 1:
        of_group = _mean(mean, [2], channels)
        away = _sub(mean, of_group)
        variance = _mean(lowerings[_aten.add.Tensor](variance, _mul(away, away)), [2], channels)
        mean = of_group
    return tuple(_cast(one, x.get_dtype()) for one in (variance, mean))


def _image(node: torch.fx.Node, x: Any, dim: Any) -> Any:
    """The input [N, C, ...] of a group norm whose channels lie last; None for other variances and other inputs."""
    if limits() is None:
        return None
    view = node.args[0] if node is not None and node.target is _aten.var_mean.correction else None
    if not isinstance(view, torch.fx.Node) or view.target not in _VIEWS or x.get_dtype() != torch.float32:
        return None
    source = view.args[0]
    if isinstance(source, torch.fx.Node) and source.target is _prims.convert_element_type.default:
        source = source.args[0]
    image = V.graph.env.get(source)
    stored = isinstance(source, torch.fx.Node) and (
        source.op == "placeholder" or source.target is _aten.convolution.default
    )
    if image is None and stored and isinstance(x.data, ir.BaseView):  # nothing else is to read it, but this view
        image = ir.TensorBox(x.data.unwrap_view())
    if not isinstance(image, ir.TensorBox) or list(dim or ()) != [2, 3] or len(x.get_size()) != 4:
        return None
    sizes, shape = ([V.graph.sizevars.simplify(size) for size in one.get_size()] for one in (x, image))
    if not all(isinstance(size, sympy.Integer) for size in (*sizes, *shape)) or len(shape) not in _LAST:
        return None
    batch, groups, channels, places = (int(size) for size in sizes)
    if [int(size) for size in shape[:2]] != [batch, groups * channels] or math.prod(map(int, shape[2:])) != places:
        return None
    if places < _PLACES or groups * channels < _LANES or batch < 1 or not _lies_last(image):
        return None
    return image


def _lies_last(image: Any) -> bool:
    """Whether the neighbours of a channel are neighbours in memory, or will be where Inductor is left to choose."""
    image.realize()
    if not ir.is_storage_and_layout(image):
        return False
    storage, layout = ir.as_storage_and_layout(image, freeze=False)
    if isinstance(layout, ir.FlexibleLayout):
        if not isinstance(storage.data, ir.ComputedBuffer):
            return False
        order: Sequence[int] | None = storage.data.get_fill_order()
        return order is not None and list(order) == _LAST[len(layout.size)]
    return bool(V.graph.sizevars.statically_known_equals(layout.stride[1], 1))


def _mean(x: Any, axes: list[int], count: int) -> Any:
    return _mul(lowerings[_aten.sum.dim_IntList](x, axes, True), 1 / count)


def _mul(a: Any, b: Any) -> Any:
    return lowerings[_aten.mul.Tensor](a, b)


def _sub(a: Any, b: Any) -> Any:
    return lowerings[_aten.sub.Tensor](a, b)


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return lowerings[_prims.convert_element_type.default](x, dtype)


LOWERINGS: dict[Any, Callable[..., Any]] = {_aten.var_mean.correction: _var_mean}
"""By operator; NotImplemented leaves the call to Inductor's."""
