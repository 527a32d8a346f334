"""Layer normalization of rows (Ba, Kiros and Hinton, arXiv 1607.06450), also of a sum with a residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import empty_like, parts_of, row_block, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, added_rows, define, of_sum

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "add_layer_norm", "layer_norm"]


@Kernel
def _statistics(x, n, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean of a row, and 1 / its standard deviation from the deviations themselves: no difference of squares."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(x + i, i < n, 0.0).to(tl.float32)
    mean = tl.sum(total) / n
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        away = tl.where(i < n, tl.load(x + i, i < n, 0.0).to(tl.float32) - mean, 0.0)
        squares += away * away
    return mean, 1.0 / tl.sqrt(tl.sum(squares) / n + tl.cast(eps, tl.float32))


@Kernel
def _forward(x, residual, weight, bias, y, total, x_row, residual_row, n, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: y = (v - mean(v)) / sqrt(var(v) + eps) * weight + bias, v = x or total = x + residual."""
    row = tl.program_id(0).to(tl.int64)
    x += row * x_row
    y += row * n
    if residual is not None:
        residual += row * residual_row
        total += row * n
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = tl.load(x + i, i < n, 0.0).to(tl.float32) + tl.load(residual + i, i < n, 0.0).to(tl.float32)
            tl.store(total + i, value.to(total.dtype.element_ty), i < n)
    source = x if residual is None else total
    mean, scale = _statistics(source, n, eps, BLOCK)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = (tl.load(source + i, i < n, 0.0).to(tl.float32) - mean) * scale
        if weight is not None:
            value *= tl.load(weight + i, i < n, 0.0).to(tl.float32)
        if bias is not None:
            value += tl.load(bias + i, i < n, 0.0).to(tl.float32)
        tl.store(y + i, value.to(y.dtype.element_ty), i < n)


@Kernel
def _backward(grad, x, weight, grad_total, grad_x, scales, shifts, grad_row, x_row, total_row,  # type: ignore[no-untyped-def]
              rows, each, n, eps, BLOCK: tl.constexpr):  # fmt: skip
    """``each`` rows: grad_x, and in one row of ``scales`` and of ``shifts`` their sums of the gradients of weight and
    bias.
    """
    part = tl.program_id(0).to(tl.int64)
    if scales is not None:
        scales += part * n
    if shifts is not None:
        shifts += part * n
    for row in range(part * each, tl.minimum(part * each + each, rows)):
        mean, scale = _statistics(x + row * x_row, n, eps, BLOCK)
        sums = tl.zeros((BLOCK,), tl.float32)
        products = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = (tl.load(x + row * x_row + i, i < n, 0.0).to(tl.float32) - mean) * scale
            given = tl.load(grad + row * grad_row + i, i < n, 0.0).to(tl.float32)
            if weight is not None:
                given *= tl.load(weight + i, i < n, 0.0).to(tl.float32)
            sums += given
            products += value * given
        shift = tl.sum(sums) / n
        common = tl.sum(products) / n
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = (tl.load(x + row * x_row + i, i < n, 0.0).to(tl.float32) - mean) * scale
            given = tl.load(grad + row * grad_row + i, i < n, 0.0).to(tl.float32)
            if scales is not None:
                tl.store(scales + i, tl.load(scales + i, i < n, 0.0) + given * value, i < n)
            if shifts is not None:
                tl.store(shifts + i, tl.load(shifts + i, i < n, 0.0) + given, i < n)
            if weight is not None:
                given *= tl.load(weight + i, i < n, 0.0).to(tl.float32)
            found = scale * (given - shift - value * common)
            if grad_total is not None:
                found += tl.load(grad_total + row * total_row + i, i < n, 0.0).to(tl.float32)
            tl.store(grad_x + row * n + i, found.to(grad_x.dtype.element_ty), i < n)


_Optional = torch.Tensor | None


def _normalize(
    x: torch.Tensor, residual: _Optional, weight: _Optional, bias: _Optional, eps: float
) -> tuple[torch.Tensor, _Optional]:
    if x.dim() == 0:
        raise ValueError("layer_norm: x has no dimension to normalize over")
    for name, one in (("weight", weight), ("bias", bias)):
        if one is not None and one.shape != x.shape[-1:]:
            raise ValueError(f"layer_norm: {name} has shape {tuple(one.shape)}, rows of x {x.shape[-1]} elements")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"add_layer_norm: residual is {residual.dtype} {tuple(residual.shape)}, x {x.dtype} {tuple(x.shape)}"
        )
    n, matrix, y = x.shape[-1], rows_of(x), empty_like(x)
    other = rows_of(residual) if residual is not None else None
    total = empty_like(x) if other is not None else None
    scales = weight.contiguous() if weight is not None else None
    shifts = bias.contiguous() if bias is not None else None
    strides = matrix.stride(0), other.stride(0) if other is not None else 0
    args = (matrix, other, scales, shifts, y, total, *strides, n, eps)
    launch(_forward, (matrix.shape[0], 1, 1), args, {"BLOCK": row_block(matrix)})
    return y, total


def _layer_norm(x: torch.Tensor, weight: _Optional, bias: _Optional, eps: float) -> torch.Tensor:
    return _normalize(x, None, weight, bias, eps)[0]


def _gradients(
    grad: torch.Tensor, x: torch.Tensor, weight: _Optional, grad_total: _Optional, biased: bool, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, given, matrix, found = x.shape[-1], rows_of(grad), rows_of(x), empty_like(x)
    others = rows_of(grad_total) if grad_total is not None else None
    rows = matrix.shape[0]
    parts, each = parts_of(rows)
    scales = torch.zeros(parts if weight is not None else 0, n, dtype=torch.float32, device=x.device)
    shifts = torch.zeros(parts if biased else 0, n, dtype=torch.float32, device=x.device)
    strides = given.stride(0), matrix.stride(0), others.stride(0) if others is not None else 0
    factors = weight.contiguous() if weight is not None else None
    sums = scales if weight is not None else None, shifts if biased else None
    args = (given, matrix, factors, others, found, *sums, *strides, rows, each, n, eps)
    launch(_backward, (parts, 1, 1), args, {"BLOCK": row_block(matrix)})
    return found, scales.sum(0), shifts.sum(0)


_backward_op = define(
    "layer_norm_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? grad_total, bool biased, float eps) -> (Tensor, Tensor, Tensor)",
    _gradients,
)


def _differentiate(
    grad: torch.Tensor, x: torch.Tensor, weight: _Optional, bias: _Optional, total: _Optional, eps: float
) -> tuple[Any, ...]:
    grad_x, scales, shifts = _backward_op(grad, x, weight, total, bias is not None, eps)
    return (
        grad_x,
        scales.to(weight.dtype) if weight is not None else None,
        shifts.to(bias.dtype) if bias is not None else None,
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias)


def _layer_norm_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, weight, bias = ctx.saved_tensors
    return *_differentiate(grad, x, weight, bias, None, ctx.eps), None


def _add_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, _, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(output[1], weight, bias)


def _add_layer_norm_backward(ctx: Any, grad: torch.Tensor, grad_total: torch.Tensor) -> tuple[Any, ...]:
    total, weight, bias = ctx.saved_tensors
    grad_x, *others = _differentiate(grad, total, weight, bias, grad_total, ctx.eps)
    return grad_x, grad_x, *others, None


_SCHEMA = "(Tensor x, Tensor? weight, Tensor? bias, float eps) -> Tensor"
_ADD_SCHEMA = "(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor)"
_call = define("layer_norm", _SCHEMA, _layer_norm, backward=_layer_norm_backward, setup=_setup)
_add_call = define("add_layer_norm", _ADD_SCHEMA, _normalize, backward=_add_layer_norm_backward, setup=_add_setup)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None, eps: float = 1e-5
) -> torch.Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last dimension, computed in float32, rounded once.

    x: [..., n]; weight, bias: [n], of any float dtype. Returns a contiguous tensor of x's shape and dtype.
    """
    result: torch.Tensor = _call(x, weight, bias, eps)
    return result


def add_layer_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(layer_norm(x + residual), x + residual), the sum rounded to x's dtype; arguments as in ``layer_norm``."""
    result: tuple[torch.Tensor, torch.Tensor] = _add_call(x, residual, weight, bias, eps)
    return result


def _reference(x: torch.Tensor, weight: _Optional, bias: _Optional, eps: float) -> torch.Tensor:
    away = x - x.mean(-1, keepdim=True)
    y = away / torch.sqrt((away * away).mean(-1, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """Errors of the mean (``off``), of 1 / the standard deviation (``root``, relative) and of a normalized value
    (``value``); the last two for what the first does to them.
    """
    x, weight, bias, eps = args
    n, grad = x.shape[-1], grads[0]
    away = (x - x.mean(-1, keepdim=True)).abs()
    variance = (away * away).mean(-1, keepdim=True) + eps
    scale = 1 / torch.sqrt(variance)
    off = added(n) * x.abs().mean(-1, keepdim=True)
    root = added(n) / 2 + 5 + off * off * 2.0**-24 / (2 * variance)
    value = scale * (off + away * (root + 3))
    given = (grad if weight is None else grad * weight).abs()
    factor = torch.ones(()) if weight is None else weight.abs()
    shift = torch.zeros(()) if bias is None else bias.abs()
    y = factor * (value + away * scale) + shift + factor * away * scale
    mean, common = given.mean(-1, keepdim=True), (given * away * scale).mean(-1, keepdim=True)
    terms = given + mean + away * scale * common
    error = (given * value).mean(-1, keepdim=True) + (added(n) + 2) * common
    grad_x = scale * ((root + 4) * terms + (added(n) + 2) * mean + value * common + away * scale * error)
    found, rows = [y, grad_x], x[..., 0].numel() if n else 0
    if weight is not None:
        terms = (grad.abs() * (value + away * scale * (added_rows(rows) + 1))).reshape(-1, max(n, 1))
        found.append(terms.sum(0).reshape(weight.shape) if n else weight)
    if bias is not None:
        found.append(grad.abs().reshape(-1, max(n, 1)).sum(0) * added_rows(rows) if n else bias)
    return tuple(found)


_add_reference, _add_bound = of_sum(_reference, _bound)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(dtype)

    yield Sample("prime sizes", (normal(7, 131), normal(131), normal(131), 1e-5))
    yield Sample("no bias", (normal(3, 5, 64), normal(64), None, 1e-5))
    yield Sample("no weight", (normal(3, 64), None, None, 1e-5))
    yield Sample("far from zero", (normal(5, 96) + 50, normal(96), normal(96), 1e-5))
    yield Sample("rows longer than a block", (normal(3, 5001), normal(5001), normal(5001), 1e-5))
    yield Sample("more rows than parts", (normal(150, 33), normal(33), normal(33), 1e-5))
    yield Sample("no rows", (normal(0, 16), normal(16), normal(16), 1e-5))
    yield Sample("no columns", (normal(4, 0), normal(0), normal(0), 1e-5))
    yield Sample("transposed", (normal(40, 17).t(), normal(40), normal(40), 1e-5))
    yield Sample("expanded", (normal(1, 40).expand(9, 40), normal(1).expand(40), normal(40), 1e-5))
    yield Sample("every second column", (normal(6, 80)[:, ::2], normal(80)[::2], normal(40), 1e-5))


def _add_samples(dtype: torch.dtype) -> Iterator[Sample]:
    def coarse(*shape: int) -> torch.Tensor:
        return torch.randint(-16, 17, shape).to(dtype) / 8  # their sums are exact in every dtype

    for about, shape in (("prime sizes", (7, 131)), ("long rows", (2, 5001)), ("no rows", (0, 16))):
        yield Sample(about, (coarse(*shape), coarse(*shape), coarse(shape[-1]), coarse(shape[-1]), 1e-5))
    yield Sample("no weight", (coarse(3, 5, 64), coarse(3, 5, 64), None, None, 1e-5))
    yield Sample("transposed", (coarse(40, 17).t(), coarse(17, 40), coarse(40), coarse(40), 1e-5))


OPERATORS = (
    Operator(
        name="layer_norm",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "weight", "bias"),
        source="written",
        call=layer_norm,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Layer normalization of rows",
        by_rows=True,
    ),
    Operator(
        name="add_layer_norm",
        schema=_ADD_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "residual", "weight", "bias"),
        source="written",
        call=add_layer_norm,
        reference=_add_reference,
        bound=_add_bound,
        samples=_add_samples,
        doc="LayerNorm of a sum with a residual; returns the sum, too",
        by_rows=True,
    ),
)
