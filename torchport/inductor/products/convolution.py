"""Lowers aten's convolutions of images to a kernel of ``templates``, where ``choose_windows`` says that it wins.

Channels lie last, as Inductor lays out convolutions on CPUs: a row of the product's first operand is the channels of
one place, and is read where it lies, once for each place of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sympy
import torch

from torchport.inductor.compat import V, flex, ir, lowerings
from torchport.inductor.products import few_outputs, lowering
from torchport.inductor.products.rules import choose, choose_windows

__all__ = ["LOWERINGS", "cast", "convolution", "is_widened", "laid_out", "may_lie_last", "pair"]

_aten = torch.ops.aten

_MOST_TERMS = 256
"""Of a step, and so channels that are read of a place beyond the borders."""
_LINE = [2, 0, 1]
"""Order of strides of [N, C, L] whose channels lie last."""
_MOST_PLACES = 2**31 - 1
"""Of a result: kernels count them in 32 bits."""

_zeros: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""By graph that is being lowered: the channels of a place beyond the borders."""


def _convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """In float32 where aten is slow in a 16-bit type; NotImplemented where aten is to compute it."""
    dtype = x.get_dtype()
    if is_widened(dtype):
        wide = [None if one is None else cast(one, torch.float32) for one in (x, weight, bias)]
        found = lowerings[_aten.convolution.default](
            *wide, stride, padding, dilation, transposed, output_padding, groups
        )
        return cast(found, dtype)
    if transposed or groups != 1 or not V.graph.layout_opt:
        return NotImplemented
    return convolution(x, weight, bias, stride, padding, dilation)


def convolution(
    x: Any, weight: Any, bias: Any, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Any:
    """Of all channels, in the layout that has them last; NotImplemented where aten's is not slower."""
    dtype = x.get_dtype()
    line = len(x.get_size()) == 3
    if len(x.get_size()) not in (3, 4) or len(weight.get_size()) != len(x.get_size()):
        return NotImplemented
    cpu = lowering.limits()
    if cpu is None:
        return NotImplemented
    facts = lowering.facts_of(dtype, cpu)
    if not (facts.pairs or (facts.fast and dtype == torch.float32)):
        return NotImplemented
    if any(one is not None and one.get_dtype() != dtype for one in (weight, bias)):
        return NotImplemented
    stride, padding, dilation = (pair(one) for one in (stride, padding, dilation))
    shape = x.get_size()
    if line:  # an image one place high
        shape = [*shape[:2], 1, shape[2]]
        weight = lowerings[_aten.unsqueeze.default](weight, 2)
        stride, padding, dilation = [1, stride[0]], [0, padding[0]], [1, dilation[0]]
    sizes = [V.graph.sizevars.simplify(size) for size in (*shape, *weight.get_size())]
    if not all(isinstance(size, sympy.Integer) for size in sizes):
        return NotImplemented
    images, channels, height, width, outputs, inputs, *window = map(int, sizes)
    if inputs != channels:
        return NotImplemented
    counts = [
        (size + 2 * pad - step * (length - 1) - 1) // stride_ + 1
        for size, pad, step, length, stride_ in zip((height, width), padding, dilation, window, stride, strict=True)
    ]
    places = images * counts[0] * counts[1]
    if min(counts) <= 0 or places > _MOST_PLACES:
        return NotImplemented
    unit = stride == [1, 1]
    if (
        unit
        and dtype == torch.float32
        and few_outputs.is_narrow(images, channels, (height, width), outputs, window[0] * window[1], cpu.simd_width)
    ):
        x.realize()
        if line and images > 1 and not may_lie_last(x):
            return NotImplemented
        if line:
            x = ir.ExternKernel.require_stride_order(x, _LINE) if images > 1 else x
            x = lowerings[_aten.unsqueeze.default](x, 2)
        found = few_outputs.convolution(x, weight, bias, padding, dilation, counts)
        return lowerings[_aten.squeeze.dim](found, 2) if line else found
    choice = choose_windows(places, outputs, channels, window[0] * window[1], facts.pairs)
    of_points = window == [1, 1] and unit and not any(padding) and not line
    if choice is None and of_points and choose(places, outputs, channels, (1, channels), dtype, facts) is not None:
        return _of_points(x, weight, bias, places, [images, *counts, outputs])
    if choice is None:
        return NotImplemented
    x.realize()
    if line:
        if not may_lie_last(x):
            return NotImplemented
        x = lowerings[_aten.unsqueeze.default](ir.ExternKernel.require_stride_order(x, _LINE), 2)
    x = ir.ExternKernel.require_channels_last(x)
    weight, steps = _readable(laid_out(weight), outputs)
    constants = {
        "XBLOCK": choice.rows,
        "N_BLOCK": choice.columns,
        "BLOCK": choice.terms,
        "APART": choice.apart,
        "WHOLE_ROWS": places % choice.rows == 0,
        "WHOLE_COLUMNS": outputs % choice.columns == 0,
        "BIASED": bias is not None,
        "PADDED": any(padding),
        "PAIRS": facts.pairs,
        "W_BY_COLUMN": steps[1] == 1,
        "ALPHA": 1,
        "BETA": 1,
        "M": places,
        "N": outputs,
        "CHANNELS": channels,
        "WINDOW": window[0] * window[1],
        "WINDOW_W": window[1],
        **_by_axis("IN", (height, width)),
        **_by_axis("OUT", counts),
        **_by_axis("STRIDE", stride),
        **_by_axis("PAD", padding),
        **_by_axis("DILATION", dilation),
        **dict(zip(("W_OUT", "W_IN", "W_H", "W_W"), steps, strict=True)),
    }
    operands = flex.maybe_realize([x, weight])
    if any(padding):
        operands.append(_row_of_zeros(x.get_device(), dtype))
    if bias is not None:
        operands += flex.maybe_realize([lowerings[_aten.expand.default](bias, [places, outputs])])
    layout = ir.FixedLayout(x.get_device(), dtype, [places, outputs])
    grid = [sympy.Integer(size) for size in (places, -(-outputs // choice.columns), 1)]
    found = lowering.template(choice.kernel).append(operands, layout, grid, [], [], constants)
    found = lowerings[_aten.view.default](found, [images, *counts, outputs])
    found = lowerings[_aten.permute.default](found, [0, 3, 1, 2])
    return lowerings[_aten.squeeze.dim](found, 2) if line else found


def _of_points(x: Any, weight: Any, bias: Any, places: int, shape: list[int]) -> Any:
    """A window of one place as a product, [places, channels] x [channels, outputs]. shape: [N, H, W, outputs]."""
    x.realize()
    x = lowerings[_aten.permute.default](ir.ExternKernel.require_channels_last(x), [0, 2, 3, 1])
    rows = lowerings[_aten.view.default](x, [places, x.get_size()[3]])
    columns = lowerings[_aten.view.default](laid_out(weight), [shape[3], x.get_size()[3]])
    columns = lowerings[_aten.permute.default](columns, [1, 0])
    if bias is None:
        found = lowerings[_aten.mm.default](rows, columns)
    else:
        found = lowerings[_aten.addmm.default](bias, rows, columns)
    return lowerings[_aten.permute.default](lowerings[_aten.view.default](found, shape), [0, 3, 1, 2])


def may_lie_last(x: Any) -> bool:
    """Whether the channels of [N, C, L] are neighbours in memory, or a kernel is yet to write them.

    Where they are not, the library is as fast, and copies of input and result take longer than ours gains.
    """
    if ir.is_storage_and_layout(x):
        _, layout = ir.as_storage_and_layout(x, freeze=False)
        if isinstance(layout, ir.FlexibleLayout):
            return True
    return lowering.is_one(ir.ExternKernel.realize_input(x).get_stride()[1])


def laid_out(weight: Any) -> Any:
    """Weights in memory with strides that stay: those that the graph computes are views of values yet to be stored."""
    found = ir.ExternKernel.realize_input(weight)
    found.freeze_layout()
    return ir.TensorBox(found)  # views of views need the box, or take what the first one is of


def _readable(weight: Any, outputs: int) -> tuple[Any, list[int]]:
    """Weights whose inputs or outputs are neighbours in memory, and their strides: output, input, window's axes."""
    sizes = [int(size) for size in weight.get_size()]
    if lowering.is_one(weight.get_stride()[1]):
        return weight, [int(step) for step in weight.get_stride()]
    terms = sizes[1] * sizes[2] * sizes[3]
    flat = lowerings[_aten.reshape.default](weight, [outputs, terms])
    turned = ir.ExternKernel.require_contiguous(lowerings[_aten.permute.default](flat, [1, 0]))
    return turned, [1, sizes[2] * sizes[3] * outputs, sizes[3] * outputs, outputs]


def _row_of_zeros(device: torch.device, dtype: torch.dtype) -> Any:
    found = _zeros.get(V.graph)
    if found is None:
        found = lowerings[_aten.full.default]([_MOST_TERMS], 0.0, dtype=dtype, device=device)
        found.realize()
        _zeros[V.graph] = found
    return found


def _by_axis(name: str, values: Sequence[int]) -> dict[str, int]:
    return {f"{name}_H": values[0], f"{name}_W": values[1]}


def pair(values: Sequence[int]) -> list[int]:
    """By axis, of one number for both, or of two."""
    first, *rest = (int(V.graph.sizevars.guard_int(value)) for value in values)
    return [first, *(rest or [first])]


def is_widened(dtype: torch.dtype) -> bool:
    """Whether aten's convolutions of a 16-bit type are slower than those of float32."""
    cpu = lowering.limits()
    return cpu is not None and lowering.slow(dtype, cpu.simd_width)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """``value`` in another type."""
    return lowerings[torch.ops.prims.convert_element_type.default](value, dtype)


LOWERINGS: dict[Any, Callable[..., Any]] = {
    _aten.convolution.default: _convolution,
}
