"""PyTorch's fused attention on CPUs by our kernels: operators with its signature, for graphs that are compiled.

``torch.ops.torchport.sdpa`` is ``aten._scaled_dot_product_flash_attention_for_cpu``, ``sdpa_backward`` its gradient:
the same arguments, results and layouts. A causal row m sees keys up to m. The logarithm of a row that a mask leaves
nothing to see is 0, as it is there.
"""

from __future__ import annotations

import torch

from torchport.ops.attention.call import Optional, whole_scale
from torchport.ops.attention.configurations import lanes_of
from torchport.ops.attention.flash import attend, attended, gradients
from torchport.ops.registry import define

__all__ = ["by_lanes", "takes", "wins"]

_LEAST_LENGTH = {torch.float32: 512, torch.bfloat16: 128, torch.float16: 128}
"""Lengths from which ours is faster (docs/attention.md), on CPUs with AVX-512."""


_SIZES = (32, 64, 96, 112, 128, 256)
_MOST_LENGTH = 4096
"""Of float32, beyond which both are alike."""


_LEAST_OF_LANES = 64
_SIZES_OF_LANES = (32, 64, 128)
"""Lengths and sizes of heads at which ``forward_lanes`` is faster than products and a softmax (docs/attention.md)."""


def takes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, mask: Optional) -> bool:
    """Whether our kernels compute this call."""
    alike = query.dtype == key.dtype == value.dtype and query.dtype in _LEAST_LENGTH
    masked = mask is not None and (mask.dim() != 4 or mask.dtype not in (*_LEAST_LENGTH, torch.bool))
    return alike and not dropout and not masked and query.dim() == 4 and key.shape[1] > 0


def wins(query: torch.Tensor, key: torch.Tensor, causal: bool, backward: bool, level: str) -> bool:
    """Whether our kernel is faster than aten's, by shapes and types alone.

    level: the CPU's, as ``torch.backends.cpu.get_cpu_capability()`` names it.
    """
    length, size, narrow = query.shape[2], query.shape[3], query.dtype != torch.float32
    shortest = min(length, key.shape[2])
    if level == "AVX2":
        # aten multiplies 16-bit matrices without instructions for them in its gradients, but not forward.
        if narrow and backward:
            return shortest >= 64 and size in _SIZES
        return causal and shortest >= 512 and (narrow or length < 1024) and size in (64, 128)
    if level != "AVX512" or shortest < _LEAST_LENGTH[query.dtype]:
        return False
    if narrow:
        return size in (*_SIZES, 80)
    return causal and length <= _MOST_LENGTH and size in (32, 64, 128)


def by_lanes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional, dropout: float, causal: bool,
    scale: float | None, shared: bool,
) -> torch.Tensor | None:  # fmt: skip
    """``scaled_dot_product_attention``, if kernels compute with one thread's vectors and are faster than products and a
    softmax; None otherwise.

    shared: several heads may share one of keys.
    """
    tensors = query, key, value
    known = all(type(size) is int for tensor in tensors for size in tensor.shape)
    if not known or any(tensor.dim() != 4 for tensor in tensors) or mask is not None or dropout:
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None  # the kernels of gradients are slower than products
    heads, owners = query.shape[1], key.shape[1]
    alike = query.dtype == key.dtype == value.dtype and query.device == key.device == value.device
    fits = (
        query.shape[0] == key.shape[0] == value.shape[0] and owners == value.shape[1] and key.shape[2] == value.shape[2]
    )
    divides = owners == heads or (shared and owners > 0 and heads % owners == 0)
    if not (alike and fits and divides and query.dtype in _LEAST_LENGTH and query.shape[3] == key.shape[3]):
        return None
    size = max(query.shape[3], value.shape[3])
    if min(query.shape[2], key.shape[2]) < _LEAST_OF_LANES or size not in _SIZES_OF_LANES or not lanes_of(query.device):
        return None
    options = whole_scale(query, scale), 0.0, -1, 0 if causal else -1, True, 0.0
    out: torch.Tensor = attend(query, key, value, None, None, None, None, None, None, 0, 0, *options)[0]
    return out


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0, is_causal: bool = False, *,
    attn_mask: Optional = None, scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    out, sums = attended(
        query, key, value, attn_mask, None, None, None, None, None, 0, 0, whole_scale(query, scale), 0.0, -1,
        0 if is_causal else -1, True, 0.0,
    )  # fmt: skip
    return out, sums if attn_mask is None else torch.where(sums == -torch.inf, 0.0, sums)


def _sdpa_backward(
    grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
    logsumexp: torch.Tensor, dropout_p: float, is_causal: bool, *, attn_mask: Optional = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return gradients(
        grad_out, None, out, logsumexp, query, key, value, attn_mask, None, None, None, None, None, 0, 0,
        whole_scale(query, scale), 0.0, -1, 0 if is_causal else -1, True, 0.0, False,
    )[:3]  # fmt: skip


define(
    "sdpa",
    "(Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, Tensor? attn_mask=None, "
    "float? scale=None) -> (Tensor output, Tensor logsumexp)",
    _sdpa,
    below_autograd=True,
)
define(
    "sdpa_backward",
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, float dropout_p, "
    "bool is_causal, *, Tensor? attn_mask=None, float? scale=None) "
    "-> (Tensor grad_query, Tensor grad_key, Tensor grad_value)",
    _sdpa_backward,
    below_autograd=True,
)
