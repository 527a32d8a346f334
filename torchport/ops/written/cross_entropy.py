"""Cross entropy of rows of logits with ignored targets, label smoothing and z-loss, without a matrix of probabilities.

z-loss is a penalty on the logarithm of the softmax's sum (Chowdhery et al., PaLM, arXiv 2204.02311, section 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import block_for, empty_like, row_block, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "cross_entropy", "losses_of", "reduce"]


@Kernel
def _forward(logits, target, losses, sums, row_stride, n, ignored, smoothing, penalty, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row's loss, and the logarithm of its sum of exponentials."""
    smoothing = tl.cast(smoothing, tl.float32)
    penalty = tl.cast(penalty, tl.float32)
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    plain = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(logits + i, i < n, float("-inf")).to(tl.float32)
        highest = tl.maximum(highest, value, propagate_nan=tl.PropagateNan.ALL)
        plain += tl.where(i < n, value, 0.0)
    top = tl.max(highest)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        value = tl.load(logits + i, i < n, float("-inf")).to(tl.float32)
        total += tl.exp(value - top)
    whole = top + tl.log(tl.sum(total))
    wanted = tl.load(target + row).to(tl.int64)
    known = (wanted >= 0) & (wanted < n)
    tl.device_assert(known | (wanted == ignored), "cross_entropy: a target is not a column of the logits")
    value = tl.load(logits + tl.where(known, wanted, 0), known, float("nan")).to(tl.float32)
    loss = (whole - value) * (1.0 - smoothing) + penalty * whole * whole
    if smoothing > 0.0:
        loss += smoothing * (whole - tl.sum(plain) / n)
    tl.store(losses + row, tl.where(wanted == ignored, 0.0, loss))
    tl.store(sums + row, whole)


@Kernel
def _backward(grad, logits, target, sums, found, grad_row, row_stride, n, ignored, smoothing, penalty,  # type: ignore[no-untyped-def]
              BLOCK: tl.constexpr):  # fmt: skip
    """A block of a row: ``found`` = the gradient of the row's loss with respect to its logits, times ``grad``."""
    smoothing = tl.cast(smoothing, tl.float32)
    penalty = tl.cast(penalty, tl.float32)
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    wanted = tl.load(target + row).to(tl.int64)
    whole = tl.load(sums + row)
    value = tl.load(logits + row * row_stride + i, i < n, 0.0).to(tl.float32)
    slope = tl.exp(value - whole) * (1.0 + 2.0 * penalty * whole) - smoothing / n
    slope -= tl.where(i == wanted, 1.0 - smoothing, 0.0)
    slope = tl.where(wanted == ignored, 0.0, slope * tl.load(grad + row * grad_row))
    tl.store(found + row * n + i, slope.to(found.dtype.element_ty), i < n)


def losses_of(
    logits: torch.Tensor, target: torch.Tensor, ignored: int, smoothing: float, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each row, 0 where its target is ignored, and the logarithm of its sum of exponentials: float32."""
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: logits have shape {tuple(logits.shape)}, target {tuple(target.shape)}; "
            "they must be [rows, classes] and [rows]"
        )
    if target.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"cross_entropy: target is {target.dtype}; it must be int64 or int32")
    rows, n = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    sums = torch.empty_like(losses)
    matrix = rows_of(logits)
    args = (matrix, target.contiguous(), losses, sums, matrix.stride(0), n, ignored, smoothing, penalty)
    launch(_forward, (rows, 1, 1), args, {"BLOCK": row_block(matrix)})
    return losses, sums


def _gradient(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    sums: torch.Tensor,
    ignored: int,
    smoothing: float,
    penalty: float,
) -> torch.Tensor:
    rows, n = logits.shape
    matrix, found, block = rows_of(logits), empty_like(logits), block_for(n)
    strides = grad.stride(0), matrix.stride(0)
    args = (grad, matrix, target.contiguous(), sums, found, *strides, n, ignored, smoothing, penalty)
    launch(_backward, (-(-n // block), rows, 1), args, {"BLOCK": block})
    return found


gradient = define(
    "cross_entropy_backward",
    "(Tensor grad, Tensor logits, Tensor target, Tensor sums, int ignored, float smoothing, float penalty) -> Tensor",
    _gradient,
)
"""The gradient with respect to logits, given those of the losses."""


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target, *ctx.options = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, target, output[1])


def _cross_entropy_backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    return gradient(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


_SCHEMA = "(Tensor logits, Tensor target, int ignored, float smoothing, float penalty) -> (Tensor, Tensor)"
_call = define("cross_entropy", _SCHEMA, losses_of, backward=_cross_entropy_backward, setup=_setup)


def reduce(losses: torch.Tensor, target: torch.Tensor, ignored: int, reduction: str) -> torch.Tensor:
    """``losses`` as they are ("none"), their "sum", or their "mean" over targets that are not ignored."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction != "mean":
        raise ValueError(f"reduction is {reduction!r}; it must be mean, sum or none")
    return losses.sum() / (target != ignored).sum()


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross entropy of ``logits`` [rows, classes] and ``target`` [rows]: float32, computed in float32.

    z_loss: factor of the square of log(sum(exp(logits))), which is added to each loss.
    reduction: "mean" (over targets that are not ``ignore_index``), "sum" or "none".
    A target that is no class raises KernelAssertionError.
    """
    return reduce(_call(logits, target, ignore_index, label_smoothing, z_loss)[0], target, ignore_index, reduction)


def _reference(
    logits: torch.Tensor, target: torch.Tensor, ignored: int, smoothing: float, penalty: float, reduction: str
) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits, target.long(), ignore_index=ignored, label_smoothing=smoothing, reduction="none"
    )
    if penalty:
        losses = losses + torch.where(target == ignored, 0.0, penalty * torch.logsumexp(logits, 1) ** 2)
    return reduce(losses, target, ignored, reduction)


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    """exp is given 2 units and the error of its argument, log 2; a mean divides by an exact count."""
    logits, target, ignored, smoothing, penalty, reduction = args
    (rows, n), kept = logits.shape, target != ignored
    top = logits.abs().amax(1) if n else logits.new_zeros(rows)
    whole = torch.logsumexp(logits, 1).abs()
    spread = (logits - logits.amax(1, keepdim=True)).abs() if n else logits
    weights = torch.softmax(logits, 1)
    sums = added(n) + 3 + (weights * spread).sum(1) + 2 * whole + top  # of the logarithm of the sum
    losses = sums + 3 * (whole + top) + penalty * (2 * whole * sums + 3 * whole**2)
    losses = torch.where(kept, losses + smoothing * added(n) * logits.abs().mean(1), 0.0)
    bigger = weights * (1 + 2 * penalty * whole)[:, None]
    slopes = bigger * (sums[:, None] + (logits - torch.logsumexp(logits, 1)[:, None]).abs() + 8) + 4 * smoothing / n
    slopes = slopes + 4 * torch.nn.functional.one_hot(torch.where(kept, target, 0).long(), n)
    factor = grads[0] if reduction == "none" else grads[0] / kept.sum() if reduction == "mean" else grads[0]
    gradient = torch.where(kept[:, None], slopes, 0.0) * factor.abs().reshape(-1, 1)
    if reduction == "none":
        return losses, gradient
    count = kept.sum() if reduction == "mean" else 1
    magnitude = torch.nn.functional.cross_entropy(logits, torch.where(kept, target, 0).long(), reduction="none").abs()
    magnitude = (magnitude + penalty * whole**2 + smoothing * (whole + logits.abs().mean(1))) * kept
    return (losses.sum() + magnitude.sum() * added(rows) + magnitude.sum()) / count, gradient


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def logits(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 3).to(dtype)

    def target(rows: int, classes: int) -> torch.Tensor:
        return torch.randint(0, classes, (rows,))

    some = target(7, 131)
    some[2] = -100
    yield Sample("prime sizes, one ignored", (logits(7, 131), some, -100, 0.0, 0.0, "mean"))
    yield Sample("smoothed, z-loss", (logits(7, 131), some.int(), -100, 0.1, 1e-3, "mean"))
    yield Sample("sum", (logits(150, 20), target(150, 20), 3, 0.0, 0.0, "sum"))
    yield Sample("none", (logits(7, 131), some, -100, 0.2, 1e-2, "none"))
    yield Sample("many classes", (logits(3, 10007), target(3, 10007), -100, 0.0, 0.0, "mean"))
    yield Sample("one class", (logits(4, 1), target(4, 1), -100, 0.0, 0.0, "none"))
    yield Sample("no rows", (logits(0, 5), target(0, 5), -100, 0.0, 0.0, "sum"))
    yield Sample("transposed", (logits(40, 17).t(), target(17, 40), -100, 0.0, 0.0, "mean"))
    yield Sample("expanded", (logits(1, 40).expand(9, 40), target(1, 40).expand(9), -100, 0.0, 0.0, "none"))
    yield Sample("large logits", (logits(5, 64) * 30, target(5, 64), -100, 0.0, 0.0, "none"))


OPERATORS = (
    Operator(
        name="cross_entropy",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("logits",),
        source="written",
        call=cross_entropy,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Cross entropy: ignored targets, label smoothing, z-loss; mean, sum or each row's",
        by_rows=True,
    ),
)
