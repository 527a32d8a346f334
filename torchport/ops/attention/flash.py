"""Attention over whole sequences: ``flash_attention``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchport.ops import kinds
from torchport.ops.attention.call import Optional, of_four, whole_scale
from torchport.ops.attention.checks import about, bounds, check, longest
from torchport.ops.attention.launches import attended, gradients
from torchport.ops.attention.reference import bound, reference, samples
from torchport.ops.attention.totals import attention_totals
from torchport.ops.registry import FLOATS, Operator, define

__all__ = ["OPERATORS", "attend", "flash_attention"]


_TENSORS = (
    "Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? sinks, Tensor? slopes, Tensor? query_starts, "
    "Tensor? key_starts, Tensor? seed"
)
_NUMBERS = "SymInt length, SymInt keys, float scale, float cap, int left, int right, bool top_left, float dropout"
_backward_op = define(
    "flash_attention_backward",
    f"(Tensor grad, Tensor? grad_sums, Tensor out, Tensor sums, {_TENSORS}, {_NUMBERS}, bool of_bias) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    gradients,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.numbers = inputs[9:]
    ctx.of_bias = inputs[3] is not None and inputs[3].requires_grad
    ctx.save_for_backward(*output, *inputs[:9])


def _gradients(ctx: Any, grad: torch.Tensor, grad_sums: Optional) -> tuple[Any, ...]:
    saved: Sequence[Any] = ctx.saved_tensors
    found = _backward_op(grad, grad_sums, *saved, *ctx.numbers, ctx.of_bias)
    bias, sinks = saved[5], saved[6]
    of_bias = found[3] if bias is not None and ctx.of_bias else None
    return *found[:3], of_bias, found[4] if sinks is not None else None, *(None,) * 12


_SCHEMA = f"({_TENSORS}, {_NUMBERS}) -> (Tensor, Tensor)"
attend = define("flash_attention", _SCHEMA, attended, backward=_gradients, setup=_setup)


def flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: tuple[int, int] | None = None,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int | torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    top_left: bool = False,
    return_lse: bool = False,
    return_total_attention: bool = False,
) -> Any:
    """softmax(scores) value, scores = query key^T * scale: FlashAttention-2 (Dao, arXiv 2307.08691), with gradients.

    query: [batch, heads, length, size]; key: [batch, heads of keys, keys, size]; value: [batch, heads of keys, keys,
    size of values]; float32, bfloat16, float16, float8_e4m3fn or float8_e5m2 (which give bfloat16). Heads of keys
    divide heads: several heads share one.

    Packed: with ``cu_seqlens_q`` and ``cu_seqlens_k`` ([batch + 1], int32 or int64: where sequences begin, ascending
    from 0 to the number of tokens) tensors are [tokens, heads, size]. ``max_seqlen_q`` and ``max_seqlen_k``, the
    longest sequences, spare a look at them; sequences longer than that are an error of the caller's.

    causal: row m sees keys up to m + shift, where shift = keys - length (the last row sees all), or 0 if ``top_left``.
    window: (left, right): row m sees keys from m + shift - left to m + shift + right; -1 for no bound.
    scale: 1 / sqrt(size) if not given. softcap: scores become softcap * tanh(scores / softcap), if it is not 0.
    bias: added to scores, broadcast to [batch, heads, length, keys]; a tensor of booleans says what is seen.
    sinks: [heads], a score of its own in each row's softmax that has no value (as in gpt-oss).
    alibi_slopes: [heads] or [batch, heads]: slope * |m + shift - n| is taken from scores (arXiv 2108.12409), without a
    gradient.
    dropout_p: this share of weights becomes 0, others are divided by 1 - dropout_p, by Philox numbers that follow from
    ``seed`` (an int, or an int64 tensor of one element; drawn from torch's generator if not given) and place alone:
    the same on every target.

    Returns [batch, heads, length, size of values] (or packed), rows with nothing to see 0; with ``return_lse`` also
    log(sum(exp(scores))), float32 [batch, heads, length] or [tokens, heads], -inf in such rows; with
    ``return_total_attention`` also the sums of weights over rows, float32 [batch, heads, keys] or [tokens, heads],
    without a gradient, before dropout. Gradients are the same bits in every run.

    Raises ValueError if shapes, dtypes or options do not fit together, TypeError if one is of another kind.
    """
    name = "flash_attention"
    kinds.tensors(name, query=query, key=key, value=value)
    query_starts, key_starts = cu_seqlens_q, cu_seqlens_k
    kinds.optional_tensors(
        name, bias=bias, sinks=sinks, alibi_slopes=alibi_slopes, cu_seqlens_q=query_starts, cu_seqlens_k=key_starts
    )
    kinds.flags(
        name, causal=causal, top_left=top_left, return_lse=return_lse, return_total_attention=return_total_attention
    )
    kinds.numbers(name, softcap=softcap, dropout_p=dropout_p, scale=0.0 if scale is None else scale)
    check(name, query, key, value, bias, sinks, alibi_slopes, query_starts, key_starts, dropout_p, softcap)
    left, right = bounds(window)
    if causal:
        right = 0
    bias = of_four(bias)
    draws = None
    if dropout_p > 0:
        draws = _seed(seed, query.device)
    length = keys = 0
    if query_starts is not None and key_starts is not None:
        length = longest(query_starts, query) if max_seqlen_q is None else max_seqlen_q
        keys = longest(key_starts, key) if max_seqlen_k is None else max_seqlen_k
        kinds.integers(name, max_seqlen_q=length, max_seqlen_k=keys)
    numbers = length, keys, whole_scale(query, scale), softcap, left, right, top_left
    out, lse = attend(
        query, key, value, bias, sinks, alibi_slopes, query_starts, key_starts, draws, *numbers, dropout_p
    )
    more = [lse] if return_lse else []
    if return_total_attention:
        with torch.no_grad():
            more.append(attention_totals(query, key, lse, bias, alibi_slopes, query_starts, key_starts, *numbers))
    return (out, *more) if more else out


def _seed(seed: int | torch.Tensor | None, device: torch.device) -> torch.Tensor:
    if seed is None:
        return torch.randint(0x7FFFFFFFFFFFFFFF, (1,), device=device)
    if isinstance(seed, torch.Tensor):
        if seed.numel() != 1 or seed.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"flash_attention: seed is {about(seed)}; it must be an int, or a tensor of one element, int64 or int32"
            )
        return seed.to(torch.int64).reshape(1)
    kinds.integers("flash_attention", seed=seed)
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Optional, sinks: Optional, slopes: Optional,
    query_starts: Optional, key_starts: Optional, seed: Optional, length: int, keys: int, scale: float, cap: float,
    left: int, right: int, top_left: bool, dropout: float,
) -> Any:  # fmt: skip
    """``flash_attention`` with all arguments in the schema's order."""
    return attend(
        query, key, value, bias, sinks, slopes, query_starts, key_starts, seed, length, keys, scale, cap, left, right,
        top_left, dropout,
    )  # fmt: skip


OPERATORS = (
    Operator(
        name="flash_attention",
        schema=_SCHEMA,
        dtypes=FLOATS,
        differentiable=("query", "key", "value", "bias", "sinks"),
        source="written",
        call=_attend,
        reference=reference,
        bound=bound,
        samples=samples,
        doc="Attention: masks, windows, packed sequences, shared heads, sinks, dropout",
    ),
)
