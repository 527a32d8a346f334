"""Attention on devices that aten's kernel does not reach: by our kernels, or as products and a softmax."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchport.inductor.capture import for_program
from torchport.inductor.scope import current
from torchport.target import Target

__all__ = ["DECOMPOSITIONS", "attention", "attention_backward"]

_aten = torch.ops.aten


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> Any:
    """softmax(query key^T * scale + mask) value, [batch, heads, length, size], and the logarithm of the softmax's sums.

    16-bit floats are computed with in fp32 throughout and rounded at the end. Rows with nothing to attend to give 0.
    """
    if dropout_p != 0.0 or query.shape[1] != key.shape[1]:
        return NotImplemented
    order = sorted(range(4), key=query.stride, reverse=True)
    if _fused(query, key, value, dropout_p, is_causal, attn_mask):
        wide = (_straight(tensor.float()) for tensor in (query, key, value))
        out, sums = torch.ops.torchport.sdpa(*wide, 0.0, is_causal, attn_mask=attn_mask, scale=scale)
        return _stored(out.to(query.dtype), order), sums
    scores = _scores(query, key, is_causal, attn_mask, scale)
    highest = scores.amax(-1, keepdim=True)
    highest = torch.where(highest == -math.inf, 0.0, highest)
    weights = torch.exp(scores - highest)
    total = weights.sum(-1, keepdim=True)
    out = torch.matmul(weights, value.to(scores.dtype)) / torch.where(total == 0, 1.0, total)
    return _stored(out.to(query.dtype), order), (highest + torch.log(total)).squeeze(-1)


def attention_backward(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> Any:
    """Gradients of ``attention`` with respect to query, key and value (Dao et al., FlashAttention, section 3.1)."""
    if dropout_p != 0.0 or query.shape[1] != key.shape[1]:
        return NotImplemented
    if _fused(query, key, value, dropout_p, is_causal, attn_mask):
        wide = (_straight(tensor.float()) for tensor in (query, key, value))
        given, result = (_stored(tensor.float(), (0, 2, 1, 3)) for tensor in (grad_out, out))
        grads = torch.ops.torchport.sdpa_backward(
            given, *wide, result, logsumexp, 0.0, is_causal, attn_mask=attn_mask, scale=scale
        )
        return tuple(grad.to(query.dtype) for grad in grads)
    scores = _scores(query, key, is_causal, attn_mask, scale)
    sums = logsumexp.unsqueeze(-1)
    weights = torch.where(sums == -math.inf, 0.0, torch.exp(scores - sums))
    wide_grad = grad_out.to(scores.dtype)
    grad_value = torch.matmul(weights.transpose(-2, -1), wide_grad)
    grad_weights = torch.matmul(wide_grad, value.to(scores.dtype).transpose(-2, -1))
    grad_scores = weights * (grad_weights - (wide_grad * out.to(scores.dtype)).sum(-1, keepdim=True))
    grad_scores = grad_scores * _scale(query, scale)
    grad_query = torch.matmul(grad_scores, key.to(scores.dtype))
    grad_key = torch.matmul(grad_scores.transpose(-2, -1), query.to(scores.dtype))
    return tuple(_stored(grad.to(query.dtype), (0, 2, 1, 3)) for grad in (grad_query, grad_key, grad_value))


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, causal: bool,
    mask: torch.Tensor | None,
) -> bool:  # fmt: skip
    """Whether the graph is for a device with its own memory on which our kernels are faster."""
    scope = current()
    if scope is None or not scope.settings.own_memory or scope.settings.arithmetic or for_program():
        return False
    ours = importlib.import_module("torchport.ops.attention.sdpa")  # there where a graph has attention
    with ours.running_on(Target.parse(scope.settings.target)):
        suits: bool = ours.suits_lanes(query, key, value, mask, dropout, causal)
    return suits


def _straight(tensor: torch.Tensor) -> torch.Tensor:
    """With the elements of a row side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _scale(query: torch.Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def _scores(
    query: torch.Tensor, key: torch.Tensor, is_causal: bool, mask: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    wide = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
    scores = torch.matmul(query.to(wide), key.to(wide).transpose(-2, -1)) * _scale(query, scale)
    if is_causal:
        rows = torch.arange(scores.shape[-2], device=scores.device).unsqueeze(-1)
        columns = torch.arange(scores.shape[-1], device=scores.device)
        scores = torch.where(columns <= rows, scores, -math.inf)
    if mask is None:
        return scores
    return torch.where(mask, scores, -math.inf) if mask.dtype == torch.bool else scores + mask.to(wide)


def _stored(tensor: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """With its dimensions in memory in ``order``, as the fused kernel stores them: views of the result are taken."""
    back = [order.index(dimension) for dimension in range(len(order))]
    return tensor.permute(*order).contiguous().permute(*back)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
}
"""For devices that the CPU's fused kernel does not reach."""
