"""What ``torch.nn.TransformerEncoderLayer`` and ``MultiheadAttention`` call without gradients: one operator each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn.functional import gelu, layer_norm, linear, relu

__all__ = ["COMPOSED"]

Tensor = torch.Tensor


def _attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, qkv_weight: Tensor, qkv_bias: Tensor,
    proj_weight: Tensor, proj_bias: Tensor, mask: Tensor | None = None, need_weights: bool = True,
    average_attn_weights: bool = True, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """``aten._native_multi_head_attention``: results, and the weights of the keys, averaged over heads if asked for.

    mask: of keys for each query (``mask_type`` 0), each batch (1), or for all of batch, head and query (2).
    """
    if query.dim() != 3 or query.is_nested or (mask is not None and mask_type not in (0, 1, 2)):
        return NotImplemented

    def heads(x: Tensor, part: int) -> Tensor:
        rows = slice(part * embed_dim, (part + 1) * embed_dim)
        made: Tensor = linear(x, qkv_weight[rows], qkv_bias[rows])
        return made.reshape(*made.shape[:2], num_head, embed_dim // num_head).transpose(1, 2)

    scores = heads(query, 0) @ heads(key, 1).transpose(-2, -1) / (embed_dim // num_head) ** 0.5
    if mask is not None:
        where = mask[:, None, None] if mask_type == 1 else mask
        scores = scores.masked_fill(where, float("-inf")) if where.dtype == torch.bool else scores + where
    weights = scores.softmax(-1)
    made = linear((weights @ heads(value, 2)).transpose(1, 2).flatten(2), proj_weight, proj_bias)
    if not need_weights:
        return made, query.new_empty(0)
    return made, weights.mean(1) if average_attn_weights else weights


def _encoder_layer(
    src: Tensor, embed_dim: int, num_heads: int, qkv_weight: Tensor, qkv_bias: Tensor, proj_weight: Tensor,
    proj_bias: Tensor, use_gelu: bool, norm_first: bool, eps: float, norm_weight_1: Tensor, norm_bias_1: Tensor,
    norm_weight_2: Tensor, norm_bias_2: Tensor, ffn_weight_1: Tensor, ffn_bias_1: Tensor, ffn_weight_2: Tensor,
    ffn_bias_2: Tensor, mask: Tensor | None = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """``aten._transformer_encoder_layer_fwd``."""

    def first(x: Tensor) -> Tensor:
        return layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(x: Tensor) -> Tensor:
        return layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    def feed_forward(x: Tensor) -> Tensor:
        return linear((gelu if use_gelu else relu)(linear(x, ffn_weight_1, ffn_bias_1)), ffn_weight_2, ffn_bias_2)

    x = first(src) if norm_first else src
    weights = embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias
    attended = _attention(x, x, x, *weights, mask, False, True, mask_type)
    if attended is NotImplemented:
        return NotImplemented
    x = src + attended[0]
    return x + feed_forward(second(x)) if norm_first else second((x := first(x)) + feed_forward(x))


COMPOSED: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        torch.ops.aten._native_multi_head_attention.default: _attention,
        torch.ops.aten._transformer_encoder_layer_fwd.default: _encoder_layer,
    }
)
