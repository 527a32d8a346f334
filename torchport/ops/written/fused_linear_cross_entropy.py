"""Cross entropy of a linear layer's results that never holds all of them: rows go through in chunks.

As Liger Kernel's (arXiv 2410.10989, section 3.2), but gradients are computed in the backward pass, from logits computed
once more: so losses of single rows have gradients, inference computes none, and nothing is kept but a number a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define
from torchport.ops.written import cross_entropy as plain

__all__ = ["OPERATORS", "fused_linear_cross_entropy"]

_ELEMENTS = 1 << 22
"""Logits that are held at a time."""


def _chunk(rows: int, classes: int) -> int:
    return max(1, min(rows, max(16, _ELEMENTS // max(classes, 1))))


def _logits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def _losses(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    ignored: int,
    smoothing: float,
    penalty: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"fused_linear_cross_entropy: x has shape {tuple(x.shape)}, weight {tuple(weight.shape)}; "
            "they must be [rows, size] and [classes, size]"
        )
    size = _chunk(x.shape[0], weight.shape[0])
    found = [
        plain.losses_of(_logits(rows, weight, bias), wanted, ignored, smoothing, penalty)
        for rows, wanted in zip(x.split(size), target.split(size), strict=True)
    ]
    losses, sums = zip(*found, strict=True)
    return torch.cat(losses), torch.cat(sums)


def _gradients(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    sums: torch.Tensor,
    ignored: int,
    smoothing: float,
    penalty: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of x, weight and bias; the last two are added up over chunks in float32."""
    size = _chunk(x.shape[0], weight.shape[0])
    grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    grad_bias = torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device)
    found = []
    chunks = zip(grad.split(size), x.split(size), target.split(size), sums.split(size), strict=True)
    for given, rows, wanted, whole in chunks:
        slopes = plain.gradient(given, _logits(rows, weight, bias), wanted, whole, ignored, smoothing, penalty)
        found.append(slopes @ weight)
        grad_weight += slopes.t() @ rows
        grad_bias += slopes.sum(0, dtype=torch.float32)
    return torch.cat(found), grad_weight.to(weight.dtype), grad_bias.to(x.dtype if bias is None else bias.dtype)


_OPTIONS = "int ignored, float smoothing, float penalty"
_SCHEMA = f"(Tensor x, Tensor weight, Tensor? bias, Tensor target, {_OPTIONS}) -> (Tensor, Tensor)"
_backward_op = define(
    "fused_linear_cross_entropy_backward",
    f"(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor target, Tensor sums, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor)",
    _gradients,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ignored, smoothing, penalty = inputs
    ctx.options = ignored, smoothing, penalty
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    x, weight, bias, target, sums = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward_op(grad, x, weight, bias, target, sums, *ctx.options)
    return grad_x, grad_weight, grad_bias if bias is not None else None, None, None, None, None


_call = define("fused_linear_cross_entropy", _SCHEMA, _losses, backward=_backward, setup=_setup)


def fused_linear_cross_entropy(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """``cross_entropy(linear(x, weight, bias), target, ...)`` with at most 4 million logits in memory at a time.

    x: [rows, size]; weight: [classes, size]; bias: [classes]; target: [rows]. Logits are rounded to x's dtype, as a
    linear layer's results are. Options and errors as in ``cross_entropy``.
    """
    losses = _call(x, weight, bias, target, ignore_index, label_smoothing, z_loss)[0]
    return plain.reduce(losses, target, ignore_index, reduction)


def _reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *rest: Any) -> torch.Tensor:
    losses: torch.Tensor = plain.OPERATORS[0].reference(_logits(x, weight, bias), *rest)
    return losses


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """That of cross entropy, and what errors of logits do: a loss moves by at most twice the largest of them.

    Logits have the error of a sum over the size; in 16 bits also that of one rounding, as have the slopes.
    """
    x, weight, bias, target, ignored, smoothing, penalty, reduction = args
    logits, rows = _logits(x, weight, bias), x.shape[0]
    losses, slopes = plain.OPERATORS[0].bound((logits, target, *args[4:]), grads, rounded)
    narrow = rounded if rounded > 1 else 0.0
    off = _logits(x.abs(), weight.abs(), bias.abs() if bias is not None else None) * added(x.shape[1])
    off = (off + logits.abs() * narrow).amax(1) if off.numel() else off.sum(1)
    kept = target != ignored
    moved = off * (2 + 4 * penalty * torch.logsumexp(logits, 1).abs()) * kept
    factor = grads[0].abs() / (kept.sum() if reduction == "mean" else 1)
    wanted = torch.nn.functional.one_hot(torch.where(kept, target, 0).long(), weight.shape[0])
    steepness = (1 + 2 * penalty * torch.logsumexp(logits, 1).abs())[:, None]
    exact = torch.softmax(logits, 1) * steepness + wanted + smoothing / weight.shape[0]
    exact = exact * (factor * kept).reshape(-1, 1)
    least = 0.5 if rounded == 2.0**13 else 0.0  # float16's smallest number is 1 unit
    slopes = slopes + exact * (2 * off[:, None] + narrow) + least
    total = losses + (moved if reduction == "none" else moved.sum() / (kept.sum() if reduction == "mean" else 1))
    terms = exact.t() @ x.abs()
    found = [
        total,
        slopes @ weight.abs() + exact @ weight.abs() * (added(weight.shape[0]) + narrow),
        slopes.t() @ x.abs() + terms * (added(rows) + narrow),
    ]
    return (*found, slopes.sum(0) + exact.sum(0) * added(rows)) if bias is not None else tuple(found)


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    def target(rows: int, classes: int) -> torch.Tensor:
        return torch.randint(0, classes, (rows,))

    some = target(7, 131)
    some[2] = -100
    yield Sample("prime sizes, one ignored", (normal(7, 13), normal(131, 13), None, some, -100, 0.0, 0.0, "mean"))
    yield Sample("bias, smoothed, z-loss", (normal(7, 13), normal(131, 13), normal(131), some, -100, 0.1, 1e-3, "mean"))
    yield Sample("none", (normal(7, 13), normal(131, 13), normal(131), some, -100, 0.0, 0.0, "none"))
    many = 1 << 17
    yield Sample("several chunks", (normal(40, 2), normal(many, 2), None, target(40, many), -100, 0.0, 0.0, "sum"))
    yield Sample("transposed", (normal(16, 9).t(), normal(16, 33).t(), None, target(9, 33), -100, 0.0, 0.0, "sum"))


OPERATORS = (
    Operator(
        name="fused_linear_cross_entropy",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("x", "weight", "bias"),
        source="written",
        call=fused_linear_cross_entropy,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Cross entropy of a linear layer, in chunks of rows",
    ),
)
