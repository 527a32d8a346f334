"""Root mean square normalization of rows (Zhang and Sennrich, arXiv 1910.07467), also of a sum with a residual."""

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

__all__ = ["OPERATORS", "add_rms_norm", "rms_norm"]


@Kernel
def _forward(x, residual, weight, y, total, x_row, residual_row, n, eps, offset, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: y = v / sqrt(mean(v^2) + eps) * (weight + offset), v = x or total = x + residual."""
    eps = tl.cast(eps, tl.float32)
    offset = tl.cast(offset, tl.float32)
    row = tl.program_id(0).to(tl.int64)
    x += row * x_row
    y += row * n
    if residual is not None:
        residual += row * residual_row
        total += row * n
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(x + i, i < n, 0.0).to(tl.float32)
        if residual is not None:
            value += tl.load(residual + i, i < n, 0.0).to(tl.float32)
            rounded = value.to(total.dtype.element_ty)
            tl.store(total + i, rounded, i < n)
            value = rounded.to(tl.float32)
        squares += value * value
    scale = 1.0 / tl.sqrt(tl.sum(squares) / n + eps)
    source = x if residual is None else total
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(source + i, i < n, 0.0).to(tl.float32) * scale
        if weight is not None:
            value *= tl.load(weight + i, i < n, 0.0).to(tl.float32) + offset
        tl.store(y + i, value.to(y.dtype.element_ty), i < n)


@Kernel
def _backward(grad, x, weight, grad_total, grad_x, partial, grad_row, x_row, total_row,  # type: ignore[no-untyped-def]
              rows, each, n, eps, offset, BLOCK: tl.constexpr):  # fmt: skip
    """``each`` rows: grad_x, and in one row of ``partial`` their sum of the gradient of weight."""
    eps = tl.cast(eps, tl.float32)
    offset = tl.cast(offset, tl.float32)
    part = tl.program_id(0).to(tl.int64)
    if partial is not None:
        partial += part * n
    for row in range(part * each, tl.minimum(part * each + each, rows)):
        squares = tl.zeros((BLOCK,), tl.float32)
        products = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = tl.load(x + row * x_row + i, i < n, 0.0).to(tl.float32)
            given = tl.load(grad + row * grad_row + i, i < n, 0.0).to(tl.float32)
            if weight is not None:
                given *= tl.load(weight + i, i < n, 0.0).to(tl.float32) + offset
            squares += value * value
            products += value * given
        scale = 1.0 / tl.sqrt(tl.sum(squares) / n + eps)
        common = tl.sum(products) / n * scale * scale
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            value = tl.load(x + row * x_row + i, i < n, 0.0).to(tl.float32)
            given = tl.load(grad + row * grad_row + i, i < n, 0.0).to(tl.float32)
            if partial is not None:
                before = tl.load(partial + i, i < n, 0.0)
                tl.store(partial + i, before + given * (value * scale), i < n)
            if weight is not None:
                given *= tl.load(weight + i, i < n, 0.0).to(tl.float32) + offset
            found = scale * (given - value * common)
            if grad_total is not None:
                found += tl.load(grad_total + row * total_row + i, i < n, 0.0).to(tl.float32)
            tl.store(grad_x + row * n + i, found.to(grad_x.dtype.element_ty), i < n)


def _normalize(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    n = _check(x, residual, weight)
    matrix = rows_of(x)
    y = empty_like(x)
    other = rows_of(residual) if residual is not None else None
    total = empty_like(x) if other is not None else None
    scales = weight.contiguous() if weight is not None else None
    strides = matrix.stride(0), other.stride(0) if other is not None else 0
    args = (matrix, other, scales, y, total, *strides, n, eps, offset)
    launch(_forward, (matrix.shape[0], 1, 1), args, {"BLOCK": row_block(matrix)})
    return y, total


def _check(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None) -> int:
    if x.dim() == 0:
        raise ValueError("rms_norm: x has no dimension to normalize over")
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight has shape {tuple(weight.shape)}, rows of x {x.shape[-1]} elements")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"add_rms_norm: residual is {residual.dtype} {tuple(residual.shape)}, x {x.dtype} {tuple(x.shape)}"
        )
    return x.shape[-1]


def _rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float, offset: float) -> torch.Tensor:
    return _normalize(x, None, weight, eps, offset)[0]


def _add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return _normalize(x, residual, weight, eps, offset)


def _gradients(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    grad_total: torch.Tensor | None,
    eps: float,
    offset: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    n = x.shape[-1]
    given, matrix = rows_of(grad), rows_of(x)
    others = rows_of(grad_total) if grad_total is not None else None
    found = empty_like(x)
    rows = matrix.shape[0]
    parts, each = parts_of(rows)
    scales = weight.contiguous() if weight is not None else None
    partial = torch.zeros(parts, n, dtype=torch.float32, device=x.device) if weight is not None else None
    strides = given.stride(0), matrix.stride(0), others.stride(0) if others is not None else 0
    args = (given, matrix, scales, others, found, partial, *strides, rows, each, n, eps, offset)
    launch(_backward, (parts, 1, 1), args, {"BLOCK": row_block(matrix)})
    if partial is None or weight is None:
        return found, torch.empty(0, dtype=x.dtype, device=x.device)
    return found, partial.sum(0).to(weight.dtype)


_backward_op = define(
    "rms_norm_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? grad_total, float eps, float offset) -> (Tensor, Tensor)",
    _gradients,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, ctx.eps, ctx.offset = inputs
    ctx.save_for_backward(x, weight)


def _rms_norm_backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    grad_x, grad_weight = _backward_op(grad, x, weight, None, ctx.eps, ctx.offset)
    return grad_x, grad_weight if weight is not None else None, None, None


def _add_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, _, weight, ctx.eps, ctx.offset = inputs
    ctx.save_for_backward(output[1], weight)


def _add_rms_norm_backward(ctx: Any, grad: torch.Tensor, grad_total: torch.Tensor) -> tuple[Any, ...]:
    total, weight = ctx.saved_tensors
    grad_x, grad_weight = _backward_op(grad, total, weight, grad_total, ctx.eps, ctx.offset)
    return grad_x, grad_x, grad_weight if weight is not None else None, None, None


_SCHEMA = "(Tensor x, Tensor? weight, float eps, float offset) -> Tensor"
_ADD_SCHEMA = "(Tensor x, Tensor residual, Tensor? weight, float eps, float offset) -> (Tensor, Tensor)"
_call = define("rms_norm", _SCHEMA, _rms_norm, backward=_rms_norm_backward, setup=_setup)
_add_call = define("add_rms_norm", _ADD_SCHEMA, _add_rms_norm, backward=_add_rms_norm_backward, setup=_add_setup)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None = None, eps: float = 1e-6, offset: float = 0.0
) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * (weight + offset) over the last dimension, computed in float32 and rounded once.

    x: [..., n]; weight: [n], of any float dtype. offset: 1 for models that store weight - 1, as Gemma does.
    Returns a contiguous tensor of x's shape and dtype.
    """
    result: torch.Tensor = _call(x, weight, eps, offset)
    return result


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rms_norm(x + residual), x + residual), the sum rounded to x's dtype; arguments as in ``rms_norm``."""
    result: tuple[torch.Tensor, torch.Tensor] = _add_call(x, residual, weight, eps, offset)
    return result


def _reference(x: torch.Tensor, weight: torch.Tensor | None, eps: float, offset: float) -> torch.Tensor:
    y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * (weight + offset)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """Rounding errors of a mean of n squares or products; a gradient of weight is a sum over rows."""
    x, weight, eps, offset = args
    n = x.shape[-1]
    scales = 1 if weight is None else (weight + offset).abs()
    root = 1 / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    given = (grads[0] * scales).abs()
    mean = (x.abs() * given).mean(-1, keepdim=True) * root * root
    y = (x * root * scales).abs() * (added(n) / 2 + 6)
    grad_x = root * (given * (added(n) / 2 + 6) + x.abs() * mean * (2.5 * added(n) + 10))
    if weight is None:
        return y, grad_x
    terms = (grads[0] * x * root).abs().reshape(-1, max(n, 1))
    return y, grad_x, terms.sum(0) * (added(n) / 2 + added_rows(terms.shape[0]) + 6)


_add_reference, _add_bound = of_sum(_reference, _bound)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(dtype)

    yield Sample("prime sizes", (normal(7, 131), normal(131), 1e-6, 0.0))
    yield Sample("one element", (normal(1), normal(1), 1e-6, 0.0))
    yield Sample("no weight", (normal(3, 5, 64), None, 1e-5, 0.0))
    yield Sample("weight - 1 stored", (normal(2, 96), normal(96) / 8, 1e-6, 1.0))
    yield Sample("rows longer than a block", (normal(3, 5001), normal(5001), 1e-6, 0.0))
    yield Sample("more rows than parts", (normal(150, 33), normal(33), 1e-6, 0.0))
    yield Sample("no rows", (normal(0, 16), normal(16), 1e-6, 0.0))
    yield Sample("no columns", (normal(4, 0), normal(0), 1e-6, 0.0))
    yield Sample("transposed", (normal(40, 17).t(), normal(40), 1e-6, 0.0))
    yield Sample("expanded", (normal(1, 40).expand(9, 40), normal(1).expand(40), 1e-6, 0.0))
    yield Sample("every second column", (normal(6, 80)[:, ::2], normal(80)[::2], 1e-6, 0.0))
    yield Sample("columns of a wider matrix", (normal(6, 80)[:, 10:50], normal(40), 1e-6, 0.0))
    yield Sample("large values", (normal(4, 64) * 1000, normal(64), 1e-6, 0.0))


def _add_samples(dtype: torch.dtype) -> Iterator[Sample]:
    def coarse(*shape: int) -> torch.Tensor:
        return torch.randint(-16, 17, shape).to(dtype) / 8  # their sums are exact in every dtype

    for about, shape in (("prime sizes", (7, 131)), ("long rows", (2, 5001)), ("no rows", (0, 16))):
        yield Sample(about, (coarse(*shape), coarse(*shape), coarse(shape[-1]), 1e-6, 0.0))
    yield Sample("no weight", (coarse(3, 5, 64), coarse(3, 5, 64), None, 1e-5, 0.0))
    yield Sample("transposed", (coarse(40, 17).t(), coarse(17, 40), coarse(40), 1e-6, 1.0))
    yield Sample("expanded", (coarse(1, 40).expand(9, 40), coarse(9, 1).expand(9, 40), coarse(40), 1e-6, 0.0))


OPERATORS = (
    Operator(
        name="rms_norm",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "weight"),
        source="written",
        call=rms_norm,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Root mean square normalization of rows",
        by_rows=True,
    ),
    Operator(
        name="add_rms_norm",
        schema=_ADD_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "residual", "weight"),
        source="written",
        call=add_rms_norm,
        reference=_add_reference,
        bound=_add_bound,
        samples=_add_samples,
        doc="RMSNorm of a sum with a residual; returns the sum, too",
        by_rows=True,
    ),
)
