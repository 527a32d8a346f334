"""Routing of tokens to experts: the k largest logits of each row, and their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from torchport.ops.kernel import Kernel
from torchport.ops.launch import launch
from torchport.ops.layout import MAX_BLOCK, block_for, empty_like, rows_of
from torchport.ops.registry import FLOATS, Operator, Sample, Tensors, added, define

if TYPE_CHECKING:
    import triton.language as tl

__all__ = ["OPERATORS", "router_topk"]


@Kernel
def _scores(value, inside, SIGMOID: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each expert's score; and for sigmoids, 1 - score."""
    if SIGMOID:
        small = tl.exp(-tl.abs(value))
        near, far = 1.0 / (1.0 + small), small / (1.0 + small)
        return tl.where(inside, tl.where(value < 0, far, near), 0.0), tl.where(value < 0, near, far)
    share = tl.where(inside, tl.exp(value - tl.max(value)), 0.0)
    share = share / tl.sum(share)
    return share, share


@Kernel
def _forward(logits, weights, indices, row_stride, n, k, SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr,  # type: ignore[no-untyped-def]
             BLOCK: tl.constexpr, CHOSEN: tl.constexpr):  # fmt: skip
    """One token. Experts are chosen by their logits, so that rounding of scores changes no choice; ties: the first."""
    row = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, BLOCK), tl.arange(0, CHOSEN)
    value = tl.load(logits + row * row_stride + i, i < n, float("-inf")).to(tl.float32)
    score, _ = _scores(value, i < n, SIGMOID)
    left = tl.where(i < n, 1, 0)
    found = tl.zeros((CHOSEN,), tl.float32)
    places = tl.zeros((CHOSEN,), tl.int64)
    for step in range(0, k):
        best = tl.max(tl.where(left > 0, value, float("-inf")))
        place = tl.min(tl.where((left > 0) & (value >= best), i, BLOCK))
        place = tl.where(place < n, place, tl.min(tl.where(left > 0, i, BLOCK)))  # a row of NaN
        found = tl.where(j == step, tl.sum(tl.where(i == place, score, 0.0)), found)
        places = tl.where(j == step, place.to(tl.int64), places)
        left = tl.where(i == place, 0, left)
    if NORMALIZE:
        found = found / tl.sum(found)
    tl.store(weights + row * k + j, found, j < k)
    tl.store(indices + row * k + j, places, j < k)


@Kernel
def _backward(grad, logits, indices, found, grad_row, row_stride, n, k, SIGMOID: tl.constexpr,  # type: ignore[no-untyped-def]
              NORMALIZE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One token's gradient of its logits."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    value = tl.load(logits + row * row_stride + i, i < n, float("-inf")).to(tl.float32)
    score, away = _scores(value, i < n, SIGMOID)
    given = tl.zeros((BLOCK,), tl.float32)
    chosen = tl.zeros((BLOCK,), tl.float32)
    for step in range(0, k):
        place = tl.load(indices + row * k + step)
        given = tl.where(i == place, tl.load(grad + row * grad_row + step), given)
        chosen = tl.where(i == place, 1.0, chosen)
    weight = score
    if NORMALIZE:
        weight = score / tl.sum(score * chosen)
    common = tl.sum(given * weight * chosen)
    if NORMALIZE:
        slope = chosen * weight * (given - common)
        slope = slope * away if SIGMOID else slope
    else:
        slope = given * score * away if SIGMOID else score * (given - common)
    tl.store(found + row * n + i, slope.to(found.dtype.element_ty), i < n)


def _constants(experts: int, scoring: str, normalize: bool) -> dict[str, Any]:
    return {"SIGMOID": scoring == "sigmoid", "NORMALIZE": normalize, "BLOCK": block_for(experts)}


def _choose(logits: torch.Tensor, k: int, scoring: str, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if logits.dim() != 2 or not 1 <= k <= logits.shape[1] <= MAX_BLOCK or scoring not in ("softmax", "sigmoid"):
        raise ValueError(
            f"router_topk: logits have shape {tuple(logits.shape)}, k is {k}, scoring {scoring!r}; they must be "
            f"[tokens, experts] with at most {MAX_BLOCK} experts, 1 to experts, and softmax or sigmoid"
        )
    tokens, experts = logits.shape
    matrix = rows_of(logits)
    weights = torch.empty(tokens, k, dtype=torch.float32, device=logits.device)
    indices = torch.empty(tokens, k, dtype=torch.int64, device=logits.device)
    constants = {**_constants(experts, scoring, normalize), "CHOSEN": block_for(k)}
    launch(_forward, (tokens, 1, 1), (matrix, weights, indices, matrix.stride(0), experts, k), constants)
    return weights, indices


def _gradient(
    grad: torch.Tensor, logits: torch.Tensor, indices: torch.Tensor, scoring: str, normalize: bool
) -> torch.Tensor:
    given, matrix, found = rows_of(grad), rows_of(logits), empty_like(logits)
    tokens, experts = logits.shape
    args = (given, matrix, indices, found, given.stride(0), matrix.stride(0), experts, indices.shape[1])
    launch(_backward, (tokens, 1, 1), args, _constants(experts, scoring, normalize))
    return found


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, _, ctx.scoring, ctx.normalize = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, output[1])


def _router_backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[Any, ...]:
    return _gradient_op(grad, *ctx.saved_tensors, ctx.scoring, ctx.normalize), None, None, None


_SCHEMA = "(Tensor logits, int k, str scoring, bool normalize) -> (Tensor, Tensor)"
_gradient_op = define(
    "router_topk_backward",
    "(Tensor grad, Tensor logits, Tensor indices, str scoring, bool normalize) -> Tensor",
    _gradient,
)
_call = define("router_topk", _SCHEMA, _choose, backward=_router_backward, setup=_setup)


def router_topk(
    logits: torch.Tensor, k: int, scoring: str = "softmax", normalize: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (float32) and indices (int64) of the ``k`` experts with the largest ``logits`` [tokens, experts].

    scoring: weights are the "softmax" over all experts, or each one's "sigmoid".
    normalize: the k weights are divided by their sum.
    Both are [tokens, k], the largest logit first; of equal logits, the first expert is taken.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _call(logits, k, scoring, normalize)
    return result


def _reference(logits: torch.Tensor, k: int, scoring: str, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    indices = logits.detach().sort(dim=1, descending=True, stable=True).indices[:, :k]
    if scoring == "softmax" and normalize:  # exactly: logits that are not chosen have no gradient
        return torch.softmax(logits.gather(1, indices), 1), indices
    scores = torch.sigmoid(logits) if scoring == "sigmoid" else torch.softmax(logits, 1)
    weights = scores.gather(1, indices)
    return weights / weights.sum(1, keepdim=True) if normalize else weights, indices


def _bound(args: tuple[Any, ...], grads: Tensors, rounded: float) -> Tensors:
    logits, k, scoring, normalize = args
    weights, indices = _reference(*args)
    n = logits.shape[1]
    below = (logits - logits.amax(1, keepdim=True)).abs() if logits.numel() else logits
    share = torch.softmax(logits, 1)
    wide = 8 + below + (share * below).sum(1, keepdim=True) + added(n)  # a score, relative
    scores = share
    if scoring == "sigmoid":
        wide, scores = torch.full_like(logits, 8.0), torch.sigmoid(logits)
    picked = wide.gather(1, indices)
    errors = picked + ((picked + added(k)) * weights).sum(1, keepdim=True) + 2 if normalize else picked
    common = (grads[0].abs() * weights).sum(1, keepdim=True)
    spread = (grads[0].abs() * weights * (errors + added(n) + 4)).sum(1, keepdim=True)
    slopes = weights * ((grads[0].abs() + common) * (errors + wide.gather(1, indices) + 6) + spread)
    gradient = torch.zeros_like(logits).scatter(1, indices, slopes)
    if not normalize and scoring == "softmax":
        gradient = gradient + scores * (common * (wide + 6) + spread)
    return weights * errors, torch.zeros_like(weights), gradient


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 2).to(dtype)

    for scoring in ("softmax", "sigmoid"):
        for normalize in (True, False):
            about = f"{scoring}, {'normalized' if normalize else 'as it is'}"
            yield Sample(about, (normal(17, 60), 6, scoring, normalize))
    yield Sample("one of two", (normal(5, 2), 1, "softmax", False))
    yield Sample("all experts", (normal(5, 8), 8, "softmax", True))
    yield Sample("equal logits", (torch.zeros(3, 40, dtype=dtype), 4, "softmax", True))
    yield Sample("no tokens", (normal(0, 8), 2, "softmax", True))
    yield Sample("transposed", (normal(64, 9).t(), 2, "softmax", True))
    yield Sample("expanded", (normal(1, 16).expand(5, 16), 2, "sigmoid", True))


OPERATORS = (
    Operator(
        name="router_topk",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("logits",),
        source="written",
        call=router_topk,
        reference=_reference,
        bound=_bound,
        samples=_samples,
        doc="Weights and indices of each token's experts",
    ),
)
