"""``scaled_dot_product_attention`` on the device: by our kernel where that is faster, else as torch composes it."""

from __future__ import annotations

import importlib
from typing import Any

import torch

__all__ = ["attention"]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``aten.scaled_dot_product_attention``."""
    ours = importlib.import_module("torchport.ops.attention.sdpa")  # at the first call: it takes a while
    found = ours.by_lanes(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if found is not None:
        return found
    composed = torch.ops.aten.scaled_dot_product_attention.default.decompose
    return composed(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
