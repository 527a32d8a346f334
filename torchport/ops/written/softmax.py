"""Softmax and its logarithm over one dimension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import empty_like, row_block, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "log_softmax", "softmax"]


@Kernel
def _statistics(x, kept, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The largest element of a row, and the sum of the exponentials of what lies below it, which go to ``kept``."""
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        highest = tl.maximum(highest, tl.load(x + i, i < n, float("-inf")).to(tl.float32))
    top = tl.max(highest)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        share = tl.exp(tl.load(x + i, i < n, float("-inf")).to(tl.float32) - top)
        if kept is not None:
            tl.store(kept + i, share, i < n)
        total += share
    return top, tl.sum(total)


@Kernel
def _forward(x, y, x_row, n, LOG: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row. ``KEEP``: y holds the exponentials first."""
    row = tl.program_id(0).to(tl.int64)
    x += row * x_row
    y += row * n
    if KEEP:
        top, total = _statistics(x, y, n, BLOCK)
    else:
        top, total = _statistics(x, None, n, BLOCK)
    factor, shift = 1.0 / total, tl.log(total)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        if KEEP:
            found = tl.load(y + i, i < n, 0.0) * factor
        else:
            value = tl.load(x + i, i < n, 0.0).to(tl.float32) - top
            found = value - shift if LOG else tl.exp(value) * factor
        tl.store(y + i, found.to(y.dtype.element_ty), i < n)


@Kernel
def _backward(grad, x, found, grad_row, x_row, n, LOG: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row of the gradient, from probabilities computed once more: those that were stored are rounded."""
    row = tl.program_id(0).to(tl.int64)
    x += row * x_row
    grad += row * grad_row
    top, total = _statistics(x, None, n, BLOCK)
    factor = 1.0 / total
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        given = tl.load(grad + i, i < n, 0.0).to(tl.float32)
        if not LOG:
            given *= tl.exp(tl.load(x + i, i < n, 0.0).to(tl.float32) - top) * factor
        sums += given
    common = tl.sum(sums)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        given = tl.load(grad + i, i < n, 0.0).to(tl.float32)
        share = tl.exp(tl.load(x + i, i < n, 0.0).to(tl.float32) - top) * factor
        slope = given - share * common if LOG else share * (given - common)
        tl.store(found + row * n + i, slope.to(found.dtype.element_ty), i < n)


def _apply(x: torch.Tensor, log: bool) -> torch.Tensor:
    matrix, y, n = rows_of(x), empty_like(x), x.shape[-1]
    keep = not log and y.dtype == torch.float32  # exponentials are computed once, where that loses no bits
    constants = {"LOG": log, "KEEP": keep, "BLOCK": row_block(matrix)}
    launch(_forward, (matrix.shape[0], 1, 1), (matrix, y, matrix.stride(0), n), constants)
    return y


def _gradient(grad: torch.Tensor, x: torch.Tensor, log: bool) -> torch.Tensor:
    given, matrix, found, n = rows_of(grad), rows_of(x), empty_like(x), x.shape[-1]
    args = (given, matrix, found, given.stride(0), matrix.stride(0), n)
    launch(_backward, (matrix.shape[0], 1, 1), args, {"LOG": log, "BLOCK": row_block(matrix)})
    return found


def _setup(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


_SCHEMA = "(Tensor x) -> Tensor"
_softmax_gradient = define(
    "softmax_backward", "(Tensor grad, Tensor x) -> Tensor", lambda grad, x: _gradient(grad, x, False)
)
_log_gradient = define(
    "log_softmax_backward", "(Tensor grad, Tensor x) -> Tensor", lambda grad, x: _gradient(grad, x, True)
)
_softmax = define(
    "softmax",
    _SCHEMA,
    lambda x: _apply(x, False),
    backward=lambda ctx, grad: _softmax_gradient(grad, *ctx.saved_tensors),
    setup=_setup,
)
_log_softmax = define(
    "log_softmax",
    _SCHEMA,
    lambda x: _apply(x, True),
    backward=lambda ctx, grad: _log_gradient(grad, *ctx.saved_tensors),
    setup=_setup,
)


def _along(call: Any, x: torch.Tensor, dim: int) -> torch.Tensor:
    """``call`` over dimension ``dim``: the operators know the last one."""
    if x.dim() == 0:
        return _along(call, x.unsqueeze(0), 0).squeeze(0)
    if dim in (-1, x.dim() - 1):
        result: torch.Tensor = call(x)
        return result
    found: torch.Tensor = call(x.movedim(dim, -1)).movedim(-1, dim)
    return found


def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """exp(x) / sum(exp(x)) over ``dim``, computed in float32 and rounded once to x's dtype."""
    return _along(_softmax, x, dim)


def log_softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """x - log(sum(exp(x))) over ``dim``, computed in float32 and rounded once to x's dtype."""
    return _along(_log_softmax, x, dim)


def _bound(x: torch.Tensor, dim: int, grad: torch.Tensor, log: bool) -> Tensors:
    """exp and log are given 2 units, exp also the error of its argument, a difference from the largest element."""
    if x.numel() == 0:
        return x, x
    n, share = x.shape[dim] if x.dim() else 1, torch.softmax(x, dim)
    below = (x - x.amax(dim, keepdim=True)).abs()
    total = added(n) + 3 + (share * below).sum(dim, keepdim=True)  # the sum of exponentials, relative
    wide = below + total + 5
    if log:
        y = torch.log_softmax(x, dim).abs()
        common = grad.sum(dim, keepdim=True).abs() * wide + grad.abs().sum(dim, keepdim=True) * added(n)
        return below + total + 3 * (y + below), grad.abs() + share * common
    common = (grad.abs() * share * (wide + added(n))).sum(dim, keepdim=True)
    sums = (grad.abs() * share).sum(dim, keepdim=True)
    return share * wide, share * ((grad.abs() + sums) * (wide + 3) + common)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 3).to(dtype)

    yield Sample("prime sizes", (normal(7, 131), -1))
    yield Sample("first of three dimensions", (normal(5, 3, 17), 0))
    yield Sample("rows longer than a block", (normal(3, 5001), 1))
    yield Sample("one number", (normal(), 0))
    yield Sample("no rows", (normal(0, 16), -1))
    yield Sample("no columns", (normal(4, 0), -1))
    yield Sample("transposed", (normal(40, 17).t(), -1))
    yield Sample("expanded", (normal(1, 40).expand(9, 40), -1))
    yield Sample("far apart", (normal(5, 64) * 10 + 100, -1))


OPERATORS = tuple(
    Operator(
        name=call.__name__,
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x",),
        source="written",
        call=call,
        reference=reference,
        bound=bound,
        samples=_samples,
        doc=doc,
        by_rows=True,
    )
    for call, reference, bound, doc in (
        (softmax, torch.softmax, lambda args, grads, _: _bound(args[0], args[1], grads[0], False), "Softmax"),
        (
            log_softmax,
            torch.log_softmax,
            lambda args, grads, _: _bound(args[0], args[1], grads[0], True),
            "Logarithm of softmax",
        ),
    )
)
