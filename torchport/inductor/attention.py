"""Attention of compiled graphs: by our kernel where it is faster than aten's, as products and a softmax on devices."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["DECOMPOSITIONS", "attention", "attention_backward", "take_kernels"]

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
    scores = _scores(query, key, is_causal, attn_mask, scale)
    highest = scores.amax(-1, keepdim=True)
    highest = torch.where(highest == -math.inf, 0.0, highest)
    weights = torch.exp(scores - highest)
    total = weights.sum(-1, keepdim=True)
    out = torch.matmul(weights, value.to(scores.dtype)) / torch.where(total == 0, 1.0, total)
    order = sorted(range(4), key=query.stride, reverse=True)
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


def take_kernels(graph: torch.fx.Graph) -> None:
    """aten's fused attention on the CPU becomes ours (``torchport.ops.attention.sdpa``) where that is faster."""
    names = {
        _aten._scaled_dot_product_flash_attention_for_cpu.default: ("sdpa", 0),
        _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: ("sdpa_backward", 1),
    }
    level = torch.backends.cpu.get_cpu_capability()
    for target, (name, first) in names.items():
        for node in graph.find_nodes(op="call_function", target=target):
            ours = importlib.import_module("torchport.ops.attention.sdpa")  # there where a graph has attention
            tensors = [argument.meta["val"] for argument in node.args[first : first + 3]]
            dropout, causal = node.args[6:8] if first else (*node.args[3:], *(0.0, False)[len(node.args) - 3 :])
            mask = node.kwargs.get("attn_mask")
            mask = mask.meta["val"] if isinstance(mask, torch.fx.Node) else mask
            known = all(type(size) is int for tensor in tensors for size in tensor.shape)
            if (
                known
                and ours.takes(*tensors, dropout, mask)
                and ours.wins(tensors[0], tensors[1], causal, bool(first), level)
            ):
                node.target = getattr(torch.ops.torchport, name).default
