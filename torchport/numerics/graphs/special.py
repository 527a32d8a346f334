"""Operations whose float64 value differs from calling PyTorch's operation with float64 tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.numerics.graphs import flex, library

__all__ = ["COPIES", "RULES", "Refused", "kept_by_dropout", "masked"]


class Refused(Exception):
    """Why an operation has no float64 value here."""


# Attention is written here anew, although torchport.inductor.device_attention has the same formulas: a second opinion
# must not share code with what it checks.
def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    mask: torch.Tensor | None,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(scale q kᵀ + mask) v and the logarithms of the sums. Heads of k and v may be fewer (grouped)."""
    if key.shape[-3] != query.shape[-3]:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = _scores(query, key, is_causal, mask, factor)
    weights = torch.nan_to_num(torch.softmax(scores, -1)) if mask is not None else torch.softmax(scores, -1)
    return weights @ value, torch.logsumexp(scores, -1).nan_to_num(neginf=0.0)  # of what is masked altogether: 0


def _flash_attention(
    node: Mapping[str, Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: torch.Tensor | None = None,
    scale: float | None = None,
    pairs: bool = False,
    target: str = "",
) -> Any:
    if dropout_p:
        raise Refused("it draws random numbers; its value must be recorded")
    return _attention(query, key, value, is_causal, attn_mask, scale)


def _flash_attention_backward(
    node: Mapping[str, Any],
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
    pairs: bool = False,
    target: str = "",
) -> Any:
    if dropout_p:
        raise Refused("it draws random numbers; its value must be recorded")
    return _attention_gradients(grad_out, query, key, value, out, logsumexp, is_causal, attn_mask, scale)


def _attention_gradients(
    grad_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    is_causal: bool,
    mask: torch.Tensor | None,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients from the forward pass's recorded results, as in FlashAttention (Dao et al., NeurIPS 2022, algorithm 4).

    The rounding of these results is an error of the forward pass, not of this operation.
    """
    owners, times = key.shape[-3], query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weights = torch.exp(_scores(query, key, is_causal, mask, factor) - logsumexp.unsqueeze(-1))
    weights = torch.nan_to_num(weights) if mask is not None else weights
    inner = grad_out @ value.transpose(-2, -1) - (grad_out * out).sum(-1, keepdim=True)
    scores = weights * inner * factor
    shared = scores.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ grad_out
    grad_key, grad_value = (one.unflatten(-3, (owners, times)).sum(-3) for one in shared)
    return scores @ key, grad_key, grad_value


def _scores(
    query: torch.Tensor, key: torch.Tensor, is_causal: bool, mask: torch.Tensor | None, factor: float
) -> torch.Tensor:
    return masked(query @ key.transpose(-2, -1) * factor, is_causal, mask)


def masked(scores: torch.Tensor, is_causal: bool, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention's scores [..., queries, keys] with ``mask`` (boolean or added) and, if causal, without later keys."""
    if is_causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).tril().logical_not()
        scores = scores.masked_fill(ahead, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores


def _softmax(node: Mapping[str, Any], x: torch.Tensor, dim: int, half_to_float: bool) -> Any:
    return torch.softmax(x, dim)


def _log_softmax(node: Mapping[str, Any], x: torch.Tensor, dim: int, half_to_float: bool) -> Any:
    return torch.log_softmax(x, dim)


def _weight_int8pack_mm(node: Mapping[str, Any], x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> Any:
    return x @ weight.to(x.dtype).T * scales


def _scaled_mm(
    node: Mapping[str, Any],
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale_result: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Any:
    for scale in (scale_a, scale_b):
        if scale.numel() != 1 and scale.dim() == 2 and 1 not in scale.shape:
            raise Refused("scales of blocks are not implemented here")
    product = (a @ b) * scale_a * scale_b
    product = product if bias is None else product + bias
    return product if scale_result is None else product * scale_result


def _view_dtype(node: Mapping[str, Any], x: torch.Tensor, dtype: torch.dtype) -> Any:
    """The result depends on bits: floats are first rounded to their type in the graph."""
    return x.to(_argument(node, "dtype")).view(dtype) if x.is_floating_point() else x.view(dtype)


def _reshape(node: Mapping[str, Any], x: torch.Tensor, shape: list[int]) -> Any:
    return x.reshape(shape)  # strides need not be the graph's


def _as_strided(
    node: Mapping[str, Any], x: torch.Tensor, size: list[int], stride: list[int], storage_offset: int | None = None
) -> Any:
    """The result depends on the graph's strides, which the float64 value may not have."""
    return torch.as_strided(_laid_out(node, x), size, stride, storage_offset or 0)


def _as_strided_scatter(
    node: Mapping[str, Any],
    x: torch.Tensor,
    source: torch.Tensor,
    size: list[int],
    stride: list[int],
    storage_offset: int | None = None,
) -> Any:
    return torch.as_strided_scatter(_laid_out(node, x), source, size, stride, storage_offset or 0)


def _laid_out(node: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor:
    """A node's first argument with the strides that it has in the graph."""
    wanted = _argument(node, "stride")
    if wanted is None or not all(isinstance(one, int) for one in wanted):
        raise Refused("it depends on strides that the graph does not have")
    return x if list(x.stride()) == wanted else torch.empty_strided(x.shape, wanted, dtype=x.dtype).copy_(x)


def _argument(node: Mapping[str, Any], what: str) -> Any:
    """The dtype or the strides of a node's first argument in the graph."""
    value = node.get("first")
    if not isinstance(value, dict) or what not in value:
        raise Refused(f"the graph does not have the {what} of its argument")
    return getattr(torch, value[what]) if what == "dtype" else value[what]


def _convert(node: Mapping[str, Any], x: Any, dtype: torch.dtype) -> Any:
    """Conversions between floating-point types do not round; those to 8 bits saturate, as Triton's do."""
    value = torch.as_tensor(x)
    if dtype.is_floating_point and value.is_floating_point():
        if dtype.itemsize > 1:
            return value
        largest = format_of(dtype).largest
        return torch.where(torch.isinf(value), value, value.clamp(-largest, largest))
    return value.to(torch.float64 if dtype.is_floating_point else dtype)


def _copy(node: Mapping[str, Any], to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
    return source.to(to.dtype).expand(to.shape).clone()


def _copy_into(node: Mapping[str, Any], to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
    return (to if node["own"] else to.clone()).copy_(source)


def _embedding_bag(node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Results that are not needed in float32 are empty in the graph, but not always in float64."""
    results = torch.ops.aten._embedding_bag.default(*args, **kwargs)
    empty = [isinstance(one, Mapping) and 0 in one["shape"] for one in node["value"]]
    return tuple(one.new_empty(0) if no else one for one, no in zip(results, empty, strict=True))


def _same_elements(node: Mapping[str, Any], x: torch.Tensor, strides: Any) -> Any:
    """A copy in another layout in memory."""
    return x


def _batch_norm(
    node: Mapping[str, Any], x: torch.Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any
) -> Any:
    """The operator updates the running mean and variance, which its schema does not say."""
    mean, variance = (None if one is None else one.clone() for one in (mean, variance))
    return torch.ops.aten.native_batch_norm.default(x, weight, bias, mean, variance, *rest)


def _fma(node: Mapping[str, Any], a: Any, b: Any, c: Any) -> Any:
    return a * b + c


def _lookup_seed(node: Mapping[str, Any], seeds: torch.Tensor, index: int) -> Any:
    return seeds[index]


def _seeds(node: Mapping[str, Any], *args: Any) -> Any:
    raise Refused("it draws random numbers; its value must be recorded")


def _philox(seed: int, c0: torch.Tensor, c1: Any = 0, c2: Any = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two of the four 32-bit results of Philox 4x32-10 (Salmon et al., SC 2011) as Triton has them:
    counter (c0, c1, c2, 0), which are int64 below 2**32 and broadcast, key the seed's two halves. As int64.
    """
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = torch.broadcast_tensors(c0, *(torch.as_tensor(one) for one in (c1, c2, 0)))
    k0, k1 = seed & low, (seed >> 32) & low
    for _ in range(10):
        high_b, low_b = _product(0xCD9E8D57, c2)
        high_a, low_a = _product(0xD2511F53, c0)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0, c1


def _product(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low 32 bits of a * b, both below 2**32."""
    first, second = a * (b & 0xFFFF), a * (b >> 16)
    total = (first >> 16) + second
    return total >> 16, ((total & 0xFFFF) << 16) | (first & 0xFFFF)


def _uniform(bits: torch.Tensor) -> torch.Tensor:
    signed = torch.where(bits >= 2**31, bits - 2**32, bits)
    positive = torch.where(signed < 0, -signed - 1, signed)
    return positive.to(torch.float32) * 4.6566127342e-10


def kept_by_dropout(seed: int, share: float, first: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """What the dropout of torchport's attention multiplies weights [heads, rows, keys] by, 0 or 1 / (1 - share).

    ``first``: number of the first head in the batch.
    """
    heads, rows, columns = (torch.arange(size) for size in shape)
    bits, _ = _philox(seed, columns, rows[:, None], heads[:, None, None] + first)
    return torch.where(_uniform(bits) >= share, 1 / (1 - share), 0.0).double()


def _random(
    node: Mapping[str, Any], size: list[int], seed: torch.Tensor, mode: str, *, offset: int = 0, **_: Any
) -> Any:
    """Inductor's random numbers: float32 values that follow from the recorded seed."""
    if seed.numel() != 1:
        raise Refused("it draws random numbers as CUDA does; its value must be recorded")
    places = torch.arange(offset, offset + math.prod(size)) & 0xFFFFFFFF
    first, second = (_uniform(bits) for bits in _philox(int(seed), places))
    if mode == "randn":
        radius = torch.sqrt(-2 * torch.log(first.to(torch.float64).clamp_min(1e-7)))
        first = radius * torch.cos(2 * math.pi * second.to(torch.float64))
    return first.reshape(size)


def _mkl_linear(
    node: Mapping[str, Any],
    x: torch.Tensor,
    packed: Any,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    batch: int | None = None,
) -> torch.Tensor:
    """What freezing makes of a linear layer; the packed weight is a copy of ``weight``."""
    return torch.nn.functional.linear(x, weight, bias)


COPIES = {"mkl._mkl_linear.default": 1}
"""By target, the place of an operand that holds what another one holds, in a layout of the library's own."""

RULES: Mapping[str, Callable[..., Any]] = {
    **library.RULES,
    **flex.RULES,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _flash_attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": _flash_attention_backward,
    "torchport.sdpa.default": _flash_attention,
    "torchport.sdpa_backward.default": _flash_attention_backward,
    "aten._softmax.default": _softmax,
    "aten._log_softmax.default": _log_softmax,
    "aten._weight_int8pack_mm.default": _weight_int8pack_mm,
    "aten._scaled_mm.default": _scaled_mm,
    "aten.view.dtype": _view_dtype,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.as_strided.default": _as_strided,
    "aten.as_strided_scatter.default": _as_strided_scatter,
    "aten.copy.default": _copy,
    "aten.copy_.default": _copy_into,
    "aten._embedding_bag.default": _embedding_bag,
    "aten.native_batch_norm.default": _batch_norm,
    "mkl._mkl_linear.default": _mkl_linear,
    "prims.convert_element_type.default": _convert,
    "prims.fma.default": _fma,
    "prims.inductor_force_stride_order.default": _same_elements,
    "prims.inductor_lookup_seed.default": _lookup_seed,
    "prims.inductor_seeds.default": _seeds,
    "prims.inductor_seed.default": _seeds,
    "prims.inductor_random.default": _random,
}
"""By target: called with the node and its arguments, floats in float64. They may raise Refused.

The node has two entries more than in the dump: ``first``, the ``value`` of the node that is its first argument, and
``own``, whether that may be written into.
"""
