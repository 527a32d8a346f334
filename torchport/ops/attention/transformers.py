"""Our attention in Hugging Face transformers: ``attn_implementation="torchport"``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchport.ops.attention.flash import flash_attention

__all__ = ["NAME", "register_attention"]

NAME = "torchport"


def register_attention() -> None:
    """Make ``attn_implementation="torchport"`` known to transformers, in this process.

    Models that choose it (``from_pretrained(..., attn_implementation="torchport")``, or
    ``model.set_attn_implementation("torchport")``) run ``flash_attention``, eager and compiled, on CPUs and on torch
    devices: masks, shared heads, soft caps, sinks, position biases, dropout. Masks are those that transformers makes
    for ``sdpa``. Weights are not returned. Raises ImportError without transformers.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; the result is [batch, length, heads, size].

    Without a mask, a causal module's queries are the first of the sequence: a cache that was allocated for more keys is
    cut (as for ``sdpa``); a single query sees all.
    """
    length, device = query.shape[2], query.device.type
    if torch.is_autocast_enabled(device):  # as for ``sdpa``: rotated queries and keys are float32 there, values are not
        query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal = causal and attention_mask is None and length > 1
    bias = attention_mask
    if causal and key.shape[2] > length:
        key, value = key[:, :, :length], value[:, :, :length]
        position_bias = position_bias[..., :length] if position_bias is not None else None
    if bias is not None:
        bias = bias[..., : key.shape[2]]
    if position_bias is not None:
        bias = position_bias if bias is None else _both(position_bias, bias)
    out = flash_attention(
        query, key, value, causal=causal, scale=scaling, softcap=softcap or 0.0, bias=bias, sinks=s_aux,
        dropout_p=dropout,
    )  # fmt: skip
    return out.transpose(1, 2).contiguous(), None


def _both(bias: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else bias + mask
