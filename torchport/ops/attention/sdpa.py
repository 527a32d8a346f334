"""PyTorch's fused attention on CPUs by our kernels: operators with its signature, for graphs that are compiled.

``torch.ops.torchport.sdpa`` is ``aten._scaled_dot_product_flash_attention_for_cpu``, ``sdpa_backward`` its gradient:
the same arguments, results and layouts. A causal row m sees keys up to m. The logarithm of a row that a mask leaves
nothing to see is 0, as it is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torchport.ops.attention.call import Optional, of_four, whole_scale
from torchport.ops.attention.configurations import lanes_of, padding
from torchport.ops.attention.flash import attend
from torchport.ops.attention.launches import attended, gradients
from torchport.ops.attention.paired import attended_by_pairs
from torchport.ops.attention.paired_gradients import gradients_by_pairs
from torchport.ops.launch import running_on
from torchport.ops.registry import define
from torchport.runtime.devices.operators import ON_DEVICE
from torchport.target import Target

__all__ = ["by_lanes", "suits_lanes", "takes", "wins", "wins_by_pairs"]

_LEAST_LENGTH = {torch.float32: 512, torch.bfloat16: 128, torch.float16: 128}
"""Lengths from which ours is faster backward (docs/attention.md), on CPUs with AVX-512."""


_LEAST_CAUSAL = {torch.float32: 256, torch.bfloat16: 192, torch.float16: 192}
_LEAST_FULL = 128
_LEAST_FAST = {"AVX512": 128, "AVX2": 192}
"""Forward, float32, causal, where products of ours are faster than the library's."""
_MOST_PADDING = {True: 1.6, False: 1.05}
"""Forward: lengths from which ours is faster, and what blocks may be filled up, by whether it is causal."""

_LEAST_PAIRED_BACKWARD = 16
"""Rows and keys from which ``gradients_by_pairs`` is faster."""
_MANY_PAIRED, _SCORES_PAIRED, _LARGEST_PAIRED = 16, 8192, 256
"""Heads of all sequences, or else scores, from which ``attended_by_pairs`` is: a launch takes 20 us, aten's call 5, and
2 for each head. And the largest head."""

_SIZES = (32, 64, 96, 112, 128, 256)
_MOST_LENGTH = 4096
"""Of float32, beyond which both are alike."""


_LEAST_OF_LANES = 64
_SIZES_OF_LANES = (32, 64, 128)
"""Lengths and sizes of heads at which ``forward_lanes`` is faster than products and a softmax (docs/attention.md)."""


def takes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, mask: Optional) -> bool:
    """Whether our kernels compute this call."""
    alike = query.dtype == key.dtype == value.dtype and query.dtype in _LEAST_LENGTH
    masked = mask is not None and (mask.dim() not in (2, 4) or mask.dtype not in (*_LEAST_LENGTH, torch.bool))
    return alike and not dropout and not masked and query.dim() == 4 and key.shape[1] > 0


def wins(query: torch.Tensor, key: torch.Tensor, causal: bool, backward: bool, level: str, fast: bool = False) -> bool:
    """Whether our kernel is faster than aten's, by shapes and types alone.

    level: the CPU's, as ``torch.backends.cpu.get_cpu_capability()`` names it.
    fast: whether products of the type are faster by ``tl.dot`` than by the library (``Capabilities.fast_products``),
        and there is no mask, which aten adds in less time.
    """
    length, keys, size, narrow = query.shape[2], key.shape[2], query.shape[3], query.dtype != torch.float32
    if level not in ("AVX2", "AVX512"):
        return False
    sizes, shortest, wide = (*_SIZES, 80) if narrow else (32, 64, 128), min(length, keys), level == "AVX512"
    if not backward:
        if causal:
            most = math.inf if narrow or fast else _MOST_LENGTH if wide else 1023
            least = _LEAST_CAUSAL[query.dtype]
            fits = shortest >= (min(least, _LEAST_FAST[level]) if fast else least) and length <= most
        else:
            fits = shortest >= _LEAST_FULL and (fast or (narrow and wide))
        return fits and size in sizes and padding(length, keys) <= _MOST_PADDING[causal]
    if wide:
        fits = shortest >= _LEAST_LENGTH[query.dtype] and (narrow or (causal and length <= _MOST_LENGTH))
        return fits and size in sizes
    if narrow:  # aten multiplies these without instructions for them in its gradients, but not forward
        return shortest >= 64 and size in _SIZES
    return causal and shortest >= 512 and length < 1024 and size in (64, 128)


def wins_by_pairs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, backward: bool = False) -> bool:
    """Whether products of pairs are faster than aten's, on a CPU that has them, by shapes and types alone."""
    batch, heads, length, size = query.shape
    keys = key.shape[2]
    if query.dtype != torch.bfloat16 or size != value.shape[3] or size > _LARGEST_PAIRED:
        return False
    if backward:
        return size >= 32 and size % 16 == 0 and min(length, keys) >= _LEAST_PAIRED_BACKWARD
    scores = batch * heads * length * keys
    of_many = batch * heads >= _MANY_PAIRED and length >= 4 and keys >= 2
    return size >= 4 and (of_many or (length >= 8 and scores >= _SCORES_PAIRED))


def by_lanes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional, dropout: float, causal: bool,
    scale: float | None, shared: bool,
) -> torch.Tensor | None:  # fmt: skip
    """``scaled_dot_product_attention``, if ``suits_lanes``; None otherwise.

    shared: several heads may share one of keys.
    """
    if not suits_lanes(query, key, value, mask, dropout, causal):
        return None
    heads, owners = query.shape[1], key.shape[1]
    if heads != owners and not (shared and owners > 0 and heads % owners == 0):
        return None
    mask = of_four(mask)
    options = whole_scale(query, scale), 0.0, -1, 0 if causal else -1, True, 0.0
    out: torch.Tensor = attend(query, key, value, mask, None, None, None, None, None, 0, 0, *options)[0]
    return out


def suits_lanes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional, dropout: float, causal: bool
) -> bool:
    """Whether kernels compute with one thread's vectors and take sizes of this call.

    They are faster than products and a softmax, but for gradients of heads of 128 without a band (0.8 to 1.0 times),
    where their memory, linear in the length, decides.
    """
    tensors = (query, key, value) if mask is None else (query, key, value, mask)
    known = all(type(size) is int for tensor in tensors for size in tensor.shape)
    if not known or any(tensor.dim() != 4 for tensor in tensors[:3]) or dropout:
        return False
    alike = query.dtype == key.dtype == value.dtype and query.device == key.device == value.device
    fits = query.shape[0] == key.shape[0] and key.shape[:3] == value.shape[:3] and query.shape[3] == key.shape[3]
    if (
        not (alike and fits and query.shape[1] and query.dtype in _LEAST_LENGTH)
        or min(query.shape[2], key.shape[2]) < _LEAST_OF_LANES
    ):
        return False
    if mask is not None and (causal or not _masks(query, key, mask)):
        return False
    return max(query.shape[3], value.shape[3]) in _SIZES_OF_LANES and bool(lanes_of(query.device))


def _masks(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether kernels take ``mask`` for scores of query and key."""
    full = *query.shape[:3], key.shape[2]
    sizes = zip(mask.shape[::-1], full[::-1], strict=False)
    fits = 2 <= mask.dim() <= 4 and all(size in (1, whole) for size, whole in sizes)
    return fits and mask.device == query.device and mask.dtype in (*_LEAST_LENGTH, torch.bool)


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0, is_causal: bool = False, *,
    attn_mask: Optional = None, scale: float | None = None, pairs: bool = False, target: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """As ``_sdpa_backward``; pairs are multiplied by ``attended_by_pairs``."""
    if target:
        with running_on(Target.parse(target)):
            return _sdpa(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale, pairs=pairs)
    found = None
    if pairs and not dropout_p:
        found = attended_by_pairs(query, key, value, of_four(attn_mask), whole_scale(query, scale), is_causal)
    if found is None:
        found = _with_sums(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)
    out, sums = found
    return out, sums if attn_mask is None else torch.where(sums == -torch.inf, 0.0, sums)


def _with_sums(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0, is_causal: bool = False, *,
    attn_mask: Optional = None, scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """``_sdpa``, with -inf as the logarithm of nothing, as ``_sdpa_backward`` takes it, too."""
    return attended(
        query, key, value, of_four(attn_mask), None, None, None, None, None, 0, 0, whole_scale(query, scale), 0.0,
        -1, 0 if is_causal else -1, True, 0.0,
    )  # fmt: skip


def _sdpa_backward(
    grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor,
    logsumexp: torch.Tensor, dropout_p: float, is_causal: bool, *, attn_mask: Optional = None,
    scale: float | None = None, pairs: bool = False, target: str = "",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """pairs: the CPU's products of pairs may be used where they lose nothing (``gradients_by_pairs``).

    target: the level of the CPU that kernels are compiled for; empty for this process's (``target_for``).
    """
    if target:
        with running_on(Target.parse(target)):
            return _sdpa_backward(
                grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, attn_mask=attn_mask, scale=scale,
                pairs=pairs,
            )  # fmt: skip
    if pairs and not dropout_p:
        number = whole_scale(query, scale)
        mask = of_four(attn_mask)
        found = gradients_by_pairs(grad_out, query, key, value, out, logsumexp, mask, number, is_causal)
        if found is not None:
            return found
    return gradients(
        grad_out, None, out, logsumexp, query, key, value, of_four(attn_mask), None, None, None, None, None, 0, 0,
        whole_scale(query, scale), 0.0, -1, 0 if is_causal else -1, True, 0.0, False,
    )[:3]  # fmt: skip


define(
    "sdpa",
    "(Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, Tensor? attn_mask=None, "
    "float? scale=None, bool pairs=False, str target='') -> (Tensor output, Tensor logsumexp)",
    _sdpa,
    below_autograd=True,
)
define(
    "sdpa_backward",
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, float dropout_p, "
    "bool is_causal, *, Tensor? attn_mask=None, float? scale=None, bool pairs=False, str target='') "
    "-> (Tensor grad_query, Tensor grad_key, Tensor grad_value)",
    _sdpa_backward,
    below_autograd=True,
)


def _on_device(target: Target, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call inside a graph for a device with its own memory; query is in that memory, or is copied to it."""
    with running_on(target):
        if not lanes_of(args[0].device):
            return "its program instances are no single threads with vectors"
        return _BODIES[func](*args, **kwargs)


_BODIES: Mapping[Any, Callable[..., Any]] = {
    torch.ops.torchport.sdpa.default: _with_sums,
    torch.ops.torchport.sdpa_backward.default: _sdpa_backward,
}
ON_DEVICE.update(dict.fromkeys(_BODIES, _on_device))
